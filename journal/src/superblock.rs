//! The superblock: encoding, decoding and choosing among its copies (FORMAT.md section 3).

use crate::field::{self, all_zero, is_zero, put, u8_at, u16_at, u32_at, u64_at};
use crate::geometry::{SUPERBLOCK_COPIES, VolumeGeometry};
use crate::layout::{superblock as at, use_entry};
use crate::tag::{Tag, superblock_tag};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, SegmentIndex, Use, VolumeId};
use alloc::vec::Vec;

/// Everything that one copy of the superblock states.
#[derive(Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the volume.
    pub volume: VolumeId,
    /// Shape of the volume.
    pub geometry: VolumeGeometry,
    /// Secret from which tag keys derive.
    pub key: [u8; 32],
    /// Counts updates.
    pub sequence: u64,
    /// Counts mounts.
    pub mount: u64,
    /// Identity of the mount that wrote this.
    pub mount_id: [u8; 16],
    /// Every LSN up to here is accounted for.
    pub durable: Lsn,
    /// Last LSN that the checkpoint covers.
    pub base: Lsn,
    /// Tag of the group that held `base`.
    pub base_tag: Tag,
    /// Bound on replay; 0 means the whole log.
    pub replay_bytes: u64,
    /// Uses that hold the checkpoint.
    pub checkpoint: Vec<Use>,
    /// Uses of the log, in its order.
    pub log: Vec<Use>,
}

/// Shows no key.
impl core::fmt::Debug for Superblock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Superblock")
            .field("volume", &self.volume)
            .field("geometry", &self.geometry)
            .field("sequence", &self.sequence)
            .field("mount", &self.mount)
            .field("durable", &self.durable)
            .field("base", &self.base)
            .field("checkpoint", &self.checkpoint)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Why a copy of the superblock does not verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockError {
    /// The slot holds zeros only.
    Blank,
    /// Another magic: not a StateFS volume, or damage.
    Magic,
    /// A format version that this program does not know.
    Version(u16),
    /// The checksum or a field is wrong.
    Damaged,
    /// The slot could not be read.
    Unreadable,
}

