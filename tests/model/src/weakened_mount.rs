//! Each clause of the real mount dropped: a counterexample must be found.

use crate::config::{AtCut, Config, MountCheckpoint, MountVouch, Target};
use crate::proofs::{g, rule, shortest};
use crate::proofs_mount::{combined, placed};
use crate::proofs_space::keeping;
use crate::runs::Run;
use crate::weakened::{ALL, fails};

pub(crate) fn weakened() -> Vec<Run> {
    let mut all = in_place();
    all.extend(chained());
    all.extend(at_the_cut());
    all.extend(mount_with_checkpoint());
    all.extend(one_free());
    all
}

/// What lies behind a closed use, and before a later one.
fn chained() -> Vec<Run> {
    vec![
        fails(
            "X48 a use ends with a loss before a later one, two faults",
            shortest(Config {
                loss_in_cut: true,
                inflight: 1,
                strict: true,
                groups: 4,
                groups_later: 6,
                faults: 2,
                ..rule()
            }),
        ),
        fails(
            "X47 the chain leads on from a closed use, two faults, one transient",
            shortest(Config {
                chain_across: true,
                groups: 2,
                groups_later: 3,
                cuts: 3,
                faults: 2,
                fault_kinds: ALL,
                ..rule()
            }),
        ),
    ]
}

/// Mounts in place.
fn in_place() -> Vec<Run> {
    vec![
        fails(
            "X29 in place under the same epoch, 1 transient fault",
            shortest(Config {
                fresh_epoch: false,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                cuts: 3,
                faults: 1,
                fault_kinds: ALL,
                ..placed()
            }),
        ),
        fails(
            "X29b in place under the same epoch, no chain",
            shortest(Config {
                fresh_epoch: false,
                use_chain: false,
                groups: 3,
                groups_later: 5,
                cuts: 3,
                ..placed()
            }),
        ),
        fails(
            "X30 in place without the cut of the old use",
            shortest(Config { cut: false, faults: 1, fault_kinds: ALL, ..placed() }),
        ),
        fails(
            "X31 in place, written after the first pair, fixed write order",
            shortest(Config {
                check_same: false,
                super_act_after: 1,
                super_oldest_first: false,
                inflight: 1,
                cuts: 3,
                groups: 2,
                groups_later: 4,
                ..placed()
            }),
        ),
        fails(
            "X32 in place at the first block instead of behind the last accepted group",
            shortest(Config { in_place_behind: false, inflight: 1, ..placed() }),
        ),
        fails(
            "X33 a segment counts as free when no listed use begins at its first block",
            shortest(Config {
                free_by_segment: false,
                free_and_reserve: true,
                checkpoints: 1,
                cuts: 3,
                geometry: g(3, 3),
                ..keeping()
            }),
        ),
        fails(
            "X34 X is looked for beyond the cut of a closed use, two faults",
            shortest(Config {
                later_within_cut: false,
                inflight: 2,
                groups: 3,
                groups_later: 4,
                faults: 2,
                cuts: 3,
                ..placed()
            }),
        ),
    ]
}

/// Mounts at the cut of a checkpoint.
fn at_the_cut() -> Vec<Run> {
    let cut = |at_cut| Config { at_cut, checkpoints: 1, groups_later: 4, ..placed() };
    vec![
        fails(
            "X44 at the cut under the epoch of the use that was cut",
            shortest(cut(AtCut::OldEpoch)),
        ),
        fails(
            "X45 at the cut although groups behind it were accepted",
            shortest(Config { inflight: 1, ..cut(AtCut::OverAccepted) }),
        ),
        fails(
            "X46 at the cut, whose segment counts as free for the next use",
            shortest(Config { inflight: 1, geometry: g(4, 2), ..cut(AtCut::SegmentFree) }),
        ),
    ]
}

/// Mounts combined with a checkpoint.
fn mount_with_checkpoint() -> Vec<Run> {
    let at_once = || Config {
        target: Target::FreeInEveryCopy,
        inflight: 1,
        groups: 2,
        groups_later: 3,
        cuts: 3,
        ..combined()
    };
    vec![
        fails(
            "X35 mount's checkpoint in a segment that an older superblock copy names, 1 fault",
            shortest(Config { target: Target::FreeInChosen, faults: 1, ..at_once() }),
        ),
        fails(
            "X35b mount's checkpoint over one that an unreadable superblock copy names, 1 transient fault",
            shortest(Config { faults: 1, fault_kinds: ALL, geometry: g(3, 2), ..at_once() }),
        ),
        fails(
            "X36 mount's checkpoint vouches under the flush of the repairs, 1 fault",
            shortest(Config { vouch: MountVouch::WithLast, faults: 1, ..at_once() }),
        ),
        fails(
            "X37 mount's checkpoint and superblock under one flush",
            shortest(Config { mount_checkpoint_flush: false, inflight: 1, ..combined() }),
        ),
        fails(
            "X38 mount's checkpoint overwrites the evidence of a loss, two faults",
            shortest(Config { faults: 2, ..at_once() }),
        ),
        fails(
            "X38b the writer's checkpoint forgets the losses, two faults",
            shortest(Config {
                carry_losses: false,
                checkpoints: 1,
                inflight: 1,
                groups: 2,
                groups_later: 4,
                faults: 2,
                cuts: 2,
                ..placed()
            }),
        ),
        fails(
            "X38c mount's checkpoint forgets the losses, two faults",
            shortest(Config {
                carry_losses: false,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                cuts: 3,
                ..combined()
            }),
        ),
        fails(
            "X43 mount with checkpoint, no repairs, two faults",
            shortest(Config {
                vouch: MountVouch::EvidenceOnly,
                groups: 1,
                groups_later: 2,
                faults: 2,
                cuts: 4,
                ..at_once()
            }),
        ),
    ]
}

/// One segment kept free, and several flushes.
fn one_free() -> Vec<Run> {
    vec![
        fails(
            "X39 the writer reserves the last free segment",
            shortest(Config { reserve_leaves_free: false, geometry: g(4, 1), ..keeping() }),
        ),
        fails(
            "X40 a checkpoint that leaves no segment free",
            shortest(Config {
                checkpoint_leaves_free: false,
                checkpoints: 1,
                inflight: 3,
                geometry: g(3, 2),
                ..keeping()
            }),
        ),
        fails(
            "X41 a mount never writes a checkpoint",
            shortest(Config {
                mount_checkpoint: MountCheckpoint::Never,
                geometry: g(3, 1),
                cuts: 3,
                ..keeping()
            }),
        ),
        fails(
            "X42 a returning flush is taken for the newest one out",
            shortest(Config {
                newest_flush: true,
                overlap: true,
                overlap_build: true,
                flushes: 2,
                ..rule()
            }),
        ),
    ]
}
