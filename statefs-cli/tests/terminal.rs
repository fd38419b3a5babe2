//! The program on a terminal: what destroys asks first, and nothing is ever coloured.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::volume::{self, SMALL_BYTES, puts};
use common::{Folder, statefs};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value as Json;

/// What a run on a terminal showed: both streams, as a screen gets them, and the exit code.
struct Shown {
    text: String,
    exit: i32,
}

/// Runs the program on a terminal of its own, where `typed` is typed.
fn on_terminal(folder: &Path, arguments: &str, typed: &str) -> Shown {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_statefs"));
    command
        .args(arguments.split(' '))
        .current_dir(folder)
        .env_remove("STATEFS_SOCKET")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .env("CLICOLOR_FORCE", "1")
        .stdin(Stdio::from(slave.try_clone().unwrap()))
        .stdout(Stdio::from(slave.try_clone().unwrap()))
        .stderr(Stdio::from(slave));
    let mut child = command.spawn().unwrap();
    // The terminal ends with the last program that holds it, which we must not be.
    drop(command);
    let mut screen = File::from(master);
    screen.write_all(typed.as_bytes()).unwrap();
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    // Its end reads as an error.
    while let Ok(count @ 1..) = screen.read(&mut part) {
        bytes.extend_from_slice(part.get(..count).unwrap());
    }
    let exit = child.wait().unwrap().code().unwrap();
    Shown { text: String::from_utf8(bytes).unwrap().replace("\r\n", "\n"), exit }
}

#[test]
fn format_asks_before_it_destroys() {
    let folder = Folder::new();
    let image = folder.path().join("x.img");
    statefs(folder.path(), "image format x.img --size 1M").exits(0);
    let before = fs::read(&image).unwrap();
    for typed in ["\n", "n\n", "no\n", "yesterday\n", "\u{4}"] {
        let shown = on_terminal(folder.path(), "image format x.img --force", typed);
        assert_eq!(shown.exit, 1, "{typed:?}: {}", shown.text);
        assert!(shown.text.contains("x.img is not blank. Destroy what it holds? [y/N] "));
        assert!(shown.text.contains("statefs: NOT_CONFIRMED: nothing was changed"));
        assert_eq!(fs::read(&image).unwrap(), before, "{typed:?}");
    }
    let shown = on_terminal(folder.path(), "image format x.img --force", "y\n");
    assert_eq!(shown.exit, 0, "{}", shown.text);
    assert_ne!(fs::read(&image).unwrap(), before);
}

#[test]
fn where_nobody_can_be_asked_the_option_is_named() {
    let folder = Folder::new();
    let image = folder.path().join("x.img");
    statefs(folder.path(), "image format x.img --size 1M").exits(0);
    let before = fs::read(&image).unwrap();
    let run = statefs(folder.path(), "image format x.img --force").exits(2);
    assert!(run.stderr.contains("NOT_CONFIRMED") && run.stderr.contains("--yes"), "{}", run.stderr);
    assert_eq!(fs::read(&image).unwrap(), before);
    // What destroys nothing asks nothing.
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    statefs(folder.path(), "image format x.img --force").exits(0);
}

#[test]
fn repair_asks_after_it_told_what_it_would_do() {
    let folder = Folder::new();
    let image = folder.path().join("x.img");
    volume::make(&image, SMALL_BYTES, 2, &[puts(3, 0)]);
    let sound = fs::read(&image).unwrap();
    let mut damaged = sound.clone();
    *damaged.get_mut(4096).unwrap() ^= 1;
    fs::write(&image, &damaged).unwrap();
    let run = statefs(folder.path(), "image fsck x.img --repair").exits(16);
    assert!(run.stderr.contains("NOT_CONFIRMED") && run.stderr.contains("--yes"), "{}", run.stderr);
    assert_eq!(fs::read(&image).unwrap(), damaged);
    let shown = on_terminal(folder.path(), "image fsck x.img --repair", "n\n");
    assert_eq!(shown.exit, 32, "{}", shown.text);
    let (plan, asked) = (shown.text.find("a repair writes"), shown.text.find("[y/N]"));
    assert!(plan.is_some() && plan < asked, "{}", shown.text);
    assert_eq!(fs::read(&image).unwrap(), damaged);
    assert!(!folder.path().join("x.img.undo-1").exists());
    let shown = on_terminal(folder.path(), "image fsck x.img --repair", "yes\n");
    assert_eq!(shown.exit, 1, "{}", shown.text);
    assert_eq!(fs::read(&image).unwrap(), sound);
    // Nothing to repair, nothing to ask.
    statefs(folder.path(), "image fsck x.img --repair").exits(0);
    // And the way back is asked for in the same way.
    let shown = on_terminal(folder.path(), "image undo x.img x.img.undo-1", "n\n");
    assert_eq!(shown.exit, 1, "{}", shown.text);
    let (plan, asked) = (shown.text.find("1 of them differ"), shown.text.find("[y/N]"));
    assert!(plan.is_some() && plan < asked, "{}", shown.text);
    assert_eq!(fs::read(&image).unwrap(), sound);
    let shown = on_terminal(folder.path(), "image undo x.img x.img.undo-1", "y\n");
    assert_eq!(shown.exit, 0, "{}", shown.text);
    assert_eq!(fs::read(&image).unwrap(), damaged);
    statefs(folder.path(), "image undo x.img x.img.undo-1").exits(0);
}

