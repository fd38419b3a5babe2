//! How much a volume holds and how much more it takes.
//!
//! Two questions, asked apart. *Logically*: do the live records, with what is on its way, leave the slack
//! that cleaning needs? Commits are admitted by that alone, so the answer is final. *Physically*: is there
//! a block to write now? Where not, maintenance makes room, and what was admitted waits.

use crate::checkpoint::{deleted_bytes, segments_needed};
use crate::clean::SLICE_BYTES;
use crate::geometry::{KEY_BYTES_MAX, VALUE_BYTES_MAX, VolumeGeometry};
use crate::index::{Entry, Index};
use crate::large::{LARGE_BYTES_MAX, is_internal};
use crate::layout::superblock::USES_MAX;
use crate::layout::{chunk_key, group, manifest};
use crate::maintain::{CLEANING_SEGMENTS, USES_KEPT};
use crate::record::record_bytes;
use crate::replay::Doubt;
use crate::ring::RingRoom;
use crate::run::{RUN_BYTES_MAX, cut_bytes_max, entry_bytes_max};
use crate::superblock::Superblock;
use crate::types::SegmentIndex;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Share of the usable bytes kept back so that cleaning gains something, as a divisor.
const SLACK_DIVISOR: u64 = 128;
/// Bytes by which the lengths of records are told apart.
const CLASS_BYTES: usize = 64;
/// Segments of the largest checkpoint: the list of uses takes it, the next mounts' uses and a log of some length.
const CHECKPOINT_SEGMENTS_MAX: usize = USES_MAX - USES_KEPT - 16;

/// Live bytes by segment, and what is on its way.
#[derive(Default)]
pub(crate) struct Room {
    live: Vec<u64>,
    live_total: u64,
    /// What commits ask for that were admitted and have not ended: bytes of records, and what their keys may add to a
    /// checkpoint.
    unsettled: u64,
    unsettled_items: usize,
    unsettled_keys: usize,
    /// Keys that callers have given a value.
    pub(crate) callers_keys: usize,
    /// Bytes of the longest key that there was.
    longest_key: usize,
    /// Bytes that the keys take in a checkpoint, and those that were deleted after a loss.
    coded_bytes: usize,
    pub(crate) deleted_bytes: usize,
    /// How many live records there are of each length, rounded up to whole [`CLASS_BYTES`], and how many batches on their
    /// way have a longest one of it.
    lengths: Vec<u32>,
    /// Notes are counted apart: room for as many as there may be is kept at all times.
    pub(crate) rings: RingRoom,
}

/// What a batch asks for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Demand {
    /// Bytes of its records.
    pub(crate) bytes: usize,
    /// Bytes of the longest that stays.
    longest: usize,
    /// Bytes that the keys it gives values to may add to a checkpoint.
    pub(crate) items: usize,
    /// How many keys that are, and the bytes of the longest.
    keys: usize,
    longest_key: usize,
}

impl Demand {
    /// Adds a record of `bytes`, for a key of `key_bytes` that stays, or for none.
    pub(crate) fn add(&mut self, bytes: usize, key_bytes: Option<usize>) {
        self.bytes += bytes;
        if let Some(key_bytes) = key_bytes {
            self.longest = self.longest.max(bytes);
            self.items += entry_bytes_max(key_bytes);
            self.keys += 1;
            self.longest_key = self.longest_key.max(key_bytes);
        }
    }

    /// Tells whether no key is given a value, and none is told of in checkpoints from then on.
    pub(crate) fn adds_nothing(&self) -> bool {
        self.keys == 0 && self.items == 0
    }

    /// Adds a record of `bytes` that deletes `key` after a loss, which every checkpoint tells from then on.
    pub(crate) fn add_in_doubt(&mut self, bytes: usize, key: &[u8]) {
        self.bytes += bytes;
        self.items += deleted_bytes(key);
    }
}

impl Room {
    /// Counts what `index` and `doubt` hold.
    pub(crate) fn of(index: &Index, doubt: &Doubt, geometry: &VolumeGeometry) -> Self {
        let live = vec![0; geometry.segment_count() as usize];
        let (rings, coded_bytes) = (RingRoom::of(geometry), index.coded_bytes());
        let deleted_bytes = doubt.deleted.iter().map(|key| deleted_bytes(key)).sum();
        let mut room = Self { live, rings, coded_bytes, deleted_bytes, ..Self::default() };
        let mut cursor = index.cursor(&[]);
        while let Some((key, entry)) = cursor.step() {
            room.add(key, &entry);
        }
        room
    }

    /// A key was given this entry.
    pub(crate) fn add(&mut self, key: &[u8], entry: &Entry) {
        let bytes = entry.record_bytes(key);
        if let Some(live) = self.live.get_mut(entry.place.segment.0 as usize) {
            *live += bytes as u64;
        }
        if self.rings.add(key, bytes as u64) {
            return;
        }
        self.live_total += bytes as u64;
        self.callers_keys += usize::from(!is_internal(key));
        self.longest_key = self.longest_key.max(key.len());
        self.count_length(bytes);
    }

