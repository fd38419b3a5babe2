//! The rule holds with one segment kept free, and with several flushes out.

use crate::config::{Config, Fresh, MountCheckpoint};
use crate::proofs::{g, holds, rule};
use crate::proofs_mount::placed;
use crate::runs::Run;
use crate::weakened::ALL;

pub(crate) fn proofs() -> Vec<Run> {
    let mut all = one_free();
    all.extend(one_free_at_the_cut());
    all.extend(several_flushes());
    all
}

/// The rule with one segment kept free; a mount without a place breaks it.
pub(crate) fn keeping() -> Config {
    Config {
        keep_one_free: true,
        mount_checkpoint: MountCheckpoint::Needed,
        reserve_ahead: true,
        fresh: Fresh::InPlace,
        inflight: 1,
        groups: 4,
        groups_later: 6,
        ..rule()
    }
}

/// Writer and mount keep one segment free: no state leaves a mount without a place.
fn one_free() -> Vec<Run> {
    vec![
        holds(
            "P40 one free of 4 segments of 1 block, three checkpoints, no fault, 3 cuts",
            Config { checkpoints: 3, geometry: g(4, 1), cuts: 3, ..keeping() },
        ),
        holds(
            "P40b one free of 4 segments, two checkpoints, in place or not, no fault, 3 cuts",
            Config { checkpoints: 2, fresh: Fresh::Either, cuts: 3, ..keeping() },
        ),
        holds(
            "P40c one free of 3 segments, free and reserve in one superblock, no fault, 4 cuts",
            Config {
                checkpoints: 2,
                free_and_reserve: true,
                geometry: g(3, 2),
                cuts: 4,
                ..keeping()
            },
        ),
        holds(
            "P41 one free of 4 segments of 1 block, 1 fault any kind, 2 cuts",
            Config {
                checkpoints: 2,
                geometry: g(4, 1),
                faults: 1,
                stale: true,
                misdirect: true,
                groups: 3,
                groups_later: 5,
                ..keeping()
            },
        ),
        holds(
            "P41b one free of 4 segments, groups of 1-2 blocks, checkpoint, no fault, 3 cuts",
            Config { len_max: 2, checkpoints: 1, cuts: 3, groups: 3, groups_later: 5, ..keeping() },
        ),
        holds(
            "P42 one free of 3 segments, log behind the checkpoint, short list, 1 fault, 3 cuts",
            Config {
                checkpoints: 1,
                free_and_reserve: true,
                behind_checkpoint: true,
                uses_max: 3,
                geometry: g(3, 2),
                cuts: 3,
                faults: 1,
                stale: true,
                groups: 3,
                groups_later: 5,
                ..keeping()
            },
        ),
    ]
}

/// The same where a mount goes on at the cut of a checkpoint.
fn one_free_at_the_cut() -> Vec<Run> {
    vec![
        holds(
            "P50 one free of 4 segments of 3 blocks, at the cut, two checkpoints, no fault, 4 cuts",
            Config {
                checkpoints: 2,
                geometry: g(4, 3),
                cuts: 4,
                groups: 3,
                groups_later: 5,
                ..keeping()
            },
        ),
        holds(
            "P50b one free of 4 segments, at the cut, 1 fault any kind, 3 cuts",
            Config {
                checkpoints: 1,
                fault_kinds: ALL,
                faults: 1,
                stale: true,
                misdirect: true,
                geometry: g(4, 2),
                cuts: 3,
                groups: 2,
                groups_later: 3,
                ..keeping()
            },
        ),
        holds(
            "P50c one free of 4 segments, at the cut, groups of 1-2 blocks, no fault, 3 cuts",
            Config {
                len_max: 2,
                checkpoints: 1,
                geometry: g(4, 3),
                cuts: 3,
                groups: 2,
                groups_later: 4,
                ..keeping()
            },
        ),
        holds(
            "P50d one free of 4 segments, at the cut, strict, short list, two faults, 3 cuts",
            Config {
                strict: true,
                checkpoints: 1,
                uses_max: 3,
                geometry: g(4, 2),
                faults: 2,
                cuts: 3,
                groups: 2,
                groups_later: 3,
                ..keeping()
            },
        ),
    ]
}

/// Several flushes are out at one time and return in any order.
fn several_flushes() -> Vec<Run> {
    let several = || Config { overlap: true, overlap_build: true, flushes: 3, ..placed() };
    vec![
        holds(
            "P43 three flushes out, pipelined 3, no fault, 3 cuts",
            Config { cuts: 3, groups: 4, groups_later: 5, geometry: g(3, 3), ..several() },
        ),
        holds(
            "P43b three flushes out, pipelined 3, 1 fault, 2 cuts",
            Config {
                faults: 1,
                stale: true,
                groups: 3,
                groups_later: 5,
                geometry: g(3, 3),
                ..several()
            },
        ),
        holds(
            "P44 two flushes out, checkpoint, no fault, 2 cuts",
            Config {
                flushes: 2,
                inflight: 2,
                checkpoints: 1,
                groups: 3,
                groups_later: 4,
                ..several()
            },
        ),
        holds(
            "P44b two flushes out, pipelined 2, two faults",
            Config { flushes: 2, inflight: 2, groups: 3, groups_later: 4, faults: 2, ..several() },
        ),
    ]
}
