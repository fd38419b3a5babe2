//! The whole server in the simulator: fixed seeds, and the faults that it must find.

#![forbid(unsafe_code)]

use tests::served::shrink::shrink;
use tests::served::{Planted, ServedCounts, Turns, play, play_turns};
use tests::sim::over_seeds;

/// Crashes of the fixed set of seeds.
const CRASHES: u64 = 200;
/// Histories that a planted fault gets to show itself.
const SEEDS_MAX: u64 = 400;

#[test]
fn clients_are_told_the_truth_over_the_fixed_seeds() {
    let add = |total: &mut ServedCounts, counts: &ServedCounts| {
        total.add(counts);
        total.crashes() >= CRASHES
    };
    let counts = over_seeds(0, 1, |seed| play(seed, None), add)
        .unwrap_or_else(|(seed, what)| panic!("SIM_SEED={seed}: {what}"));
    println!("{counts}");
    assert!(counts.power_cuts > 80 && counts.process_deaths > 30 && counts.shutdowns > 5);
    assert!(counts.recoveries > 100 && counts.recoveries_cut > 30 && counts.compared > 300);
    assert!(counts.blocks_damaged > 5 && counts.lives_on_failing_devices > 15);
    assert!(counts.stores_stopped > 2 && counts.failed_writes > 20);
    assert!(counts.checkpoints > 20 && counts.segments_cleaned > 10);
    assert!(counts.connections_broken > 400 && counts.stalls > 400);
    assert!(counts.durable > 1000 && counts.buffered > 600 && counts.syncs > 300);
    assert!(counts.batches > 200 && counts.uploads > 200 && counts.applied_once > 300);
    assert!(counts.sent_again > 150 && counts.conflicts > 400 && counts.denials > 400);
}

/// One test for each fault: some history breaks a promise with it.
macro_rules! finds {
    ($($name:ident: $plant:expr;)*) => {
        $(#[test]
        fn $name() {
            let found = (0..SEEDS_MAX).find_map(|seed| play(seed, Some($plant)).err());
            println!("{}", found.expect("the fault goes unnoticed"));
        })*
    };
}

finds! {
    writes_answered_before_they_are_durable: Planted::Server(statefsd::Plant::AnswerEarly);
    keys_looked_up_before_the_gate: Planted::Server(statefsd::Plant::LookFirst);
    tokens_forgotten_by_a_restart: Planted::Server(statefsd::Plant::TokensForgotten);
    tokens_forgotten_with_a_connection: Planted::Server(statefsd::Plant::TokensOfConnection);
    syncs_answered_without_a_flush: Planted::Server(statefsd::Plant::SyncSkipped);
    shutdowns_without_a_flush: Planted::Server(statefsd::Plant::ShutdownUnsynced);
    reads_past_the_callers_own_writes: Planted::Server(statefsd::Plant::OwnWritesUnseen);
    quotas_that_are_not_charged: Planted::Server(statefsd::Plant::QuotaUncharged);
    acknowledgements_before_the_flush: Planted::Journal(journal::Plant::AckBeforeFlush);
    flushes_that_cover_later_writes: Planted::Journal(journal::Plant::LateWrites);
    gaps_filled_by_what_comes_later: Planted::Journal(journal::Plant::LaterProves);
    logs_that_end_with_a_segment: Planted::Journal(journal::Plant::NextUnseen);
    superblocks_relied_on_too_early: Planted::Journal(journal::Plant::AdoptBeforeFlush);
}

/// What a planted fault breaks is told by few turns, and they tell it again.
#[test]
fn a_failing_history_is_shrunk_and_repeats() {
    let planted = Some(Planted::Server(statefsd::Plant::AnswerEarly));
    let seed = (0..SEEDS_MAX).find(|seed| play(*seed, planted).is_err()).unwrap();
    let all = Turns::of_seed(seed);
    let (least, what) = shrink(seed, planted, &all).unwrap();
    println!("SIM_SEED={seed}: {what}: --keep {}\n{}", least.word(), least.told(seed));
    assert!(least.count() * 20 < all.count(), "{} of {} are left", least.count(), all.count());
    let told = least.as_test(seed, &what);
    assert!(told.contains(&format!("Turns::read({seed}, \"{}\")", least.word())), "{told}");
    let again = Turns::read(seed, &least.word()).unwrap();
    assert_eq!(again, least);
    assert_eq!(play_turns(seed, planted, &again).unwrap_err(), what);
    assert!(play_turns(seed, None, &again).is_ok(), "it is the plant that breaks it");
    assert_eq!(Turns::read(seed, &all.word()), Ok(all));
    for wrong in ["x", "0", "0:", "0:1-", "99:1", "0:999999"] {
        assert!(Turns::read(seed, wrong).is_err(), "{wrong}");
    }
}
