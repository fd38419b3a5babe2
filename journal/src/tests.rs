//! Tests that look inside, and what they share.

use crate::geometry::{SUPERBLOCK_COPIES, VolumeGeometry, superblock_offset};
use crate::group::group_blocks;
use crate::layout::group;
use crate::room::free_segments;
use crate::types::{Birth, SegmentIndex};
use crate::writer::Asker;
use crate::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Journal, Operation, Options,
    Origin, Precondition, Random, format,
};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use blockdev::{BlockDevice, Buffer, MemoryDevice};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

/// Polls once.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `future` over a device.
pub(crate) fn run<F: Future>(disk: &Disk, device: &mut impl BlockDevice, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
}

/// Makes an empty volume on a device of 1 MiB.
pub(crate) fn volume() -> (Disk, MemoryDevice) {
    let mut device = MemoryDevice::new(1 << 20);
    let disk = Disk::new(device.geometry());
    let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
    let mut random = Random::from_seed([7; 32]);
    run(&disk, &mut device, format(&disk, &mut random, options)).expect("the device is blank");
    (disk, device)
}

/// Makes an empty volume with segments as larger ones have them.
pub(crate) fn volume_of(
    device_bytes: u64,
    segment_blocks: u32,
    segments: u32,
) -> (Disk, MemoryDevice) {
    let mut device = MemoryDevice::new(usize::try_from(device_bytes).expect("it is small"));
    let disk = Disk::new(device.geometry());
    let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
    let mut random = Random::from_seed([7; 32]);
    let made = run(&disk, &mut device, format(&disk, &mut random, options));
    let mut superblock = made.expect("the device is blank");
    let geometry = VolumeGeometry::new(512, device_bytes, segment_blocks, segments, 2);
    superblock.geometry = geometry.expect("it fits");
    for copy in 0..SUPERBLOCK_COPIES {
        let (offset, bytes) = (superblock_offset(copy, device_bytes), superblock.encode());
        let write = disk.write(offset, Buffer::copy_of(&bytes));
        run(&disk, &mut device, write).expect("it lies on the device");
    }
    (disk, device)
}

fn put(journal: &Journal, key: &[u8]) -> impl Future<Output = bool> + use<> {
    put_of(journal, key, 9)
}

fn put_of(journal: &Journal, key: &[u8], bytes: usize) -> impl Future<Output = bool> + use<> {
    let value = Some(vec![7; bytes].into());
    let put = Operation { key: key.into(), value, precondition: Precondition::Any };
    let (operations, durability) = (vec![put], Durability::Durable);
    let done = journal.commit(Batch { operations, durability, origin: Origin(1) });
    async move { done.await.is_ok() }
}

/// A check reads a long segment piece by piece, and commits go on in pieces that it has read: what they wrote is not lost.
#[test]
fn a_check_calls_nothing_lost_that_is_written_meanwhile() {
    // Segments as volumes of four gigabytes have them.
    let (disk, mut device) = volume_of(130 << 20, 16_384, 8);
    let random = Random::from_seed([8; 32]);
    let opening = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let journal = run(&disk, &mut device, opening).expect("the volume is sound");
    let (mut writing, mut checking) = (pin!(journal.run()), pin!(journal.check()));
    let (mut puts, mut done, mut turn) = (Vec::new(), 0, 0_u8);
    let all = poll_fn(|_| {
        // Others wait whenever some are being written.
        turn += 1;
        puts.push(Box::pin(put(&journal, &[b'/', turn])));
        let _ = poll(writing.as_mut());
        let before = puts.len();
        puts.retain_mut(|put| poll(put.as_mut()).is_pending());
        done += before - puts.len();
        poll(checking.as_mut())
    });
    let report = run(&disk, &mut device, all).expect("nothing fails");
    assert!(report.groups > 0 && done > 3, "{report:?}, {done} puts");
    assert_eq!((report.damaged, report.repaired), (0, 0), "{report:?}");
}

