//! Keeps the last crash dumps of a machine: values of many MiB, streamed into the store as they come.
//!
//! A dump is there whole or not at all: it becomes visible at one moment, after its last byte, and is
//! durable then. Of the dumps the newest are kept, as many and as large together as a [`Keep`] says;
//! old ones are given up once a new one is there, oldest first.
//!
//! The crate does no I/O: calls go over a [`statefs_client::Directory`], bytes come from and go to
//! closures. It needs no std.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "program", test))]
extern crate std;

mod error;
mod head;
mod id;
#[cfg(feature = "program")]
pub mod program;
mod record;
mod shelf;

pub use error::Error;
pub use head::{About, NAME_BYTES_MAX};
pub use id::{Id, IdError};
pub use record::{Recorded, record};
pub use shelf::{Dump, Keep, Listing, PREFIX, about, copy, list, open, prune, remove};
