//! Runs: keys in their order with their entries, each key cut against the one before it.
//!
//! A leaf of the index is a run, and changes in place only where nothing else holds it. One pass over its bytes, some
//! hundreds, finds a key; what a key shares with the one before it tells most of the others apart without being looked at.

use crate::field::{array, put};
use crate::geometry::{KEY_BYTES_MAX, VALUE_BYTES_MAX, VolumeGeometry};
use crate::index::Entry;
use crate::large::{UploadId, chunk_of, is_internal};
use crate::layout::run::BASE;
use crate::layout::run_entry::{
    BYTES as FIXED_BYTES, FLAG_IN_DOUBT, FLAG_LARGE, OFFSET_BITS, PLACE, SIZE_BIRTH, SIZE_VALUE,
    SIZES, UPLOAD_BYTES,
};
use crate::layout::{checkpoint_run, record};
use crate::ring::note_of;
use crate::types::{Birth, Place, SegmentIndex};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

/// Most bytes of a run.
///
/// More than two of the longest entries take, so that a run that one more made too long can be cut into two that are not.
pub(crate) const RUN_BYTES_MAX: usize = checkpoint_run::RUN_BYTES_MAX;
/// Most bytes of an entry without the rest of its key.
const ENTRY_BYTES_MAX: usize = FIXED_BYTES + 4 + 8 + UPLOAD_BYTES;

const SOUND: &str = "a run was checked when it was read, or made by an encoder";

const _: () = assert!(RUN_BYTES_MAX > 2 * (ENTRY_BYTES_MAX + KEY_BYTES_MAX) + BASE.end);

/// Yields the most bytes that runs grow by when such a key is given an entry.
pub(crate) fn entry_bytes_max(key_bytes: usize) -> usize {
    ENTRY_BYTES_MAX + key_bytes
}

/// Yields the most bytes of a checkpoint that it takes to cut a run into two, the longest key having so many.
pub(crate) fn cut_bytes_max(longest_key: usize) -> usize {
    checkpoint_run::BYTES + BASE.end + longest_key
}

/// Keys in order with their entries.
#[derive(Clone, Default)]
pub(crate) struct Run {
    memory: Rc<[u8]>,
    /// Bytes at the end of the memory that are no part of the run: most keys that come later need no other memory.
    spare: u8,
}

/// Bytes by which the memory of runs grows.
const MEMORY_STEP: usize = 64;
/// Least bytes to spare of a run that has just outgrown its memory.
const SPARE_LEAST: usize = MEMORY_STEP / 2;

/// An entry as it lies in a run.
struct Raw<'a> {
    shared: usize,
    sizes: u8,
    place: [u8; 5],
    numbers: &'a [u8],
    suffix: &'a [u8],
}

impl<'a> Raw<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let ([shared, suffix_bytes, sizes, place @ ..], rest) =
            bytes.split_first_chunk::<FIXED_BYTES>()?;
        let (numbers, rest) = rest.split_at_checked(numbers_bytes(*sizes))?;
        let suffix = rest.get(..usize::from(*suffix_bytes))?;
        Some(Self { shared: usize::from(*shared), sizes: *sizes, place: *place, numbers, suffix })
    }

    /// Bytes of it without the rest of its key.
    fn fixed(&self) -> usize {
        FIXED_BYTES + self.numbers.len()
    }

    fn bytes(&self) -> usize {
        self.fixed() + self.suffix.len()
    }

    /// Tells whether each number takes as few bytes as it can, and no bit is set that means nothing.
    fn is_brief(&self) -> bool {
        let (value, birth) = (value_size(self.sizes), birth_size(self.sizes));
        let known = SIZE_VALUE | SIZE_BIRTH | FLAG_LARGE | FLAG_IN_DOUBT;
        let brief = |size: usize, end: usize| size == 1 || self.numbers.get(end - 1) != Some(&0);
        self.sizes & !known == 0 && brief(value, value) && brief(birth, value + birth)
    }

    fn entry(&self, base: Birth) -> Option<Entry> {
        let (value, rest) = self.numbers.split_at_checked(value_size(self.sizes))?;
        let (birth, upload) = rest.split_at_checked(birth_size(self.sizes))?;
        let place = number(&self.place);
        let offset = (place & ((1 << OFFSET_BITS) - 1)) * record::ALIGNMENT as u64;
        let place = Place {
            segment: SegmentIndex(u32::try_from(place >> OFFSET_BITS).ok()?),
            offset: u32::try_from(offset).ok()?,
        };
        Some(Entry {
            place,
            value_bytes: u32::try_from(number(value)).ok()?,
            suspect: self.sizes & FLAG_IN_DOUBT != 0,
            birth: Birth(base.0.checked_add(number(birth))?),
            upload: match self.sizes & FLAG_LARGE {
                0 => None,
                _ => Some(UploadId::of(Birth(number(upload)))?),
            },
        })
    }
}

