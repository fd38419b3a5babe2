//! What the fuzzer found, each as a test of its own.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use journal::layout::{checkpoint_run, checkpoint_use, run, run_entry, superblock};
use journal::{CommitError, Durability, Plants};
use tests::faults::bench::{Bench, Store, on};

/// Yields the items of a checkpoint, and where each entry in their runs begins.
fn entries() -> (Vec<u8>, Vec<usize>) {
    let items = fuzz::checkpoint::items();
    let (mut at, mut found) = (2, Vec::new());
    while items.get(at) == Some(&2) {
        at += checkpoint_use::BYTES;
    }
    while at < items.len() {
        assert_eq!(items[at], 1, "a run follows");
        let count = items[at + 1..at + checkpoint_run::BYTES].try_into().map(u16::from_le_bytes);
        let end = at + checkpoint_run::BYTES + usize::from(count.unwrap());
        at += checkpoint_run::BYTES + run::BYTES;
        while at < end {
            found.push(at);
            let sizes = items[at + run_entry::SIZES.start];
            let upload = usize::from(sizes & run_entry::FLAG_LARGE != 0) * run_entry::UPLOAD_BYTES;
            let suffix = usize::from(items[at + run_entry::SUFFIX_BYTES.start]);
            at += run_entry::BYTES + numbers(sizes) + upload + suffix;
        }
    }
    (items, found)
}

fn numbers(sizes: u8) -> usize {
    let birth = (sizes & run_entry::SIZE_BIRTH) >> 2;
    usize::from(sizes & run_entry::SIZE_VALUE) + usize::from(birth) + 2
}

/// An entry of a checkpoint whose tags are right claims a value of 4 GiB, and a read allocated what it claimed. The
/// volume's key lies in its superblock, so whoever holds the device can write such an entry; now a record that would
/// leave its segment is refused, and nothing is allocated.
#[test]
fn a_forged_length_in_a_checkpoint_is_not_allocated() {
    let (mut items, found) = entries();
    for at in found {
        let value = usize::from(items[at + run_entry::SIZES.start] & run_entry::SIZE_VALUE) + 1;
        items[at + run_entry::BYTES..][..value].fill(0xff);
    }
    fuzz::checkpoint::run(&items);
}

/// Values that verify in no copy keep their segments from being free. Where they keep too many, cleaning moved the
/// others round and round, and the store never came to rest; so a commit that waited for room waited for ever.
#[test]
fn cleaning_ends_where_it_gains_nothing() {
    let (items, found) = entries();
    // Many sets of values that verify nowhere, told by the bits of a number.
    for set in (0..1_u32 << 16).step_by(251) {
        fuzz::checkpoint::run(&with_lost_values(&items, &found, set));
    }
}

/// The same volumes, filled: what damage holds is room that is not there, and who waits for it is refused. What was taken is
/// served all the same.
#[test]
fn who_waits_for_room_that_damage_holds_is_refused() {
    let [whole, damaged] = [0, u32::MAX].map(|set| {
        let (mut bench, mut store, taken) = full(set);
        for n in 0..taken {
            bench.expect(&mut store, format!("/{n}").as_bytes(), Some(&VALUE)).unwrap();
        }
        taken
    });
    assert!(0 < damaged && damaged < whole, "{damaged} of {whole}");
}

const VALUE: [u8; 200] = [7; 200];

/// Fills the volume in which the values whose bits are set verify nowhere; yields how many keys it took, `/0` first.
fn full(set: u32) -> (Bench, Store, u32) {
    let (items, found) = entries();
    let image = fuzz::checkpoint::image(&with_lost_values(&items, &found, set));
    let mut bench = Bench::blank(Plants::default(), image.len() as u64);
    // No mount may draw the epochs of another.
    bench.seed = 1 << 20;
    bench.device.restore(&image);
    let mut store = bench.open().unwrap();
    for n in 0..1000 {
        let put = store.submit(&[(format!("/{n}").as_bytes(), Some(&VALUE))], Durability::Durable);
        match bench.drive(&mut store, put, &mut on).unwrap().unwrap() {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, CommitError::NoSpace);
                return (bench, store, n);
            }
        }
    }
    panic!("{set:#x}: it is never full")
}

/// Gives the values whose bits are set another birth, which still takes no more bytes than it must: they verify nowhere.
fn with_lost_values(items: &[u8], found: &[usize], set: u32) -> Vec<u8> {
    let mut items = items.to_vec();
    for (bit, at) in found.iter().enumerate().take(32) {
        let value = usize::from(items[at + run_entry::SIZES.start] & run_entry::SIZE_VALUE) + 1;
        let birth = at + run_entry::BYTES + value;
        items[birth] ^= u8::from(set >> bit & 1 == 1);
    }
    items
}

/// A superblock whose tag is right states the highest number that is read; the first group that the mount wrote passed
/// it and did not verify, which stopped the process. Now such a volume is not mounted.
#[test]
fn a_mount_writes_no_number_that_it_would_not_read() {
    for field in [superblock::DURABLE_LSN, superblock::BASE_LSN, superblock::SEQUENCE] {
        let mut copy = fuzz::image::Base::young().image[..superblock::BYTES].to_vec();
        copy[field.start..field.end].copy_from_slice(&(1_u64 << 62).to_le_bytes());
        let mut input = vec![0];
        input.extend(copy);
        fuzz::superblock::run(&input);
    }
}
