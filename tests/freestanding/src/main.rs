//! The whole core as a static program without std and without a C library: it links only as long as
//! nothing in the core needs either, and runs only as long as the core works there.
//!
//! It asks a policy; makes a volume in memory, commits, opens it again and reads; and lets a client
//! call the whole daemon, before and after that is started again; then the services do. Each step prints a line after it was done, and the exit code is 0
//! only behind the last.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod bare;
mod calls;
mod rules;
mod services;
mod volume;

/// Runs every step.
///
/// # Errors
/// What did not hold.
fn run() -> Result<(), &'static str> {
    rules::check()?;
    bare::print("freestanding: policy decides\n");
    volume::check()?;
    bare::print("freestanding: volume holds what was committed\n");
    calls::check()?;
    bare::print("freestanding: daemon answers, and remembers\n");
    services::check()?;
    bare::print("freestanding: services find what they kept\n");
    Ok(())
}
