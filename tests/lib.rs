//! What the test suites share.

#![forbid(unsafe_code)]

#[path = "drive/mod.rs"]
pub mod drive;
#[path = "sim/mod.rs"]
pub mod sim;
