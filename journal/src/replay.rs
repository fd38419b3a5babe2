//! From accepted groups to the index: reading them again, verified again, and applying their records.

use crate::disk::Disk;
use crate::group::{Header, Verifier};
use crate::index::{Entry, Index};
use crate::large::{Manifest, chunk_of, collect, is_internal, replace};
use crate::layout::group;
use crate::plant::{Plant, Plants};
use crate::record::{Kind, Record};
use crate::scan::blocks;
use crate::types::{Lsn, Place, Zone};
use crate::walk::{Accepted, History};
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
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

/// Applies `history` to what the checkpoint holds.
pub(crate) async fn replay(
    disk: &Disk,
    verifier: &Verifier,
    history: &History,
    checkpoint: (Index, Doubt),
) -> Result<(Index, Doubt), ReplayError> {
    let mut state = checkpoint;
    let mut lost = history.lost.iter().peekable();
    for accepted in &history.accepted {
        while lost.next_if(|lost| lost.last < accepted.header.first).is_some() {
            forget(&mut state);
        }
        let bytes = read(disk, verifier, accepted).await?;
        apply(verifier, &accepted.header, &bytes, &mut state)?;
    }
    if lost.next().is_some() {
        forget(&mut state);
    }
    if !verifier.keys.plants.has(Plant::OrphansKept) {
        collect(&mut state.0, false);
    }
    Ok(state)
}

/// After a loss everything known so far may be out of date.
pub(crate) fn forget((index, doubt): &mut (Index, Doubt)) {
    index.suspect_all();
    doubt.absent = true;
    doubt.deleted.clear();
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
        let same = verifier.header(segment, block, &bytes) == Some(header);
        if same && verifier.records(&header, &bytes).is_some() {
            return Ok(bytes);
        }
    }
    Err(ReplayError::Unstable { first: header.first })
}

/// Applies the records of a group that [`read`] has verified.
pub(crate) fn apply(
    verifier: &Verifier,
    header: &Header,
    bytes: &[u8],
    (index, doubt): &mut (Index, Doubt),
) -> Result<(), ReplayError> {
    let nonsense = ReplayError::Records { first: header.first };
    let end = group::BYTES + header.payload_bytes as usize;
    let records = bytes.get(group::BYTES..end).ok_or(nonsense)?;
    let start = header.block.0 as usize * verifier.geometry.block_bytes() + group::BYTES;
    let (mut at, mut lsn) = (0, header.first);
    for _ in 0..header.record_count {
        let offset = u32::try_from(start + at).map_err(|_| nonsense)?;
        let place = Place { segment: header.segment, offset };
        let rest = records.get(at..).unwrap_or_default();
        let record = Record::decode(header.epoch, place, rest).map_err(|_| nonsense)?;
        if record.lsn != lsn {
            return Err(nonsense);
        }
        apply_record(&record, place, index, doubt, verifier.keys.plants).ok_or(nonsense)?;
        at += record.bytes();
        lsn = lsn.next();
    }
    let count_fits = header.record_count == 0 || lsn.before() == header.last;
    if at == records.len() && count_fits { Ok(()) } else { Err(nonsense) }
}

fn apply_record(
    record: &Record<'_>,
    place: Place,
    index: &mut Index,
    doubt: &mut Doubt,
    plants: Plants,
) -> Option<()> {
    let (value_bytes, upload) = match record.manifest {
        true if is_internal(record.key) => return None,
        true => Manifest::decode(record.value).map(|it| (it.total_bytes, Some(it.upload)))?,
        false => (u32::try_from(record.value.len()).unwrap_or(u32::MAX), None),
    };
    let entry = Entry { place, value_bytes, suspect: false, birth: record.birth, upload };
    match record.kind {
        // Callers have no internal keys, and chunks no others.
        Kind::Put | Kind::Delete if is_internal(record.key) => return None,
        Kind::Chunk => {
            chunk_of(record.key)?;
            index.insert(record.key, entry);
        }
        Kind::Put => {
            doubt.deleted.remove(record.key);
            replace(index, record.key, Some(entry), |_, _| ());
        }
        Kind::Delete => {
            replace(index, record.key, None, |_, _| ());
            if doubt.absent {
                doubt.deleted.insert(record.key.into());
            }
        }
        // FORMAT.md section 5: a move never undoes a later put or delete.
        Kind::Move => {
            let current = index.get(record.key);
            let always = plants.has(Plant::MoveReplaysAsPut);
            if always || current.is_some_and(|current| current.birth == record.birth) {
                // Who moved it knew whether it was current.
                index.insert(record.key, Entry { suspect: record.in_doubt, ..entry });
            }
        }
    }
    Some(())
}
