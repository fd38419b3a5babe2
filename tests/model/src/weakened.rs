//! Each clause dropped: a counterexample must be found.

use crate::config::{Config, FaultKind, Proof};
use crate::proofs::{g, rule, shortest};
use crate::runs::Run;
use FaultKind::{MisdirectedWrite, Sticky, Transient};

pub(crate) const ALL: &[FaultKind] = &[Sticky, Transient];

pub(crate) fn weakened() -> Vec<Run> {
    let mut all = groups();
    all.extend(repairs_and_superblock());
    all.extend(writer_and_device());
    all.extend(evidence());
    all
}

pub(crate) fn fails(title: &'static str, config: Config) -> Run {
    Run::new(title, false, config)
}

/// What a group carries.
fn groups() -> Vec<Run> {
    vec![
        fails("X1 one copy only", shortest(Config { copies: 1, inflight: 1, faults: 1, ..rule() })),
        fails(
            "X2 a later valid group counts as evidence",
            shortest(Config { proof: Proof::LaterExists, ..rule() }),
        ),
        fails(
            "X3 durableLsn counts writes issued after the flush began",
            shortest(Config { overlap: true, overlap_build: true, sloppy_durable: true, ..rule() }),
        ),
        fails(
            "X4 no epoch, no chain, no cut",
            shortest(Config {
                use_epoch: false,
                use_chain: false,
                cut: false,
                groups: 3,
                groups_later: 5,
                ..rule()
            }),
        ),
        fails(
            "X4b no epoch, no chain",
            shortest(Config {
                use_epoch: false,
                use_chain: false,
                groups: 4,
                groups_later: 6,
                geometry: g(3, 2),
                ..rule()
            }),
        ),
        fails(
            "X5 no epoch, chain kept, client retries the same bytes",
            shortest(Config {
                use_epoch: false,
                groups: 4,
                groups_later: 6,
                geometry: g(3, 2),
                ..rule()
            }),
        ),
        fails(
            "X6 no group number/LSN check",
            shortest(Config { use_lsn: false, use_chain: false, ..rule() }),
        ),
        fails(
            "X7 no cut in the superblock, 1 transient fault",
            shortest(Config { cut: false, faults: 1, fault_kinds: ALL, ..rule() }),
        ),
        fails(
            "X7b no cut and no chain",
            shortest(Config {
                cut: false,
                use_chain: false,
                faults: 1,
                fault_kinds: ALL,
                ..rule()
            }),
        ),
    ]
}

/// Repairs, and how the superblock is written.
fn repairs_and_superblock() -> Vec<Run> {
    vec![
        fails("X8 no repair", shortest(Config { repair: false, inflight: 1, faults: 1, ..rule() })),
        fails(
            "X9 repair and superblock under one flush",
            shortest(Config {
                repair_flush: false,
                inflight: 1,
                faults: 1,
                cuts: 3,
                groups: 2,
                groups_later: 2,
                ..rule()
            }),
        ),
        fails(
            "X10 verdict shown before repair and cut are durable",
            shortest(Config { expose_early: true, inflight: 1, faults: 1, ..rule() }),
        ),
        fails(
            "X11 superblock: all four copies at once",
            shortest(Config {
                super_all_at_once: true,
                inflight: 1,
                groups: 1,
                groups_later: 2,
                ..rule()
            }),
        ),
        fails(
            "X12 superblock: read quorum 2",
            shortest(Config {
                super_quorum: 2,
                inflight: 1,
                faults: 1,
                groups: 1,
                groups_later: 2,
                ..rule()
            }),
        ),
        fails(
            "X12b superblock: read quorum 2, act after first pair, 1 fault",
            shortest(Config {
                super_quorum: 2,
                super_act_after: 1,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 1,
                ..rule()
            }),
        ),
        fails(
            "X13 superblock: act after first pair, fixed write order",
            shortest(Config {
                check_same: false,
                super_act_after: 1,
                super_oldest_first: false,
                inflight: 1,
                cuts: 3,
                groups: 1,
                groups_later: 3,
                ..rule()
            }),
        ),
        fails(
            "X13c superblock: act after first pair, oldest first only at the mount",
            shortest(Config {
                geometry: g(4, 1),
                super_act_after: 1,
                free_and_reserve: true,
                checkpoints: 1,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                ..rule()
            }),
        ),
        fails(
            "X14 superblock: fixed write order, act after both",
            shortest(Config {
                super_oldest_first: false,
                inflight: 1,
                groups: 1,
                groups_later: 2,
                cuts: 3,
                faults: 1,
                ..rule()
            }),
        ),
    ]
}

