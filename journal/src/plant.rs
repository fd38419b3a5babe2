//! Planted faults: rules switched off on purpose, to prove that the suites notice.
//!
//! Without the feature `plant` every question answers *no* at compile time.

use crate::walk::Weakened;

/// Lists the plants once: what each switches off, its variant, and the name that programs take.
macro_rules! plants {
    ($($(#[$what:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule to switch off. T1 to T25 are traces of the recovery model that break without it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Plant {
            $($(#[$what])* $variant,)*
        }

        impl Plant {
            /// Every plant, by the name that the simulator takes.
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

plants! {
    /// Acknowledge before the flush.
    AckBeforeFlush = "ack-before-flush",
    /// Count writes that were issued after the flush began as covered by it (T17).
    LateWrites = "late-writes",
    /// Take a later group as proof that the gap before it was durable (T7).
    LaterProves = "later-proves",
    /// Update the superblock copies in a fixed order (T1).
    SuperblockOrder = "superblock-order",
    /// Believe a superblock only if two copies agree (T2).
    SuperblockQuorum = "superblock-quorum",
    /// Leave the uses of earlier mounts open (T3).
    NoCut = "no-cut",
    /// Repair nothing at a mount (T4).
    SkipRepair = "skip-repair",
    /// Write repairs and the superblock under one flush (T5).
    RepairUnflushed = "repair-unflushed",
    /// Do not look at the next listed use (T6).
    NextUnseen = "next-unseen",
    /// Give LSNs out again after a loss (T8).
    ReuseLsnAfterLoss = "reuse-lsn-after-loss",
    /// Let a header count only with its payload (T9).
    OneTag = "one-tag",
    /// Let the tag of a group of the log say in which zone it lies (T10).
    ZoneInTag = "zone-in-tag",
    /// Mount where a tear reaches into a neighbouring block (T11).
    AnyPhysicalUnit = "any-physical-unit",
    /// Do not look at the first blocks of unlisted segments (T12).
    HeadsUnscanned = "heads-unscanned",
    /// Rely on a superblock after its first pair, written in a fixed order (T13).
    FirstPairOnly = "first-pair-only",
    /// Write a checkpoint and the superblock under one flush (T14).
    CheckpointUnflushed = "checkpoint-unflushed",
    /// Rely on an update of the superblock before its flushes (T15).
    AdoptBeforeFlush = "adopt-before-flush",
    /// Let a move replay like a put (T16).
    MoveReplaysAsPut = "move-replays-as-put",
    /// Flush again after a flush failed (T18).
    RetryFlush = "retry-flush",
    /// Mount without a flush first (T19).
    SkipFirstFlush = "skip-first-flush",
    /// Let a mount write over a segment that no superblock of its own frees yet (T20, T23).
    MountWritesEarly = "mount-writes-early",
    /// Leave losses out of checkpoints (T25).
    ForgetLosses = "forget-losses",
    /// Ignore all evidence.
    EvidenceIgnored = "evidence-ignored",
    /// Expect the chain of groups to lead on from a use that is closed.
    ChainAcross = "chain-across",
    /// Close a use with what is lost between it and a group of a later one.
    LossInCut = "loss-in-cut",
    /// Take groups of any epoch.
    AnyEpoch = "any-epoch",
    /// Check no tag of a header.
    SkipHeaderTag = "skip-header-tag",
    /// Check no tag of a payload.
    SkipPayloadTag = "skip-payload-tag",
    /// Adopt a checkpoint that was not read back (K2).
    SkipReadBack = "skip-read-back",
    /// Call a value that cannot be read absent.
    SilentAbsence = "silent-absence",
    /// Forget at a mount what a loss leaves in doubt.
    DoubtForgotten = "doubt-forgotten",
    /// Write one copy of each group.
    OneCopy = "one-copy",
    /// Read values from copy A alone.
    ReadOneCopy = "read-one-copy",
    /// Read a checkpoint from copy A alone.
    CheckpointOneCopy = "checkpoint-one-copy",
    /// Do not count mounts, so births repeat.
    SameMount = "same-mount",
    /// Let a client's group pass the bound on replay, and write no checkpoint for it.
    ReplayUnbounded = "replay-unbounded",
    /// Move a value in doubt like any other.
    MoveForgetsDoubt = "move-forgets-doubt",
    /// Believe the doubt that a move states where nothing is lost.
    DoubtOutlives = "doubt-outlives",
    /// Write moves of what was written over meanwhile.
    StaleMoves = "stale-moves",
    /// Take a segment for free while what is moved out of it is on its way (C2).
    FreeBeforeMoved = "free-before-moved",
    /// Let a header vouch for what is still being written.
    VouchEarly = "vouch-early",
    /// Answer a strict commit once it is durable.
    StrictUnwitnessed = "strict-unwitnessed",
    /// Let a check take a torn tail for settled.
    CheckTouchesTail = "check-touches-tail",
    /// Let a check look at values alone, and not for what is missing of the checkpoint and of the log.
    GapsUnseen = "gaps-unseen",
    /// Take a use that a checkpoint tells of for one without a cut, and its torn tail for what was written over it.
    CutForgotten = "cut-forgotten",
    /// Let deletes keep to the limit on what lives, also where a restart has made the volume too full.
    DeletesLimited = "deletes-limited",
    /// Let deletes wait for the room that other writes leave to cleaning.
    DeletesWait = "deletes-wait",
    /// Keep the chunks of uploads that a crash ended.
    OrphansKept = "orphans-kept",
    /// Keep the chunks of large values that were written over, while running.
    ChunksOutlive = "chunks-outlive",
    /// Write the manifest of a large value before its last chunks.
    ManifestFirst = "manifest-first",
    /// Write the chunks of a value that came in one call behind its manifest.
    ManifestEarly = "manifest-early",
    /// Let cleaning end for good where large values alone are written.
    UploadsInVain = "uploads-in-vain",
    /// Let a mount leave the segment in which a checkpoint cut the log, if nothing came behind it.
    CutAbandoned = "cut-abandoned",
    /// Refuse what was admitted rather than take a segment again of which one copy was read back.
    NothingSpared = "nothing-spared",
    /// Let a reader of a large value go on in the value that another upload made.
    ReadAcross = "read-across",
}

/// The plants of one journal: none, unless the feature is on and the caller asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plants {
    #[cfg(feature = "plant")]
    planted: [Option<Plant>; 2],
}

impl Plants {
    /// Plants one fault.
    #[cfg(feature = "plant")]
    pub fn one(plant: Plant) -> Self {
        Self { planted: [Some(plant), None] }
    }

    /// Plants a second fault, in place of an earlier second one.
    #[cfg(feature = "plant")]
    #[must_use]
    pub fn and(self, plant: Plant) -> Self {
        let [first, _] = self.planted;
        Self { planted: [first, Some(plant)] }
    }

    /// Tells whether a rule is switched off.
    #[cfg(feature = "plant")]
    pub(crate) fn has(self, plant: Plant) -> bool {
        trip::step();
        self.planted.contains(&Some(plant))
    }

    /// Tells whether a rule is switched off: never.
    #[cfg(not(feature = "plant"))]
    #[expect(clippy::unused_self, reason = "the twin of the planted build")]
    pub(crate) fn has(self, _: Plant) -> bool {
        false
    }

    pub(crate) fn ack_before_flush(self) -> bool {
        self.has(Plant::AckBeforeFlush)
    }

    pub(crate) fn late_writes(self) -> bool {
        self.has(Plant::LateWrites)
    }

    pub(crate) fn superblock_order(self) -> bool {
        self.has(Plant::SuperblockOrder) || self.has(Plant::FirstPairOnly)
    }

    pub(crate) fn weakened(self) -> Weakened {
        Weakened {
            later_proves: self.has(Plant::LaterProves),
            next_unseen: self.has(Plant::NextUnseen),
            reuse_lsn: self.has(Plant::ReuseLsnAfterLoss),
            no_evidence: self.has(Plant::EvidenceIgnored),
            chain_across: self.has(Plant::ChainAcross),
            loss_in_cut: self.has(Plant::LossInCut),
        }
    }
}

/// A false invariant: this thread panics at one of the places where a rule can be switched off.
#[cfg(feature = "plant")]
pub mod trip {
    use alloc::boxed::Box;
    use core::cell::Cell;

    std::thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// What the panic carries.
    #[derive(Debug)]
    pub struct Tripped;

    /// Lets this thread pass `places` such places and panic at the next one, once; never with `None`. Yields how many were
    /// left of the last number.
    pub fn after(places: Option<u64>) -> Option<u64> {
        LEFT.replace(places)
    }

    /// Passes one place.
    ///
    /// # Panics
    /// With [`Tripped`], when it is the one; no hook is called.
    pub(super) fn step() {
        LEFT.with(|left| match left.get() {
            None => (),
            Some(0) => {
                left.set(None);
                std::panic::resume_unwind(Box::new(Tripped));
            }
            Some(more) => left.set(Some(more - 1)),
        });
    }
}
