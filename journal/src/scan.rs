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
use crate::types::{BlockIndex, Lsn, SegmentIndex, Use, Zone};
use crate::walk::{Seen, Sighting};
use alloc::collections::BTreeMap;
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

/// Reads one copy. Most are alike: bytes that are `known` to verify are not hashed again.
async fn superblock_at(
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
    scan.evidence = copies.valid().map(|copy| copy.durable).max().unwrap_or(Lsn::NONE);
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
    let stale = verifier.keys.plants.has(Plant::CheckTouchesTail);
    let of_uses = uses.iter().zip(scan.groups);
    let of_use = of_uses.map(|(use_, groups)| {
        let own = move |sighting: &Sighting| stale || owns(uses, use_, sighting.header.block);
        groups.into_values().filter(own)
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
    evidence: Lsn,
    ahead: Option<&'a mut Ahead>,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a Disk, verifier: &'a Verifier, uses: &'a [Use]) -> Self {
        let groups = uses.iter().map(|_| BTreeMap::new()).collect();
        Self { disk, verifier, uses, groups, evidence: Lsn::NONE, ahead: None }
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
            let Some(header) = self.verifier.header(segment, block, bytes) else {
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
                self.uses.iter().position(|use_| there(use_) && use_.epoch == header.epoch)
            };
            let whole = listed.is_some() && self.whole(zone, &header, bytes).await;
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
            // Nothing but its own bytes can lie inside a group that verifies.
            at += if whole { header.blocks(&geometry) } else { 1 };
        }
        at
    }

    /// Notes a group of copy B whose bytes are those of a group of copy A that verified, which spares hashing them,
    /// and yields its blocks.
    fn twin(&mut self, piece: &Piece, block: BlockIndex, skip: usize, b: &[u8]) -> Option<u32> {
        let a = piece.a.as_ref()?.get(skip..)?;
        let of_segment = self.uses.iter().zip(&mut self.groups);
        let mut of_segment = of_segment.filter(|(use_, _)| use_.segment == piece.segment);
        let sighting = of_segment.find_map(|(_, groups)| groups.get_mut(&block))?;
        let blocks = sighting.header.blocks(&self.verifier.geometry);
        let bytes = blocks as usize * self.verifier.geometry.block_bytes();
        let same = sighting.whole_a && a.get(..bytes)? == b.get(..bytes)?;
        sighting.whole_b |= same;
        same.then_some(blocks)
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
