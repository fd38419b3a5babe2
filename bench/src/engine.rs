//! The journal in process, on a file, as the daemon drives it but without sockets.

use crate::{Result, Sample};
use blockdev::{BlockDevice, FileDevice};
use journal::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Got, Journal, Operation, Options,
    Origin, Outcome, Precondition, Random, format,
};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

const DEVICE_BYTES: u64 = 64 << 20;

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// An open volume on a file of its own.
pub(crate) struct Store {
    device: FileDevice,
    disk: Disk,
    journal: Journal,
    run: Task<()>,
}

impl Store {
    pub(crate) fn create(folder: &Path, copies: u8) -> Result<Self> {
        let path = folder.join("engine.img");
        let _ = std::fs::remove_file(&path);
        let mut device = FileDevice::create(&path, DEVICE_BYTES, || {})?;
        let disk = Disk::new(device.geometry());
        let of = disk.clone();
        let formatted: Task<_> = Box::pin(async move {
            let options = FormatOptions { block_bytes: 4096, copies, force: false };
            format(&of, &mut Random::from_seed([1; 32]), options).await.map(drop)
        });
        drive(&disk, &mut device, None, formatted)?;
        let random = Random::from_seed([2; 32]);
        let opened: Task<_> =
            Box::pin(Journal::open(disk.clone(), random, Clock::default(), Options::default()));
        let journal = drive(&disk, &mut device, None, opened)?;
        let run: Task<()> = Box::pin(journal.run());
        Ok(Self { device, disk, journal, run })
    }

    /// Makes `rounds` durable puts from each of `writers`, each waiting for its own before the next.
    pub(crate) fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        let start = Instant::now();
        let mut times = Vec::new();
        let mut running: Vec<Writer> = Vec::new();
        for writer in 0..writers {
            running.push((writer, 0, Instant::now(), put(&self.journal, writer, 0, bytes)));
        }
        while !running.is_empty() {
            let _ = self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let mut still = Vec::new();
            for (writer, round, begun, mut task) in running {
                match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => still.push((writer, round, begun, task)),
                    Poll::Ready(outcome) => {
                        outcome?;
                        times.push(begun.elapsed());
                        if round + 1 < rounds {
                            let next = put(&self.journal, writer, round + 1, bytes);
                            still.push((writer, round + 1, Instant::now(), next));
                        }
                    }
                }
            }
            running = still;
            let _ = self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            turn(&self.disk, &mut self.device);
        }
        Ok(Sample::new(times, start.elapsed()))
    }

    /// Puts a few keys, then reads them in turn.
    pub(crate) fn gets(&mut self, count: usize) -> Result<Sample> {
        self.puts(16, 100, 1)?;
        let keys: Vec<Vec<u8>> = (0..16).map(|writer| key(writer, 0)).collect();
        let start = Instant::now();
        let mut times = Vec::with_capacity(count);
        for key in keys.iter().cycle().take(count) {
            let begun = Instant::now();
            let mut get = std::pin::pin!(self.journal.get(key, Origin(0)));
            let got = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if !matches!(got, Poll::Ready(Got::Value { .. })) {
                return Err("a cached get did not answer at once".into());
            }
            times.push(begun.elapsed());
        }
        Ok(Sample::new(times, start.elapsed()))
    }
}

/// A writer, its round, when it began, and the commit it waits for.
type Writer = (u64, usize, Instant, Task<std::result::Result<Outcome, CommitError>>);

fn key(writer: u64, round: usize) -> Vec<u8> {
    format!("/state/bench/writer/{writer:04}/key/{:08}", round % 64).into_bytes()
}

fn put(
    journal: &Journal,
    writer: u64,
    round: usize,
    bytes: usize,
) -> Task<std::result::Result<Outcome, CommitError>> {
    let operation = Operation {
        key: key(writer, round).into(),
        value: Some(Rc::from(vec![7; bytes])),
        precondition: Precondition::Any,
    };
    let (durability, origin) = (Durability::Durable, Origin(writer));
    Box::pin(journal.commit(Batch { operations: vec![operation], durability, origin }))
}

fn turn(disk: &Disk, device: &mut FileDevice) {
    while let Some(request) = disk.next_request() {
        device.submit(request);
    }
    if let Some(completion) = device.completion_blocking() {
        disk.complete(completion);
    }
}

fn drive<T>(
    disk: &Disk,
    device: &mut FileDevice,
    mut beside: Option<&mut Task<()>>,
    mut task: Task<T>,
) -> T {
    loop {
        if let Some(beside) = &mut beside {
            let _ = beside.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        if let Poll::Ready(value) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        turn(disk, device);
    }
}
