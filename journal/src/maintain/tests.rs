//! The list of uses while a checkpoint is written.

use crate::geometry::{SUPERBLOCK_COPIES, superblock_offset};
use crate::layout::superblock::USES_MAX;
use crate::tests::{poll, run, volume, volume_of};
use crate::{
    Batch, Birth, BlockIndex, Clock, Disk, Durability, Journal, OpenError, Operation, Options,
    Origin, Precondition, Random,
};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use blockdev::{BlockDevice, Buffer, MemoryDevice, Operation as Request};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

type Task = Pin<Box<dyn Future<Output = bool>>>;
type Writing = Pin<Box<dyn Future<Output = ()>>>;

/// Does `what` while the journal writes.
fn both(disk: &Disk, device: &mut MemoryDevice, writing: &mut Writing, mut what: Task) {
    let done = poll_fn(|_| {
        let _ = poll(writing.as_mut());
        poll(what.as_mut())
    });
    assert!(run(disk, device, done));
}

/// Puts a value under each key, in one batch.
fn puts(journal: &Journal, keys: impl Iterator<Item = Vec<u8>>) -> Task {
    let put = |key: Vec<u8>| Operation {
        key: key.into(),
        value: Some(vec![7; 8].into()),
        precondition: Precondition::Any,
    };
    let (operations, durability) = (keys.map(put).collect(), Durability::Durable);
    let done = journal.commit(Batch { operations, durability, origin: Origin(1) });
    Box::pin(async move { done.await.is_ok() })
}

fn checkpoint(journal: &Journal) -> Task {
    let journal = journal.clone();
    Box::pin(async move { journal.checkpoint().await.is_ok() })
}

/// A long key that shares next to nothing with the others.
fn key(n: u32) -> Vec<u8> {
    let mut state = n.wrapping_mul(2_654_435_761) | 1;
    let letter = |at| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if at == 0 { b'/' } else { b'a' + state.to_le_bytes()[2] % 26 }
    };
    (0..250).map(letter).collect()
}

/// Clients write while a checkpoint of more segments than the last one is on its way: the list of uses takes both.
#[test]
fn a_checkpoint_that_grew_leaves_room_in_the_list_of_uses() {
    let grew = (0..5).filter(|more| grown(750 + 10 * more)).count();
    assert!(grew > 0, "no checkpoint grew");
}

/// Puts so many keys, has a checkpoint written, and then one of a few keys more, whose writes wait while others write on; tells
/// whether it took more segments.
fn grown(keys: u32) -> bool {
    let (disk, mut device) = volume_of(3 << 20, 8, 300);
    let (random, clock) = (Random::from_seed([8; 32]), Clock::default());
    let opening = Journal::open(disk.clone(), random, clock, Options::default());
    let journal = run(&disk, &mut device, opening).expect("the volume is sound");
    let mut writing: Writing = Box::pin(journal.run());
    for first in (0..keys).step_by(10) {
        both(&disk, &mut device, &mut writing, puts(&journal, (first..first + 10).map(key)));
    }
    // What follows lies in the first use of the log.
    while journal.0.volume.borrow().tail.block != 1 {
        both(&disk, &mut device, &mut writing, puts(&journal, [b"/other".to_vec()].into_iter()));
    }
    both(&disk, &mut device, &mut writing, checkpoint(&journal));
    let taken = || journal.0.volume.borrow().superblock.checkpoint.len();
    let before = taken();
    both(&disk, &mut device, &mut writing, puts(&journal, (keys..keys + 6).map(key)));
    let mut second = checkpoint(&journal);
    let (mut kept, mut other) = (Vec::new(), puts(&journal, [b"/other".to_vec()].into_iter()));
    for _ in 0..4000 {
        let _ = poll(writing.as_mut());
        let _ = poll(second.as_mut());
        if poll(other.as_mut()).is_ready() {
            other = puts(&journal, [b"/other".to_vec()].into_iter());
        }
        while let Some(request) = disk.next_request() {
            match request.operation {
                Request::Write { offset } if is_busy(&journal, offset) => kept.push(request),
                _ => device.submit(request),
            }
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
    assert!(!kept.is_empty(), "the checkpoint is on its way");
    kept.into_iter().for_each(|request| device.submit(request));
    both(&disk, &mut device, &mut writing, second);
    both(&disk, &mut device, &mut writing, other);
    let superblock = &journal.0.volume.borrow().superblock;
    assert!(superblock.checkpoint.len() + superblock.log.len() <= USES_MAX);
    superblock.checkpoint.len() > before
}

/// Tells whether a place lies in a segment that a checkpoint is being written to.
fn is_busy(journal: &Journal, offset: u64) -> bool {
    let geometry = journal.0.verifier.geometry;
    let volume = journal.0.volume.borrow();
    volume.busy.iter().any(|segment| {
        geometry.zones().any(|zone| {
            let start = geometry.block_offset(zone, *segment, BlockIndex(0));
            (start..start + geometry.segment_bytes() as u64).contains(&offset)
        })
    })
}

/// The last mount that is taken runs so long that it raises its number: the next one is refused for that, and all is readable.
#[test]
fn a_mount_that_raises_the_last_number_leaves_a_volume() {
    let (disk, mut device) = volume();
    let superblock = run(&disk, &mut device, crate::scan::superblocks(&disk));
    let mut last = superblock.best().expect("it is sound").clone();
    last.mount = Birth::MOUNT_MAX - 2;
    for copy in 0..SUPERBLOCK_COPIES {
        let offset = superblock_offset(copy, last.geometry.volume_bytes());
        let write = disk.write(offset, Buffer::copy_of(&last.encode()));
        run(&disk, &mut device, write).expect("it lies on the device");
    }
    let open = |n| {
        let (random, clock) = (Random::from_seed([n; 32]), Clock::default());
        Journal::open(disk.clone(), random, clock, Options::default())
    };
    let journal = run(&disk, &mut device, open(8)).expect("there is one more");
    let mut writing: Writing = Box::pin(journal.run());
    both(&disk, &mut device, &mut writing, puts(&journal, [b"/a".to_vec()].into_iter()));
    journal.0.state.borrow_mut().next_birth.0 += 3 << 32;
    both(&disk, &mut device, &mut writing, puts(&journal, [b"/b".to_vec()].into_iter()));
    let mut polls = 0;
    let raised = || journal.0.volume.borrow().superblock.mount > Birth::MOUNT_MAX;
    let ended = poll_fn(|_| {
        let _ = poll(writing.as_mut());
        polls += 1;
        if raised() || polls == 1000 { Poll::Ready(raised()) } else { Poll::Pending }
    });
    assert!(run(&disk, &mut device, ended), "the number is not raised");
    assert_eq!(run(&disk, &mut device, open(9)).err(), Some(OpenError::MountsUsedUp));
}
