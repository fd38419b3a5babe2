//! Checkpoints: the index as of one LSN, in mirrored groups of their own (FORMAT.md section 8).

use crate::disk::Disk;
use crate::field::{put, u8_at, u32_at, u64_at};
use crate::geometry::VolumeGeometry;
use crate::group::{Builder, Header, Verifier};
use crate::index::{Entry, Index};
use crate::large::UploadId;
use crate::layout::{
    checkpoint_entry as entry_at, checkpoint_large as large_at, checkpoint_use as use_at, group,
};
use crate::plant::Plant;
use crate::replay::Doubt;
use crate::scan::blocks;
use crate::tag::{Random, Tag};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, Place, SegmentIndex, Use, Zone};
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::{Buffer, DeviceError};

/// Most bytes of one group: a bound on memory, and on what one commit waits for.
const GROUP_BYTES_MAX: usize = 64 << 10;

const ENTRY: u8 = 1;
const USE: u8 = 2;
const DOUBT: u8 = 3;
const DELETED: u8 = 4;
const LARGE: u8 = 5;

/// Everything that a checkpoint holds, frozen.
pub(crate) struct Snapshot {
    pub(crate) index: Index,
    pub(crate) doubt: Doubt,
    /// The uses in which values lie, for their epochs.
    pub(crate) uses: Vec<Use>,
    /// The last LSN that it covers.
    pub(crate) base: Lsn,
}

/// Why a checkpoint was not written or read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointError {
    /// The device failed.
    Device(DeviceError),
    /// A group of it verifies in neither copy.
    Damaged {
        /// Its LSN.
        at: Lsn,
    },
    /// It takes more segments than are free.
    NoSpace,
}

impl core::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Damaged { at } => {
                write!(f, "both copies of the checkpoint are damaged at LSN {at}")
            }
            Self::NoSpace => f.write_str("no free segment is left for a checkpoint"),
        }
    }
}

impl From<DeviceError> for CheckpointError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// A checkpoint on the medium that nothing refers to yet.
pub(crate) struct Written {
    /// Its uses, closed, in order.
    pub(crate) uses: Vec<Use>,
    /// Bytes that one copy takes.
    pub(crate) bytes: u64,
    headers: Vec<Header>,
}

/// What a checkpoint's size depends on.
#[derive(Clone, Copy)]
pub(crate) struct Items {
    /// Keys, those of chunks too.
    pub(crate) keys: usize,
    /// Bytes of the keys.
    pub(crate) key_bytes: usize,
    /// Of the keys, those of large values.
    pub(crate) larges: usize,
}

/// Yields an upper bound of the segments that a checkpoint takes.
pub(crate) fn segments_needed(geometry: &VolumeGeometry, items: Items, uses: usize) -> u32 {
    let Items { keys, key_bytes, larges } = items;
    let more = larges * (large_at::BYTES - entry_at::BYTES);
    let items = keys * entry_at::BYTES + key_bytes + more + uses * use_at::BYTES + 1;
    // Groups end where the next item does not fit, and segments where the next group does not.
    let room = group_room(geometry);
    let longest = large_at::BYTES + crate::geometry::KEY_BYTES_MAX;
    let groups = items.div_ceil(room.saturating_sub(longest).max(1));
    let per_segment = geometry.segment_bytes().div_ceil(GROUP_BYTES_MAX);
    u32::try_from(groups.div_ceil(per_segment).max(1)).unwrap_or(u32::MAX)
}

/// Bytes of items in a group, so that the groups of a segment fill it.
fn group_room(geometry: &VolumeGeometry) -> usize {
    let per_segment = geometry.segment_bytes().div_ceil(GROUP_BYTES_MAX);
    let blocks = geometry.segment_blocks() as usize / per_segment;
    blocks * geometry.block_bytes() - group::BYTES
}

