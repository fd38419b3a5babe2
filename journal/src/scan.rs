//! Reading the medium for recovery: superblock copies, group headers, evidence (R1 and the reads of R3).
//!
//! A block that cannot be read counts as one that does not verify.

use crate::disk::{Disk, Transfer};
use crate::geometry::{SLOT_BYTES, SUPERBLOCK_COPIES, superblock_offset};
use crate::group::{Header, Verifier};
use crate::layout::superblock;
use crate::plant::Plant;
use crate::replay::Ahead;
use crate::superblock::{Copies, Superblock, SuperblockError};
use crate::types::{BlockIndex, Epoch, Lsn, SegmentIndex, Use, Zone};
use crate::walk::{Seen, Sighting};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use blockdev::Buffer;
use core::mem;

/// Bytes read at a time: large enough to stream, small beside a guest's memory.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;

/// Reads the four superblock copies of a device.
pub(crate) async fn superblocks(disk: &Disk) -> Copies {
    let device_bytes = disk.geometry().device_bytes / SLOT_BYTES * SLOT_BYTES;
    let mut copies = [const { Err(SuperblockError::Unreadable) }; SUPERBLOCK_COPIES];
    let mut known: Vec<(Buffer, Superblock)> = Vec::new();
    let mut volume_bytes = device_bytes;
    for (copy, slot) in copies.iter_mut().enumerate() {
        *slot = superblock_at(disk, superblock_offset(copy, volume_bytes), &mut known).await;
        // The first copies tell where the last ones are, should the device have grown.
        if let Ok(superblock) = slot
            && superblock.geometry.fits(device_bytes)
        {
            volume_bytes = superblock.geometry.volume_bytes();
        }
    }
    Copies { copies }
}

/// Reads the four superblock copies of a volume whose size is known.
pub(crate) async fn superblocks_of(disk: &Disk, volume_bytes: u64) -> Copies {
    let mut copies = [const { Err(SuperblockError::Unreadable) }; SUPERBLOCK_COPIES];
    let mut known = Vec::new();
    for (copy, slot) in copies.iter_mut().enumerate() {
        *slot = superblock_at(disk, superblock_offset(copy, volume_bytes), &mut known).await;
    }
    Copies { copies }
}

/// Reads one copy. Most are alike: bytes that are `known` to verify are not hashed again.
pub(crate) async fn superblock_at(
    disk: &Disk,
    offset: u64,
    known: &mut Vec<(Buffer, Superblock)>,
) -> Result<Superblock, SuperblockError> {
    let read = disk.read(offset, superblock::BYTES).await;
    let buffer = read.map_err(|_| SuperblockError::Unreadable)?;
    if let Some((_, superblock)) = known.iter().find(|(bytes, _)| **bytes == *buffer) {
        return Ok(superblock.clone());
    }
    let bytes: &[u8; superblock::BYTES] =
        buffer.first_chunk().ok_or(SuperblockError::Unreadable)?;
    let superblock = Superblock::decode(bytes)?;
    known.push((buffer, superblock.clone()));
    Ok(superblock)
}

/// Reads everything that the walk may know, as `superblock` lists it; `ahead` is offered the groups, as far as they come in
/// their order.
pub(crate) async fn log(
    disk: &Disk,
    verifier: &Verifier,
    superblock: &Superblock,
    copies: &Copies,
    ahead: Option<&mut Ahead>,
) -> Seen {
    let uses = superblock.log.clone();
    let mut scan = Scan::new(disk, verifier, &superblock.log);
    scan.ahead = ahead;
    let own = copies.valid().filter(|copy| copy.volume == superblock.volume);
    scan.evidence = own.map(|copy| copy.durable).max().unwrap_or(Lsn::NONE);
    let from = |segment| {
        let listed = uses.iter().filter(|use_: &&Use| use_.segment == segment);
        listed.map(|use_| use_.start.0).min()
    };
    for segment in (0..verifier.geometry.segment_count()).map(SegmentIndex) {
        if from(segment) != Some(0) && !verifier.keys.plants.has(Plant::HeadsUnscanned) {
            scan.head(segment).await;
        }
    }
    for (at, Use { segment, .. }) in uses.iter().enumerate() {
        let before = uses.iter().take(at).any(|use_| use_.segment == *segment);
        if let Some(from) = from(*segment).filter(|_| !before) {
            scan.segment(*segment, from).await;
        }
    }
    Seen {
        uses,
        groups: scan.groups.into_iter().map(|of_use| of_use.into_values().collect()).collect(),
        evidence: scan.evidence,
        base: superblock.base,
        base_tag: superblock.base_tag,
        geometry: verifier.geometry,
    }
}

