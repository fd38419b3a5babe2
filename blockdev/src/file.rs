//! A file or a Linux block device, served by three helper threads.
//!
//! This module owns everything that blocks: two threads take writes and flushes in the order of
//! submission, a third takes reads, so that a read never waits for a flush and the two copies of
//! a commit group are written side by side.

mod holder;
mod lanes;
mod medium;
mod open;

use std::boxed::Box;
use std::path::Path;

pub use holder::Holder;
pub use open::{Action, OpenError, OpenOptions};

use crate::{BlockDevice, Completion, Geometry, Request};
use lanes::Lanes;
use medium::FileMedium;

/// A regular file or a Linux block device, held under an exclusive lock while it is open.
///
/// Direct I/O is used where the file system takes it ([`FileDevice::direct`]). Elsewhere requests
/// go through the page cache, which is dropped after every flush so that later reads come from
/// the medium; that is advice to the kernel, so there a read may still be answered by the cache
/// although the medium has gone bad.
///
/// A failed flush is final: the kernel reports a lost write once and then calls the pages clean,
/// so every later flush of this device fails too, until the device is opened again.
///
/// Dropping the device waits for what its threads are doing and abandons what they have not
/// begun; no completion tells of either.
pub struct FileDevice {
    lanes: Lanes<FileMedium>,
    geometry: Geometry,
    direct: bool,
}

impl FileDevice {
    /// Yields the device at `path`.
    ///
    /// `wake` is called whenever a completion becomes ready, from a helper thread or from within
    /// [`BlockDevice::submit`], so that an event loop can be told. It must not block, and calls
    /// may outnumber what [`BlockDevice::completion`] then finds.
    ///
    /// A file whose length is no multiple of the sector is used up to its last whole sector.
    ///
    /// # Errors
    /// [`OpenError::Busy`] while another opener holds the device; the others by what `path` is.
    pub fn open(
        path: impl AsRef<Path>,
        options: OpenOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::start(open::open(path.as_ref(), options)?, Box::new(wake))
    }

    /// Makes a new file of `device_bytes` zero bytes at `path`, and yields it as a device.
    ///
    /// The zeros are written, not only reserved: a write into a hole or an unwritten extent makes
    /// the next flush commit the file system's metadata too, which costs half as much again. Only
    /// the owner may read the file: it will hold keys.
    ///
    /// Durability: when this returns, the file and its name survive a power cut.
    ///
    /// # Errors
    /// [`OpenError::Exists`] if anything is at `path`; [`OpenError::Size`] if `device_bytes` is
    /// not a positive multiple of 4096. After any other error the partial file has been removed.
    pub fn create(
        path: impl AsRef<Path>,
        device_bytes: u64,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::start(open::create(path.as_ref(), device_bytes)?, Box::new(wake))
    }

    /// Waits for one request to finish and hands it out; `None` when none is in flight.
    ///
    /// For tools that have nothing else to do; a driver waits for its wake-up instead.
    pub fn completion_blocking(&mut self) -> Option<Completion> {
        self.lanes.completion_blocking()
    }

    /// Whether requests bypass the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    fn start(opened: open::Opened, wake: Box<lanes::Wake>) -> Result<Self, OpenError> {
        let direct = opened.medium.direct();
        let lanes = Lanes::start(opened.medium, wake)
            .map_err(|error| OpenError::io(Action::Start, &error))?;
        Ok(Self { lanes, geometry: opened.geometry, direct })
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) {
        match self.geometry.range(&request) {
            Ok(_) => self.lanes.submit(request),
            Err(error) => self.lanes.refuse(request, error),
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        self.lanes.completion()
    }
}

#[cfg(test)]
mod tests;
