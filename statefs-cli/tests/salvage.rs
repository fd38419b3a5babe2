//! `image salvage`: everything that verifies, and no silence about the rest.

#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::fs;
use std::path::Path;

use common::daemon::Daemon;
use common::volume::{self, Change, SMALL_BYTES, ZONES, puts};
use common::{Folder, statefs};
use journal::{Superblock, VolumeGeometry};

fn volume(mounts: &[Vec<Change>]) -> Folder {
    let folder = Folder::new();
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, mounts);
    folder
}

/// The keys and values of an image, without versions, which differ.
fn contents(folder: &Path, image: &str) -> Vec<String> {
    let dump = statefs(folder, &format!("image dump {image}")).exits(0);
    let lines = dump.text().lines().filter(|line| line.contains("\"key\""));
    lines.map(|line| line.split(",\"version\"").next().unwrap().to_owned()).collect()
}

#[test]
fn a_sound_volume_comes_over_whole() {
    let folder = volume(&[puts(30, 0), puts(30, 1), puts(5, 2)]);
    let before = fs::read(folder.path().join("x.img")).unwrap();
    let run = statefs(folder.path(), "image salvage x.img --out y.img").exits(0);
    assert_eq!(run.text(), "30 keys saved, 0 of them in doubt, 0 lost\n");
    assert_eq!(contents(folder.path(), "x.img"), contents(folder.path(), "y.img"));
    assert_eq!(fs::read(folder.path().join("x.img")).unwrap(), before);
    statefs(folder.path(), "image fsck y.img").exits(0);
    let again = statefs(folder.path(), "image salvage x.img --out y.img").exits(1);
    assert!(again.stderr.starts_with("statefs: EXISTS: y.img: "), "{}", again.stderr);
}

/// The new volume may lie for years before a daemon opens it: what goes bad of it meanwhile is no write that was cut off.
#[test]
fn what_was_saved_is_not_lost_in_silence() {
    let folder = volume(&[puts(12, 0)]);
    statefs(folder.path(), "image salvage x.img --out y.img").exits(0);
    fs::rename(folder.path().join("y.img"), folder.path().join("x.img")).unwrap();
    volume::flip_in_group(folder.path(), 3, |group| (group["records"] == 12).then_some(()));
    let dump = statefs(folder.path(), "image dump x.img").exits(6);
    assert!(dump.stderr.contains("DATA_LOSS"), "{}", dump.stderr);
    statefs(folder.path(), "image fsck x.img").exits(4);
}

#[test]
fn one_damaged_copy_loses_nothing() {
    let folder = volume(&[puts(30, 0), puts(30, 1), puts(5, 2)]);
    let good = contents(folder.path(), "x.img");
    let mut bytes = fs::read(folder.path().join("x.img")).unwrap();
    bytes[ZONES[0]..ZONES[1]].fill(0x55);
    fs::write(folder.path().join("x.img"), &bytes).unwrap();
    statefs(folder.path(), "image salvage x.img --out y.img").exits(0);
    assert_eq!(contents(folder.path(), "y.img"), good);
}

/// A volume whose last group is damaged in both copies.
fn with_a_lost_group() -> Folder {
    let folder = Folder::new();
    volume::make_with_a_loss(&folder.path().join("x.img"));
    folder
}

#[test]
fn a_lost_group_costs_its_own_record_alone_and_the_rest_is_marked() {
    let folder = with_a_lost_group();
    let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
    assert!(run.text().contains("{\"key\":\"/state/k/001\",\"kind\":\"keptInDoubt\"}"));
    let saved = contents(folder.path(), "y.img");
    assert_eq!(saved.len(), 5, "{saved:?}");
    assert!(run.text().contains("\"kind\":\"lost\""), "{}", run.text());
}

#[test]
fn a_key_that_was_deleted_after_a_loss_stays_so() {
    for rounds in [10, 30, 60, 100, 150, 220] {
        deleted_after_a_loss(rounds);
    }
}

/// The record of the delete is written over after some of `rounds` puts, and that of the value later.
fn deleted_after_a_loss(rounds: usize) {
    let folder = with_a_lost_group();
    let path = folder.path().join("x.img");
    let other = |(key, value): Change| (key.replace("/k/", "/other/"), value);
    let puts = (0..rounds).flat_map(|round| puts(1, round)).map(other);
    let delete = ("/state/k/000".to_owned(), None);
    let changes: Vec<Change> = puts.clone().take(20).chain([delete]).chain(puts).collect();
    volume::go_on(&path, 9, &[changes]);
    let dump = statefs(folder.path(), "image dump x.img").exits(6);
    assert!(dump.text().contains("/state/k/004") && !dump.text().contains("/state/k/000"));
    let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
    let saved = contents(folder.path(), "y.img").join("\n");
    assert!(saved.contains("/state/k/004"), "{saved}");
    assert!(!saved.contains("/state/k/000"), "{rounds} rounds: {}", run.text());
}

