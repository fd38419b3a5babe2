//! What a run explores, and one switch per clause of the rule.

use crate::disk::Geometry;

/// How a damaged block behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Until it is rewritten.
    Sticky,
    /// For one recovery only.
    Transient,
    /// One write landed elsewhere: its victim is overwritten, its target stale.
    MisdirectedWrite,
}

/// What counts as proof that an unreadable group was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A surviving `durableLsn`. The rule.
    DurableLsn,
    /// Weakened: any later valid group.
    LaterExists,
    /// Weakened: nothing.
    Nothing,
}

/// Where the fresh use of a mount begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// In a free segment, always.
    FreeSegment,
    /// Behind the last accepted group of the last use where there is room, else in a free segment.
    InPlace,
    /// Either of the two, both explored.
    Either,
}

/// Whether a mount goes on where a checkpoint cut the first listed use (start > 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtCut {
    /// Never.
    Never,
    /// Where recovery accepted nothing and lost nothing, under a fresh epoch. The rule.
    NothingBehind,
    /// Even where a loss lies behind the cut.
    OverLoss,
    /// Weakened: even where groups behind it were accepted.
    OverAccepted,
    /// Weakened: under the epoch of the use that was cut.
    OldEpoch,
    /// Weakened: its segment, in which nothing was accepted, counts as free.
    SegmentFree,
}

/// When a mount writes a checkpoint of what recovery accepted and drops the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MountCheckpoint {
    /// Never.
    Never,
    /// When the list of uses is full or fewer than two segments are free.
    Needed,
    /// At every mount, as long as a segment is free.
    Always,
}

/// When a mount may write its checkpoint to a free segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// After it has made the chosen list, closed by cuts, durable in all four superblock copies
    /// ("settled"): no other list can ever win. The rule.
    Settled,
    /// Weakened: at once, if no valid superblock copy names the segment; else settle.
    FreeInEveryCopy,
    /// Weakened: at once, if the chosen superblock does not name the segment.
    FreeInChosen,
}

/// What makes the evidence of a mount's checkpoint true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MountVouch {
    /// All that was accepted is repaired and flushed before it. The rule.
    RepairFirst,
    /// It goes out with what was written last: the second superblock pair, or, weakened, with the
    /// repairs where the mount does not settle.
    WithLast,
    /// Weakened: no repairs, the log is dropped anyway; it vouches for D as recovery saw it.
    EvidenceOnly,
}

