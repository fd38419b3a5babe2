//! The suite over the daemon's core in one thread, and over hosts that do one thing wrong.

#![forbid(unsafe_code)]

mod flaw;
mod host;

use conformance::{CASES, passes, run};
use flaw::Flaw;
use host::MemoryHost;

#[test]
fn the_core_over_memory_conforms() {
    let mut host = MemoryHost::new(Flaw::None);
    assert_eq!(run(&mut host), [""; 0]);
    // Nothing that a run leaves behind is in the way of the next.
    assert_eq!(run(&mut host), [""; 0]);
}

/// A suite that nothing fails proves nothing: each flaw is caught by the case that is named for it.
#[test]
fn a_host_with_a_flaw_does_not() {
    for (flaw, case) in flaw::CAUGHT {
        let mut host = MemoryHost::new(*flaw);
        assert!(!passes(&mut host, case), "{flaw:?} passes {case}");
    }
}

/// Every case but these is the one that catches some flaw.
#[test]
fn every_case_can_fail() {
    let caught: Vec<&str> = flaw::CAUGHT.iter().map(|(_, case)| *case).collect();
    let never: Vec<_> =
        CASES.iter().map(|(name, _)| *name).filter(|name| !caught.contains(name)).collect();
    assert_eq!(never, [""; 0]);
}
