//! Tests that look inside, and what they share.

use crate::geometry::{SUPERBLOCK_COPIES, VolumeGeometry, superblock_offset};
use crate::{
    Batch, Clock, Disk, Durability, FormatOptions, Journal, Operation, Options, Origin,
    Precondition, Random, format,
};
use alloc::boxed::Box;
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

fn put(journal: &Journal, key: &[u8]) -> impl Future<Output = bool> + use<> {
    let value = Some([7; 9].as_slice().into());
    let put = Operation { key: key.into(), value, precondition: Precondition::Any };
    let (operations, durability) = (vec![put], Durability::Durable);
    let done = journal.commit(Batch { operations, durability, origin: Origin(1) });
    async move { done.await.is_ok() }
}

/// A check reads a long segment piece by piece, and commits go on in pieces that it has read: what they wrote is not lost.
#[test]
fn a_check_calls_nothing_lost_that_is_written_meanwhile() {
    let mut device = MemoryDevice::new(130 << 20);
    let disk = Disk::new(device.geometry());
    let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
    let mut random = Random::from_seed([7; 32]);
    let made = run(&disk, &mut device, format(&disk, &mut random, options));
    let mut superblock = made.expect("the device is blank");
    // Segments as volumes of four gigabytes have them.
    superblock.geometry = VolumeGeometry::new(512, 130 << 20, 16_384, 8, 2).expect("it fits");
    for copy in 0..SUPERBLOCK_COPIES {
        let (offset, bytes) = (superblock_offset(copy, 130 << 20), superblock.encode());
        let write = disk.write(offset, Buffer::copy_of(&bytes));
        run(&disk, &mut device, write).expect("it lies on the device");
    }
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