/// Writes `snapshot` into `segments`, both copies, and flushes nothing.
pub(crate) async fn write(
    disk: &Disk,
    verifier: &Verifier,
    random: &mut Random,
    segments: &[SegmentIndex],
    snapshot: &Snapshot,
) -> Result<Written, CheckpointError> {
    let geometry = verifier.geometry;
    let mut segments = segments.iter();
    let mut written = Written { uses: Vec::new(), bytes: 0, headers: Vec::new() };
    let mut end = BlockIndex(0);
    let (mut next, mut tag, mut room) = (snapshot.base.next(), Tag::default(), 0);
    let mut items = Cutter::new(snapshot);
    loop {
        let payload = items.next_group(group_room(&geometry));
        if payload.is_empty() {
            return Ok(written);
        }
        let count = geometry.blocks(group::BYTES + payload.len());
        if count > room {
            let segment = *segments.next().ok_or(CheckpointError::NoSpace)?;
            let epoch = Epoch(random.bytes16());
            written.uses.push(Use { segment, start: BlockIndex(0), end: None, epoch });
            end = BlockIndex(0);
            room = geometry.segment_blocks();
        }
        let use_ = written.uses.last_mut().ok_or(CheckpointError::NoSpace)?;
        use_.end = Some(next);
        let builder = Builder::new(&geometry, use_.epoch, use_.segment, end, count, next);
        let (header, buffer) = builder.finish_checkpoint(verifier, &payload, tag, snapshot.base);
        let offset = |zone| geometry.block_offset(zone, header.segment, header.block);
        let writes: Vec<_> =
            geometry.zones().map(|zone| disk.write(offset(zone), buffer.clone())).collect();
        for write in writes {
            write.await?;
        }
        written.headers.push(header);
        written.bytes += buffer.len() as u64;
        end = BlockIndex(end.0 + count);
        room -= count;
        tag = header.tag;
        next = next.next();
    }
}

/// A group of a checkpoint that was not read back as it was written.
pub(crate) struct Missing {
    /// Its segment.
    pub(crate) segment: SegmentIndex,
    /// The fewest copies in which any group was.
    pub(crate) copies: usize,
}

/// Reads both copies of what was written back and checks them (K2): nothing older goes before this.
pub(crate) async fn verify(
    disk: &Disk,
    verifier: &Verifier,
    written: &Written,
) -> Result<(), Missing> {
    let mut worst = Ok(());
    for header in &written.headers {
        let (segment, mut copies) = (header.segment, 0);
        for zone in verifier.geometry.zones() {
            let found = group_at(disk, verifier, zone, segment, header.block).await;
            copies += usize::from(found.is_some_and(|(found, _)| found == *header));
        }
        let least = worst.as_ref().map_or_else(|missing: &Missing| missing.copies, |()| 2);
        if copies < least.min(usize::from(verifier.geometry.copies())) {
            worst = Err(Missing { segment, copies });
        }
    }
    worst
}

/// What reading a checkpoint yields.
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// Groups of which one copy does not verify, with that copy and the good bytes' place.
    pub(crate) repairs: Vec<(Header, Zone, Zone)>,
    pub(crate) bytes: u64,
}