/// Reads one segment, both copies, and yields the groups of `uses` in it, use by use, by rising block.
///
/// Where a later use begins, an earlier one has no groups any more: what is found of it there is a torn tail, in a copy
/// that holds what it held earlier.
pub(crate) async fn sightings(
    disk: &Disk,
    verifier: &Verifier,
    segment: SegmentIndex,
    uses: &[Use],
) -> Vec<Sighting> {
    let mut scan = Scan::new(disk, verifier, uses);
    let from = uses.iter().map(|use_| use_.start.0).min().unwrap_or(0);
    scan.segment(segment, from).await;
    let plants = verifier.keys.plants;
    let stale = plants.has(Plant::CheckTouchesTail) || plants.has(Plant::CutForgotten);
    let mut starts: Vec<BlockIndex> = uses.iter().map(|use_| use_.start).collect();
    starts.sort_unstable();
    let last_start = |block| starts.get(..starts.partition_point(|start| *start <= block))?.last();
    let of_uses = uses.iter().zip(scan.groups);
    let of_use = of_uses.map(|(use_, groups)| {
        let own = |it: &Sighting| stale || last_start(it.header.block) == Some(&use_.start);
        groups.into_values().filter(own).collect::<Vec<_>>()
    });
    of_use.flatten().collect()
}

/// Tells whether a block that is not before the start of a use is its own: none of `uses` begins between the two.
pub(crate) fn owns(uses: &[Use], use_: &Use, block: BlockIndex) -> bool {
    let between = |other: &Use| {
        other.segment == use_.segment && use_.start < other.start && other.start <= block
    };
    !uses.iter().any(between)
}

/// A part of a segment that is read at once.
struct Piece {
    segment: SegmentIndex,
    first: BlockIndex,
    /// Copy A of it, once that was looked at.
    a: Option<Vec<u8>>,
}

