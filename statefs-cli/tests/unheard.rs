//! What is said and read by nobody: the work is done all the same, and the exit code tells how it ended.

#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;

use common::volume::{self, SMALL_BYTES, ZONES, puts};
use common::{Folder, Run, statefs};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A disk that is full.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn run(folder: &Folder, arguments: &str, stdout: Stdio, stderr: Stdio) -> Run {
    let mut run = Command::new(env!("CARGO_BIN_EXE_statefs"));
    run.args(arguments.split(' ')).current_dir(folder.path()).env_remove("STATEFS_SOCKET");
    let ended = run.stdin(Stdio::null()).stdout(stdout).stderr(stderr).output().unwrap();
    let exit = ended.status.code().unwrap();
    Run { exit, stdout: ended.stdout, stderr: String::from_utf8(ended.stderr).unwrap() }
}

/// What `arguments` come to where nobody reads standard output.
fn unread(folder: &Folder, arguments: &str) -> Run {
    run(folder, arguments, closed(), Stdio::piped())
}

/// A volume without its copies A, of which more is to be told than waits to be written; and what it was before.
fn with_one_copy() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let path = folder.path().join("x.img");
    volume::make(&path, SMALL_BYTES, 2, &[puts(120, 0)]);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    for block in bad[ZONES[0]..ZONES[1]].chunks_mut(512).filter(|block| block[0] != 0) {
        block[180] ^= 1;
    }
    fs::write(&path, &bad).unwrap();
    let told = statefs(folder.path(), "image fsck x.img").exits(4);
    assert!(told.stdout.len() > 8192, "{}", told.stdout.len());
    (folder, good)
}

/// A volume whose last write is lost in both copies.
fn with_a_loss() -> Folder {
    let folder = Folder::new();
    volume::make_with_a_loss(&folder.path().join("x.img"));
    folder
}

#[test]
fn a_check_that_nobody_reads_calls_nothing_clean_that_is_not() {
    let (folder, _) = with_one_copy();
    let told = unread(&folder, "image fsck x.img").exits(4).stderr;
    assert!(told.starts_with("statefs: REPAIRABLE: x.img: "), "{told}");
    let folder = with_a_loss();
    for (verb, exit) in [("fsck", 4), ("dump", 6), ("inspect", 6)] {
        let told = unread(&folder, &format!("image {verb} x.img")).exits(exit).stderr;
        assert!(told.starts_with("statefs: D"), "{verb}: {told}");
    }
}

#[test]
fn a_repair_that_nobody_reads_of_is_made() {
    let (folder, good) = with_one_copy();
    unread(&folder, "image fsck x.img --repair --yes").exits(1);
    unread(&folder, "image fsck x.img").exits(0);
    assert!(folder.path().join("x.img.undo-1").exists());
    let repaired = statefs(folder.path(), "image dump x.img").exits(0).stdout;
    fs::write(folder.path().join("x.img"), good).unwrap();
    assert!(statefs(folder.path(), "image dump x.img").exits(0).stdout == repaired);
}

#[test]
fn what_nobody_reads_of_is_put_back_and_what_cannot_be_told_is_not() {
    let (folder, _) = with_one_copy();
    let bad = fs::read(folder.path().join("x.img")).unwrap();
    statefs(folder.path(), "image fsck x.img --repair --yes --undo u").exits(1);
    let repaired = fs::read(folder.path().join("x.img")).unwrap();
    let told = run(&folder, "image undo x.img u --yes", full(), Stdio::piped()).exits(1).stderr;
    assert!(told.starts_with("statefs: OUTPUT: "), "{told}");
    assert!(fs::read(folder.path().join("x.img")).unwrap() == repaired);
    unread(&folder, "image undo x.img u --yes").exits(0);
    assert!(fs::read(folder.path().join("x.img")).unwrap() == bad);
}

#[test]
fn a_salvage_that_nobody_reads_of_is_made() {
    let (folder, _) = with_one_copy();
    unread(&folder, "image salvage x.img --out y.img").exits(0);
    statefs(folder.path(), "image fsck y.img").exits(0);
    let folder = with_a_loss();
    unread(&folder, "image salvage x.img --out y.img").exits(6);
    statefs(folder.path(), "image fsck y.img").exits(0);
}

#[test]
fn an_import_that_nobody_reads_of_is_made_and_judged() {
    let folder = Folder::new();
    fs::write(folder.path().join("x.img"), vec![7; 4 << 20]).unwrap();
    unread(&folder, "image import --from nexus x.img y.img").exits(6);
    assert!(!folder.path().join("y.img").exists());
    unread(&folder, "image import --from nexus --salvage x.img y.img").exits(6);
    statefs(folder.path(), "image fsck y.img").exits(0);
}

