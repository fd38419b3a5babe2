//! The log of QEMU's `blklogwrites`: every write and flush of a machine, in order, from which the images are
//! made that power cuts could have left. Its format is that of Linux's dm-log-writes.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Bytes at a place.
    Write {
        /// Where, in bytes.
        offset: usize,
        /// What.
        data: Vec<u8>,
    },
    /// Everything before is on the medium.
    Flush,
}

/// A log, and how long it was at each entry's end.
#[derive(Clone, Debug)]
pub struct Log {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Bytes of the log up to the end of each.
    pub ends: Vec<u64>,
}

/// Describes the file at `path` as QEMU's disk, with all its writes logged at `log`.
///
/// # Errors
/// The log cannot be made.
pub fn logged(path: &Path, log: &Path) -> Result<Value, Failure> {
    fs::write(log, []).map_err(Failure::io(log.display().to_string()))?;
    Ok(json!({
        "driver": "blklogwrites",
        "node-name": "disk",
        "file": {"driver": "file", "filename": path},
        "log": {"driver": "file", "filename": log},
    }))
}

impl Log {
    /// Reads the log at `path`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(Failure::io(path.display().to_string()))?;
        Self::parse(&bytes).ok_or(Failure::Image { what: "has no log of its writes".into() })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if number(0)? != MAGIC || number(8)? != VERSION {
            return None;
        }
        let sector = u32::from_le_bytes(*bytes.get(24..)?.first_chunk()?) as usize;
        let (mut entries, mut ends, mut at) = (Vec::new(), Vec::new(), sector);
        // The count in the head is that of the last flush; what lies behind it counts as well.
        while sector > 0 && at + sector <= bytes.len() {
            let place = usize::try_from(number(at)?).ok()?.checked_mul(sector)?;
            let data_bytes = usize::try_from(number(at + 8)?).ok()?.checked_mul(sector)?;
            let flags = number(at + 16)?;
            at += sector;
            if data_bytes > 0 {
                let data = bytes.get(at..at + data_bytes)?.to_vec();
                at += data_bytes;
                entries.push(Entry::Write { offset: place, data });
                ends.push(at as u64);
            }
            if flags & FLUSH != 0 {
                entries.push(Entry::Flush);
                ends.push(at as u64);
            }
        }
        Some(Self { entries, ends })
    }

    /// Yields the image after the first `count` entries, on top of `base`, where of each write since the last flush only
    /// those sectors arrived that `arrives` says.
    #[must_use]
    pub fn image(
        &self,
        base: &[u8],
        count: usize,
        mut arrives: impl FnMut(usize, usize) -> bool,
    ) -> Vec<u8> {
        let mut image = base.to_vec();
        let entries = self.entries.get(..count).unwrap_or(&self.entries);
        let flushed = entries.iter().rposition(|entry| *entry == Entry::Flush).unwrap_or(0);
        for (index, entry) in entries.iter().enumerate() {
            let Entry::Write { offset, data } = entry else {
                continue;
            };
            for (sector, part) in data.chunks(SECTOR_BYTES).enumerate() {
                let place = offset + sector * SECTOR_BYTES;
                if (index < flushed || arrives(index, sector))
                    && let Some(place) = image.get_mut(place..place + part.len())
                {
                    place.copy_from_slice(part);
                }
            }
        }
        image
    }

    /// Lists the writes since the last flush among the first `count` entries.
    #[must_use]
    pub fn unflushed(&self, count: usize) -> Vec<usize> {
        let entries = self.entries.get(..count).unwrap_or(&self.entries);
        let flushed = entries.iter().rposition(|entry| *entry == Entry::Flush).unwrap_or(0);
        (flushed..entries.len()).filter(|at| entries.get(*at) != Some(&Entry::Flush)).collect()
    }
}

/// What a power cut leaves whole.
const SECTOR_BYTES: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let write = |offset, byte| Entry::Write { offset, data: vec![byte; 1024] };
        let entries = vec![write(0, 1), Entry::Flush, write(1024, 2)];
        let log = Log { entries, ends: vec![0; 3] };
        assert_eq!(log.unflushed(2), [0; 0]);
        assert_eq!(log.unflushed(3), [2]);
        let image = log.image(&[0; 2048], 3, |index, sector| (index, sector) == (2, 1));
        let expected = [vec![1; 1024], vec![0; 512], vec![2; 512]].concat();
        assert_eq!(image, expected);
        assert_eq!(log.image(&[0; 2048], 0, |_, _| true), [0; 2048]);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert!(Log::parse(&[]).is_none());
        assert!(Log::parse(&[0; 4096]).is_none());
    }
}
