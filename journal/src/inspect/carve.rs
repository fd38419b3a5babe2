//! Carving: the records that verify in a segment, whatever became of what listed them.
//!
//! A group's header, which its keyed tag vouches for, names the epoch that its records are checked
//! with; where no header verifies, the epochs of the last uses that begin before the block are tried.

use super::values::{Windows, read};
use super::{KeyFact, VolumeFacts};
use crate::disk::Disk;
use crate::field::{is_zero, u8_at, u16_at, u32_at};
use crate::index::Entry;
use crate::large::{UploadId, chunk_key, chunk_of, is_internal};
use crate::layout::{group as at, record as record_at};
use crate::record::{Kind, Record, RecordError, record_bytes};
use crate::scan::blocks;
use crate::types::{Birth, BlockIndex, Epoch, Place, SegmentIndex};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bytes that may be summed for each byte of a segment: lengths that were made up must not make this slow.
const WORK_MAX: u64 = 64;
/// What of a record is summed at every place where one may begin: no more than that, since these are as far apart as records are
/// aligned. So no client's value that looks like records uses up what finds a short one behind it.
const SHORT_BYTES: u64 = WORK_MAX * record_at::ALIGNMENT as u64;
/// Epochs that a block is tried with whose group has no header: the last use that begins before it, whose it is, and those before
/// that one, should it be damaged at the end of one of them. A forged checkpoint may list one for every few bytes.
const EPOCHS_MAX: usize = 8;

/// Where the chunks of each upload were carved. No two uploads are named alike, so any record of a chunk is the chunk.
pub(super) type Chunks = BTreeMap<(UploadId, u32), RecordFact>;

/// What a record gives its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    /// It takes the key away.
    Nothing,
    /// A value.
    Value,
    /// The manifest that stands for a large value: [`VolumeFacts::read_chunks`] finds the chunks.
    Manifest,
}

/// A record, and what it takes to read it again: places are kept, for values would not fit into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordFact {
    /// What it gives its key.
    pub gives: Gives,
    /// The write that it comes of; later writes of one volume have greater ones.
    pub birth: Birth,
    place: Place,
    epoch: Epoch,
    value_bytes: usize,
}

impl RecordFact {
    fn new(record: &Record<'_>, epoch: Epoch, place: Place) -> Self {
        let gives = match record.kind {
            Kind::Delete => Gives::Nothing,
            _ if record.manifest => Gives::Manifest,
            _ => Gives::Value,
        };
        Self { gives, birth: record.birth, place, epoch, value_bytes: record.value.len() }
    }
}

impl VolumeFacts {
    /// Shows every key's records that verify in either copy of `segment` to `each`, stale ones and torn ones too, but for those
    /// that are newer than what a key has without doubt, and notes where chunks lie, for [`VolumeFacts::read_chunks`].
    ///
    /// Memory: a place for each chunk that verifies, so no more than the device holds.
    pub async fn carve(
        &mut self,
        disk: &Disk,
        segment: SegmentIndex,
        mut each: impl FnMut(&[u8], RecordFact),
    ) {
        let geometry = self.verifier.geometry;
        let mut chunks = Chunks::new();
        let index = &self.index;
        // What is newer than what is certain was written by nobody who heard of it.
        let counts = |key: &[u8], record: &RecordFact| {
            let certain = index.get(key).filter(|entry| !entry.suspect);
            certain.is_none_or(|entry| record.birth <= entry.birth)
        };
        let mut show = |key: &[u8], record: RecordFact| match chunk_of(key) {
            Some(chunk) if record.gives == Gives::Value => {
                chunks.insert(chunk, record);
            }
            // A note is no key of anybody.
            _ if is_internal(key) => {}
            _ if counts(key, &record) => each(key, record),
            _ => {}
        };
        for zone in geometry.zones() {
            let all = geometry.segment_blocks();
            let bytes = blocks(disk, &self.verifier, zone, segment, BlockIndex(0), all).await;
            let work = WORK_MAX * bytes.len() as u64;
            let (stand, again) = (Stand { from: 0, expected: 0, passed: 0 }, work);
            let mut carver = Carver { facts: self, segment, bytes: &bytes, stand, work, again };
            carver.segment(&mut show);
        }
        self.chunks.extend(chunks);
    }