struct Scan<'a> {
    disk: &'a Disk,
    verifier: &'a Verifier,
    uses: &'a [Use],
    groups: Vec<BTreeMap<BlockIndex, Sighting>>,
    /// Which use has an epoch in a segment: a forged checkpoint may list as many as there is room for.
    by_epoch: BTreeMap<(SegmentIndex, Epoch), usize>,
    /// Of the segment at hand, the use of each group that verifies in copy A.
    in_a: BTreeMap<BlockIndex, usize>,
    /// Of each use and each copy, where the groups end of which only the header verifies.
    claimed: Vec<[u32; 2]>,
    evidence: Lsn,
    ahead: Option<&'a mut Ahead>,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a Disk, verifier: &'a Verifier, uses: &'a [Use]) -> Self {
        let groups = uses.iter().map(|_| BTreeMap::new()).collect();
        let (claimed, evidence, ahead) = (vec![[0; 2]; uses.len()], Lsn::NONE, None);
        let mut by_epoch = BTreeMap::new();
        for (at, use_) in uses.iter().enumerate() {
            by_epoch.entry((use_.segment, use_.epoch)).or_insert(at);
        }
        let in_a = BTreeMap::new();
        Self { disk, verifier, uses, groups, by_epoch, in_a, claimed, evidence, ahead }
    }

    /// Looks at the first block of a segment for evidence alone.
    async fn head(&mut self, segment: SegmentIndex) {
        let geometry = &self.verifier.geometry;
        for zone in geometry.zones() {
            let offset = geometry.block_offset(zone, segment, BlockIndex(0));
            if let Ok(block) = self.disk.read(offset, geometry.block_bytes()).await
                && let Some(header) = self.verifier.header(segment, BlockIndex(0), &block)
            {
                self.evidence = self.evidence.max(header.durable);
            }
        }
    }

    /// Looks at every block of both copies of a segment from block `from` on, a piece of each in turn. Both copies of a
    /// piece are on their way together, while those before are looked at.
    async fn segment(&mut self, segment: SegmentIndex, from: u32) {
        let (disk, verifier) = (self.disk, self.verifier);
        let geometry = &verifier.geometry;
        let begin = |first: u32| -> Vec<Reading> {
            let left = geometry.segment_blocks().saturating_sub(first);
            let count = geometry.blocks(CHUNK_BYTES).min(left);
            let of = |zone| Reading::begin(disk, verifier, zone, segment, BlockIndex(first), count);
            geometry.zones().filter(|_| count > 0).map(of).collect()
        };
        let (mut first, mut end) = (from, from);
        // Where each copy goes on: a group may reach out of its piece, and what there is of it then comes before the next.
        let (mut next, mut kept) = ([from; 2], [const { Vec::new() }; 2]);
        let mut ahead = begin(end);
        self.in_a.clear();
        while let Some(reading) = ahead.first() {
            end += geometry.blocks(reading.bytes);
            let readings = mem::replace(&mut ahead, begin(end));
            let mut piece = Piece { segment, first: BlockIndex(first), a: None };
            for ((reading, next), kept) in readings.into_iter().zip(&mut next).zip(&mut kept) {
                let zone = reading.zone;
                kept.extend_from_slice(&reading.end(disk, verifier).await);
                if *next < end {
                    *next = self.piece(zone, &piece, *next, kept).await;
                }
                if zone == Zone::A {
                    piece.a = Some(mem::take(kept));
                }
            }
            if let ([a, _], Some(bytes)) = (&mut kept, piece.a) {
                *a = bytes;
            }
            // A copy that goes on behind the next piece is passed over there.
            let next = next.into_iter().take(geometry.copies().into()).min();
            let next = next.unwrap_or(end).min(end);
            let seen = (next - first) as usize * geometry.block_bytes();
            kept.iter_mut().for_each(|kept| drop(kept.drain(..seen.min(kept.len()))));
            first = next;
        }
    }

    /// Looks at one copy of a piece from block `from` on; yields the block to go on at: that of a group which the next
    /// piece, starting with it, holds whole, or one that may lie behind this piece.
    async fn piece(&mut self, zone: Zone, piece: &Piece, from: u32, bytes: &[u8]) -> u32 {
        let geometry = self.verifier.geometry;
        let plants = self.verifier.keys.plants;
        let segment = piece.segment;
        let end = piece.first.0 + geometry.blocks(bytes.len());
        let mut at = from;
        while at < end {
            let block = BlockIndex(at);
            let skip = (at - piece.first.0) as usize * geometry.block_bytes();
            let bytes = bytes.get(skip..).unwrap_or_default();
            if let Some(blocks) = self.twin(piece, block, skip, bytes) {
                at += blocks;
                continue;
            }
            let Some(header) = self.verifier.header_in(zone, segment, block, bytes) else {
                at += 1;
                continue;
            };
            let reaches_out = at + header.blocks(&geometry) > end;
            if reaches_out && skip > 0 && header.blocks(&geometry) <= geometry.blocks(CHUNK_BYTES) {
                return at;
            }
            let there = |use_: &Use| use_.segment == segment && use_.start <= block;
            let listed = if plants.has(Plant::AnyEpoch) {
                self.uses.iter().rposition(there)
            } else {
                let listed = self.by_epoch.get(&(segment, header.epoch)).copied();
                listed.filter(|at| self.uses.get(*at).is_some_and(there))
            };
            let whole = match listed {
                Some(in_use) if self.is_free(in_use, zone, &header) => {
                    self.whole(zone, &header, bytes).await
                }
                _ => false,
            };
            let counts = whole || !plants.has(Plant::OneTag);
            if counts && (listed.is_some() || block.0 == 0) {
                self.evidence = self.evidence.max(header.durable);
            }
            let Some(in_use) = listed else {
                at += 1;
                continue;
            };
            if let Some(ahead) = self.ahead.as_mut().filter(|_| whole) {
                ahead.offer(self.verifier, &header, bytes);
            }
            self.sight(in_use, zone, header, whole);
            if !whole {
                self.claim(in_use, zone, &header);
            }
            // Nothing but its own bytes can lie inside a group that verifies.
            at += if whole { header.blocks(&geometry) } else { 1 };
        }
        at
    }

    /// Notes a group of copy B whose bytes are those of a group of copy A that verified, which spares hashing them,
    /// and yields its blocks.
    fn twin(&mut self, piece: &Piece, block: BlockIndex, skip: usize, b: &[u8]) -> Option<u32> {
        let a = piece.a.as_ref()?.get(skip..)?;
        let in_use = *self.in_a.get(&block)?;
        let sighting = self.groups.get_mut(in_use)?.get_mut(&block)?;
        let blocks = sighting.header.blocks(&self.verifier.geometry);
        let bytes = blocks as usize * self.verifier.geometry.block_bytes();
        let same = sighting.whole_a && a.get(..bytes)? == b.get(..bytes)?;
        sighting.whole_b |= same;
        same.then_some(blocks)
    }

    /// Tells whether no other group of that use lies where this one begins. A use is written once, from front to back: so one
    /// inside of another was forged, and what many claim must not be read for each of them.
    fn is_free(&self, in_use: usize, zone: Zone, header: &Header) -> bool {
        let claimed = self.claimed.get(in_use).and_then(|of_use| of_use.get(zone as usize));
        claimed.is_none_or(|end| *end <= header.block.0)
    }

    fn claim(&mut self, in_use: usize, zone: Zone, header: &Header) {
        let end = header.block.0 + header.blocks(&self.verifier.geometry);
        let claimed = self.claimed.get_mut(in_use).and_then(|it| it.get_mut(zone as usize));
        if let Some(claimed) = claimed {
            *claimed = end.max(*claimed);
        }
    }

    async fn whole(&self, zone: Zone, header: &Header, bytes: &[u8]) -> bool {
        let count = header.blocks(&self.verifier.geometry);
        if bytes.len() >= count as usize * self.verifier.geometry.block_bytes() {
            return self.verifier.records(header, bytes).is_some();
        }
        let (segment, block) = (header.segment, header.block);
        let bytes = blocks(self.disk, self.verifier, zone, segment, block, count).await;
        self.verifier.records(header, &bytes).is_some()
    }

    fn sight(&mut self, in_use: usize, zone: Zone, header: Header, whole: bool) {
        let Some(groups) = self.groups.get_mut(in_use) else {
            return;
        };
        let fresh = Sighting { header, whole_a: false, whole_b: false };
        let sighting = groups.entry(header.block).or_insert(fresh);
        // Both copies are written alike and once; a second header at the place could only be forged.
        if sighting.header.tag == header.tag {
            match zone {
                Zone::A => sighting.whole_a = whole,
                Zone::B => sighting.whole_b = whole,
            }
            if zone == Zone::A && whole {
                self.in_a.insert(header.block, in_use);
            }
        }
    }
}

