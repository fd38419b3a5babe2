//! From accepted groups to the index: reading them again, and applying their records, each checked by its CRC.

use crate::bulk::Bulk;
use crate::disk::Disk;
use crate::geometry::VolumeGeometry;
use crate::group::{Header, Verifier};
use crate::index::{Entry, Index};
use crate::large::{Manifest, chunk_of, collect, is_internal};
use crate::layout::group;
use crate::plant::{Plant, Plants};
use crate::record::{Kind, Record};
use crate::ring::{note_of, trim};
use crate::scan::{CHUNK_BYTES, Reading, blocks};
use crate::tag::Tag;
use crate::types::{Lsn, Place, SegmentIndex, Zone};
use crate::walk::{Accepted, History};
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::Buffer;

/// What lost groups leave in doubt.
#[derive(Clone, Default)]
pub(crate) struct Doubt {
    /// A key that the index does not hold may have been written by what was lost.
    pub(crate) absent: bool,
    /// Keys that were deleted after everything that was lost: they are absent without doubt.
    pub(crate) deleted: BTreeSet<Rc<[u8]>>,
}

/// Why the accepted log could not be read a second time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The group verified a moment ago and does not any more, in neither copy.
    Unstable {
        /// Its first LSN.
        first: Lsn,
    },
    /// The group verifies and its records make no sense: written by a faulty or newer program.
    Records {
        /// Its first LSN.
        first: Lsn,
    },
}

impl core::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unstable { first } => write!(
                f,
                "the group at LSN {first} verified once and not twice: the device is unstable"
            ),
            Self::Records { first } => write!(
                f,
                "the group at LSN {first} verifies but its records make no sense: \
                 a faulty or newer program wrote it"
            ),
        }
    }
}

/// The state of a log up to some place in it.
pub(crate) struct Replayed {
    index: Index,
    doubt: Doubt,
    /// Changes that the index has yet to take.
    bulk: Bulk,
}

/// Applies what of `history` is behind the `done` groups that `state` has.
pub(crate) async fn replay(
    disk: &Disk,
    verifier: &Verifier,
    history: &History,
    (mut state, done): (Replayed, usize),
) -> Result<(Index, Doubt), ReplayError> {
    let mut window = Window::default();
    let mut lost = history.last_lost();
    let mut rest = history.accepted.get(done..).unwrap_or_default();
    while let [accepted, behind @ ..] = rest {
        if lost.take_if(|last| *last < accepted.header.first).is_some() {
            state.forget();
        }
        let header = &accepted.header;
        // The scan has verified the group: its header and the CRC of each record tell whether these are its bytes.
        let bytes = window.group(disk, verifier, accepted, behind).await;
        rest = behind;
        if let Some(bytes) = bytes
            && let Ok(records) = records(verifier, header, bytes)
        {
            state.apply(verifier, header, &records)?;
            continue;
        }
        let bytes = read(disk, verifier, accepted).await?;
        state.apply(verifier, header, &records(verifier, header, &bytes)?)?;
    }
    if lost.is_some() {
        state.forget();
    }
    let (mut index, doubt) = state.finish();
    if !verifier.keys.plants.has(Plant::OrphansKept) {
        collect(&mut index, false);
    }
    trim(&mut index, &verifier.geometry);
    Ok((index, doubt))
}

/// Groups that are applied as the scan comes upon them, on trust that they count: mostly they do, and need not be read again.
pub(crate) struct Ahead {
    state: Replayed,
    /// Those that were applied, from the first of the log on without a gap.
    groups: Vec<Header>,
    next: Lsn,
    tag: Tag,
    /// Of one only a part could be applied.
    broken: bool,
}

impl Ahead {
    /// Begins with what a checkpoint holds, the log going on behind the group of that tag.
    pub(crate) fn new(checkpoint: (Index, Doubt), base: Lsn, tag: Tag) -> Self {
        let state = Replayed::new(checkpoint);
        Self { state, groups: Vec::new(), next: base.next(), tag, broken: false }
    }

