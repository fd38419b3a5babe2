//! Keeps a machine's device key: an Ed25519 key that is made once, found again after every restart,
//! signs, and is never shown.
//!
//! ```text
//! absent ──ensure──▶ made, durable in two places ──ensure──▶ found, the same
//! damaged ──ensure──▶ refused, for ever, until an operator calls replace
//! ```
//!
//! The key is the identity of the machine, so losing it quietly is worse than not starting: a key that
//! cannot be read back as it was written is reported and never made anew ([`Error::Damaged`]), unless
//! that is asked for by name ([`replace`]).
//!
//! The crate does no I/O and has no randomness of its own: calls go over a
//! [`statefs_client::Directory`], entropy is an argument. It runs where there is no std. What a peer of
//! the RPC holds in its buffers on the way is not wiped; this process and the store are trusted with it.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(feature = "program")]
extern crate std;

mod error;
mod keep;
mod key;
#[cfg(feature = "program")]
pub mod program;

pub use error::{Damage, Error};
pub use keep::{Ensured, KEY, PREFIX, ensure, find, open, replace};
pub use key::{DeviceKey, Entropy, RECORD_BYTES, Signature, verify};