    /// A key lost this entry.
    pub(crate) fn remove(&mut self, key: &[u8], entry: &Entry) {
        let bytes = entry.record_bytes(key);
        if let Some(live) = self.live.get_mut(entry.place.segment.0 as usize) {
            *live -= bytes as u64;
        }
        if self.rings.remove(key, bytes as u64) {
            return;
        }
        self.live_total -= bytes as u64;
        self.callers_keys -= usize::from(!is_internal(key));
        self.forget_length(bytes);
    }

    /// The index changed.
    pub(crate) fn measure(&mut self, index: &Index) {
        self.coded_bytes = index.coded_bytes();
    }

    /// Notes what was admitted.
    pub(crate) fn admitted(&mut self, demand: &Demand) {
        self.unsettled += demand.bytes as u64;
        self.unsettled_items += demand.items;
        self.unsettled_keys += demand.keys;
        self.longest_key = self.longest_key.max(demand.longest_key);
        self.count_length(demand.longest);
    }

    /// What was admitted has come to its end.
    pub(crate) fn settled(&mut self, demand: &Demand) {
        self.unsettled -= demand.bytes as u64;
        self.unsettled_items -= demand.items;
        self.unsettled_keys -= demand.keys;
        self.forget_length(demand.longest);
    }

    fn count_length(&mut self, bytes: usize) {
        let class = bytes.div_ceil(CLASS_BYTES);
        if self.lengths.len() <= class {
            self.lengths.resize(class + 1, 0);
        }
        if let Some(count) = self.lengths.get_mut(class) {
            *count += 1;
        }
    }

    fn forget_length(&mut self, bytes: usize) {
        if let Some(count) = self.lengths.get_mut(bytes.div_ceil(CLASS_BYTES)) {
            *count -= 1;
        }
        while self.lengths.pop_if(|count| *count == 0).is_some() {}
    }

    /// Yields an upper bound of the longest record that is live or on its way.
    pub(crate) fn longest(&self) -> usize {
        let longest = self.lengths.len().saturating_sub(1) * CLASS_BYTES;
        longest.max(self.rings.longest())
    }

    /// Tells whether something that was admitted has not ended.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// Yields the bytes of records in a segment that keys still point to.
    pub(crate) fn live_in(&self, segment: SegmentIndex) -> u64 {
        self.live.get(segment.0 as usize).copied().unwrap_or(0)
    }

    /// Yields an upper bound of the segments that a checkpoint takes now.
    ///
    /// It hardly moves with the number of uses: what stays free for a checkpoint must not grow by a restart.
    pub(crate) fn checkpoint_segments(&self, geometry: &VolumeGeometry, uses: usize) -> u32 {
        let items = self.coded_bytes + self.deleted_bytes;
        segments_needed(geometry, items, uses.max(uses_max(geometry)))
    }

    /// Yields the segments that stay free for the next checkpoint: those that it takes once all that was admitted is in it.
    ///
    /// Were no more kept than one takes now, new keys could make it grow out of what is free, and nothing could be freed
    /// without it.
    pub(crate) fn checkpoint_segments_kept(&self, geometry: &VolumeGeometry, uses: usize) -> u32 {
        self.checkpoint_segments_with(geometry, uses, &Demand::default())
    }

    /// As [`Room::checkpoint_segments_kept`], should `demand` be admitted too.
    fn checkpoint_segments_with(
        &self,
        geometry: &VolumeGeometry,
        uses: usize,
        demand: &Demand,
    ) -> u32 {
        // Each key may be the one that makes a run too long.
        let cuts = self.unsettled_keys + demand.keys;
        let cut_bytes = cut_bytes_max(self.longest_key.max(demand.longest_key));
        let more = self.unsettled_items + demand.items + cuts * cut_bytes + self.rings.items();
        let items = self.coded_bytes + self.deleted_bytes + more;
        segments_needed(geometry, items, uses.max(uses_max(geometry)))
    }

    /// Tells whether a batch is taken. A delete may use what puts may not, and leaves nothing that counts.
    ///
    /// With the batch all is as if it had been there before: what is admitted never makes room for less than there is. Yet a mount
    /// may code the keys in a few bytes more than the one before, and a full volume then holds more than it may. Deletes are what
    /// helps, so they are taken whatever the limit is, if little else is on its way: any batch of them, for it takes a segment at
    /// most. After a loss they add to checkpoints themselves and are not.
    pub(crate) fn admits(
        &self,
        geometry: &VolumeGeometry,
        uses: usize,
        demand: &Demand,
        deletes_only: bool,
    ) -> bool {
        let unsettled = self.unsettled + demand.bytes as u64;
        let usable = if deletes_only { self.usable(geometry, 0) } else { 0 };
        let helps = deletes_only && demand.items == 0;
        helps && unsettled <= usable / 2 * 5
            || self.live_total + unsettled <= self.limit(geometry, uses, demand) + usable / 2
    }

