//! Values of any size as streams of bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, SeekFrom};
use std::rc::Rc;
use std::vec::Vec;

use super::line::Connection;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::stream;
use crate::types::Metadata;
use crate::version::Version;

/// Parts on their way at a time: enough that neither side waits, and half of what a connection may
/// have in flight.
const WINDOW: usize = 16;

/// One value on its way in; [`Writer::finish`] makes it visible. Dropping it abandons the value.
pub struct Writer {
    connection: Rc<Connection>,
    calls: stream::Writer,
    buffer: Vec<u8>,
    window: VecDeque<Call<()>>,
    /// Bytes of the longest part that the daemon takes, once it was asked.
    part_bytes: Option<usize>,
    /// Why there can be no end any more.
    failed: Option<Error>,
}

impl Writer {
    pub(super) fn new(connection: Rc<Connection>, calls: stream::Writer) -> Self {
        let (buffer, window) = (Vec::new(), VecDeque::new());
        Self { connection, calls, buffer, window, part_bytes: None, failed: None }
    }

    /// Ends the value, makes it that of its key and yields its version.
    ///
    /// Durability: that which the writer was asked for with, when this returns.
    ///
    /// # Errors
    /// What [`super::Directory::put_with`] may answer. [`Error::Indeterminate`] alone leaves open
    /// whether it was written.
    pub fn finish(mut self) -> Result<Version> {
        self.drain()?;
        let Self { connection, calls, .. } = self;
        connection.link.call(|| calls.done())
    }

    /// Sends all that is buffered, and waits until it was taken.
    fn drain(&mut self) -> Result<()> {
        self.send()?;
        while !self.window.is_empty() {
            self.wait_first()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        while self.window.len() >= WINDOW {
            self.wait_first()?;
        }
        self.window.push_back(self.calls.write(&self.buffer));
        self.buffer.clear();
        Ok(())
    }

    /// Yields how long a part may be: on a small volume less than usual.
    fn part_bytes(&mut self) -> Result<usize> {
        if let Some(bytes) = self.part_bytes {
            return Ok(bytes);
        }
        let hello = self.connection.link.call(|| self.connection.store.hello(super::NAME))?;
        let bytes = match usize::try_from(hello.limits.value_bytes) {
            Ok(bytes @ 1..PART_BYTES) => bytes,
            // As much as usual, or not told.
            _ => PART_BYTES,
        };
        Ok(*self.part_bytes.insert(bytes))
    }

    fn wait_first(&mut self) -> Result<()> {
        let Some(call) = self.window.pop_front() else {
            return Ok(());
        };
        let taken = self.connection.link.wait(call);
        self.failed = taken.clone().err();
        taken
    }
}

/// Without a byte of the value.
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = f.debug_struct("Writer");
        writer.field("buffered_bytes", &self.buffer.len()).field("failed", &self.failed);
        writer.finish_non_exhaustive()
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.part_bytes().map_err(io::Error::other)?;
        if self.buffer.len() >= most {
            self.send().map_err(io::Error::other)?;
        }
        let taken = bytes.len().min(most - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    /// Waits until the daemon has taken all that was written. Nothing of it is visible yet.
    fn flush(&mut self) -> io::Result<()> {
        self.drain().map_err(io::Error::other)
    }
}

/// One value on its way out. What it reads is of one version: once the key was written or deleted,
/// it fails with [`Error::Changed`].
pub struct Reader {
    connection: Rc<Connection>,
    calls: stream::Reader,
    metadata: Metadata,
    at: u64,
    /// What was read ahead of `at`.
    part: Vec<u8>,
    used: usize,
}

/// Without a byte of the value.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = f.debug_struct("Reader");
        reader.field("metadata", &self.metadata).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(
        connection: Rc<Connection>,
        calls: stream::Reader,
        metadata: Metadata,
    ) -> Self {
        Self { connection, calls, metadata, at: 0, part: Vec::new(), used: 0 }
    }

    /// Yields version and size of the value.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    fn ahead(&self) -> &[u8] {
        self.part.get(self.used..).unwrap_or_default()
    }
}

impl io::Read for Reader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.ahead().is_empty() && self.at < self.metadata.bytes && !bytes.is_empty() {
            let part = self.connection.link.call(|| self.calls.read(self.at, 0));
            self.part = part.map_err(io::Error::other)?;
            self.used = 0;
            // No more than it said that there is, whatever it sends.
            let left = usize::try_from(self.metadata.bytes - self.at).unwrap_or(usize::MAX);
            self.part.truncate(left);
            if self.part.is_empty() {
                // Less than it said that there is: cut short, not at its end.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let ahead = self.ahead();
        let count = ahead.len().min(bytes.len());
        let (from, to) = (ahead.get(..count), bytes.get_mut(..count));
        to.unwrap_or_default().copy_from_slice(from.unwrap_or_default());
        self.used += count;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => self.metadata.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        (self.part, self.used) = (Vec::new(), 0);
        Ok(self.at)
    }
}

/// Bytes of one part that are always taken, and never more than one reply holds.
const PART_BYTES: usize = 64 << 10;
