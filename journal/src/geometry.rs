//! Where the superblock copies, zones and segments of a volume lie on its device.

use crate::layout::{chunk_key, group, record};
use crate::types::{BlockIndex, Place, SegmentIndex, Zone};

/// Bytes of a slot: the unit in which a volume is laid out (FORMAT.md section 2).
pub const SLOT_BYTES: u64 = 4096;
/// Copies of the superblock.
pub const SUPERBLOCK_COPIES: usize = 4;
/// Fewest segments: the head, the next, two checkpoints, one that stays free, and some to hold values.
pub(crate) const SEGMENTS_MIN: u32 = 8;
/// Fewest blocks of a segment: half of them take a header, a key and a little.
const SEGMENT_BLOCKS_MIN: u64 = 4;
/// Most segments: a bound on the reads that evidence takes (FORMAT.md section 7).
pub(crate) const SEGMENTS_MAX: u32 = 1 << 16;
/// Largest segment: it bounds a group, and so the memory that reading one takes.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 16 << 20;
/// Longest key in bytes (FORMAT.md section 10).
pub const KEY_BYTES_MAX: usize = 255;
/// Longest value in bytes that one record carries (FORMAT.md section 10).
pub const VALUE_BYTES_MAX: usize = 65_536;
/// Segments that a zone is cut into where their size is free to choose: the list of uses takes the checkpoint and the
/// log of a full volume several times.
const SEGMENTS_WANTED: u64 = 256;
/// Bytes of a segment that loses little at its end, where the next record does not fit.
const SEGMENT_BYTES_WANTED: u64 = 160 << 10;
/// What a group with one chunk takes at most.
const CHUNK_GROUP_BYTES_MAX: usize = 64 << 10;
/// Share of a segment that such a group takes, as a divisor, and how little it need not go below: the end of each segment
/// may lose as much as its longest record takes. Segments below [`SEGMENT_BYTES_WANTED`] are not cut so fine.
const CHUNK_GROUP_DIVISOR: usize = 32;
const CHUNK_GROUP_BYTES_MIN: usize = 8 << 10;

/// The shape of a volume, as its superblock states it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeGeometry {
    block_bytes: u32,
    volume_bytes: u64,
    segment_blocks: u32,
    segment_count: u32,
    copies: u8,
}

/// Why a shape is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeometryError {
    /// The block size is neither 512 nor 4096.
    BlockBytes(u32),
    /// A power cut could tear a neighbour: the device's physical unit is larger than the block.
    PhysicalUnit {
        /// The block asked for.
        block_bytes: u32,
        /// The device's physical unit.
        physical_bytes: u32,
    },
    /// There must be one copy or two.
    Copies(u8),
    /// The segments do not fit, or are too few or too many.
    Segments,
    /// The device holds less than the smallest volume.
    TooSmall {
        /// Bytes of the device.
        device_bytes: u64,
        /// Bytes of the smallest volume of this shape.
        least_bytes: u64,
    },
}

impl core::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BlockBytes(bytes) => write!(f, "block size {bytes} is neither 512 nor 4096"),
            Self::PhysicalUnit { block_bytes, physical_bytes } => write!(
                f,
                "block size {block_bytes} is below the device's physical unit of {physical_bytes} bytes"
            ),
            Self::Copies(copies) => write!(f, "{copies} copies: there must be 1 or 2"),
            Self::Segments => f.write_str("the segments do not fit into the volume"),
            Self::TooSmall { device_bytes, least_bytes } => write!(
                f,
                "the device has {device_bytes} bytes; the smallest volume takes {least_bytes}"
            ),
        }
    }
}

impl core::error::Error for GeometryError {}

impl VolumeGeometry {
    /// Checks a stated shape.
    ///
    /// # Errors
    /// [`GeometryError`] when any part is out of its range or the zones do not fit.
    pub fn new(
        block_bytes: u32,
        volume_bytes: u64,
        segment_blocks: u32,
        segment_count: u32,
        copies: u8,
    ) -> Result<Self, GeometryError> {
        if block_bytes != 512 && block_bytes != 4096 {
            return Err(GeometryError::BlockBytes(block_bytes));
        }
        if copies != 1 && copies != 2 {
            return Err(GeometryError::Copies(copies));
        }
        let geometry = Self { block_bytes, volume_bytes, segment_blocks, segment_count, copies };
        let segment = u64::from(segment_blocks) * u64::from(block_bytes);
        let fits = volume_bytes.is_multiple_of(SLOT_BYTES)
            && (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&segment_count)
            && segment <= u64::from(SEGMENT_BYTES_MAX)
            && u64::from(segment_blocks) >= SEGMENT_BLOCKS_MIN
            && segment * u64::from(segment_count) <= zone_room(volume_bytes, copies);
        if fits { Ok(geometry) } else { Err(GeometryError::Segments) }
    }

