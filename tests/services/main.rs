//! The services that live on `/state`: each over a simulated machine whose power is cut at every
//! write, and as the program that it is, against the daemon as a process.

#![forbid(unsafe_code)]

mod bench;
mod crashd;
mod keystored;
#[path = "../system/machine.rs"]
#[expect(dead_code, reason = "the system's own suite asks more of it")]
mod machine;
mod updated;
mod world;
