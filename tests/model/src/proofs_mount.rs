//! The rule holds with what a real mount does: it goes on in place, and writes a checkpoint when it
//! must, before or after it serves.

use crate::config::{AtCut, Config, FaultKind, Fresh, MountCheckpoint, MountVouch};
use crate::proofs::{g, holds, one, rule};
use crate::proofs_space::keeping;
use crate::runs::Run;
use FaultKind::MisdirectedWrite;

pub(crate) fn proofs() -> Vec<Run> {
    let mut all = in_place();
    all.extend(at_the_cut());
    all.extend(mount_with_checkpoint());
    all.extend(serve_first());
    all
}

/// The rule with mounts in place.
pub(crate) fn placed() -> Config {
    Config { fresh: Fresh::InPlace, geometry: g(4, 3), ..rule() }
}

pub(crate) fn placed_one() -> Config {
    Config { fresh: Fresh::InPlace, geometry: g(3, 3), ..one() }
}

/// The mount's fresh use begins behind the last accepted group.
fn in_place() -> Vec<Run> {
    vec![
        holds(
            "P23 in place, no fault, pipelined 3, flush overlaps writes, 4 cuts",
            Config {
                overlap: true,
                overlap_build: true,
                cuts: 4,
                groups: 3,
                groups_later: 5,
                geometry: g(3, 3),
                ..placed()
            },
        ),
        holds(
            "P24 in place, 1 fault any kind, pipelined 2, 3 cuts",
            Config { inflight: 2, groups: 2, groups_later: 4, cuts: 3, ..placed_one() },
        ),
        holds(
            "P24b in place, 1 fault any kind, one at a time, 3 cuts",
            Config { inflight: 1, groups: 3, groups_later: 5, cuts: 3, ..placed_one() },
        ),
        holds(
            "P25 in place, groups of 1-2 blocks, 1 fault, 2 cuts",
            Config {
                len_max: 2,
                inflight: 2,
                groups: 2,
                groups_later: 4,
                faults: 1,
                stale: true,
                geometry: g(3, 4),
                ..placed()
            },
        ),
        holds(
            "P25b in place, groups of 1-2 blocks, no fault, 3 cuts",
            Config { len_max: 2, inflight: 2, groups: 2, groups_later: 4, cuts: 3, ..placed() },
        ),
        holds(
            "P26 in place, two faults, pipelined 2, 3 cuts",
            Config { inflight: 2, groups: 3, groups_later: 4, faults: 2, cuts: 3, ..placed() },
        ),
        holds(
            "P26b in place over a loss too, two faults, pipelined 2, 3 cuts",
            Config {
                in_place_over_loss: true,
                inflight: 2,
                groups: 3,
                groups_later: 4,
                faults: 2,
                cuts: 3,
                ..placed()
            },
        ),
        holds(
            "P26c in place, two faults, strict, pipelined 2, checkpoint",
            Config {
                strict: true,
                checkpoints: 1,
                inflight: 2,
                groups: 3,
                groups_later: 4,
                faults: 2,
                ..placed()
            },
        ),
        holds(
            "P26d in place, groups of 1-2 blocks, two faults",
            Config { len_max: 2, inflight: 1, groups: 2, groups_later: 3, faults: 2, ..placed() },
        ),
        holds(
            "P27 in place or not, two checkpoints and reuse, no fault, 3 cuts",
            Config {
                fresh: Fresh::Either,
                checkpoints: 2,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                cuts: 3,
                geometry: g(4, 2),
                ..placed()
            },
        ),
        holds(
            "P27b in place, checkpoint, drop and reuse in one superblock, 1 fault any kind, 2 cuts",
            Config {
                checkpoints: 2,
                free_and_reserve: true,
                inflight: 1,
                groups: 3,
                groups_later: 5,
                geometry: g(3, 2),
                ..placed_one()
            },
        ),
        holds(
            "P27c in place, checkpoint, the log goes on behind it, 1 fault, 3 cuts",
            Config {
                checkpoints: 1,
                free_and_reserve: true,
                behind_checkpoint: true,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                faults: 1,
                stale: true,
                cuts: 3,
                geometry: g(4, 2),
                ..placed()
            },
        ),
        holds(
            "P27d in place, checkpoint, two faults",
            Config {
                checkpoints: 1,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                faults: 2,
                ..placed()
            },
        ),
        holds(
            "P28 in place, other payloads after a cut, no fault, 4 cuts",
            Config { retry: false, inflight: 2, cuts: 4, groups: 3, groups_later: 6, ..placed() },
        ),
        holds(
            "P29 in place, misdirected writes, checkpoint, 2 cuts",
            Config {
                inflight: 1,
                checkpoints: 1,
                groups: 3,
                groups_later: 4,
                faults: 1,
                stale: true,
                fault_kinds: &[MisdirectedWrite],
                geometry: g(3, 3),
                ..placed()
            },
        ),
        holds(
            "P30 in place, failed flushes, pipelined 2, 1 fault, 3 cuts",
            Config {
                flush_fails: true,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                faults: 1,
                cuts: 3,
                ..placed()
            },
        ),
        holds(
            "P31 in place, no chain check, 1 fault any kind, 3 cuts",
            Config {
                use_chain: false,
                inflight: 2,
                groups: 2,
                groups_later: 4,
                cuts: 3,
                ..placed_one()
            },
        ),
    ]
}