    /// Applies a group that verifies as a whole, if it is the next; `bytes` start with it.
    pub(crate) fn offer(&mut self, verifier: &Verifier, header: &Header, bytes: &[u8]) {
        let is_next = header.first == self.next && header.previous == self.tag;
        if !is_next || self.broken || header.payload(bytes).is_none() {
            return;
        }
        let records = records(verifier, header, bytes);
        let applied = records.and_then(|records| self.state.apply(verifier, header, &records));
        self.broken = applied.is_err();
        self.groups.push(*header);
        (self.next, self.tag) = (header.last.next(), header.tag);
    }

    /// Yields the state and how many of the groups that count it has; nothing where it has others. What has none is always
    /// yielded, so that to begin anew ends.
    pub(crate) fn of(self, history: &History) -> Option<(Replayed, usize)> {
        let done = self.groups.len();
        let counted = history.accepted.get(..done)?.iter().map(|accepted| accepted.header);
        let lost = history.lost.first().is_some_and(|lost| done > 0 && lost.first < self.next);
        (!self.broken && !lost && counted.eq(self.groups)).then_some((self.state, done))
    }
}

impl Replayed {
    /// Begins with what a checkpoint holds.
    pub(crate) fn new((index, doubt): (Index, Doubt)) -> Self {
        Self { index, doubt, bulk: Bulk::default() }
    }

    /// After a loss everything known so far may be out of date.
    pub(crate) fn forget(&mut self) {
        self.bulk.apply(&mut self.index);
        self.index.suspect_all();
        self.doubt.absent = true;
        self.doubt.deleted.clear();
    }

    /// Yields what keys have at the end.
    pub(crate) fn finish(mut self) -> (Index, Doubt) {
        self.bulk.apply(&mut self.index);
        (self.index, self.doubt)
    }

