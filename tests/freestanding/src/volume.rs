//! The journal over memory: format, open, commit, open again, read.

use alloc::boxed::Box;
use alloc::rc::Rc;
use blockdev::{BlockDevice, MemoryDevice};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use journal::{
    Batch, Clock, Digest, Disk, Durability, FormatOptions, Got, Journal, Mode, Operation, Options,
    Origin, Outcome, Precondition, Random, digest, format,
};

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

const DEVICE_BYTES: usize = 1 << 20;
const ORIGIN: Origin = Origin(1);
const TURNS_MAX: u32 = 100_000;

/// What was committed is there after the volume was opened again, to the digest.
pub(crate) fn check() -> Result<(), &'static str> {
    let mut device = formatted()?;
    let before = work(&mut device)?;

    let journal = open(&mut device, 3)?;
    let value = drive(&journal.0, &mut device, None, get(&journal.1, KEPT))?;
    if !matches!(value, Got::Value { value, .. } if &*value == VALUE) {
        return Err("what was committed is not there");
    }
    let deleted = drive(&journal.0, &mut device, None, get(&journal.1, DELETED))?;
    if deleted != Got::Absent {
        return Err("what was deleted is there");
    }
    let after = state(&journal, &mut device)?;
    if before == after { Ok(()) } else { Err("the digest is another after opening again") }
}

/// Makes an empty volume in memory.
pub(crate) fn formatted() -> Result<MemoryDevice, &'static str> {
    let mut device = MemoryDevice::new(DEVICE_BYTES);
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let make: Task<_> = Box::pin(async move {
        format(&of, &mut Random::from_seed([1; 32]), FormatOptions::default()).await
    });
    drive(&disk, &mut device, None, make)?.map_err(|_| "format fails")?;
    Ok(device)
}

/// Puts two keys, deletes one of them, and yields the digest.
fn work(device: &mut MemoryDevice) -> Result<Digest, &'static str> {
    let journal = open(device, 2)?;
    let mut run: Task<()> = Box::pin(journal.1.run());
    for (key, value) in [(KEPT, Some(VALUE)), (DELETED, Some(VALUE)), (DELETED, None)] {
        let value = value.map(Rc::from);
        let operation = Operation { key: key.into(), value, precondition: Precondition::Any };
        let operations = [operation].into();
        let batch = Batch { operations, durability: Durability::Durable, origin: ORIGIN };
        let commit = Box::pin(journal.1.commit(batch));
        match drive(&journal.0, device, Some(&mut run), commit)? {
            Ok(Outcome::Applied(_)) => {}
            _ => return Err("a commit is not applied"),
        }
    }
    state(&journal, device)
}

fn open(device: &mut MemoryDevice, seed: u8) -> Result<(Disk, Journal), &'static str> {
    let disk = Disk::new(device.geometry());
    let random = Random::from_seed([seed; 32]);
    let task = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let journal = drive(&disk, device, None, Box::pin(task))?.map_err(|_| "open fails")?;
    if journal.mode() != Mode::Healthy {
        return Err("the volume is not healthy");
    }
    Ok((disk, journal))
}

fn get(journal: &Journal, key: &'static [u8]) -> Task<Got> {
    let journal = journal.clone();
    Box::pin(async move { journal.get(key, ORIGIN).await })
}

fn state(journal: &(Disk, Journal), device: &mut MemoryDevice) -> Result<Digest, &'static str> {
    let of = journal.1.clone();
    drive(&journal.0, device, None, Box::pin(async move { digest(&of, |_, _, _| {}).await }))
}

fn drive<T>(
    disk: &Disk,
    device: &mut MemoryDevice,
    mut beside: Option<&mut Task<()>>,
    mut task: Task<T>,
) -> Result<T, &'static str> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(value) = task.as_mut().poll(&mut context) {
            return Ok(value);
        }
        if let Some(beside) = &mut beside {
            let _ = beside.as_mut().poll(&mut context);
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
    Err("a task does not end")
}

const KEPT: &[u8] = b"/state/net/wifi";
const DELETED: &[u8] = b"/state/net/old";
const VALUE: &[u8] = b"on";
