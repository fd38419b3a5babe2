//! What the program needs of its machine. Each processor has a folder with the same items:
//!
//! | item | yields |
//! |---|---|
//! | an entry | calls [`crate::begin`] with a [`Boot`], heap and time ready, and exits with what that yields |
//! | `print`, `typed` | the serial line |
//! | `now_ms`, `idle` | time that never goes back; sleep until a device or a time calls |
//! | `random` | random bytes of the processor, where it has a source |
//! | `devices`, `Memory` | virtio transports, and how devices see memory |
//! | `exit` | the end, with a code for whoever started the machine |
#![expect(unsafe_code, reason = "here is where the program touches its machine")]

#[cfg(target_arch = "x86_64")]
mod x86_64;

use alloc::vec::Vec;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Memory, devices, idle, now_ms, print, random, typed};

/// What the machine was started with.
pub(crate) struct Boot {
    /// The words of its command line.
    pub(crate) command_line: &'static str,
    /// The policy: the one module that was handed over, at most [`POLICY_BYTES_MAX`].
    pub(crate) policy: Option<Vec<u8>>,
    /// Bytes of memory that the heap has.
    pub(crate) heap_bytes: usize,
}

/// How the program ends. QEMU's exit code is twice this number, plus one: neither 0, with which it exits after a reset, nor 1,
/// with which it fails itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for is done. QEMU exits with 33.
    Done = 16,
    /// The self-test failed. QEMU exits with 3.
    Failed = 1,
    /// The program stopped at a false invariant. QEMU exits with 5.
    Panic = 2,
    /// The processor stopped the program. QEMU exits with 7.
    Fault = 3,
    /// The machine lacks something, or its volume cannot be opened. QEMU exits with 9.
    Refused = 4,
}

/// Longest policy that is taken: far above what the services of a machine need.
pub(crate) const POLICY_BYTES_MAX: usize = 64 << 10;
