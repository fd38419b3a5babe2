//! Checkpoints: the index as of one LSN, in mirrored groups of their own (FORMAT.md section 8).

use crate::disk::Disk;
use crate::field::{put, u16_at, u32_at};
use crate::geometry::VolumeGeometry;
use crate::group::{Builder, Header, Verifier};
use crate::index::{self, Index};
use crate::layout::{checkpoint_run as run_at, checkpoint_use as use_at, group};
use crate::plant::Plant;
use crate::replay::Doubt;
use crate::run::Run;
use crate::scan::{Stretch, blocks};
use crate::tag::{Random, Tag};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, SegmentIndex, Use, Zone};
use alloc::collections::btree_set;
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::{Buffer, DeviceError};
use core::iter::Peekable;

/// Most bytes of one group: a bound on memory, and on what one commit waits for.
const GROUP_BYTES_MAX: usize = 64 << 10;

const RUN: u8 = 1;
const USE: u8 = 2;
const DOUBT: u8 = 3;
const DELETED: u8 = 4;

/// Bytes of the item of that kind.
const DOUBT_BYTES: usize = 2;

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

/// Yields an upper bound of the segments that a checkpoint takes, whose runs take `run_bytes`.
pub(crate) fn segments_needed(geometry: &VolumeGeometry, run_bytes: usize, uses: usize) -> u32 {
    let items = run_bytes + uses * use_at::BYTES + DOUBT_BYTES;
    // Groups end where the next item does not fit, so each but the last lacks less than the longest, and two that follow
    // each other hold more than one has room for. Segments end where the next group does not fit.
    let room = group_room(geometry);
    let longest = run_at::BYTES + run_at::RUN_BYTES_MAX;
    let groups = (items / (room - longest + 1) + 1).min(items / (room + 1) * 2 + 1);
    let per_segment = geometry.segment_bytes().div_ceil(GROUP_BYTES_MAX);
    u32::try_from(groups.div_ceil(per_segment)).unwrap_or(u32::MAX)
}

/// Yields the bytes of the item that a key takes which was deleted after a loss.
pub(crate) fn deleted_bytes(key: &[u8]) -> usize {
    2 + key.len()
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
    let mut items = Cutter::new(snapshot, snapshot.index.leaves());
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
        let (segment, block, mut copies) = (header.segment, header.block, 0);
        let count = header.blocks(&verifier.geometry);
        for zone in verifier.geometry.zones() {
            // One read at a time: commits go on meanwhile.
            let bytes = blocks(disk, verifier, zone, segment, block, count).await;
            let same = verifier.header(segment, block, &bytes) == Some(*header);
            copies += usize::from(same && verifier.records(header, &bytes).is_some());
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
    let geometry = &verifier.geometry;
    let (mut items, mut repairs, mut bytes) = (Items::default(), Vec::new(), 0);
    let mut next = base.next();
    let copies = if verifier.keys.plants.has(Plant::CheckpointOneCopy) { 1 } else { 2 };
    for use_ in uses {
        let mut block = use_.start;
        // Each group takes one LSN.
        let groups = use_.end.map_or(0, |end| (end.0 + 1).saturating_sub(next.0));
        let groups = u32::try_from(groups).unwrap_or(u32::MAX);
        let likely = groups.saturating_mul(geometry.blocks(GROUP_BYTES_MAX));
        let end = block.0.saturating_add(likely);
        let begin = |zone| Stretch::begin(disk, verifier, zone, use_.segment, block, end);
        let mut stretches: Vec<_> = geometry.zones().take(copies).map(begin).collect();
        while use_.end.is_some_and(|end| next <= end) {
            let damaged = CheckpointError::Damaged { at: next };
            let fits = |h: &Header| h.epoch == use_.epoch && h.first == next && h.checkpoint;
            let mut good: Option<(Zone, Header, &[u8])> = None;
            let mut bad = None;
            for stretch in &mut stretches {
                let zone = stretch.zone();
                if let Some((_, header, bytes)) = &good {
                    let count = header.blocks(geometry);
                    let whole = count as usize * geometry.block_bytes();
                    let other = stretch.get(block, count).await.get(..whole);
                    // Equal bytes need not be hashed again.
                    bad = (bytes.get(..whole) != other).then_some(zone);
                    continue;
                }
                let found = group_of(stretch, verifier, block).await;
                match found.filter(|(header, _)| fits(header)) {
                    Some((header, bytes)) => good = Some((zone, header, bytes)),
                    None => bad = Some(zone),
                }
            }
            let (zone, header, group) = good.ok_or(damaged)?;
            if let Some(bad) = bad {
                repairs.push((header, zone, bad));
            }
            let payload = header.payload(group).ok_or(damaged)?;
            items.read(payload, geometry).ok_or(damaged)?;
            let count = header.blocks(geometry);
            bytes += u64::from(count) * geometry.block_bytes() as u64;
            block = BlockIndex(block.0 + count);
            next = header.last.next();
        }
    }
    Ok(Loaded { snapshot: items.finish(base), repairs, bytes })
}

/// Reads the group at a place of a stretch, if it verifies as a whole; it may yield more bytes.
async fn group_of<'a>(
    stretch: &'a mut Stretch<'_>,
    verifier: &Verifier,
    block: BlockIndex,
) -> Option<(Header, &'a [u8])> {
    let segment = stretch.segment();
    let header = verifier.header(segment, block, stretch.get(block, 1).await)?;
    let bytes = stretch.get(block, header.blocks(&verifier.geometry)).await;
    verifier.records(&header, bytes)?;
    Some((header, bytes))
}

