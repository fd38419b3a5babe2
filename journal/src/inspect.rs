//! Facts about a volume for tools that look at it without serving it; nothing is written.
//!
//! Where a mount refuses or stops, this goes on: it reads all that verifies, with the parts that recovery
//! is made of, and tells what does not. It decides nothing about repair, and prints nothing.

mod carve;
mod checkpoint;
mod fault;
mod values;

use crate::disk::Disk;
use crate::geometry::{KEY_BYTES_MAX, VALUE_BYTES_MAX, superblock_offset};
use crate::group::{Header, Verifier};
use crate::index::{Entry, Index};
use crate::large::{Manifest, UploadId, callers_from, chunk_of, collect, owners};
use crate::replay::{Doubt, Replayed, read, records};
use crate::ring::{note_of, trim};
use crate::scan;
use crate::superblock::{Copies, Superblock, SuperblockError};
use crate::tag::Keys;
use crate::types::{BlockIndex, Lsn, SegmentIndex, Use, Version, Zone};
use crate::walk::{History, Seen, Sighting, Weakened, walk};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

pub use carve::{Gives, RecordFact};
pub use fault::{Fault, FaultKind, KEYS_NAMED_MAX, Source, Span};

/// Beyond this no volume's counters come; a field that says more was forged.
const LSN_MAX: Lsn = Lsn(1 << 62);

/// One copy of the superblock, as it was found.
#[derive(Clone, Debug)]
pub struct SuperblockCopy {
    /// Bytes from the start of the device.
    pub offset: u64,
    /// What it states, or why it does not verify.
    pub found: Result<Superblock, SuperblockError>,
    /// It is the newest one, or equal to it.
    pub newest: bool,
}

/// What a device holds.
pub struct Inspection {
    /// Bytes of the device.
    pub device_bytes: u64,
    /// The four copies of the superblock.
    pub copies: Vec<SuperblockCopy>,
    /// The volume; `None` if no copy of the superblock verifies.
    pub volume: Option<VolumeFacts>,
}

/// Why a group lies where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A part of the log that a mount replays.
    Log,
    /// A part of the checkpoint.
    Checkpoint,
    /// Covered by the checkpoint; values that keys point to may lie in it.
    Values,
    /// It verifies and does not count: written, never acknowledged.
    Torn,
}

/// A group whose header verifies in at least one copy.
#[derive(Clone, Copy, Debug)]
pub struct GroupFact {
    /// What it states.
    pub header: Header,
    /// Why it is there.
    pub role: Role,
    /// Copy A verifies as a whole.
    pub whole_a: bool,
    /// Copy B verifies as a whole.
    pub whole_b: bool,
    /// Values in it that keys point to.
    pub live_values: u64,
    /// Bytes of the records of those.
    pub live_bytes: u64,
}

/// What a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentFact {
    /// A use of the log lies in it.
    pub log: bool,
    /// A part of the checkpoint lies in it.
    pub checkpoint: bool,
    /// A use that the checkpoint lists lies in it.
    pub values: bool,
    /// Blocks from its start up to the end of its last group.
    pub written_blocks: u32,
    /// Values in it that keys point to.
    pub live_values: u64,
    /// Bytes of the records of those.
    pub live_bytes: u64,
}

/// Where a key's value lies, and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyFact {
    entry: Entry,
    /// The version that clients see.
    pub version: Version,
}

impl KeyFact {
    /// A later change of the key may have been lost.
    pub fn in_doubt(&self) -> bool {
        self.entry.suspect
    }
}

/// What is known of a volume.
pub struct VolumeFacts {
    /// The newest copy of the superblock.
    pub superblock: Superblock,
    /// The groups, by segment and block.
    pub groups: Vec<GroupFact>,
    /// The segments, by number.
    pub segments: Vec<SegmentFact>,
    /// What the walk over the log found.
    pub history: History,
    /// The highest `durable_lsn` found.
    pub evidence: Lsn,
    /// All that is wrong, in the order in which it was found.
    pub faults: Vec<Fault>,
    /// Keys with a value.
    pub keys: usize,
    /// Keys that the index does not hold may have been lost.
    pub absent_in_doubt: bool,
    /// Keys that are absent without doubt all the same.
    deleted: BTreeSet<Rc<[u8]>>,
    index: Index,
    /// The key of each large value.
    owners: BTreeMap<UploadId, Rc<[u8]>>,
    chunks: carve::Chunks,
    verifier: Verifier,
    /// The uses in which values may lie, by segment and start once all are known.
    uses: Vec<Use>,
}

