//! A file or a Linux block device, served by the kernel's queue or by three helper threads.
//!
//! With direct I/O requests go into a ring of the kernel (`uring.rs`), where it gives one to the process: no thread has to be
//! woken for a lone commit. Elsewhere this module owns everything that blocks: two threads take writes and flushes in
//! the order of submission, a third takes reads. Either way the two copies of a commit group are written side by side, and a
//! read never waits for a flush, but for one that follows a flush of less than half a millisecond: the ring's owner makes
//! it itself, within [`BlockDevice::completion`], because that mostly takes less time than to wake a thread and be woken.

mod holder;
mod lanes;
mod medium;
mod open;

use std::boxed::Box;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use holder::Holder;
pub(crate) use medium::sync;
pub use open::{Action, OpenError, OpenOptions};

use crate::uring::Ring;
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
/// Dropping the device waits for what its threads or the kernel are doing and abandons what they have not
/// begun; no completion tells of either.
pub struct FileDevice {
    server: Server,
    geometry: Geometry,
    direct: bool,
}

/// Who serves.
enum Server {
    /// The ring goes before the file, so that nothing holds the file once the device has been dropped.
    Ring(Box<Ring>, #[expect(dead_code, reason = "it keeps the file open, and locked")] FileMedium),
    Threads(Lanes<FileMedium>),
}

impl FileDevice {
    /// Yields the device at `path`.
    ///
    /// `wake` is called whenever a completion becomes ready, from a helper thread or from within
    /// [`BlockDevice::submit`], so that an event loop can be told; where there is a [`FileDevice::ready`], that tells
    /// of all others. It must not block, and calls may outnumber what [`BlockDevice::completion`] then finds.
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
        Self::start(open::open(path.as_ref(), options)?, options, wake)
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
        Self::start(open::create(path.as_ref(), device_bytes)?, OpenOptions::default(), wake)
    }

    /// Yields the folder of `/sys` in which Linux tells of the block device at `path`, which [`FileDevice::open`] reads; `None` for
    /// anything else. For a process that gives up all other files before it opens the device.
    #[must_use]
    pub fn description(path: impl AsRef<Path>) -> Option<PathBuf> {
        let device = fs::metadata(path).ok().filter(|found| found.file_type().is_block_device())?;
        // A link to where it is.
        fs::canonicalize(open::description(&device)).ok()
    }

    /// Waits for one request to finish and hands it out; `None` when none is in flight.
    ///
    /// For tools that have nothing else to do; a driver waits for its wake-up instead.
    pub fn completion_blocking(&mut self) -> Option<Completion> {
        match &mut self.server {
            Server::Ring(ring, _) => ring.completion_blocking(),
            Server::Threads(lanes) => lanes.completion_blocking(),
        }
    }

    /// Whether requests bypass the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// The descriptor that becomes readable when completions become ready, for an event loop; `None` where helper
    /// threads serve, whose completions `wake` tells of.
    pub fn ready(&self) -> Option<BorrowedFd<'_>> {
        match &self.server {
            Server::Ring(ring, _) => Some(ring.ready()),
            Server::Threads(_) => None,
        }
    }

    fn start(
        opened: open::Opened,
        options: OpenOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let open::Opened { medium, geometry } = opened;
        let (direct, wake) = (medium.direct(), Arc::new(wake));
        let woken = || {
            let wake = wake.clone();
            Box::new(move || wake())
        };
        // Without direct I/O a request may wait for the page cache within the call that submits it.
        let ring = if direct && !options.threads {
            Ring::start(medium.file(), medium.writable(), woken()).ok()
        } else {
            None
        };
        let server = match ring {
            Some(ring) => Server::Ring(Box::new(ring), medium),
            None => Server::Threads(
                Lanes::start(medium, woken())
                    .map_err(|error| OpenError::io(Action::Start, &error))?,
            ),
        };
        Ok(Self { server, geometry, direct })
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) {
        match (&mut self.server, self.geometry.range(&request)) {
            (Server::Ring(ring, _), Ok(_)) => ring.submit(request),
            (Server::Ring(ring, _), Err(error)) => ring.answer(request, Err(error)),
            (Server::Threads(lanes), Ok(_)) => lanes.submit(request),
            (Server::Threads(lanes), Err(error)) => lanes.refuse(request, error),
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        match &mut self.server {
            Server::Ring(ring, _) => ring.completion(),
            Server::Threads(lanes) => lanes.completion(),
        }
    }
}

#[cfg(test)]
mod tests;
