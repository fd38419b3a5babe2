//! `image import --from nexus`: every layout, and none of its own reader's silences.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Folder, Run, statefs, volume};

/// CRC-32C, bit by bit, written from its definition and not with the program's crate.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}

fn record(op: u8, key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x46, 0x53, 0x58, 0x4e, op];
    bytes.extend((key.len() as u16).to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(value);
    bytes.extend(crc(&bytes).to_le_bytes());
    bytes
}

fn puts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| record(1, &format!("/state/k{n:03}"), format!("v{n}").as_bytes())).collect()
}

fn padded(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    assert!(bytes.len() <= length);
    bytes.resize(length, 0);
    bytes
}

fn payload(id: u64, key: &str, chunk: &[u8]) -> Vec<u8> {
    record(0x11, key, &[&id.to_le_bytes(), chunk].concat())
}

/// A compacted image whose region `active` holds `count` keys.
fn compacted(active: u8, count: usize) -> Vec<u8> {
    let numbers = [7_u32.to_le_bytes(), (count as u32).to_le_bytes()].concat();
    let mut superblock = [b"NXS2".as_slice(), &[1, active, 0, 0], &numbers].concat();
    superblock.extend(crc(&superblock).to_le_bytes());
    let region = 20 * 512;
    let live = padded([vec![record(3, "", &numbers)], puts(count)].concat().concat(), region);
    let stale = padded(record(1, "/state/stale", b"old"), region);
    let regions = if active == 0 { [live, stale] } else { [stale, live] };
    [padded(superblock, 512), regions.concat()].concat()
}