/// Reads everything that the volume on `disk` uses, both copies, and yields the facts.
///
/// `progress` is told how many of how many steps are done. Cost: each segment in use is read twice per
/// copy, the index is in memory. Hostile bytes yield faults; nothing is allocated by what a field claims.
pub async fn inspect(disk: &Disk, mut progress: impl FnMut(u64, u64)) -> Inspection {
    let (copies, best) = newest(disk).await;
    let device_bytes = disk.geometry().device_bytes;
    let listed = list(&copies, best.as_ref(), device_bytes);
    let volume = match best {
        Some(best) if is_sane(&best) => {
            Some(Look { disk, copies: &copies, progress: &mut progress }.volume(best).await)
        }
        _ => None,
    };
    Inspection { device_bytes, copies: listed, volume }
}

/// Reads the copies of the superblock and nothing else.
pub async fn superblocks(disk: &Disk) -> Vec<SuperblockCopy> {
    let (copies, best) = newest(disk).await;
    list(&copies, best.as_ref(), disk.geometry().device_bytes)
}

/// Yields the copies of the superblock, and what the newest states.
async fn newest(disk: &Disk) -> (Copies, Option<Superblock>) {
    let mut copies = scan::superblocks(disk).await;
    let best = copies.best().map(|best| best.geometry);
    // Where the volume goes on behind the end of the device, its last copies were looked for at that end, and are elsewhere.
    if let Some(geometry) = best.filter(|it| !it.fits(disk.geometry().device_bytes)) {
        copies = scan::superblocks_of(disk, geometry.volume_bytes()).await;
    }
    let best = copies.best().cloned();
    (copies, best)
}

fn list(copies: &Copies, best: Option<&Superblock>, device_bytes: u64) -> Vec<SuperblockCopy> {
    let at = best.map_or(device_bytes, |best| best.geometry.volume_bytes());
    let copy = |(copy, found): (usize, &Result<Superblock, SuperblockError>)| SuperblockCopy {
        offset: superblock_offset(copy, at),
        found: found.clone(),
        newest: best.is_some() && found.as_ref().ok() == best,
    };
    copies.copies.iter().enumerate().map(copy).collect()
}

/// Tells whether the counters are ones that a volume can have.
fn is_sane(superblock: &Superblock) -> bool {
    let Superblock { durable, base, checkpoint, log, .. } = superblock;
    let ends = checkpoint.iter().chain(log).filter_map(|use_| use_.end);
    ends.chain([*durable, *base]).all(|lsn| lsn < LSN_MAX)
        && superblock.mount < crate::types::Birth::MOUNT_END
}

struct Look<'a, P> {
    disk: &'a Disk,
    copies: &'a Copies,
    progress: &'a mut P,
}

/// Groups by place.
type Groups = BTreeMap<(SegmentIndex, BlockIndex), GroupFact>;