impl Superblock {
    /// Yields the 4096 bytes of a copy.
    ///
    /// # Panics
    /// When the list of uses is longer than its place: callers ask [`Superblock::has_room`].
    pub fn encode(&self) -> [u8; at::BYTES] {
        assert!(self.checkpoint.len() + self.log.len() <= at::USES_MAX, "the list of uses fits");
        let mut bytes = [0; at::BYTES];
        let b = &mut bytes;
        let g = &self.geometry;
        put(b, at::MAGIC, &at::MAGIC_VALUE);
        put(b, at::VERSION, &at::VERSION_VALUE.to_le_bytes());
        put(b, at::BLOCK_BYTES, &le32(g.block_bytes()));
        put(b, at::VOLUME, &self.volume.0);
        put(b, at::SEQUENCE, &self.sequence.to_le_bytes());
        put(b, at::MOUNT, &self.mount.to_le_bytes());
        put(b, at::MOUNT_ID, &self.mount_id);
        put(b, at::KEY, &self.key);
        put(b, at::VOLUME_BYTES, &g.volume_bytes().to_le_bytes());
        put(b, at::SEGMENT_BLOCKS, &g.segment_blocks().to_le_bytes());
        put(b, at::SEGMENT_COUNT, &g.segment_count().to_le_bytes());
        put(b, at::COPIES, &[g.copies()]);
        put(b, at::DURABLE_LSN, &self.durable.0.to_le_bytes());
        put(b, at::BASE_LSN, &self.base.0.to_le_bytes());
        put(b, at::BASE_TAG, &self.base_tag.0);
        put(b, at::REPLAY_BYTES, &self.replay_bytes.to_le_bytes());
        put(b, at::CHECKPOINT_USES, &le32(self.checkpoint.len()));
        put(b, at::USE_COUNT, &le32(self.checkpoint.len() + self.log.len()));
        let entries = b.get_mut(at::USES).unwrap_or_default().chunks_exact_mut(use_entry::BYTES);
        for (entry, use_) in entries.zip(self.checkpoint.iter().chain(&self.log)) {
            put(entry, use_entry::SEGMENT, &use_.segment.0.to_le_bytes());
            put(entry, use_entry::START, &use_.start.0.to_le_bytes());
            put(entry, use_entry::END, &use_.end.unwrap_or(Lsn::NONE).0.to_le_bytes());
            put(entry, use_entry::EPOCH, &use_.epoch.0);
        }
        let tag = superblock_tag(b);
        put(b, at::TAG, &tag.0);
        bytes
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// [`SuperblockError`] tells a blank slot, a foreign one, another version and damage apart.
    pub fn decode(bytes: &[u8; at::BYTES]) -> Result<Self, SuperblockError> {
        if all_zero(bytes) {
            return Err(SuperblockError::Blank);
        }
        if field::array(bytes, at::MAGIC) != at::MAGIC_VALUE {
            return Err(SuperblockError::Magic);
        }
        let tag = superblock_tag(bytes);
        if field::array(bytes, at::TAG) != tag.0 {
            return Err(SuperblockError::Damaged);
        }
        let version = u16_at(bytes, at::VERSION);
        if version != at::VERSION_VALUE {
            return Err(SuperblockError::Version(version));
        }
        let reserved = [at::RESERVED_A, at::RESERVED_B, at::RESERVED_C, at::FLAGS, at::ROLLBACK];
        if !reserved.into_iter().all(|field| is_zero(bytes, field)) {
            return Err(SuperblockError::Damaged);
        }
        let counters = [at::SEQUENCE, at::DURABLE_LSN, at::BASE_LSN, at::REPLAY_BYTES];
        let sound = counters.into_iter().all(|field| Lsn(u64_at(bytes, field)) <= Lsn::READ_MAX);
        if !sound || u64_at(bytes, at::MOUNT) >= Birth::MOUNT_END {
            return Err(SuperblockError::Damaged);
        }
        let geometry = VolumeGeometry::new(
            u32_at(bytes, at::BLOCK_BYTES),
            u64_at(bytes, at::VOLUME_BYTES),
            u32_at(bytes, at::SEGMENT_BLOCKS),
            u32_at(bytes, at::SEGMENT_COUNT),
            u8_at(bytes, at::COPIES),
        )
        .map_err(|_| SuperblockError::Damaged)?;
        let (checkpoint, log) = decode_uses(bytes, &geometry)?;
        Ok(Self {
            volume: VolumeId(field::array(bytes, at::VOLUME)),
            geometry,
            key: field::array(bytes, at::KEY),
            sequence: u64_at(bytes, at::SEQUENCE),
            mount: u64_at(bytes, at::MOUNT),
            mount_id: field::array(bytes, at::MOUNT_ID),
            durable: Lsn(u64_at(bytes, at::DURABLE_LSN)),
            base: Lsn(u64_at(bytes, at::BASE_LSN)),
            base_tag: Tag(field::array(bytes, at::BASE_TAG)),
            replay_bytes: u64_at(bytes, at::REPLAY_BYTES),
            checkpoint,
            log,
        })
    }

    /// Tells whether this copy is what was written of `current`. Of a volume that never had a bound on replay, the running
    /// store states one only with its next update.
    fn is(&self, current: &Self) -> bool {
        let bound = self.replay_bytes;
        let unbounded = bound == 0 || bound == current.replay_bytes;
        unbounded && Self { replay_bytes: bound, ..current.clone() }.encode() == self.encode()
    }

    /// Tells whether the list takes `more` entries.
    pub fn has_room(&self, more: usize) -> bool {
        self.checkpoint.len() + self.log.len() + more <= at::USES_MAX
    }
}

fn le32(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("sizes of a volume fit into 32 bits").to_le_bytes()
}

fn decode_uses(
    bytes: &[u8; at::BYTES],
    geometry: &VolumeGeometry,
) -> Result<(Vec<Use>, Vec<Use>), SuperblockError> {
    let count = u32_at(bytes, at::USE_COUNT) as usize;
    let of_checkpoint = u32_at(bytes, at::CHECKPOINT_USES) as usize;
    if count > at::USES_MAX || of_checkpoint > count {
        return Err(SuperblockError::Damaged);
    }
    let entries = bytes.get(at::USES).unwrap_or_default().chunks_exact(use_entry::BYTES);
    let mut uses = Vec::with_capacity(count);
    for entry in entries.take(count) {
        let end = Lsn(u64_at(entry, use_entry::END));
        let use_ = Use {
            segment: SegmentIndex(u32_at(entry, use_entry::SEGMENT)),
            start: BlockIndex(u32_at(entry, use_entry::START)),
            end: (end != Lsn::NONE).then_some(end),
            epoch: Epoch(field::array(entry, use_entry::EPOCH)),
        };
        let inside = end <= Lsn::READ_MAX
            && use_.segment.0 < geometry.segment_count()
            && use_.start.0 < geometry.segment_blocks();
        if !inside {
            return Err(SuperblockError::Damaged);
        }
        uses.push(use_);
    }
    let log = uses.split_off(of_checkpoint);
    Ok((uses, log))
}

/// The four copies as they were read.
pub(crate) struct Copies {
    /// Each copy, or why it does not verify.
    pub(crate) copies: [Result<Superblock, SuperblockError>; SUPERBLOCK_COPIES],
}

impl Copies {
    /// Yields the valid copy with the highest sequence, if any; among equals, the content in more copies.
    pub(crate) fn best(&self) -> Option<&Superblock> {
        let votes = |one: &Superblock| self.valid().filter(|&other| other == one).count();
        self.valid().max_by_key(|&copy| (copy.sequence, votes(copy)))
    }

