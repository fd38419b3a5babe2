//! The verbs against a real daemon: what they print, and every exit code.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;

use common::daemon::Daemon;
use common::{Folder, redact, statefs, statefs_with};

/// Everything below /state.
const ALL: &str = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n\
                   rights = [\"get\", \"list\", \"put\", \"delete\"]\n";

#[test]
fn values_go_in_and_come_out_as_they_are() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "16M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let put = run("put /state/net/wifi on").exits(0);
    assert_eq!(redact(put.text()), "[16 hex digits]\n");
    assert_eq!(run("get /state/net/wifi").exits(0).text(), "on");
    let bytes: Vec<u8> = (0..=255).cycle().take(65_536).collect();
    statefs_with(folder.path(), "put /state/binary -", &bytes).exits(0);
    assert_eq!(run("get /state/binary").exits(0).stdout, bytes);
    statefs_with(folder.path(), "put /state/piped", b"piped").exits(0);
    assert_eq!(run("get /state/piped").exits(0).text(), "piped");
    fs::write(folder.path().join("file"), b"@not a file").unwrap();
    run("put /state/file @file").exits(0);
    assert_eq!(run("get /state/file").exits(0).text(), "@not a file");
    statefs_with(folder.path(), "put /state/empty -", b"").exits(0);
    assert_eq!(run("get /state/empty").exits(0).text(), "");
    run("put /state/dash -- -v").exits(0);
    assert_eq!(run("get /state/dash").exits(0).text(), "-v");
    let missing = run("put /state/file @no-such-file").exits(1);
    assert!(missing.stderr.starts_with("statefs: INPUT: no-such-file: "), "{}", missing.stderr);
    assert!(
        missing.stderr.ends_with("\n  name a file that can be read, or `-` for standard input\n")
    );
}

#[test]
fn options_stand_before_or_behind() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    run("--socket statefs-dev/statefs.sock put --if-absent /state/a v");
    run("put /state/b v --buffered --socket statefs-dev/statefs.sock --if-absent");
    let before = run("-o json list --keys-only /state");
    assert_eq!(before.stdout, run("list /state --keys-only -o json").stdout);
    assert_eq!(before.stdout, run("list -o json --keys-only").stdout);
    assert_ne!(before.stdout, b"");
}

#[test]
fn text_is_golden() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    insta::assert_snapshot!("text", told(&folder, ""));
}

#[test]
fn json_is_golden() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    insta::assert_snapshot!("json", told(&folder, " -o json"));
}

/// Runs every verb once, and writes down what it said.
fn told(folder: &Folder, options: &str) -> String {
    let mut text = String::new();
    for arguments in [
        "health",
        "whoami",
        "list",
        "put /state/a one",
        "put /state/net/wifi on --buffered",
        "put /state/a two --if-absent",
        "get /state/a",
        "get /state/b",
        "stat /state/net/wifi",
        "stat /state/b",
        "list",
        "list /state/net",
        "list --keys-only",
        "list /state/none",
        "sync",
        "delete /state/a",
        "delete /state/a",
        "get state/a",
        "get /state//a",
        "stat",
    ] {
        let run = statefs(folder.path(), &format!("{arguments}{options}"));
        text.push_str(&format!("$ statefs {arguments}{options}\n{}", redact(run.text())));
        if !run.text().is_empty() && !run.text().ends_with('\n') {
            text.push_str("\\ no newline\n");
        }
        for line in redact(&run.stderr).lines() {
            text.push_str(&format!("! {line}\n"));
        }
        text.push_str(&format!("= {}\n\n", run.exit));
    }
    text
}

