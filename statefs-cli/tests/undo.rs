//! `image undo`: it leads back to what was there before a repair, and believes no undo file.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where it fails"
)]

mod common;

use std::fs;
use std::process::Command;

use common::volume::{self, SMALL_BYTES, puts};
use common::{Folder, Run, redact, statefs};
use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Where the zones of the small volumes begin.
const ZONE_A: usize = 2 * 4096;
const ZONE_B: usize = (2 + (SMALL_BYTES as usize / 4096 - 4) / 2) * 4096;
/// Bytes before the first block of an undo file.
const HEAD: usize = 8 + 16;

fn read(folder: &Folder, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).unwrap()
}

fn write(folder: &Folder, name: &str, bytes: &[u8]) {
    fs::write(folder.path().join(name), bytes).unwrap();
}

/// A volume that was repaired in three blocks, `x.img`, with the undo file `u`; yields also how it was before and after.
fn repaired() -> (Folder, Vec<u8>, Vec<u8>) {
    let folder = Folder::new();
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, &[puts(6, 0), puts(3, 1)]);
    let good = read(&folder, "x.img");
    let mut bad = good.clone();
    for byte in [4096 + 300, ZONE_B + 512 + 180, ZONE_A + 3 * 512 + 90] {
        bad[byte] ^= 1;
    }
    write(&folder, "x.img", &bad);
    statefs(folder.path(), "image fsck x.img --repair --yes --undo u").exits(1);
    assert!(read(&folder, "x.img") == good);
    (folder, bad, good)
}

/// An undo file with these blocks, whatever they are, and nothing wrong about it otherwise.
fn undo_file(volume: &[u8], blocks: &[(u64, &[u8])]) -> Vec<u8> {
    let mut file = b"SFSUNDO1".to_vec();
    file.extend_from_slice(volume);
    for (offset, bytes) in blocks {
        file.extend_from_slice(&offset.to_le_bytes());
        file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        file.extend_from_slice(&CRC.checksum(bytes).to_le_bytes());
        file.extend_from_slice(bytes);
    }
    file.extend_from_slice(&[0; 16]);
    file
}

