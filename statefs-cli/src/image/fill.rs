//! Filling a fresh volume through the journal's own commits.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice, FileDevice, OpenOptions};
use journal::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Journal, Operation, Options,
    Origin, Precondition, Upload, VolumeGeometry, record_bytes,
};

use super::format::{make_new, random};
use super::{device_failure, part};
use crate::failure::{Exit, Failure};

/// Turns without an end after which a commit counts as hanging: far beyond what one takes.
const TURNS_MAX: u32 = 1 << 20;
/// Bytes of records that go into one commit, where the volume takes as many.
const BATCH_BYTES: usize = 64 << 10;
/// Most changes of one commit.
const BATCH_KEYS_MAX: usize = 128;

/// A new volume that takes keys. It has its name from [`Fill::finish`] on: one that was cut off
/// before, by a signal or with the power, verifies and would be taken for the whole.
pub(crate) struct Fill {
    path: PathBuf,
    /// Where it is until then; it is removed again if there is a failure.
    part: PathBuf,
    device: FileDevice,
    disk: Disk,
    journal: Journal,
    geometry: VolumeGeometry,
    writer: Pin<Box<dyn Future<Output = ()>>>,
    waiting: Vec<Operation>,
    waiting_bytes: usize,
    done: bool,
}

impl Fill {
    /// Makes a volume of `size` bytes in a new file at `path`.
    pub(crate) fn create(path: &Path, size: u64, options: FormatOptions) -> Result<Self, Failure> {
        let part = part::begin(path)?;
        make_new(&part, path, size, options)?;
        Self::take(part, path)
    }

    /// Takes the volume that was made at `part`, and leaves none there if it cannot be opened.
    fn take(part: PathBuf, path: &Path) -> Result<Self, Failure> {
        // The failure that is told is the first.
        let opened = open(&part, path).inspect_err(|_| fs::remove_file(&part).unwrap_or_default());
        let (device, disk, journal) = opened?;
        let geometry = journal.stats().geometry;
        let writer = Box::pin(journal.run());
        let (waiting, waiting_bytes, done) = (Vec::new(), 0, false);
        let path = path.to_path_buf();
        Ok(Self {
            path,
            part,
            device,
            disk,
            journal,
            geometry,
            writer,
            waiting,
            waiting_bytes,
            done,
        })
    }

    /// Puts a key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        if value.len() > self.geometry.value_bytes_max() {
            // A small volume takes in parts what others take at once.
            let mut upload = self.begin();
            self.append(&mut upload, value)?;
            return self.end(upload, key);
        }
        let bytes = record_bytes(key.len(), value.len());
        let bytes_max = BATCH_BYTES.min(self.geometry.records_bytes_max());
        if self.waiting.len() >= BATCH_KEYS_MAX || self.waiting_bytes + bytes > bytes_max {
            self.commit()?;
        }
        self.waiting_bytes += bytes;
        self.waiting.push(Operation {
            key: key.into(),
            value: Some(value.into()),
            precondition: Precondition::Any,
        });
        Ok(())
    }

    /// Begins a large value, to be given to [`Fill::append`] and [`Fill::end`].
    pub(crate) fn begin(&self) -> Upload {
        self.journal.upload(Origin(0))
    }

    /// Adds to a large value.
    pub(crate) fn append(&mut self, upload: &mut Upload, bytes: &[u8]) -> Result<(), Failure> {
        let appending = upload.append(bytes);
        self.end_of(appending)
    }

    /// Gives a key its large value.
    pub(crate) fn end(&mut self, upload: Upload, key: &[u8]) -> Result<(), Failure> {
        let committing = upload.commit(key.into(), Precondition::Any, Durability::Durable);
        self.end_of(committing)
    }

    /// Ends the volume, and gives it its name. Durability: when this returns, both and all that was
    /// put survive a power cut, and damage to any of it is told.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.commit()?;
        // It may be long until anything follows the last commit. If nothing vouched for that, the
        // loss of both its copies would pass for a torn write, and what it held for never put.
        let journal = self.journal.clone();
        self.end_of(journal.seal())?;
        part::end(&self.part, &self.path)?;
        self.done = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.waiting_bytes = 0;
        let operations = std::mem::take(&mut self.waiting);
        let batch = Batch { operations, durability: Durability::Durable, origin: Origin(0) };
        let committing = self.journal.commit(batch);
        self.end_of(committing)
    }

    fn end_of<T>(
        &mut self,
        writing: impl Future<Output = Result<T, CommitError>>,
    ) -> Result<(), Failure> {
        let committed = self.drive(writing).ok_or_else(|| {
            Failure::new("INTERNAL", Exit::Failure, "the journal does not end a commit")
        })?;
        committed.map(drop).map_err(|error| {
            let exit = match error {
                CommitError::NoSpace => Exit::Full,
                _ => Exit::Failure,
            };
            let code = if exit == Exit::Full { "TOO_SMALL" } else { "DEVICE" };
            Failure::new(code, exit, error).about(self.path.display())
        })
    }

    /// Runs what waits for the task that writes, beside it.
    fn drive<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            // It ends only after a failure, which the commit tells.
            let _ = self.writer.as_mut().poll(&mut context);
            while let Some(request) = self.disk.next_request() {
                self.device.submit(request);
            }
            if let Some(completion) = self.device.completion_blocking() {
                self.disk.complete(completion);
            }
        }
        None
    }
}

/// Opens the volume at `part`; failures name `path`.
fn open(part: &Path, path: &Path) -> Result<(FileDevice, Disk, Journal), Failure> {
    let device = FileDevice::open(part, OpenOptions::default(), || {});
    let mut device = device.map_err(|error| device_failure(path, &error))?;
    let disk = Disk::new(device.geometry());
    let opening = Journal::open(disk.clone(), random()?, Clock::default(), Options::default());
    let opened = super::drive::block_on(&mut device, &disk, opening);
    let journal = opened
        .map_err(|error| Failure::new("DEVICE", Exit::Failure, error).about(path.display()))?;
    Ok((device, disk, journal))
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.done {
            // The failure that is told is the first.
            fs::remove_file(&self.part).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_its_name_when_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("statefs-fill-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, part) = (folder.join("x.img"), folder.join("x.img.part"));
        let create = || Fill::create(&path, 1 << 20, FormatOptions::default());
        let mut fill = create().expect("a volume");
        fill.put(b"/state/a", b"value").expect("room");
        fill.commit().expect("room");
        assert!(part.exists() && !path.exists(), "a kill here leaves nothing under the name");
        assert_eq!(create().err().map(|failure| failure.code), Some("EXISTS"));
        drop(fill);
        assert!(!part.exists() && !path.exists(), "a failure leaves nothing at all");
        make_new(&part, &path, 1 << 20, FormatOptions::default()).expect("a volume");
        fs::write(&part, vec![0; 1 << 20]).expect("zeros");
        assert!(Fill::take(part.clone(), &path).is_err(), "there is no volume any more");
        assert!(!part.exists() && !path.exists(), "nor does that leave anything");
        create().expect("a volume").finish().expect("it is named");
        assert!(!part.exists() && path.exists());
        assert_eq!(create().err().map(|failure| failure.code), Some("EXISTS"));
        fs::remove_dir_all(&folder).expect("the folder");
    }
}