#[test]
fn preconditions_exit_with_4() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let first = run("put /state/a 1 --if-absent").exits(0).text().trim().to_owned();
    run("put /state/a 2 --if-absent").exits(4);
    run("put /state/a 2 --if-version 00000000000000aa").exits(4);
    let second = run(&format!("put /state/a 2 --if-version {first}")).exits(0);
    let stale = run(&format!("put /state/a 3 --if-version {first}")).exits(4);
    assert!(stale.stderr.contains(second.text().trim()), "{}", stale.stderr);
    run(&format!("put /state/none 1 --if-version {first}")).exits(4);
    assert_eq!(run("get /state/a").exits(0).text(), "2");
}

#[test]
fn what_the_policy_does_not_grant_exits_with_5() {
    let folder = Folder::new();
    let grant =
        "[[grant]]\nto = \"tester\"\nprefix = \"/state/mine\"\nrights = [\"put\", \"list\"]\n";
    let _daemon = Daemon::start(folder.path(), "2M", grant);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    run("put /state/mine/a v").exits(0);
    run("put /state/mine v").exits(0);
    for arguments in [
        "get /state/mine/a",
        "get /state/mine/none",
        "delete /state/mine/a",
        "stat /state/mine/a",
        "put /state/theirs v",
        "put /state/mine/a v --if-absent",
        "list /state/theirs",
        "list /state/mine -o json",
    ] {
        let run = run(arguments).exits(5);
        assert!(run.text().is_empty() && run.stderr.contains("ACCESS_DENIED"), "{}", run.stderr);
    }
    // Present or not: but for the key that was asked for, it is the same.
    let (present, missing) = (run("get /state/mine/a").stderr, run("get /state/mine/b").stderr);
    assert_eq!(present.replace("/a:", "/b:"), missing);
    let mine = run("list --keys-only").exits(0);
    assert_eq!(mine.text(), "/state/mine\n/state/mine/a\n");
    assert_eq!(run("whoami").exits(0).text(), "tester\n");
}

#[test]
fn refusals_of_the_daemon_exit_with_1() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(1).stderr;
    for key in ["/state/", "/state//a", "/state/a/", "/state/a/../b", "/state/./a"] {
        assert!(run(&format!("put {key} v")).starts_with("statefs: INVALID_KEY: "), "{key}");
        assert!(run(&format!("get {key}")).starts_with("statefs: INVALID_KEY: "), "{key}");
    }
    // Bytes are those of the key that is shown.
    for arguments in ["put /state/net//a v", "get /state/net//a", "list /state/net//a"] {
        assert!(run(arguments).contains(": /state/net//a: a segment"), "{arguments}");
        assert!(run(arguments).contains("the one at byte 11 is empty"), "{arguments}");
    }
    let long = format!("/state/{}", "k".repeat(300));
    assert!(run(&format!("get {long}")).starts_with("statefs: KEY_TOO_LONG: "));
    // A file tells beforehand that it fits into no volume of this size.
    fs::write(folder.path().join("long"), vec![0; 3 << 20]).unwrap();
    let long = run("put /state/a @long");
    assert!(long.starts_with("statefs: VALUE_TOO_LARGE: "), "{long}");
    statefs(folder.path(), "get /state/a").exits(3);
}

#[test]
fn a_change_that_could_not_be_told_is_said_to_be_made() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "2M", ALL);
    fs::write(folder.path().join("b"), "{\"key\":\"/state/b\",\"text\":\"1\"}\n").unwrap();
    let fails = |arguments: &str, told: &str| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_statefs"));
        run.args(arguments.split(' ')).current_dir(folder.path()).env_remove("STATEFS_SOCKET");
        let output = run.stdin(Stdio::null()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(told), "{arguments}: {said}");
    };
    fails(
        "put /state/a 1",
        "statefs: OUTPUT: the value was written, but not told: standard output",
    );
    statefs(folder.path(), "get /state/a").exits(0);
    fails("commit b", "statefs: OUTPUT: all changes were made, but not told: standard output");
    statefs(folder.path(), "get /state/b").exits(0);
    fails("delete /state/a -o json", "\"message\":\"the key was deleted, but not told: standard");
    statefs(folder.path(), "get /state/a").exits(3);
    fails("get /state/b", "statefs: OUTPUT: standard output: ");
}

