//! LMDB: a memory-mapped B+ tree; each commit is synced.

use super::{Engine, batched, threads, timed};
use crate::engine::{key, numbered, value};
use crate::{Result, Sample};
use lmdb::{Cursor as _, Database, DatabaseFlags, Environment, Transaction as _, WriteFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// Address space for the map, not what the file takes.
const MAP_BYTES: usize = 8 << 30;

pub(super) struct Lmdb {
    env: Environment,
    keys: Database,
}

impl Lmdb {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("lmdb");
        std::fs::create_dir_all(&path)?;
        let env = Environment::new().set_map_size(MAP_BYTES).open(&path)?;
        let keys = env.create_db(None, DatabaseFlags::empty())?;
        Ok(Self { env, keys })
    }
}

impl Engine for Lmdb {
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        threads(writers, rounds, |writer, round| {
            let mut txn = self.env.begin_rw_txn()?;
            txn.put(self.keys, &key(writer, round), &value(bytes), WriteFlags::empty())?;
            Ok(txn.commit()?)
        })
    }

    fn load(
        &mut self,
        keys: &mut dyn Iterator<Item = u64>,
        bytes: usize,
        batch: usize,
    ) -> Result<Duration> {
        let (start, value) = (Instant::now(), value(bytes));
        // One transaction holds it all, so that nothing is synced before the end.
        let mut txn = self.env.begin_rw_txn()?;
        batched(keys, batch, |keys| {
            for key in keys {
                txn.put(self.keys, key, &value, WriteFlags::empty())?;
            }
            Ok(())
        })?;
        txn.commit()?;
        Ok(start.elapsed())
    }

    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        let (mut txn, value) = (self.env.begin_rw_txn()?, value(bytes));
        for key in keys {
            txn.put(self.keys, &numbered(*key), &value, WriteFlags::empty())?;
        }
        Ok(txn.commit()?)
    }

    fn gets(&mut self, keys: &[u64]) -> Result<Sample> {
        let txn = self.env.begin_ro_txn()?;
        timed(keys, |key| Ok(Some(txn.get(self.keys, &key)?.len())))
    }

    fn scan(&mut self) -> Result<u64> {
        let txn = self.env.begin_ro_txn()?;
        let mut count = 0;
        for item in txn.open_ro_cursor(self.keys)?.iter_start() {
            item?;
            count += 1;
        }
        Ok(count)
    }
}
