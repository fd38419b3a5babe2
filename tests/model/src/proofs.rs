//! The rule holds: every promise, over every reachable state of each bound.

use crate::config::{Config, FaultKind, Proof};
use crate::disk::Geometry;
use crate::runs::Run;
use FaultKind::{MisdirectedWrite, Sticky, Transient};

pub(crate) fn proofs() -> Vec<Run> {
    let mut all = recovery();
    all.extend(superblock_and_checkpoint());
    all.extend(two_faults());
    all.extend(healed());
    all.extend(not_needed());
    all
}

/// The rule, one fault of any kind, older and misdirected contents.
pub(crate) fn one() -> Config {
    Config { faults: 1, stale: true, misdirect: true, fault_kinds: &[Sticky, Transient], ..rule() }
}

pub(crate) fn rule() -> Config {
    Config::rule()
}

/// Breadth first, with traces.
pub(crate) fn shortest(config: Config) -> Config {
    Config { shortest: true, trace: true, ..config }
}

pub(crate) fn g(segs: u8, blocks: u8) -> Geometry {
    Geometry { segs, blocks }
}

pub(crate) fn holds(title: &'static str, config: Config) -> Run {
    Run::new(title, true, config)
}

/// Groups, flushes and cuts.
fn recovery() -> Vec<Run> {
    vec![
        holds(
            "P1 no fault, pipelined 3, flush overlaps writes, 4 crashes",
            Config {
                geometry: g(5, 2),
                overlap: true,
                overlap_build: true,
                cuts: 4,
                groups: 4,
                groups_later: 6,
                ..rule()
            },
        ),
        holds(
            "P2 one at a time, 4+2 groups, 1 fault any kind, 3 crashes",
            Config { geometry: g(5, 2), inflight: 1, groups: 4, groups_later: 6, cuts: 3, ..one() },
        ),
        holds(
            "P3 pipelined 2, 1 fault any kind, 3 crashes",
            Config { inflight: 2, groups: 2, groups_later: 4, cuts: 3, ..one() },
        ),
        holds(
            "P4 pipelined 3, overlap, 1 sticky fault, 3 crashes",
            Config {
                geometry: g(5, 2),
                overlap: true,
                overlap_build: true,
                groups: 4,
                groups_later: 6,
                cuts: 3,
                faults: 1,
                ..rule()
            },
        ),
        holds(
            "P5 groups of 1-2 blocks, 1 fault, 2 crashes",
            Config {
                geometry: g(4, 3),
                len_max: 2,
                inflight: 2,
                groups: 3,
                groups_later: 4,
                faults: 1,
                stale: true,
                ..rule()
            },
        ),
        holds(
            "P8 failed flushes, pipelined 2, 1 fault, 3 crashes",
            Config {
                flush_fails: true,
                inflight: 2,
                groups: 3,
                groups_later: 5,
                faults: 1,
                cuts: 3,
                ..rule()
            },
        ),
        holds(
            "P12 other payloads after a crash, no fault, 4 crashes",
            Config {
                geometry: g(5, 2),
                retry: false,
                inflight: 2,
                cuts: 4,
                groups: 3,
                groups_later: 6,
                ..rule()
            },
        ),
    ]
}

/// Superblock updates, checkpoints, reuse.
fn superblock_and_checkpoint() -> Vec<Run> {
    vec![
        holds(
            "P6 two checkpoints and reuse, no fault, 3 crashes",
            Config {
                geometry: g(5, 2),
                checkpoints: 2,
                inflight: 2,
                groups: 4,
                groups_later: 6,
                cuts: 3,
                ..rule()
            },
        ),
        holds(
            "P7 checkpoint, drop and reuse in one superblock, 1 fault any kind, 2 crashes",
            Config {
                geometry: g(4, 1),
                checkpoints: 2,
                free_and_reserve: true,
                inflight: 1,
                groups: 3,
                groups_later: 5,
                ..one()
            },
        ),
        holds(
            "P7b checkpoint and reuse, 1 fault, 3 crashes",
            Config {
                geometry: g(5, 2),
                checkpoints: 1,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                cuts: 3,
                faults: 1,
                stale: true,
                ..rule()
            },
        ),
        holds(
            "P13 misdirected writes, checkpoint, 2 crashes",
            Config {
                inflight: 1,
                checkpoints: 1,
                groups: 3,
                groups_later: 4,
                faults: 1,
                stale: true,
                fault_kinds: &[MisdirectedWrite],
                ..rule()
            },
        ),
        holds(
            "P19 superblock: act after first pair, oldest first, 1 fault, 4 crashes",
            Config {
                super_act_after: 1,
                inflight: 1,
                cuts: 4,
                groups: 1,
                groups_later: 3,
                faults: 1,
                ..rule()
            },
        ),
    ]
}

/// Two faults: what is called torn has no evidence anywhere.
fn two_faults() -> Vec<Run> {
    vec![
        holds(
            "P9 two faults, one at a time",
            shortest(Config { inflight: 1, groups: 3, groups_later: 4, faults: 2, ..rule() }),
        ),
        holds(
            "P10 two faults, pipelined 2",
            Config { inflight: 2, groups: 3, groups_later: 4, faults: 2, ..rule() },
        ),
        holds(
            "P11 two faults, strict",
            Config { inflight: 1, strict: true, groups: 4, groups_later: 6, faults: 2, ..rule() },
        ),
        holds(
            "P15 groups of 1-2 blocks, two faults",
            shortest(Config {
                geometry: g(4, 3),
                len_max: 2,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
        holds(
            "P18 checkpoint, two faults",
            shortest(Config {
                checkpoints: 1,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
        holds(
            "P22 two faults, strict, pipelined 2, checkpoint",
            Config {
                strict: true,
                inflight: 2,
                checkpoints: 1,
                groups: 3,
                groups_later: 4,
                faults: 2,
                ..rule()
            },
        ),
    ]
}

/// What was read in no copy once is read again.
fn healed() -> Vec<Run> {
    vec![holds(
        "P51 two faults of any kind, 3 cuts",
        Config {
            groups: 2,
            groups_later: 3,
            cuts: 3,
            faults: 2,
            fault_kinds: &[Sticky, Transient],
            ..rule()
        },
    )]
}

/// Clauses that no promise rests on.
fn not_needed() -> Vec<Run> {
    vec![
        holds(
            "P14 no chain check, 1 fault any kind, 3 crashes",
            Config { use_chain: false, inflight: 2, groups: 2, groups_later: 4, cuts: 3, ..one() },
        ),
        holds(
            "P14b no chain check, checkpoints, two faults",
            Config {
                use_chain: false,
                inflight: 2,
                checkpoints: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            },
        ),
        holds(
            "P16 one at a time, later-exists as evidence, two faults",
            Config {
                proof: Proof::LaterExists,
                inflight: 1,
                groups: 4,
                groups_later: 5,
                faults: 2,
                ..rule()
            },
        ),
        holds(
            "P17 no majority among equal sequence numbers, 1 fault any kind, 3 crashes",
            Config {
                super_majority: false,
                inflight: 1,
                groups: 1,
                groups_later: 2,
                cuts: 3,
                ..one()
            },
        ),
        holds(
            "P20 no LSN check, chain kept everywhere, no fault",
            Config { use_lsn: false, chain_across: true, ..rule() },
        ),
        holds(
            "P21 no epoch, chain kept, payloads always differ, no fault",
            Config {
                use_epoch: false,
                retry: false,
                groups: 4,
                groups_later: 6,
                geometry: g(3, 2),
                ..rule()
            },
        ),
    ]
}