/// A run: bounds of the world, then the rule's clauses. [`Config::rule`] is the rule.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of the log region.
    pub geometry: Geometry,
    /// Copies of a group.
    pub copies: u8,
    /// Groups written before the first cut.
    pub groups: u8,
    /// Groups written in all.
    pub groups_later: u8,
    /// Groups whose flush has not returned, at most.
    pub inflight: usize,
    /// Blocks of a group, at most.
    pub len_max: u8,
    /// Power cuts.
    pub cuts: u8,
    /// Checkpoints of the running writer.
    pub checkpoints: u8,
    /// Issue and return of a flush are apart.
    pub overlap: bool,
    /// Groups are written while a flush is out.
    pub overlap_build: bool,
    /// Flushes out at one time, with `overlap`.
    pub flushes: usize,
    /// After a cut the client repeats the same bytes.
    pub retry: bool,
    /// Acknowledge only what a flushed structure vouches for.
    pub strict: bool,
    /// Flushes may fail.
    pub flush_fails: bool,
    /// Faults in all.
    pub faults: u8,
    /// A block may read as its older content.
    pub stale: bool,
    /// A block may read as any other block.
    pub misdirect: bool,
    /// Kinds of fault.
    pub fault_kinds: &'static [FaultKind],
    /// Uses that a superblock can list.
    pub uses_max: usize,

    /// Evidence of durability.
    pub proof: Proof,
    /// The superblock carries `durableLsn`.
    pub super_evidence: bool,
    /// Groups carry the epoch.
    pub use_epoch: bool,
    /// Groups chain to the one before.
    pub use_chain: bool,
    /// Weakened: the chain leads on from a closed use.
    pub chain_across: bool,
    /// Weakened: a use ends with what is lost between it and a group of a later one.
    pub loss_in_cut: bool,
    /// Groups carry the LSN.
    pub use_lsn: bool,
    /// Weakened: the zone is in the tag.
    pub zone_in_tag: bool,
    /// The header has a tag of its own.
    pub header_tag: bool,
    /// Recovery looks at the next listed use.
    pub moved_on: bool,
    /// Recovery reads the first block of every segment for evidence.
    pub scan_heads: bool,
    /// In a closed use X lies at or below the cut.
    pub later_within_cut: bool,
    /// The superblock closes old uses with their cut.
    pub cut: bool,
    /// Every listing has a fresh epoch.
    pub fresh_epoch: bool,
    /// Weakened: LSNs are given out again after `DataLoss`.
    pub lsn_reuse: bool,
    /// Recovery repairs copies that do not verify.
    pub repair: bool,
    /// Repairs are flushed before the superblock.
    pub repair_flush: bool,
    /// Weakened: the verdict is shown before it is durable.
    pub expose_early: bool,
    /// Equal superblock copies a reader asks for.
    pub super_quorum: usize,
    /// Among equal sequence numbers the content in more copies wins.
    pub super_majority: bool,
    /// Superblock pairs that must be durable before anything relies on the update.
    pub super_act_after: u8,
    /// Weakened: all four copies under one flush.
    pub super_all_at_once: bool,
    /// The two oldest copies are written first.
    pub super_oldest_first: bool,
    /// Weakened: checkpoint and superblock under one flush.
    pub checkpoint_unflushed: bool,
    /// The update that adopts a checkpoint lists a freed segment as the reserved use.
    pub free_and_reserve: bool,
    /// The log may go on behind a checkpoint, in its segment.
    pub behind_checkpoint: bool,
    /// A checkpoint carries on the losses reported before it.
    pub carry_losses: bool,
    /// Weakened: `durableLsn` counts what was written after the flush was issued.
    pub sloppy_durable: bool,
    /// Weakened: a returning flush is taken for the newest one issued.
    pub newest_flush: bool,
    /// Weakened: the writer goes on after a failed flush.
    pub go_on_after_failure: bool,
    /// Weakened: a re-open reads the cache and flushes nothing first.
    pub cached_reopen: bool,
    /// Weakened: two blocks share a physical sector.
    pub shared_sector: bool,

    /// Where the mount's fresh use begins.
    pub fresh: Fresh,
    /// The fresh use may begin in place even where a loss lies behind the last accepted group.
    pub in_place_over_loss: bool,
    /// A use in place begins behind the last accepted group; weakened: at the first block.
    pub in_place_behind: bool,
    /// Whether the fresh use may begin at the cut; where `fresh` is not `FreeSegment`.
    pub at_cut: AtCut,
    /// A segment is free only when no listed use is in it; weakened: none at its first block.
    pub free_by_segment: bool,
    /// The writer reserves a next use as soon as it has none.
    pub reserve_ahead: bool,
    /// When a mount writes a checkpoint.
    pub mount_checkpoint: MountCheckpoint,
    /// The mount settles a closed list, serves, and only then the writer writes the checkpoint;
    /// until that is adopted it has no use to append to.
    pub serve_first: bool,
    /// When it may write it.
    pub target: Target,
    /// What it vouches for.
    pub vouch: MountVouch,
    /// The mount flushes its checkpoint before the superblock that names it.
    pub mount_checkpoint_flush: bool,
    /// The writer and the mount keep one segment free.
    pub keep_one_free: bool,
    /// The writer reserves a next use only if another segment stays free; with `keep_one_free`.
    pub reserve_leaves_free: bool,
    /// The writer's checkpoint must leave one segment free; only with `keep_one_free`.
    pub checkpoint_leaves_free: bool,

    /// Assert that a cut inside recovery changes no verdict.
    pub check_same: bool,
    /// Breadth first: the shortest counterexample.
    pub shortest: bool,
    /// Keep traces.
    pub trace: bool,
    /// States after which the run gives up, and says so.
    pub states_max: u64,
}

impl Config {
    /// The rule, without faults, in a small world.
    pub fn rule() -> Self {
        Self {
            geometry: Geometry { segs: 4, blocks: 2 },
            copies: 2,
            groups: 3,
            groups_later: 5,
            inflight: 3,
            len_max: 1,
            cuts: 2,
            checkpoints: 0,
            overlap: false,
            overlap_build: false,
            flushes: 1,
            retry: true,
            strict: false,
            flush_fails: false,
            faults: 0,
            stale: false,
            misdirect: false,
            fault_kinds: &[FaultKind::Sticky],
            uses_max: usize::MAX,
            proof: Proof::DurableLsn,
            super_evidence: true,
            use_epoch: true,
            use_chain: true,
            chain_across: false,
            loss_in_cut: false,
            use_lsn: true,
            zone_in_tag: false,
            header_tag: true,
            moved_on: true,
            scan_heads: true,
            later_within_cut: true,
            cut: true,
            fresh_epoch: true,
            lsn_reuse: false,
            repair: true,
            repair_flush: true,
            expose_early: false,
            super_quorum: 1,
            super_majority: true,
            super_act_after: 2,
            super_all_at_once: false,
            super_oldest_first: true,
            checkpoint_unflushed: false,
            free_and_reserve: false,
            behind_checkpoint: false,
            carry_losses: true,
            sloppy_durable: false,
            newest_flush: false,
            go_on_after_failure: false,
            cached_reopen: false,
            shared_sector: false,
            fresh: Fresh::FreeSegment,
            in_place_over_loss: false,
            in_place_behind: true,
            at_cut: AtCut::NothingBehind,
            free_by_segment: true,
            reserve_ahead: false,
            mount_checkpoint: MountCheckpoint::Never,
            serve_first: false,
            target: Target::Settled,
            vouch: MountVouch::RepairFirst,
            mount_checkpoint_flush: true,
            keep_one_free: false,
            reserve_leaves_free: true,
            checkpoint_leaves_free: true,
            check_same: true,
            shortest: false,
            trace: false,
            states_max: 20_000_000,
        }
    }
}
