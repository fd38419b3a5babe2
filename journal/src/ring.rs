//! Notes: small records beside everybody's keys, in two rings that forget their oldest (FORMAT.md section 5).
//!
//! A note is an ordinary entry of the index whose key no caller can have, like a chunk, so that checkpoints, cleaning,
//! replay and the check treat it as they treat everything. What a ring holds is decided here, by its bounds alone, so
//! that every mount finds the same. The room of a full ring is kept back from callers at all times: a note never takes
//! what a commit needs.

use crate::batch::{CommitError, Content};
use crate::field::{array, put};
use crate::geometry::VolumeGeometry;
use crate::index::{Entry, Index};
use crate::journal::Journal;
use crate::layout::{note_key as at, record};
use crate::read::{Got, Seen};
use crate::record::record_bytes;
use crate::replay::Doubt;
use crate::room::Demand;
use crate::run::{RUN_BYTES_MAX, cut_bytes_max, entry_bytes_max};
use crate::state::{Change, QUEUE_BYTES_MAX, Queued, State};
use crate::ticket::Ticket;
use crate::types::{Lsn, Mode};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::iter;

/// Segments and zones that notes are kept from: below it a group of the longest value or batch has no room for one, or
/// notes would take much of the zone.
const SEGMENT_BYTES_MIN: usize = 160 << 10;
const ZONE_BYTES_MIN: u64 = 3 << 20;
/// Share of a zone that the notes of mutations may take, as a divisor, and the bounds of that.
const ZONE_DIVISOR: u64 = 128;
const RING_BYTES_MIN: u64 = 64 << 10;
const RING_BYTES_MAX: u64 = 1 << 20;
/// The notes of denials may take this part of that of mutations, as a divisor.
const DENIALS_DIVISOR: u64 = 4;
/// Bytes for which a ring may hold one note: each is an entry of the index.
const NOTE_BYTES_MEAN: u64 = 128;

/// Bytes of a note's record at most: cleaning wastes no more of a segment's end than the longest record takes, and room
/// for that is kept at all times.
const RECORD_BYTES_MAX: usize = 1024;
/// Longest note in bytes.
pub const NOTE_BYTES_MAX: usize = RECORD_BYTES_MAX - record::BYTES - at::BYTES;

/// First number that no record has.
const NUMBER_END: u64 = 1 << 62;
/// Numbers that one LSN is counted for where nobody knows what it held (FORMAT.md section 5).
const NUMBERS_OF_LSN: u64 = 1 << 16;

/// Which of the two rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// Notes that are written with a commit.
    Mutations,
    /// Notes that are written alone.
    Denials,
}

/// A note that is to be written.
#[derive(Clone)]
pub struct Note {
    /// Where.
    pub ring: Ring,
    /// How many numbers of the ring it takes: it holds as many records.
    pub count: u16,
    /// What it says, in [`NOTE_BYTES_MAX`] at most.
    pub bytes: Rc<[u8]>,
}

/// A note that a ring holds, unread.
#[derive(Clone)]
pub struct NoteSeen {
    /// Number of its last record in the ring; they rise by one, from 1, in the volume's life.
    pub last: u64,
    /// How many records it holds.
    pub count: u16,
    key: Rc<[u8]>,
    seen: Seen,
}

/// Bounds of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bounds {
    bytes: u64,
    notes: u64,
}

/// What one ring holds.
#[derive(Clone, Copy, Default)]
struct Held {
    bytes: u64,
    notes: u64,
}

/// What the rings hold and may hold.
#[derive(Default)]
pub(crate) struct RingRoom {
    held: [Held; 2],
    bounds: [Bounds; 2],
}

impl Ring {
    const ALL: [Self; 2] = [Self::Mutations, Self::Denials];

    /// Second byte of its keys, beyond that of every upload.
    const fn byte(self) -> u8 {
        match self {
            Self::Mutations => 0xfe,
            Self::Denials => 0xff,
        }
    }

    const fn at(self) -> usize {
        match self {
            Self::Mutations => 0,
            Self::Denials => 1,
        }
    }

    fn bounds(self, geometry: &VolumeGeometry) -> Bounds {
        let zone = geometry.segment_bytes() as u64 * u64::from(geometry.segment_count());
        if geometry.segment_bytes() < SEGMENT_BYTES_MIN || zone < ZONE_BYTES_MIN {
            return Bounds::default();
        }
        let mutations = (zone / ZONE_DIVISOR).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
        let bytes = match self {
            Self::Mutations => mutations,
            Self::Denials => mutations / DENIALS_DIVISOR,
        };
        Bounds { bytes, notes: bytes / NOTE_BYTES_MEAN }
    }
}

