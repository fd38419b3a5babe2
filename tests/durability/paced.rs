//! A device in memory whose requests take as long as a common disk's, on a clock of its own.

use blockdev::{BlockDevice, Completion, Geometry, MemoryDevice, Operation, Request};
use std::collections::BTreeMap;

/// What a request takes before its first byte, in nanoseconds: a write of 4 KiB and a flush take 110 µs together, as on the disk
/// that the goals of speed were set on.
const LATENCY: u64 = 64_000;
const FLUSH: u64 = 45_000;
/// What a byte takes on the way that all requests share, in picoseconds: 3 GB in a second.
const BYTE: u64 = 320;

/// A [`MemoryDevice`] that completes nothing before its time. Each completion that is taken moves the clock to its own.
pub struct Paced {
    inner: MemoryDevice,
    now: u64,
    /// When the way is free again.
    free: u64,
    /// When all writes and flushes that were submitted are done.
    last: u64,
    /// By the time of completion, and in the order of submission.
    done: BTreeMap<(u64, u64), Completion>,
    submitted: u64,
}

impl Paced {
    pub fn new(inner: MemoryDevice) -> Self {
        Self { inner, now: 0, free: 0, last: 0, done: BTreeMap::new(), submitted: 0 }
    }

    /// Nanoseconds that have passed.
    pub fn now(&self) -> u64 {
        self.now
    }
}

impl BlockDevice for Paced {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, request: Request) {
        let end = if request.operation == Operation::Flush {
            self.last.max(self.now) + FLUSH
        } else {
            self.free = self.free.max(self.now) + request.buffer.len() as u64 * BYTE / 1000;
            self.free + LATENCY
        };
        if !matches!(request.operation, Operation::Read { .. }) {
            self.last = self.last.max(end);
        }
        self.inner.submit(request);
        let completion = self.inner.completion().expect("memory is done at once");
        self.submitted += 1;
        self.done.insert((end, self.submitted), completion);
    }

    fn completion(&mut self) -> Option<Completion> {
        let ((end, _), completion) = self.done.pop_first()?;
        self.now = self.now.max(end);
        Some(completion)
    }
}
