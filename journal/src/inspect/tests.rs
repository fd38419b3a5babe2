use super::*;
use crate::superblock::Superblock;
use crate::tests::{poll, run, volume};
use crate::types::{Birth, Epoch};
use crate::{
    Batch, Clock, Durability, Journal, OpenError, Operation, Options, Origin, Precondition, Random,
};
use blockdev::{Buffer, MemoryDevice};
use core::future::poll_fn;
use core::ops::Range;
use core::pin::pin;

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

/// A client may store what looks like the heads of records, so many and so long that to sum them all takes more than there is.
/// Where its record is damaged, it hides no record of others in the same group.
#[test]
fn a_value_that_looks_like_records_hides_none_behind_it() {
    // As long as no record is, and as long as many may be that begin there.
    for claimed in [u32::MAX, 8_000] {
        // A byte of the value, and the block with the heads of the group and of the record, behind which a short one is found.
        behind_a_hostile_value(claimed, 5_000..5_001, 1_000);
        behind_a_hostile_value(claimed, 0..512, 300);
    }
}

/// Inverts what lies at `damage` in both copies of a group whose first value is of heads that claim to be of so many bytes.
fn behind_a_hostile_value(claimed: u32, damage: Range<usize>, value_bytes: usize) {
    let (disk, mut device) = volume();
    let opening = Journal::open(
        disk.clone(),
        Random::from_seed([8; 32]),
        Clock::default(),
        Options::default(),
    );
    let journal = run(&disk, &mut device, opening).unwrap();
    let [a, b, c, d] = claimed.to_le_bytes();
    // With a key of eight bytes it begins where a record may.
    let hostile = [0, 0, 0, 0, 1, 0, 1, 0, a, b, c, d, 0, 0, 0, 0].repeat(937);
    let puts = [(&b"/hostile"[..], hostile), (b"/b", vec![7; value_bytes])];
    let put = |(key, value): (&[u8], Vec<u8>)| Operation {
        key: key.into(),
        value: Some(value.into()),
        precondition: Precondition::Any,
    };
    let operations = puts.map(put).into();
    let batch = Batch { operations, durability: Durability::Durable, origin: Origin(1) };
    let (mut writing, mut committing) = (pin!(journal.run()), pin!(journal.commit(batch)));
    let both = poll_fn(|_| {
        let _ = poll(writing.as_mut());
        poll(committing.as_mut())
    });
    run(&disk, &mut device, both).unwrap();
    let facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let header = facts.groups.iter().map(|it| it.header).find(|it| it.record_count == 2).unwrap();
    let mut bytes = device.into_bytes();
    for zone in [Zone::A, Zone::B] {
        let at = usize::try_from(facts.block_offset(zone, header.segment, header.block)).unwrap();
        bytes[at..][damage.clone()].iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut device = MemoryDevice::from_bytes(bytes);
    let mut facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let mut found = Vec::new();
    let carving = facts.carve(&disk, header.segment, |key, _| found.push(key.to_vec()));
    run(&disk, &mut device, carving);
    assert_eq!(found, [b"/b", b"/b"], "{claimed}, {damage:?}");
}

/// Puts values of so many bytes under `/a`, `/b` and so on, each with a group of its own, into a new volume: the same one at each
/// call, under epochs by `seed`.
fn with_puts(seed: u8, values: &[usize]) -> (Disk, MemoryDevice) {
    let (disk, mut device) = volume();
    let (random, clock) = (Random::from_seed([seed; 32]), Clock::default());
    let opening = Journal::open(disk.clone(), random, clock, Options::default());
    let journal = run(&disk, &mut device, opening).unwrap();
    let mut writing = pin!(journal.run());
    for (name, &bytes) in (b'a'..).zip(values) {
        let operation = Operation {
            key: [b'/', name].into(),
            value: Some(vec![7; bytes].into()),
            precondition: Precondition::Any,
        };
        let operations = [operation].into();
        let batch = Batch { operations, durability: Durability::Durable, origin: Origin(1) };
        let mut committing = pin!(journal.commit(batch));
        let both = poll_fn(|_| {
            let _ = poll(writing.as_mut());
            poll(committing.as_mut())
        });
        run(&disk, &mut device, both).unwrap();
    }
    (disk, device)
}

/// A header that came back from an earlier use of the same place claims what is there now. It hides nothing behind it but what
/// it lies upon.
#[test]
fn a_stale_header_hides_no_group_behind_it() {
    let (disk, mut device) = with_puts(8, &[8_000]);
    let facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let header = facts.groups.iter().map(|it| it.header).find(|it| it.record_count == 1).unwrap();
    assert!(header.blocks(&facts.superblock.geometry) > 8, "it claims all that is put below");
    let places = [Zone::A, Zone::B].map(|zone| {
        let at = facts.block_offset(zone, header.segment, header.block);
        usize::try_from(at).unwrap()
    });
    let earlier = device.into_bytes();
    let (disk, device) = with_puts(9, &[100, 100, 600, 100]);
    let mut bytes = device.into_bytes();
    for at in places {
        bytes[at..at + 512].copy_from_slice(&earlier[at..at + 512]);
    }
    let mut device = MemoryDevice::from_bytes(bytes);
    let mut facts = run(&disk, &mut device, inspect(&disk, |_, _| {})).volume.unwrap();
    let mut found = Vec::new();
    let carving = facts.carve(&disk, header.segment, |key, _| found.push(key.to_vec()));
    run(&disk, &mut device, carving);
    assert_eq!(found, [b"/b", b"/c", b"/d"].repeat(2));
}