fn run(folder: &Folder, image: &[u8], options: &str) -> Run {
    fs::write(folder.path().join("n.img"), image).unwrap();
    let run =
        statefs(folder.path(), &format!("image import --from nexus {options} n.img s.img -o json"));
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

fn keys(folder: &Folder) -> usize {
    let dump = statefs(folder.path(), "image dump s.img").exits(0);
    fs::remove_file(folder.path().join("s.img")).unwrap();
    dump.text().lines().count() - 1
}

/// Demands an exit code with `options`, and yields the value of each key that came over, in base64.
fn values(image: &[u8], options: &str, exit: i32) -> BTreeMap<String, String> {
    let folder = Folder::new();
    run(&folder, image, options).exits(exit);
    let dump = statefs(folder.path(), "image dump s.img").exits(0);
    let text = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    dump.text()
        .lines()
        .filter_map(|line| Some((text(line, "key")?, text(line, "value")?)))
        .collect()
}

/// The image with `bytes` at `at`.
fn with(mut image: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

/// Demands that `image` is refused, and that a salvage brings `count` keys over.
fn damaged(image: &[u8], count: usize) -> String {
    let folder = Folder::new();
    let refused = run(&folder, image, "").exits(6);
    assert!(refused.text().contains("\"kind\":\"damage\""), "{}", refused.text());
    assert!(!folder.path().join("s.img").exists());
    run(&folder, image, "--salvage").exits(6);
    assert_eq!(keys(&folder), count, "{}", refused.text());
    refused.text().to_owned()
}

#[test]
fn a_journal_of_version_1_comes_over() {
    let folder = Folder::new();
    let mut records = puts(9);
    records.push(record(2, "/state/k003", b""));
    records.push(record(1, "/state/e", b"NXEV-and-more"));
    let done = run(&folder, &padded(records.concat(), 64 * 512), "").exits(0);
    insta::assert_snapshot!(done.text().trim(), @r#"{"summary":{"damage":0,"encryptionRecords":0,"envelopes":1,"generation":0,"keys":9,"openTransactions":0,"records":11,"recordsBehindEnd":0,"sealed":0,"unusable":0,"written":true}}"#);
    statefs(folder.path(), "image fsck s.img").exits(0);
    assert_eq!(keys(&folder), 9);
}

/// What was imported may lie for years before a daemon opens it: it is no write that was cut off.
#[test]
fn what_goes_bad_before_the_first_start_is_told() {
    let folder = Folder::new();
    fs::write(folder.path().join("n.img"), padded(puts(12).concat(), 64 * 512)).unwrap();
    statefs(folder.path(), "image import --from nexus n.img x.img").exits(0);
    statefs(folder.path(), "image fsck x.img").exits(0);
    volume::flip_in_group(folder.path(), 3, |group| (group["records"] == 12).then_some(()));
    let dump = statefs(folder.path(), "image dump x.img").exits(6);
    assert!(dump.stderr.contains("DATA_LOSS"), "{}", dump.stderr);
    statefs(folder.path(), "image fsck x.img").exits(4);
}

/// One takes fewer records together, and shorter values at once.
#[test]
fn a_small_volume_takes_all_that_has_room_in_it() {
    let folder = Folder::new();
    let mut records: Vec<_> =
        (0..100).map(|n| record(1, &format!("/state/{n}"), &[b'v'; 900])).collect();
    records.push(record(1, "/state/long", &[b'v'; 60_000]));
    let image = padded(records.concat(), 512 * 512);
    run(&folder, &image, "--size 1M").exits(0);
    statefs(folder.path(), "image fsck s.img").exits(0);
    // The long one is shown in parts.
    let dump = statefs(folder.path(), "image dump s.img").exits(0);
    let parts = dump.text().matches("\"/state/long\"").count();
    assert!(parts > 1, "{parts}");
    assert_eq!(keys(&folder), 100 + parts);
}

/// Nobody here has the key to them: they come over as they are, and are told.
#[test]
fn sealed_values_and_envelopes_are_carried_as_bytes_and_told() {
    let folder = Folder::new();
    let sealed = [b"NXR1\x01\x02\0\0".as_slice(), &[0xa5; 40]].concat();
    let records = [
        record(1, "/state/secret", &sealed),
        record(1, "/state/boot/slot", b"NXEV\x01\x01 and more"),
        record(1, "/state/statefsd/enc.v1", b"NXEM\x01 and a salt"),
        record(1, "/state/plain", b"plain"),
    ];
    let done = run(&folder, &padded(records.concat(), 64 * 512), "").exits(0);
    for told in ["\"sealed\":1", "\"envelopes\":1", "\"encryptionRecords\":1", "\"keys\":4"] {
        assert!(done.text().contains(told), "{told}: {}", done.text());
    }
    let dump = statefs(folder.path(), "image dump s.img").exits(0);
    // The seal in base64, to its last byte but what padding there is.
    let bytes = "TlhSMQECAACl".to_owned() + &"paWl".repeat(13);
    assert!(dump.text().contains(&format!("\"value\":\"{bytes}\"")), "{}", dump.text());
    assert_eq!(keys(&folder), 4);
}

#[test]
fn transactions_count_when_they_were_committed() {
    let folder = Folder::new();
    let id = |id: u64| id.to_le_bytes();
    let records = [
        record(0x10, "", &id(1)),
        payload(1, "/state/a", b"one "),
        payload(1, "/state/a", b"two"),
        record(0x12, "", &id(1)),
        record(0x10, "", &id(2)),
        payload(2, "/state/b", b"aborted"),
        record(0x13, "", &id(2)),
        record(0x14, "", b""),
        record(0x10, "", &id(3)),
        payload(3, "/state/c", b"open"),
    ];
    run(&folder, &padded(records.concat(), 64 * 512), "").exits(0);
    let dump = statefs(folder.path(), "image dump s.img").exits(0);
    assert!(dump.text().contains("\"value\":\"b25lIHR3bw==\""), "{}", dump.text());
    assert_eq!(keys(&folder), 1);
}

#[test]
fn a_compacted_image_comes_over_from_either_region() {
    for active in [0, 1] {
        let folder = Folder::new();
        run(&folder, &compacted(active, 12), "").exits(0);
        assert_eq!(keys(&folder), 12);
    }
}

/// What a region held before it was compacted into lies behind its end, too: such records are counted, and no damage.
#[test]
fn records_behind_the_end_of_a_compacted_region_are_counted() {
    for (late, told) in [(0, "\"recordsBehindEnd\":0,"), (3, "\"recordsBehindEnd\":3,")] {
        let folder = Folder::new();
        let mut image = compacted(0, 12);
        let behind = record(1, "/state/late", b"new").repeat(late);
        // A blank block and more behind the end, and in two stretches.
        for (at, part) in [
            (512 + 6 * 512, &behind[..behind.len() / 3]),
            (512 + 9 * 512 + 7, &behind[behind.len() / 3..]),
        ] {
            image[at..at + part.len()].copy_from_slice(part);
        }
        let done = run(&folder, &image, "").exits(0);
        assert!(done.text().contains(told), "{}", done.text());
        assert_eq!(keys(&folder), 12);
        let text = statefs(folder.path(), "image import --from nexus n.img s.img").exits(0);
        assert_eq!(text.text().contains("left out: 3 records behind the end"), late > 0);
    }
}

/// What is behind the end was written in an earlier use of the region, also where a part of the snapshot is damaged, and
/// so less of it is intact than its checkpoint counts.
#[test]
fn stale_records_behind_the_end_replace_nothing_where_the_snapshot_is_damaged() {
    let stale = [record(1, "/state/k003", b"stale"), record(1, "/state/gone", b"stale")].concat();
    for lost in [5, 11] {
        let mut image = with(compacted(0, 12), 512 + 9 * 512, &stale);
        image[512 + 23 + puts(lost).concat().len() + 11 + 11] ^= 1;
        let told = damaged(&image, 11);
        assert_eq!(told.matches("\"kind\":\"damage\"").count(), 1, "{told}");
        assert!(told.contains("\"recordsBehindEnd\":2,"), "{told}");
        let values = values(&image, "--salvage", 6);
        assert_eq!((values["/state/k003"].as_str(), values.get("/state/gone")), ("djM=", None));
    }
}

/// The end of a snapshot is lost and so is the end of the log: what follows may be its rest, or stale. It is better than nothing.
#[test]
fn what_may_be_stale_only_adds_to_a_snapshot_that_is_cut_off() {
    let stale = [record(1, "/state/k003", b"old"), record(1, "/state/k009", b"old")].concat();
    let mut image = with(compacted(0, 12), 512 + 9 * 512, &stale);
    image[512 + 23 + puts(6).concat().len()..512 + 9 * 512].fill(0);
    let values = values(&image, "--salvage", 6);
    assert_eq!(values.len(), 7);
    assert_eq!((values["/state/k003"].as_str(), values["/state/k009"].as_str()), ("djM=", "b2xk"));
}

/// The writer writes block by block, that of zeros last, and its power fails between two of them.
#[test]
fn stale_records_behind_a_torn_end_replace_nothing() {
    let stale = [record(1, "/state/k003", b"old"), record(1, "/state/gone", b"old")].concat();
    let last = record(1, "/state/last", &[b'x'; 200]);
    let log = [puts(12).concat(), record(1, "/state/k003", b"new"), last].concat();
    let first_block = &log[..512 - 23];
    let rest_of_stale = [&[0xaa; 20], stale.as_slice()].concat();
    for (log, behind, keys) in [(first_block, &stale, 12), (&log, &rest_of_stale, 13)] {
        let image = with(with(compacted(0, 12), 512 + 23, log), 512 + 2 * 512, behind);
        let told = damaged(&image, keys);
        assert!(told.contains("\"recordsBehindEnd\":2,"), "{told}");
        assert_eq!(values(&image, "--salvage", 6)["/state/k003"], "bmV3");
    }
}

/// Where a damaged record still says how long it is, and the log goes on there, that is no end, however many zeros it holds.
#[test]
fn records_behind_a_damaged_one_are_newer() {
    let mut zeros = record(1, "/state/k001", &[0; 2048]);
    zeros[11] ^= 1;
    let log = [puts(12).concat(), zeros, record(1, "/state/k003", b"new")].concat();
    let image = with(compacted(0, 12), 512 + 23, &log);
    damaged(&image, 12);
    assert_eq!(values(&image, "--salvage", 6)["/state/k003"], "bmV3");
}

/// A store whose superblock was lost began anew, over what it had held.
#[test]
fn what_is_behind_a_blank_in_a_journal_replaces_nothing_and_restores_nothing() {
    let journal = [record(1, "/state/k003", b"new"), record(2, "/state/k004", b"")].concat();
    let image = with(compacted(1, 12), 0, &padded(journal, 1024));
    damaged(&image, 11);
    let values = values(&image, "--salvage", 6);
    assert_eq!((values["/state/k003"].as_str(), values.get("/state/k004")), ("bmV3", None));
}

/// The first compaction writes its snapshot, and only then the superblock. Its power fails in between.
#[test]
fn a_snapshot_that_was_never_put_in_use_is_behind_the_end() {
    let key = |key: &str, value: &[u8]| record(1, key, value);
    let old = [key("/state/a", b"old"), key("/state/b", b"b")].concat();
    let checkpoint = record(3, "", &[1_u32.to_le_bytes(), 2_u32.to_le_bytes()].concat());
    let journal = [old.clone(), key("/state/a", b"new")].concat();
    let (first, end) = (old.len(), journal.len());
    let image = with(padded(journal, 64 * 512), 32 * 512, &[checkpoint, old].concat());
    let folder = Folder::new();
    let done = run(&folder, &image, "").exits(0);
    assert!(done.text().contains("\"recordsBehindEnd\":3,"), "{}", done.text());
    assert_eq!(values(&image, "", 0)["/state/a"], "bmV3");
    // Nor does it replace anything where the journal is damaged or torn before it.
    for image in [
        with(image.clone(), first - 1, &[0]),
        with(image.clone(), 8, &[1]),
        with(image, end, b"FSXN\x01"),
    ] {
        damaged(&image, 2);
        assert_eq!(values(&image, "--salvage", 6)["/state/a"], "bmV3");
    }
}

/// The superblock is lost, and one region has a newer checkpoint: was it in use, or did the power fail behind its snapshot?
#[test]
fn without_a_superblock_a_snapshot_with_nothing_behind_it_replaces_no_changes() {
    let snapshot = |generation: u32| {
        let checkpoint = [generation.to_le_bytes(), 2_u32.to_le_bytes()].concat();
        let puts = [record(1, "/state/a", b"old"), record(1, "/state/b", b"b")].concat();
        [record(3, "", &checkpoint), puts].concat()
    };
    let changed = |snapshot: Vec<u8>| [snapshot, record(1, "/state/a", b"new")].concat();
    let image = |a: &[u8], b: &[u8]| {
        let regions = [a, b].map(|log| padded(log.to_vec(), 20 * 512));
        [vec![0; 512], regions.concat()].concat()
    };
    let mut damaged_change = changed(snapshot(2));
    *damaged_change.last_mut().unwrap() ^= 1;
    for (image, a) in [
        (image(&changed(snapshot(2)), &snapshot(3)), "bmV3"),
        (image(&snapshot(2), &changed(snapshot(3))), "bmV3"),
        (image(&snapshot(4), &changed(snapshot(3))), "bmV3"),
        // Which it was cannot be told where the older region is damaged, too.
        (image(&damaged_change, &snapshot(3)), "b2xk"),
        // Two compactions lie between them, so the older one is no more in use.
        (image(&changed(snapshot(1)), &snapshot(3)), "b2xk"),
    ] {
        damaged(&image, 2);
        assert_eq!(values(&image, "--salvage", 6)["/state/a"], a);
    }
}

#[test]
fn d1_a_flipped_bit_in_the_superblock_is_no_empty_store() {
    for byte in 0..20 {
        for active in [0, 1] {
            let mut image = compacted(active, 12);
            image[byte] ^= 4;
            damaged(&image, 12);
        }
    }
}

#[test]
fn d2_records_behind_a_damaged_one_are_not_dropped_in_silence() {
    let records = puts(40);
    let before: usize = records[..11].iter().map(Vec::len).sum();
    let mut image = padded(records.concat(), 64 * 512);
    image[before + 20] ^= 1;
    let report = damaged(&image, 39);
    assert!(report.contains("\"intactBehind\":28"), "{report}");
}

#[test]
fn blanks_inside_of_what_a_compaction_wrote_are_no_end() {
    for (active, blank) in [(0, 0), (0, 9), (1, 40), (1, 119)] {
        let mut image = compacted(active, 120);
        let records = [vec![record(3, "", &[0; 8])], puts(120)].concat();
        let before: usize = records[..=blank].iter().map(Vec::len).sum();
        let at = 512 + usize::from(active) * 20 * 512 + before;
        // As far as an end is blank: the rest of the block, and the next one.
        let end = (at / 512 + 2) * 512;
        image[at..end].fill(0);
        let mut first = end;
        let mut left = 0;
        for (n, put) in puts(120).iter().enumerate().skip(blank) {
            first = if n == blank { at } else { first };
            left += usize::from(first >= end);
            first += put.len();
        }
        damaged(&image, blank + left);
    }
}

#[test]
fn d3_damage_in_a_magic_or_in_the_last_record_is_not_clean() {
    let records = puts(40);
    let before: usize = records[..11].iter().map(Vec::len).sum();
    let last: usize = records[..39].iter().map(Vec::len).sum();
    for at in [before, last, last + 20] {
        let mut image = padded(records.concat(), 64 * 512);
        image[at] ^= 1;
        damaged(&image, 39);
    }
}

#[test]
fn d4_more_than_100_000_records_are_read() {
    let folder = Folder::new();
    let records: Vec<u8> =
        (0..100_500).flat_map(|n| record(1, &format!("/state/{}", n % 50), b"v")).collect();
    let length = records.len().next_multiple_of(512) + 1024;
    let done = run(&folder, &padded(records, length), "").exits(0);
    assert!(done.text().contains("\"records\":100500"), "{}", done.text());
    assert_eq!(keys(&folder), 50);
}

#[test]
fn d11_a_length_that_nothing_can_have_is_damage() {
    let mut records = puts(3).concat();
    records.extend([0x46, 0x53, 0x58, 0x4e, 1, 5, 0, 0xff, 0xff, 0xff, 0xff]);
    damaged(&padded(records, 64 * 512), 3);
}

/// The search behind a blank may sum so much and no more. Where it gives up, nobody knows what lies there.
#[test]
fn what_hides_behind_many_heads_of_records_is_not_passed_over() {
    let hidden = record(1, "/state/b", b"b");
    let with = |image: Vec<u8>, block: usize, heads: &[u8]| {
        with(with(image, block * 512, heads), (block + 10) * 512, &hidden)
    };
    let journal = || padded(record(1, "/state/a", b"a"), 64 * 512);
    // Heads whose lengths no record can have are not summed, so they hide nothing.
    let heads = b"FSXN".repeat(256);
    let told = damaged(&with(journal(), 2, &heads), 2);
    assert!(told.contains("does not verify"), "{told}");
    let sound = run(&Folder::new(), &with(compacted(0, 12), 5, &heads), "").exits(0);
    assert!(sound.text().contains("\"recordsBehindEnd\":1,"), "{}", sound.text());
    // These claim 6 KiB each: together more than is summed in either image.
    let heads = b"FSXN\x01\0\0\0\x18\0\0".repeat(400);
    for (image, keys) in [(with(journal(), 2, &heads), 1), (with(compacted(0, 12), 5, &heads), 12)]
    {
        let told = damaged(&image, keys);
        assert!(told.contains("not searched to its end"), "{told}");
    }
}

#[test]
fn keys_that_no_volume_takes_are_named() {
    let folder = Folder::new();
    let records = [record(1, "/state/", b"v"), record(1, "/state/a//b", b"v"), puts(2).concat()];
    let image = padded(records.concat(), 64 * 512);
    let refused = run(&folder, &image, "").exits(6);
    assert_eq!(refused.text().matches("\"kind\":\"unusable\"").count(), 2);
    run(&folder, &image, "--salvage").exits(6);
    assert_eq!(keys(&folder), 2);
}

/// They verify, so somebody wrote them, but no writer of such images: nothing can be read from them.
#[test]
fn records_whose_lengths_are_none_of_their_kind_are_damage() {
    let id = 1_u64.to_le_bytes();
    for odd in [
        record(3, "", b""),
        record(3, "/state/a", &[0; 8]),
        record(3, "", &[0; 9]),
        record(0x10, "", b"1"),
        record(0x11, "", &[0; 20]),
        record(0x11, "/state/b", b"1"),
        record(0x11, "/state/b", &[0; 8201]),
        record(0x12, "/state/b", &id),
        record(0x13, "", &[]),
        record(0x14, "", b"x"),
    ] {
        let told = damaged(&padded([puts(1).concat(), odd].concat(), 64 * 512), 1);
        assert!(told.contains("none of its kind"), "{told}");
    }
    // A transaction that lacks a part for it is not whole.
    let begun = record(0x10, "", &id);
    let (odd, part, end) =
        (record(0x11, "", &[0; 20]), payload(1, "/state/b", b"b"), record(0x12, "", &id));
    damaged(&padded([puts(1).concat(), begun, odd, part, end].concat(), 64 * 512), 1);
}

#[test]
fn a_superblock_that_no_compaction_writes_is_damage() {
    for (byte, value) in [(6, 1), (7, 1), (8, 0)] {
        let mut image = compacted(0, 12);
        image[byte] = value;
        let sum = crc(&image[..16]);
        image[16..20].copy_from_slice(&sum.to_le_bytes());
        let told = damaged(&image, 12);
        assert!(told.contains("superblock does not verify"), "{told}");
    }
}

#[test]
fn what_has_no_end_is_not_read() {
    let folder = Folder::new();
    for (source, code) in [("/dev/zero", "NOT_STORAGE"), (".", "NOT_STORAGE"), ("x", "NO_IMAGE")] {
        let run = statefs(folder.path(), &format!("image import --from nexus {source} y.img"));
        let run = run.exits(1);
        assert!(run.stderr.starts_with(&format!("statefs: {code}: {source}: ")), "{}", run.stderr);
    }
}

/// The regions of a part of an image are shorter, and here a record ends where they do.
#[test]
fn a_part_of_an_image_that_ends_between_two_records_is_not_whole() {
    let long = record(1, "/state/long", &[b'x'; 489 - 15 - 11]);
    for entries in [12, 1] {
        let mut image = compacted(0, entries);
        let checkpoint = image[512..512 + 23].to_vec();
        let log = [checkpoint, long.clone(), puts(11).concat()].concat();
        image = with(image, 512, &log);
        image.truncate(3 * 512);
        damaged(&image, 1);
    }
}

/// A region may be full to its last byte. Then the other one follows.
#[test]
fn a_full_region_is_no_damage() {
    let long = record(1, "/state/long", &[b'x'; 489 - 15 - 11]);
    let part = |image: Vec<u8>, from: usize| image[from..from + 23].to_vec();
    let full = [part(compacted(0, 1), 512), long].concat();
    let other = padded(part(compacted(1, 1), 512 + 20 * 512), 512);
    let image = [compacted(0, 1)[..512].to_vec(), full, other].concat();
    run(&Folder::new(), &image, "").exits(0);
}

#[test]
fn no_truncation_is_silent_or_a_panic() {
    let folder = Folder::new();
    let image = compacted(1, 30);
    let end = image.iter().rposition(|&byte| byte != 0).unwrap();
    for length in (0..=end).step_by(37) {
        run(&folder, &image[..length], "").exits(6);
    }
}