/// Nothing behind the writer's checkpoint: the mount's fresh use begins where that cut the log.
fn at_the_cut() -> Vec<Run> {
    let cut = |c: Config| Config { checkpoints: 1, groups: 2, groups_later: 4, ..c };
    vec![
        holds(
            "P49 at the cut of a checkpoint, no fault, pipelined 3, flush overlaps writes, 4 cuts",
            Config { overlap: true, overlap_build: true, cuts: 4, ..cut(placed()) },
        ),
        holds(
            "P49b at the cut, other payloads after a cut, two checkpoints, no fault, 4 cuts",
            Config { retry: false, checkpoints: 2, inflight: 2, cuts: 4, ..cut(placed()) },
        ),
        holds(
            "P49c at the cut, 1 fault any kind, pipelined 2, 2 cuts",
            Config { inflight: 2, ..cut(placed_one()) },
        ),
        holds(
            "P49d at the cut, 1 fault, one at a time, 3 cuts",
            Config { inflight: 1, faults: 1, stale: true, cuts: 3, ..cut(placed()) },
        ),
        holds(
            "P49e at the cut, groups of 1-2 blocks, 1 fault, 2 cuts",
            Config {
                len_max: 2,
                inflight: 2,
                groups_later: 3,
                faults: 1,
                stale: true,
                ..cut(placed())
            },
        ),
        holds(
            "P49f at the cut, groups of 1-2 blocks, no fault, 3 cuts",
            Config { len_max: 2, inflight: 2, geometry: g(3, 4), cuts: 3, ..cut(placed()) },
        ),
        holds(
            "P49g at the cut, two faults, pipelined 2, 3 cuts",
            Config { inflight: 2, groups_later: 3, faults: 2, cuts: 3, ..cut(placed()) },
        ),
        holds(
            "P49h at the cut over a loss too, two faults, pipelined 2, 3 cuts",
            Config {
                at_cut: AtCut::OverLoss,
                inflight: 2,
                groups_later: 3,
                faults: 2,
                cuts: 3,
                ..cut(placed())
            },
        ),
        holds(
            "P49i at the cut, two faults, strict, pipelined 2, 3 cuts",
            Config { strict: true, inflight: 2, faults: 2, cuts: 3, ..cut(placed()) },
        ),
        holds(
            "P49j at the cut, failed flushes, pipelined 2, 1 fault, 3 cuts",
            Config { flush_fails: true, inflight: 2, faults: 1, cuts: 3, ..cut(placed()) },
        ),
    ]
}

/// Every mount writes a checkpoint, the hardest case.
pub(crate) fn combined() -> Config {
    Config { mount_checkpoint: MountCheckpoint::Always, fresh: Fresh::InPlace, ..rule() }
}

pub(crate) fn combined_one() -> Config {
    Config { mount_checkpoint: MountCheckpoint::Always, fresh: Fresh::InPlace, ..one() }
}

