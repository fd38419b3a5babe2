//! fjall: an LSM tree; a put and `persist(SyncData)`.

use super::{Engine, batched, threads, timed};
use crate::engine::{key, numbered, value};
use crate::{Result, Sample};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) struct Fjall {
    database: Database,
    keys: Keyspace,
}

impl Fjall {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let database = Database::builder(folder.join("fjall")).open()?;
        let keys = database.keyspace("bench", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keys })
    }
}

impl Engine for Fjall {
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        threads(writers, rounds, |writer, round| {
            self.keys.insert(key(writer, round), value(bytes))?;
            Ok(self.database.persist(PersistMode::SyncData)?)
        })
    }

    fn load(
        &mut self,
        keys: &mut dyn Iterator<Item = u64>,
        bytes: usize,
        batch: usize,
    ) -> Result<Duration> {
        let (start, value) = (Instant::now(), value(bytes));
        batched(keys, batch, |keys| {
            let mut writes = self.database.batch();
            for key in keys {
                writes.insert(&self.keys, key.as_slice(), value.as_slice());
            }
            Ok(writes.commit()?)
        })?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(start.elapsed())
    }

    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        let (mut writes, value) = (self.database.batch(), value(bytes));
        for key in keys {
            writes.insert(&self.keys, numbered(*key), value.as_slice());
        }
        writes.commit()?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn gets(&mut self, keys: &[u64]) -> Result<Sample> {
        timed(keys, |key| Ok(self.keys.get(key)?.map(|value| value.len())))
    }

    fn scan(&mut self) -> Result<u64> {
        let mut count = 0;
        for item in self.keys.iter() {
            item.into_inner()?;
            count += 1;
        }
        Ok(count)
    }
}
