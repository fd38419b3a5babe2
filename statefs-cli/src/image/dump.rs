//! `statefs image dump`.

use std::path::Path;

use blockdev::{BlockDevice, FileDevice, OpenOptions};
use journal::{Digest, Disk, Journal, OpenError, Options, Version};
use serde_json::{Value as Json, json};

use super::device_failure;
use super::drive::block_on;
use crate::base64;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Prints all that the volume at `path` holds, and its digest. Changes no byte.
pub(crate) fn dump(path: &Path, mut output: Output) -> Result<(), Failure> {
    let mut written = Ok(());
    let found = walk(path, |key, version, value| {
        if written.is_ok() {
            written = output.json(&line(key, version, value));
        }
    })?;
    written?;
    output.json(&json!({"digest": found.digest.to_string()}))?;
    output.finish()?;
    if found.is_whole() {
        return Ok(());
    }
    let Found { lost_count, stretch_count, .. } = found;
    let mut message = format!("{lost_count} of these values are lost");
    if stretch_count > 0 {
        let stretches = format!("; {stretch_count} stretches of the journal are, and their keys");
        message.push_str(&stretches);
    }
    Err(Failure::new("DATA_LOSS", Exit::DataLoss, message).about(path.display()))
}

/// What a volume held.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    lost_count: u64,
    stretch_count: usize,
    doubt: bool,
}

impl Found {
    /// Whether nothing that had been acknowledged is known to be lost.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost_count == 0 && self.stretch_count == 0 && !self.doubt
    }
}

/// Shows every key of the volume at `path` to `each`, with `None` for a value that is lost.
pub(crate) fn walk(
    path: &Path,
    mut each: impl FnMut(&[u8], Version, Option<&[u8]>),
) -> Result<Found, Failure> {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let device = FileDevice::open(path, options, || {});
    let mut device = device.map_err(|error| device_failure(path, &error))?;
    let disk = Disk::new(device.geometry());
    let opening = Journal::open_read_only(disk.clone(), Options::default());
    let journal = block_on(&mut device, &disk, opening).map_err(|error| unopened(path, error))?;
    let mut lost_count = 0;
    let digesting = journal::digest(&journal, |key, seen, value| {
        lost_count += u64::from(value.is_none());
        each(key, seen.version, value);
    });
    let digest = block_on(&mut device, &disk, digesting);
    let stretch_count = journal.report().lost.len();
    Ok(Found { digest, lost_count, stretch_count, doubt: journal.has_doubt() })
}

fn line(key: &[u8], version: Version, value: Option<&[u8]>) -> Json {
    let value = value.map(base64::encode);
    let version = format!("{:016x}", version.0);
    match std::str::from_utf8(key) {
        Ok(key) => json!({"key": key, "value": value, "version": version}),
        // No daemon writes such a key; a damaged or foreign volume may hold one.
        Err(_) => {
            json!({"keyBytes": base64::encode(key), "value": value, "version": version})
        }
    }
}

fn unopened(path: &Path, error: OpenError) -> Failure {
    let code = match error {
        // What the checkpoint covers cannot be read: acknowledged data is lost.
        OpenError::Checkpoint(_) => {
            return Failure::new("DATA_LOSS", Exit::DataLoss, error).about(path.display());
        }
        OpenError::Blank => "BLANK",
        OpenError::NoSuperblock => "NO_VOLUME",
        OpenError::Version(_) => "FORMAT_VERSION",
        OpenError::Shrunk { .. } | OpenError::Geometry(_) => "GEOMETRY",
        OpenError::MountsUsedUp => "MOUNTS_USED_UP",
        OpenError::Flush(_) | OpenError::Write(_) | OpenError::Replay(_) => "DEVICE",
    };
    Failure::new(code, Exit::Failure, error).about(path.display())
}