/// A mount writes a checkpoint of what recovery accepted and drops the log.
fn mount_with_checkpoint() -> Vec<Run> {
    let needed = MountCheckpoint::Needed;
    vec![
        holds(
            "P32 mount with checkpoint, no fault, pipelined 3, 4 cuts",
            Config { cuts: 4, groups: 3, groups_later: 5, ..combined() },
        ),
        holds(
            "P33 mount with checkpoint, 1 fault any kind, pipelined 2, 3 cuts",
            Config {
                inflight: 2,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                geometry: g(3, 2),
                ..combined_one()
            },
        ),
        holds(
            "P33b mount with checkpoint, groups of 1-2 blocks, 1 fault, 3 cuts",
            Config {
                len_max: 2,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                faults: 1,
                stale: true,
                ..combined()
            },
        ),
        holds(
            "P34 mount with checkpoint, misdirected writes, 3 cuts",
            Config {
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                faults: 1,
                stale: true,
                fault_kinds: &[MisdirectedWrite],
                ..combined()
            },
        ),
        holds(
            "P35 mount's checkpoint goes out with the second superblock pair, 1 fault any kind, 3 cuts",
            Config {
                vouch: MountVouch::WithLast,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                geometry: g(3, 2),
                ..combined_one()
            },
        ),
        holds(
            "P36 mount with checkpoint, the log goes on behind it, 1 fault any kind, 3 cuts",
            Config {
                behind_checkpoint: true,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                geometry: g(3, 3),
                ..combined_one()
            },
        ),
        holds(
            "P36b mount with checkpoint, the log behind it, no fault, 4 cuts",
            Config {
                behind_checkpoint: true,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                cuts: 4,
                geometry: g(3, 3),
                ..combined()
            },
        ),
        holds(
            "P37 mount with checkpoint, two faults, pipelined 2, 3 cuts",
            Config { inflight: 2, groups: 2, groups_later: 3, faults: 2, cuts: 3, ..combined() },
        ),
        holds(
            "P37b mount with checkpoint, the log behind it, two faults, 3 cuts",
            Config {
                behind_checkpoint: true,
                inflight: 1,
                groups: 2,
                groups_later: 4,
                faults: 2,
                cuts: 3,
                ..combined()
            },
        ),
        holds(
            "P38 short list, in place, mount with checkpoint when needed, no fault, 4 cuts",
            Config {
                mount_checkpoint: needed,
                uses_max: 3,
                reserve_ahead: true,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                cuts: 4,
                geometry: g(3, 3),
                ..combined()
            },
        ),
        holds(
            "P38b short list, in place, mount with checkpoint when needed, 1 fault any kind, 3 cuts",
            Config {
                mount_checkpoint: needed,
                uses_max: 3,
                inflight: 1,
                groups: 2,
                groups_later: 4,
                cuts: 3,
                geometry: g(3, 3),
                ..combined_one()
            },
        ),
        holds(
            "P39 mounts and the writer write checkpoints, 1 fault, 3 cuts",
            Config {
                checkpoints: 1,
                free_and_reserve: true,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                faults: 1,
                stale: true,
                ..combined()
            },
        ),
    ]
}

/// The mount settles and serves; the checkpoint it owes is the running writer's first act.
fn serve_first() -> Vec<Run> {
    let first = || Config { serve_first: true, free_and_reserve: true, ..combined() };
    vec![
        holds(
            "P45 serve, then checkpoint, no fault, pipelined 3, 4 cuts",
            Config { cuts: 4, groups: 3, groups_later: 5, ..first() },
        ),
        holds(
            "P45b serve, then checkpoint, 1 fault any kind, pipelined 2, 3 cuts",
            Config {
                serve_first: true,
                inflight: 2,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                geometry: g(3, 2),
                ..combined_one()
            },
        ),
        holds(
            "P46 serve, then checkpoint, the log behind it, 1 fault any kind, 3 cuts",
            Config {
                serve_first: true,
                behind_checkpoint: true,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                geometry: g(3, 3),
                ..combined_one()
            },
        ),
        holds(
            "P47 serve, then checkpoint, two faults, pipelined 2, 3 cuts",
            Config { inflight: 2, groups: 2, groups_later: 3, faults: 2, cuts: 3, ..first() },
        ),
        holds(
            "P48 serve, then checkpoint when needed, one free of 3 segments, short list, 1 fault, 3 cuts",
            Config {
                serve_first: true,
                checkpoints: 1,
                free_and_reserve: true,
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
