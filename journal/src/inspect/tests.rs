use super::*;
use crate::superblock::Superblock;
use crate::tests::{run, volume};
use crate::types::{Birth, Epoch};
use crate::{Clock, Journal, OpenError, Options, Random};
use blockdev::Buffer;

/// A checkpoint may list use after use of one segment, as many as there is room for. To try all of them on each block takes minutes.
#[test]
fn uses_without_end_are_not_each_tried_on_each_block() {
    let (disk, mut device) = volume();
    let mut facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let (segment, start, end) = (SegmentIndex(3), BlockIndex(0), None);
    let epochs = (1..1_000_000_u128).map(|number| Epoch(number.to_le_bytes()));
    facts.uses = epochs.map(|epoch| Use { segment, start, end, epoch }).collect();
    run(&disk, &mut device, facts.carve(&disk, segment, |_, _| panic!("nothing verifies")));
}

/// Nothing is damaged, and no mount takes it any more: that is told.
#[test]
fn a_counter_that_is_used_up_is_not_clean() {
    let (disk, mut device) = volume();
    let facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    assert_eq!(facts.faults, []);
    let last = Superblock { mount: Birth::MOUNT_END - 1, ..facts.superblock };
    for copy in 0..4 {
        let offset = superblock_offset(copy, last.geometry.volume_bytes());
        let write = disk.write(offset, Buffer::copy_of(&last.encode()));
        run(&disk, &mut device, write).unwrap();
    }
    let (random, clock) = (Random::from_seed([8; 32]), Clock::default());
    let opening = Journal::open(disk.clone(), random, clock, Options::default());
    assert_eq!(run(&disk, &mut device, opening).err(), Some(OpenError::MountsUsedUp));
    let facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let kinds: Vec<_> = facts.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Counters]);
}