/// Reads the group at a place, if it verifies as a whole.
pub(crate) async fn group_at(
    disk: &Disk,
    verifier: &Verifier,
    zone: Zone,
    segment: SegmentIndex,
    block: BlockIndex,
) -> Option<(Header, Buffer)> {
    verifier.geometry.segment_blocks().checked_sub(block.0).filter(|left| *left > 0)?;
    let first = blocks(disk, verifier, zone, segment, block, 1).await;
    let header = verifier.header(segment, block, &first)?;
    let count = header.blocks(&verifier.geometry);
    if count == 1 {
        verifier.records(&header, &first)?;
        return Some((header, first));
    }
    let bytes = blocks(disk, verifier, zone, segment, block, count).await;
    verifier.is_header(&header, &bytes).then_some(())?;
    verifier.records(&header, &bytes)?;
    Some((header, bytes))
}

/// Cuts a snapshot into groups of items.
struct Cutter<'a, L: Iterator<Item = &'a Run>> {
    snapshot: &'a Snapshot,
    uses: usize,
    doubt_done: bool,
    deleted: Peekable<btree_set::Iter<'a, Rc<[u8]>>>,
    leaves: Peekable<L>,
}

impl<'a, L: Iterator<Item = &'a Run>> Cutter<'a, L> {
    fn new(snapshot: &'a Snapshot, leaves: L) -> Self {
        let (deleted, leaves) = (snapshot.doubt.deleted.iter().peekable(), leaves.peekable());
        Self { snapshot, uses: 0, doubt_done: false, deleted, leaves }
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
        let fits = |key: &&Rc<[u8]>, out: &[u8]| out.len() + deleted_bytes(key) <= room;
        while let Some(key) = self.deleted.next_if(|key| fits(key, &out)) {
            out.extend_from_slice(&[DELETED, key_bytes(key)]);
            out.extend_from_slice(key);
        }
        if self.deleted.peek().is_some() {
            return out;
        }
        // Runs go out as the index has them.
        let fits = |run: &&Run, out: &[u8]| out.len() + run_at::BYTES + run.bytes().len() <= room;
        while let Some(run) = self.leaves.next_if(|run| fits(run, &out)) {
            let run_bytes = u16::try_from(run.bytes().len()).expect("no run takes more");
            out.push(RUN);
            out.extend_from_slice(&run_bytes.to_le_bytes());
            out.extend_from_slice(run.bytes());
        }
        out
    }
}

fn key_bytes(key: &[u8]) -> u8 {
    u8::try_from(key.len()).expect("keys have at most 255 bytes")
}

/// The items of a checkpoint, as its groups are read.
pub(crate) struct Items {
    runs: index::Builder,
    doubt: Doubt,
    uses: Vec<Use>,
}

impl Default for Items {
    fn default() -> Self {
        Self { runs: index::Builder::new(Birth(0)), doubt: Doubt::default(), uses: Vec::new() }
    }
}

impl Items {
    /// Reads the items of the next group; `None` if they make no sense.
    pub(crate) fn read(&mut self, mut items: &[u8], geometry: &VolumeGeometry) -> Option<()> {
        while let Some(kind) = items.first() {
            let length = match *kind {
                RUN => {
                    let item = items.get(..run_at::BYTES)?;
                    let end = run_at::BYTES + usize::from(u16_at(item, run_at::RUN_BYTES));
                    self.runs.parse(items.get(run_at::BYTES..end)?, geometry)?;
                    end
                }
                USE => {
                    let item = items.get(..use_at::BYTES)?;
                    self.uses.push(Use {
                        segment: SegmentIndex(u32_at(item, use_at::SEGMENT)),
                        start: BlockIndex(u32_at(item, use_at::START)),
                        end: None,
                        epoch: Epoch(crate::field::array(item, use_at::EPOCH)),
                    });
                    use_at::BYTES
                }
                DOUBT => {
                    self.doubt.absent = *items.get(1)? != 0;
                    DOUBT_BYTES
                }
                DELETED => {
                    let end = 2 + usize::from(*items.get(1)?);
                    self.doubt.deleted.insert(items.get(2..end)?.into());
                    end
                }
                _ => return None,
            };
            items = items.get(length..)?;
        }
        Some(())
    }

