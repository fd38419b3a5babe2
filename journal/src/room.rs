//! How much a volume holds and how much more it takes.
//!
//! Two questions, asked apart. *Logically*: do the live records, with what is on its way, leave the slack
//! that cleaning needs? Commits are admitted by that alone, so the answer is final. *Physically*: is there
//! a block to write now? Where not, maintenance makes room, and what was admitted waits.

use crate::checkpoint::{Items, segments_needed};
use crate::geometry::{KEY_BYTES_MAX, VolumeGeometry};
use crate::index::{Entry, Index};
use crate::large::is_internal;
use crate::layout::group;
use crate::record::record_bytes;
use crate::superblock::Superblock;
use crate::types::{SegmentIndex, Use};
use alloc::vec;
use alloc::vec::Vec;

/// Share of the usable bytes kept back so that cleaning stays cheap, as a divisor.
const SLACK_DIVISOR: u64 = 16;

/// Live bytes by segment, and what is on its way.
pub(crate) struct Room {
    live: Vec<u64>,
    live_total: u64,
    /// Record bytes of commits that were admitted and have not ended.
    pub(crate) unsettled: u64,
    keys: usize,
    key_bytes: usize,
    /// Of the keys, those of chunks, and those of large values.
    chunks: usize,
    larges: usize,
}

impl Room {
    /// Counts what `index` holds.
    pub(crate) fn of(index: &Index, geometry: &VolumeGeometry) -> Self {
        let mut room = Self {
            live: vec![0; geometry.segment_count() as usize],
            live_total: 0,
            unsettled: 0,
            keys: 0,
            key_bytes: 0,
            chunks: 0,
            larges: 0,
        };
        for (key, entry) in index.iter_from(&[]) {
            room.add(key, entry);
        }
        room
    }

    /// A key was given this entry.
    pub(crate) fn add(&mut self, key: &[u8], entry: &Entry) {
        let bytes = entry.record_bytes(key) as u64;
        if let Some(live) = self.live.get_mut(entry.place.segment.0 as usize) {
            *live += bytes;
        }
        self.live_total += bytes;
        self.keys += 1;
        self.key_bytes += key.len();
        self.chunks += usize::from(is_internal(key));
        self.larges += usize::from(entry.upload.is_some());
    }

    /// A key lost this entry.
    pub(crate) fn remove(&mut self, key: &[u8], entry: &Entry) {
        let bytes = entry.record_bytes(key) as u64;
        if let Some(live) = self.live.get_mut(entry.place.segment.0 as usize) {
            *live -= bytes;
        }
        self.live_total -= bytes;
        self.keys -= 1;
        self.key_bytes -= key.len();
        self.chunks -= usize::from(is_internal(key));
        self.larges -= usize::from(entry.upload.is_some());
    }

    /// Yields the number of keys that callers have given a value.
    pub(crate) fn callers_keys(&self) -> usize {
        self.keys - self.chunks
    }

    /// Yields the bytes of records in a segment that keys still point to.
    pub(crate) fn live_in(&self, segment: SegmentIndex) -> u64 {
        self.live.get(segment.0 as usize).copied().unwrap_or(0)
    }

    /// Yields an upper bound of the segments that a checkpoint takes now.
    ///
    /// It hardly moves with the number of uses: what stays free for a checkpoint must not grow by a restart.
    pub(crate) fn checkpoint_segments(&self, geometry: &VolumeGeometry, uses: usize) -> u32 {
        let items = Items { keys: self.keys, key_bytes: self.key_bytes, larges: self.larges };
        segments_needed(geometry, items, uses.max(uses_max(geometry)))
    }

    /// Tells whether `bytes` more of records are taken; deletes may use what puts may not.
    pub(crate) fn admits(
        &self,
        geometry: &VolumeGeometry,
        uses: usize,
        bytes: usize,
        deletes_only: bool,
    ) -> bool {
        let taken = self.live_total + self.unsettled + bytes as u64;
        let for_deletes = if deletes_only { usable(geometry) / 2 } else { 0 };
        taken <= self.limit(geometry, uses) + for_deletes
    }

    /// Yields the bytes of records that puts may still add.
    pub(crate) fn left(&self, geometry: &VolumeGeometry, uses: usize) -> u64 {
        self.limit(geometry, uses).saturating_sub(self.live_total + self.unsettled)
    }

    /// Yields the most bytes of live records: all segments but those that writing, checkpoints and cleaning need.
    fn limit(&self, geometry: &VolumeGeometry, uses: usize) -> u64 {
        let checkpoint = self.checkpoint_segments(geometry, uses);
        // The checkpoint, the next one, the head, the reserved use, the one that stays free, the one that clients leave
        // to cleaning.
        let needed = (2 * checkpoint).saturating_add(4);
        let segments = geometry.segment_count().saturating_sub(needed);
        let bytes = u64::from(segments) * usable(geometry);
        bytes - bytes / SLACK_DIVISOR
    }
}

/// Yields the uses that values may lie in before the segment with the most of them is cleaned.
pub(crate) fn uses_max(geometry: &VolumeGeometry) -> usize {
    2 * geometry.segment_count() as usize + 24
}

/// Yields the bytes of records that a segment is sure to take, whatever their sizes.
pub(crate) fn usable(geometry: &VolumeGeometry) -> u64 {
    let longest = record_bytes(KEY_BYTES_MAX, geometry.value_bytes_max()) + geometry.block_bytes();
    let bytes = geometry.segment_bytes();
    (bytes - group::BYTES - longest.min(bytes / 2)) as u64
}

/// Yields the segments that nothing lies in: no listed use, no checkpoint, no live record.
pub(crate) fn free_segments<'a>(
    superblock: &'a Superblock,
    room: &'a Room,
) -> impl Iterator<Item = SegmentIndex> + 'a {
    let listed = |segment| {
        let in_segment = |use_: &Use| use_.segment == segment;
        superblock.log.iter().chain(&superblock.checkpoint).any(in_segment)
    };
    (0..superblock.geometry.segment_count())
        .map(SegmentIndex)
        .filter(move |&segment| room.live_in(segment) == 0 && !listed(segment))
}
