//! `image fsck`: what it finds, what it repairs, and what it never calls clean.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::fs;
use std::process::Command;

use common::volume::{self, Change, SMALL_BYTES, puts};
use common::{Folder, redact, statefs};

/// Where zone A of the small volumes begins, and zone B.
const ZONE_A: usize = 2 * 4096;
const ZONE_B: usize = (2 + (SMALL_BYTES as usize / 4096 - 4) / 2) * 4096;

fn volume(mounts: &[Vec<Change>]) -> Folder {
    let folder = Folder::new();
    volume::make(&folder.path().join("x.img"), SMALL_BYTES, 2, mounts);
    folder
}

fn image(folder: &Folder) -> Vec<u8> {
    fs::read(folder.path().join("x.img")).unwrap()
}

fn store(folder: &Folder, bytes: &[u8]) {
    fs::write(folder.path().join("x.img"), bytes).unwrap();
}

#[test]
fn a_sound_volume_is_clean_and_stays_as_it_is() {
    for mounts in [vec![], vec![puts(5, 0)], vec![puts(40, 0), puts(40, 1), puts(40, 2)]] {
        let folder = volume(&mounts);
        let before = image(&folder);
        let run = statefs(folder.path(), "image fsck x.img").exits(0);
        assert!(run.text().starts_with("x.img: clean, "), "{}", run.text());
        assert_eq!(run.stderr, "");
        statefs(folder.path(), "image fsck x.img --repair --yes").exits(0);
        assert_eq!(image(&folder), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "it left a file behind");
    }
}