#[test]
fn a_dump_says_of_an_old_loss_what_is_known_of_it() {
    let folder = with_a_lost_group();
    let told = statefs(folder.path(), "image dump x.img").exits(6).stderr;
    assert!(told.contains("; 1 stretches of the journal are lost, and their keys\n"), "{told}");
    // All values are written anew, and checkpoints lie behind the loss.
    let changes = (2..102).flat_map(|round| puts(6, round)).collect();
    volume::go_on(&folder.path().join("x.img"), 9, &[changes]);
    let told = statefs(folder.path(), "image dump x.img").exits(6).stderr;
    let all = "statefs: DATA_LOSS: x.img: keys may be missing, which an earlier loss took\n";
    assert!(told.starts_with(all) && told.contains("image salvage"), "{told}");
    // Which is so.
    let good = statefs(folder.path(), "image salvage x.img --out y.img");
    assert!(good.text().contains("6 keys saved"), "{}", good.text());
    assert_eq!(contents(folder.path(), "y.img").len(), 6);
}

#[test]
fn a_header_lost_in_both_copies_gives_up_no_record() {
    let folder = volume(&[puts(6, 0), puts(1, 1)]);
    let good = contents(folder.path(), "x.img");
    let path = folder.path().join("x.img");
    let mut bytes = fs::read(&path).unwrap();
    for zone in ZONES {
        bytes[zone + 2 * 512 + 3] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    statefs(folder.path(), "image salvage x.img --out y.img").exits(6);
    assert_eq!(contents(folder.path(), "y.img"), good);
}

/// The delete may not be the last change of its key, but nothing of what it took away is lost.
#[test]
fn a_key_whose_newest_record_is_a_delete_is_told_as_deleted() {
    let delete = ("/state/k/000".to_owned(), None);
    let folder =
        volume(&[puts(2, 0).into_iter().chain([delete]).chain(puts(2, 0).pop()).collect()]);
    volume::flip_in_group(folder.path(), 3, |group| {
        (group["records"] == 1 && group["lsns"][0] == 3).then_some(())
    });
    let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
    let told = "{\"key\":\"/state/k/000\",\"kind\":\"deletedInDoubt\"}";
    assert!(run.text().contains(told), "{}", run.text());
    let saved = contents(folder.path(), "y.img");
    assert!(saved.len() == 1 && saved[0].contains("/state/k/001"), "{saved:?}");
}

#[test]
fn a_lost_checkpoint_is_made_up_for_by_the_values() {
    let folder = volume(&[puts(30, 0), puts(30, 1), puts(5, 2)]);
    let good = contents(folder.path(), "x.img");
    let path = folder.path().join("x.img");
    let mut bytes = fs::read(&path).unwrap();
    // Segment 4 of the golden text of `inspect` holds it.
    for zone in ZONES {
        bytes[zone + 4 * 8192 + 200] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let run = statefs(folder.path(), "image dump x.img").exits(6);
    assert!(run.stderr.contains("  `statefs image salvage` saves all"), "{}", run.stderr);
    let run = statefs(folder.path(), "image salvage x.img --out y.img").exits(6);
    assert!(run.text().contains("a part of the checkpoint"), "{}", run.text());
    assert_eq!(contents(folder.path(), "y.img"), good);
}

#[test]
fn without_a_superblock_nothing_is_made() {
    let folder = volume(&[puts(3, 0)]);
    let path = folder.path().join("x.img");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4096;
    for slot in [0, 4096, last - 4096, last] {
        bytes[slot + 100] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    statefs(folder.path(), "image salvage x.img --out y.img").exits(6);
    assert!(!folder.path().join("y.img").exists());
}

/// The new image is made of real zeros before anything is saved: what the volume claims must not fill the disk.
#[test]
fn the_new_image_is_sized_by_what_is_there() {
    let folder = Folder::new();
    let path = folder.path().join("x.img");
    volume::make(&path, 64 << 20, 2, &[puts(6, 0)]);
    let good = contents(folder.path(), "x.img");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(4 << 20);
    let stated = Superblock::decode(bytes.first_chunk().unwrap()).unwrap();
    // The first would overflow, and so fail before it fills a disk.
    for volume_bytes in [0xFFFF_FFFF_FFFF_F000, 1 << 50, 1 << 40, 64 << 20] {
        let of = &stated.geometry;
        let block_bytes = u32::try_from(of.block_bytes()).unwrap();
        let (blocks, segments) = (of.segment_blocks(), of.segment_count());
        let geometry = VolumeGeometry::new(block_bytes, volume_bytes, blocks, segments, 2).unwrap();
        let forged = Superblock { geometry, ..stated.clone() }.encode();
        for slot in [0, 4096] {
            bytes[slot..slot + forged.len()].copy_from_slice(&forged);
        }
        fs::write(&path, &bytes).unwrap();
        statefs(folder.path(), "image salvage x.img --out y.img");
        assert_eq!(contents(folder.path(), "y.img"), good, "{volume_bytes}");
        let size = fs::metadata(folder.path().join("y.img")).unwrap().len();
        assert!(size <= 16 << 20, "{volume_bytes}: {size}");
        fs::remove_file(folder.path().join("y.img")).unwrap();
    }
}

#[test]
fn hostile_images_end_soon_and_without_a_panic() {
    let folder = volume(&[puts(20, 0), puts(3, 1)]);
    let good = fs::read(folder.path().join("x.img")).unwrap();
    let path = folder.path().join("x.img");
    for round in 0..10_usize {
        let mut bad = good.clone();
        for (at, byte) in bad.iter_mut().enumerate().skip(8192) {
            if at * 2_654_435_761 % (977 + 331 * round) == 7 {
                *byte ^= 0x11;
            }
        }
        bad.truncate(good.len() - round * 4096);
        fs::write(&path, &bad).unwrap();
        let run = statefs(folder.path(), "image salvage x.img --out y.img");
        assert!([0, 6].contains(&run.exit), "round {round}: {} {}", run.exit, run.stderr);
        assert!(!run.stderr.contains("panicked"), "round {round}: {}", run.stderr);
        fs::remove_file(folder.path().join("y.img")).unwrap();
    }
}

/// In the new volume all versions are others: those that a batch gave may be of anybody's writes there. That it was applied is
/// as true as before.
#[test]
fn a_batch_with_a_token_comes_over_without_the_versions_that_it_gave() {
    let folder = Folder::new();
    let grants = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    let mut daemon = Daemon::start(folder.path(), "2M", grants);
    let run = |arguments: &str| statefs(folder.path(), arguments);
    fs::write(folder.path().join("one.ndjson"), "{\"key\":\"/state/z\",\"text\":\"B\"}").unwrap();
    let commit = "commit one.ndjson --token 6f0c5a1de2b34798a1b2c3d4e5f60718";
    let other = "commit one.ndjson --token 00000000000000000000000000000001";
    run(commit).exits(0);
    run("put /state/z C").exits(0);
    daemon.stop();
    // What was saved once can be saved again.
    for _ in 0..2 {
        run("image salvage state.img --out saved.img").exits(0);
        fs::rename(folder.path().join("saved.img"), folder.path().join("state.img")).unwrap();
    }
    daemon.restart();
    // Each is a connection of its own, so it is told twice.
    for _ in 0..2 {
        let told = run(commit).exits(6);
        assert!(told.stderr.contains("run it again with its token"), "{}", told.stderr);
        assert_eq!(run("get /state/z").exits(0).text(), "C", "nothing was applied");
    }
    let health = run("health").exits(0);
    assert!(health.text().starts_with("healthy"), "{}", health.text());
    run(other).exits(0);
    run("put /state/z C").exits(0);
    let first = run(commit).exits(0).text().to_owned();
    let version = first.split(' ').next().unwrap();
    assert!(run("stat /state/z").exits(0).text().contains(version), "the version is of this write");
    run("put /state/z C").exits(0);
    daemon.kill();
    daemon.restart();
    assert_eq!(run(commit).exits(0).text(), first, "it is remembered like any other");
    assert_eq!(run("get /state/z").exits(0).text(), "C");
}

/// What was written behind the last commit that counts, and by nobody heard of, takes the place of nothing.
#[test]
fn a_torn_write_hides_no_older_value_of_its_key() {
    for last in [Some(b"never acknowledged".to_vec()), None] {
        let folder = volume(&[puts(30, 0), puts(30, 1), vec![("/state/k/000".into(), last)]]);
        // The last group, whose records stay as they are.
        volume::flip_in_group(folder.path(), 3, |group| {
            group["lsns"][1].as_u64().map(std::cmp::Reverse)
        });
        let dump = statefs(folder.path(), "image dump x.img").exits(0);
        assert!(dump.text().contains("/state/k/000"), "it is certain");
        // The value that is certain; the checkpoint covers it.
        volume::flip_in_group(folder.path(), 180, |group| {
            (group["lsns"][0] == 31 && group["role"] == "values").then_some(())
        });
        let run = statefs(folder.path(), "image salvage x.img --out y.img -o json").exits(6);
        let told = "{\"key\":\"/state/k/000\",\"kind\":\"keptInDoubt\"}";
        assert!(run.text().contains(told), "{}", run.text());
        let saved = contents(folder.path(), "y.img");
        assert!(saved[0].contains("dmFsdWUgMCBvZiAw"), "{}", saved[0]);
    }
}