impl Note {
    /// Yields the bytes that it takes in a group.
    pub fn record_bytes(&self) -> usize {
        record_bytes(at::BYTES, self.bytes.len())
    }

    /// Yields the bytes that notes take together.
    pub(crate) fn check(notes: &[Self]) -> Result<usize, CommitError> {
        match notes.iter().map(|note| note.bytes.len()).max() {
            Some(bytes) if bytes > NOTE_BYTES_MAX => {
                Err(CommitError::ValueBytes { bytes, most: NOTE_BYTES_MAX })
            }
            _ => Ok(notes.iter().map(Self::record_bytes).sum()),
        }
    }
}

/// Tells whether a volume of this shape keeps notes at all.
pub fn keeps_notes(geometry: &VolumeGeometry) -> bool {
    Ring::Mutations.bounds(geometry).notes > 0
}

fn note_key(ring: Ring, last: u64, count: u16) -> [u8; at::BYTES] {
    let mut key = [0; at::BYTES];
    put(&mut key, at::RING, &[ring.byte()]);
    // Big-endian, so that the order of bytes is the order of numbers.
    put(&mut key, at::LAST, &last.to_be_bytes());
    put(&mut key, at::COUNT, &count.to_be_bytes());
    key
}

/// Yields the ring, the number of the last record and their count that a note's key states.
pub(crate) fn note_of(key: &[u8]) -> Option<(Ring, u64, u16)> {
    let key: &[u8; at::BYTES] = key.try_into().ok()?;
    let [internal, byte, ..] = *key;
    let ring = Ring::ALL.into_iter().find(|ring| internal == 0 && ring.byte() == byte)?;
    let last = u64::from_be_bytes(array(key, at::LAST));
    let count = u16::from_be_bytes(array(key, at::COUNT));
    // A forged number must not bring the counting to its end.
    let sound = last < NUMBER_END && (1..=last).contains(&count.into());
    sound.then_some((ring, last, count))
}

/// Yields the notes of a ring whose last record has a greater number than `after`, oldest first.
fn notes_after(index: &Index, ring: Ring, after: u64) -> impl Iterator<Item = (Rc<[u8]>, Entry)> {
    let from = note_key(ring, after.saturating_add(1), 0);
    let mut cursor = index.cursor(&from);
    let notes = iter::from_fn(move || cursor.step().map(|(key, entry)| (Rc::from(key), entry)));
    notes.take_while(move |(key, _): &(Rc<[u8]>, Entry)| {
        note_of(key).is_some_and(|(of, ..)| of == ring)
    })
}

/// Takes away what is beyond the bounds of the rings: the oldest.
///
/// While a volume is written this happens note by note. To do it once behind the last leaves the same, since what a
/// note pushed out stays out whatever comes after it.
pub(crate) fn trim(index: &mut Index, geometry: &VolumeGeometry) {
    for ring in Ring::ALL {
        let Bounds { bytes, notes } = ring.bounds(geometry);
        let held = || notes_after(index, ring, 0).map(|(key, it)| it.record_bytes(&key) as u64);
        let (mut bytes_held, mut notes_held) = (held().sum::<u64>(), held().count() as u64);
        let mut beyond: Vec<Rc<[u8]>> = Vec::new();
        for (key, entry) in notes_after(index, ring, 0) {
            if bytes_held <= bytes && notes_held <= notes {
                break;
            }
            bytes_held -= entry.record_bytes(&key) as u64;
            notes_held -= 1;
            beyond.push(key);
        }
        for key in beyond {
            index.remove(&key);
        }
    }
}

impl RingRoom {
    /// Counts nothing yet.
    pub(crate) fn of(geometry: &VolumeGeometry) -> Self {
        Self { held: [Held::default(); 2], bounds: Ring::ALL.map(|ring| ring.bounds(geometry)) }
    }

    /// Counts a note that a ring was given; tells whether `key` is one.
    pub(crate) fn add(&mut self, key: &[u8], bytes: u64) -> bool {
        let held = note_of(key).and_then(|(ring, ..)| self.held.get_mut(ring.at()));
        held.map(|held| (held.bytes, held.notes) = (held.bytes + bytes, held.notes + 1)).is_some()
    }

    /// Counts a note that a ring has lost; tells whether `key` is one.
    pub(crate) fn remove(&mut self, key: &[u8], bytes: u64) -> bool {
        let held = note_of(key).and_then(|(ring, ..)| self.held.get_mut(ring.at()));
        held.map(|held| (held.bytes, held.notes) = (held.bytes - bytes, held.notes - 1)).is_some()
    }

