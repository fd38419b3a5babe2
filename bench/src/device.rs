//! What the kernel counts of the device below a folder, and its cache.

use crate::Result;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Writes and flushes of a whole device since boot, whoever made them.
pub(crate) struct Writes {
    pub(crate) bytes: u64,
    pub(crate) flushes: u64,
}

impl Writes {
    /// Reads the counters of the device that holds `folder`.
    ///
    /// # Errors
    /// The kernel does not count there, as on file systems without a device of their own.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let device = std::fs::metadata(folder)?.dev();
        let (major, minor) = (device >> 8 & 0xfff, device & 0xff);
        let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
        let field = |at: usize| -> Result<u64> {
            Ok(stat.split_whitespace().nth(at).ok_or("the kernel counts no flushes")?.parse()?)
        };
        // Sectors of 512 bytes, and flushes: Documentation/block/stat.rst of Linux.
        Ok(Self { bytes: field(6)? * 512, flushes: field(15)? })
    }
}

/// Yields the bytes of memory that this process has for itself; the pages of files that it maps are not among them.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn own_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 =
        line.ok_or("the kernel tells no RssAnon")?.trim_matches([' ', '\t', 'k', 'B']).parse()?;
    Ok(kib << 10)
}

/// Yields the bytes that the files below `folder` take on their device.
///
/// # Errors
/// A file cannot be looked at.
pub(crate) fn space_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        // An engine may delete a file meanwhile.
        let Ok(metadata) = entry.as_ref().map_err(drop).and_then(|it| it.metadata().map_err(drop))
        else {
            continue;
        };
        bytes +=
            if metadata.is_dir() { space_of(&entry?.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Makes the kernel forget what it holds of files.
///
/// # Errors
/// Only root may.
pub(crate) fn drop_caches() -> Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "3")
        .map_err(|error| format!("dropping the caches takes root: {error}").into())
}
