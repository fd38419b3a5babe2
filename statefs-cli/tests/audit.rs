//! `audit`: who did what, from the volume of a real daemon.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use common::daemon::Daemon;
use common::{Folder, statefs, statefs_with};

const SOME: &str = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [\"admin.audit\"]\n\
                    [[grant]]\nto = \"tester\"\nprefix = \"/state/net\"\n\
                    rights = [\"get\", \"put\", \"delete\"]\n";

/// What stands behind the time: outcome, who, what, which key, by which rule.
fn said(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let said = text.lines().map(|line| {
        let words = words(line);
        assert!(
            words[1].len() == 24 && words[1].starts_with("20"),
            "a time of the calendar: {line}"
        );
        [&words[..1], &words[2..]].concat().join(" ")
    });
    said.collect()
}

#[test]
fn what_was_changed_and_what_was_refused_is_told() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "16M", SOME);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    assert!(run("stat").exits(0).text().contains(" audit\n"), "it is among what is served");
    assert_eq!(run("audit").exits(0).text(), "");
    let version = run("put /state/net/ssid hunter2").exits(0).text().trim().to_owned();
    run("put /state/net/ssid hunter3 --if-absent").exits(4);
    run("put /state/boot/slot hunter4").exits(5);
    statefs_with(folder.path(), "put /state/net/large -", &[b'x'; 200_000]).exits(0);
    run("delete /state/net/ssid").exits(0);
    daemon.stop();
    daemon.restart();
    let told = said(run("audit").exits(0).text());
    assert_eq!(told.len(), 3, "{told:?}");
    let rule = "(grant at line 8)".trim_matches(['(', ')']);
    assert_eq!(told[0], format!("1 applied tester put /state/net/ssid {rule} version {version}"));
    assert!(told[1].starts_with(&format!("2 applied tester put /state/net/large {rule} version ")));
    assert_eq!(told[2], format!("3 applied tester delete /state/net/ssid {rule}"));
    let denied = run("audit --denials").exits(0).text().to_owned();
    let missing = "1 denied tester put /state/boot/slot no grant to = \"tester\", \
                   prefix = \"/state/boot/slot\", rights = [\"put\"]";
    assert_eq!(said(&denied), [missing]);
    assert!(!format!("{told:?}{denied}").contains("hunter"));

    // A page of it, from anywhere, for machines.
    let json = run("audit --after 1 --limit 1 -o json").exits(0).text().to_owned();
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&record["sequence"], &record["key"]), (&2.into(), &"/state/net/large".into()));
    assert_eq!(record["version"].as_str().unwrap().len(), 16);

    // Who was not granted it learns nothing.
    let folder = Folder::new();
    let grant = SOME.replace("admin.audit", "admin.stats");
    let _daemon = Daemon::start(folder.path(), "16M", &grant);
    for (verb, right) in [("audit", "admin.audit"), ("admin reload", "admin.policy")] {
        let denied = statefs(folder.path(), verb).exits(5);
        assert!(denied.stderr.contains(&format!("the right `{right}` on /state")), "{denied:?}");
    }
}

#[test]
fn a_small_volume_says_that_it_keeps_none() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", SOME);
    let run = statefs(folder.path(), "audit").exits(1);
    assert!(run.stderr.starts_with("statefs: UNIMPLEMENTED: "), "{}", run.stderr);
    // Another release of either program would keep none either.
    assert!(!run.stderr.contains("the daemon is older or newer"), "{}", run.stderr);
    assert!(!statefs(folder.path(), "stat").exits(0).text().contains(" audit\n"));
}