    /// Tells whether a ring holds more than it may.
    fn overflows(&self, ring: Ring) -> bool {
        let (held, bounds) = (self.held.get(ring.at()), self.bounds.get(ring.at()));
        held.zip(bounds)
            .is_some_and(|(held, most)| held.bytes > most.bytes || held.notes > most.notes)
    }

    /// Yields the bytes of records that full rings take.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bounds.iter().map(|bounds| bounds.bytes).sum()
    }

    /// Yields the bytes of the longest record that the rings may hold.
    pub(crate) fn longest(&self) -> usize {
        if self.bytes_max() > 0 { RECORD_BYTES_MAX } else { 0 }
    }

    /// Yields the most bytes that a checkpoint grows by until the rings are full.
    pub(crate) fn items(&self) -> usize {
        let missing = |(held, most): (&Held, &Bounds)| most.notes.saturating_sub(held.notes);
        let notes: u64 = self.held.iter().zip(&self.bounds).map(missing).sum();
        let bytes = usize::try_from(notes).unwrap_or(usize::MAX) * entry_bytes_max(at::BYTES);
        // Notes come in their order, so a run is cut once it is full.
        bytes + bytes.div_ceil(RUN_BYTES_MAX / 2) * cut_bytes_max(at::BYTES)
    }
}

/// The next number of each ring.
pub(crate) struct Numbers([u64; 2]);

impl Numbers {
    /// Goes on behind what the rings hold, and behind all that a loss up to `durable` may have taken: a note has one LSN
    /// and fewer numbers than [`NUMBERS_OF_LSN`], so none has a number above the product.
    pub(crate) fn behind(index: &Index, doubt: &Doubt, durable: Lsn) -> Self {
        Self(Ring::ALL.map(|ring| {
            let last = notes_after(index, ring, 0).last();
            let number =
                last.as_ref().and_then(|(key, _)| note_of(key)).map_or(0, |(_, last, _)| last);
            // One that is not in doubt was written behind what was lost.
            let is_last = !doubt.absent || last.is_some_and(|(_, entry)| !entry.suspect);
            let gone = if is_last { 0 } else { durable.0.saturating_mul(NUMBERS_OF_LSN) };
            number.max(gone.min(NUMBER_END / 2)) + 1
        }))
    }
}

impl State {
    /// Adds notes to changes that will be written together.
    pub(crate) fn add_notes(&mut self, changes: &mut Vec<Change>, notes: Vec<Note>) {
        for Note { ring, count, bytes } in notes {
            let next = self.numbers.0.get_mut(ring.at()).expect("there are two rings");
            let count = count.max(1);
            let last = *next + u64::from(count) - 1;
            *next = last + 1;
            let birth = self.next_birth;
            self.next_birth = birth.next();
            let key = Rc::from(&note_key(ring, last, count)[..]);
            changes.push(Change { key, content: Some(Content::Note(bytes)), birth });
        }
    }

    /// A note is durable: it counts, and the ring forgets what it pushes out.
    pub(crate) fn settle_note(&mut self, key: &[u8], entry: Entry) {
        self.give(key, Some(entry));
        let Some((ring, ..)) = note_of(key) else { return };
        while self.room.rings.overflows(ring) {
            let oldest = notes_after(&self.index, ring, 0).next();
            let Some((oldest, _)) = oldest else { return };
            self.give(&oldest, None);
        }
    }

    /// Gives the numbers of notes that came to nothing out again.
    pub(crate) fn renumber_notes(&mut self) {
        self.numbers = Numbers::behind(&self.index, &self.doubt, self.durable.lsn);
    }

    /// Queues notes that are written when something else is, or after a while.
    fn admit_notes(&mut self, notes: Vec<Note>, now: u64) -> Result<(), CommitError> {
        if let Mode::ReadOnly(reason) = self.mode {
            return Err(CommitError::ReadOnly(reason));
        }
        if self.queue_bytes + Note::check(&notes)? > QUEUE_BYTES_MAX {
            return Err(CommitError::Overloaded);
        }
        let mut demand = Demand::default();
        notes.iter().for_each(|note| demand.add(note.record_bytes(), None));
        let mut changes = Vec::new();
        self.add_notes(&mut changes, notes);
        let ticket = Ticket::default();
        self.newest = Some(ticket.clone());
        self.queue_bytes += demand.bytes;
        self.room.admitted(&demand);
        self.queue.push_back(Queued { changes, ticket, demand, strict: false });
        self.buffered_since.get_or_insert(now);
        Ok(())
    }
}

impl Journal {
    /// Tells whether this volume keeps notes.
    pub fn keeps_notes(&self) -> bool {
        keeps_notes(&self.0.verifier.geometry)
    }

