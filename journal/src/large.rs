//! Large values: chunks under internal keys, and the manifest that makes them visible (FORMAT.md section 5).
//!
//! A chunk is an ordinary entry of the index whose key no caller can have, so that checkpoints, cleaning, replay and
//! the check treat it as they treat everything. What belongs together is decided here: a chunk lives as long as its
//! upload is under way, or as long as a key has the manifest that names it.

use crate::field::{array, put, u32_at, u64_at};
use crate::geometry::VALUE_BYTES_MAX;
use crate::index::{Entry, Index};
use crate::layout::{chunk_key as key_at, manifest as at};
use crate::ring::note_of;
use crate::types::Birth;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::num::NonZeroU64;

/// Longest large value in bytes: the index states lengths in 32 bits (FORMAT.md section 10).
pub const LARGE_BYTES_MAX: u64 = u32::MAX as u64;

/// First byte of every internal key; no caller's key begins with it.
const INTERNAL: u8 = 0;
/// The least key that a caller may have.
const CALLERS_FIRST: &[u8] = &[INTERNAL + 1];

/// Which upload a chunk belongs to: a birth, so unique in the volume's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct UploadId(NonZeroU64);

impl UploadId {
    /// Yields the upload that `birth` names; births begin above 0.
    pub(crate) fn of(birth: Birth) -> Option<Self> {
        NonZeroU64::new(birth.0).map(Self)
    }

    /// Yields the birth by which it goes on the medium.
    pub(crate) fn birth(self) -> Birth {
        Birth(self.0.get())
    }
}

/// What the record of a large value's key holds in place of the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    /// Whose chunks make the value.
    pub(crate) upload: UploadId,
    /// Bytes of the value.
    pub(crate) total_bytes: u32,
    /// Bytes of each chunk but the last, which may have fewer.
    pub(crate) chunk_bytes: u32,
    /// BLAKE3 of the value.
    pub(crate) digest: [u8; 32],
}

impl Manifest {
    /// Yields the number of chunks.
    pub(crate) fn chunks(&self) -> u32 {
        self.total_bytes.div_ceil(self.chunk_bytes)
    }

    /// Yields the bytes of chunk `number`.
    pub(crate) fn chunk_len(&self, number: u32) -> usize {
        let before = u64::from(number) * u64::from(self.chunk_bytes);
        let rest = u64::from(self.total_bytes).saturating_sub(before);
        usize::try_from(rest.min(u64::from(self.chunk_bytes))).unwrap_or(usize::MAX)
    }

    pub(crate) fn encode(&self) -> [u8; at::BYTES] {
        let mut bytes = [0; at::BYTES];
        put(&mut bytes, at::UPLOAD, &self.upload.birth().0.to_le_bytes());
        put(&mut bytes, at::TOTAL_BYTES, &u64::from(self.total_bytes).to_le_bytes());
        put(&mut bytes, at::CHUNK_BYTES, &self.chunk_bytes.to_le_bytes());
        put(&mut bytes, at::CHUNK_COUNT, &self.chunks().to_le_bytes());
        put(&mut bytes, at::DIGEST, &self.digest);
        bytes
    }

    /// Reads a manifest; `None` if it makes no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; at::BYTES] = bytes.try_into().ok()?;
        let manifest = Self {
            upload: UploadId::of(Birth(u64_at(bytes, at::UPLOAD)))?,
            total_bytes: u32::try_from(u64_at(bytes, at::TOTAL_BYTES)).ok()?,
            chunk_bytes: u32_at(bytes, at::CHUNK_BYTES),
            digest: array(bytes, at::DIGEST),
        };
        let sound = (1..=VALUE_BYTES_MAX).contains(&(manifest.chunk_bytes as usize))
            && manifest.total_bytes > 0
            && manifest.chunks() == u32_at(bytes, at::CHUNK_COUNT);
        sound.then_some(manifest)
    }
}

/// Tells whether `key` is one that no caller has.
pub(crate) fn is_internal(key: &[u8]) -> bool {
    key.first() == Some(&INTERNAL)
}

/// Yields `from`, or the least key of callers if that is more.
pub(crate) fn callers_from(from: &[u8]) -> &[u8] {
    from.max(CALLERS_FIRST)
}

/// Yields the key of a chunk. Chunks of one upload follow each other in their order.
pub(crate) fn chunk_key(upload: UploadId, number: u32) -> [u8; key_at::BYTES] {
    let mut key = [INTERNAL; key_at::BYTES];
    // Big-endian, so that the order of bytes is the order of numbers.
    put(&mut key, key_at::UPLOAD, &upload.birth().0.to_be_bytes());
    put(&mut key, key_at::NUMBER, &number.to_be_bytes());
    key
}

/// Yields the upload and number that a chunk's key states.
pub(crate) fn chunk_of(key: &[u8]) -> Option<(UploadId, u32)> {
    let key: &[u8; key_at::BYTES] =
        key.try_into().ok().filter(|key: &&[u8; _]| is_internal(*key))?;
    let upload = UploadId::of(Birth(u64::from_be_bytes(array(key, key_at::UPLOAD))))?;
    Some((upload, u32::from_be_bytes(array(key, key_at::NUMBER))))
}