#[test]
fn it_leads_back_to_the_byte_however_often() {
    let (folder, bad, good) = repaired();
    let run = statefs(folder.path(), "image undo x.img u --yes").exits(0);
    insta::assert_snapshot!(run.text(), @r"
    u: 3 blocks, 5120 bytes; 3 of them differ from what x.img holds
    x.img: 3 blocks were put back
    ");
    assert_eq!(run.stderr, "");
    assert!(read(&folder, "x.img") == bad, "it does not lead back");
    let again = statefs(folder.path(), "image undo x.img u -o json").exits(0);
    insta::assert_snapshot!(redact(again.text()), @r#"
    {"plan":{"blocks":3,"bytes":5120,"differ":0,"path":"x.img","strange":0,"undo":"u","volume":"[32 hex digits]"}}
    {"summary":{"path":"x.img","putBack":0}}
    "#);
    assert!(read(&folder, "x.img") == bad);
    // Cut short after any number of blocks, and within one, it goes on.
    let places = [4096, ZONE_A + 3 * 512, ZONE_B + 512];
    for done in 0..places.len() {
        let mut part = good.clone();
        for &place in &places[..done] {
            part[place..place + 512].copy_from_slice(&bad[place..place + 512]);
        }
        write(&folder, "x.img", &part);
        statefs(folder.path(), "image undo x.img u --yes").exits(0);
        assert!(read(&folder, "x.img") == bad, "after {done} blocks");
    }
    // And the repair of what was put back is the same.
    statefs(folder.path(), "image fsck x.img --repair --yes --undo v").exits(1);
    assert!(read(&folder, "x.img") == good && read(&folder, "u") == read(&folder, "v"));
}

#[test]
fn nothing_is_written_that_nobody_confirmed() {
    let (folder, _, good) = repaired();
    let run = statefs(folder.path(), "image undo x.img u").exits(2);
    assert!(run.text().contains("3 of them differ"), "{}", run.text());
    assert!(run.stderr.contains("NOT_CONFIRMED") && run.stderr.contains("--yes"), "{}", run.stderr);
    assert!(read(&folder, "x.img") == good);
}

#[test]
fn an_image_that_a_daemon_holds_is_refused() {
    let (folder, ..) = repaired();
    let _daemon = common::daemon::Daemon::start(folder.path(), "1M", "");
    let run = statefs(folder.path(), "image undo state.img u --yes").exits(7);
    assert!(run.stderr.starts_with("statefs: BUSY: "), "{}", run.stderr);
}

#[test]
fn another_volume_is_refused() {
    let (folder, ..) = repaired();
    statefs(folder.path(), "image format y.img --size 1M").exits(0);
    let before = read(&folder, "y.img");
    let run = statefs(folder.path(), "image undo y.img u --yes --force").exits(1);
    assert!(run.stderr.starts_with("statefs: OTHER_VOLUME: u: "), "{}", run.stderr);
    assert!(read(&folder, "y.img") == before);
    write(&folder, "blank.img", &[0; 1 << 20]);
    for (image, code) in [("blank.img", "BLANK"), ("none.img", "NO_IMAGE"), (".", "NOT_STORAGE")] {
        let run = statefs(folder.path(), &format!("image undo {image} u --yes")).exits(1);
        assert!(run.stderr.starts_with(&format!("statefs: {code}: {image}: ")), "{}", run.stderr);
    }
}

/// Applies `file` with all that could make it be applied, and demands that nothing came of it.
fn refused(folder: &Folder, image: &[u8], file: &[u8]) -> Run {
    write(folder, "hostile", file);
    let run = statefs(folder.path(), "image undo x.img hostile --yes --force").exits(1);
    assert!(run.stderr.starts_with("statefs: UNDO_FILE: hostile: "), "{}", run.stderr);
    assert!(read(folder, "x.img") == image, "it wrote: {}", run.stderr);
    run
}

#[test]
fn what_is_no_undo_file_or_not_all_of_one_is_refused() {
    let (folder, _, good) = repaired();
    let file = read(&folder, "u");
    for length in (0..file.len()).filter(|length| *length < 60 || length % 61 == 0) {
        refused(&folder, &good, &file[..length]);
    }
    refused(&folder, &good, &file[..file.len() - 1]);
    refused(&folder, &good, &[&file[..], b"x"].concat());
    refused(&folder, &good, &good);
    // Whatever byte of it is another: but for the id, which makes it another volume's, and for the place of a block, which may
    // then be another's.
    let last = file.len() - 16 - 512 - 16;
    let places = [HEAD, last].map(|at| at + 1..at + 8);
    let bytes = (0..8).chain(HEAD..HEAD + 40).chain(last - 20..file.len());
    for at in bytes.filter(|at| places.iter().all(|place| !place.contains(at))) {
        let mut other = file.clone();
        other[at] ^= 0x10;
        refused(&folder, &good, &other);
    }
    let run = statefs(folder.path(), "image undo x.img none --yes").exits(1);
    assert!(run.stderr.starts_with("statefs: UNDO_FILE: none: "), "{}", run.stderr);
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    for other in [".", "pipe", "/dev/zero"] {
        let run = statefs(folder.path(), &format!("image undo x.img {other} --yes")).exits(1);
        assert!(run.stderr.contains("it is no regular file"), "{}", run.stderr);
    }
}

#[test]
fn what_no_repair_writes_is_not_written() {
    let (folder, _, good) = repaired();
    let id = &read(&folder, "u")[8..HEAD];
    let (block, slot) = ([7; 512], [7; 4096]);
    // Behind one that could be written.
    let first = (ZONE_A as u64, &block[..]);
    let end = good.len() as u64;
    let blocks: [(u64, &[u8]); 12] = [
        (ZONE_A as u64 + 1, &block),
        (ZONE_A as u64 + 256, &block),
        (ZONE_A as u64, &slot),
        (ZONE_A as u64, &block[..256]),
        (4096, &block),
        (4096 + 512, &block),
        (end - 512, &block),
        (end, &slot),
        (end, &block),
        (u64::MAX - 511, &block),
        (u64::MAX - 4095, &slot),
        (1 << 63, &block),
    ];
    for bad in blocks {
        refused(&folder, &good, &undo_file(id, &[first, bad]));
    }
    // A length that nothing holds is not allocated.
    let mut long = undo_file(id, &[first]);
    long[HEAD + 8..HEAD + 12].fill(0xff);
    assert!(refused(&folder, &good, &long).stderr.contains("a block of 4294967295 bytes"));
    // All copies of the superblock at once.
    let slots = [0, 4096, end - 8192, end - 4096].map(|offset| (offset, &slot[..]));
    let run = refused(&folder, &good, &undo_file(id, &slots));
    assert!(run.stderr.contains("no copy of the superblock"), "{}", run.stderr);
    // On a device that ends before the volume, what lies behind its end.
    let short = &good[..good.len() - 4096];
    write(&folder, "x.img", short);
    refused(&folder, short, &undo_file(id, &[first, (end - 4096, &slot)]));
}

#[test]
fn what_changed_since_the_repair_is_written_only_by_force() {
    let (folder, bad, good) = repaired();
    for at in [4096 + 3000, ZONE_B + 512 + 20] {
        let mut changed = good.clone();
        changed[at] ^= 0xff;
        write(&folder, "x.img", &changed);
        let run = statefs(folder.path(), "image undo x.img u --yes").exits(1);
        assert!(
            run.stderr.starts_with("statefs: CHANGED_SINCE: x.img: 1 block "),
            "{}",
            run.stderr
        );
        assert!(read(&folder, "x.img") == changed);
        statefs(folder.path(), "image undo x.img u --yes --force").exits(0);
        assert!(read(&folder, "x.img") == bad);
    }
}
