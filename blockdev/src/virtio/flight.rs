//! One request in the device's hands: its three buffers, and what their answer means.

use alloc::boxed::Box;
use core::ptr;

use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;

use super::{Boxed, FAILED};
use crate::{Completion, DeviceError, Operation, Request};

/// A request with the frame that goes around its data. The frame is in a box, and the data in a
/// vector, so neither moves when the flight does.
pub(super) struct Flight {
    pub(super) request: Request,
    pub(super) frame: Boxed,
    pub(super) since_ms: u64,
}

/// The device claims more bytes than it had room for.
#[derive(Debug)]
pub(super) struct WroteTooMuch;

impl Flight {
    /// Prepares a request that is in range.
    pub(super) fn new(request: Request, since_ms: u64) -> Self {
        let (kind, sector) = match request.operation {
            Operation::Read { offset } => (KIND_READ, offset / SECTOR_BYTES),
            Operation::Write { offset } => (KIND_WRITE, offset / SECTOR_BYTES),
            Operation::Flush => (KIND_FLUSH, 0),
        };
        let mut frame = Box::<super::Frame>::default();
        let header = kind.to_le_bytes().into_iter().chain([0; 4]).chain(sector.to_le_bytes());
        for (place, byte) in frame.header.iter_mut().zip(header) {
            *place = byte;
        }
        frame.status = [STATUS_NONE];
        Self { request, frame, since_ms }
    }

    /// Gives the buffers to the device.
    ///
    /// # Safety
    /// The flight is neither touched nor dropped until its token was popped.
    pub(super) unsafe fn add<H: Hal, const N: usize>(
        &mut self,
        queue: &mut VirtQueue<H, N>,
    ) -> virtio_drivers::Result<u16> {
        let (frame, data) = (&mut *self.frame, &mut *self.request.buffer);
        // SAFETY: what the caller promises is what the queue asks for.
        unsafe {
            match self.request.operation {
                Operation::Read { .. } => {
                    queue.add(&[&frame.header], &mut [data, &mut frame.status])
                }
                Operation::Write { .. } => {
                    queue.add(&[&frame.header, data], &mut [&mut frame.status])
                }
                Operation::Flush => queue.add(&[&frame.header], &mut [&mut frame.status]),
            }
        }
    }

    /// Takes the buffers back, if the device is done with `token`; yields how many bytes it claims
    /// to have written.
    ///
    /// # Safety
    /// `token` is what [`Flight::add`] of this flight yielded.
    pub(super) unsafe fn pop<H: Hal, const N: usize>(
        &mut self,
        queue: &mut VirtQueue<H, N>,
        token: u16,
    ) -> virtio_drivers::Result<u32> {
        let (frame, data) = (&mut *self.frame, &mut *self.request.buffer);
        // SAFETY: these are the buffers that were added, by the caller's promise.
        unsafe {
            match self.request.operation {
                Operation::Read { .. } => {
                    queue.pop_used(token, &[&frame.header], &mut [data, &mut frame.status])
                }
                Operation::Write { .. } => {
                    queue.pop_used(token, &[&frame.header, data], &mut [&mut frame.status])
                }
                Operation::Flush => {
                    queue.pop_used(token, &[&frame.header], &mut [&mut frame.status])
                }
            }
        }
    }

    /// Judges what the device left behind.
    ///
    /// Success takes the status that says so, and, for a read, as many bytes as were asked: the
    /// length is the device's word for what it has written, and it owes no more than that.
    pub(super) fn result(&self, used_bytes: u32) -> Result<Result<(), DeviceError>, WroteTooMuch> {
        let used_bytes = u64::from(used_bytes);
        let data_bytes = match self.request.operation {
            Operation::Read { .. } => self.request.buffer.len() as u64,
            Operation::Write { .. } | Operation::Flush => 0,
        };
        if used_bytes > data_bytes + 1 {
            return Err(WroteTooMuch);
        }
        // JUSTIFICATION: the device wrote this byte, which no line of the program did.
        // SAFETY: it is a byte of the frame, which this flight owns.
        let status = unsafe { ptr::read_volatile(&raw const self.frame.status[0]) };
        let done = status == STATUS_OK && used_bytes >= data_bytes;
        Ok(if done { Ok(()) } else { Err(FAILED) })
    }

    /// Ends the flight.
    pub(super) fn end(self, result: Result<(), DeviceError>) -> Completion {
        let Request { id, buffer, .. } = self.request;
        Completion { id, buffer, result }
    }
}

/// The unit of the header's place, whatever the sector of the device is.
const SECTOR_BYTES: u64 = 512;

const KIND_READ: u32 = 0;
const KIND_WRITE: u32 = 1;
const KIND_FLUSH: u32 = 4;

const STATUS_OK: u8 = 0;
/// No status of the specification: what stays there was not written by the device.
const STATUS_NONE: u8 = 0xFF;