fn value_size(sizes: u8) -> usize {
    usize::from(sizes & SIZE_VALUE) + 1
}

fn birth_size(sizes: u8) -> usize {
    usize::from((sizes & SIZE_BIRTH) >> 2) + 1
}

fn numbers_bytes(sizes: u8) -> usize {
    let upload = if sizes & FLAG_LARGE == 0 { 0 } else { UPLOAD_BYTES };
    value_size(sizes) + birth_size(sizes) + upload
}

/// Tells whether a volume of this shape can have such an entry.
fn is_possible(key: &[u8], entry: &Entry, geometry: &VolumeGeometry) -> bool {
    let kind = match entry.upload {
        Some(_) => !is_internal(key) && entry.value_bytes > 0,
        None => !is_internal(key) || chunk_of(key).is_some() || note_of(key).is_some(),
    };
    let end = u64::from(entry.place.offset) + entry.record_bytes(key) as u64;
    kind && entry.stored_bytes() <= VALUE_BYTES_MAX
        && entry.place.segment.0 < geometry.segment_count()
        && end <= geometry.segment_bytes() as u64
}

/// Yields the number that at most 8 bytes, the lowest first, are.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Yields in how many bytes a number goes, at least one.
fn size(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).div_ceil(8).max(1) as usize
}

