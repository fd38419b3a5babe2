//! `commit`: all of a file or nothing, and a line for each fault. `usage`: what is stored, and may be.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;

use common::daemon::Daemon;
use common::{Folder, redact, statefs, statefs_with};

const ALL: &str = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n\
                   rights = [\"get\", \"list\", \"put\", \"delete\"]\n";

/// Lines with single quotes, for the eye.
fn lines(text: &str) -> String {
    text.replace('\'', "\"")
}

#[test]
fn a_batch_happens_as_a_whole() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let slot = run("put /state/boot/slot A").exits(0).text().trim().to_owned();
    run("put /state/boot/pending 1").exits(0);
    let batch = lines(
        "{'key':'/state/boot/slot','text':'B','ifVersion':'SLOT'}
{'key':'/state/boot/tries','value':'AwD/','ifAbsent':true}

{'key':'/state/boot/pending','delete':true}
",
    )
    .replace("SLOT", &slot);
    fs::write(folder.path().join("update.ndjson"), &batch).unwrap();
    let done = run("commit update.ndjson").exits(0);
    insta::assert_snapshot!(redact(done.text()), @r"
    [16 hex digits]  /state/boot/slot
    [16 hex digits]  /state/boot/tries
    deleted           /state/boot/pending
    ");
    assert_eq!(run("get /state/boot/slot").exits(0).text(), "B");
    assert_eq!(run("get /state/boot/tries").exits(0).stdout, [3, 0, 255]);
    run("get /state/boot/pending").exits(3);
    let told = done.text().split(' ').next().unwrap();
    assert!(run("stat /state/boot/slot").exits(0).text().contains(told));

    // The same again meets its own work, names the line, and does nothing.
    let again = run("commit update.ndjson").exits(4);
    let expected = "statefs: CONFLICT: update.ndjson:1: /state/boot/slot: ";
    assert!(again.stderr.starts_with(expected), "{}", again.stderr);
    assert_eq!(again.text(), "");

    let piped = lines("{'key':'/state/x','text':'1'}\n{'key':'/state/boot/slot','delete':true}");
    let piped = statefs_with(folder.path(), "commit - -o json", piped.as_bytes()).exits(0);
    insta::assert_snapshot!(redact(piped.text()), @r#"
    {"key":"/state/x","version":"[16 hex digits]"}
    {"deleted":true,"key":"/state/boot/slot"}
    "#);
    run("get /state/boot/slot").exits(3);
}

#[test]
fn a_batch_that_meets_what_it_did_not_expect_does_nothing() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    run("put /state/there 1").exits(0);
    for (line, exit, told) in [
        ("{'key':'/state/there','text':'2','ifAbsent':true}", 4, "CONFLICT: standard input:3: "),
        ("{'key':'/state/none','delete':true,'ifVersion':'00000000000000aa'}", 4, "CONFLICT: "),
        ("{'key':'/state/a/','text':'1'}", 1, "INVALID_KEY: standard input:3: /state/a/: "),
        ("{'key':'/state/there','delete':1}", 1, "INVALID_BATCH: standard input:3: \"delete\""),
        ("{'key':'/state/first','text':'2'}", 1, "INVALID_BATCH: standard input:3: /state/first"),
        ("nonsense", 1, "INVALID_BATCH: standard input:3: no JSON object"),
    ] {
        let batch = lines(&format!("{{'key':'/state/first','text':'1'}}\n\n{line}\n"));
        let run = statefs_with(folder.path(), "commit -", batch.as_bytes()).exits(exit);
        assert!(run.stderr.starts_with(&format!("statefs: {told}")), "{line}: {}", run.stderr);
        statefs(folder.path(), "get /state/first").exits(3);
    }
    assert_eq!(run("get /state/there").exits(0).text(), "1");
}

/// Who ran it and saw no answer runs it again: also on another connection, and after any end of the daemon.
#[test]
fn a_batch_with_a_token_is_applied_once_whatever_happens_in_between() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let batch = lines(
        "{'key':'/state/boot/slot','text':'B','ifAbsent':true}\n{'key':'/state/boot/old','delete':true}\n",
    );
    fs::write(folder.path().join("update.ndjson"), batch).unwrap();
    let commit = "commit update.ndjson --token 6f0c5a1de2b34798a1b2c3d4e5f60718";
    let first = run(commit).exits(0).text().to_owned();
    assert_eq!(first.lines().count(), 2);
    run("put /state/boot/slot C").exits(0);
    for end in ["none", "kill", "clean"] {
        match end {
            "kill" => daemon.kill(),
            "clean" => daemon.stop(),
            _ => {}
        }
        if end != "none" {
            daemon.restart();
        }
        // Its precondition does not hold any more, and what was written since stays.
        assert_eq!(run(commit).exits(0).text(), first, "{end}");
        assert_eq!(run("get /state/boot/slot").exits(0).text(), "C", "{end}");
    }
    // Without the token it is another batch, and with other operations the token is refused.
    run("commit update.ndjson").exits(4);
    fs::write(folder.path().join("update.ndjson"), lines("{'key':'/state/x','text':'1'}")).unwrap();
    let other = run(commit).exits(1);
    assert!(other.stderr.starts_with("statefs: INVALID_ARGUMENT: "), "{}", other.stderr);
    run("get /state/x").exits(3);
}

