//! Histories that once failed, as the simulator shrank and told them, but for one of which the seeds alone were kept. Each must hold for
//! ever.

use journal::Plants;
use tests::sim::Setup;
use tests::sim::plan::Ack::{Buffered, Durable, Strict};
use tests::sim::plan::Expect::{Any, Current, Wrong};
use tests::sim::plan::How::{PowerCut, ProcessDeath};
use tests::sim::plan::{Action, Change, Harm, HarmKind, Plan, Shape, Step};
use tests::sim::play::play;

/// What two full volumes refused after they had taken it, buffered writes that were acknowledged among it.
///
/// New keys made the next checkpoint grow out of what was free for it, so that nothing could be freed any more. Why the fix
/// holds: what is kept free, and what is admitted, counts what everything on its way adds to a checkpoint.
///
/// The histories were never shrunk, what their seeds draw is something else by now, and no plant switches the rule off. These are others,
/// of full volumes that write many checkpoints; where their seeds draw something else in turn, the counts tell, and there are more.
#[test]
fn a_full_volume_refuses_nothing_that_it_took() {
    for seed in [151, 1075, 2523, 3951] {
        let plan = Plan::of_seed(seed, Setup::of_seed(seed));
        let counts = play(&plan, Plants::default()).expect("it holds");
        assert!(counts.commits_refused_full > 100 && counts.checkpoints > 10, "{seed}:\n{counts}");
    }
}

fn holds(plan: &Plan) {
    assert_eq!(play(plan, Plants::default()).err(), None);
}