    /// Yields all that was read as the state up to `base`.
    pub(crate) fn finish(self, base: Lsn) -> Snapshot {
        let Self { runs, doubt, uses } = self;
        Snapshot { index: runs.finish(), doubt, uses, base }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Entry;
    use crate::scan::CHUNK_BYTES;
    use crate::tag::Keys;
    use crate::tests::run;
    use crate::types::{Place, VolumeId};
    use alloc::string::String;
    use blockdev::{BlockDevice, MemoryDevice};

    /// Yields the segments that the groups of `snapshot` take.
    fn segments(geometry: &VolumeGeometry, snapshot: &Snapshot) -> u32 {
        let mut cutter = Cutter::new(snapshot, snapshot.index.leaves());
        let (mut segments, mut room) = (0, 0);
        loop {
            let items = cutter.next_group(group_room(geometry));
            if items.is_empty() {
                return segments;
            }
            let count = geometry.blocks(group::BYTES + items.len());
            if count > room {
                (segments, room) = (segments + 1, geometry.segment_blocks());
            }
            room -= count;
        }
    }

    /// Each header in turn of one copy is damaged, and with it some other group of the other copy: all is read, and the two
    /// are repaired. Groups lie across the ends of what is read at a time.
    #[test]
    fn a_header_that_is_damaged_costs_its_own_copy_alone() {
        let geometry = VolumeGeometry::new(512, 33 << 20, 4096, 8, 2).unwrap();
        let keys = Keys::derive(&[1; 32]);
        let verifier = Verifier { volume: VolumeId([8; 16]), keys, geometry };
        let mut snapshot = Items::default().finish(Lsn(9));
        let mut random = Random::from_seed([7; 32]);
        for number in 0..7000_u64 {
            let place = Place { segment: SegmentIndex(1), offset: 8 };
            let entry =
                Entry { place, value_bytes: 1, suspect: false, birth: Birth(number), upload: None };
            let bytes = 150 + usize::try_from(number % 97).unwrap();
            let key: Vec<u8> = (0..8).flat_map(|_| random.bytes32()).take(bytes).collect();
            snapshot.index.insert(&[b"/", &*key].concat(), entry);
        }
        let mut device = MemoryDevice::new(33 << 20);
        let disk = Disk::new(device.geometry());
        let segments = [SegmentIndex(2)];
        let writing = write(&disk, &verifier, &mut random, &segments, &snapshot);
        let written = run(&disk, &mut device, writing).ok().unwrap();
        let image = device.into_bytes();
        let headers = &written.headers;
        let pieces = |header: &Header| {
            let blocks = geometry.blocks(CHUNK_BYTES);
            header.block.0 / blocks < (header.block.0 + header.blocks(&geometry) - 1) / blocks
        };
        assert!(headers.iter().any(pieces), "no group lies in two pieces");
        for (at, bad) in headers.iter().enumerate() {
            for (zone, other) in [(Zone::A, Zone::B), (Zone::B, Zone::A)] {
                let mut image = image.clone();
                let later = headers.get(at + 1).or(headers.first()).unwrap();
                for (zone, header) in [(zone, bad), (other, later)] {
                    let offset = geometry.block_offset(zone, header.segment, header.block);
                    image[usize::try_from(offset).unwrap() + 20] ^= 1;
                }
                let mut device = MemoryDevice::from_bytes(image);
                let disk = Disk::new(device.geometry());
                let loading = load(&disk, &verifier, &written.uses, snapshot.base);
                let loaded = run(&disk, &mut device, loading);
                let loaded = loaded.map_err(|error| format!("group {at}: {error}")).unwrap();
                assert_eq!(loaded.repairs.len(), 2, "group {at}, zone {zone:?}");
                assert_eq!(loaded.snapshot.index.len(), 7000);
            }
        }
    }

    #[test]
    fn a_checkpoint_never_takes_more_than_was_counted() {
        for (device_bytes, block_bytes) in [(65_536, 512), (1 << 20, 512), (4 << 20, 4096)] {
            let geometry = VolumeGeometry::choose(device_bytes, 512, block_bytes, 2).unwrap();
            for (stem, fresh) in [(0, 16), (40, 8), (243, 12), (254, 1), (20, 200)] {
                let mut snapshot = Items::default().finish(Lsn(9));
                let mut random = Random::from_seed([7; 32]);
                for number in 0..400_u32 {
                    let uses = [(); 3].map(|()| Epoch(random.bytes16()));
                    snapshot.uses.extend(uses.map(|epoch| {
                        let (segment, start) = (SegmentIndex(0), BlockIndex(number));
                        Use { segment, start, end: None, epoch }
                    }));
                    let digits: String =
                        random.bytes32().iter().map(|b| format!("{b:02x}")).collect();
                    let key = format!("{}{}", "s".repeat(stem), digits.repeat(4).split_at(fresh).0);
                    let place = Place { segment: SegmentIndex(1), offset: 8 };
                    let birth = Birth(u64::from(number) << (number % 40));
                    let entry =
                        Entry { place, value_bytes: 1, suspect: false, birth, upload: None };
                    snapshot.index.insert(key.as_bytes(), entry);
                    let bytes = snapshot.index.coded_bytes();
                    let bound = segments_needed(&geometry, bytes, snapshot.uses.len());
                    assert!(segments(&geometry, &snapshot) <= bound, "{geometry:?}, {key}");
                }
                assert!(device_bytes > 65_536 || segments(&geometry, &snapshot) > 1);
            }
        }
    }
}
