//! What the test suites share.

#![forbid(unsafe_code)]

#[path = "drive/mod.rs"]
pub mod drive;
#[path = "faults/mod.rs"]
pub mod faults;
#[path = "served/mod.rs"]
pub mod served;
#[path = "sim/mod.rs"]
pub mod sim;