#[test]
fn nothing_is_coloured_even_on_a_terminal_that_could() {
    let folder = Folder::new();
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, &[puts(3, 0)]);
    let lines =
        ["--help", "put --help", "gett", "get /state/a", "image inspect x.img", "image fsck x.img"];
    for arguments in lines {
        let shown = on_terminal(folder.path(), arguments, "");
        assert!(!shown.text.is_empty(), "{arguments}");
        assert!(!shown.text.contains('\u{1b}'), "{arguments}: {:?}", shown.text);
    }
}

#[test]
fn a_value_that_nobody_will_type_is_not_waited_for() {
    let folder = Folder::new();
    let shown = on_terminal(folder.path(), "put /state/a", "");
    assert_eq!(shown.exit, 2, "{}", shown.text);
    assert!(shown.text.contains("statefs: USAGE: no value"), "{}", shown.text);
}

#[test]
fn a_key_cannot_steer_a_terminal_nor_feign_another() {
    let folder = Folder::new();
    let grant =
        "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let _daemon = common::daemon::Daemon::start(folder.path(), "2M", grant);
    let key = "/state/\u{202e}gnp.\u{2066}a\u{200b}";
    statefs(folder.path(), &format!("put {key} v")).exits(0);
    let shown = on_terminal(folder.path(), "list --keys-only", "");
    assert_eq!(shown.text, "/state/\u{fffd}gnp.\u{fffd}a\u{fffd}\n");
    let shown = on_terminal(folder.path(), "list", "");
    assert!(shown.text.ends_with("  /state/\u{fffd}gnp.\u{fffd}a\u{fffd}\n"), "{:?}", shown.text);
    // What a program reads is the key.
    assert_eq!(statefs(folder.path(), "list --keys-only").text(), format!("{key}\n"));
    assert!(statefs(folder.path(), "list -o json").text().contains(key));
    // A terminal is told of it in other letters, which a program reads as the same; so it is with a value in parts, and
    // with what went wrong.
    fs::write(folder.path().join("long"), vec![b'x'; 100 << 10]).unwrap();
    statefs(folder.path(), &format!("put {key} @long")).exits(0);
    for arguments in
        ["list -o json", &format!("get {key} -o json"), &format!("get {key}/b -o json")]
    {
        let shown = on_terminal(folder.path(), arguments, "").text;
        assert!(shown.contains(r"/state/\u202egnp.\u2066a\u200b"), "{shown:?}");
        assert!(shown.is_ascii(), "{shown:?}");
    }
}

#[test]
fn what_an_image_holds_cannot_steer_a_terminal_either() {
    let folder = Folder::new();
    // Keys that no daemon writes are among these.
    let keys = ["/state/\u{202e}gnp.a", "/state/\u{9b}2J", "/state/\u{e0041}\u{7f}"];
    let changes = keys.map(|key| (key.to_owned(), Some(b"value".to_vec())));
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, &[changes.to_vec()]);
    let shown = on_terminal(folder.path(), "image dump x.img", "").text;
    let is_plain = |letter: char| letter == '\n' || (' '..='~').contains(&letter);
    assert!(shown.chars().all(is_plain), "{shown:?}");
    let piped = statefs(folder.path(), "image dump x.img").exits(0);
    let parsed = |text: &str| -> Vec<Json> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(parsed(&shown), parsed(piped.text()));
    assert!(keys.iter().all(|key| piped.text().contains(key)), "{}", piped.text());
}

#[test]
fn a_terminal_sees_how_far_a_long_value_has_come() {
    let folder = Folder::new();
    let grant = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    let _daemon = common::daemon::Daemon::start(folder.path(), "32M", grant);
    fs::write(folder.path().join("long"), vec![b'x'; 3 << 20]).unwrap();
    fs::write(folder.path().join("short"), "x").unwrap();
    let shown = on_terminal(folder.path(), "put /state/long @long", "");
    assert_eq!(shown.exit, 0, "{}", shown.text);
    // What was shown first is there at any speed, and wiped at the end.
    let (line, rest) = shown.text.strip_prefix('\r').unwrap().split_once('\r').unwrap();
    assert_eq!(line, "/state/long: 1.0 of 3.0 MiB");
    let (wiped, version) = rest.rsplit_once('\r').unwrap();
    assert!(wiped.ends_with(&" ".repeat(line.len())), "{:?}", shown.text);
    assert_eq!(version.trim_end().len(), 16, "{:?}", shown.text);
    let shown = on_terminal(folder.path(), "put /state/short @short", "");
    assert_eq!((shown.exit, shown.text.trim_end().len()), (0, 16), "{}", shown.text);
}
