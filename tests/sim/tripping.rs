//! A false invariant in the engine ends the process before it can write, and what was acknowledged is there behind it.

use fastrand::Rng;
use tests::sim::Setup;
use tests::sim::counts::Counts;
use tests::sim::plan::{Ack, Action, Change, Expect, How, Plan, Shape, Step};
use tests::sim::play::play_tripping;

/// Histories whose engine trips again and again.
const HISTORIES: u64 = 400;
/// Most places that are passed between two panics of those.
const PLACES_MAX: u64 = 1500;

/// The engine's invariants are asked for at the places where a test can switch a rule off: in every mount, commit, flush, read,
/// check, checkpoint and cleaning.
#[test]
fn an_engine_that_panics_anywhere_loses_nothing() {
    let mut counts = Counts::default();
    for seed in 0..HISTORIES {
        let mut random = Rng::with_seed(!seed);
        let plan = Plan::of_seed(seed, Setup::of_seed(seed));
        let played = play_tripping(&plan, || Some(random.u64(..PLACES_MAX)));
        counts.add(&played.unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}")));
    }
    println!("{counts}");
    assert!(counts.panics > 1000 && counts.deaths_in_recovery > 100 && counts.deaths_at_work > 100);
    let of_histories = counts.crashes() - counts.other_ends;
    assert!(counts.other_ends > 1000);
    assert!(of_histories > counts.panics + 1000 && counts.commits_acknowledged > 1000);
    assert!(counts.checkpoints > 10 && counts.segments_cleaned > 10 && counts.copies_repaired > 10);
}

/// One of each kind of work in a volume that is cleaned, ended by a power cut and begun again.
fn short_plan() -> Plan {
    let put = |key, bytes| Change { key, bytes: Some(bytes), expect: Expect::Any };
    let commit = |n: u8, ack| {
        let delete = (n % 4 == 3).then_some(Change { bytes: None, ..put(n % 4, 0) });
        // Those that are written now and then are what cleaning moves.
        let rare = if n.is_multiple_of(16) { 4 + n / 16 % 4 } else { n % 4 };
        let changes = [Some(put(rare, 120)), Some(put(n % 3, 40)), delete];
        (Action::Commit { changes, ack, origin: n % 2 }, 4)
    };
    let durable = |from: u8, to| (from..to).map(move |n| commit(n, Ack::Durable));
    let upload = Action::Upload { change: put(7, 1000), cut: 500, abandoned: false, origin: 0 };
    let crash = Action::Crash { how: How::PowerCut, recovery: 0, harm: None };
    let others = [
        commit(1, Ack::Buffered),
        commit(2, Ack::Strict),
        (upload, 12),
        (Action::Get { key: 2, origin: 0 }, 4),
        (Action::Sync, 6),
        (Action::Checkpoint, 20),
        (Action::Wait { ms: 60 }, 6),
        (Action::Check, 40),
        (crash, 0),
    ];
    let steps = durable(0, 120).chain(others).chain(durable(0, 6));
    let steps = (0..).zip(steps).map(|(id, (action, turns))| Step { id, turns, action });
    let shape = Shape {
        device_kib: 64,
        copies: 2,
        keys: 8,
        stall: 0,
        group_bytes_max: 1000,
        flush_bytes_max: 2048,
        cache_bytes: 0,
        value_record_bytes_max: 400,
        replay_bytes: None,
    };
    Plan { seed: 3, shape, steps: steps.collect() }
}

#[test]
fn an_engine_that_panics_once_at_each_place_loses_nothing() {
    let plan = short_plan();
    let mut counts = Counts::default();
    for places in 0.. {
        let mut once = Some(places);
        let played = play_tripping(&plan, || once.take());
        let counted = played.unwrap_or_else(|broken| panic!("behind {places}: {broken:?}"));
        counts.add(&counted);
        if counted.panics == 0 {
            break;
        }
    }
    println!("{counts}");
    assert!(counts.panics > 500 && counts.deaths_in_recovery > 30);
    let kinds = [counts.checkpoints, counts.checkpoints_asked, counts.segments_cleaned];
    assert!(kinds.into_iter().chain([counts.uploads, counts.reads]).all(|count| count > 100));
}
