//! The bare machine as its owner sees it: QEMU started, stopped and hurt; ports reached; images made and checked.
//!
//! The harness owns processes and files, and no rule of StateFS: what an image holds, the journal says.

#![forbid(unsafe_code)]

mod accelerator;
mod failure;
mod folder;
pub mod image;
pub mod machine;
mod qmp;
mod relay;
pub mod writes;

pub use accelerator::Accelerator;
pub use failure::Failure;
pub use folder::Folder;
pub use machine::{Kind, Machine, Setup};
pub use qmp::Qmp;
pub use relay::Relay;