/// Yields how many bytes two keys begin with alike.
pub(crate) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let (words_a, words_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let words = words_a.iter().zip(words_b).take_while(|(a, b)| a == b).count() * 8;
    let (a, b) = (a.get(words..).unwrap_or_default(), b.get(words..).unwrap_or_default());
    words + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Yields the first eight bytes as a number; keys in order have numbers in order.
pub(crate) fn head(bytes: &[u8]) -> u64 {
    if let Some(head) = bytes.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    for (into, byte) in head.iter_mut().zip(bytes) {
        *into = *byte;
    }
    u64::from_be_bytes(head)
}

/// Appends an entry whose key begins with `shared` bytes of the key before it and goes on with `suffix`.
fn append(bytes: &mut Vec<u8>, base: Birth, shared: usize, suffix: &[u8], entry: &Entry) {
    let byte = |bytes: usize| u8::try_from(bytes).expect("keys have at most 255 bytes");
    bytes.extend_from_slice(&[byte(shared), byte(suffix.len())]);
    append_tail(bytes, base, entry);
    bytes.extend_from_slice(suffix);
}

/// Appends the part of an entry that does not depend on its key.
fn append_tail(bytes: &mut Vec<u8>, base: Birth, entry: &Entry) {
    let delta = entry.birth.0.checked_sub(base.0).expect("the base is at or below every birth");
    let (value, birth) = (size(entry.value_bytes.into()), size(delta));
    let large = if entry.upload.is_some() { FLAG_LARGE } else { 0 };
    let doubt = if entry.suspect { FLAG_IN_DOUBT } else { 0 };
    let sizes = (value - 1) | (birth - 1) << 2;
    let sizes = u8::try_from(sizes).expect("sizes take five bits") | large | doubt;
    let offset = u64::from(entry.place.offset) / record::ALIGNMENT as u64;
    let place = u64::from(entry.place.segment.0) << OFFSET_BITS | offset;
    let mut put = |number: u64, size: usize| {
        bytes.extend_from_slice(number.to_le_bytes().get(..size).unwrap_or_default());
    };
    put(sizes.into(), 1);
    put(place, PLACE.len());
    put(entry.value_bytes.into(), value);
    put(delta, birth);
    if let Some(upload) = entry.upload {
        put(upload.birth().0, UPLOAD_BYTES);
    }
}

/// Where a key is, or would be, in a run.
struct Found {
    /// Where the first entry begins whose key is not below the one that was looked for.
    at: usize,
    /// Bytes that the key shares with the one before `at`.
    before: usize,
    /// Bytes that the key shares with the one at `at`; `None` at the end.
    behind: Option<usize>,
    /// The key at `at` is the one that was looked for.
    same: bool,
}

impl Run {
    /// Yields the bytes of the run.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len()).unwrap_or_default()
    }

    /// Yields how many bytes that are.
    pub(crate) fn len(&self) -> usize {
        self.memory.len() - usize::from(self.spare)
    }

    /// Tells whether it holds no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A run of these bytes in memory of just that size.
    fn of(bytes: &[u8]) -> Self {
        Self { memory: bytes.into(), spare: 0 }
    }

    /// Reads a run whose keys lie above `before`, the last key of the run before it; `before` is the last of this then.
    ///
    /// `each` sees every key. Yields nothing where a byte of it makes no sense; memory: as many bytes as are there.
    pub(crate) fn parse(
        bytes: &[u8],
        before: &mut Vec<u8>,
        geometry: &VolumeGeometry,
        mut each: impl FnMut(&[u8], &Entry),
    ) -> Option<Self> {
        let base = Birth(u64::from_le_bytes(*bytes.first_chunk()?));
        let first = Raw::read(bytes.get(BASE.end..)?)?;
        let above = first.shared == 0 && first.suffix > before.as_slice();
        (above && bytes.len() <= RUN_BYTES_MAX).then_some(())?;
        before.clear();
        let mut at = BASE.end;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let raw = Raw::read(rest)?;
            // The first byte that it does not share is a greater one, or one more: so nothing shared is said again.
            let differs = before.get(raw.shared..)?.first() < raw.suffix.first();
            before.truncate(raw.shared);
            before.extend_from_slice(raw.suffix);
            let entry = raw.entry(base).filter(|_| differs && before.len() <= KEY_BYTES_MAX)?;
            (raw.is_brief() && is_possible(before, &entry, geometry)).then_some(())?;
            each(before, &entry);
            at += raw.bytes();
        }
        Some(Self::of(bytes))
    }

    /// Yields a birth that none lies below.
    pub(crate) fn base(&self) -> Birth {
        if self.is_empty() {
            Birth(0)
        } else {
            Birth(u64::from_le_bytes(array(&self.memory, BASE)))
        }
    }

    fn find(&self, key: &[u8]) -> Found {
        // As long as keys are below, `matched` is what the last of them shares with `key`.
        let bytes = self.bytes();
        let (mut at, mut matched) = (BASE.end.min(bytes.len()), 0);
        while let Some(rest @ [shared, suffix_bytes, sizes, ..]) = bytes.get(at..) {
            // One that shares more with its neighbour is below where that one is, at the same byte.
            if usize::from(*shared) > matched {
                at += FIXED_BYTES + numbers_bytes(*sizes) + usize::from(*suffix_bytes);
                continue;
            }
            let raw = Raw::read(rest).expect(SOUND);
            if raw.shared < matched {
                return Found { at, before: matched, behind: Some(raw.shared), same: false };
            }
            let wanted = key.get(matched..).unwrap_or_default();
            let more = shared_bytes(raw.suffix, wanted);
            let (next, wanted) = (raw.suffix.get(more), wanted.get(more));
            if next.is_none() && wanted.is_none() || next > wanted {
                let (before, same) = (matched, next == wanted);
                return Found { at, before, behind: Some(matched + more), same };
            }
            matched += more;
            at += raw.bytes();
        }
        Found { at, before: matched, behind: None, same: false }
    }

    fn raw(&self, at: usize) -> Option<Raw<'_>> {
        let rest = self.bytes().get(at..).filter(|rest| !rest.is_empty())?;
        Some(Raw::read(rest).expect(SOUND))
    }

    /// Yields the entry of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Entry> {
        let found = self.find(key);
        let raw = self.raw(found.at).filter(|_| found.same)?;
        Some(raw.entry(self.base()).expect(SOUND))
    }

    /// Gives `key` an entry and yields the one that it had. The run may grow past [`RUN_BYTES_MAX`].
    ///
    /// `scratch` is where the bytes are put together.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        entry: &Entry,
        scratch: &mut Vec<u8>,
    ) -> Option<Entry> {
        if self.is_empty() || entry.birth < self.base() {
            self.rebase(entry.birth);
        }
        let (base, found) = (self.base(), self.find(key));
        let raw = self.raw(found.at);
        if let Some(raw) = &raw
            && found.same
        {
            let (range, old) = (found.at + SIZES.start..found.at + raw.fixed(), raw.entry(base));
            scratch.clear();
            append_tail(scratch, base, entry);
            self.finish(range, scratch);
            return Some(old.expect(SOUND));
        }
        scratch.clear();
        let suffix = key.get(found.before..).unwrap_or_default();
        append(scratch, base, found.before, suffix, entry);
        let mut to = found.at;
        if let Some(raw) = raw {
            // What the next key shares with this one, it need not say any more.
            let shared = found.behind.unwrap_or(0);
            let suffix = raw.suffix.get(shared - raw.shared..).unwrap_or_default();
            append(scratch, base, shared, suffix, &raw.entry(base).expect(SOUND));
            to += raw.bytes();
        }
        self.finish(found.at..to, scratch);
        None
    }

    /// Takes `key` away and yields the entry that it had.
    pub(crate) fn remove(&mut self, key: &[u8], scratch: &mut Vec<u8>) -> Option<Entry> {
        let (base, found) = (self.base(), self.find(key));
        let gone = self.raw(found.at).filter(|_| found.same)?;
        let old = gone.entry(base).expect(SOUND);
        let mut to = found.at + gone.bytes();
        scratch.clear();
        if let Some(next) = self.raw(to) {
            let shared = next.shared.min(gone.shared);
            // What it shared with the key that goes alone, it now says itself.
            let more = gone.suffix.get(..next.shared - shared).unwrap_or_default();
            let suffix = [more, next.suffix].concat();
            append(scratch, base, shared, &suffix, &next.entry(base).expect(SOUND));
            to += next.bytes();
        }
        self.finish(found.at..to, scratch);
        if self.len() == BASE.end {
            *self = Self::default();
        }
        Some(old)
    }

    /// Marks every entry as one whose later record may be lost.
    pub(crate) fn suspect_all(&mut self) {
        let end = self.len();
        let bytes = Rc::make_mut(&mut self.memory).get_mut(..end).unwrap_or_default();
        let mut at = BASE.end;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            at += Raw::read(rest).expect(SOUND).bytes();
            if let Some(sizes) = rest.get_mut(SIZES.start) {
                *sizes |= FLAG_IN_DOUBT;
            }
        }
    }

    /// Cuts a run that grew too long into two, as even as it goes, and yields the second with a key that is
    /// above all keys of the first and not above any of it.
    pub(crate) fn split(&mut self) -> (Rc<[u8]>, Self) {
        let mut cut = (usize::MAX, 0);
        let mut at = BASE.end;
        while let Some(raw) = self.raw(at) {
            let right = BASE.end + raw.shared + self.len() - at;
            if at > BASE.end && at.max(right) < cut.0 {
                cut = (at.max(right), at);
            }
            at += raw.bytes();
        }
        let mut reader = self.reader();
        while reader.at < cut.1 {
            reader.step();
        }
        let left = reader.key.clone();
        reader.step().expect("a run that is too long holds several keys");
        let shared = shared_bytes(&left, &reader.key);
        let separator = reader.key.get(..=shared).unwrap_or_default().into();
        let first = self.raw(cut.1).expect("just read").entry(self.base()).expect(SOUND);
        let mut right = Vec::with_capacity(cut.0 + KEY_BYTES_MAX);
        right.extend_from_slice(&self.base().0.to_le_bytes());
        append(&mut right, self.base(), 0, &reader.key, &first);
        right.extend_from_slice(self.bytes().get(reader.at..).unwrap_or_default());
        *self = Self::of(self.bytes().get(..cut.1).unwrap_or_default());
        (separator, Self::of(&right))
    }

    /// Yields both runs as one, `right` holding the greater keys, where that takes at most half of what a run may
    /// take, and no more than the two.
    pub(crate) fn joined(&self, right: &Self) -> Option<Self> {
        let together = self.len() + right.len();
        let base = self.base().min(right.base());
        let (mut encoder, mut last) = (Encoder::new(base), Vec::new());
        for run in [self, right] {
            let mut reader = run.reader();
            while let Some(entry) = reader.step() {
                let shared = shared_bytes(&last, &reader.key);
                encoder.push(&reader.key, shared, &entry).then_some(())?;
                last.clone_from(&reader.key);
            }
        }
        let joined = encoder.take()?;
        (joined.len() <= together.min(RUN_BYTES_MAX / 2)).then_some(joined)
    }

    /// Reads the entries in their order.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { bytes: self.bytes(), base: self.base(), at: BASE.end, key: Vec::new() }
    }

    /// Makes the base one that is not above `birth`.
    fn rebase(&mut self, birth: Birth) {
        let mut bytes = birth.0.to_le_bytes().to_vec();
        let (base, mut at) = (self.base(), BASE.end);
        while let Some(raw) = self.raw(at) {
            let entry = raw.entry(base).expect(SOUND);
            append(&mut bytes, birth, raw.shared, raw.suffix, &entry);
            at += raw.bytes();
        }
        *self = Self::of(&bytes);
    }

    /// Puts what `scratch` holds in the place of the bytes of `range`.
    fn finish(&mut self, range: Range<usize>, scratch: &mut Vec<u8>) {
        let (fresh, old) = (scratch.len(), self.len());
        let new = old - range.len() + fresh;
        let spare = self.memory.len().checked_sub(new).filter(|spare| *spare < 2 * MEMORY_STEP);
        if let Some(spare) = spare.and_then(|spare| u8::try_from(spare).ok())
            && let Some(memory) = Rc::get_mut(&mut self.memory)
        {
            memory.copy_within(range.end..old, range.start + fresh);
            put(memory, range.start..range.start + fresh, scratch);
            self.spare = spare;
            return;
        }
        let (left, right) = self.bytes().split_at(range.end);
        scratch.extend_from_slice(left.get(..range.start).unwrap_or_default());
        scratch.extend_from_within(..fresh);
        scratch.extend_from_slice(right);
        let spare = (new + SPARE_LEAST).next_multiple_of(MEMORY_STEP) - new;
        scratch.resize(scratch.len() + spare, 0);
        self.memory = scratch.get(fresh..).unwrap_or_default().into();
        self.spare = u8::try_from(spare).expect("less than two steps");
    }
}