/// An online check beside commits, behind a power cut that left a torn tail.
///
/// What was lost: the copy of a new group, and with the next cut data loss was told where no block had gone bad. What
/// reached the medium: behind the cut of a closed use lay a group of the torn tail, whose LSN had been given out again and
/// was durable by then; the check took it for settled and repaired it, at the very block where the log went on. Why the
/// fix holds: behind its use's cut a group does not count as settled, whatever its LSN.
#[test]
fn a_check_leaves_a_torn_tail_alone() {
    holds(&Plan {
        seed: 1021642,
        shape: Shape {
            device_kib: 80,
            copies: 2,
            keys: 8,
            stall: 0,
            group_bytes_max: 262144,
            flush_bytes_max: 2097152,
            cache_bytes: 0,
            value_record_bytes_max: usize::MAX,
            replay_bytes: Some(12288),
        },
        steps: vec![
            Step {
                id: 60,
                turns: 1,
                action: Action::Commit {
                    changes: [
                        None,
                        None,
                        Some(Change { key: 4, bytes: Some(25), expect: Current }),
                    ],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 61,
                turns: 7,
                action: Action::Commit {
                    changes: [None, Some(Change { key: 4, bytes: Some(30), expect: Any }), None],
                    ack: Durable,
                    origin: 2,
                },
            },
            Step {
                id: 77,
                turns: 0,
                action: Action::Crash { how: PowerCut, recovery: 0, harm: None },
            },
            Step {
                id: 79,
                turns: 2,
                action: Action::Commit {
                    changes: [Some(Change { key: 6, bytes: Some(50), expect: Any }), None, None],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 82,
                turns: 1,
                action: Action::Commit {
                    changes: [
                        None,
                        Some(Change { key: 1, bytes: Some(355), expect: Current }),
                        None,
                    ],
                    ack: Strict,
                    origin: 2,
                },
            },
            Step {
                id: 83,
                turns: 1,
                action: Action::Commit {
                    changes: [Some(Change { key: 5, bytes: Some(74), expect: Any }), None, None],
                    ack: Durable,
                    origin: 0,
                },
            },
            Step {
                id: 84,
                turns: 3,
                action: Action::Commit {
                    changes: [
                        Some(Change { key: 7, bytes: Some(340), expect: Current }),
                        None,
                        None,
                    ],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 89,
                turns: 1,
                action: Action::Commit {
                    changes: [Some(Change { key: 1, bytes: Some(45), expect: Wrong }), None, None],
                    ack: Buffered,
                    origin: 1,
                },
            },
            Step {
                id: 91,
                turns: 3,
                action: Action::Upload {
                    change: Change { key: 1, bytes: Some(2012), expect: Current },
                    cut: 1891,
                    abandoned: false,
                    origin: 2,
                },
            },
            Step { id: 93, turns: 4, action: Action::Get { key: 4, origin: 2 } },
            Step {
                id: 106,
                turns: 3,
                action: Action::Commit {
                    changes: [None, Some(Change { key: 4, bytes: None, expect: Any }), None],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 109,
                turns: 0,
                action: Action::Crash { how: PowerCut, recovery: 0, harm: None },
            },
            Step { id: 110, turns: 2, action: Action::Check },
            Step {
                id: 113,
                turns: 3,
                action: Action::Commit {
                    changes: [
                        Some(Change { key: 3, bytes: Some(52), expect: Current }),
                        None,
                        None,
                    ],
                    ack: Buffered,
                    origin: 1,
                },
            },
            Step {
                id: 115,
                turns: 5,
                action: Action::Commit {
                    changes: [None, Some(Change { key: 0, bytes: Some(87), expect: Any }), None],
                    ack: Durable,
                    origin: 0,
                },
            },
            Step {
                id: 119,
                turns: 6,
                action: Action::Commit {
                    changes: [
                        Some(Change { key: 0, bytes: Some(108), expect: Current }),
                        None,
                        None,
                    ],
                    ack: Durable,
                    origin: 2,
                },
            },
            Step { id: 125, turns: 0, action: Action::Get { key: 3, origin: 1 } },
            Step { id: 126, turns: 1, action: Action::Sync },
            Step {
                id: 127,
                turns: 1,
                action: Action::Commit {
                    changes: [Some(Change { key: 4, bytes: Some(8), expect: Current }), None, None],
                    ack: Strict,
                    origin: 2,
                },
            },
            Step { id: 128, turns: 0, action: Action::Get { key: 3, origin: 2 } },
            Step { id: 129, turns: 2, action: Action::Wait { ms: 9 } },
            Step { id: 133, turns: 13, action: Action::Get { key: 7, origin: 1 } },
            Step { id: 144, turns: 16, action: Action::Get { key: 4, origin: 0 } },
            Step {
                id: 230,
                turns: 0,
                action: Action::Crash { how: PowerCut, recovery: 0, harm: None },
            },
        ],
    });
}

/// Two bad blocks, one in each copy of a group, with a check between them that began before the group was durable.
///
/// Nothing was wrong but the simulator: the first block went bad when the group was on the medium, by a flush of the
/// superblock, and its own flush was on its way. The check left it alone, as it leaves all that is not durable, and the
/// simulator took the block for repaired. Why it holds: where the device has something to do when a check begins, a bad block
/// counts as there until another one.
#[test]
fn a_check_that_is_too_early_lets_nothing_more_go_bad() {
    holds(&Plan {
        seed: 777_022_703,
        shape: Shape {
            device_kib: 128,
            copies: 2,
            keys: 8,
            stall: 0,
            group_bytes_max: 100,
            flush_bytes_max: 2048,
            cache_bytes: 4_194_304,
            value_record_bytes_max: 80,
            replay_bytes: Some(12288),
        },
        steps: vec![
            Step {
                id: 219,
                turns: 0,
                action: Action::Commit {
                    changes: [Some(Change { key: 5, bytes: Some(870), expect: Any }), None, None],
                    ack: Buffered,
                    origin: 0,
                },
            },
            Step {
                id: 224,
                turns: 0,
                action: Action::Commit {
                    changes: [None, Some(Change { key: 0, bytes: Some(92), expect: Any }), None],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 227,
                turns: 141,
                action: Action::Commit {
                    changes: [
                        Some(Change { key: 0, bytes: Some(713), expect: Current }),
                        None,
                        None,
                    ],
                    ack: Buffered,
                    origin: 2,
                },
            },
            Step {
                id: 232,
                turns: 1,
                action: Action::Commit {
                    changes: [Some(Change { key: 5, bytes: Some(121), expect: Any }), None, None],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 241,
                turns: 0,
                action: Action::Crash { how: ProcessDeath, recovery: 0, harm: None },
            },
            Step {
                id: 244,
                turns: 1,
                action: Action::Commit {
                    changes: [Some(Change { key: 6, bytes: Some(5), expect: Any }), None, None],
                    ack: Durable,
                    origin: 0,
                },
            },
            Step {
                id: 249,
                turns: 0,
                action: Action::Commit {
                    changes: [Some(Change { key: 0, bytes: None, expect: Current }), None, None],
                    ack: Buffered,
                    origin: 2,
                },
            },
            Step {
                id: 251,
                turns: 12,
                action: Action::Commit {
                    changes: [Some(Change { key: 1, bytes: Some(111), expect: Any }), None, None],
                    ack: Durable,
                    origin: 1,
                },
            },
            Step {
                id: 252,
                turns: 0,
                action: Action::Harm(Harm { block: 6, kind: HarmKind::LostWrites(3) }),
            },
            Step { id: 255, turns: 21, action: Action::Check },
            Step {
                id: 269,
                turns: 0,
                action: Action::Crash {
                    how: PowerCut,
                    recovery: 0,
                    harm: Some(Harm { block: 0, kind: HarmKind::Stale }),
                },
            },
        ],
    });
}

/// A value that is read while its copies go bad one after the other, the first repaired before.
///
/// What was lost: nothing, and the read answered that it was. What reached the medium: copy A of the value's group was a lost write
/// when the read saw it; a check repaired it; then copy B went back, and the read saw that. Why the fix holds: a read that finds
/// both copies bad looks at copy A once more.
#[test]
fn a_read_beside_a_check_loses_nothing() {
    holds(&Plan {
        seed: 134_000_677_413,
        shape: Shape {
            device_kib: 128,
            copies: 2,
            keys: 8,
            stall: 0,
            group_bytes_max: 100,
            flush_bytes_max: 2048,
            cache_bytes: 0,
            value_record_bytes_max: 80,
            replay_bytes: Some(4096),
        },
        steps: vec![
            Step {
                id: 12,
                turns: 12,
                action: Action::Commit {
                    changes: [Some(Change { key: 2, bytes: Some(78), expect: Any }), None, None],
                    ack: Durable,
                    origin: 0,
                },
            },
            Step {
                id: 13,
                turns: 0,
                action: Action::Harm(Harm { block: 0, kind: HarmKind::LostWrites(2) }),
            },
            Step { id: 15, turns: 9, action: Action::Check },
            Step { id: 18, turns: 7, action: Action::Get { key: 2, origin: 2 } },
            Step {
                id: 28,
                turns: 1,
                action: Action::Harm(Harm { block: 5, kind: HarmKind::LostWrites(4) }),
            },
        ],
    });
}