/// Reads `count` blocks; those that cannot be read come as zeros, which verify as nothing.
pub(crate) async fn blocks(
    disk: &Disk,
    verifier: &Verifier,
    zone: Zone,
    segment: SegmentIndex,
    first: BlockIndex,
    count: u32,
) -> Buffer {
    Reading::begin(disk, verifier, zone, segment, first, count).end(disk, verifier).await
}

/// Blocks of one copy that are being read.
pub(crate) struct Reading {
    pub(crate) zone: Zone,
    pub(crate) segment: SegmentIndex,
    pub(crate) first: BlockIndex,
    bytes: usize,
    transfer: Transfer,
}

impl Reading {
    /// Begins to read `count` blocks.
    pub(crate) fn begin(
        disk: &Disk,
        verifier: &Verifier,
        zone: Zone,
        segment: SegmentIndex,
        first: BlockIndex,
        count: u32,
    ) -> Self {
        let geometry = &verifier.geometry;
        let bytes = count as usize * geometry.block_bytes();
        let transfer = disk.read(geometry.block_offset(zone, segment, first), bytes);
        Self { zone, segment, first, bytes, transfer }
    }

    /// Yields them; those that cannot be read come as zeros, which verify as nothing.
    pub(crate) async fn end(self, disk: &Disk, verifier: &Verifier) -> Buffer {
        let Self { zone, segment, first, bytes, transfer } = self;
        if let Ok(all) = transfer.await {
            return all;
        }
        let geometry = &verifier.geometry;
        let mut all = Buffer::zeroed(bytes);
        for (at, into) in (first.0..).zip(all.chunks_exact_mut(geometry.block_bytes())) {
            let offset = geometry.block_offset(zone, segment, BlockIndex(at));
            if let Ok(block) = disk.read(offset, geometry.block_bytes()).await {
                into.copy_from_slice(&block);
            }
        }
        all
    }
}

/// One copy of a stretch of blocks, read front to back, some of it before it is asked for.
pub(crate) struct Stretch<'a> {
    disk: &'a Disk,
    verifier: &'a Verifier,
    zone: Zone,
    segment: SegmentIndex,
    /// Where `bytes` begin.
    first: u32,
    bytes: Vec<u8>,
    /// The block that nothing is likely to be asked for from.
    end: u32,
    ahead: Option<Reading>,
}

