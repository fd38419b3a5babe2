//! StateFS without an operating system: the daemon's core between a block device and named ports.
//!
//! This library owns what every bare machine needs and no machine differs in: [`Node`] moves bytes, block requests and time;
//! [`Ports`] is the driver of a virtio console; [`wire`] tells connections apart on a port; [`Program`]s are clients inside of
//! the machine, each with a channel of its own. It knows no processor: what does is in the program beside it, in
//! `src/machine`.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bench;
mod entropy;
mod features;
mod link;
pub mod mark;
mod node;
mod ports;
mod program;
mod queue;
pub mod selftest;
pub mod services;
pub mod wire;

pub use entropy::{Entropy, NoSeed, SEED_BYTES, SEED_MS_MAX};
pub use link::Link;
pub use node::{Node, Turn, forget};
pub use ports::{Event, PORTS_MAX, Ports};
pub use program::{Print, Program, Start, Task};
