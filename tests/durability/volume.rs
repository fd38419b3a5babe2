//! A volume of whose zones the bytes are counted: filled, written over, emptied.

use blockdev::{Counting, MemoryDevice};
use fastrand::Rng;
use journal::{
    Batch, Clock, CommitError, Disk, Durability, Journal, Operation, Options, Origin, Precondition,
    SLOT_BYTES, record_bytes,
};
use std::rc::Rc;
use tests::drive::{Task, drive};

use crate::history::open;
use crate::paced::Paced;

pub const MIB: u64 = 1 << 20;
/// Puts of a commit of many.
pub const BATCH: u64 = 64;
/// Bytes of each key.
pub const KEY_BYTES: usize = 41;

/// A volume in memory, with values of one length under keys with numbers.
pub struct Volume {
    device: Counting<Paced>,
    disk: Disk,
    run: Task<()>,
    pub journal: Journal,
    pub zone_bytes: u64,
    value_bytes: usize,
    /// Keys from 0 on that were put.
    pub keys: u64,
    pub rng: Rng,
}

impl Volume {
    /// Makes one with two zones of at least so many bytes.
    pub fn new(zone_bytes: u64, value_bytes: usize) -> Self {
        // Two zones between four copies of the superblock.
        let zone_bytes = zone_bytes.next_multiple_of(SLOT_BYTES);
        let device_bytes = 2 * zone_bytes + 4 * SLOT_BYTES;
        let memory = MemoryDevice::new(usize::try_from(device_bytes).unwrap());
        let mut device = Counting::new(Paced::new(memory));
        let (disk, journal) = open(&mut device, Options::default(), Clock::default());
        let run: Task<()> = Box::pin(journal.run());
        let rng = Rng::with_seed(1);
        Self { device, disk, run, journal, zone_bytes, value_bytes, keys: 0, rng }
    }

    fn key(number: u64) -> Rc<[u8]> {
        let key = format!("/state/values/of/somebody/{number:015}").into_bytes();
        assert_eq!(key.len(), KEY_BYTES);
        key.into()
    }

    /// Bytes of the record of a value.
    pub fn record_bytes(&self) -> usize {
        record_bytes(KEY_BYTES, self.value_bytes)
    }

    /// Gives keys new values, or deletes them, in one durable commit.
    pub fn commit(&mut self, keys: &[u64], delete: bool) -> Result<(), CommitError> {
        let operation = |number: &u64| {
            let mut value = vec![self.rng.u8(..); self.value_bytes];
            if let Some(id) = value.first_chunk_mut() {
                *id = number.to_le_bytes();
            }
            let value: Option<Rc<[u8]>> = (!delete).then(|| value.into());
            Operation { key: Self::key(*number), value, precondition: Precondition::Any }
        };
        let operations = keys.iter().map(operation).collect();
        let (durability, origin) = (Durability::Durable, Origin(1));
        let commit = Box::pin(self.journal.commit(Batch { operations, durability, origin }));
        let commit: Task<_> = commit;
        drive(&self.disk, &mut self.device, Some(&mut self.run), commit).map(drop)
    }

    /// Puts the keys below `count`, as many to a commit as the clients of a busy server.
    pub fn load(&mut self, count: u64) {
        for first in (0..count).step_by(64) {
            let keys: Vec<u64> = (first..(first + BATCH).min(count)).collect();
            self.commit(&keys, false).expect("it has room");
        }
    }

    /// Overwrites keys below `count` at random, in so many commits of [`BATCH`] puts, `to_hot` of a hundred in the first tenth.
    pub fn overwrite(&mut self, count: u64, to_hot: u64, commits: u64) {
        let hot = count / 10;
        for _ in 0..commits {
            let key = |_| match self.rng.u64(..100) {
                percent if percent < to_hot => self.rng.u64(..hot),
                _ => self.rng.u64(hot..count),
            };
            let keys: Vec<u64> = (0..BATCH).map(key).collect();
            self.commit(&keys, false).expect("what lives fits");
        }
    }

    /// Writes one large value.
    pub fn upload(&mut self, bytes: u64) -> Result<(), CommitError> {
        let mut upload = self.journal.upload(Origin(1));
        let value = vec![7; usize::try_from(bytes).unwrap()];
        let task: Task<_> = Box::pin(async move {
            for part in value.chunks(50_000) {
                upload.append(part).await?;
            }
            upload.commit(Self::key(0), Precondition::Any, Durability::Durable).await
        });
        drive(&self.disk, &mut self.device, Some(&mut self.run), task).map(drop)
    }

    /// Puts new keys, `count` to a commit, until one more is refused; yields the share of a zone that live records take.
    pub fn fill(&mut self, mut count: u64) -> f64 {
        loop {
            let keys: Vec<u64> = (self.keys..self.keys + count).collect();
            match self.commit(&keys, false) {
                Ok(()) => self.keys += count,
                Err(CommitError::NoSpace) if count > 1 => count /= 2,
                Err(CommitError::NoSpace) => return self.share(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn share(&self) -> f64 {
        let keys = self.journal.stats().keys as f64;
        keys * self.record_bytes() as f64 / self.zone_bytes as f64
    }

    /// Yields the nanoseconds that the device has taken for all that was asked of it.
    pub fn now(&self) -> u64 {
        self.device.inner().now()
    }

    /// Yields the bytes written to each zone since this was asked last.
    pub fn written(&mut self) -> u64 {
        self.device.take_counts().bytes_written / 2
    }
}