impl<P: FnMut(u64, u64)> Look<'_, P> {
    async fn volume(&mut self, superblock: Superblock) -> VolumeFacts {
        let geometry = superblock.geometry;
        let keys = Keys::derive(&superblock.key);
        let verifier = Verifier { volume: superblock.volume, keys, geometry };
        let mut facts = VolumeFacts {
            groups: Vec::new(),
            segments: vec![SegmentFact::default(); geometry.segment_count() as usize],
            history: walk(&nothing_seen(&superblock), Weakened::default()),
            evidence: Lsn::NONE,
            faults: Vec::new(),
            keys: 0,
            absent_in_doubt: false,
            deleted: BTreeSet::new(),
            index: Index::default(),
            owners: BTreeMap::new(),
            chunks: BTreeMap::new(),
            verifier,
            uses: Vec::new(),
            superblock,
        };
        fault::superblocks(&mut facts, self.copies, self.disk.geometry().device_bytes);
        let mut groups = Groups::new();
        let state = checkpoint::load(self.disk, &mut facts, &mut groups).await;
        let (index, doubt) = self.log(&mut facts, &mut groups, state).await;
        fault::counters(&mut facts);
        self.values(&mut facts, &mut groups).await;
        let device_bytes = self.disk.geometry().device_bytes;
        fault::older_superblocks(&mut facts, self.copies, &groups, device_bytes);
        facts.keys = index.iter_from(callers_from(b"")).count();
        facts.owners = owners(&index);
        facts.absent_in_doubt = doubt.absent;
        facts.deleted = doubt.deleted;
        facts.index = index;
        values::live(&mut facts, &mut groups);
        fault::groups(self.disk, &mut facts, &groups).await;
        facts.groups = groups.into_values().collect();
        values::check(self.disk, &mut facts, self.progress).await;
        fault::doubt(&mut facts);
        facts
    }

    /// Walks the log and applies what counts.
    async fn log(
        &mut self,
        facts: &mut VolumeFacts,
        groups: &mut Groups,
        mut state: Replayed,
    ) -> (Index, Doubt) {
        let verifier = &facts.verifier;
        let mut seen = scan::log(self.disk, verifier, &facts.superblock, self.copies, None).await;
        seen.evidence = seen.evidence.min(LSN_MAX);
        for of_use in &mut seen.groups {
            of_use.retain(|sighting| sighting.header.last < LSN_MAX);
        }
        let history = walk(&seen, Weakened::default());
        for (use_, of_use) in seen.uses.iter().zip(&seen.groups) {
            // Behind the start of a later use it would be taken for what is there now.
            for sighting in of_use.iter().filter(|it| scan::owns(&seen.uses, use_, it.header.block))
            {
                add(groups, sighting, Role::Torn);
            }
        }
        let mut lost = history.last_lost();
        for accepted in &history.accepted {
            if lost.take_if(|last| *last < accepted.header.first).is_some() {
                state.forget();
            }
            let header = accepted.header;
            if let Some(group) = groups.get_mut(&(header.segment, header.block)) {
                group.role = Role::Log;
            }
            let applied = match read(self.disk, verifier, accepted).await {
                Ok(bytes) => records(verifier, &header, &bytes)
                    .and_then(|records| state.apply(verifier, &header, &records)),
                Err(error) => Err(error),
            };
            if applied.is_err() {
                facts.faults.push(Fault::records(verifier, &header));
                state.forget();
            }
        }
        if lost.is_some() {
            state.forget();
        }
        let (mut index, doubt) = state.finish();
        // Where something was lost, so may be the manifest of chunks that are there: a salvage may find it.
        collect(&mut index, facts.has_loss() || !history.lost.is_empty());
        trim(&mut index, &facts.verifier.geometry);
        fault::lost(facts, &seen, &history);
        facts.evidence = seen.evidence;
        facts.history = history;
        for use_ in &facts.superblock.log {
            if let Some(segment) = facts.segments.get_mut(use_.segment.0 as usize) {
                segment.log = true;
            }
        }
        // As a mount lists them: the use that a checkpoint cut begins earlier in its own list.
        for use_ in &facts.superblock.log {
            if facts.uses.iter().all(|known| known.epoch != use_.epoch) {
                let below = |known: &Use| known.segment != use_.segment || known.start < use_.start;
                facts.uses.retain(below);
                facts.uses.push(*use_);
            }
        }
        // Sorted, they are found whatever a forged checkpoint lists; of those that begin alike the last counts.
        facts.uses.sort_by_key(|use_| (use_.segment, use_.start));
        facts.uses.dedup_by(|next, before| {
            let alike = (next.segment, next.start) == (before.segment, before.start);
            if alike {
                *before = *next;
            }
            alike
        });
        (index, doubt)
    }

    /// Looks at the segments in which the checkpoint says that values lie.
    async fn values(&mut self, facts: &mut VolumeFacts, groups: &mut Groups) {
        let count = facts.verifier.geometry.segment_count();
        for segment in (0..count).map(SegmentIndex) {
            (self.progress)(u64::from(segment.0), 2 * u64::from(count));
            let listed = facts.segments.get_mut(segment.0 as usize).filter(|fact| fact.values);
            if listed.is_none() {
                continue;
            }
            let uses = facts.uses_in(segment);
            for sighting in scan::sightings(self.disk, &facts.verifier, segment, uses).await {
                let covered = sighting.header.last <= facts.superblock.base;
                add(groups, &sighting, if covered { Role::Values } else { Role::Torn });
            }
        }
    }
}