#[test]
fn a_copy_that_does_not_verify_is_named_and_repaired() {
    let folder = volume(&[puts(3, 0)]);
    let good = image(&folder);
    let mut bad = good.clone();
    // The second group, copy B, in the value of its record.
    bad[ZONE_B + 512 + 180] ^= 1;
    bad[4096 + 300] ^= 1;
    store(&folder, &bad);
    let run = statefs(folder.path(), "image fsck x.img").exits(4);
    insta::assert_snapshot!(run.text(), @r"
    superblock copy 1 does not verify, byte 4096 of the file
      a repair writes 1 block from the newest superblock
    copy B of a group does not verify: 1 of 1 blocks differ from the good copy, segment 0, block 1, byte 131584 of the file, LSN 2 to 2
      concerns /state/k/001
      a repair writes 1 block from copy A
    ");
    insta::assert_snapshot!(run.stderr, @r"
    statefs: REPAIRABLE: x.img: 2 faults, all of which a repair mends
      --repair writes the good copies over the bad ones, and keeps an undo file
    ");
    assert_eq!(image(&folder), bad, "it wrote without being asked");
    let json = statefs(folder.path(), "image fsck x.img -o json").exits(4);
    insta::assert_snapshot!(redact(json.text()), @r#"
    {"block":null,"blocks":0,"copy":1,"differCount":1,"differs":[4096],"keyCount":0,"keys":[],"kind":"superblock","loss":false,"lsns":null,"offset":4096,"repair":"the newest superblock","segment":null}
    {"block":1,"blocks":1,"copy":"B","differCount":1,"differs":[131584],"keyCount":1,"keys":["/state/k/001"],"kind":"groupCopy","loss":false,"lsns":[2,2],"offset":131584,"repair":"copy A","segment":0}
    {"summary":{"clean":false,"faultsLeft":2,"keys":3,"path":"x.img","repairable":2,"repairedBlocks":0,"tornGroups":0,"undo":null,"volume":"[32 hex digits]"}}
    "#);

    let repaired = statefs(folder.path(), "image fsck x.img --repair --yes -o json").exits(1);
    assert!(repaired.stderr.contains("x.img.undo-1"), "{}", repaired.stderr);
    assert_eq!(image(&folder), good);
    statefs(folder.path(), "image fsck x.img").exits(0);
    let undone = undo(&good, &fs::read(folder.path().join("x.img.undo-1")).unwrap());
    assert_eq!(undone, bad, "the undo file does not lead back");
}

/// Reads an undo file as the help describes it.
fn undo(image: &[u8], undo: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    assert_eq!(&undo[..8], b"SFSUNDO1");
    let mut at = 24;
    loop {
        let offset = u64::from_le_bytes(undo[at..at + 8].try_into().unwrap()) as usize;
        let length = u32::from_le_bytes(undo[at + 8..at + 12].try_into().unwrap()) as usize;
        at += 16;
        if length == 0 {
            assert_eq!(at, undo.len());
            return image;
        }
        image[offset..offset + length].copy_from_slice(&undo[at..at + length]);
        at += length;
    }
}

/// One more bad block, and the volume would be what it was then.
#[test]
fn copies_of_the_superblock_of_an_earlier_generation_are_not_clean() {
    let good = image(&volume(&[puts(3, 0), puts(3, 1), puts(3, 2)]));
    let slots = [0, 4096, good.len() - 2 * 4096, good.len() - 4096];
    for mounts in [vec![puts(3, 0)], vec![puts(3, 0), puts(3, 1)]] {
        let folder = volume(&mounts);
        let older = image(&folder);
        for stale in [&slots[1..], &slots[..3], &slots[2..3]] {
            let mut bad = good.clone();
            for &slot in stale {
                bad[slot..slot + 4096].copy_from_slice(&older[slot..slot + 4096]);
            }
            store(&folder, &bad);
            let run = statefs(folder.path(), "image fsck x.img").exits(4);
            let told: Vec<&str> = run.text().lines().step_by(2).collect();
            let copy = |slot: &usize| slots.iter().position(|other| other == slot).unwrap();
            let expected = stale.iter().map(|slot| {
                let copy = copy(slot);
                format!(
                    "superblock copy {copy} is of an earlier generation, byte {slot} of the file"
                )
            });
            assert_eq!(told, expected.collect::<Vec<_>>());
            let json = statefs(folder.path(), "image fsck x.img -o json").exits(4);
            assert!(json.text().contains("\"kind\":\"olderSuperblock\",\"loss\":false"));
            statefs(folder.path(), "image fsck x.img --repair --yes --undo u").exits(1);
            assert!(image(&folder) == good, "a repair leads elsewhere");
            statefs(folder.path(), "image fsck x.img").exits(0);
            statefs(folder.path(), "image undo x.img u --yes").exits(0);
            assert!(image(&folder) == bad, "the undo file does not lead back");
            fs::remove_file(folder.path().join("u")).unwrap();
        }
    }
}

#[test]
fn a_loss_is_never_clean_nor_repaired() {
    let folder = volume(&[puts(6, 0), puts(1, 1)]);
    let mut bad = image(&folder);
    for zone in [ZONE_A, ZONE_B] {
        bad[zone + 2 * 512 + 180] ^= 1;
    }
    store(&folder, &bad);
    let run = statefs(folder.path(), "image fsck x.img -o json").exits(4);
    assert!(run.text().contains("\"kind\":\"lost\""), "{}", run.text());
    assert!(run.text().contains("\"kind\":\"inDoubt\""), "{}", run.text());
    statefs(folder.path(), "image fsck x.img --repair --yes").exits(4);
    assert_eq!(image(&folder), bad);
}

/// Both copies of a header are bad, and every value behind it is sound: nothing is lost, and nothing is clean.
#[test]
fn a_group_that_verifies_in_no_copy_is_not_clean() {
    let folder = volume(&[puts(40, 0), puts(5, 1)]);
    let good = image(&folder);
    let dump = || statefs(folder.path(), "image dump x.img").exits(0).stdout;
    let whole = dump();
    let inside = statefs(folder.path(), "image inspect x.img").exits(0);
    assert!(inside.text().contains("checkpoint  up to LSN "), "{}", inside.text());
    // Long covered by a checkpoint, and written no second time.
    let marker = b"value 10 of 0";
    let at = good.windows(marker.len()).position(|part| part == marker).unwrap();
    let header = (at - ZONE_A) / 512 * 512 + 17;
    let mut bad = good;
    bad[ZONE_A + header] ^= 1;
    bad[ZONE_B + header] ^= 1;
    store(&folder, &bad);
    let run = statefs(folder.path(), "image fsck x.img").exits(4);
    insta::assert_snapshot!(run.text(), @r"
    a group verifies in no copy, though its values do, segment 0, block 10, byte 13312 of the file
      concerns /state/k/010
      nothing is lost, nor to repair it with: it ends when its values are put anew, or cleaning moves them
    ");
    let json = statefs(folder.path(), "image fsck x.img -o json").exits(4);
    insta::assert_snapshot!(redact(json.text()), @r#"
    {"block":10,"blocks":1,"copy":null,"differCount":0,"differs":[],"keyCount":1,"keys":["/state/k/010"],"kind":"group","loss":false,"lsns":null,"offset":13312,"repair":null,"segment":0}
    {"summary":{"clean":false,"faultsLeft":1,"keys":40,"path":"x.img","repairable":0,"repairedBlocks":0,"tornGroups":0,"undo":null,"volume":"[32 hex digits]"}}
    "#);
    statefs(folder.path(), "image fsck x.img --repair --yes").exits(4);
    statefs(folder.path(), "image inspect x.img --html x.html").exits(0);
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    assert!(page.contains("1 fault, nothing lost"), "{page}");
    assert_eq!((image(&folder), dump()), (bad, whole));
}

#[test]
fn every_flipped_byte_of_what_is_used_is_found_and_repaired() {
    assert_eq!(flip_each(&[puts(30, 0), puts(4, 1)], 1), (76, 0));
    // Written over so often that checkpoints and cleaning have left garbage.
    let (found, garbage) = flip_each(&[puts(40, 0), puts(40, 1), puts(40, 2), puts(40, 3)], 5);
    println!("{found} found, {garbage} are garbage");
    assert!(found > 10 && garbage > 10, "{found} found, {garbage} are garbage");
}

/// Flips a byte of every `step`th block that holds anything: near the block's start, behind, or at its end, where a group has
/// padding. Yields how many are found, and then repaired, and how many are called clean.
///
/// What is called clean is proved to be garbage: the block goes bad in both copies, and all is told as before.
fn flip_each(mounts: &[Vec<Change>], step: usize) -> (usize, usize) {
    let folder = volume(mounts);
    let good = image(&folder);
    let dump = || statefs(folder.path(), "image dump x.img").exits(0).stdout;
    let whole = dump();
    let used = (0..good.len()).step_by(512);
    let used = used.filter(|&at| good[at..at + 512].iter().any(|&byte| byte != 0));
    let (mut found, mut garbage) = (0, 0);
    for (turn, at) in used.step_by(step).enumerate() {
        let byte = at + [17, 3, 150, 340, 511][turn % 5];
        let mut bad = good.clone();
        bad[byte] ^= 0x40;
        store(&folder, &bad);
        let run = statefs(folder.path(), "image fsck x.img --repair --yes --undo u");
        if run.exit == 1 {
            found += 1;
            assert_eq!(image(&folder), good, "byte {byte}");
            fs::remove_file(folder.path().join("u")).unwrap();
            continue;
        }
        assert_eq!((run.exit, &image(&folder)), (0, &bad), "byte {byte}: {}", run.stderr);
        let mirror = match at {
            ZONE_A..ZONE_B => at - ZONE_A + ZONE_B,
            ZONE_B.. if at < good.len() - 2 * 4096 => at - ZONE_B + ZONE_A,
            _ => panic!("byte {byte} of the superblock is called clean"),
        };
        bad[at..at + 512].fill(0xa5);
        bad[mirror..mirror + 512].fill(0xa5);
        store(&folder, &bad);
        statefs(folder.path(), "image fsck x.img").exits(0);
        assert!(dump() == whole, "byte {byte} is not garbage");
        garbage += 1;
    }
    (found, garbage)
}

/// What was written, and where the old bytes are, is told also when the device fails the rest.
#[test]
fn a_repair_that_fails_half_way_goes_on_and_tells_what_it_did() {
    let folder = volume(&[puts(3, 0)]);
    let good = image(&folder);
    let mut bad = good.clone();
    // The first block that is to be mended lies behind the limit, the second before it.
    bad[ZONE_B + 180] ^= 1;
    bad[ZONE_A + 512 + 180] ^= 1;
    store(&folder, &bad);
    let program = env!("CARGO_BIN_EXE_statefs");
    let limit = ZONE_B / 512;
    for (options, told) in [("", ""), (" -o json", "\"clean\":false,\"faultsLeft\":1,")] {
        store(&folder, &bad);
        let line =
            format!("ulimit -f {limit}; exec {program} image fsck x.img --repair --yes{options}");
        let mut shell = Command::new("sh");
        let ended = shell.args(["-c", &line]).current_dir(folder.path()).output().unwrap();
        let (stdout, stderr) = (ended.stdout, String::from_utf8(ended.stderr).unwrap());
        assert_eq!(ended.status.code(), Some(8), "{stderr}");
        assert!(stderr.contains("REPAIRED_IN_PART") && stderr.contains("x.img.undo-"), "{stderr}");
        assert!(
            stderr.contains("repaired 1 block, 1 fault left; the old bytes are in"),
            "{stderr}"
        );
        assert!(String::from_utf8(stdout).unwrap().contains(told));
        let half = image(&folder);
        assert!(half[..ZONE_B] == good[..ZONE_B] && half[ZONE_B..] == bad[ZONE_B..]);
    }
    statefs(folder.path(), "image fsck x.img --repair --yes").exits(1);
    assert_eq!(image(&folder), good);
    // The newest undo file first, each leads back.
    statefs(folder.path(), "image undo x.img x.img.undo-3 --yes").exits(0);
    statefs(folder.path(), "image undo x.img x.img.undo-2 --yes").exits(0);
    assert_eq!(image(&folder), bad);
}

#[test]
fn hostile_images_end_soon_and_without_a_panic() {
    let folder = volume(&[puts(20, 0), puts(3, 1)]);
    let good = image(&folder);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..60 {
        let mut bad = good.clone();
        for _ in 0..=next() % 40 {
            let at = (next() % bad.len() as u64) as usize;
            let end = (at + 1 + (next() % 600) as usize).min(bad.len());
            let byte = next().to_le_bytes()[0];
            bad[at..end].fill(byte);
        }
        store(&folder, &bad);
        let run = statefs(folder.path(), "image fsck x.img -o json");
        assert!([0, 4, 8].contains(&run.exit), "round {round}: {} {}", run.exit, run.stderr);
        assert!(!run.stderr.contains("panicked"), "round {round}: {}", run.stderr);
    }
    for length in (0..good.len()).step_by(4096 + 512) {
        store(&folder, &good[..length]);
        let run = statefs(folder.path(), "image fsck x.img");
        assert!([4, 8].contains(&run.exit), "length {length}: {} {}", run.exit, run.stderr);
        assert!(!run.stderr.contains("panicked"), "length {length}: {}", run.stderr);
    }
}

/// The last copies are looked for where the volume says that they are, and not at the end of what there is.
#[test]
fn a_device_that_ends_too_early_is_told_and_no_repair_announced() {
    let folder = volume(&[puts(3, 0)]);
    let short = image(&folder);
    let short = &short[..short.len() - 4096];
    store(&folder, short);
    let run = statefs(folder.path(), "image fsck x.img").exits(4);
    insta::assert_snapshot!(run.text(), @r"
    the device ends before the volume does, byte 258048 of the file
      nothing to repair it with
    superblock copy 3 would lie behind the end of the device, byte 258048 of the file
      nothing to repair it with
    ");
    let run = statefs(folder.path(), "image fsck x.img --repair --yes").exits(4);
    assert!(run.stderr.contains("2 faults, of which a repair mends 0"), "{}", run.stderr);
    assert_eq!(image(&folder), short);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "it left a file behind");
    // What lies on the device, and does not verify there, is mended as ever.
    let mut bad = short.to_vec();
    let at = bad.len() - 4096 + 300;
    bad[at] ^= 1;
    store(&folder, &bad);
    let run = statefs(folder.path(), "image fsck x.img --repair --yes").exits(4);
    assert!(run.stderr.contains("repaired 1 block, 2 faults left"), "{}", run.stderr);
    assert_eq!(image(&folder), short);
}

#[test]
fn what_cannot_be_checked_exits_with_8() {
    let folder = Folder::new();
    fs::write(folder.path().join("blank.img"), vec![0; 1 << 20]).unwrap();
    fs::write(folder.path().join("foreign.img"), vec![7; 1 << 20]).unwrap();
    for (path, code) in [
        ("blank.img", "BLANK"),
        ("foreign.img", "NO_VOLUME"),
        ("none.img", "NO_IMAGE"),
        (".", "NOT_STORAGE"),
    ] {
        let run = statefs(folder.path(), &format!("image fsck {path}")).exits(8);
        assert!(run.stderr.starts_with(&format!("statefs: {code}: {path}: ")), "{}", run.stderr);
    }
}

#[test]
fn an_image_that_a_daemon_holds_is_refused() {
    let folder = Folder::new();
    let daemon = common::daemon::Daemon::start(folder.path(), "1M", "");
    for arguments in ["image fsck state.img", "image fsck state.img --repair"] {
        let run = statefs(folder.path(), arguments).exits(8);
        assert!(run.stderr.starts_with("statefs: BUSY: "), "{}", run.stderr);
    }
    drop(daemon);
    statefs(folder.path(), "image fsck state.img").exits(0);
}
