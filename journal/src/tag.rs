//! Tags, versions and randomness: everything that hashes.

use crate::field::{self, all_zero};
use crate::layout::superblock as at;
use crate::plant::Plants;
use crate::types::{Birth, BlockIndex, Epoch, Lsn, SegmentIndex, Version};
use blake3::hazmat::{
    ChainingValue, ContextKey, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use core::hash::Hasher as _;
use siphasher::sip::SipHasher24;

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
    pub(crate) versions: Versions,
    /// The rules that are switched off for whoever holds these keys.
    pub(crate) plants: Plants,
}

impl Keys {
    /// Derives the keys of a volume whose superblock holds `secret`.
    pub fn derive(secret: &[u8; 32]) -> Self {
        let version = blake3::derive_key("StateFS v1 version", secret);
        Self {
            header: blake3::derive_key("StateFS v1 group header", secret),
            payload: blake3::derive_key("StateFS v1 group payload", secret),
            versions: Versions([field::u64_at(&version, 0..8), field::u64_at(&version, 8..16)]),
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

    /// Yields what clients see of `birth`.
    pub fn version(&self, birth: Birth) -> Version {
        self.versions.version(birth)
    }

    /// Yields the birth that clients see as `version`.
    pub fn birth(&self, version: Version) -> Birth {
        self.versions.birth(version)
    }
}

/// The permutation of the 64-bit numbers by which births become versions (FORMAT.md section 6).
#[derive(Clone, Copy)]
pub(crate) struct Versions([u64; 2]);

impl Versions {
    pub(crate) fn version(self, birth: Birth) -> Version {
        let mut left = (birth.0 >> 32) & u64::from(u32::MAX);
        let mut right = birth.0 & u64::from(u32::MAX);
        for round in 0..4_u8 {
            (left, right) = (right, left ^ self.round(round, right));
        }
        Version(left << 32 | right)
    }

    fn birth(self, version: Version) -> Birth {
        let mut left = (version.0 >> 32) & u64::from(u32::MAX);
        let mut right = version.0 & u64::from(u32::MAX);
        for round in (0..4_u8).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        Birth(left << 32 | right)
    }

    fn round(self, round: u8, half: u64) -> u64 {
        let [low, high] = self.0;
        let mut hasher = SipHasher24::new_with_keys(low, high);
        hasher.write(&(u64::from(round) << 32 | half).to_le_bytes());
        hasher.finish() & u64::from(u32::MAX)
    }
}

/// Shows nothing: the keys are secrets.
impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys")
    }
}

/// Yields the tag of a superblock's first 4080 bytes: BLAKE3 in the mode that derives keys, in the context
/// `StateFS v1 superblock`.
///
/// Most of a superblock is zeros, its list of uses being short, and each mount and update hashes one: what zeros come to
/// inside the hash is known, so that they are compared instead.
pub(crate) fn superblock_tag(bytes: &[u8; at::BYTES]) -> Tag {
    let (covered, _) = bytes.split_at(at::TAG.start);
    let (left, right) = covered.split_at(2 * CHUNK_BYTES);
    let (first, second) = left.split_at(CHUNK_BYTES);
    let second = chain(second, CHUNK_BYTES, &ZERO_CHUNK);
    let mode = Mode::DeriveKeyMaterial(&CONTEXT_KEY);
    let left = merge_subtrees_non_root(&chain(first, 0, &ZERO_CHUNK), &second, mode);
    let right = chain(right, 2 * CHUNK_BYTES, &ZERO_HALF);
    truncated(&merge_subtrees_root(&left, &right, mode))
}

/// Yields what BLAKE3 makes of a part of a superblock that starts `offset` bytes into it; `of_zeros` if it is zeros and
/// does not come first.
fn chain(part: &[u8], offset: usize, of_zeros: &ChainingValue) -> ChainingValue {
    if offset > 0 && all_zero(part) {
        return *of_zeros;
    }
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT_KEY);
    hasher.set_input_offset(offset as u64).update(part).finalize_non_root()
}

/// Bytes of a leaf of BLAKE3's tree.
const CHUNK_BYTES: usize = blake3::CHUNK_LEN;
/// What BLAKE3 makes of the context `StateFS v1 superblock`.
const CONTEXT_KEY: ContextKey = [
    0x6b, 0x69, 0x6f, 0x88, 0xf9, 0x24, 0x19, 0xe7, 0xed, 0x5c, 0xc1, 0xf3, 0xa6, 0x4b, 0xe9, 0x61,
    0x57, 0xed, 0x71, 0xca, 0x8d, 0x8f, 0x82, 0xb1, 0x81, 0xa4, 0xa6, 0x06, 0x8b, 0x43, 0x3c, 0x13,
];
/// What it makes in that context of zeros in bytes 1024 to 2048.
const ZERO_CHUNK: ChainingValue = [
    0xc5, 0xc0, 0x43, 0x82, 0x11, 0x2c, 0xe1, 0xd8, 0xc8, 0x17, 0x44, 0x4b, 0xfe, 0x42, 0x9e, 0xd0,
    0xa1, 0xce, 0x2f, 0xa2, 0x95, 0xce, 0x70, 0xba, 0xe8, 0x73, 0xe3, 0xb6, 0x90, 0x49, 0x80, 0x65,
];
/// And of zeros in bytes 2048 to 4080.
const ZERO_HALF: ChainingValue = [
    0x54, 0x75, 0xda, 0xc0, 0xd9, 0x99, 0xeb, 0xa9, 0xd5, 0x9a, 0x34, 0xf7, 0xb1, 0x8a, 0x49, 0x5a,
    0x6f, 0x8a, 0x1a, 0x40, 0x42, 0x12, 0xcf, 0xad, 0x36, 0xb0, 0x97, 0xac, 0xe3, 0xfb, 0x3d, 0x86,
];

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
    fn a_superblock_is_hashed_as_a_whole_hash_does() {
        let mut bytes = [0; at::BYTES];
        let whole = |bytes: &[u8; at::BYTES]| {
            let mut hasher = blake3::Hasher::new_derive_key("StateFS v1 superblock");
            truncated(&hasher.update(&bytes[..at::TAG.start]).finalize())
        };
        assert_eq!(superblock_tag(&bytes), whole(&bytes));
        for at in [0, 300, 1023, 1024, 2047, 2048, 3071, 3072, 4079] {
            bytes[at] = 1;
            assert_eq!(superblock_tag(&bytes), whole(&bytes), "{at}");
            let mut alone = [0; at::BYTES];
            alone[at] = 1;
            assert_eq!(superblock_tag(&alone), whole(&alone), "{at} alone");
        }
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
