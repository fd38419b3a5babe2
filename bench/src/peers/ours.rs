//! StateFS itself, in the place of a peer.

use super::{Engine, batched};
use crate::engine::{BIG, Store, Task, numbered, operation, value};
use crate::{Result, Sample};
use journal::{Batch, Durability, Got, Origin};
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(super) fn open(folder: &Path) -> Result<Store> {
    let folder = &folder.join("statefs");
    std::fs::create_dir_all(folder)?;
    if Store::is_in(folder) { Store::reopen(folder, BIG) } else { Store::create(folder, BIG) }
}

impl Engine for Store {
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        self.durable_puts(writers, bytes, rounds)
    }

    fn load(
        &mut self,
        keys: &mut dyn Iterator<Item = u64>,
        bytes: usize,
        batch: usize,
    ) -> Result<Duration> {
        let (start, value) = (Instant::now(), value(bytes));
        batched(keys, batch, |keys| {
            let operations = keys.iter().map(|key| operation(key, &value)).collect();
            let (durability, origin) = (Durability::Buffered, Origin(0));
            let commit: Task<_> =
                Box::pin(self.journal().commit(Batch { operations, durability, origin }));
            self.until(commit)?;
            // As a server would: the device works while the next batch comes.
            self.pass();
            // What waits is bounded.
            while self.journal().stats().queued_bytes > QUEUE_BYTES {
                self.step();
            }
            Ok(())
        })?;
        let sync: Task<_> = Box::pin(self.journal().sync());
        self.until(sync)?;
        Ok(start.elapsed())
    }

    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        Self::commit(self, keys, bytes)
    }

    fn gets(&mut self, keys: &[u64]) -> Result<Sample> {
        let start = Instant::now();
        let mut times = Vec::with_capacity(keys.len());
        for key in keys {
            let key = numbered(*key);
            let journal = self.journal().clone();
            let begun = Instant::now();
            let mut get = std::pin::pin!(journal.get(&key, Origin(0)));
            let got = loop {
                match get.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(got) => break got,
                    Poll::Pending => self.step(),
                }
            };
            if !matches!(got, Got::Value { .. }) {
                return Err("a key that was loaded is not there".into());
            }
            times.push(begun.elapsed());
        }
        Ok(Sample::new(times, start.elapsed()))
    }

    fn scan(&mut self) -> Result<u64> {
        let mut count = 0;
        self.journal().scan(b"", |_, _| {
            count += 1;
            true
        });
        Ok(count)
    }
}

/// Buffered bytes that may wait for the device.
const QUEUE_BYTES: usize = 2 << 20;
