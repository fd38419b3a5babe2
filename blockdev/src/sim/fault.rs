//! Faults that a test orders: which there are, when they strike, and which sectors cannot be read.

use alloc::vec::Vec;
use core::ops::Range;

use crate::Operation;

/// A fault that strikes a request of its kind, counted in the order of submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// How many requests of that kind (reads, writes or flushes) are spared first.
    pub after: u64,
    /// Whether it strikes again.
    pub repeat: Repeat,
}

/// Whether a [`Fault`] strikes one request or every one from there on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// One request.
    Once,
    /// That request and all of its kind after it.
    Always,
}

/// What a [`Fault`] does. All but the failures are lies, which the contract does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The read fails.
    ReadFails,
    /// The read succeeds with the bytes at `from`, zeros where the device ends.
    ReadMisdirected {
        /// Where the bytes are taken from.
        from: u64,
    },
    /// The write fails; each of its sectors is left by chance as a power cut would leave it.
    WriteFails,
    /// The write succeeds and changes nothing.
    WriteLost,
    /// The write succeeds, but its bytes land at `to`.
    WriteMisdirected {
        /// Where the bytes are put, as far as the device goes.
        to: u64,
    },
    /// The flush fails. Any part of the cache reaches the medium; the rest never does, although
    /// later flushes succeed: what Linux does with the pages of a failed fsync.
    FlushFails {
        /// Whether reads see the lost writes until the power is cut; otherwise at once the medium.
        shows: bool,
    },
    /// The flush succeeds and does nothing; the next one makes good for it.
    FlushLies,
}

/// When sectors that cannot be read can be again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cure {
    /// After a read of them has failed.
    FailedRead,
    /// After a write of them, as when a disk replaces a bad sector.
    Write,
    /// Never.
    Never,
}

/// What happens to bytes that are corrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit changes, counted from the least bit of the range's first byte.
    BitFlip {
        /// The bit's number.
        bit: u64,
    },
    /// All become zero.
    Zero,
    /// All become random.
    Random,
    /// They become a copy of those at `offset` of the medium, as far as the device goes.
    CopyFrom {
        /// Where the copied bytes start.
        offset: u64,
    },
    /// They become what they were before each physical unit of them last changed on the medium: its last write was lost.
    /// Where that is not remembered ([`SimDevice::remember`](super::SimDevice::remember)), they stay.
    Earlier,
}

/// The faults that are armed, and the sectors that cannot be read.
#[derive(Clone, Default, Debug)]
pub(super) struct Faults {
    armed: Vec<Fault>,
    /// By number; none twice.
    unreadable: Vec<(usize, Cure)>,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    pub(super) fn has_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    pub(super) fn make_unreadable(&mut self, range: Range<usize>, sector_bytes: usize, cure: Cure) {
        for sector in sectors(&range, sector_bytes) {
            self.unreadable.retain(|(each, _)| *each != sector);
            self.unreadable.push((sector, cure));
        }
    }

    /// Counts a request that is submitted, and yields the fault that strikes it. Where several
    /// would, the one injected first does, and the others are spent too.
    pub(super) fn strike(&mut self, operation: Operation) -> Option<FaultKind> {
        let mut struck = None;
        self.armed.retain_mut(|fault| {
            if !fault.kind.meets(operation) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            struck = struck.or(Some(fault.kind));
            fault.repeat == Repeat::Always
        });
        struck
    }

    /// Whether a read of `range` meets a sector that cannot be read.
    pub(super) fn read_fails(&mut self, range: &Range<usize>, sector_bytes: usize) -> bool {
        let sectors = sectors(range, sector_bytes);
        let fails = self.unreadable.iter().any(|(each, _)| sectors.contains(each));
        self.unreadable.retain(|(each, cure)| *cure != Cure::FailedRead || !sectors.contains(each));
        fails
    }

    /// Cures what a write cures.
    pub(super) fn written(&mut self, range: &Range<usize>, sector_bytes: usize) {
        let sectors = sectors(range, sector_bytes);
        self.unreadable.retain(|(each, cure)| *cure != Cure::Write || !sectors.contains(each));
    }
}

impl FaultKind {
    fn meets(self, operation: Operation) -> bool {
        match self {
            Self::ReadFails | Self::ReadMisdirected { .. } => {
                matches!(operation, Operation::Read { .. })
            }
            Self::WriteFails | Self::WriteLost | Self::WriteMisdirected { .. } => {
                matches!(operation, Operation::Write { .. })
            }
            Self::FlushFails { .. } | Self::FlushLies => operation == Operation::Flush,
        }
    }
}

/// Yields the numbers of the sectors that `range` touches.
fn sectors(range: &Range<usize>, sector_bytes: usize) -> Range<usize> {
    range.start / sector_bytes..range.end.div_ceil(sector_bytes)
}
