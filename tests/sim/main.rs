//! The simulator's fixed seeds, and the faults that it must find.

#![forbid(unsafe_code)]

use journal::Plant;
use tests::sim::{Setup, run};

/// Crashes of the fixed set of seeds.
const CRASHES: u64 = 10_000;
/// First seed of a search for a planted fault.
const PLANT_SEED: u64 = 20_000;
/// Crashes within which a planted fault must be found.
const PLANT_CRASHES: u64 = 200_000;

#[test]
fn nothing_acknowledged_is_lost_over_the_fixed_seeds() {
    let crashes = run(0, CRASHES, Setup::of_seed).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{crashes:?}");
    assert!(crashes.recovering > 1000 && crashes.processes > 1000 && crashes.damaged > 500);
    assert!(crashes.checkpoints > 500 && crashes.cleaned > 500 && crashes.moves > 1000);
    assert!(crashes.failed > 200 && crashes.repaired > 500 && crashes.acknowledged > 10_000);
}

fn must_be_found(plant: Plant) {
    let found = run(PLANT_SEED, PLANT_CRASHES, |_| Setup::planted(plant));
    let failure = found.expect_err("the simulator does not notice the planted fault");
    println!("found: {failure}");
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    must_be_found(Plant::AckBeforeFlush);
}

#[test]
fn counting_late_writes_as_flushed_is_found() {
    must_be_found(Plant::LateWrites);
}

#[test]
fn taking_a_later_group_as_proof_is_found() {
    must_be_found(Plant::LaterProves);
}

#[test]
fn a_fixed_order_of_superblocks_is_found() {
    must_be_found(Plant::SuperblockOrder);
}
