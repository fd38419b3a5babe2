//! What the fuzzer found, each as a test of its own.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use journal::layout::{checkpoint_entry, checkpoint_large, checkpoint_use, superblock};

/// An entry of a checkpoint whose tags are right claims a value of 4 GiB, and a read allocated what it claimed. The
/// volume's key lies in its superblock, so whoever holds the device can write such an entry; now a record that would
/// leave its segment is lost, and nothing is allocated.
#[test]
fn a_forged_length_in_a_checkpoint_is_not_allocated() {
    let mut items = fuzz::checkpoint::items();
    let mut at = 2;
    while items[at] == 2 {
        at += checkpoint_use::BYTES;
    }
    assert_eq!(items[at], 1, "an entry follows the uses");
    let field = checkpoint_entry::VALUE_BYTES;
    items[at + field.start..at + field.end].fill(0xff);
    fuzz::checkpoint::run(&items);
}

/// Values that verify in no copy keep their segments from being free. Where they keep too many, cleaning moved the
/// others round and round, and the store never came to rest; so a commit that waited for room waited for ever.
#[test]
fn cleaning_ends_where_it_gains_nothing() {
    // Many sets of values that verify nowhere, told by the bits of a number.
    for set in (0..1_u32 << 16).step_by(251) {
        let mut items = fuzz::checkpoint::items();
        let mut at = 2;
        while items[at] == 2 {
            at += checkpoint_use::BYTES;
        }
        for entry in 0..32 {
            if at >= items.len() {
                break;
            }
            items[at + checkpoint_entry::BIRTH.start + 2] ^= u8::from(set >> entry & 1 == 1);
            let suffix = items[at + checkpoint_entry::SUFFIX_BYTES.start];
            let fixed = match items[at] {
                1 => checkpoint_entry::BYTES,
                5 => checkpoint_large::UPLOAD.end,
                other => panic!("item {other} follows an entry"),
            };
            at += fixed + usize::from(suffix);
        }
        fuzz::checkpoint::run(&items);
    }
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
