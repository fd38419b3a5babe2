//! The simulator's fixed seeds, the faults that it must find, and the histories that once failed.

#![forbid(unsafe_code)]

mod cuts;
mod found;
mod shrunk;

use tests::sim::{Setup, run};

/// Crashes of the fixed set of seeds.
const CRASHES: u64 = 10_000;

#[test]
fn nothing_acknowledged_is_lost_over_the_fixed_seeds() {
    let counts = run(0, CRASHES, 1, Setup::of_seed, |_| ());
    let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{counts}");
    assert!(counts.cuts_in_recovery > 1000 && counts.deaths_in_recovery > 500);
    assert!(counts.deaths_at_work > 1000 && counts.crashes_in_maintenance > 1000);
    assert!(counts.blocks_damaged > 150 && counts.blocks_unreadable > 20);
    assert!(counts.copies_repaired > 500 && counts.stores_stopped > 200);
    assert!(counts.recoveries > 5000 && counts.recoveries_failed > 100);
    assert!(counts.recoveries_from_checkpoint > 500 && counts.recoveries_with_torn_tail > 300);
    assert!(
        counts.checkpoints > 500 && counts.segments_cleaned > 500 && counts.values_moved > 1000
    );
    assert!(
        counts.uploads > 500
            && counts.crashes_of_full_volumes > 500
            && counts.commits_acknowledged > 10_000
    );
}
