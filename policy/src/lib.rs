//! Paths under `/state` and rights on them, parsed once at the edge.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod key;
mod quote;
mod rights;

pub use key::{Key, KeyError, Prefix};
pub use rights::{Right, Rights, UnknownRight};
