//! The server in one thread over a device in memory, driven by clients over their own vats.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod admin;
mod audit;
mod batches;
mod bounds;
mod calls;
mod faults;
mod lists;
mod quotas;
mod restrictions;
mod rig;
mod streams;
mod tokens;
mod uploads;
