//! Tools for images over large values: dumped in parts, carried over whole, named where a part is damaged.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::cmp::Reverse;
use std::fs;
use std::path::Path;

use common::daemon::Daemon;
use common::volume::{self, flip_in_group, puts};
use common::{Folder, statefs, statefs_with};
use serde_json::Value as Json;

/// A volume whose chunks have nearly 64 KiB.
const BYTES: u64 = 7 << 19;
const LARGE: &str = "/state/crash/1";

/// Bytes of which no part is like another.
fn large(seed: u8) -> Vec<u8> {
    (0..50_000_u32).flat_map(|n| (n << 8 | u32::from(seed)).to_le_bytes()).collect()
}

fn volume() -> Folder {
    let folder = Folder::new();
    let put = |seed| vec![(LARGE.to_owned(), Some(large(seed)))];
    let mounts = [puts(3, 0), put(1), put(2), puts(3, 1)];
    volume::make(&folder.path().join("x.img"), BYTES, 2, &mounts);
    folder
}

/// The lines of a dump that hold a value, and the line behind them.
fn dump(folder: &Path, image: &str, exit: i32) -> (Vec<Json>, Json) {
    let run = statefs(folder, &format!("image dump {image}")).exits(exit);
    let mut lines: Vec<Json> =
        run.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    (lines, last)
}

/// Puts the parts of the large value together, each of which must begin where the one before ends.
fn whole(lines: &[Json]) -> Vec<u8> {
    let mut value = Vec::new();
    for line in lines.iter().filter(|line| line["key"] == LARGE) {
        assert_eq!(line["at"], value.len());
        assert_eq!(line["bytes"], 200_000);
        value.extend(decoded(line["value"].as_str().unwrap()));
    }
    value
}

fn decoded(base64: &str) -> Vec<u8> {
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).unwrap() as u32;
    let digits: Vec<u32> = base64.trim_end_matches('=').as_bytes().iter().map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes.into_iter().take(four.len() - 1)
    });
    bytes.collect()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[test]
fn a_dump_shows_large_values_in_parts() {
    let folder = volume();
    let (lines, _) = dump(folder.path(), "x.img", 0);
    assert_eq!(lines.len(), 4 + 3);
    assert_eq!(whole(&lines), large(2));
}

#[test]
fn a_salvage_carries_them_over_whole() {
    let folder = volume();
    let run = statefs(folder.path(), "image salvage x.img --out y.img").exits(0);
    assert_eq!(run.text(), "4 keys saved, 0 of them in doubt, 0 lost\n");
    let (before, after) = (dump(folder.path(), "x.img", 0).0, dump(folder.path(), "y.img", 0).0);
    assert_eq!(whole(&before), whole(&after));
    // Parts are as long as each volume has them.
    let others = |lines: &[Json]| lines.iter().filter(|line| line["key"] != LARGE).count();
    assert_eq!((others(&before), others(&after)), (3, 3));
    statefs(folder.path(), "image fsck y.img").exits(0);
}

/// Finds a piece of a large value in both zones.
fn places(image: &[u8], value: &[u8], at: usize) -> Vec<usize> {
    let wanted = &value[at..at + 64];
    let found: Vec<usize> = image
        .windows(64)
        .enumerate()
        .filter(|(_, found)| *found == wanted)
        .map(|(n, _)| n)
        .collect();
    assert_eq!(found.len(), 2, "one in each zone");
    found
}

#[test]
fn a_part_damaged_in_one_copy_costs_nothing() {
    let folder = volume();
    let path = folder.path().join("x.img");
    let mut image = fs::read(&path).unwrap();
    let place = places(&image, &large(2), 100_000)[0];
    image[place] ^= 1;
    fs::write(&path, &image).unwrap();
    let run = statefs(folder.path(), "image fsck x.img").exits(4);
    assert!(run.text().contains(LARGE), "{}", run.text());
    statefs(folder.path(), "image salvage x.img --out y.img").exits(0);
    statefs(folder.path(), "image fsck x.img --repair --yes").exits(1);
    statefs(folder.path(), "image fsck x.img").exits(0);
}