#[test]
fn a_full_volume_exits_with_8_and_still_deletes() {
    let folder = Folder::new();
    let _daemon = Daemon::start(folder.path(), "1M", ALL);
    let value = vec![7; 12_000];
    let mut puts = 0;
    let full = loop {
        let run = statefs_with(folder.path(), &format!("put /state/{puts} -"), &value);
        if run.exit != 0 {
            break run.exits(8);
        }
        puts += 1;
        assert!(puts < 100, "a volume of 1 MiB never fills");
    };
    assert!(puts > 0);
    assert!(full.stderr.contains("NO_SPACE"), "{}", full.stderr);
    assert_eq!(statefs(folder.path(), "get /state/0").exits(0).stdout, value);
    statefs(folder.path(), "delete /state/0").exits(0);
    statefs(folder.path(), "get /state/0").exits(3);
}

/// Puts three keys, stops the daemon, and yields the image and where both copies of /state/b are.
fn three_keys(folder: &Folder, daemon: &mut Daemon) -> (Vec<u8>, Vec<usize>) {
    let marker = "the-marked-value";
    for (key, value) in [("a", "first"), ("b", marker), ("c", "last")] {
        statefs(folder.path(), &format!("put /state/{key} {value}")).exits(0);
    }
    daemon.stop();
    let image = fs::read(folder.path().join("state.img")).unwrap();
    let starts = image.windows(marker.len()).enumerate();
    let places: Vec<_> =
        starts.filter(|(_, bytes)| *bytes == marker.as_bytes()).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "two copies");
    (image, places)
}

#[test]
fn a_value_that_goes_bad_under_the_daemon_exits_with_6_and_the_rest_stays() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "16M", ALL);
    let (_, places) = three_keys(&folder, &mut daemon);
    daemon.restart();
    let image = fs::File::options().write(true).open(folder.path().join("state.img")).unwrap();
    let run = |arguments: &str| statefs(folder.path(), arguments);
    for place in places {
        image.write_all_at(b"?", place.try_into().unwrap()).unwrap();
    }
    image.sync_all().unwrap();
    let get = run("get /state/b").exits(6);
    assert!(get.text().is_empty(), "{}", get.text());
    assert!(get.stderr.starts_with("statefs: DATA_LOSS: /state/b: "), "{}", get.stderr);
    assert_eq!(run("get /state/a").exits(0).text(), "first");
    assert_eq!(run("get /state/none").exits(3).text(), "");
    let list = run("list -o json").exits(6);
    insta::assert_snapshot!(redact(list.text()), @r#"
    {"bytes":5,"key":"/state/a","value":"Zmlyc3Q=","version":"[16 hex digits]"}
    {"dataLoss":true,"key":"/state/b"}
    {"bytes":4,"key":"/state/c","value":"bGFzdA==","version":"[16 hex digits]"}
    "#);
    assert!(list.stderr.contains("1 key is damaged"), "{}", list.stderr);
    assert!(run("health").exits(0).text().starts_with("degraded: "));
    // A write without precondition ends it.
    run("put /state/b new").exits(0);
    assert_eq!(run("get /state/b").exits(0).text(), "new");
}

