//! Whether a batch will find room: asked before it is taken, so that the answer is final.

use crate::superblock::Superblock;
use crate::types::{SegmentIndex, Use};

/// Room ahead of the writer, in the order in which it will be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Space {
    /// Blocks left in the segment at hand.
    pub(crate) blocks_here: u32,
    /// Whole segments behind it, the one that stays free not counted.
    pub(crate) segments_ahead: u32,
    /// Blocks of a segment.
    pub(crate) segment_blocks: u32,
}

/// Most blocks kept back for deletes, so that a full store can still be emptied.
const DELETE_BLOCKS_MAX: u32 = 16;

impl Space {
    /// Takes room for a group of `blocks`, as the writer will: here, or at the start of the next segment.
    ///
    /// Batches share groups when they are written, which never takes more than this. Only a batch of
    /// deletes may use the room kept back.
    pub(crate) fn take(&mut self, blocks: u32, deletes_only: bool) -> bool {
        let mut after = *self;
        if blocks <= after.blocks_here {
            after.blocks_here -= blocks;
        } else if after.segments_ahead > 0 && blocks <= after.segment_blocks {
            after.segments_ahead -= 1;
            after.blocks_here = after.segment_blocks - blocks;
        } else {
            return false;
        }
        let kept_back = DELETE_BLOCKS_MAX.min(self.segment_blocks / 8).max(1);
        if !deletes_only && after.segments_ahead == 0 && after.blocks_here < kept_back {
            return false;
        }
        *self = after;
        true
    }

    /// Yields the bytes that are left for puts, padding and headers included.
    pub(crate) fn blocks_left(&self) -> u64 {
        u64::from(self.blocks_here)
            + u64::from(self.segments_ahead) * u64::from(self.segment_blocks)
    }
}

/// Yields the segments that no listed use lies in, in order.
pub(crate) fn free_segments(superblock: &Superblock) -> impl Iterator<Item = SegmentIndex> {
    let listed = |segment| {
        let in_segment = |use_: &Use| use_.segment == segment;
        superblock.log.iter().chain(&superblock.checkpoint).any(in_segment)
    };
    (0..superblock.geometry.segment_count())
        .map(SegmentIndex)
        .filter(move |&segment| !listed(segment))
}

/// Yields how many more segments may be listed: one stays free, and the list has an end.
pub(crate) fn listable(superblock: &Superblock) -> u32 {
    let free = free_segments(superblock).count().saturating_sub(1);
    let room = (0..).take_while(|&more| superblock.has_room(more + 1)).count();
    u32::try_from(free.min(room)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_stop_before_deletes_do() {
        let mut space = Space { blocks_here: 3, segments_ahead: 1, segment_blocks: 16 };
        assert!(space.take(3, false));
        assert!(space.take(14, false));
        assert_eq!(space.blocks_left(), 2);
        assert!(!space.take(1, false));
        assert!(space.take(1, true) && space.take(1, true));
        assert!(!space.take(1, true));
    }

    #[test]
    fn a_group_never_spans_segments() {
        let mut space = Space { blocks_here: 3, segments_ahead: 2, segment_blocks: 16 };
        assert!(space.take(4, false));
        assert_eq!(space, Space { blocks_here: 12, segments_ahead: 1, segment_blocks: 16 });
        assert!(!space.take(17, false));
    }
}