    /// Applies the records of a group.
    pub(crate) fn apply(
        &mut self,
        verifier: &Verifier,
        header: &Header,
        records: &[(Place, Record<'_>)],
    ) -> Result<(), ReplayError> {
        let nonsense = ReplayError::Records { first: header.first };
        for (place, record) in records {
            self.apply_record(record, *place, verifier.keys.plants).ok_or(nonsense)?;
        }
        if self.bulk.is_full() {
            self.bulk.apply(&mut self.index);
        }
        Ok(())
    }

    fn apply_record(&mut self, record: &Record<'_>, place: Place, plants: Plants) -> Option<()> {
        let key = record.key;
        let (value_bytes, upload) = match record.manifest {
            true if is_internal(key) => return None,
            true => Manifest::decode(record.value).map(|it| (it.total_bytes, Some(it.upload)))?,
            false => (u32::try_from(record.value.len()).unwrap_or(u32::MAX), None),
        };
        let mut kind = record.kind;
        match kind {
            // Callers have no internal keys, and chunks no others.
            Kind::Put | Kind::Delete if is_internal(key) => return None,
            Kind::Note => drop(note_of(key)?),
            Kind::Chunk => drop(chunk_of(key)?),
            Kind::Put => drop(self.doubt.deleted.remove(key)),
            Kind::Delete if self.doubt.absent => drop(self.doubt.deleted.insert(key.into())),
            Kind::Move if plants.has(Plant::MoveReplaysAsPut) => kind = Kind::Put,
            Kind::Move | Kind::Delete => {}
        }
        // Who moved a value knew whether it was current; where nothing is lost, what was not read then has been read since.
        let believed = self.doubt.absent || plants.has(Plant::DoubtOutlives);
        let suspect = record.in_doubt && believed;
        let entry = Entry { place, value_bytes, suspect, birth: record.birth, upload };
        self.bulk.push(kind, key, entry);
        Some(())
    }
}

/// Reads an accepted group from the copy that verified, or from the other one.
pub(crate) async fn read(
    disk: &Disk,
    verifier: &Verifier,
    accepted: &Accepted,
) -> Result<Buffer, ReplayError> {
    let header = accepted.header;
    let other = match accepted.good {
        Zone::A => Zone::B,
        Zone::B => Zone::A,
    };
    let copies = [accepted.good, other].into_iter().take(verifier.geometry.copies().into());
    for zone in copies {
        let count = header.blocks(&verifier.geometry);
        let (segment, block) = (header.segment, header.block);
        let bytes = blocks(disk, verifier, zone, segment, block, count).await;
        if verifier.is_header(&header, &bytes) && verifier.records(&header, &bytes).is_some() {
            return Ok(bytes);
        }
    }
    Err(ReplayError::Unstable { first: header.first })
}

/// A stretch of one copy of the log, read at once: groups follow each other.
#[derive(Default)]
struct Window {
    place: Option<(Zone, SegmentIndex)>,
    first: u32,
    bytes: Buffer,
    /// The next stretch, on its way.
    ahead: Option<Reading>,
}

impl Window {
    /// Yields the bytes at the place of a group, from the copy that verified, if its header is there; `behind` are the
    /// groups that will be asked for next.
    async fn group(
        &mut self,
        disk: &Disk,
        verifier: &Verifier,
        accepted: &Accepted,
        behind: &[Accepted],
    ) -> Option<&[u8]> {
        let (geometry, header) = (&verifier.geometry, &accepted.header);
        if !self.holds(geometry, accepted) {
            let wanted = (accepted.good, header.segment, header.block);
            let ahead = self.ahead.take();
            let ahead = ahead.filter(|it| (it.zone, it.segment, it.first) == wanted);
            let reading = ahead.unwrap_or_else(|| Self::begin(disk, verifier, accepted));
            self.bytes = reading.end(disk, verifier).await;
            (self.place, self.first) = (Some((accepted.good, header.segment)), header.block.0);
            let next = behind.iter().find(|next| !self.holds(geometry, next));
            self.ahead = next.map(|next| Self::begin(disk, verifier, next));
        }
        let skip = (header.block.0 - self.first) as usize * geometry.block_bytes();
        let bytes = self.bytes.get(skip..)?;
        verifier.is_header(header, bytes).then_some(bytes)
    }

    /// Tells whether the stretch holds all of a group.
    fn holds(&self, geometry: &VolumeGeometry, accepted: &Accepted) -> bool {
        let header = &accepted.header;
        let end = self.first + geometry.blocks(self.bytes.len());
        self.place == Some((accepted.good, header.segment))
            && self.first <= header.block.0
            && header.block.0 + header.blocks(geometry) <= end
    }

    /// Begins to read a stretch that starts with a group and holds all of it.
    fn begin(disk: &Disk, verifier: &Verifier, accepted: &Accepted) -> Reading {
        let (geometry, header) = (&verifier.geometry, &accepted.header);
        let count = header.blocks(geometry).max(geometry.blocks(CHUNK_BYTES));
        let count = count.min(geometry.segment_blocks() - header.block.0);
        Reading::begin(disk, verifier, accepted.good, header.segment, header.block, count)
    }
}

/// Yields the records of a group that was verified, with their places.
pub(crate) fn records<'a>(
    verifier: &Verifier,
    header: &Header,
    bytes: &'a [u8],
) -> Result<Vec<(Place, Record<'a>)>, ReplayError> {
    let nonsense = ReplayError::Records { first: header.first };
    let records = header.payload(bytes).ok_or(nonsense)?;
    let start = header.block.0 as usize * verifier.geometry.block_bytes() + group::BYTES;
    let (mut at, mut lsn, mut found) = (0, header.first, Vec::new());
    for _ in 0..header.record_count {
        let offset = u32::try_from(start + at).map_err(|_| nonsense)?;
        let place = Place { segment: header.segment, offset };
        let rest = records.get(at..).unwrap_or_default();
        let record = Record::decode(header.epoch, place, rest).map_err(|_| nonsense)?;
        if record.lsn != lsn {
            return Err(nonsense);
        }
        found.push((place, record));
        at += record.bytes();
        lsn = lsn.next();
    }
    let count_fits = header.record_count == 0 || lsn.before() == header.last;
    if at == records.len() && count_fits { Ok(found) } else { Err(nonsense) }
}
