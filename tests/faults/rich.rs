//! A small volume with everything in it: overwrites, deletes, batches, a checkpoint, a cleaning, a repaired tail.

use super::bench::{BLOCK_BYTES, Bench, Change, Store, fates, on};
use crate::drive::Task;
use blockdev::Fate;
use journal::{Plants, Stats};
use std::collections::BTreeMap;

/// Keys and values.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The volume: its bytes now and at earlier moments, and what it must answer.
pub struct Rich {
    /// The bytes of the device, all of it acknowledged.
    pub image: Vec<u8>,
    /// The bytes at earlier moments, the last first.
    pub older: Vec<Vec<u8>>,
    /// What it holds.
    pub map: Map,
    /// Every value that a key ever had.
    pub ever: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// The two blocks of the last group.
    pub last: [usize; 2],
    /// Checkpoints written and segments cleaned on the way.
    pub checkpoints: u64,
    /// Segments cleaned on the way.
    pub cleaned: u64,
}

/// Every key that the history ever writes.
pub fn keys() -> Vec<Vec<u8>> {
    (0..17_u8).map(|n| vec![b'/', b'a' + n]).collect()
}

/// How long the history is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// Few commits: all of it lies in the log, in the uses of two mounts.
    Young,
    /// Many: checkpoints and cleanings lie behind it.
    Old,
    /// As many, and a checkpoint at their end: values lie where no log leads to.
    Settled,
}

/// Plays the history.
///
/// # Errors
/// The store breaks a promise on the way.
pub fn rich(plants: Plants, age: Age) -> Result<Rich, String> {
    let mut bench = Bench::new(plants);
    let mut rich = Rich {
        image: Vec::new(),
        older: Vec::new(),
        map: Map::new(),
        ever: BTreeMap::new(),
        last: [0; 2],
        checkpoints: 0,
        cleaned: 0,
    };
    let mut step = 0;
    let (rounds, steps, older) = match age {
        Age::Young => (2, 9, 6),
        Age::Old | Age::Settled => (3, 60, 32),
    };
    for round in 0..rounds {
        let mut store = bench.open_whole()?;
        for _ in 0..steps {
            step += 1;
            rich.change(&mut bench, &mut store, step)?;
            if step % older == 0 {
                rich.older.insert(0, bench.device.durable().to_vec());
            }
        }
        bench.idle(&mut store)?;
        rich.count(&store.journal.stats());
        if round + 2 == rounds {
            rich.tear(&mut bench, &mut store)?;
        }
        if age == Age::Settled && round + 1 == rounds {
            let journal = store.journal.clone();
            let checkpoint: Task<_> = Box::pin(async move { journal.checkpoint().await });
            let written = bench.drive(&mut store, checkpoint, &mut on)?.ok_or("cut")?;
            written.map_err(|error| format!("no checkpoint: {error}"))?;
        }
    }
    let mut store = bench.open_whole()?;
    let value = b"the last group";
    let places = bench.put(&mut store, b"/h", value)?;
    rich.holds(b"/h", value);
    for (block, place) in rich.last.iter_mut().zip(places) {
        *block = usize::try_from(place).unwrap_or(0) / BLOCK_BYTES;
    }
    bench.idle(&mut store)?;
    rich.count(&store.journal.stats());
    rich.image = bench.device.durable().to_vec();
    Ok(rich)
}

impl Rich {
    fn count(&mut self, stats: &Stats) {
        self.checkpoints += stats.checkpoints;
        self.cleaned += stats.cleaned;
    }

    fn change(&mut self, bench: &mut Bench, store: &mut Store, step: u32) -> Result<(), String> {
        // Keys from 8 on are seldom written, so that each stays behind in an old segment until that is cleaned.
        let key = |n: u32| vec![b'/', b'a' + u8::try_from(n).unwrap_or(0)];
        let value = |bytes: u32| (0..bytes).map(|n| (n * 7 + step) as u8).collect::<Vec<u8>>();
        match step {
            // Two chunks and a manifest. Once where the log shall stay short.
            _ if step.is_multiple_of(8) && step != 16 => {
                let value = value(870);
                self.write(bench, store, &[(b"/q", None)])?;
                bench.upload(store, b"/q", &value)?;
                self.holds(b"/q", &value);
                Ok(())
            }
            _ if step.is_multiple_of(5) => {
                self.write(bench, store, &[(&key(8 + step / 5 % 8), Some(&value(40)))])
            }
            _ if step.is_multiple_of(9) => self.write(bench, store, &[(&key(step % 6), None)]),
            _ if step.is_multiple_of(7) => {
                let (one, two) = (key(step % 6), key((step + 1) % 6));
                let (first, second) = (value(30), value(60));
                self.write(bench, store, &[(&one, Some(&first)), (&two, Some(&second))])
            }
            _ => {
                let bytes = [20, 400, 50, 40][step as usize % 4];
                self.write(bench, store, &[(&key(step % 6), Some(&value(bytes)))])
            }
        }
    }

    fn write(
        &mut self,
        bench: &mut Bench,
        store: &mut Store,
        changes: &[Change<'_>],
    ) -> Result<(), String> {
        bench.commit(store, changes)?;
        for (key, value) in changes {
            match value {
                Some(value) => self.holds(key, value),
                None => drop(self.map.remove(*key)),
            }
        }
        Ok(())
    }

    /// Leaves a group of which copy A alone survives: the next mount shows it, and so repairs it.
    fn tear(&mut self, bench: &mut Bench, store: &mut Store) -> Result<(), String> {
        let value = b"in copy A alone";
        let places = bench.leave_in_flight(store, &[(b"/g", value)])?;
        // The superblock may be on its way too; it stays as it was.
        if places.len() < 2 {
            return Err(format!("one block in each copy, not {places:?}"));
        }
        bench.device.power_cut_choosing(fates(&[Fate::New, Fate::Old]));
        self.holds(b"/g", value);
        Ok(())
    }

    fn holds(&mut self, key: &[u8], value: &[u8]) {
        self.map.insert(key.to_vec(), value.to_vec());
        self.ever.entry(key.to_vec()).or_default().push(value.to_vec());
    }

    /// Yields the number of blocks of the image.
    pub fn blocks(&self) -> usize {
        self.image.len() / BLOCK_BYTES
    }
}