/// Reads the checkpoint that lies in `uses` and covers everything up to `base`.
pub(crate) async fn load(
    disk: &Disk,
    verifier: &Verifier,
    uses: &[Use],
    base: Lsn,
) -> Result<Loaded, CheckpointError> {
    let snapshot =
        Snapshot { index: Index::default(), doubt: Doubt::default(), uses: Vec::new(), base };
    let mut loaded = Loaded { snapshot, repairs: Vec::new(), bytes: 0 };
    let mut next = base.next();
    for use_ in uses {
        let mut block = use_.start;
        while use_.end.is_some_and(|end| next <= end) {
            let damaged = CheckpointError::Damaged { at: next };
            let mut good: Option<(Zone, Header, Buffer)> = None;
            let mut bad = None;
            let copies = if verifier.keys.plants.has(Plant::CheckpointOneCopy) { 1 } else { 2 };
            for zone in verifier.geometry.zones().take(copies) {
                let found = group_at(disk, verifier, zone, use_.segment, block).await;
                let fits = |h: &Header| h.epoch == use_.epoch && h.first == next && h.checkpoint;
                match found.filter(|(header, _)| fits(header)) {
                    Some((header, bytes)) if good.is_none() => good = Some((zone, header, bytes)),
                    Some(_) => {}
                    None => bad = Some(zone),
                }
            }
            let (zone, header, bytes) = good.ok_or(damaged)?;
            if let Some(bad) = bad {
                loaded.repairs.push((header, zone, bad));
            }
            let items = verifier.records(&header, &bytes).ok_or(damaged)?;
            read_items(items, &mut loaded.snapshot).ok_or(damaged)?;
            let count = header.blocks(&verifier.geometry);
            loaded.bytes += u64::from(count) * verifier.geometry.block_bytes() as u64;
            block = BlockIndex(block.0 + count);
            next = header.last.next();
        }
    }
    Ok(loaded)
}

/// Reads the group at a place, if it verifies as a whole.
pub(crate) async fn group_at(
    disk: &Disk,
    verifier: &Verifier,
    zone: Zone,
    segment: SegmentIndex,
    block: BlockIndex,
) -> Option<(Header, Buffer)> {
    if block.0 >= verifier.geometry.segment_blocks() {
        return None;
    }
    let first = blocks(disk, verifier, zone, segment, block, 1).await;
    let header = verifier.header(segment, block, &first)?;
    let count = header.blocks(&verifier.geometry);
    let bytes = match count {
        1 => first,
        _ => blocks(disk, verifier, zone, segment, block, count).await,
    };
    (verifier.header(segment, block, &bytes) == Some(header)).then_some(())?;
    verifier.records(&header, &bytes)?;
    Some((header, bytes))
}

/// Cuts a snapshot into groups of items.
struct Cutter<'a> {
    snapshot: &'a Snapshot,
    uses: usize,
    doubt_done: bool,
    deleted: Option<Rc<[u8]>>,
    key: Vec<u8>,
}

impl<'a> Cutter<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, uses: 0, doubt_done: false, deleted: None, key: Vec::new() }
    }

    /// Yields the items of the next group, at most `room` bytes; nothing when all are out.
    ///
    /// The first group is never empty: an empty index has a checkpoint too.
    fn next_group(&mut self, room: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.doubt_done {
            self.doubt_done = true;
            out.extend_from_slice(&[DOUBT, u8::from(self.snapshot.doubt.absent)]);
        }
        while let Some(use_) = self.snapshot.uses.get(self.uses)
            && out.len() + use_at::BYTES <= room
        {
            self.uses += 1;
            let at = out.len();
            out.resize(at + use_at::BYTES, 0);
            let item = out.get_mut(at..).unwrap_or_default();
            put(item, use_at::KIND, &[USE]);
            put(item, use_at::SEGMENT, &use_.segment.0.to_le_bytes());
            put(item, use_at::START, &use_.start.0.to_le_bytes());
            put(item, use_at::EPOCH, &use_.epoch.0);
        }
        for key in &self.snapshot.doubt.deleted {
            let done = self.deleted.as_ref().is_some_and(|last| key <= last);
            if done {
                continue;
            }
            if out.len() + 2 + key.len() > room {
                return out;
            }
            out.extend_from_slice(&[DELETED, key_bytes(key)]);
            out.extend_from_slice(key);
            self.deleted = Some(key.clone());
        }
        self.entries(&mut out, room);
        out
    }

    fn entries(&mut self, out: &mut Vec<u8>, room: usize) {
        // Keys are cut against the key before them in the same group, so that a group stands alone.
        let mut before: Vec<u8> = Vec::new();
        let mut cursor = self.snapshot.index.cursor(&self.key);
        while let Some((key, entry)) = cursor.step() {
            let shared = key.iter().zip(&before).take_while(|(a, b)| a == b).count();
            let suffix = key.get(shared..).unwrap_or_default();
            let at = out.len();
            let (kind, fixed) = match entry.upload {
                Some(_) => (LARGE, large_at::BYTES),
                None => (ENTRY, entry_at::BYTES),
            };
            if at + fixed + suffix.len() > room {
                self.key = key.to_vec();
                return;
            }
            out.resize(at + fixed, 0);
            let item = out.get_mut(at..).unwrap_or_default();
            put(item, entry_at::KIND, &[kind]);
            put(item, entry_at::FLAGS, &[u8::from(entry.suspect)]);
            put(item, entry_at::SHARED_BYTES, &[u8::try_from(shared).unwrap_or(u8::MAX)]);
            put(item, entry_at::SUFFIX_BYTES, &[key_bytes(suffix)]);
            put(item, entry_at::SEGMENT, &entry.place.segment.0.to_le_bytes());
            put(item, entry_at::OFFSET, &entry.place.offset.to_le_bytes());
            put(item, entry_at::VALUE_BYTES, &entry.value_bytes.to_le_bytes());
            put(item, entry_at::BIRTH, &entry.birth.0.to_le_bytes());
            if let Some(upload) = entry.upload {
                put(item, large_at::UPLOAD, &upload.birth().0.to_le_bytes());
            }
            out.extend_from_slice(suffix);
            before = key.to_vec();
        }
        // Behind every key: the longest key, and one byte more.
        self.key = alloc::vec![u8::MAX; crate::geometry::KEY_BYTES_MAX + 1];
    }
}

