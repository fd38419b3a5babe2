//! Makes checksums and tags right again, so that a mutation behind them is looked at.

use journal::layout::{group, record as record_at, superblock as superblock_at};
use journal::{BlockIndex, Epoch, Place, SegmentIndex, VolumeGeometry};
use std::collections::BTreeMap;
use std::ops::Range;

/// Makes the CRC of the record at the start of `bytes` right, if its lengths stay within.
pub fn record(epoch: Epoch, place: Place, bytes: &mut [u8]) -> Option<usize> {
    let field = |range: Range<usize>| bytes.get(range).map(number);
    let key_bytes = field(record_at::KEY_BYTES)?;
    let value_bytes = field(record_at::VALUE_BYTES)?;
    let end = record_at::BYTES.checked_add(key_bytes)?.checked_add(value_bytes)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&epoch.0);
    hasher.update(&place.segment.0.to_le_bytes());
    hasher.update(&place.offset.to_le_bytes());
    hasher.update(bytes.get(record_at::CRC.end..end)?);
    bytes.get_mut(record_at::CRC)?.copy_from_slice(&hasher.finalize().to_le_bytes());
    Some(end.next_multiple_of(record_at::ALIGNMENT))
}

/// Makes the tag of a superblock copy right.
pub fn superblock(bytes: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key("StateFS v1 superblock");
    hasher.update(bytes.get(..superblock_at::TAG.start).unwrap_or_default());
    put(bytes, superblock_at::TAG, hasher.finalize().as_bytes());
}

/// The keys of a volume.
#[derive(Clone, Debug)]
pub struct Sealer {
    header: [u8; 32],
    payload: [u8; 32],
    geometry: VolumeGeometry,
}

impl Sealer {
    /// Derives the keys from the secret in the superblock.
    pub fn new(secret: &[u8; 32], geometry: VolumeGeometry) -> Self {
        Self {
            header: blake3::derive_key("StateFS v1 group header", secret),
            payload: blake3::derive_key("StateFS v1 group payload", secret),
            geometry,
        }
    }

    /// Seals all that looks like a group or a superblock, and links each group to the one before it again.
    pub fn seal(&self, image: &mut [u8]) {
        let mut places = Vec::new();
        for zone in self.geometry.zones() {
            for segment in (0..self.geometry.segment_count()).map(SegmentIndex) {
                for block in (0..self.geometry.segment_blocks()).map(BlockIndex) {
                    let offset = self.geometry.block_offset(zone, segment, block);
                    let at = usize::try_from(offset).unwrap_or(usize::MAX);
                    let room = (self.geometry.segment_blocks() - block.0) as usize;
                    let range = at..at + room * self.geometry.block_bytes();
                    if let Some(bytes) = image.get_mut(range.clone())
                        && bytes.starts_with(&group::MAGIC_VALUE)
                    {
                        self.group(bytes, segment, block);
                        places.push((number(&bytes[group::FIRST_LSN]), range));
                    }
                }
            }
        }
        // By number in the log, so that each follows the one that it names.
        places.sort_by_key(|(first, _)| *first);
        let mut renamed: BTreeMap<Vec<u8>, [u8; 16]> = BTreeMap::new();
        for (_, range) in places {
            let Some(bytes) = image.get_mut(range) else { continue };
            if let Some(tag) = renamed.get(&bytes[group::PREVIOUS]) {
                put(bytes, group::PREVIOUS, tag);
            }
            let old = bytes[group::HEADER_TAG].to_vec();
            let hash = blake3::keyed_hash(&self.header, &bytes[..group::HEADER_TAG.start]);
            put(bytes, group::HEADER_TAG, hash.as_bytes());
            let mut tag = [0; 16];
            tag.copy_from_slice(&bytes[group::HEADER_TAG]);
            renamed.insert(old, tag);
        }
        let end = image.len();
        for start in [0, 4096, end - 8192, end - 4096] {
            let slot = &mut image[start..start + 4096];
            if slot.starts_with(&superblock_at::MAGIC_VALUE) {
                if let Some(tag) = renamed.get(&slot[superblock_at::BASE_TAG]) {
                    put(slot, superblock_at::BASE_TAG, tag);
                }
                superblock(slot);
            }
        }
    }

    /// Seals the records and the payload of a group, as far as it stays in its segment.
    fn group(&self, bytes: &mut [u8], segment: SegmentIndex, block: BlockIndex) {
        let end = group::BYTES.saturating_add(number(&bytes[group::PAYLOAD_BYTES]));
        if end > bytes.len() {
            return;
        }
        let mut epoch = [0; 16];
        epoch.copy_from_slice(&bytes[group::EPOCH]);
        let mut at = group::BYTES;
        let is_checkpoint = number(&bytes[group::FLAGS]) & 1 == 1;
        while at < end && !is_checkpoint {
            let offset = block.0 as usize * self.geometry.block_bytes() + at;
            let place = Place { segment, offset: u32::try_from(offset).unwrap_or(0) };
            let Some(taken) = record(Epoch(epoch), place, &mut bytes[at..end]) else { break };
            at += taken;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.payload);
        for field in [group::EPOCH, group::SEGMENT, group::BLOCK, group::FIRST_LSN] {
            hasher.update(&bytes[field]);
        }
        hasher.update(&bytes[group::BYTES..end]);
        put(bytes, group::PAYLOAD_TAG, hasher.finalize().as_bytes());
    }
}

fn number(bytes: &[u8]) -> usize {
    let mut wide = [0; 8];
    for (into, byte) in wide.iter_mut().zip(bytes) {
        *into = *byte;
    }
    usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX)
}

fn put(bytes: &mut [u8], range: Range<usize>, content: &[u8]) {
    for (into, byte) in bytes.get_mut(range).unwrap_or_default().iter_mut().zip(content) {
        *into = *byte;
    }
}