#[test]
fn what_is_too_much_for_a_batch_is_refused() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let line = |n: usize| format!("{{\"key\":\"/state/k{n}\",\"text\":\"v\"}}\n");
    let many: String = (0..129).map(line).collect();
    let run = statefs_with(folder.path(), "commit -", many.as_bytes()).exits(1);
    assert!(run.stderr.starts_with("statefs: BATCH_TOO_LARGE: "), "{}", run.stderr);
    let most: String = (0..128).map(line).collect();
    let run = statefs_with(folder.path(), "commit -", most.as_bytes()).exits(0);
    assert_eq!(run.text().lines().count(), 128);
    let long = vec![b'\n'; (16 << 20) + 1];
    let run = statefs_with(folder.path(), "commit -", &long).exits(1);
    assert!(run.stderr.contains("it has more than 16777216 bytes"), "{}", run.stderr);
    let run = statefs_with(folder.path(), "commit -", b"\xff\n").exits(1);
    assert!(run.stderr.starts_with("statefs: INPUT: standard input: "), "{}", run.stderr);
}

#[test]
fn a_list_goes_back_in() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    for (key, value) in [("a", "1"), ("b/c", "22"), ("d", "")] {
        statefs_with(folder.path(), &format!("put /state/{key} -"), value.as_bytes()).exits(0);
    }
    let before = run("list -o json").exits(0).text().to_owned();
    let batch: String = before
        .lines()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{}\n", serde_json::json!({"key": entry["key"], "value": entry["value"]}))
        })
        .collect();
    for key in ["a", "b/c", "d"] {
        run(&format!("delete /state/{key}")).exits(0);
    }
    statefs_with(folder.path(), "commit -", batch.as_bytes()).exits(0);
    // But for the versions, everything is as it was.
    assert_eq!(redact(run("list -o json").exits(0).text()), redact(&before));
}

#[test]
fn usage_tells_what_is_stored_and_what_may_be() {
    let folder = Folder::new();
    let quota = "quota = { bytes = 1000, keys = 3, value_max = 100 }\n";
    let _daemon = Daemon::start(folder.path(), "2M", &format!("{ALL}{quota}"));
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    run("put /state/net/ssid home");
    run("put /state/x 1");
    insta::assert_snapshot!(run("usage").text(), @r"
    bytes: 28
    keys: 2
    quota of /state: 28 of 1000 bytes, 2 of 3 keys, values of 100 bytes at most
    ");
    insta::assert_snapshot!(run("usage /state/net -o json").text(), @r#"{"bytes":19,"keys":1,"prefix":"/state/net","quotas":[{"bytesMax":1000,"bytesUsed":28,"keysMax":3,"keysUsed":2,"prefix":"/state","valueBytesMax":100}]}"#);
}
