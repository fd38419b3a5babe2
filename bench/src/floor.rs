//! What the device itself takes.

use crate::{Result, Sample};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// Blocks of the file.
const BLOCKS: u64 = 1024;
const BLOCK_BYTES: usize = 4096;
const WRITES: u64 = 300;

/// Writes blocks one by one into a file of zeros, each with its own `fdatasync`.
pub(crate) fn measure(folder: &Path) -> Result<Sample> {
    let path = folder.join("floor");
    fs::write(&path, vec![0; BLOCK_BYTES * usize::try_from(BLOCKS)?])?;
    let file = File::options().write(true).open(&path)?;
    file.sync_all()?;
    let block = [7; BLOCK_BYTES];
    let start = Instant::now();
    let mut times = Vec::new();
    for n in 0..WRITES {
        let begun = Instant::now();
        file.write_all_at(&block, n % BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    let sample = Sample::new(times, start.elapsed());
    fs::remove_file(&path)?;
    Ok(sample)
}
