//! Segments that are left alone: they did not hold a checkpoint, or a value in them could not be read.

use crate::types::SegmentIndex;
use alloc::vec::Vec;

/// Milliseconds after which a segment is tried again in which a value could not be read: the device may have had a bad moment.
const AGAIN_MS: u64 = 60_000;
/// Most of them: each try that ends like the one before doubles the time, for it costs a pass over the index.
const AGAIN_MS_MAX: u64 = 3_600_000;

/// The segments that are neither cleaned nor taken.
#[derive(Default)]
pub(crate) struct Stuck {
    left: Vec<Left>,
    changes: usize,
}

struct Left {
    segment: SegmentIndex,
    alone: Alone,
    /// One copy of what was written to it was read back.
    spare: bool,
    /// It was tried again since a checkpoint was adopted.
    tried: bool,
    /// Milliseconds that it was left alone for the last time.
    wait: u64,
}

/// How long a segment is left alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// Until the next mount.
    ForGood,
    /// Until then, in milliseconds of the clock.
    Until(u64),
    /// No more; how long it was is remembered.
    Over,
}

impl Stuck {
    /// Leaves a segment alone until the next mount: it did not hold what was written to it, but in so many copies.
    pub(crate) fn for_good(&mut self, segment: SegmentIndex, copies: usize) {
        self.leave(segment, |left| {
            left.spare = copies > 0;
            left.alone = Alone::ForGood;
        });
    }

    /// Leaves one segment alone no more that one copy could be read back from, if there is any; once each, until [`Self::renew`].
    pub(crate) fn spare_one(&mut self) -> bool {
        let may = |left: &&mut Left| left.alone == Alone::ForGood && left.spare && !left.tried;
        let spare = self.left.iter_mut().find(may);
        let found = spare.is_some();
        if let Some(left) = spare {
            (left.alone, left.tried) = (Alone::Over, true);
            self.changes += 1;
        }
        found
    }

    /// A checkpoint was adopted: what was tried again for want of room may be so once more.
    pub(crate) fn renew(&mut self) {
        self.left.iter_mut().for_each(|left| left.tried = false);
    }

    /// Leaves a segment alone for a while, the longer the more often it was: a value in it could not be read.
    pub(crate) fn for_now(&mut self, segment: SegmentIndex, now: u64) {
        self.leave(segment, |left| {
            if left.alone == Alone::Over {
                left.wait = (left.wait * 2).clamp(AGAIN_MS, AGAIN_MS_MAX);
                left.alone = Alone::Until(now.saturating_add(left.wait));
            }
        });
    }

    fn leave(&mut self, segment: SegmentIndex, how: impl FnOnce(&mut Left)) {
        self.changes += 1;
        match self.left.iter_mut().find(|left| left.segment == segment) {
            Some(left) => how(left),
            None => {
                let mut left =
                    Left { segment, alone: Alone::Over, spare: false, tried: false, wait: 0 };
                how(&mut left);
                self.left.push(left);
            }
        }
    }

    /// Tells whether a segment has been left alone for long enough.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.left.iter().any(|left| matches!(left.alone, Alone::Until(due) if due <= now))
    }

    /// Leaves no segment alone any more whose time has come by `now`.
    pub(crate) fn release(&mut self, now: u64) {
        self.changes += 1;
        for left in &mut self.left {
            if matches!(left.alone, Alone::Until(due) if due <= now) {
                left.alone = Alone::Over;
            }
        }
    }

    /// Yields the segments that are left alone.
    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentIndex> + '_ {
        let alone = |left: &&Left| left.alone != Alone::Over;
        self.left.iter().filter(alone).map(|left| left.segment)
    }

    /// Tells whether a segment is left alone.
    pub(crate) fn holds(&self, segment: SegmentIndex) -> bool {
        self.segments().any(|one| one == segment)
    }

    /// Yields a figure that changes with every change.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_left_alone_for_longer_each_time() {
        let (mut stuck, one, other) = (Stuck::default(), SegmentIndex(1), SegmentIndex(2));
        let mut now = 5;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60].map(|minutes| minutes * 60_000) {
            stuck.for_now(one, now);
            // Another value of it is none of the reasons to wait longer.
            stuck.for_now(one, now);
            assert!(stuck.holds(one) && !stuck.is_due(now + wait - 1) && stuck.is_due(now + wait));
            now += wait;
            let before = stuck.changes();
            stuck.release(now);
            assert!(!stuck.holds(one) && !stuck.is_due(u64::MAX) && stuck.changes() != before);
        }
        stuck.for_good(other, 0);
        stuck.release(u64::MAX);
        assert_eq!(stuck.segments().collect::<Vec<_>>(), [other]);
        assert!(!stuck.spare_one(), "no copy of it holds anything");
    }

    #[test]
    fn a_segment_with_one_good_copy_is_taken_once_where_room_is_short() {
        let (mut stuck, one) = (Stuck::default(), SegmentIndex(1));
        stuck.for_good(one, 1);
        let before = stuck.changes();
        assert!(stuck.spare_one() && !stuck.holds(one) && stuck.changes() != before);
        assert!(!stuck.spare_one(), "there is no other");
        stuck.for_good(one, 1);
        assert!(stuck.holds(one) && !stuck.spare_one(), "it had its second chance");
        stuck.renew();
        assert!(stuck.holds(one), "it is left alone all the same");
        assert!(stuck.spare_one() && !stuck.holds(one), "a checkpoint came between");
    }
}