    /// Yields the bytes of records that puts may still add. Segments that are left alone hold what lives in them and take
    /// nothing more.
    pub(crate) fn left(
        &self,
        geometry: &VolumeGeometry,
        uses: usize,
        left_alone: impl Iterator<Item = SegmentIndex>,
    ) -> u64 {
        let usable = self.usable(geometry, 0);
        let unusable: u64 =
            left_alone.map(|segment| usable.saturating_sub(self.live_in(segment))).sum();
        self.limit(geometry, uses, &Demand::default())
            .saturating_sub(self.live_total + self.unsettled + unusable)
    }

    /// Yields the bytes of records that a segment is sure to take from cleaning, should one of `longest` be among them.
    ///
    /// Moves fill it to where the next record does not fit, and go on in the next one with those of the next victim. Each slice
    /// before the one at the end wastes less than a header and a block, or the next record. One slice of a run of cleaning ends in
    /// a block that is not full, which the slack is for; where that is more than the slack of all segments, each counts it.
    /// Half of a segment is always used, for no record is longer than that.
    pub(crate) fn usable(&self, geometry: &VolumeGeometry, longest: usize) -> u64 {
        let (segment, longest) = (geometry.segment_bytes(), self.longest().max(longest));
        let groups = if geometry.is_cut_fine() {
            segment.saturating_sub(SLICE_BYTES).div_ceil(SLICE_BYTES - longest)
        } else {
            segment.div_ceil(SLICE_BYTES) + 1
        };
        let of_groups = groups * (group::BYTES + geometry.block_bytes().min(longest));
        let lost = group::BYTES + longest + of_groups;
        let half = segment / 2 - group::BYTES;
        segment.saturating_sub(lost).max(half) as u64
    }

    /// Yields the most bytes of live records: all segments but those that writing, checkpoints and cleaning need.
    fn limit(&self, geometry: &VolumeGeometry, uses: usize, demand: &Demand) -> u64 {
        let checkpoint = self.checkpoint_segments_with(geometry, uses, demand);
        if checkpoint as usize > CHECKPOINT_SEGMENTS_MAX {
            return 0;
        }
        // The checkpoint, the next one, the head, those that clients leave to cleaning: where they wait for cleaning there is
        // no reserved use, or one of the others is.
        let needed = 2 * checkpoint + 1 + CLEANING_SEGMENTS;
        let segments = geometry.segment_count().saturating_sub(needed);
        let bytes = u64::from(segments) * self.usable(geometry, demand.longest);
        (bytes - bytes / SLACK_DIVISOR).saturating_sub(self.rings.bytes_max())
    }
}

/// Yields the bytes of the longest value in chunks that a volume takes which holds nothing else.
pub(crate) fn large_bytes_max(geometry: &VolumeGeometry) -> u64 {
    let chunk = record_bytes(chunk_key::BYTES, geometry.chunk_bytes());
    let of_chunks = |count: u64| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut demand = Demand::default();
        demand.add(record_bytes(KEY_BYTES_MAX, manifest::BYTES), Some(KEY_BYTES_MAX));
        demand.bytes = demand.bytes.saturating_add(chunk.saturating_mul(count));
        demand.longest = demand.longest.max(chunk);
        let items = entry_bytes_max(chunk_key::BYTES).saturating_mul(count);
        // Chunks come in their order, so a run is cut once it is full, but for those that are on their way.
        let cuts =
            items.div_ceil(RUN_BYTES_MAX / 2).saturating_mul(cut_bytes_max(chunk_key::BYTES));
        demand.items = demand.items.saturating_add(items).saturating_add(cuts);
        demand.keys = demand.keys.saturating_add(count.min(VALUE_BYTES_MAX.div_ceil(chunk) + 1));
        demand
    };
    let chunk_bytes = geometry.chunk_bytes() as u64;
    let empty = Room { rings: RingRoom::of(geometry), ..Room::default() };
    let (mut least, mut most) = (0, LARGE_BYTES_MAX.div_ceil(chunk_bytes));
    while least < most {
        let count = least + (most - least).div_ceil(2);
        if empty.admits(geometry, 0, &of_chunks(count), false) {
            least = count;
        } else {
            most = count - 1;
        }
    }
    (least * chunk_bytes).min(LARGE_BYTES_MAX)
}

/// Yields the uses that values may lie in before the segment with the most of them is cleaned.
pub(crate) fn uses_max(geometry: &VolumeGeometry) -> usize {
    2 * geometry.segment_count() as usize + 24
}

/// Yields the segments that nothing lies in: no listed use, no checkpoint, no live record.
pub(crate) fn free_segments<'a>(
    superblock: &'a Superblock,
    room: &'a Room,
) -> impl Iterator<Item = SegmentIndex> + 'a {
    let uses = superblock.log.iter().chain(&superblock.checkpoint);
    let listed: BTreeSet<SegmentIndex> = uses.map(|use_| use_.segment).collect();
    (0..superblock.geometry.segment_count())
        .map(SegmentIndex)
        .filter(move |&segment| room.live_in(segment) == 0 && !listed.contains(&segment))
}
