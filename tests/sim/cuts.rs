//! Recoveries that are cut off again and again.

use journal::Plants;
use tests::sim::plan::{Ack, Action, Change, Expect, Harm, HarmKind, How, Plan, Shape, Step};
use tests::sim::play::play;

/// Power cuts in a row, each inside the recovery from the one before.
const CUTS: u16 = 300;

const SHAPE: Shape = Shape {
    device_kib: 96,
    copies: 2,
    keys: 20,
    stall: 0,
    group_bytes_max: 1000,
    flush_bytes_max: 2048,
    cache_bytes: 0,
    value_record_bytes_max: usize::MAX,
    replay_bytes: None,
};

/// A volume with some log, cut off, with a bad block or without, then `cuts` times in its recovery.
fn plan(harm: Option<Harm>, longest: u16, cuts: u16) -> Plan {
    let put = |key| Change { key, bytes: Some(300), expect: Expect::Any };
    let work = (0..40).map(|n| {
        let changes = [Some(put(n % 20)), Some(put(n % 13)), None];
        (Action::Commit { changes, ack: Ack::Durable, origin: 0 }, 5)
    });
    let crash = |recovery, harm| (Action::Crash { how: How::PowerCut, recovery, harm }, 0);
    let again = (0..cuts).map(|n| crash(n % longest, None));
    let steps = work.chain([crash(0, harm)]).chain(again);
    let steps = (0..).zip(steps).map(|(id, (action, turns))| Step { id, turns, action });
    Plan { seed: 7, shape: SHAPE, steps: steps.collect() }
}

#[test]
fn three_hundred_power_cuts_inside_recovery_converge() {
    let bad = |block| Some(Harm { block, kind: HarmKind::Garbage });
    // Nothing; a superblock copy; a block of the log, in the first copy and in the second.
    for harm in [None, bad(3), bad(20), bad(110)] {
        let once = play(&plan(harm, 1, 0), Plants::default()).expect("nothing is lost");
        let format = play(&plan(None, 1, 0), Plants::default()).expect("nothing is lost");
        assert_eq!((once.recoveries, format.recoveries), (2, 2));
        // Each is cut before it ends, at each turn in turn, and what it did must not make the next one longer.
        let longest = u16::try_from(once.turns_of_recoveries / 2).expect("a recovery is short");
        assert!(longest > 10, "{once}");
        let often = play(&plan(harm, longest, CUTS), Plants::default()).expect("nothing is lost");
        assert_eq!(often.cuts_in_recovery + often.cuts_at_work, u64::from(CUTS) + 1);
        assert!(often.cuts_in_recovery >= u64::from(CUTS) / 2, "{often}");
        assert!(often.other_ends > u64::from(CUTS) / 10, "{often}");
        println!("{harm:?}: {} and {}", once.turns_of_recoveries, often.turns_of_recoveries);
        let each = often.turns_of_recoveries / often.recoveries;
        assert!(each <= once.turns_of_recoveries, "the recoveries grow longer: {often}");
    }
}