    /// Chooses segments for a new volume on a device of `device_bytes`.
    ///
    /// A segment is about a two-hundred-and-fifty-sixth of a zone, so that those that stay free cost little, and at
    /// least 160 KiB, so that the longest record takes a twentieth, where a twelfth of the zone allows it.
    ///
    /// # Errors
    /// [`GeometryError`] when the device is too small or the block size does not suit it.
    pub fn choose(
        device_bytes: u64,
        physical_bytes: u32,
        block_bytes: u32,
        copies: u8,
    ) -> Result<Self, GeometryError> {
        if block_bytes != 512 && block_bytes != 4096 {
            return Err(GeometryError::BlockBytes(block_bytes));
        }
        if block_bytes < physical_bytes {
            return Err(GeometryError::PhysicalUnit { block_bytes, physical_bytes });
        }
        let volume_bytes = device_bytes / SLOT_BYTES * SLOT_BYTES;
        let zone = zone_room(volume_bytes, copies);
        let least = SEGMENT_BLOCKS_MIN * u64::from(block_bytes);
        let target = (zone / SEGMENTS_WANTED).max(SEGMENT_BYTES_WANTED.min(zone / 12)).max(least);
        let segment = match target {
            // No power of two, so that the zone is used to its end.
            SEGMENT_BYTES_WANTED.. => target / u64::from(block_bytes) * u64::from(block_bytes),
            _ => 1 << target.ilog2(),
        };
        let segment = segment.min(u64::from(SEGMENT_BYTES_MAX));
        let count = (zone / segment).min(u64::from(SEGMENTS_MAX));
        let blocks = u32::try_from(segment / u64::from(block_bytes)).unwrap_or(u32::MAX);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count < SEGMENTS_MIN {
            let zones = u64::from(SEGMENTS_MIN) * least * u64::from(copies);
            let least_bytes = zones.next_multiple_of(2 * SLOT_BYTES) + 4 * SLOT_BYTES;
            return Err(GeometryError::TooSmall { device_bytes, least_bytes });
        }
        Self::new(block_bytes, volume_bytes, blocks, count, copies)
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes as usize
    }

    /// Bytes of the volume.
    pub fn volume_bytes(&self) -> u64 {
        self.volume_bytes
    }

    /// Blocks of a segment.
    pub fn segment_blocks(&self) -> u32 {
        self.segment_blocks
    }

    /// Bytes of a segment.
    pub fn segment_bytes(&self) -> usize {
        self.segment_blocks as usize * self.block_bytes()
    }

    /// Segments of a zone.
    pub fn segment_count(&self) -> u32 {
        self.segment_count
    }

    /// Copies of each group.
    pub fn copies(&self) -> u8 {
        self.copies
    }

    /// The zones in use, in order.
    pub fn zones(&self) -> impl Iterator<Item = Zone> + use<> {
        [Zone::A, Zone::B].into_iter().take(usize::from(self.copies))
    }

    /// Most bytes of records in one group: a use that is listed ahead takes a segment from its start, and so any group.
    pub fn records_bytes_max(&self) -> usize {
        self.segment_bytes() - group::BYTES
    }

    /// Bytes of a group that holds the longest record: half a segment, so that cleaning can fill at least the other half.
    fn record_group_bytes_max(&self) -> usize {
        (self.segment_blocks / 2) as usize * self.block_bytes()
    }

    /// Longest value that this volume takes in one call; those that are longer are large.
    pub fn value_bytes_max(&self) -> usize {
        VALUE_BYTES_MAX.min(value_room(self.record_group_bytes_max()))
    }

    /// Longest value that lies in one record: where segments are large enough, the record takes no more than one with a chunk.
    pub(crate) fn whole_bytes_max(&self) -> usize {
        if !self.is_cut_fine() {
            return self.value_bytes_max();
        }
        VALUE_BYTES_MAX.min(value_room(self.chunk_group_bytes_max()))
    }

    /// Most bytes of each chunk of a value: the record and a header take whole blocks, 64 KiB at most.
    pub fn chunk_bytes(&self) -> usize {
        let fixed = (record::BYTES + chunk_key::BYTES).next_multiple_of(record::ALIGNMENT);
        self.chunk_group_bytes_max() - group::BYTES - fixed
    }

    /// Tells whether segments are large enough for records that take a small part of one.
    pub(crate) fn is_cut_fine(&self) -> bool {
        self.segment_bytes() as u64 >= SEGMENT_BYTES_WANTED
    }

