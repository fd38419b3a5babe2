//! What the units of a medium held before they last changed: what one holds still whose last write is lost.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// One earlier content of each unit.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    bytes: Vec<u8>,
    /// By unit: which change of the medium was its last; 0 if it never changed.
    changed: Vec<u64>,
    changes: u64,
    unit_bytes: usize,
    /// What is about to change.
    before: Vec<u8>,
}

impl Earlier {
    pub(super) fn new(bytes: usize, unit_bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            changed: vec![0; bytes.div_ceil(unit_bytes)],
            changes: 0,
            unit_bytes,
            before: Vec::new(),
        }
    }

    /// Changes the whole units at `range` of `medium` and notes what those held that `change` makes differ.
    pub(super) fn watch(
        &mut self,
        medium: &mut [u8],
        range: Range<usize>,
        change: impl FnOnce(&mut [u8]),
    ) {
        let Self { bytes, changed, changes, unit_bytes, before } = self;
        before.clear();
        before.extend_from_slice(medium.get(range.clone()).unwrap_or_default());
        change(medium);
        let after = medium.get(range.clone()).unwrap_or_default().chunks(*unit_bytes);
        let noted = bytes.get_mut(range.clone()).unwrap_or_default().chunks_mut(*unit_bytes);
        let stamps = changed.iter_mut().skip(range.start / *unit_bytes);
        for (((was, is), noted), stamp) in
            before.chunks(*unit_bytes).zip(after).zip(noted).zip(stamps)
        {
            if was != is {
                noted.copy_from_slice(was);
                *changes += 1;
                *stamp = *changes;
            }
        }
    }

    /// Gives the units of a range that begins at `start` what they held before their last change, if there was one.
    pub(super) fn put_back(&self, start: usize, into: &mut [u8]) {
        let from = self.bytes.get(start..).unwrap_or_default();
        for ((byte, earlier), at) in into.iter_mut().zip(from).zip(start..) {
            if self.changed.get(at / self.unit_bytes).is_some_and(|change| *change > 0) {
                *byte = *earlier;
            }
        }
    }

    /// Forgets all changes.
    pub(super) fn forget(&mut self) {
        self.changed.fill(0);
    }

    /// Yields where the units lie that changed and do not hold now what they held before; the last to change comes first.
    pub(super) fn differing(&self, medium: &[u8]) -> Vec<usize> {
        let now = medium.chunks(self.unit_bytes).zip(self.bytes.chunks(self.unit_bytes));
        let units = self.changed.iter().zip(now).enumerate();
        let mut differ: Vec<(u64, usize)> = units
            .filter(|(_, (change, (now, earlier)))| **change > 0 && now != earlier)
            .map(|(unit, (change, _))| (*change, unit * self.unit_bytes))
            .collect();
        differ.sort_unstable_by(|left, right| right.cmp(left));
        differ.into_iter().map(|(_, start)| start).collect()
    }
}
