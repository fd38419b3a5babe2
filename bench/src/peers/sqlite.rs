//! SQLite: a B tree with a write-ahead log, `synchronous = FULL`.

use super::{Engine, batched, threads, timed};
use crate::engine::{key, numbered, value};
use crate::{Result, Sample};
use rusqlite::{Connection, OptionalExtension as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const PUT: &str = "INSERT INTO bench VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";

pub(super) struct Sqlite {
    path: PathBuf,
    connection: Connection,
}

impl Sqlite {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("sqlite");
        let connection = connect(&path)?;
        let table =
            "CREATE TABLE IF NOT EXISTS bench (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID";
        connection.execute(table, ())?;
        Ok(Self { path, connection })
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

impl Engine for Sqlite {
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample> {
        let connections: Result<Vec<_>> =
            (0..writers).map(|_| Ok(Mutex::new(connect(&self.path)?))).collect();
        let connections = connections?;
        threads(writers, rounds, |writer, round| {
            let at = usize::try_from(writer)?;
            let connection = connections.get(at).ok_or("no such writer")?;
            let connection = connection.lock().map_err(|_| "a writer panicked")?;
            connection.prepare_cached(PUT)?.execute((key(writer, round), value(bytes)))?;
            Ok(())
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
        let txn = self.connection.transaction()?;
        {
            let mut put = txn.prepare(PUT)?;
            batched(keys, batch, |keys| {
                for key in keys {
                    put.execute((key, &value))?;
                }
                Ok(())
            })?;
        }
        txn.commit()?;
        Ok(start.elapsed())
    }

    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()> {
        let (txn, value) = (self.connection.transaction()?, value(bytes));
        {
            let mut put = txn.prepare_cached(PUT)?;
            for key in keys {
                put.execute((numbered(*key), &value))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn gets(&mut self, keys: &[u64]) -> Result<Sample> {
        let mut get = self.connection.prepare("SELECT value FROM bench WHERE key = ?1")?;
        timed(keys, |key| {
            let found = get.query_row((key,), |row| Ok(row.get_ref(0)?.as_blob().map(<[u8]>::len)));
            Ok(found.optional()?.transpose()?)
        })
    }

    fn scan(&mut self) -> Result<u64> {
        let mut scan = self.connection.prepare("SELECT key, value FROM bench ORDER BY key")?;
        let mut rows = scan.query(())?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            row.get_ref(1)?;
            count += 1;
        }
        Ok(count)
    }
}
