//! The real thing: the daemon as a process, with sockets, an image file, signals and `kill -9`.
//!
//! What a verdict depends on is never the time that something took. The moments of kills come
//! from a seed, `SYSTEM_SEED`, which a failure prints; the same seed makes the same calls, but no
//! two runs of a process meet at the same instruction. `SYSTEM_KILLS` asks for another number of kills at work.
//!
//! What one daemon and one client show is with the crates that own it, and not here again:
//!
//! * `statefsd/tests/daemon.rs`: restarts, every refusal to start, a live socket, a reload of the
//!   policy, a log that nobody reads, a lack of descriptors that is shed and recovered from.
//! * `statefsd/tests/serving`: the same server without a process, over a device that fails.
//! * `statefs-cli/tests/online.rs`: damage under a running daemon, a volume that fills up.
//! * `vat/interop/tests`: every hostile message that is known, against one connection.

#![forbid(unsafe_code)]

mod account;
mod canary;
mod conforms;
mod crash;
mod denial;
mod hostile;
mod machine;
mod metrics;
mod namespace;
mod openmetrics;
mod reload;
mod second;
mod secrets;
mod shrinking;
mod wire;
mod writer;
