//! What the test suites share.

#![forbid(unsafe_code)]

#[path = "sim/mod.rs"]
pub mod sim;
