//! StateFS's commit and recovery rule as an executable model, explored exhaustively.
//!
//! The model owns a tiny volume (a few segments of a few blocks), a writer, a device with a
//! volatile cache, power cuts, faults and the rule itself. It knows no bytes: a block's content is
//! an interned value, so equal contents are equal numbers and a number doubles as the 128-bit tag.
//!
//! [`recover::recover`] is the rule, from an image to a [`recover::Verdict`]; [`table::table`] is
//! its seven-row heart. [`runs::runs`] names every question asked: proofs that must hold and
//! weakened rules that must fail.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clean;
pub mod config;
pub mod disk;
pub mod explore;
mod proofs;
mod proofs_mount;
mod proofs_space;
pub mod recover;
pub mod runs;
pub mod table;
mod weakened;
mod weakened_mount;