#[test]
fn a_lost_stretch_of_the_journal_makes_dump_exit_with_6_and_go_on() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "16M", ALL);
    let (mut image, places) = three_keys(&folder, &mut daemon);
    let path = folder.path().join("state.img");
    let run = |arguments: &str| statefs(folder.path(), arguments);
    let whole = run("image dump state.img").exits(0);
    assert_eq!(fs::read(&path).unwrap(), image, "dump changed the image");
    image[places[0]] ^= 1;
    fs::write(&path, &image).unwrap();
    assert_eq!(run("image dump state.img").exits(0).stdout, whole.stdout, "one copy suffices");
    image[places[1]] ^= 1;
    fs::write(&path, &image).unwrap();
    let dump = run("image dump state.img").exits(6);
    assert!(dump.stderr.starts_with("statefs: DATA_LOSS: state.img: "), "{}", dump.stderr);
    assert_eq!(fs::read(&path).unwrap(), image, "dump changed the image");
    let last = whole.text().lines().nth(2).unwrap();
    assert!(dump.text().contains(last), "{}", dump.text());
    assert!(dump.text().lines().last().unwrap().contains("digest"), "{}", dump.text());

    daemon.restart();
    assert_eq!(run("get /state/c").exits(0).text(), "last");
    // Damage never looks like absence, not even of a key that nobody remembers.
    for key in ["b", "never-there"] {
        let get = run(&format!("get /state/{key}")).exits(6);
        assert!(get.text().is_empty() && get.stderr.contains("DATA_LOSS"), "{}", get.stderr);
    }
    let list = run("list --keys-only").exits(6);
    assert!(list.text().contains("/state/c\n"), "{}", list.text());
    assert!(run("health").exits(0).text().starts_with("degraded: "));
}

#[test]
fn dump_gives_what_list_gave() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(folder.path(), "2M", ALL);
    let run = |arguments: &str| statefs(folder.path(), arguments).exits(0);
    for (key, value) in [("b", "2"), ("a/x", "1"), ("c", "3")] {
        run(&format!("put /state/{key} {value}"));
    }
    run("delete /state/c");
    let busy = statefs(folder.path(), "image dump state.img").exits(7);
    assert!(busy.stderr.starts_with("statefs: BUSY: state.img: "), "{}", busy.stderr);
    let listed = run("list -o json");
    daemon.stop();
    let dump = run("image dump state.img");
    // A list tells sizes too.
    let listed = listed.text().replace("\"bytes\":1,", "");
    assert!(dump.text().starts_with(&listed), "{} and {listed}", dump.text());
    insta::assert_snapshot!(redact(dump.text()), @r#"
    {"key":"/state/a/x","value":"MQ==","version":"[16 hex digits]"}
    {"key":"/state/b","value":"Mg==","version":"[16 hex digits]"}
    {"digest":"[64 hex digits]"}
    "#);
    assert_eq!(run("image dump state.img").stdout, dump.stdout);
}

#[test]
fn a_connection_lost_during_a_write_exits_with_9_and_during_a_read_with_7() {
    let folder = Folder::new();
    let socket = folder.path().join("cut.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let cases = [
        ("put /state/a v", 9),
        ("delete /state/a", 9),
        ("sync", 9),
        ("get /state/a", 7),
        ("stat /state/a", 7),
        ("list", 7),
        ("health", 7),
        ("whoami", 7),
        ("stat", 7),
    ];
    // A read is tried on a second connection, so their number is not that of the cases.
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The call has come, and no answer follows.
            assert!(stream.unwrap().read(&mut [0; 4096]).unwrap() > 0);
        }
    });
    for (arguments, exit) in cases {
        let run = statefs(folder.path(), &format!("{arguments} --socket cut.sock")).exits(exit);
        let code = if exit == 9 { "statefs: INDETERMINATE: " } else { "statefs: DISCONNECTED: " };
        assert!(run.stderr.starts_with(code), "{arguments}: {}", run.stderr);
    }
}

#[test]
fn the_demonstration_holds_and_leaves_nothing() {
    let folder = Folder::new();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_statefs"))
        .args(["demo", "-o", "json"])
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let (text, errors) =
        (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert_eq!(run.status.code(), Some(0), "{text}{errors}");
    assert_eq!(errors, "");
    assert_eq!(text.lines().filter(|line| line.contains("kill -9")).count(), 3);
    assert!(text.lines().last().is_some_and(|line| line.contains("digest")));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
