//! The engines that people use today, each set to be as durable as ours: a put returns after its flush.

mod fjall;
mod lmdb;
mod ours;
mod redb;
mod sqlite;

use crate::{Result, Sample};
use std::path::Path;
use std::time::{Duration, Instant};

/// An engine in this process, over a folder of its own.
pub(crate) trait Engine {
    /// Makes `rounds` durable puts from each of `writers`, each waiting for its own before the next.
    fn puts(&mut self, writers: u64, bytes: usize, rounds: usize) -> Result<Sample>;

    /// Writes keys in the given order, `batch` to a commit, and makes all of them durable at the end.
    fn load(
        &mut self,
        keys: &mut dyn Iterator<Item = u64>,
        bytes: usize,
        batch: usize,
    ) -> Result<Duration>;

    /// Writes these keys in one durable commit.
    fn commit(&mut self, keys: &[u64], bytes: usize) -> Result<()>;

    /// Reads these keys, one by one, all of which are there.
    fn gets(&mut self, keys: &[u64]) -> Result<Sample>;

    /// Walks over all keys in order and yields how many there are.
    fn scan(&mut self) -> Result<u64>;
}

/// The engines, in the order of the tables.
pub(crate) const KINDS: [Kind; 5] =
    [Kind::StateFs, Kind::Fjall, Kind::Lmdb, Kind::Sqlite, Kind::Redb];

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    StateFs,
    Fjall,
    Lmdb,
    Sqlite,
    Redb,
}

impl Kind {
    /// Yields the name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::StateFs => "StateFS",
            Self::Fjall => "fjall",
            Self::Lmdb => "LMDB",
            Self::Sqlite => "SQLite",
            Self::Redb => "redb",
        }
    }

    /// Opens what is in `folder`, or makes it.
    pub(crate) fn open(self, folder: &Path) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Self::StateFs => Box::new(ours::open(folder)?),
            Self::Fjall => Box::new(fjall::Fjall::open(folder)?),
            Self::Lmdb => Box::new(lmdb::Lmdb::open(folder)?),
            Self::Sqlite => Box::new(sqlite::Sqlite::open(folder)?),
            Self::Redb => Box::new(redb::Redb::open(folder)?),
        })
    }
}

/// Runs `put(writer, round)` from a thread for each writer.
fn threads(
    writers: u64,
    rounds: usize,
    put: impl Fn(u64, usize) -> Result<()> + Sync,
) -> Result<Sample> {
    let start = Instant::now();
    let times = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for writer in 0..writers {
            let put = &put;
            running.push(scope.spawn(move || {
                let mut times = Vec::with_capacity(rounds);
                for round in 0..rounds {
                    let begun = Instant::now();
                    put(writer, round).map_err(|error| error.to_string())?;
                    times.push(begun.elapsed());
                }
                Ok::<_, String>(times)
            }));
        }
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().map_err(|_| "a writer panicked")??);
        }
        Ok::<_, Box<dyn std::error::Error>>(all)
    })?;
    Ok(Sample::new(times, start.elapsed()))
}

/// Times `get` for each key; it answers how long the value is.
fn timed(keys: &[u64], mut get: impl FnMut(&[u8]) -> Result<Option<usize>>) -> Result<Sample> {
    let start = Instant::now();
    let mut times = Vec::with_capacity(keys.len());
    for key in keys {
        let key = crate::engine::numbered(*key);
        let begun = Instant::now();
        if get(&key)?.is_none() {
            return Err("a key that was loaded is not there".into());
        }
        times.push(begun.elapsed());
    }
    Ok(Sample::new(times, start.elapsed()))
}

/// Calls `commit` with `batch` keys at a time.
fn batched(
    keys: &mut dyn Iterator<Item = u64>,
    batch: usize,
    mut commit: impl FnMut(&[Vec<u8>]) -> Result<()>,
) -> Result<()> {
    loop {
        let some: Vec<_> = keys.take(batch).map(crate::engine::numbered).collect();
        if some.is_empty() {
            return Ok(());
        }
        commit(&some)?;
    }
}
