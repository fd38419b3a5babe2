//! Runs: keys in their order with their entries, each key cut against the one before it.
//!
//! A leaf of the index is a run, and never changes: a change makes another one. One pass over its bytes, some hundreds,
//! finds a key; what a key shares with the one before it tells most of the others apart without being looked at.

use crate::field::array;
use crate::geometry::KEY_BYTES_MAX;
use crate::index::Entry;
use crate::large::UploadId;
use crate::layout::record;
use crate::types::{Birth, Place, SegmentIndex};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

/// Most bytes of a run that holds several keys.
///
/// Above two of the longest entries, so that a run that one more entry made too long can be cut into two that are not.
pub(crate) const RUN_BYTES_MAX: usize = 768;

/// Bytes in front of the entries: the base of the births.
const BASE: Range<usize> = 0..8;
/// Bytes in front of an entry's numbers: what its key shares with the one before, bytes of the rest, sizes, place.
const FIXED_BYTES: usize = 8;
/// Most bytes of an entry without the rest of its key.
const ENTRY_BYTES_MAX: usize = FIXED_BYTES + 4 + 8 + UPLOAD_BYTES;
const UPLOAD_BYTES: usize = 8;

/// In the byte of sizes: bytes of the value's length, less 1.
const VALUE_SIZE: u8 = 0b11;
/// Bytes of the birth's distance from the base, less 1, shifted by 2.
const BIRTH_SIZE: u8 = 0b111;
const LARGE: u8 = 1 << 5;
const IN_DOUBT: u8 = 1 << 6;

/// Bits of a place that are the offset, in units of a record's alignment.
const OFFSET_BITS: u32 = 21;

const SOUND: &str = "a run was checked when it was read, or made by an encoder";

const _: () = assert!(RUN_BYTES_MAX >= 2 * (ENTRY_BYTES_MAX + KEY_BYTES_MAX) + BASE.end);

/// Keys in order with their entries.
#[derive(Clone, Default)]
pub(crate) struct Run(Rc<[u8]>);

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
            suspect: self.sizes & IN_DOUBT != 0,
            birth: Birth(base.0.checked_add(number(birth))?),
            upload: match self.sizes & LARGE {
                0 => None,
                _ => Some(UploadId::of(Birth(number(upload)))?),
            },
        })
    }
}

fn value_size(sizes: u8) -> usize {
    usize::from(sizes & VALUE_SIZE) + 1
}

fn birth_size(sizes: u8) -> usize {
    usize::from(sizes >> 2 & BIRTH_SIZE) + 1
}

