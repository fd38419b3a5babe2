//! The journal in process, on a file, as the daemon drives it but without sockets.

use crate::{Result, Sample};
use blockdev::{BlockDevice as _, FileDevice};
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

/// A volume that is never near full.
pub(crate) const SMALL: Shape = Shape {
    device_bytes: 64 << 20,
    copies: 2,
    cache_bytes: 4 << 20,
    watermark: true,
    replay_bytes: None,
};

/// Room for a million small values in both copies, and a cache that holds them, as the page cache does for others.
#[cfg(feature = "peers")]
pub(crate) const BIG: Shape = Shape {
    device_bytes: 1 << 30,
    copies: 2,
    cache_bytes: 512 << 20,
    watermark: true,
    replay_bytes: None,
};

/// The file of a volume.
const IMAGE: &str = "engine.img";

pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a volume of a measurement is.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) device_bytes: u64,
    pub(crate) copies: u8,
    pub(crate) cache_bytes: usize,
    /// Whether a watermark follows idleness; off where writes are counted.
    pub(crate) watermark: bool,
    /// Bound on the log that opening replays.
    pub(crate) replay_bytes: Option<u64>,
}

/// An open volume on a file of its own.
pub(crate) struct Store {
    device: FileDevice,
    disk: Disk,
    journal: Journal,
    clock: Clock,
    begun: Instant,
    run: Task<()>,
}

impl Store {
    /// Makes a volume in `folder`, over the one that is there.
    pub(crate) fn create(folder: &Path, shape: Shape) -> Result<Self> {
        let path = folder.join(IMAGE);
        let _ = std::fs::remove_file(&path);
        let mut device = FileDevice::create(&path, shape.device_bytes, || {})?;
        let disk = Disk::new(device.geometry());
        let of = disk.clone();
        let formatted: Task<_> = Box::pin(async move {
            let options = FormatOptions { block_bytes: 4096, copies: shape.copies, force: false };
            format(&of, &mut entropy(), options).await.map(drop)
        });
        drive(&disk, &mut device, formatted)?;
        Self::open(device, shape)
    }

    /// Opens the volume that is in `folder`.
    pub(crate) fn reopen(folder: &Path, shape: Shape) -> Result<Self> {
        let options = blockdev::OpenOptions::default();
        Self::open(FileDevice::open(folder.join(IMAGE), options, || {})?, shape)
    }

    fn open(mut device: FileDevice, shape: Shape) -> Result<Self> {
        let (disk, clock) = (Disk::new(device.geometry()), Clock::default());
        let options = Options {
            cache_bytes: shape.cache_bytes,
            watermark_ms: shape.watermark.then_some(50),
            replay_bytes: shape.replay_bytes,
            ..Options::default()
        };
        let opened: Task<_> =
            Box::pin(Journal::open(disk.clone(), entropy(), clock.clone(), options));
        let journal = drive(&disk, &mut device, opened)?;
        let run: Task<()> = Box::pin(journal.run());
        Ok(Self { device, disk, journal, clock, begun: Instant::now(), run })
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Drives the volume until `task` has ended.
    pub(crate) fn until<T>(&mut self, mut task: Task<T>) -> T {
        loop {
            self.poll();
            if let Poll::Ready(value) = task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return value;
            }
            self.poll();
            turn(&self.disk, &mut self.device);
        }
    }

    /// Goes on with what needs no waiting: requests out, what has ended in, and what follows from that.
    pub(crate) fn pass(&mut self) {
        loop {
            while let Some(request) = self.disk.next_request() {
                self.device.submit(request);
            }
            let Some(completion) = self.device.completion() else { return };
            self.disk.complete(completion);
            self.poll();
        }
    }

    /// Goes on for as long as one completion takes.
    pub(crate) fn step(&mut self) {
        self.poll();
        turn(&self.disk, &mut self.device);
    }

    /// Tells whether there is a volume in `folder`.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(IMAGE).exists()
    }

    fn poll(&mut self) {
        self.clock.set(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let _ = self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Makes `rounds` durable puts from each of `writers`, each waiting for its own before the next.
    pub(crate) fn durable_puts(
        &mut self,
        writers: u64,
        bytes: usize,
        rounds: usize,
    ) -> Result<Sample> {
        let start = Instant::now();
        let mut times = Vec::new();
        let mut running: Vec<Writer> = Vec::new();
        for writer in 0..writers {
            running.push((writer, 0, Instant::now(), put(&self.journal, writer, 0, bytes)));
        }
        while !running.is_empty() {
            self.poll();
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
            self.poll();
            turn(&self.disk, &mut self.device);
        }
        Ok(Sample::new(times, start.elapsed()))
    }

    /// Writes these keys in one durable commit.
    pub(crate) fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        let value = value(bytes);
        let operations = keys.iter().map(|key| operation(&numbered(*key), &value)).collect();
        let (durability, origin) = (Durability::Durable, Origin(0));
        let commit: Task<_> =
            Box::pin(self.journal.commit(Batch { operations, durability, origin }));
        self.until(commit)?;
        Ok(())
    }

    /// Puts a few keys, then reads them in turn.
    pub(crate) fn cached_gets(&mut self, count: usize) -> Result<Sample> {
        self.durable_puts(16, 100, 1)?;
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

/// The key of a writer's round; each writer has 64.
pub(crate) fn key(writer: u64, round: usize) -> Vec<u8> {
    format!("/state/bench/writer/{writer:04}/key/{:08}", round % 64).into_bytes()
}

fn put(
    journal: &Journal,
    writer: u64,
    round: usize,
    bytes: usize,
) -> Task<std::result::Result<Outcome, CommitError>> {
    let operations = vec![operation(&key(writer, round), &value(bytes))];
    let (durability, origin) = (Durability::Durable, Origin(writer));
    Box::pin(journal.commit(Batch { operations, durability, origin }))
}

/// The key of 41 bytes with this number.
pub(crate) fn numbered(number: u64) -> Vec<u8> {
    format!("/state/bench/keys/{number:023}").into_bytes()
}

/// A value that no key had before: SQLite writes nothing over its equal.
pub(crate) fn value(bytes: usize) -> Vec<u8> {
    let mut value = vec![7; bytes];
    for (byte, fresh) in value.iter_mut().zip(fastrand::u64(..).to_le_bytes()) {
        *byte = fresh;
    }
    value
}

pub(crate) fn operation(key: &[u8], value: &[u8]) -> Operation {
    Operation { key: key.into(), value: Some(Rc::from(value)), precondition: Precondition::Any }
}

/// Identities that no other volume of this run has; nothing here is secret.
fn entropy() -> Random {
    Random::from_seed(std::array::from_fn(|_| fastrand::u8(..)))
}

fn turn(disk: &Disk, device: &mut FileDevice) {
    while let Some(request) = disk.next_request() {
        device.submit(request);
    }
    if let Some(completion) = device.completion_blocking() {
        disk.complete(completion);
    }
}

fn drive<T>(disk: &Disk, device: &mut FileDevice, mut task: Task<T>) -> T {
    loop {
        if let Poll::Ready(value) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        turn(disk, device);
    }
}