    /// Reads a chunk of an upload: the one that the index knows, or else the one that was carved.
    pub(super) async fn read_chunk(
        &self,
        disk: &Disk,
        window: &mut Windows,
        upload: UploadId,
        number: u32,
    ) -> Option<Vec<u8>> {
        let key = chunk_key(upload, number);
        if let Some(entry) = self.index.get(&key)
            && let [first, second] = read(disk, self, window, &key, &entry).await
            && let Some(chunk) = first.or(second)
        {
            return Some(chunk);
        }
        let carved = self.chunks.get(&(upload, number))?;
        self.read_record(disk, &key, carved).await
    }

    /// Yields the record that the index has of a key; `None` if none can lie there.
    pub fn record(&self, key: &[u8], fact: &KeyFact) -> Option<RecordFact> {
        let Entry { place, birth, upload, .. } = fact.entry;
        if !self.is_possible(key, &fact.entry) {
            return None;
        }
        let epoch = self.use_of(place.segment, self.verifier.geometry.block_of(place))?.epoch;
        let value_bytes = fact.entry.stored_bytes();
        let gives = if upload.is_some() { Gives::Manifest } else { Gives::Value };
        Some(RecordFact { gives, birth, place, epoch, value_bytes })
    }

    /// Reads what a record gives its key from whichever copy holds it; `None` where none does.
    pub async fn read_record(&self, disk: &Disk, key: &[u8], fact: &RecordFact) -> Option<Vec<u8>> {
        let (geometry, place) = (self.verifier.geometry, fact.place);
        let skip = place.offset as usize % geometry.block_bytes();
        let count = geometry.blocks(skip + record_bytes(key.len(), fact.value_bytes));
        for zone in geometry.zones() {
            let (first, segment) = (geometry.block_of(place), place.segment);
            let bytes = blocks(disk, &self.verifier, zone, segment, first, count).await;
            let bytes = bytes.get(skip..).unwrap_or_default();
            if let Ok(found) = Record::decode(fact.epoch, place, bytes)
                && found.key == key
                && RecordFact::new(&found, fact.epoch, place) == *fact
            {
                return Some(found.value.to_vec());
            }
        }
        None
    }

    /// Yields the number of segments.
    pub fn segment_count(&self) -> u32 {
        self.verifier.geometry.segment_count()
    }

    /// Yields the write that made what a key has, as the index knows it.
    pub fn birth(&self, key: &[u8]) -> Option<Birth> {
        self.index.get(key).map(|entry| entry.birth)
    }
}

/// How far a copy of a segment is carved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stand {
    /// Everything before this is done.
    from: usize,
    /// Where a record begins if what lies before it says so: a header that verifies, or the lengths of the record there, whether
    /// or not that is whole.
    expected: usize,
    /// What was summed of records that were expected, whatever they say, ends here.
    passed: usize,
}

struct Carver<'a> {
    facts: &'a VolumeFacts,
    segment: SegmentIndex,
    bytes: &'a [u8],
    stand: Stand,
    /// Bytes that may be summed yet where no record is expected.
    work: u64,
    /// Bytes that may be summed once more yet where one is expected: a header that verifies inside of what another one, or a record,
    /// claims takes this back to where it lies. No client makes such headers, so that none uses this up for others.
    again: u64,
}