#[test]
fn a_store_that_failed_is_so_for_who_reads_nothing_of_it() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    // It ends with the program.
    thread::spawn(move || listener.incoming().for_each(|stream| fail(stream.unwrap())));
    let told = statefs(folder.path(), "--socket s health -o json").exits(7);
    assert!(told.text().contains("\"mode\":\"failed\"") && told.stdout.len() > 8192);
    for options in ["", " -o json"] {
        let told = unread(&folder, &format!("--socket s health{options}")).exits(7).stderr;
        assert!(told.contains("UNAVAILABLE"), "{told}");
    }
}

/// Answers as a daemon whose store failed, for more reason than waits to be written: words of Cap'n Proto, one call after
/// the other.
fn fail(mut stream: UnixStream) {
    const REASON_BYTES: u64 = 9000;
    let bootstrap = vec![3, 23 << 32 | 1, 0x0001_0001_0000_0004, 1, 0];
    let hello = vec![0xffff_fffc, 0];
    // The mode, no losses, and where the reason is.
    let mut health = vec![0x0001_0002_0000_0004, 0, 5, 0, (REASON_BYTES + 1) << 35 | 2 << 32 | 1];
    health.extend([u64::from_le_bytes(*b"no store"); (REASON_BYTES / 8) as usize]);
    health.push(0);
    for results in [bootstrap, hello, health] {
        // What only ends an earlier call has no answer.
        let question = loop {
            let call = message(&mut stream);
            if [2, 8].contains(&(call[1] & 0xffff)) {
                break call[3] & 0xffff_ffff;
            }
        };
        let head = [0x0001_0001 << 32, 3, 0x0001_0002 << 32, question, 0, 0x0002_0000 << 32];
        let words = [head.as_slice(), &results].concat();
        let frame = [[(words.len() as u64) << 32].as_slice(), &words].concat();
        stream
            .write_all(&frame.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
            .unwrap();
    }
    // The end of the connection is the program's to make.
    drop(stream.read_to_end(&mut Vec::new()));
}

/// Reads the words of a message of one segment.
fn message(stream: &mut UnixStream) -> Vec<u64> {
    let mut word = || {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    let count = word() >> 32;
    (0..count).map(|_| word()).collect()
}

/// By the table of fsck(8) a 1 is a repair, so a full disk under the report must be something else.
#[test]
fn a_check_that_cannot_tell_is_neither_clean_nor_a_repair() {
    let (folder, good) = with_one_copy();
    let bad = fs::read(folder.path().join("x.img")).unwrap();
    for options in ["", " -o json", " --repair --yes"] {
        let arguments = format!("image fsck x.img{options}");
        let told = run(&folder, &arguments, full(), Stdio::piped()).exits(8).stderr;
        assert!(told.contains("OUTPUT"), "{told}");
        assert!(fs::read(folder.path().join("x.img")).unwrap() == bad, "{options}");
    }
    assert!(!folder.path().join("x.img.undo-1").exists());
    fs::write(folder.path().join("x.img"), good).unwrap();
    run(&folder, "image fsck x.img", full(), Stdio::piped()).exits(8);
}

#[test]
fn a_new_image_that_cannot_be_told_of_is_said_to_be_made() {
    let folder = with_a_loss();
    fs::write(folder.path().join("nexus.img"), vec![0; 4096]).unwrap();
    for (arguments, image) in [
        ("image format f.img --size 1M", "f.img"),
        ("image salvage x.img --out s.img", "s.img"),
        ("image import --from nexus nexus.img i.img", "i.img"),
    ] {
        let told = run(&folder, arguments, full(), Stdio::piped()).exits(1).stderr;
        let made = "was made, but not told: standard output: ";
        assert!(told.starts_with("statefs: OUTPUT: ") && told.contains(made), "{told}");
        statefs(folder.path(), &format!("image fsck {image}")).exits(0);
    }
}

#[test]
fn a_demonstration_whose_reader_has_seen_enough_ends_without_a_word() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_statefs"));
    demo.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    // The first line is there before the daemon runs, the next is not.
    demo.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let ended = demo.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_remark_that_cannot_be_made_ends_nothing() {
    let folder = Folder::new();
    let arguments = "image format x.img --size 1M --copies 1";
    for stderr in [full(), closed()] {
        let made = run(&folder, arguments, Stdio::piped(), stderr).exits(0);
        assert_eq!(made.text().trim_end().len(), 32);
        fs::remove_file(folder.path().join("x.img")).unwrap();
    }
}