/// The writer, the device, reuse.
fn writer_and_device() -> Vec<Run> {
    vec![
        fails(
            "X16 checkpoint and superblock under one flush",
            shortest(Config { checkpoint_unflushed: true, checkpoints: 1, inflight: 1, ..rule() }),
        ),
        fails(
            "X17 freed segment written at once",
            shortest(Config {
                geometry: g(4, 1),
                super_act_after: 0,
                free_and_reserve: true,
                checkpoints: 1,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                ..rule()
            }),
        ),
        fails(
            "X17b freed segment written after the first pair, mount too",
            shortest(Config {
                geometry: g(4, 1),
                super_act_after: 1,
                super_oldest_first: false,
                free_and_reserve: true,
                checkpoints: 1,
                inflight: 1,
                groups: 3,
                groups_later: 4,
                ..rule()
            }),
        ),
        fails(
            "X18 LSNs reused after DataLoss, pipelined, two faults",
            shortest(Config {
                lsn_reuse: true,
                geometry: g(4, 4),
                inflight: 2,
                groups: 4,
                groups_later: 5,
                faults: 2,
                ..rule()
            }),
        ),
        fails(
            "X19 goes on after a failed flush",
            shortest(Config {
                flush_fails: true,
                go_on_after_failure: true,
                inflight: 2,
                ..rule()
            }),
        ),
        fails(
            "X20 re-open reads the cache, no flush first",
            shortest(Config { cached_reopen: true, inflight: 1, ..rule() }),
        ),
        fails(
            "X20b re-open after a failed flush reads the cache",
            shortest(Config {
                check_same: false,
                cached_reopen: true,
                flush_fails: true,
                inflight: 1,
                ..rule()
            }),
        ),
        fails(
            "X21 zone in the tag, misdirected write",
            shortest(Config {
                zone_in_tag: true,
                inflight: 1,
                faults: 1,
                stale: true,
                fault_kinds: &[MisdirectedWrite],
                ..rule()
            }),
        ),
        fails(
            "X27 block smaller than the physical sector",
            shortest(Config { shared_sector: true, inflight: 1, ..rule() }),
        ),
        fails(
            "X22 same epoch for every use, no chain",
            shortest(Config {
                fresh_epoch: false,
                use_chain: false,
                groups: 4,
                groups_later: 6,
                geometry: g(3, 2),
                ..rule()
            }),
        ),
    ]
}

/// Where evidence is looked for.
fn evidence() -> Vec<Run> {
    vec![
        fails(
            "X28 heads of unlisted segments are not read, checkpoint, two faults",
            shortest(Config {
                scan_heads: false,
                checkpoints: 1,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
        fails(
            "X23 tag over header and payload only together, two faults",
            shortest(Config {
                header_tag: false,
                geometry: g(4, 3),
                len_max: 2,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
        fails(
            "X24 recovery does not look at the next listed use",
            shortest(Config {
                moved_on: false,
                inflight: 1,
                geometry: g(4, 3),
                len_max: 2,
                ..rule()
            }),
        ),
        fails(
            "X25 superblock carries no durableLsn, two faults",
            shortest(Config {
                super_evidence: false,
                scan_heads: false,
                geometry: g(4, 1),
                inflight: 1,
                groups: 3,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
        fails(
            "X26 no evidence at all, two faults",
            shortest(Config {
                proof: Proof::Nothing,
                inflight: 1,
                groups: 2,
                groups_later: 3,
                faults: 2,
                ..rule()
            }),
        ),
    ]
}
