//! redb: a copy-on-write B+ tree; each commit is synced.

use super::{Engine, batched, threads, timed};
use crate::engine::{key, numbered, value};
use crate::{Result, Sample};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::path::Path;
use std::time::{Duration, Instant};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

pub(super) struct Redb {
    database: Database,
}

impl Redb {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Ok(Self { database: Database::create(folder.join("redb"))? })
    }

    fn write(&self, keys: &[Vec<u8>], value: &[u8], durability: Durability) -> Result<()> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(TABLE)?;
            for key in keys {
                table.insert(key.as_slice(), value)?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        threads(writers, rounds, |writer, round| {
            self.write(&[key(writer, round)], &value(bytes), Durability::Immediate)
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
        let txn = self.database.begin_write()?;
        {
            let mut table = txn.open_table(TABLE)?;
            batched(keys, batch, |keys| {
                for key in keys {
                    table.insert(key.as_slice(), value.as_slice())?;
                }
                Ok(())
            })?;
        }
        txn.commit()?;
        Ok(start.elapsed())
    }

    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        let keys: Vec<_> = keys.iter().copied().map(numbered).collect();
        self.write(&keys, &value(bytes), Durability::Immediate)
    }

    fn gets(&mut self, keys: &[u64]) -> Result<Sample> {
        let txn = self.database.begin_read()?;
        let table = txn.open_table(TABLE)?;
        timed(keys, |key| Ok(table.get(key)?.map(|value| value.value().len())))
    }

    fn scan(&mut self) -> Result<u64> {
        let txn = self.database.begin_read()?;
        let mut count = 0;
        for item in txn.open_table(TABLE)?.iter()? {
            item?;
            count += 1;
        }
        Ok(count)
    }
}
