//! The daemon's figures, to who may have them and to who may not.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::{Folder, statefs};
use serde_json::Value as Json;

/// The rights on keys, and these of administration.
fn grant(admin: &str) -> String {
    let rights = "\"get\", \"list\", \"put\", \"delete\"";
    format!("[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [{rights}, {admin}]\n")
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn who_may_have_the_figures_sees_them_with_health() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "16M", &grant("\"admin.stats\", \"admin.check\""));
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    run("put /state/a one");
    let text = run("health").text().to_owned();
    let told = lines(&text);
    assert_eq!(told[0], "healthy");
    assert_eq!(told[1], "keys: 1");
    assert!(told[2].starts_with("space: ") && told[2].ends_with(" MiB free"), "{text}");
    assert_eq!(told[3], "checkpoint: 0.0 MiB of log since the last one");
    assert_eq!(told[4], "check: none since the start");
    assert_eq!(told[5..], ["repairs: 0 copies since the start"]);
    run("admin check");
    assert_eq!(lines(run("health").text())[4], "check: done, 0 losses");

    // All of them, by the names that `admin stats` has.
    let object = |arguments: &str| -> Json { serde_json::from_str(run(arguments).text()).unwrap() };
    let names = |object: &Json| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = names(&object("admin stats -o json"));
    assert!(all.contains(&"free_bytes".to_owned()) && all.contains(&"checks_total".to_owned()));
    let health = object("health -o json");
    assert_eq!(names(&health["counters"]), all);
    assert_eq!(
        (&health["counters"]["checks_total"], &health["mode"]),
        (&1.into(), &"healthy".into())
    );
    let stat = object("stat -o json");
    assert_eq!(names(&stat["counters"]), all);
    assert_eq!(stat["adminRights"], serde_json::json!(["admin.stats", "admin.check"]));
    let stat = run("stat");
    assert!(stat.text().contains("\nadminRights: admin.stats admin.check\n"), "{}", stat.text());
    assert!(stat.text().contains("\ncounters.checks_total: 1\n"), "{}", stat.text());
    // A key has figures of its own, and no others.
    assert_eq!(run("stat /state/a").text().lines().count(), 2);
}

#[test]
fn a_check_under_way_is_told_by_how_far_it_came() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "16M", &grant("\"admin.stats\", \"admin.check\""));
    statefs(folder.path(), "put /state/a one").exits(0);
    let mut check = Command::new(env!("CARGO_BIN_EXE_statefs"))
        .args(["admin", "check", "--rate", "1"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let told = loop {
        let text = statefs(folder.path(), "health").exits(0).text().to_owned();
        let line = lines(&text)[4].to_owned();
        if line != "check: none since the start" {
            break line;
        }
    };
    check.kill().unwrap();
    check.wait().unwrap();
    let count = told.strip_prefix("check: ").and_then(|told| told.strip_suffix(" segments read"));
    let (read, all) = count.unwrap().split_once(" of ").unwrap();
    let (read, all): (u32, u32) = (read.parse().unwrap(), all.parse().unwrap());
    assert!(read < all, "{told}");
}

#[test]
fn who_may_not_is_told_so_and_nothing_of_it_is_recorded_as_a_refusal() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "16M", &grant("\"admin.audit\""));
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    let hint = "statefs: the daemon's figures take the right admin.stats\n";
    let health = run("health");
    assert_eq!((health.text(), &*health.stderr), ("healthy\n", hint));
    let json = run("health -o json");
    assert_eq!(
        (json.text(), &*json.stderr),
        ("{\"counters\":null,\"lossCount\":0,\"mode\":\"healthy\",\"reason\":\"\"}\n", "")
    );
    let stat = run("stat");
    assert!(!stat.text().contains("counters"), "{}", stat.text());
    assert_eq!(stat.stderr, hint);
    // The first refusal is this one.
    statefs(folder.path(), "admin checkpoint").exits(5);
    let denials = loop {
        let told = run("audit --denials -o json").text().to_owned();
        if !told.is_empty() {
            break told;
        }
    };
    let record: Json = serde_json::from_str(denials.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&record["operation"], &record["sequence"]),
        (&"admin.checkpoint".into(), &1.into())
    );
}