    /// Bytes of a group that holds one chunk: whole blocks.
    fn chunk_group_bytes_max(&self) -> usize {
        if !self.is_cut_fine() {
            return self.record_group_bytes_max().min(CHUNK_GROUP_BYTES_MAX);
        }
        let share = self.segment_bytes() / CHUNK_GROUP_DIVISOR;
        let bytes = share.clamp(CHUNK_GROUP_BYTES_MIN, CHUNK_GROUP_BYTES_MAX);
        bytes - bytes % self.block_bytes()
    }

    /// Blocks that `bytes` take.
    pub fn blocks(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(self.block_bytes())).unwrap_or(u32::MAX)
    }

    /// Bytes from the start of the device to `block` of `segment` in `zone`.
    pub fn block_offset(&self, zone: Zone, segment: SegmentIndex, block: BlockIndex) -> u64 {
        let start = match zone {
            Zone::A => 2 * SLOT_BYTES,
            Zone::B => (2 + (self.volume_bytes / SLOT_BYTES - 4) / 2) * SLOT_BYTES,
        };
        let blocks = u64::from(segment.0) * u64::from(self.segment_blocks) + u64::from(block.0);
        start + blocks * u64::from(self.block_bytes)
    }

    /// Yields the block that holds the first byte of `place`.
    pub fn block_of(&self, place: Place) -> BlockIndex {
        BlockIndex(place.offset / self.block_bytes)
    }

    /// Tells whether a device of `device_bytes` still holds the whole volume.
    pub fn fits(&self, device_bytes: u64) -> bool {
        self.volume_bytes <= device_bytes
    }
}

/// Bytes from the start of the device to superblock copy `copy` of a volume of `volume_bytes`.
pub(crate) fn superblock_offset(copy: usize, volume_bytes: u64) -> u64 {
    let slots = volume_bytes / SLOT_BYTES;
    let slot = match copy {
        0 => 0,
        1 => 1,
        2 => slots.saturating_sub(2),
        _ => slots.saturating_sub(1),
    };
    slot * SLOT_BYTES
}

/// Bytes of a value that a group of so many bytes has room for under any key.
fn value_room(group_bytes: usize) -> usize {
    let overhead = (record::BYTES + KEY_BYTES_MAX).next_multiple_of(record::ALIGNMENT);
    group_bytes.saturating_sub(group::BYTES + overhead)
}

/// Bytes that one zone may take.
fn zone_room(volume_bytes: u64, copies: u8) -> u64 {
    let slots = (volume_bytes / SLOT_BYTES).saturating_sub(SUPERBLOCK_COPIES as u64);
    slots / u64::from(copies.max(1)) * SLOT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_superblocks_never_overlap() {
        for device_bytes in [65_536, 65_536 + 4096, 1 << 20, (64 << 20) + 4096 + 77, 5 << 30] {
            for copies in [1, 2] {
                for block in [512, 4096] {
                    let Ok(g) = VolumeGeometry::choose(device_bytes, 512, block, copies) else {
                        assert!(device_bytes < 1 << 20);
                        continue;
                    };
                    let last = SegmentIndex(g.segment_count() - 1);
                    let end = BlockIndex(g.segment_blocks());
                    let mut ends = vec![2 * SLOT_BYTES];
                    for zone in g.zones() {
                        let start = g.block_offset(zone, SegmentIndex(0), BlockIndex(0));
                        assert!(start >= *ends.last().unwrap());
                        ends.push(g.block_offset(zone, last, end));
                    }
                    assert!(*ends.last().unwrap() <= superblock_offset(2, g.volume_bytes()));
                    assert!(g.fits(device_bytes));
                }
            }
        }
    }

    #[test]
    fn small_volumes_are_possible_and_too_small_ones_say_so() {
        let g = VolumeGeometry::choose(65_536, 512, 512, 2).unwrap();
        assert!(g.segment_count() >= SEGMENTS_MIN);
        let error = VolumeGeometry::choose(20_000, 512, 4096, 2).unwrap_err();
        let GeometryError::TooSmall { least_bytes, .. } = error else { panic!("{error:?}") };
        assert!(VolumeGeometry::choose(least_bytes, 512, 4096, 2).is_ok());
        assert!(VolumeGeometry::choose(least_bytes - 4096, 512, 4096, 2).is_err());
    }

    #[test]
    fn a_block_below_the_physical_unit_is_refused() {
        let refused = VolumeGeometry::choose(1 << 20, 4096, 512, 2);
        let unit = GeometryError::PhysicalUnit { block_bytes: 512, physical_bytes: 4096 };
        assert_eq!(refused, Err(unit));
    }
}