    /// Tells whether two copies state the highest sequence: what a quorum would ask for.
    pub(crate) fn agree(&self) -> bool {
        let highest = self.valid().map(|copy| copy.sequence).max();
        self.valid().filter(|copy| Some(copy.sequence) == highest).count() > 1
    }

    /// Yields the copies that verify.
    pub(crate) fn valid(&self) -> impl Iterator<Item = &Superblock> {
        self.copies.iter().filter_map(|copy| copy.as_ref().ok())
    }

    /// Yields the sequence of each copy; 0 for one that does not verify.
    pub(crate) fn ages(&self) -> [u64; SUPERBLOCK_COPIES] {
        self.copies.each_ref().map(|copy| copy.as_ref().map_or(0, |copy| copy.sequence))
    }

    /// Tells of each copy whether it is the one that was written last, as `current` has it.
    pub(crate) fn are(&self, current: &Superblock) -> [bool; SUPERBLOCK_COPIES] {
        self.copies.each_ref().map(|copy| copy.as_ref().is_ok_and(|copy| copy.is(current)))
    }

    /// Yields the sequence of each copy that is `current`, or came before it; 0 for any other, so that it is written over first.
    pub(crate) fn ages_up_to(&self, current: &Superblock) -> [u64; SUPERBLOCK_COPIES] {
        let came_before =
            |copy: &Superblock| copy.volume == current.volume && copy.sequence < current.sequence;
        let counts = |copy: &&Superblock| copy.is(current) || came_before(copy);
        let age = |copy: Option<&Superblock>| copy.filter(counts).map_or(0, |copy| copy.sequence);
        self.copies.each_ref().map(|copy| age(copy.as_ref().ok()))
    }
}

/// Orders the copies for an update: the two of lowest sequence, then the other two.
pub(crate) fn update_order(ages: &[u64; SUPERBLOCK_COPIES]) -> [usize; SUPERBLOCK_COPIES] {
    let mut order = [0, 1, 2, 3];
    order.sort_by_key(|&copy| ages.get(copy).copied());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        let use_ = |segment, start, end| Use {
            segment: SegmentIndex(segment),
            start: BlockIndex(start),
            end,
            epoch: Epoch([9; 16]),
        };
        Superblock {
            volume: VolumeId([1; 16]),
            geometry: VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap(),
            key: [2; 32],
            sequence: 3,
            mount: 4,
            mount_id: [5; 16],
            durable: Lsn(6),
            base: Lsn(0),
            base_tag: Tag::default(),
            replay_bytes: 0,
            checkpoint: vec![],
            log: vec![use_(1, 0, Some(Lsn(6))), use_(1, 3, None), use_(2, 0, None)],
        }
    }

    #[test]
    fn decodes_what_it_encodes() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn blank_foreign_and_newer_are_told_apart() {
        assert_eq!(Superblock::decode(&[0; 4096]), Err(SuperblockError::Blank));
        assert_eq!(Superblock::decode(&[9; 4096]), Err(SuperblockError::Magic));
        let mut newer = sample().encode();
        put(&mut newer, at::VERSION, &(at::VERSION_VALUE + 1).to_le_bytes());
        let tag = superblock_tag(&newer);
        put(&mut newer, at::TAG, &tag.0);
        let version = SuperblockError::Version(at::VERSION_VALUE + 1);
        assert_eq!(Superblock::decode(&newer), Err(version));
    }

    #[test]
    fn counters_near_their_end_are_refused() {
        for field in [at::SEQUENCE, at::MOUNT, at::DURABLE_LSN, at::BASE_LSN, at::REPLAY_BYTES] {
            let mut forged = sample().encode();
            put(&mut forged, field.clone(), &(u64::MAX - 3).to_le_bytes());
            let tag = superblock_tag(&forged);
            put(&mut forged, at::TAG, &tag.0);
            assert_eq!(Superblock::decode(&forged), Err(SuperblockError::Damaged), "{field:?}");
        }
    }

    #[test]
    fn an_update_writes_the_oldest_first() {
        assert_eq!(update_order(&[7, 7, 6, 6]), [2, 3, 0, 1]);
        assert_eq!(update_order(&[7, 0, 7, 7])[0], 1);
    }
}
