//! Tags, versions and randomness: everything that hashes.

use crate::field;
use crate::plant::Plants;
use crate::types::{Birth, BlockIndex, Epoch, Lsn, SegmentIndex, Version};

/// 128 bits of keyed BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tag(pub [u8; 16]);

/// The keys of one volume, derived from the secret in its superblock.
///
/// The secret keeps clients, who choose values, from making bytes that verify; it does not stop
/// somebody who holds the device (FORMAT.md section 4).
#[derive(Clone)]
pub struct Keys {
    header: [u8; 32],
    payload: [u8; 32],
    version: [u8; 32],
    /// The rules that are switched off for whoever holds these keys.
    pub(crate) plants: Plants,
}

impl Keys {
    /// Derives the keys of a volume whose superblock holds `secret`.
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self {
            header: blake3::derive_key("StateFS v1 group header", secret),
            payload: blake3::derive_key("StateFS v1 group payload", secret),
            version: blake3::derive_key("StateFS v1 version", secret),
            plants: Plants::default(),
        }
    }

    /// Yields the tag of a group header's first 112 bytes.
    pub(crate) fn header_tag(&self, header: &[u8]) -> Tag {
        truncated(&blake3::keyed_hash(&self.header, header))
    }

    /// Yields the tag of a group's records.
    pub(crate) fn payload_tag(
        &self,
        epoch: Epoch,
        segment: SegmentIndex,
        block: BlockIndex,
        first: Lsn,
        records: &[u8],
    ) -> Tag {
        let mut place = [0; 32];
        field::put(&mut place, 0..16, &epoch.0);
        field::put(&mut place, 16..20, &segment.0.to_le_bytes());
        field::put(&mut place, 20..24, &block.0.to_le_bytes());
        field::put(&mut place, 24..32, &first.0.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&self.payload);
        truncated(&hasher.update(&place).update(records).finalize())
    }

    /// Yields what clients see of `birth`: a permutation of the 64-bit numbers (FORMAT.md section 6).
    pub fn version(&self, birth: Birth) -> Version {
        let mut left = (birth.0 >> 32) & u64::from(u32::MAX);
        let mut right = birth.0 & u64::from(u32::MAX);
        for round in 0..4_u8 {
            (left, right) = (right, left ^ self.round(round, right));
        }
        Version(left << 32 | right)
    }

    /// Yields the birth that clients see as `version`.
    pub fn birth(&self, version: Version) -> Birth {
        let mut left = (version.0 >> 32) & u64::from(u32::MAX);
        let mut right = version.0 & u64::from(u32::MAX);
        for round in (0..4_u8).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        Birth(left << 32 | right)
    }

    fn round(&self, round: u8, half: u64) -> u64 {
        let [a, b, c, d, ..] = half.to_le_bytes();
        let hash = blake3::keyed_hash(&self.version, &[round, a, b, c, d]);
        let [a, b, c, d, ..] = *hash.as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d]))
    }
}

/// Shows nothing: the keys are secrets.
impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys")
    }
}

/// Yields the tag of a superblock's first 4080 bytes.
pub(crate) fn superblock_tag(bytes: &[u8]) -> Tag {
    let mut hasher = blake3::Hasher::new_derive_key("StateFS v1 superblock");
    truncated(&hasher.update(bytes).finalize())
}

fn truncated(hash: &blake3::Hash) -> Tag {
    let (first, _) = hash.as_bytes().split_at(16);
    Tag(first.try_into().expect("a hash has 32 bytes"))
}

/// A deterministic source of epochs, identities and keys, grown from a seed that the driver passes in.
pub struct Random {
    seed: [u8; 32],
    count: u64,
}

impl Random {
    /// Makes a source from 256 bits of entropy; equal seeds yield equal streams.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// Yields the next 256 bits.
    pub fn bytes32(&mut self) -> [u8; 32] {
        self.count = self.count.checked_add(1).expect("2^64 draws are never made");
        *blake3::keyed_hash(&self.seed, &self.count.to_le_bytes()).as_bytes()
    }

    /// Yields the next 128 bits.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let bytes = self.bytes32();
        field::array(&bytes, 0..16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    #[test]
    fn versions_differ_and_hide_their_order() {
        let keys = Keys::derive(&[7; 32]);
        let versions: Vec<u64> =
            (1..=2000).map(|lsn| keys.version(Birth::new(Lsn(lsn), 3)).0).collect();
        assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), 2000);
        for (lsn, version) in (1..=2000).zip(&versions) {
            assert_eq!(keys.birth(Version(*version)), Birth::new(Lsn(lsn), 3));
        }
        let rising = versions.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((800..1200).contains(&rising), "{rising} of 1999 pairs rise");
    }

    #[test]
    fn payload_tag_depends_on_each_part() {
        let keys = Keys::derive(&[7; 32]);
        let tag = |e, s, b, l, r: &[u8]| {
            keys.payload_tag(Epoch([e; 16]), SegmentIndex(s), BlockIndex(b), Lsn(l), r)
        };
        let tags = [
            tag(1, 2, 3, 4, b"x"),
            tag(0, 2, 3, 4, b"x"),
            tag(1, 0, 3, 4, b"x"),
            tag(1, 2, 0, 4, b"x"),
            tag(1, 2, 3, 0, b"x"),
            tag(1, 2, 3, 4, b"y"),
        ];
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len());
    }
}