fn add(groups: &mut Groups, sighting: &Sighting, role: Role) {
    let Sighting { header, whole_a, whole_b } = *sighting;
    let place = (header.segment, header.block);
    let fresh = GroupFact { header, role, whole_a, whole_b, live_values: 0, live_bytes: 0 };
    groups.entry(place).or_insert(fresh);
}

fn nothing_seen(superblock: &Superblock) -> Seen {
    Seen {
        uses: Vec::new(),
        groups: Vec::new(),
        evidence: Lsn::NONE,
        base: superblock.base,
        base_tag: superblock.base_tag,
        geometry: superblock.geometry,
    }
}

impl VolumeFacts {
    /// Yields the keys at or after `from` in bytewise order.
    pub fn keys_from(&self, from: &[u8]) -> impl Iterator<Item = (Rc<[u8]>, KeyFact)> {
        self.index.iter_from(callers_from(from)).map(|(key, entry)| {
            (key, KeyFact { entry, version: self.verifier.keys.version(entry.birth) })
        })
    }

    /// Shows the parts of a large value in order, each from whichever copy holds it; tells whether all of it verifies. They are
    /// looked for among those that recovery found, and then among those that were carved so far: the digest of the manifest tells whether
    /// they are its own.
    ///
    /// Memory: one part, of 64 KiB at most. What came before a part that is lost counts for nothing.
    pub async fn read_chunks(
        &self,
        disk: &Disk,
        manifest: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> bool {
        let Some(manifest) = Manifest::decode(manifest) else { return false };
        let mut window = values::Windows::default();
        let mut hasher = blake3::Hasher::new();
        for number in 0..manifest.chunks() {
            let chunk = self.read_chunk(disk, &mut window, manifest.upload, number).await;
            let chunk = chunk.filter(|it| it.len() == manifest.chunk_len(number));
            let Some(chunk) = chunk else { return false };
            hasher.update(&chunk);
            each(&chunk);
        }
        *hasher.finalize().as_bytes() == manifest.digest
    }

    /// Yields the key that a caller knows of what `key` is a part of: its own, or that of its large value.
    ///
    /// Nothing for a chunk that no key has, and for a note.
    fn named<'a>(&'a self, key: &'a [u8]) -> Option<&'a [u8]> {
        match chunk_of(key) {
            Some((upload, _)) => self.owners.get(&upload).map(|owner| &**owner),
            None => Some(key).filter(|key| note_of(key).is_none()),
        }
    }

    /// Tells whether something that had been acknowledged is lost, or may be.
    pub fn has_loss(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.is_loss())
    }

    /// Tells whether a key is known to have been deleted after everything that was lost.
    pub fn is_deleted(&self, key: &[u8]) -> bool {
        self.deleted.contains(key)
    }

    /// Yields how many keys are in doubt.
    pub fn keys_in_doubt(&self) -> usize {
        self.keys_from(b"").filter(|(_, fact)| fact.in_doubt()).count()
    }

    /// Yields the epochs' owner of a place: the use that its record was written in.
    fn use_of(&self, segment: SegmentIndex, block: BlockIndex) -> Option<&Use> {
        self.uses_up_to(segment, block).last()
    }

    /// Yields the uses of a segment, by their starts.
    fn uses_in(&self, segment: SegmentIndex) -> &[Use] {
        self.uses_up_to(segment, BlockIndex(u32::MAX))
    }

    /// Yields those of them that begin at or before a block.
    fn uses_up_to(&self, segment: SegmentIndex, block: BlockIndex) -> &[Use] {
        let first = self.uses.partition_point(|use_| use_.segment < segment);
        let end = self.uses.partition_point(|use_| (use_.segment, use_.start) <= (segment, block));
        self.uses.get(first..end).unwrap_or_default()
    }

    fn block_offset(&self, zone: Zone, segment: SegmentIndex, block: BlockIndex) -> u64 {
        self.verifier.geometry.block_offset(zone, segment, block)
    }

    /// Tells whether an entry can be one that this volume holds.
    fn is_possible(&self, key: &[u8], entry: &Entry) -> bool {
        let geometry = &self.verifier.geometry;
        let bytes = entry.record_bytes(key) as u64;
        (1..=KEY_BYTES_MAX).contains(&key.len())
            && entry.stored_bytes() <= VALUE_BYTES_MAX
            && entry.place.segment.0 < geometry.segment_count()
            && u64::from(entry.place.offset) + bytes <= geometry.segment_bytes() as u64
    }
}

#[cfg(test)]
mod tests;