/// Gives `key` an entry, or takes it away, and with a large value its chunks; `gone` sees all that goes.
pub(crate) fn replace(
    index: &mut Index,
    key: &[u8],
    entry: Option<Entry>,
    mut gone: impl FnMut(&[u8], &Entry),
) {
    let old = match entry {
        Some(entry) => index.insert(key, entry),
        None => index.remove(key),
    };
    let Some(old) = old else { return };
    gone(key, &old);
    if let Some(upload) = old.upload
        && entry.is_none_or(|entry| entry.upload != old.upload)
    {
        drop_chunks(index, upload, gone);
    }
}

/// Takes the chunks of `upload` away; `gone` sees each.
pub(crate) fn drop_chunks(
    index: &mut Index,
    upload: UploadId,
    mut gone: impl FnMut(&[u8], &Entry),
) {
    let from = chunk_key(upload, 0);
    let chunks = index.iter_from(&from).map(|(key, _)| key);
    let chunks = chunks.take_while(|key| chunk_of(key).is_some_and(|(of, _)| of == upload));
    let chunks: Vec<Rc<[u8]>> = chunks.collect();
    for key in chunks {
        if let Some(old) = index.remove(&key) {
            gone(&key, &old);
        }
    }
}

/// Yields the key of each large value by its upload.
pub(crate) fn owners(index: &Index) -> BTreeMap<UploadId, Rc<[u8]>> {
    let mut owners = BTreeMap::new();
    if !index.has_larges() {
        return owners;
    }
    let mut callers = index.cursor(CALLERS_FIRST);
    while let Some((key, entry)) = callers.step() {
        if let Some(upload) = entry.upload {
            owners.insert(upload, Rc::from(key));
        }
    }
    owners
}

/// Ends every upload that was under way when the log ended, and marks the values of which a chunk is missing.
///
/// A manifest is committed behind its chunks, so a chunk is missing only where something was lost. `keep` leaves
/// the chunks that no key has.
pub(crate) fn collect(index: &mut Index, keep: bool) {
    let owners = owners(index);
    let mut bytes: BTreeMap<UploadId, u64> = BTreeMap::new();
    let mut orphans: Vec<Rc<[u8]>> = Vec::new();
    for (key, entry) in index.iter_from(&[]).take_while(|(key, _)| is_internal(key)) {
        if note_of(&key).is_some() {
            continue;
        }
        match chunk_of(&key).filter(|(upload, _)| owners.contains_key(upload)) {
            Some((upload, _)) => *bytes.entry(upload).or_default() += u64::from(entry.value_bytes),
            None if keep => {}
            None => orphans.push(key),
        }
    }
    for key in orphans {
        index.remove(&key);
    }
    for (upload, key) in owners {
        let there = bytes.get(&upload).copied().unwrap_or(0);
        if let Some(entry) = index.get(&key)
            && u64::from(entry.value_bytes) != there
        {
            index.insert(&key, Entry { suspect: true, ..entry });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Place, SegmentIndex};

    fn upload(n: u64) -> UploadId {
        UploadId::of(Birth(n)).unwrap()
    }

    fn entry(value_bytes: u32, upload: Option<UploadId>) -> Entry {
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        Entry { place, value_bytes, suspect: false, birth: Birth(9), upload }
    }

    #[test]
    fn manifests_and_keys_are_read_as_they_are_written() {
        let manifest = Manifest {
            upload: upload(0x0102_0304_0506_0708),
            total_bytes: 70_001,
            chunk_bytes: 35_000,
            digest: [7; 32],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        assert_eq!((manifest.chunks(), manifest.chunk_len(2)), (3, 1));
        for length in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..length]), None);
        }
        // A length or a count that does not fit the others is refused, whatever it claims.
        for at in 0..at::DIGEST.start {
            let mut bad = bytes;
            bad[at] ^= 0x80;
            assert!(Manifest::decode(&bad).is_none_or(|bad| bad.chunks() == 3));
        }
        let key = chunk_key(manifest.upload, 5);
        assert_eq!(chunk_of(&key), Some((manifest.upload, 5)));
        assert!(key < chunk_key(manifest.upload, 256) && is_internal(&key));
        assert_eq!(chunk_of(b"/state/12345"), None);
    }

    #[test]
    fn chunks_go_with_their_value_and_orphans_at_a_mount() {
        let mut index = Index::default();
        for (of, count) in [(1, 2), (2, 3), (3, 1)] {
            for number in 0..count {
                index.insert(&chunk_key(upload(of), number), entry(100, None));
            }
        }
        index.insert(b"/a", entry(200, Some(upload(1))));
        index.insert(b"/b", entry(400, Some(upload(2))));
        collect(&mut index, false);
        // Upload 3 had no manifest; of /b a chunk is missing.
        let left: Vec<_> = index.iter_from(&[]).filter_map(|(key, _)| chunk_of(&key)).collect();
        assert_eq!(left.len(), 5);
        assert!(left.iter().all(|(of, _)| *of != upload(3)));
        assert!(!index.get(b"/a").unwrap().suspect && index.get(b"/b").unwrap().suspect);
        let mut gone = Vec::new();
        replace(&mut index, b"/a", Some(entry(1, None)), |key, _| gone.push(key.to_vec()));
        assert_eq!(gone.len(), 3);
        replace(&mut index, b"/b", None, |key, _| gone.push(key.to_vec()));
        assert_eq!((gone.len(), index.len()), (7, 1));
    }
}
