//! The seam between the journal and storage: requests that own their buffers, and what every
//! device promises about them.
//!
//! This crate owns [`BlockDevice`] and its implementations. It knows nothing of volumes, groups
//! or keys; the journal knows nothing of files, rings or sectors in flight.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(feature = "file")]
extern crate std;

mod buffer;
mod counting;
#[cfg(feature = "file")]
mod file;
mod memory;
#[cfg(feature = "sim")]
mod sim;
#[cfg(feature = "file")]
mod uring;
#[cfg(feature = "virtio")]
pub mod virtio;

#[cfg(test)]
mod conformance;

use core::ops::Range;

pub use buffer::{ALIGNMENT_BYTES, Buffer};
pub use counting::{Counting, Counts, Event, unprotected_writes};
#[cfg(feature = "file")]
pub use file::{Action, FileDevice, Holder, OpenError, OpenOptions};
pub use memory::MemoryDevice;
#[cfg(feature = "sim")]
pub use sim::{
    Cure, Damage, Fate, FateWeights, Fault, FaultKind, Repeat, Risk, SimConfig, SimDevice,
};

/// Names a request until its completion comes back; unique among the requests in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// What a [`Request`] asks of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Fill the buffer from the device, starting `offset` bytes from its beginning.
    Read {
        /// Bytes from the start of the device; a multiple of the sector.
        offset: u64,
    },
    /// Put the buffer on the device, starting `offset` bytes from its beginning.
    Write {
        /// Bytes from the start of the device; a multiple of the sector.
        offset: u64,
    },
    /// Make every write that completed before this request was submitted survive a power cut.
    Flush,
}

/// One operation on its way to a device, with the buffer that it reads into or writes from.
#[derive(Clone, Debug)]
pub struct Request {
    /// Returned with the completion.
    pub id: RequestId,
    /// What to do.
    pub operation: Operation,
    /// Owned by the device until the completion gives it back; empty for a flush.
    pub buffer: Buffer,
}

/// The end of one request.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The request that ended.
    pub id: RequestId,
    /// The request's buffer; after a failed read its content means nothing.
    pub buffer: Buffer,
    /// Whether it was done.
    pub result: Result<(), DeviceError>,
}

/// Why a device did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// The device reported a failure. For a write, any of its sectors may hold the old bytes, the
    /// new ones or neither; for a flush, nothing may be assumed of any write since the last
    /// successful flush, not even after a later flush succeeds.
    Io {
        /// The operating system's error number, or 0 where there is none.
        code: i32,
    },
    /// The request leaves the device, or is not aligned to its sector.
    OutOfRange,
}

impl core::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io { code: 0 } => f.write_str("the device reported a failure"),
            Self::Io { code } => write!(f, "the device reported error {code}"),
            Self::OutOfRange => f.write_str("the request leaves the device or is not aligned"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// The shape of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Smallest unit of a request, in bytes: a power of two, 512 to 4096.
    pub sector_bytes: u32,
    /// Smallest unit that a power cut may tear, in bytes: a power of two, at least the sector.
    pub physical_bytes: u32,
    /// Size of the device in bytes; a multiple of the sector.
    pub device_bytes: u64,
}

impl Geometry {
    /// Whether the fields keep the limits that their comments name.
    pub fn is_valid(&self) -> bool {
        self.sector_bytes.is_power_of_two()
            && (SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&self.sector_bytes)
            && self.physical_bytes.is_power_of_two()
            && self.physical_bytes >= self.sector_bytes
            && self.device_bytes.is_multiple_of(u64::from(self.sector_bytes))
    }

    /// Yields the bytes of the device that `request` touches; for a flush, none.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if the request leaves the device or is not aligned to its sector.
    pub fn range(&self, request: &Request) -> Result<Range<u64>, DeviceError> {
        let (Operation::Read { offset } | Operation::Write { offset }) = request.operation else {
            return Ok(0..0);
        };
        let sector = u64::from(self.sector_bytes);
        let end = u64::try_from(request.buffer.len())
            .ok()
            .and_then(|bytes| offset.checked_add(bytes))
            .ok_or(DeviceError::OutOfRange)?;
        if end > self.device_bytes || !offset.is_multiple_of(sector) || !end.is_multiple_of(sector)
        {
            return Err(DeviceError::OutOfRange);
        }
        Ok(offset..end)
    }
}

/// The least and the greatest sector that the contract allows; [`Buffer`] aligns for the greatest.
const SECTOR_BYTES_MIN: u32 = 512;
const SECTOR_BYTES_MAX: u32 = 4096;

/// What the devices of this crate report where no operating system gave a number: Linux's `EIO`.
#[cfg(any(feature = "file", feature = "sim"))]
const EIO: i32 = 5;
/// Answers a write to a device that was opened for reading alone: Linux's `EROFS`.
#[cfg(feature = "file")]
const EROFS: i32 = 30;

/// Storage that takes requests and completes them later, in any order.
///
/// What a caller may rely on, and nothing more:
///
/// 1. Every submitted request completes exactly once and gives its buffer back.
/// 2. A read that is submitted after a write of the same bytes completed sees that write.
/// 3. Requests in flight together have no order, and neither do their effects on the medium.
/// 4. A completed write may still be lost, or torn at any [`Geometry::physical_bytes`] unit of
///    it (old bytes, new bytes, or a unit that reads as neither), until a flush that was
///    *submitted after it completed* has itself completed with success. From then on it stays,
///    until a later write touches the same unit: a write of part of a unit risks all of it.
/// 5. After a failed flush nothing is known about any write since the last successful one.
/// 6. A device never panics on a request: what it cannot do completes with an error.
///
/// A device lies when it breaks 2 or 4; recovery finds what it can (checksums, two copies,
/// evidence of earlier flushes), and `FORMAT.md` says what it cannot.
pub trait BlockDevice {
    /// The shape of the device, fixed while it is open.
    fn geometry(&self) -> Geometry;

    /// Takes a request. Never blocks on the medium; a request that the device cannot accept
    /// completes with an error.
    fn submit(&mut self, request: Request);

    /// Hands out one finished request, or `None` while nothing has finished since the last call.
    fn completion(&mut self) -> Option<Completion>;
}