fn numbers_bytes(sizes: u8) -> usize {
    let upload = if sizes & LARGE == 0 { 0 } else { UPLOAD_BYTES };
    value_size(sizes) + birth_size(sizes) + upload
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
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Appends an entry whose key begins with `shared` bytes of the key before it and goes on with `suffix`.
fn append(bytes: &mut Vec<u8>, base: Birth, shared: usize, suffix: &[u8], entry: &Entry) {
    let head = |bytes: usize| u8::try_from(bytes).expect("keys have at most 255 bytes");
    bytes.extend_from_slice(&[head(shared), head(suffix.len())]);
    append_tail(bytes, base, entry);
    bytes.extend_from_slice(suffix);
}

/// Appends the part of an entry that does not depend on its key.
fn append_tail(bytes: &mut Vec<u8>, base: Birth, entry: &Entry) {
    let delta = entry.birth.0.checked_sub(base.0).expect("the base is at or below every birth");
    let (value, birth) = (size(entry.value_bytes.into()), size(delta));
    let large = if entry.upload.is_some() { LARGE } else { 0 };
    let doubt = if entry.suspect { IN_DOUBT } else { 0 };
    let sizes = (value - 1) | (birth - 1) << 2;
    let sizes = u8::try_from(sizes).expect("sizes take five bits") | large | doubt;
    let offset = u64::from(entry.place.offset) / record::ALIGNMENT as u64;
    let place = u64::from(entry.place.segment.0) << OFFSET_BITS | offset;
    let mut put = |number: u64, size: usize| {
        bytes.extend_from_slice(number.to_le_bytes().get(..size).unwrap_or_default());
    };
    put(sizes.into(), 1);
    put(place, 5);
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
        &self.0
    }

    /// Tells whether it holds no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn base(&self) -> Birth {
        if self.is_empty() { Birth(0) } else { Birth(u64::from_le_bytes(array(&self.0, BASE))) }
    }

    fn find(&self, key: &[u8]) -> Found {
        // As long as keys are below, `matched` is what the last of them shares with `key`.
        let (mut at, mut matched) = (BASE.end.min(self.0.len()), 0);
        while let Some(rest) = self.0.get(at..).filter(|rest| !rest.is_empty()) {
            let raw = Raw::read(rest).expect(SOUND);
            // One that shares more with its neighbour is below where that one is, at the same byte.
            if raw.shared <= matched {
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
            }
            at += raw.bytes();
        }
        Found { at, before: matched, behind: None, same: false }
    }

    fn raw(&self, at: usize) -> Option<Raw<'_>> {
        let rest = self.0.get(at..).filter(|rest| !rest.is_empty())?;
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
            let (range, old) = (found.at + 2..found.at + raw.fixed(), raw.entry(base));
            self.begin(scratch, range.start);
            append_tail(scratch, base, entry);
            self.finish(range, scratch);
            return Some(old.expect(SOUND));
        }
        self.begin(scratch, found.at);
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
        self.begin(scratch, found.at);
        if let Some(next) = self.raw(to) {
            let shared = next.shared.min(gone.shared);
            // What it shared with the key that goes alone, it now says itself.
            let more = gone.suffix.get(..next.shared - shared).unwrap_or_default();
            let suffix = [more, next.suffix].concat();
            append(scratch, base, shared, &suffix, &next.entry(base).expect(SOUND));
            to += next.bytes();
        }
        self.finish(found.at..to, scratch);
        if self.0.len() == BASE.end {
            *self = Self::default();
        }
        Some(old)
    }

    /// Marks every entry as one whose later record may be lost.
    pub(crate) fn suspect_all(&mut self) {
        let bytes = Rc::make_mut(&mut self.0);
        let mut at = BASE.end;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            at += Raw::read(rest).expect(SOUND).bytes();
            if let Some(sizes) = rest.get_mut(2) {
                *sizes |= IN_DOUBT;
            }
        }
    }

    /// Cuts a run that grew too long into two, as even as it goes, and yields the second with a key that is
    /// above all keys of the first and not above any of it.
    pub(crate) fn split(&mut self) -> (Rc<[u8]>, Self) {
        let mut cut = (usize::MAX, 0);
        let mut at = BASE.end;
        while let Some(raw) = self.raw(at) {
            let right = BASE.end + raw.shared + self.0.len() - at;
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
        right.extend_from_slice(self.0.get(reader.at..).unwrap_or_default());
        let left = self.0.get(..cut.1).unwrap_or_default();
        self.0 = left.into();
        (separator, Self(right.into()))
    }

    /// Yields both runs as one, `right` holding the greater keys, where that takes at most half of what a run may
    /// take, and no more than the two.
    pub(crate) fn joined(&self, right: &Self) -> Option<Self> {
        let together = self.0.len() + right.0.len();
        let base = self.base().min(right.base());
        let mut encoder = Encoder::new(base);
        for run in [self, right] {
            let mut reader = run.reader();
            while let Some(entry) = reader.step() {
                encoder.push(&reader.key, &entry).then_some(())?;
            }
        }
        let joined = encoder.take()?;
        (joined.0.len() <= together.min(RUN_BYTES_MAX / 2)).then_some(joined)
    }

    /// Reads the entries in their order.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.0, base: self.base(), at: BASE.end, key: Vec::new() }
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
        self.0 = bytes.into();
    }

    /// Puts the bytes up to `at` into `scratch`.
    fn begin(&self, scratch: &mut Vec<u8>, at: usize) {
        scratch.clear();
        scratch.extend_from_slice(self.0.get(..at).unwrap_or_default());
    }

    /// Puts what was appended to `scratch` since [`Run::begin`] in the place of the bytes of `range`.
    fn finish(&mut self, range: Range<usize>, scratch: &mut Vec<u8>) {
        let fresh = scratch.get(range.start..).unwrap_or_default();
        if fresh.len() != range.len() {
            scratch.extend_from_slice(self.0.get(range.end..).unwrap_or_default());
            self.0 = scratch.as_slice().into();
        } else if let Some(old) = Rc::make_mut(&mut self.0).get_mut(range) {
            old.copy_from_slice(fresh);
        }
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

impl Reader<'_> {
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
    last: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder of entries whose births are at or above `base`.
    pub(crate) fn new(base: Birth) -> Self {
        Self { base, bytes: Vec::with_capacity(RUN_BYTES_MAX), last: Vec::new() }
    }

    /// Appends a key, if the run may take it.
    pub(crate) fn push(&mut self, key: &[u8], entry: &Entry) -> bool {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&self.base.0.to_le_bytes());
            self.last.clear();
        }
        let end = self.bytes.len();
        let shared = shared_bytes(&self.last, key);
        append(&mut self.bytes, self.base, shared, key.get(shared..).unwrap_or_default(), entry);
        if self.bytes.len() > RUN_BYTES_MAX && end > BASE.end {
            self.bytes.truncate(end);
            return false;
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(key.get(shared..).unwrap_or_default());
        true
    }

    /// Yields the run of what was appended since the last one; nothing where that is nothing.
    pub(crate) fn take(&mut self) -> Option<Run> {
        let run = (!self.bytes.is_empty()).then(|| Run(self.bytes.as_slice().into()));
        self.bytes.clear();
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }

        /// Keys of all lengths that share much, little or nothing.
        fn key(&mut self) -> Vec<u8> {
            let stems = [0, 0, 3, 40, 200, 254];
            let stem = stems[usize::try_from(self.roll(6)).unwrap()];
            let more = [1, 1, 1, 2, 55][usize::try_from(self.roll(5)).unwrap()];
            let mut key = vec![b'a'; stem];
            for _ in 0..more.min(KEY_BYTES_MAX - stem) {
                key.push(u8::try_from(b'a' as u64 + self.roll(4)).unwrap());
            }
            key
        }

        fn entry(&mut self) -> Entry {
            let shift = |dice: &mut Self| u32::try_from(dice.roll(32)).unwrap();
            let (value, birth) = (shift(self), shift(self) * 2);
            let place = Place {
                segment: SegmentIndex(u32::try_from(self.roll(1 << 16)).unwrap()),
                offset: u32::try_from(self.roll(1 << OFFSET_BITS)).unwrap() * 8,
            };
            Entry {
                place,
                value_bytes: u32::MAX >> value,
                suspect: self.roll(2) == 0,
                birth: Birth(self.roll(1 << 31) << birth),
                upload: UploadId::of(Birth(self.roll(4))),
            }
        }
    }

    fn same(run: &Run, model: &BTreeMap<Vec<u8>, Entry>) {
        let mut reader = run.reader();
        for (key, entry) in model {
            assert_eq!(reader.step(), Some(*entry));
            assert_eq!(&reader.key, key);
            assert_eq!(run.get(key), Some(*entry));
        }
        assert_eq!(reader.step(), None);
    }

    #[test]
    fn agrees_with_a_model_through_every_change_and_cut() {
        let (mut run, mut model) = (Run::default(), BTreeMap::new());
        let (mut dice, mut scratch, mut cuts) = (Dice(5), Vec::new(), 0);
        for step in 0..60_000 {
            let key = dice.key();
            assert_eq!(run.get(&key), model.get(&key).copied());
            if dice.roll(10) < 6 {
                let entry = dice.entry();
                assert_eq!(run.insert(&key, &entry, &mut scratch), model.insert(key, entry));
            } else {
                assert_eq!(run.remove(&key, &mut scratch), model.remove(&key));
            }
            if run.bytes().len() > RUN_BYTES_MAX {
                let (separator, right) = run.split();
                assert!(run.bytes().len() <= RUN_BYTES_MAX);
                assert!(right.bytes().len() <= RUN_BYTES_MAX);
                let others = model.split_off(&*separator);
                assert!(!model.is_empty() && !others.is_empty());
                same(&right, &others);
                same(&run, &model);
                cuts += 1;
                if cuts % 2 == 0 {
                    (run, model) = (right, others);
                }
            }
            if step % 97 == 0 {
                same(&run, &model);
            }
        }
        assert!(cuts > 1000);
        run.suspect_all();
        model.values_mut().for_each(|entry| entry.suspect = true);
        same(&run, &model);
    }

    #[test]
    fn runs_are_joined_where_that_makes_one_of_half_the_size() {
        let (mut dice, mut joins) = (Dice(9), 0);
        for _ in 0..4000 {
            let mut models = [BTreeMap::new(), BTreeMap::new()];
            for _ in 0..8 {
                let key = dice.key();
                let right = usize::from(*key > b"aaaa"[..]);
                models[right].insert(key, dice.entry());
            }
            let runs = models.each_ref().map(|model| {
                let mut run = Run::default();
                for (key, entry) in model {
                    run.insert(key, entry, &mut Vec::new());
                }
                run
            });
            let [left, right] = models;
            let model = left.into_iter().chain(right).collect();
            let together = runs.iter().map(|run| run.bytes().len()).sum();
            if let Some(joined) = runs[0].joined(&runs[1]) {
                assert!(joined.bytes().len() <= (RUN_BYTES_MAX / 2).min(together));
                same(&joined, &model);
                joins += 1;
            }
        }
        assert!(joins > 100, "{joins}");
    }
}
