//! `image inspect`: text, JSON and page of a sound volume and of a damaged one.

#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use common::volume::{self, SMALL_BYTES, puts};
use common::{Folder, redact, statefs};

/// A volume with a checkpoint and a log behind it.
fn folder() -> Folder {
    let folder = Folder::new();
    let mounts = [puts(30, 0), puts(30, 1), puts(5, 2)];
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, &mounts);
    folder
}

#[test]
fn text_is_golden_and_the_image_stays_as_it_is() {
    let folder = folder();
    let before = fs::read(folder.path().join("x.img")).unwrap();
    let run = statefs(folder.path(), "image inspect x.img").exits(0);
    insta::assert_snapshot!("text", redact(run.text()));
    assert_eq!(fs::read(folder.path().join("x.img")).unwrap(), before);
}

#[test]
fn json_is_golden() {
    let folder = Folder::new();
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 1, &[puts(3, 0)]);
    let run = statefs(folder.path(), "image inspect x.img -o json").exits(0);
    insta::assert_snapshot!("json", redact(run.text()));
}

#[test]
fn damage_is_shown_and_a_loss_exits_with_6() {
    let folder = folder();
    let path = folder.path().join("x.img");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let run = statefs(folder.path(), "image inspect x.img --html x.html").exits(0);
    assert!(run.text().contains("superblock copy 1 does not verify"), "{}", run.text());
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    assert!(page.contains("1 fault, nothing lost"), "{page}");
    for (at, byte) in bytes.iter_mut().enumerate() {
        if at >= 2 * 4096 && at % 4096 == 200 {
            *byte ^= 1;
        }
    }
    fs::write(&path, &bytes).unwrap();
    let run = statefs(folder.path(), "image inspect x.img --html x.html").exits(6);
    assert!(run.stderr.starts_with("statefs: DATA_LOSS: x.img: "), "{}", run.stderr);
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    assert!(page.contains("something acknowledged is lost"), "{page}");
}

#[test]
fn the_page_refers_to_nothing_and_has_tables() {
    let folder = folder();
    statefs(folder.path(), "image inspect x.img --html x.html").exits(0);
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    for word in ["http", "src=", "href", "url(", "@import", "<script"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("<caption>Segments in use</caption>"));
    assert!(page.contains("prefers-color-scheme:dark"));
    let opened = page.matches("<section").count();
    assert_eq!(opened, page.matches("</section>").count());
}

#[test]
fn the_page_takes_the_place_of_a_page_and_of_nothing_else() {
    let folder = folder();
    let image = folder.path().join("x.img");
    let before = fs::read(&image).unwrap();
    fs::hard_link(&image, folder.path().join("y.img")).unwrap();
    fs::write(folder.path().join("notes"), "mine").unwrap();
    // Many pages begin so, and not all of them are whole.
    let head = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n";
    fs::write(folder.path().join("theirs.html"), format!("{head}<title>mine</title>")).unwrap();
    fs::write(folder.path().join("short.html"), head).unwrap();
    for taken in ["x.img", "y.img", "notes", "theirs.html", "short.html"] {
        let run = statefs(folder.path(), &format!("image inspect x.img --html {taken}")).exits(1);
        assert!(run.stderr.starts_with(&format!("statefs: EXISTS: {taken}: ")), "{}", run.stderr);
    }
    assert_eq!(fs::read(&image).unwrap(), before);
    fs::write(folder.path().join("empty"), "").unwrap();
    for page in ["x.html", "x.html", "empty", "/dev/null"] {
        statefs(folder.path(), &format!("image inspect x.img --html {page}")).exits(0);
    }
}

/// The device is full, or the run is killed.
#[test]
fn a_page_that_is_cut_short_takes_the_place_of_nothing() {
    let folder = folder();
    let run = |before: &str| {
        let program = env!("CARGO_BIN_EXE_statefs");
        let script = format!("{before}; exec {program} image inspect x.img --html x.html");
        let mut shell = Command::new("sh");
        let ended = shell.args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let page = || fs::read(folder.path().join("x.html")).ok();
    let is_left = || folder.path().join("x.html.part").exists();
    let full = "trap '' XFSZ; ulimit -f 1";
    for _ in 0..2 {
        let before = page();
        let (exit, told) = run(full);
        assert_eq!(exit, Some(1), "{told}");
        assert!(told.starts_with("statefs: OUTPUT: x.html: "), "{told}");
        assert_eq!((page(), is_left()), (before, false));
        assert_eq!(run(":").0, Some(0));
        assert!(page().is_some_and(|page| page.ends_with(b"</html>\n")) && !is_left());
    }
    // What a link leads to is replaced, and its rights stay as they were.
    let real = folder.path().join("real.html");
    fs::rename(folder.path().join("x.html"), &real).unwrap();
    fs::write(&real, "").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("real.html", folder.path().join("x.html")).unwrap();
    assert_eq!(run(":").0, Some(0));
    assert!(fs::symlink_metadata(folder.path().join("x.html")).unwrap().is_symlink());
    let found = fs::metadata(&real).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.len() > 1000), (0o600, true));
}

/// Who made a file chose its name, too.
#[test]
fn a_path_does_not_steer_a_terminal() {
    let folder = folder();
    let path = "\u{1b}[2Jx.img";
    fs::rename(folder.path().join("x.img"), folder.path().join(path)).unwrap();
    let shown = |arguments: &str, exit| {
        let run = statefs(folder.path(), arguments).exits(exit);
        assert!(!run.text().contains('\u{1b}') && !run.stderr.contains('\u{1b}'), "{run:?}");
        assert!(run.text().contains("\u{fffd}[2Jx.img"), "{}", run.text());
    };
    shown(&format!("image inspect {path}"), 0);
    shown(&format!("image fsck {path}"), 0);
    let bytes = fs::read(folder.path().join(path)).unwrap();
    let damaged = [&bytes[..4196], &[!bytes[4196]], &bytes[4197..]].concat();
    fs::write(folder.path().join(path), damaged).unwrap();
    let undo = "\u{1b}[2Ju";
    statefs(folder.path(), &format!("image fsck {path} --repair --yes --undo {undo}")).exits(1);
    shown(&format!("image undo {path} {undo} --yes"), 0);
    shown(&format!("image undo {path} {undo} --yes"), 0);
}

#[test]
fn what_is_no_volume_is_said() {
    let folder = Folder::new();
    fs::write(folder.path().join("foreign.img"), vec![7; 1 << 20]).unwrap();
    for (path, code) in [("foreign.img", "NO_VOLUME"), ("none.img", "NO_IMAGE")] {
        let run = statefs(folder.path(), &format!("image inspect {path}")).exits(1);
        assert!(run.stderr.starts_with(&format!("statefs: {code}: {path}: ")), "{}", run.stderr);
    }
}