/// Reads the entries of a run in their order.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    base: Birth,
    at: usize,
    /// The key of the entry that was read last.
    pub(crate) key: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Goes on with the entries of another run.
    pub(crate) fn go_on(&mut self, run: &'a Run) {
        // Its first key shares nothing with the one before.
        (self.bytes, self.base, self.at) = (run.bytes(), run.base(), BASE.end);
    }

    /// Yields the next entry; its key is in `key` then.
    pub(crate) fn step(&mut self) -> Option<Entry> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let raw = Raw::read(rest).expect(SOUND);
        self.key.truncate(raw.shared);
        self.key.extend_from_slice(raw.suffix);
        self.at += raw.bytes();
        Some(raw.entry(self.base).expect(SOUND))
    }
}

/// Makes runs of keys that come in their order.
pub(crate) struct Encoder {
    base: Birth,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder of entries whose births are at or above `base`.
    pub(crate) fn new(base: Birth) -> Self {
        Self { base, bytes: Vec::with_capacity(RUN_BYTES_MAX) }
    }

    /// Appends a key that begins with `shared` bytes of the one before, if the run may take it.
    pub(crate) fn push(&mut self, key: &[u8], shared: usize, entry: &Entry) -> bool {
        let end = self.bytes.len();
        let shared = if end == 0 { 0 } else { shared };
        if end == 0 {
            self.bytes.extend_from_slice(&self.base.0.to_le_bytes());
        }
        append(&mut self.bytes, self.base, shared, key.get(shared..).unwrap_or_default(), entry);
        let fits = end == 0 || self.bytes.len() <= RUN_BYTES_MAX;
        if !fits {
            self.bytes.truncate(end);
        }
        fits
    }

    /// Tells whether nothing was appended since the last run was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Yields the run of what was appended since the last one; nothing where that is nothing.
    pub(crate) fn take(&mut self) -> Option<Run> {
        let run = (!self.bytes.is_empty()).then(|| Run::of(&self.bytes));
        self.bytes.clear();
        run
    }
}

#[cfg(test)]
mod tests;