/// Others go on committing, so that there is always something that nothing vouches for yet: who seals waits for what was
/// there before, and for no more.
#[test]
fn a_seal_ends_while_others_commit() {
    let (disk, mut device) = volume();
    let (random, clock) = (Random::from_seed([8; 32]), Clock::default());
    let opening = Journal::open(disk.clone(), random, clock, Options::default());
    let journal = run(&disk, &mut device, opening).expect("the volume is sound");
    let (mut writing, mut sealing) = (pin!(journal.run()), pin!(journal.seal()));
    let (mut puts, mut done) = (Vec::new(), 0);
    let all = poll_fn(|_| {
        puts.push(Box::pin(put(&journal, b"/a")));
        let _ = poll(writing.as_mut());
        let before = puts.len();
        puts.retain_mut(|put| poll(put.as_mut()).is_pending());
        done += before - puts.len();
        match poll(sealing.as_mut()) {
            Poll::Ready(sealed) => Poll::Ready(Some(sealed)),
            Poll::Pending if done > 200 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    assert_eq!(run(&disk, &mut device, all), Some(Ok(())), "{done} puts came before it");
}

/// Large values and refused batches take births that no record shows: however many a mount gave out, the next one gives out others.
#[test]
fn no_birth_is_given_out_twice() {
    let (disk, mut device) = volume();
    let mut last = Birth::default();
    for mount in 0..3_u8 {
        let (random, clock) = (Random::from_seed([8 + mount; 32]), Clock::default());
        let opening = Journal::open(disk.clone(), random, clock, Options::default());
        let journal = run(&disk, &mut device, opening).expect("the volume is sound");
        let next = journal.0.state.borrow().next_birth;
        assert!(next > last, "{next:?} in mount {mount}, and {last:?} before");
        let ended = run(&disk, &mut device, async {
            let mut writing = pin!(journal.run());
            let mut first = pin!(put(&journal, b"/a"));
            poll_fn(|_| {
                let _ = poll(writing.as_mut());
                poll(first.as_mut())
            })
            .await;
            journal.0.state.borrow_mut().next_birth.0 += 3 << 32;
            let mut second = pin!(put(&journal, b"/b"));
            poll_fn(|_| {
                let _ = poll(writing.as_mut());
                poll(second.as_mut())
            })
            .await
        });
        assert!(ended);
        last = journal.0.state.borrow().next_birth;
    }
}

/// A batch waits for others, and for nothing where there are none.
#[test]
fn a_batch_that_fits_a_group_is_not_overloading() {
    let (disk, mut device) = volume_of(130 << 20, 16_384, 8);
    let random = Random::from_seed([8; 32]);
    let opening = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let journal = run(&disk, &mut device, opening).expect("the volume is sound");
    let value: Rc<[u8]> = vec![7; 60_000].into();
    let put = |n: u8| Operation {
        key: [b'/', n].as_slice().into(),
        value: Some(value.clone()),
        precondition: Precondition::Any,
    };
    let large = || Batch {
        operations: (0..90).map(put).collect(),
        durability: Durability::Buffered,
        origin: Origin(1),
    };
    assert!(run(&disk, &mut device, journal.commit(large())).is_ok());
    let second = run(&disk, &mut device, journal.commit(large()));
    assert_eq!(second.err(), Some(CommitError::Overloaded), "too much waits now");
}

/// What is left to clean a segment of which the header of a group verifies in no copy: room at hand for so many blocks more than
/// its values need in one group, and no other segment.
struct LastRoom {
    disk: Disk,
    device: MemoryDevice,
    journal: Journal,
    victim: SegmentIndex,
}

impl LastRoom {
    fn open((disk, mut device): (Disk, MemoryDevice)) -> Self {
        let (random, clock) = (Random::from_seed([8; 32]), Clock::default());
        let opening = Journal::open(disk.clone(), random, clock, Options::default());
        let journal = run(&disk, &mut device, opening).expect("the volume is sound");
        Self { disk, device, journal, victim: SegmentIndex(0) }
    }

    fn new(volume: (Disk, MemoryDevice), value_bytes: usize, more: u32) -> Self {
        let mut room = Self::open(volume);
        let mut writing = Box::pin(room.journal.run());
        for n in 0..8 {
            assert!(room.drive(&mut writing, |journal| put_of(journal, &[b'/', n], value_bytes)));
        }
        room.victim = room.head();
        while room.head() == room.victim {
            assert!(room.drive(&mut writing, |journal| put_of(journal, b"/garbage", value_bytes)));
        }
        room.checkpoint(&mut writing);
        room.damage_header(b"/\x03");
        room.leave_head(more);
        let mut polls = 0;
        let idle = poll_fn(|_| {
            let _ = poll(writing.as_mut());
            polls += 1;
            let idle = room.journal.0.nothing_to_maintain();
            if idle || polls == 10_000 { Poll::Ready(idle) } else { Poll::Pending }
        });
        assert!(run(&room.disk, &mut room.device, idle), "cleaning waits for what does not come");
        room
    }

    fn checkpoint(&mut self, writing: &mut Pin<Box<impl Future<Output = ()>>>) {
        let checkpoint = |journal: &Journal| {
            let journal = journal.clone();
            async move { journal.checkpoint().await.is_ok() }
        };
        assert!(self.drive(writing, checkpoint));
    }

    fn drive<F: Future<Output = bool>>(
        &mut self,
        writing: &mut Pin<Box<impl Future<Output = ()>>>,
        what: impl FnOnce(&Journal) -> F,
    ) -> bool {
        let mut what = pin!(what(&self.journal));
        let both = poll_fn(|_| {
            let _ = poll(writing.as_mut());
            poll(what.as_mut())
        });
        run(&self.disk, &mut self.device, both)
    }

    fn head(&self) -> SegmentIndex {
        let volume = self.journal.0.volume.borrow();
        let mut log = volume.superblock.log.iter();
        log.find(|use_| Some(use_.epoch) == volume.tail.epoch).expect("a use is at hand").segment
    }

    /// Damages the header of the group that a key's record lies in.
    fn damage_header(&mut self, key: &[u8]) {
        let inner = &self.journal.0;
        let place = inner.state.borrow().index.get(key).expect("it was put").place;
        let geometry = inner.verifier.geometry;
        for zone in geometry.zones() {
            let mut offset = geometry.block_offset(zone, place.segment, geometry.block_of(place));
            let mut read = |offset| run(&self.disk, &mut self.device, self.disk.read(offset, 512));
            let mut block = read(offset).expect("it lies on the device");
            while !block.starts_with(&group::MAGIC_VALUE) {
                offset -= 512;
                block = read(offset).expect("it lies on the device");
            }
            let bad = Buffer::copy_of(&[&[0; 8], &block[8..]].concat());
            let write = self.disk.write(offset, bad);
            run(&self.disk, &mut self.device, write).expect("it lies on the device");
        }
    }

    /// Leaves so many blocks at hand, and no free segment.
    fn leave_head(&self, more: u32) {
        let inner = &self.journal.0;
        let geometry = &inner.verifier.geometry;
        let needed = group_blocks(geometry, usize::try_from(self.live()).unwrap()) + more;
        let volume = &mut *inner.volume.borrow_mut();
        let epoch = volume.tail.epoch;
        volume.superblock.log.retain(|use_| Some(use_.epoch) == epoch);
        volume.tail.block = geometry.segment_blocks() - needed;
        let state = inner.state.borrow();
        for segment in free_segments(&volume.superblock, &state.room) {
            volume.stuck.for_good(segment, 0);
        }
    }

    fn live(&self) -> u64 {
        self.journal.0.state.borrow().room.live_in(self.victim)
    }
}

/// Cleaning that finds its values by two ways writes them together all the same, in the room that one group takes.
#[test]
fn cleaning_goes_on_in_the_segment_at_hand() {
    // Records of 432 bytes: eight fill seven blocks with the header of a group, and in two groups they would take nine.
    let room = LastRoom::new(volume(), 392, 0);
    assert_eq!(room.live(), 0);
    assert_eq!(room.journal.stats().moves, 8);
}

/// No block may be written any more: what was durable last is vouched for by the superblock, once nobody has written for a while.
#[test]
fn without_room_for_a_watermark_the_superblock_vouches() {
    let mut room = LastRoom::open(volume());
    let inner = room.journal.0.clone();
    let mut writing = Box::pin(room.journal.run());
    assert!(room.drive(&mut writing, |journal| put(journal, b"/a")));
    {
        let volume = &mut *inner.volume.borrow_mut();
        for segment in free_segments(&volume.superblock, &inner.state.borrow().room) {
            volume.stuck.for_good(segment, 0);
        }
    }
    assert!(!inner.state.borrow().is_vouched() && inner.prepare(1, Asker::Client).is_none());
    for now in [0, 49, 50] {
        inner.clock.set(now);
        let mut polls = 0;
        let some = poll_fn(|_| {
            let _ = poll(writing.as_mut());
            polls += 1;
            if polls == 100 { Poll::Ready(()) } else { Poll::Pending }
        });
        run(&room.disk, &mut room.device, some);
        assert_eq!(inner.state.borrow().is_vouched(), now == 50, "at {now}");
    }
    assert_eq!(room.journal.deadline(), None, "it wants to be polled for nothing");
}

/// What takes several slices has a header for each, and begins only where all of them have room.
#[test]
fn cleaning_begins_only_where_all_slices_have_room() {
    let mut ended = Vec::new();
    for more in 0..6 {
        let room = LastRoom::new(volume_of(40 << 20, 2048, 16), 60_000, more);
        let (live, moves) = (room.live(), room.journal.stats().moves);
        // Each value is a manifest and two chunks.
        assert_eq!(moves, if live == 0 { 24 } else { 0 }, "{live} bytes stay, {more} blocks more");
        ended.push(live == 0);
    }
    assert!(!ended[0] && ended[5], "{ended:?}");
}

/// A value is written over while its segment is cleaned: what was read of it stands for no other, so none is left behind for a
/// second cleaning.
#[test]
fn what_is_written_over_meanwhile_stands_for_nothing_else() {
    let mut room = LastRoom::open(volume_of(40 << 20, 2048, 16));
    let mut writing = Box::pin(room.journal.run());
    let mut n = 0;
    room.victim = room.head();
    while room.head() == room.victim {
        // Twelve of some seventy stay, and are less than one slice.
        let key = if n % 6 == 0 { [b'/', n] } else { *b"/g" };
        assert!(room.drive(&mut writing, |journal| put_of(journal, &key, 15_000)));
        n += 1;
    }
    room.checkpoint(&mut writing);
    {
        let inner = &room.journal.0;
        let volume = &mut *inner.volume.borrow_mut();
        let state = inner.state.borrow();
        let free: Vec<_> = free_segments(&volume.superblock, &state.room).collect();
        // Few enough to clean, and enough for clients.
        free.iter().skip(3).for_each(|segment| volume.stuck.for_good(*segment, 0));
    }
    let mut over = Box::pin(put_of(&room.journal, &[b'/', 0], 15_000));
    let (mut written, mut polls) = (false, 0);
    let idle = poll_fn(|_| {
        let inner = &room.journal.0;
        let _ = poll(writing.as_mut());
        if inner.maintaining.get() && !written {
            written = poll(over.as_mut()).is_ready();
        }
        polls += 1;
        if polls == 1000 { Poll::Ready(()) } else { Poll::Pending }
    });
    run(&room.disk, &mut room.device, idle);
    let stats = room.journal.stats();
    assert_eq!((written, room.live(), stats.cleaned, stats.moves), (true, 0, 1, 11));
}

/// Begins a batch of deletes.
fn delete(
    journal: &Journal,
    keys: &[&[u8]],
    durability: Durability,
) -> Pin<Box<dyn Future<Output = bool>>> {
    let delete = |key: &&[u8]| Operation {
        key: (*key).into(),
        value: None,
        precondition: Precondition::Any,
    };
    let operations = keys.iter().map(delete).collect();
    let done = journal.commit(Batch { operations, durability, origin: Origin(2) });
    Box::pin(async move { done.await.is_ok() })
}

/// A batch that finds its keys deleted by batches on their way is answered once the newest of these is durable; a durable one also
/// where they were buffered, and a strict one once all is vouched for.
#[test]
fn what_is_absent_already_is_durably_so() {
    let mut room = LastRoom::open(volume());
    let mut writing = Box::pin(room.journal.run());
    for key in [b"/0", b"/1", b"/2"] {
        assert!(room.drive(&mut writing, |journal| put(journal, key)));
    }
    let journal = room.journal.clone();
    for durability in [Durability::Durable, Durability::Buffered, Durability::Strict] {
        for key in [b"/0", b"/1"] {
            assert!(room.drive(&mut writing, |journal| put(journal, key)));
        }
        let _first = delete(&journal, &[b"/1"], Durability::Durable);
        let _ = poll(writing.as_mut());
        let mut second = delete(&journal, &[b"/0"], Durability::Durable);
        let mut both = delete(&journal, &[b"/0", b"/1"], durability);
        let mut before = false;
        let all = poll_fn(|_| {
            let _ = poll(writing.as_mut());
            before |= !before && poll(second.as_mut()).is_ready();
            poll(both.as_mut()).map(|done| (done, before))
        });
        assert_eq!(run(&room.disk, &mut room.device, all), (true, true));
        let vouched = journal.0.state.borrow().is_vouched();
        assert_eq!(vouched, durability == Durability::Strict);
    }
    let mut buffered = delete(&journal, &[b"/2"], Durability::Buffered);
    assert_eq!(poll(buffered.as_mut()), Poll::Ready(true));
    let mut durable = delete(&journal, &[b"/2"], Durability::Durable);
    assert_eq!(poll(durable.as_mut()), Poll::Pending, "it rests on what is buffered");
    assert!(room.drive(&mut writing, |_| durable));
    assert_eq!(journal.stats().queued_bytes, 0);
}

/// A block of the superblock goes back to what it held before the volume was made: the new volume stays, and nothing of it is in
/// doubt.
#[test]
fn a_superblock_from_before_the_format_wins_nothing() {
    let mut room = LastRoom::open(volume());
    for n in 0..9 {
        let mut writing = Box::pin(room.journal.run());
        for m in 0..30 {
            assert!(room.drive(&mut writing, |journal| put(journal, &[b'/', n, m])));
        }
        room = LastRoom::open((room.disk, room.device));
    }
    let offset = superblock_offset(2, 1 << 20);
    let old = run(&room.disk, &mut room.device, room.disk.read(offset, 4096)).expect("it is there");
    let options = FormatOptions { block_bytes: 512, copies: 2, force: true };
    let mut random = Random::from_seed([9; 32]);
    let made = run(&room.disk, &mut room.device, format(&room.disk, &mut random, options));
    let volume = made.expect("it is forced").volume;
    room = LastRoom::open((room.disk, room.device));
    let mut writing = Box::pin(room.journal.run());
    assert!(room.drive(&mut writing, |journal| put(journal, b"/new")));
    let back = room.disk.write(offset, Buffer::copy_of(&old));
    run(&room.disk, &mut room.device, back).expect("it lies on the device");
    room = LastRoom::open((room.disk, room.device));
    let report = room.journal.report();
    assert_eq!((report.volume, report.lost.len()), (volume, 0));
}
