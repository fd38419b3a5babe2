//! A byte buffer whose memory is aligned for direct I/O.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::{SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};

/// Alignment of the first byte of a buffer that may be whole sectors of any size: the largest sector that a device may
/// have.
pub const ALIGNMENT_BYTES: usize = SECTOR_BYTES_MAX as usize;

/// A fixed number of bytes, aligned to the sectors that they may be, zero when made.
///
/// The alignment is found inside a larger allocation, which costs up to one unit of memory and
/// needs no `unsafe`.
#[derive(Default)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Buffer {
    /// Yields a buffer of `bytes` zero bytes.
    pub fn zeroed(bytes: usize) -> Self {
        if bytes == 0 {
            return Self::default();
        }
        if bytes >= LARGE_BYTES {
            // The system has zeros at hand.
            let unit = alignment(bytes);
            let memory = vec![0; bytes + unit];
            let start = aligned(&memory, unit);
            return Self { memory, start, bytes };
        }
        let (mut memory, start) = room(bytes);
        memory.resize(start + bytes, 0);
        Self { memory, start, bytes }
    }

    /// Yields a buffer that holds a copy of `content`.
    pub fn copy_of(content: &[u8]) -> Self {
        if content.is_empty() {
            return Self::default();
        }
        let (mut memory, start) = room(content.len());
        memory.resize(start, 0);
        memory.extend_from_slice(content);
        Self { memory, start, bytes: content.len() }
    }
}

/// Bytes from which on an allocator asks the system.
const LARGE_BYTES: usize = 64 << 10;

/// Yields memory for `bytes` bytes, and where in it they are aligned. Not a byte more is written than has to be.
fn room(bytes: usize) -> (Vec<u8>, usize) {
    let unit = alignment(bytes);
    // The vector never outgrows this, so what is aligned now stays aligned.
    let memory = Vec::with_capacity(bytes + unit);
    let start = aligned(&memory, unit);
    (memory, start)
}

/// Yields the alignment of a buffer of `bytes` bytes. A request is whole sectors, so what is no multiple of the largest
/// sector goes to a device with a smaller one: small buffers, of which there are most, then take little more than they
/// hold.
fn alignment(bytes: usize) -> usize {
    if bytes.is_multiple_of(ALIGNMENT_BYTES) { ALIGNMENT_BYTES } else { SECTOR_BYTES_MIN as usize }
}

fn aligned(memory: &[u8], unit: usize) -> usize {
    let start = memory.as_ptr().align_offset(unit);
    assert!(start < unit);
    start
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

/// Copies the bytes: a copied allocation would be aligned elsewhere.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

/// Shows the length alone: a buffer holds clients' values.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero_whatever_its_length() {
        for bytes in [1, 511, 512, 1024, 4096, 4097, 8192, 98_304, 100_000] {
            let buffer = Buffer::zeroed(bytes);
            assert_eq!(buffer.len(), bytes);
            assert_eq!(buffer.as_ptr().align_offset(alignment(bytes)), 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
        assert!(Buffer::zeroed(0).is_empty());
    }

    #[test]
    fn a_clone_is_aligned_and_equal() {
        for (bytes, unit) in [(512, 512), (1536, 512), (4096, 4096), (65_536, 4096)] {
            let buffer = Buffer::copy_of(&vec![7; bytes]);
            let clone = buffer.clone();
            assert_eq!(clone[..], buffer[..]);
            assert_eq!(clone.as_ptr().align_offset(unit), 0);
        }
    }

    #[test]
    fn shows_no_content() {
        let shown = alloc::format!("{:?}", Buffer::copy_of(b"device key"));
        assert_eq!(shown, "Buffer(10 bytes)");
    }
}