impl<'a> Carver<'a> {
    /// Goes from block to block, and at each that has a header goes on from there: one that is stale may claim what lies behind it.
    ///
    /// Cost: each place is looked at once for each epoch that its block is tried with, of which there are no more than
    /// [`EPOCHS_MAX`] and that of the last header; what is summed is bounded by the bytes that are passed, `work` and `again`.
    fn segment(&mut self, each: &mut impl FnMut(&[u8], RecordFact)) {
        let (facts, all) = (self.facts, self.bytes);
        let block_bytes = facts.verifier.geometry.block_bytes();
        // What the last header claims: its epoch, and the bytes up to its end.
        let mut claimed: Option<(Epoch, &[u8])> = None;
        for block in (0..facts.verifier.geometry.segment_blocks()).map(BlockIndex) {
            let start = block.0 as usize * block_bytes;
            let next = start + block_bytes;
            let rest = all.get(start..).unwrap_or_default();
            if let Some(header) = facts.verifier.header(self.segment, block, rest) {
                let records = start + at::BYTES;
                let end = records + header.payload_bytes as usize;
                (self.stand.from, self.stand.expected) = (records, records);
                if header.checkpoint {
                    // It holds none.
                    (self.stand.from, claimed) = (next, None);
                    continue;
                }
                let inside = all.get(..end).unwrap_or(all);
                claimed = Some((header.epoch, inside));
                self.records(header.epoch, inside, next, each);
                continue;
            }
            self.stand.from = self.stand.from.max(start);
            let uses = facts.uses_up_to(self.segment, block).iter().rev().take(EPOCHS_MAX);
            let uses = uses.map(|use_| (use_.epoch, all));
            let is_tried = |epoch| uses.clone().any(|(tried, _)| tried == epoch);
            let claimed =
                claimed.filter(|(epoch, inside)| start < inside.len() && !is_tried(*epoch));
            let (before, mut reached) = (self.stand, self.stand);
            for (epoch, inside) in claimed.into_iter().chain(uses) {
                self.stand = before;
                self.records(epoch, inside, next, each);
                let passed = reached.passed.max(self.stand.passed);
                reached = Stand { passed, ..reached.max(self.stand) };
            }
            self.stand = reached;
        }
    }

    /// Shows the records that begin between where this stands and `end`, and end in `bytes`, which are of the segment's start.
    fn records(
        &mut self,
        epoch: Epoch,
        bytes: &'a [u8],
        end: usize,
        each: &mut impl FnMut(&[u8], RecordFact),
    ) {
        while self.stand.from < end {
            let Some((record, place)) = self.record(epoch, bytes) else {
                self.stand.from += record_at::ALIGNMENT;
                continue;
            };
            self.stand.from += record.bytes();
            self.stand.expected = self.stand.expected.max(self.stand.from);
            each(record.key, RecordFact::new(&record, epoch, place));
        }
    }

    /// Reads the record that begins where this stands, unless it would take more work than is left.
    fn record(&mut self, epoch: Epoch, bytes: &'a [u8]) -> Option<(Record<'a>, Place)> {
        let from = self.stand.from;
        let bytes = bytes.get(from..)?;
        let fixed = bytes.get(..record_at::BYTES)?;
        // Cheap first: most places hold no record.
        let kind = u8_at(fixed, record_at::KIND);
        if !matches!(kind, 1..=4 | 7) || !is_zero(fixed, record_at::RESERVED) {
            return None;
        }
        let key_bytes = u16_at(fixed, record_at::KEY_BYTES);
        let value_bytes = u32_at(fixed, record_at::VALUE_BYTES);
        let summed = u64::from(key_bytes) + u64::from(value_bytes);
        let beyond = summed.saturating_sub(SHORT_BYTES);
        let expected = from == self.stand.expected;
        let passed_before = self.stand.passed.saturating_sub(from) as u64;
        let again = beyond.min(passed_before);
        if (expected && again > self.again) || (!expected && beyond > self.work) {
            return None;
        }
        let offset = u32::try_from(from).ok()?;
        let place = Place { segment: self.segment, offset };
        let found = Record::decode(epoch, place, bytes);
        match &found {
            // It is refused by its lengths alone, before anything is summed.
            Err(RecordError::Length) => {}
            _ if expected => {
                self.again -= again;
                self.stand.expected += record_bytes(key_bytes.into(), value_bytes as usize);
                self.stand.passed = self.stand.passed.max(self.stand.expected);
            }
            _ => self.work -= beyond,
        }
        Some((found.ok()?, place))
    }
}