impl<'a> Stretch<'a> {
    /// Begins to read at block `first`, up to block `end` without being asked.
    pub(crate) fn begin(
        disk: &'a Disk,
        verifier: &'a Verifier,
        zone: Zone,
        segment: SegmentIndex,
        first: BlockIndex,
        end: u32,
    ) -> Self {
        let (first, end) = (first.0, end.min(verifier.geometry.segment_blocks()));
        let (bytes, ahead) = (Vec::new(), None);
        let mut stretch = Self { disk, verifier, zone, segment, first, bytes, end, ahead };
        stretch.ahead = stretch.next(first, end);
        stretch
    }

    pub(crate) fn zone(&self) -> Zone {
        self.zone
    }

    pub(crate) fn segment(&self) -> SegmentIndex {
        self.segment
    }

    /// Yields what lies in `count` blocks from `block` on, which is not before what was asked for last, and maybe more;
    /// less at the end of the segment.
    pub(crate) async fn get(&mut self, block: BlockIndex, count: u32) -> &[u8] {
        let (disk, verifier, geometry) = (self.disk, self.verifier, &self.verifier.geometry);
        let seen = (block.0 - self.first) as usize * geometry.block_bytes();
        self.bytes.drain(..seen.min(self.bytes.len()));
        self.first = block.0;
        let wanted = (block.0 + count).min(geometry.segment_blocks());
        loop {
            let end = self.first + geometry.blocks(self.bytes.len());
            if end >= wanted {
                return &self.bytes;
            }
            // What is on its way is of no use where a part of it was passed over.
            let ahead = self.ahead.take().filter(|reading| reading.first.0 == end);
            let Some(reading) = ahead.or_else(|| self.next(end, wanted)) else {
                return &self.bytes;
            };
            let end = end + geometry.blocks(reading.bytes);
            self.ahead = self.next(end, self.end);
            self.bytes.extend_from_slice(&reading.end(disk, verifier).await);
        }
    }

    /// Begins to read from one block up to another, or as far as is read at a time.
    fn next(&self, from: u32, to: u32) -> Option<Reading> {
        let count = to.saturating_sub(from).min(self.verifier.geometry.blocks(CHUNK_BYTES));
        let from = BlockIndex(from);
        let begin =
            || Reading::begin(self.disk, self.verifier, self.zone, self.segment, from, count);
        (count > 0).then(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::VolumeGeometry;
    use crate::group::Builder;
    use crate::tag::{Keys, Tag};
    use crate::tests::run;
    use crate::types::{Epoch, VolumeId};
    use blockdev::{BlockDevice, Counting, MemoryDevice};

    /// Who has the key can let every block begin a group that goes on to the end of the segment, and none of them verify.
    #[test]
    fn forged_lengths_do_not_make_a_scan_slow() {
        let geometry = VolumeGeometry::new(512, 17 << 20, 2048, 8, 2).unwrap();
        let keys = Keys::derive(&[1; 32]);
        let verifier = Verifier { volume: VolumeId([8; 16]), keys, geometry };
        let (segment, epoch, blocks) = (SegmentIndex(1), Epoch([5; 16]), geometry.segment_blocks());
        let mut device = Counting::new(MemoryDevice::new(17 << 20));
        let disk = Disk::new(device.geometry());
        let scanning = async {
            for block in 0..blocks - 1 {
                let count = blocks - block;
                let at = BlockIndex(block);
                let builder = Builder::new(&geometry, epoch, segment, at, count, Lsn(9));
                let items = vec![7; count as usize * 512 - crate::layout::group::BYTES];
                let base = Lsn(8);
                let (_, group) = builder.finish_checkpoint(&verifier, &items, Tag::default(), base);
                for zone in geometry.zones() {
                    let first = Buffer::copy_of(group.get(..512).unwrap());
                    disk.write(geometry.block_offset(zone, segment, at), first).await.unwrap();
                }
            }
            let use_ = Use { segment, start: BlockIndex(0), end: None, epoch };
            sightings(&disk, &verifier, segment, &[use_]).await
        };
        let found = run(&disk, &mut device, scanning);
        assert_eq!(found.len(), 2047);
        assert!(found.iter().all(|sighting| !sighting.whole_a && !sighting.whole_b));
        let read = device.counts().bytes_read;
        assert!(read <= 4 * 2 * geometry.segment_bytes() as u64, "{read} bytes are read");
    }
}
