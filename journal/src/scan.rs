//! Reading the medium for recovery: superblock copies, group headers, evidence (R1 and the reads of R3).
//!
//! A block that cannot be read counts as one that does not verify.

use crate::disk::Disk;
use crate::geometry::{SLOT_BYTES, SUPERBLOCK_COPIES, superblock_offset};
use crate::group::{Header, Verifier};
use crate::layout::superblock;
use crate::plant::Plant;
use crate::superblock::{Copies, Superblock, SuperblockError};
use crate::types::{BlockIndex, Lsn, SegmentIndex, Use, Zone};
use crate::walk::{Seen, Sighting};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use blockdev::Buffer;

/// Bytes read at a time: large enough to stream, small beside a guest's memory.
const CHUNK_BYTES: usize = 128 << 10;

/// Reads the four superblock copies of a device.
pub(crate) async fn superblocks(disk: &Disk) -> Copies {
    let device_bytes = disk.geometry().device_bytes / SLOT_BYTES * SLOT_BYTES;
    let mut copies = [const { Err(SuperblockError::Unreadable) }; SUPERBLOCK_COPIES];
    let mut volume_bytes = device_bytes;
    for (copy, slot) in copies.iter_mut().enumerate() {
        *slot = superblock_at(disk, superblock_offset(copy, volume_bytes)).await;
        // The first copies tell where the last ones are, should the device have grown.
        if let Ok(superblock) = slot
            && superblock.geometry.fits(device_bytes)
        {
            volume_bytes = superblock.geometry.volume_bytes();
        }
    }
    Copies { copies }
}

async fn superblock_at(disk: &Disk, offset: u64) -> Result<Superblock, SuperblockError> {
    let read = disk.read(offset, superblock::BYTES).await;
    let bytes = read.map_err(|_| SuperblockError::Unreadable)?;
    let bytes: &[u8; superblock::BYTES] = bytes.first_chunk().ok_or(SuperblockError::Unreadable)?;
    Superblock::decode(bytes)
}

/// Reads everything that the walk may know, as `superblock` lists it.
pub(crate) async fn log(
    disk: &Disk,
    verifier: &Verifier,
    superblock: &Superblock,
    copies: &Copies,
) -> Seen {
    let uses = superblock.log.clone();
    let mut scan = Scan::new(disk, verifier, &superblock.log);
    scan.evidence = copies.valid().map(|copy| copy.durable).max().unwrap_or(Lsn::NONE);
    for segment in (0..verifier.geometry.segment_count()).map(SegmentIndex) {
        let listed = uses.iter().filter(|use_| use_.segment == segment);
        let from = listed.map(|use_| use_.start.0).min();
        if from != Some(0) && !verifier.keys.plants.has(Plant::HeadsUnscanned) {
            scan.head(segment).await;
        }
        if let Some(from) = from {
            for zone in verifier.geometry.zones() {
                scan.segment(zone, segment, from).await;
            }
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
pub(crate) async fn sightings(
    disk: &Disk,
    verifier: &Verifier,
    segment: SegmentIndex,
    uses: &[Use],
) -> Vec<Sighting> {
    let mut scan = Scan::new(disk, verifier, uses);
    let from = uses.iter().map(|use_| use_.start.0).min().unwrap_or(0);
    for zone in verifier.geometry.zones() {
        scan.segment(zone, segment, from).await;
    }
    scan.groups.into_iter().flat_map(BTreeMap::into_values).collect()
}

struct Scan<'a> {
    disk: &'a Disk,
    verifier: &'a Verifier,
    uses: &'a [Use],
    groups: Vec<BTreeMap<BlockIndex, Sighting>>,
    evidence: Lsn,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a Disk, verifier: &'a Verifier, uses: &'a [Use]) -> Self {
        let groups = uses.iter().map(|_| BTreeMap::new()).collect();
        Self { disk, verifier, uses, groups, evidence: Lsn::NONE }
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

    /// Looks at every block of one copy of a segment from block `from` on.
    async fn segment(&mut self, zone: Zone, segment: SegmentIndex, from: u32) {
        let geometry = self.verifier.geometry;
        let chunk_blocks = geometry.blocks(CHUNK_BYTES);
        let mut block = from;
        while block < geometry.segment_blocks() {
            let count = chunk_blocks.min(geometry.segment_blocks() - block);
            let chunk = blocks(self.disk, self.verifier, zone, segment, BlockIndex(block), count);
            let chunk = chunk.await;
            block += self.chunk(zone, segment, BlockIndex(block), &chunk).await;
        }
    }

    /// Looks at a chunk; yields how many blocks are done with, which may be more than it holds.
    async fn chunk(
        &mut self,
        zone: Zone,
        segment: SegmentIndex,
        first: BlockIndex,
        chunk: &Buffer,
    ) -> u32 {
        let geometry = self.verifier.geometry;
        let plants = self.verifier.keys.plants;
        let count = geometry.blocks(chunk.len());
        let mut at = 0;
        while at < count {
            let block = BlockIndex(first.0 + at);
            let bytes = chunk.get(at as usize * geometry.block_bytes()..).unwrap_or_default();
            let Some(header) = self.verifier.header(segment, block, bytes) else {
                at += 1;
                continue;
            };
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
            self.sight(in_use, zone, header, whole);
            // Nothing but its own bytes can lie inside a group that verifies.
            at += if whole { header.blocks(&geometry) } else { 1 };
        }
        at
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
    let geometry = &verifier.geometry;
    let bytes = count as usize * geometry.block_bytes();
    if let Ok(all) = disk.read(geometry.block_offset(zone, segment, first), bytes).await {
        return all;
    }
    let mut all = Buffer::zeroed(bytes);
    for (at, into) in (first.0..).zip(all.chunks_exact_mut(geometry.block_bytes())) {
        let offset = geometry.block_offset(zone, segment, BlockIndex(at));
        if let Ok(block) = disk.read(offset, geometry.block_bytes()).await {
            into.copy_from_slice(&block);
        }
    }
    all
}
