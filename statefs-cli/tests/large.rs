//! Values past what one call takes: in and out as streams, visible only whole.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::{Folder, redact, statefs, statefs_with};

const ALL: &str = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n\
                   rights = [\"get\", \"list\", \"put\", \"delete\"]\n";

/// Bytes that repeat nowhere nearby.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn values_of_any_size_go_in_and_come_out() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "64M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let sizes = [65_535, 65_536, 65_537, 131_072, 200_001, 3 << 20];
    for size in sizes {
        let value = bytes(size);
        fs::write(folder.path().join("file"), &value).unwrap();
        // Not a terminal: nothing is said on the way.
        let put = run(&format!("put /state/file/{size} @file")).exits(0);
        assert_eq!((redact(put.text()).as_str(), &*put.stderr), ("[16 hex digits]\n", ""));
        statefs_with(folder.path(), &format!("put /state/pipe/{size}"), &value).exits(0);
    }
    // Also after a restart.
    for _ in 0..2 {
        for (size, from) in sizes.into_iter().flat_map(|size| [(size, "file"), (size, "pipe")]) {
            let get = run(&format!("get /state/{from}/{size}")).exits(0);
            assert!(get.stdout == bytes(size), "{from} of {size}");
            assert_eq!(get.stderr, "");
            let stat = run(&format!("stat /state/{from}/{size}")).exits(0);
            assert!(stat.text().ends_with(&format!("bytes: {size}\n")), "{}", stat.text());
        }
        daemon.stop();
        daemon.restart();
    }
}

/// There a part of a stream is shorter than elsewhere, too.
#[test]
fn small_volumes_take_what_fits_into_them() {
    for size in ["1M", "2M"] {
        let folder = Folder::new();
        let _daemon = Daemon::start(folder.path(), size, ALL);
        let stat = statefs(folder.path(), "stat -o json").exits(0);
        let stat: serde_json::Value = serde_json::from_str(stat.text()).unwrap();
        let limit = |name: &str| {
            let limit = stat.get("limits").and_then(|limits| limits.get(name));
            usize::try_from(limit.unwrap().as_u64().unwrap()).unwrap()
        };
        let (short, long) = (limit("valueBytes"), limit("largeValueBytes"));
        assert!(short < 65_536, "{short}");
        for count in [short, short + 1, 3 * short].into_iter().filter(|count| *count <= long) {
            let value = bytes(count);
            let put = statefs_with(folder.path(), "put /state/a", &value);
            assert_eq!(put.exit, 0, "{size}: {count} bytes: {}", put.stderr);
            assert!(statefs(folder.path(), "get /state/a").exits(0).stdout == value, "{count}");
        }
    }
}

#[test]
fn large_values_are_told_as_such() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "64M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    let value = bytes(100_000);
    statefs_with(folder.path(), "put /state/large", &value).exits(0);
    run("put /state/small 1");
    insta::assert_snapshot!(redact(run("list").text()), @r"
    [16 hex digits]    100000  /state/large
    [16 hex digits]         1  /state/small
    ");
    insta::assert_snapshot!(redact(run("list -o json").text()), @r#"
    {"bytes":100000,"key":"/state/large","large":true,"version":"[16 hex digits]"}
    {"bytes":1,"key":"/state/small","value":"MQ==","version":"[16 hex digits]"}
    "#);
    // One object, though it was never held as a whole; the same fields as of a small one.
    let get = run("get /state/large -o json");
    let object: serde_json::Value = serde_json::from_str(get.text()).unwrap();
    assert_eq!(get.text().lines().count(), 1);
    let field = |name: &str| object.get(name).cloned().unwrap_or_default();
    assert_eq!(field("bytes"), 100_000);
    assert_eq!(field("key"), "/state/large");
    assert!(run("stat /state/large").text().contains(field("version").as_str().unwrap()));
    let line = format!("{{\"key\":\"/state/again\",\"value\":{}}}", field("value"));
    // What a batch takes is less; its refusal tells that the value is whole base64.
    let batch = statefs_with(folder.path(), "commit -", line.as_bytes()).exits(1);
    assert!(batch.stderr.contains("VALUE_TOO_LARGE"), "{}", batch.stderr);
}

#[test]
fn preconditions_hold_for_streams() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "64M", ALL);
    let value = bytes(100_000);
    let put = |arguments: &str, exit: i32| {
        statefs_with(folder.path(), &format!("put {arguments}"), &value).exits(exit)
    };
    let first = put("/state/a --if-absent", 0).text().trim().to_owned();
    put("/state/a --if-absent", 4);
    put(&format!("/state/a --if-version {first} --strict"), 0);
    let stale = put(&format!("/state/a --if-version {first}"), 4);
    assert!(stale.stderr.starts_with("statefs: CONFLICT: /state/a: "), "{}", stale.stderr);
}

#[test]
fn what_was_never_finished_is_never_seen_and_takes_no_room() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "16M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let value = bytes(1 << 20);
    // Far more than fits, if what was abandoned stayed.
    for _ in 0..20 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_statefs"))
            .args(["put", "/state/a"])
            .current_dir(folder.path())
            .env_remove("STATEFS_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&value).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(stdin);
    }
    run("get /state/a").exits(3);
    assert_eq!(run("usage").exits(0).text(), "bytes: 0\nkeys: 0\n");
    statefs_with(folder.path(), "put /state/a", &value).exits(0);
    assert!(run("get /state/a").exits(0).stdout == value);
}

#[test]
fn what_no_volume_or_quota_takes_is_refused() {
    let folder = Folder::new();
    let quota = "quota = { value_max = 300000 }\n";
    let _daemon = Daemon::start(folder.path(), "16M", &format!("{ALL}{quota}"));
    fs::write(folder.path().join("file"), bytes(300_001)).unwrap();
    let put = statefs(folder.path(), "put /state/a @file").exits(1);
    assert!(put.stderr.starts_with("statefs: VALUE_TOO_LARGE: /state/a: "), "{}", put.stderr);
    // How long it will be nobody knows beforehand.
    let put = statefs_with(folder.path(), "put /state/a", &bytes(1 << 20)).exits(1);
    assert!(put.stderr.starts_with("statefs: VALUE_TOO_LARGE: /state/a: "), "{}", put.stderr);
    statefs(folder.path(), "get /state/a").exits(3);
    statefs_with(folder.path(), "put /state/a", &bytes(300_000)).exits(0);
}

#[test]
fn damage_in_the_middle_ends_with_6() {
    let folder = Folder::new();
    let daemon = Daemon::start(folder.path(), "16M", ALL);
    let mut value = bytes(300_000);
    let marker = b"the-marked-value";
    value.splice(200_000..200_000 + marker.len(), marker.iter().copied());
    statefs_with(folder.path(), "put /state/a", &value).exits(0);
    let image = folder.path().join("state.img");
    let stored = fs::read(&image).unwrap();
    let places = stored.windows(marker.len()).enumerate();
    let places: Vec<_> = places.filter(|(_, part)| *part == marker).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "two copies");
    let file = fs::File::options().write(true).open(&image).unwrap();
    for place in places {
        std::os::unix::fs::FileExt::write_all_at(&file, b"?", place as u64).unwrap();
    }
    file.sync_all().unwrap();
    let get = statefs(folder.path(), "get /state/a").exits(6);
    assert!(get.stderr.starts_with("statefs: DATA_LOSS: /state/a: "), "{}", get.stderr);
    assert!(value.starts_with(&get.stdout), "never a wrong byte");
    drop(daemon);
}