#[test]
fn a_part_damaged_in_both_copies_is_told_for_its_key_and_never_given_as_a_whole() {
    let folder = volume();
    let path = folder.path().join("x.img");
    let mut image = fs::read(&path).unwrap();
    for place in places(&image, &large(2), 100_000) {
        image[place] ^= 1;
    }
    // The value before it, which is there yet, would be taken.
    for place in places(&image, &large(1), 100_000) {
        image[place] ^= 1;
    }
    fs::write(&path, &image).unwrap();
    let run = statefs(folder.path(), "image fsck x.img -o json").exits(4);
    let named = run.text().lines().filter(|line| line.contains(LARGE)).collect::<Vec<_>>();
    assert!(named.iter().any(|line| line.contains("\"loss\":true")), "{}", run.text());
    let (lines, _) = dump(folder.path(), "x.img", 6);
    let last = lines.iter().rfind(|line| line["key"] == LARGE).unwrap();
    assert!(last["value"].is_null(), "{last}");
    let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
    assert!(
        run.text().contains(&format!("{{\"key\":\"{LARGE}\",\"kind\":\"keyLost\"}}")),
        "{}",
        run.text()
    );
    let (lines, _) = dump(folder.path(), "y.img", 0);
    assert!(lines.iter().all(|line| line["key"] != LARGE));
    assert_eq!(lines.len(), 3);
}

/// Puts the values one after the other under one key, each cut where it is long, and stops.
fn served(values: &[&[u8]], checkpoint: bool) -> Folder {
    let folder = Folder::new();
    let rights = "rights = [\"get\", \"put\", \"admin.checkpoint\"]\n";
    let grants = format!("[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n{rights}");
    let mut daemon = Daemon::start(folder.path(), "8M", &grants);
    for value in values {
        statefs_with(folder.path(), &format!("put {LARGE}"), value).exits(0);
    }
    if checkpoint {
        statefs(folder.path(), "admin checkpoint").exits(0);
    }
    daemon.stop();
    fs::rename(folder.path().join("state.img"), folder.path().join("x.img")).unwrap();
    folder
}

/// Salvages the image, which lost something; the key must be reported as `kind`. Yields its value, which is shown in one line.
fn salvaged(folder: &Folder, kind: &str) -> Option<Vec<u8>> {
    let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
    let told = format!("{{\"key\":\"{LARGE}\",\"kind\":\"{kind}\"}}");
    assert!(run.text().contains(&told), "{}", run.text());
    let (lines, _) = dump(folder.path(), "y.img", 0);
    let line = lines.iter().find(|line| line["key"] == LARGE)?;
    Some(decoded(line["value"].as_str().unwrap()))
}

#[test]
fn chunks_that_no_index_lists_any_more_are_found() {
    let value = &large(3)[..10_000];
    // The first part of the checkpoint lists what lies where.
    let folder = served(&[value], true);
    flip_in_group(folder.path(), 200, |group| {
        (group["role"] == "checkpoint").then(|| group["lsns"][0].as_u64())
    });
    assert!(salvaged(&folder, "keptInDoubt").as_deref() == Some(value));
    // Without one, the header of the group that holds the chunks and their manifest tells of it.
    let folder = served(&[value], false);
    flip_in_group(folder.path(), 3, |group| Some(Reverse(group["liveBytes"].as_u64())));
    assert!(salvaged(&folder, "keptInDoubt").as_deref() == Some(value));
}

/// What is whole of a key counts, the newest first.
#[test]
fn an_older_value_is_kept_where_a_newer_one_misses_a_chunk() {
    let newest = &large(3)[..10_000];
    for (older, checkpoint) in [(&b"v1"[..], false), (b"v1", true), (&large(4)[..20_000], false)] {
        let folder = served(&[b"v0", older, newest], checkpoint);
        let path = folder.path().join("x.img");
        let mut image = fs::read(&path).unwrap();
        for place in places(&image, newest, 500) {
            image[place] ^= 1;
        }
        fs::write(&path, &image).unwrap();
        assert!(salvaged(&folder, "keptInDoubt").as_deref() == Some(older), "{checkpoint}");
    }
}