fn key_bytes(key: &[u8]) -> u8 {
    u8::try_from(key.len()).expect("keys have at most 255 bytes")
}

/// Reads the items of one group; `None` if they make no sense.
pub(crate) fn read_items(mut items: &[u8], snapshot: &mut Snapshot) -> Option<()> {
    let mut before: Vec<u8> = Vec::new();
    while let Some(kind) = items.first() {
        let length = match *kind {
            ENTRY | LARGE => {
                let large = *kind == LARGE;
                let fixed = if large { large_at::BYTES } else { entry_at::BYTES };
                let item = items.get(..fixed)?;
                let shared = usize::from(u8_at(item, entry_at::SHARED_BYTES));
                let end = fixed + usize::from(u8_at(item, entry_at::SUFFIX_BYTES));
                let suffix = items.get(fixed..end)?;
                let upload = if large {
                    Some(UploadId::of(Birth(u64_at(item, large_at::UPLOAD)))?)
                } else {
                    None
                };
                before.truncate(shared);
                (before.len() == shared).then_some(())?;
                before.extend_from_slice(suffix);
                let place = Place {
                    segment: SegmentIndex(u32_at(item, entry_at::SEGMENT)),
                    offset: u32_at(item, entry_at::OFFSET),
                };
                let entry = Entry {
                    place,
                    value_bytes: u32_at(item, entry_at::VALUE_BYTES),
                    suspect: u8_at(item, entry_at::FLAGS) & 1 != 0,
                    birth: Birth(u64_at(item, entry_at::BIRTH)),
                    upload,
                };
                snapshot.index.insert(&before, entry);
                end
            }
            USE => {
                let item = items.get(..use_at::BYTES)?;
                snapshot.uses.push(Use {
                    segment: SegmentIndex(u32_at(item, use_at::SEGMENT)),
                    start: BlockIndex(u32_at(item, use_at::START)),
                    end: None,
                    epoch: Epoch(crate::field::array(item, use_at::EPOCH)),
                });
                use_at::BYTES
            }
            DOUBT => {
                snapshot.doubt.absent = *items.get(1)? != 0;
                2
            }
            DELETED => {
                let end = 2 + usize::from(*items.get(1)?);
                snapshot.doubt.deleted.insert(items.get(2..end)?.into());
                end
            }
            _ => return None,
        };
        items = items.get(length..)?;
    }
    Some(())
}