    /// Gives notes to their rings, to be written together, with the next commit or after a while like what is buffered. A
    /// volume that keeps no notes does nothing.
    ///
    /// # Errors
    /// [`CommitError::ReadOnly`], [`CommitError::Overloaded`], and what is wrong with a note; there is always room for one.
    pub fn note(&self, notes: Vec<Note>) -> Result<(), CommitError> {
        let geometry = &self.0.verifier.geometry;
        let (bytes, most) = (Note::check(&notes)?, geometry.records_bytes_max());
        if bytes > most {
            return Err(CommitError::BatchBytes { bytes, most });
        }
        if notes.is_empty() || !self.keeps_notes() {
            return Ok(());
        }
        self.0.clean_anew();
        let now = self.0.clock.now();
        self.0.state.borrow_mut().admit_notes(notes, now)
    }

    /// Yields the first `most` of those durable notes of a ring that hold a record with a greater number than `after`.
    pub fn notes(&self, ring: Ring, after: u64, most: usize) -> Vec<NoteSeen> {
        let state = self.0.state.borrow();
        let note = |(key, entry): (Rc<[u8]>, Entry)| {
            let (_, last, count) = note_of(&key)?;
            Some(NoteSeen { last, count, key, seen: self.0.seen_entry(entry) })
        };
        notes_after(&state.index, ring, after).filter_map(note).take(most).collect()
    }

    /// Reads a note; `Absent` if its ring has forgotten it meanwhile.
    pub async fn read_note(&self, note: &NoteSeen) -> Got {
        self.value(&note.key, &note.seen).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Birth, Place, SegmentIndex};

    fn entry(value_bytes: u32) -> Entry {
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        Entry { place, value_bytes, suspect: false, birth: Birth(9), upload: None }
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_no_upload_has_one() {
        let key = note_key(Ring::Denials, 0x0102, 3);
        assert_eq!(note_of(&key), Some((Ring::Denials, 0x0102, 3)));
        assert!(note_key(Ring::Mutations, 255, 1) < note_key(Ring::Mutations, 256, 1));
        for (last, count) in [(0, 0), (5, 0), (2, 3), (1 << 62, 1)] {
            assert_eq!(note_of(&note_key(Ring::Mutations, last, count)), None);
        }
        assert_eq!(note_of(b"/state/12345"), None);
        assert_eq!(crate::large::chunk_of(&key), None);
    }

    #[test]
    fn rings_forget_their_oldest_and_small_volumes_have_none() {
        let geometry = VolumeGeometry::choose(16 << 20, 512, 4096, 2).unwrap();
        let most = Ring::Denials.bounds(&geometry);
        assert!(keeps_notes(&geometry) && most.notes > 100);
        let mut index = Index::default();
        for (number, value_bytes) in (1..=most.notes + 10).zip([1, 2, 3].into_iter().cycle()) {
            index.insert(&note_key(Ring::Denials, number, 1), entry(value_bytes));
        }
        index.insert(b"/state/a", entry(1));
        trim(&mut index, &geometry);
        assert_eq!(index.len() as u64, most.notes + 1);
        assert_eq!(
            note_of(&notes_after(&index, Ring::Denials, 0).next().unwrap().0).unwrap().1,
            11
        );
        // A few that are long push out many.
        let last = most.notes + 11;
        let long = u32::try_from(most.bytes / 2).unwrap();
        index.insert(&note_key(Ring::Denials, last, 1), entry(long));
        trim(&mut index, &geometry);
        let held: u64 = notes_after(&index, Ring::Denials, 0)
            .map(|(key, entry)| entry.record_bytes(&key) as u64)
            .sum();
        assert!(held <= most.bytes && held > most.bytes / 2 + 1000);
        let whole = Doubt::default();
        assert_eq!(Numbers::behind(&index, &whole, Lsn(7)).0, [1, last + 1]);
        // Behind a loss: what may have been lost had an LSN up to the seventh.
        let lost = Doubt { absent: true, ..Doubt::default() };
        assert_eq!(Numbers::behind(&index, &lost, Lsn(7)).0, [7 * 65_536 + 1, last + 1]);
        index.suspect_all();
        assert_eq!(Numbers::behind(&index, &lost, Lsn(7)).0, [7 * 65_536 + 1; 2]);
        assert_eq!(Numbers::behind(&index, &lost, Lsn(0)).0, [1, last + 1]);
        assert_eq!(Numbers::behind(&index, &lost, Lsn(u64::MAX)).0, [(1 << 61) + 1; 2]);
        let small = VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap();
        assert!(!keeps_notes(&small));
    }
}
