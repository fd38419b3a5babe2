//! A/B boot control: which of two systems a machine boots, how often a new one is tried, and the way
//! back.
//!
//! ```text
//!            prepare             stage               begin              mark_good
//! B good ──────────▶ B empty ──────────▶ B trying n ──────▶ B trying n-1 ──────────▶ B good
//!                                             │ no tries left: the loader boots A again
//! ```
//!
//! The state of both slots is one [`Control`] under one key, changed as a whole by compare-and-swap, so
//! that a cut at any write leaves the control from before or the one from after. No transition leads to a
//! control without a good slot; there is none that a machine could not boot.
//!
//! The system changes the control over a [`statefs_client::Directory`]; the boot loader reads it from
//! the volume itself, before any daemon runs, with `boot::read` (feature `boot`). The crate does no I/O
//! and needs no std.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(feature = "program", test))]
extern crate std;

#[cfg(feature = "boot")]
pub mod boot;
mod control;
mod error;
mod keep;
#[cfg(feature = "program")]
pub mod program;
mod record;

pub use control::{Control, Refusal, Slot, Status, TRIES_MAX};
pub use error::{Damage, Error};
pub use keep::{KEY, PREFIX, change, find, initialise, open, reset};
pub use record::RECORD_BYTES;
