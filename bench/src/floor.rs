//! What the device itself takes.

use crate::{Result, Sample};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Blocks of the file.
const BLOCKS: u64 = 1024;
const BLOCK_BYTES: usize = 4096;
/// Writes of the floor by itself.
const WRITES: usize = 300;
/// Turns that a measurement and the floor take beside each other.
const TURNS: usize = 12;

/// A file of zeros, written block by block, each with its own `fdatasync`.
pub(crate) struct Floor {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Floor {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("floor");
        fs::write(&path, vec![0; BLOCK_BYTES * usize::try_from(BLOCKS)?])?;
        let file = File::options().write(true).open(&path)?;
        file.sync_all()?;
        Ok(Self { path, file, written: 0 })
    }

    /// Measures the floor by itself.
    pub(crate) fn alone(&mut self) -> Result<Sample> {
        self.some(WRITES)
    }

    /// Measures `count` operations, some at a time, and the floor as often in turn, so that both meet the same neighbours.
    ///
    /// `some` is told how many to make, one after another.
    pub(crate) fn beside(
        &mut self,
        count: usize,
        mut some: impl FnMut(usize) -> Result<Sample>,
    ) -> Result<Beside> {
        let (mut sample, mut floor) = (Sample::none(), Sample::none());
        for _ in 0..TURNS {
            floor.add(self.some(WRITES / TURNS)?);
            sample.add(some(count / TURNS)?);
        }
        Ok(Beside { sample, floor })
    }

    fn some(&mut self, count: usize) -> Result<Sample> {
        let block = [7; BLOCK_BYTES];
        let start = Instant::now();
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            self.file.write_all_at(&block, self.written % BLOCKS * BLOCK_BYTES as u64)?;
            self.file.sync_data()?;
            times.push(begun.elapsed());
            self.written += 1;
        }
        Ok(Sample::new(times, start.elapsed()))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What was measured, and the floor that was measured in turn with it.
pub(crate) struct Beside {
    pub(crate) sample: Sample,
    pub(crate) floor: Sample,
}

impl Beside {
    /// Yields the median in floors.
    pub(crate) fn floors(&self) -> f64 {
        self.sample.p50() / self.floor.p50()
    }

    /// Yields operations a second, times the floor: the floor's own rate is about 1.
    pub(crate) fn rates(&self) -> f64 {
        self.sample.per_second() * self.floor.p50() / 1e6
    }
}
