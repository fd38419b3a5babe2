//! What every host of the daemon must do, as cases over the client's interface.
//!
//! A host is the daemon together with whatever drives it: memory in one thread, a Linux process
//! behind sockets, a machine without an operating system behind its ports. It offers a [`Host`];
//! [`run`] puts each of [`CASES`] to it, in order, on one volume, and may be run on that volume again.
//! The cases know nothing of the host, and nothing of time.
//!
//! Left to the suites of the one host that can bring them about: damage and failing devices
//! (`statefsd/tests/serving`, `tests/faults`), a full volume (`statefs-cli/tests`), a limit on
//! connections, hostile bytes (`vat/interop`).

#![forbid(unsafe_code)]

mod cases;
mod host;
mod socket;
mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use cases::CASES;
pub use host::{Channel, End, Host, POLICY, SERVICES};
pub use socket::SocketChannel;
pub use stage::{Case, Port, Stage};

/// Puts every case to `host`, and yields the names of those that failed.
///
/// Why a case failed is a panic message, on standard error.
pub fn run(host: &mut dyn Host) -> Vec<&'static str> {
    CASES.iter().map(|(name, _)| *name).filter(|name| !passes(host, name)).collect()
}

/// Puts one case to `host`, and tells whether it holds.
///
/// # Panics
/// If there is no such case.
pub fn passes(host: &mut dyn Host, name: &str) -> bool {
    let found = CASES.iter().find(|(known, _)| *known == name);
    let (name, case) = *found.unwrap_or_else(|| panic!("there is no case {name}"));
    let played = catch_unwind(AssertUnwindSafe(|| case(&mut Stage::clear(host, name))));
    if played.is_err() {
        eprintln!("conformance: {name} does not hold");
    }
    played.is_ok()
}
