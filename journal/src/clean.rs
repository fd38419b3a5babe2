//! Cleaning: moving live values out of the segment that holds least of them (FORMAT.md section 9).
//!
//! A segment is read front to back and each record looked up in the index, so that cleaning costs by what lies in
//! the segment, not by how many keys there are. What verifies in neither copy stays where it is.

use crate::geometry::VolumeGeometry;
use crate::group::group_blocks;
use crate::index::Entry;
use crate::journal::Inner;
use crate::layout::group;
use crate::plant::Plant;
use crate::record::{Record, RecordError};
use crate::room::uses_max;
use crate::scan::blocks;
use crate::state::Move;
use crate::types::{Birth, BlockIndex, Place, SegmentIndex, Use, Zone};
use crate::writer::Stop;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use blockdev::Buffer;
use core::future::poll_fn;
use core::mem;
use core::task::Poll;

/// Bytes of a group that one slice of cleaning fills: commits wait for a slice at most. Each ends in a block that is not quite
/// full, so that small ones would waste what cleaning gains.
pub(crate) const SLICE_BYTES: usize = 256 << 10;
/// Bytes read at a time: the longest record fits twice.
const WINDOW_BYTES: usize = 144 << 10;
/// Cleanings that may free nothing, as a multiple of the segments, of which there are eight: admission keeps back a
/// hundred-and-twenty-eighth, so that a segment is gained by fewer than twice as many.
const VAIN_MAX: u32 = 32;

/// A key and where its value lies.
type Found = (Rc<[u8]>, Entry);

/// A part of one copy of a segment.
struct Window {
    zone: Zone,
    segment: SegmentIndex,
    /// Where the bytes begin in the segment.
    start: usize,
    bytes: Buffer,
}

/// Moves that are written together. The last of a segment wait for those of the next, so that groups end where segments do and
/// no block is left half empty.
#[derive(Default)]
pub(crate) struct Slice {
    moves: Vec<Move>,
    bytes: usize,
    /// Bytes of those from the segment that is being read.
    of_victim: u64,
    /// Segments that were read and hold what these moves take away.
    victims: Vec<SegmentIndex>,
}

impl Inner {
    /// Yields the segment with the least live bytes that cleaning would gain from.
    pub(crate) fn victim(&self) -> Option<SegmentIndex> {
        // Values that verify in no copy hold their segments. Where they hold too many, cleaning the others gains
        // nothing, and would go on for ever.
        if self.cleaned_in_vain.get().1 > VAIN_MAX * self.verifier.geometry.segment_count() {
            return None;
        }
        let candidates = self.cleanable();
        let state = self.state.borrow();
        let usable = state.room.usable(&self.verifier.geometry, 0);
        let gains = |segment: &SegmentIndex| state.room.live_in(*segment) < usable;
        candidates.into_iter().filter(gains).min_by_key(|segment| state.room.live_in(*segment))
    }

    /// Yields the segment with the most uses, where there are too many: each costs a line in every checkpoint.
    pub(crate) fn victim_of_many_uses(&self) -> Option<SegmentIndex> {
        if self.state.borrow().uses.len() <= uses_max(&self.verifier.geometry) {
            return None;
        }
        let candidates = self.cleanable();
        let state = self.state.borrow();
        let uses = |segment: &SegmentIndex| {
            state.uses.iter().filter(|use_| use_.segment == *segment).count()
        };
        candidates.into_iter().max_by_key(uses)
    }

    /// Yields the segments with live values that neither the log nor the checkpoint lies in.
    fn cleanable(&self) -> Vec<SegmentIndex> {
        let (volume, state) = (self.volume.borrow(), self.state.borrow());
        let mut taken = vec![false; self.verifier.geometry.segment_count() as usize];
        let uses = volume.superblock.log.iter().chain(&volume.superblock.checkpoint);
        let waiting = self.slice.borrow();
        let others = volume.stuck.segments().chain(waiting.victims.iter().copied());
        for segment in uses.map(|use_| use_.segment).chain(others) {
            if let Some(taken) = taken.get_mut(segment.0 as usize) {
                *taken = true;
            }
        }
        let segments = (0..).map(SegmentIndex).zip(taken);
        let open = segments.filter(|(segment, taken)| !taken && state.room.live_in(*segment) > 0);
        open.map(|(segment, _)| segment).collect()
    }

    /// Yields how many segments are free once the moves that wait are durable.
    pub(crate) fn waiting(&self) -> u32 {
        let slice = self.slice.borrow();
        let held = slice.victims.iter().filter(|victim| self.is_held(**victim)).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// Tells whether moves wait that can be written: another segment has room for them, or the one at hand.
    pub(crate) fn may_move(&self, another: bool) -> bool {
        let slice = self.slice.borrow();
        (another || self.head_has_room(slice.bytes)) && !slice.moves.is_empty()
    }

    /// Tells whether what lives in `victim`, and the moves that wait, fit into the segment at hand, slice by slice.
    pub(crate) fn fits_at_hand(&self, victim: SegmentIndex) -> bool {
        let bytes = self.slice.borrow().bytes as u64 + self.live_in(victim);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.head_has_room(bytes.saturating_add(self.lost_by_slices(bytes)))
    }

    /// Yields an upper bound of what is lost where moves of so many bytes are written in more than one slice: for each before the
    /// last a header, and of a block what the next record does not fit into; each is so full that the longest does not fit.
    fn lost_by_slices(&self, bytes: usize) -> usize {
        let geometry = &self.verifier.geometry;
        let (most, longest) = (slice_bytes_max(geometry), self.state.borrow().room.longest());
        let slices = if bytes <= most { 0 } else { bytes / most.saturating_sub(longest).max(1) };
        slices.saturating_mul(group::BYTES + geometry.block_bytes().min(longest))
    }

    /// Tells whether the segment at hand has room for a group with so many bytes of records.
    fn head_has_room(&self, bytes: usize) -> bool {
        let geometry = &self.verifier.geometry;
        group_blocks(geometry, bytes) as usize * geometry.block_bytes() <= self.head_bytes()
    }

    /// Moves every live value out of `victim`, slice by slice; the last wait for more. What cannot be read stays.
    ///
    /// No slice but the last is written before it is full, whichever way its moves were found, so that the room they take is known
    /// before.
    pub(crate) async fn clean(&self, victim: SegmentIndex) -> Result<(), Stop> {
        self.maintaining.set(true);
        let mut slice = self.slice.take();
        slice.of_victim = 0;
        let mut read = false;
        for zone in self.verifier.geometry.zones() {
            if self.more_lives(victim, &mut slice) {
                self.move_records(victim, zone, read, &mut slice).await?;
                read = true;
            }
        }
        if self.more_lives(victim, &mut slice) {
            self.move_the_rest(victim, &mut slice).await?;
        }
        if self.more_lives(victim, &mut slice) {
            // What cannot be read holds the segment: the others need not wait.
            self.send(&mut slice, usize::MAX).await?;
        }
        if slice.of_victim > 0 {
            slice.victims.push(victim);
        } else {
            self.forget_uses(victim);
        }
        self.slice.replace(slice);
        self.state.borrow_mut().cleaned += 1;
        self.maintaining.set(false);
        Ok(())
    }

    /// Writes the moves that wait.
    pub(crate) async fn move_the_waiting(&self) -> Result<(), Stop> {
        self.maintaining.set(true);
        let mut slice = self.slice.take();
        self.send(&mut slice, usize::MAX).await?;
        self.maintaining.set(false);
        Ok(())
    }

    /// Forgets the uses of a segment that nothing lies in any more.
    fn forget_uses(&self, victim: SegmentIndex) {
        if !self.is_listed(victim) && self.live_in(victim) == 0 {
            self.state.borrow_mut().uses.retain(|use_| use_.segment != victim);
        }
    }

    /// Tells whether values hold a segment that was read.
    fn is_held(&self, victim: SegmentIndex) -> bool {
        self.live_in(victim) > 0 && !self.is_listed(victim)
    }

    /// Tells whether the log lies in a segment that was read: it was listed again, when its last value had been written over.
    fn is_listed(&self, victim: SegmentIndex) -> bool {
        self.volume.borrow().superblock.log.iter().any(|use_| use_.segment == victim)
    }

    /// Something is to be written, commit, chunk or note: what it makes garbage of, cleaning may gain again.
    pub(crate) fn clean_anew(&self) {
        self.cleaned_in_vain.set((0, 0));
    }

    /// The same of what is part of a large value.
    pub(crate) fn clean_anew_for_uploads(&self) {
        if !self.options.plants.has(Plant::UploadsInVain) {
            self.clean_anew();
        }
    }

    /// Notes whether there are more free segments than at any time since something was to be written.
    pub(crate) fn count_vain(&self) {
        let (free, (most, vain)) = (self.free_count(), self.cleaned_in_vain.get());
        self.cleaned_in_vain.set(if free > most { (free, 0) } else { (most, vain + 1) });
    }

    fn live_in(&self, segment: SegmentIndex) -> u64 {
        self.state.borrow().room.live_in(segment)
    }

    /// Tells whether more lives in the segment that is being read than the moves that wait take away.
    ///
    /// What was written over since it was read is dropped first: it lives there no more, and would stand for what does.
    fn more_lives(&self, victim: SegmentIndex, slice: &mut Slice) -> bool {
        if self.live_in(victim) > slice.of_victim {
            return true;
        }
        (slice.bytes, slice.of_victim) = (0, 0);
        slice.moves.retain(|moved| {
            let entry = self.state.borrow().index.get(&moved.key);
            let entry = entry.filter(|entry| entry.birth == moved.birth);
            let (bytes, segment) = (moved.record_bytes(), entry.map(|entry| entry.place.segment));
            slice.bytes += if segment.is_some() { bytes } else { 0 };
            slice.of_victim += if segment == Some(victim) { bytes as u64 } else { 0 };
            segment.is_some()
        });
        self.forget_victims(slice);
        self.live_in(victim) > slice.of_victim
    }

    /// Moves what one copy of `victim` holds of live values, front to back; of what is read `again` those that the slice lacks.
    async fn move_records(
        &self,
        victim: SegmentIndex,
        zone: Zone,
        again: bool,
        slice: &mut Slice,
    ) -> Result<(), Stop> {
        let geometry = self.verifier.geometry;
        let bytes = Buffer::zeroed(0);
        let mut window = Window { zone, segment: victim, start: 0, bytes };
        let mut block = 0;
        while block < geometry.segment_blocks() && self.more_lives(victim, slice) {
            let start = block as usize * geometry.block_bytes();
            let first = self.window(&mut window, start, group::BYTES).await;
            let header = self.verifier.header(victim, BlockIndex(block), first);
            let of_use = |use_: Use| header.filter(|header| header.epoch == use_.epoch);
            let Some(header) = self.use_at(victim, BlockIndex(block)).and_then(of_use) else {
                block += 1;
                continue;
            };
            let mut at = start + group::BYTES;
            let end = at + header.payload_bytes as usize;
            while at < end {
                let place =
                    Place { segment: victim, offset: u32::try_from(at).unwrap_or(u32::MAX) };
                let mut found = Record::decode(header.epoch, place, window.from(at, end));
                if found == Err(RecordError::Length) {
                    let longest = WINDOW_BYTES / 2;
                    let again = self.window(&mut window, at, longest.min(end - at)).await;
                    found = Record::decode(header.epoch, place, again);
                }
                let Ok(record) = found else { break };
                at += record.bytes();
                if let Some(moved) = self.moved(&record, place)
                    && !(again && slice.takes(&moved.key, moved.birth))
                {
                    self.add(slice, moved).await?;
                }
            }
            block += header.blocks(&geometry);
        }
        Ok(())
    }

    /// Lets a slice take a move of the segment that is being read; writes what it holds where it is full.
    async fn add(&self, slice: &mut Slice, moved: Move) -> Result<(), Stop> {
        let bytes = moved.record_bytes();
        let full = slice.bytes + bytes > slice_bytes_max(&self.verifier.geometry);
        if full && !slice.moves.is_empty() {
            self.send(slice, self.head_takes(slice)).await?;
        }
        slice.bytes += bytes;
        slice.of_victim += bytes as u64;
        slice.moves.push(moved);
        Ok(())
    }

    /// Yields the bytes that are left of the segment at hand.
    fn head_bytes(&self) -> usize {
        let (geometry, volume) = (&self.verifier.geometry, self.volume.borrow());
        let blocks = geometry.segment_blocks().saturating_sub(volume.tail.block);
        if volume.tail.epoch.is_some() { blocks as usize * geometry.block_bytes() } else { 0 }
    }

    /// Yields how many moves fill what is left of the segment at hand; all where that takes none.
    fn head_takes(&self, slice: &Slice) -> usize {
        let (mut left, head) = (self.head_bytes().checked_sub(group::BYTES), slice.moves.iter());
        let fits = |moved: &&Move| {
            left = left.and_then(|left| left.checked_sub(moved.record_bytes()));
            left.is_some()
        };
        match head.take_while(fits).count() {
            0 => slice.moves.len(),
            some => some,
        }
    }

    /// Yields the use that a block of values lies in.
    fn use_at(&self, segment: SegmentIndex, block: BlockIndex) -> Option<Use> {
        self.state.borrow().use_at(segment, block)
    }

    /// Yields `bytes` bytes of the segment from `start` on, fewer at its end.
    async fn window<'a>(&self, window: &'a mut Window, start: usize, bytes: usize) -> &'a [u8] {
        let geometry = &self.verifier.geometry;
        let end = (start + bytes).min(geometry.segment_bytes());
        if start < window.start || end > window.start + window.bytes.len() {
            let block = BlockIndex(geometry.blocks(start - start % geometry.block_bytes()));
            let count = geometry.blocks(WINDOW_BYTES).min(geometry.segment_blocks() - block.0);
            let (disk, verifier) = (&self.disk, &self.verifier);
            window.start = block.0 as usize * geometry.block_bytes();
            window.bytes = blocks(disk, verifier, window.zone, window.segment, block, count).await;
        }
        window.from(start, end)
    }

    /// Yields the move of a record that its key still points to.
    fn moved(&self, record: &Record<'_>, place: Place) -> Option<Move> {
        let entry = self.state.borrow().index.get(record.key)?;
        let manifest = entry.upload.is_some();
        let live = entry.place == place && entry.birth == record.birth;
        (live && manifest == record.manifest)
            .then(|| Move::new(record.key.into(), record.value.into(), &entry))
    }

    /// Moves the values of `victim` that its groups do not lead to, key by key: a header of theirs verifies in no copy.
    async fn move_the_rest(&self, victim: SegmentIndex, slice: &mut Slice) -> Result<(), Stop> {
        let mut next = Vec::new();
        loop {
            let (found, end) = self.rest_in(victim, &mut next);
            for (key, entry) in found {
                if slice.takes(&key, entry.birth) {
                    continue;
                }
                match self.read(&key, &entry).await {
                    Ok(value) => self.add(slice, Move::new(key, value, &entry)).await?,
                    Err(_) => {
                        // Written over meanwhile, it need not move, and its place may be another's already.
                        let there = self.state.borrow().index.get(&key) == Some(entry);
                        if there {
                            self.volume.borrow_mut().stuck.for_now(victim, self.clock.now());
                        }
                    }
                }
            }
            if end {
                return Ok(());
            }
        }
    }

    /// Yields some keys whose values lie in `victim`, from `next` on, and whether those were the last.
    fn rest_in(&self, victim: SegmentIndex, next: &mut Vec<u8>) -> (Vec<Found>, bool) {
        let state = self.state.borrow();
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut cursor = state.index.cursor(next);
        while let Some((key, entry)) = cursor.step() {
            if bytes >= SLICE_BYTES / 2 {
                *next = key.to_vec();
                return (found, false);
            }
            if entry.place.segment == victim {
                bytes += entry.record_bytes(key);
                found.push((Rc::from(key), entry));
            }
        }
        (found, true)
    }

    /// Hands the first moves of a slice to the writer as one, and waits until they are durable; lists the next use where it
    /// needs it.
    async fn send(&self, slice: &mut Slice, count: usize) -> Result<(), Stop> {
        {
            let count = count.min(slice.moves.len());
            let mut state = self.state.borrow_mut();
            state.moves_unsettled += count;
            state.moves_sent += count as u64;
            state.moves.extend(slice.moves.drain(..count));
        }
        slice.bytes = slice.moves.iter().map(Move::record_bytes).sum();
        slice.of_victim = slice.of_victim.min(slice.bytes as u64);
        let settled = poll_fn(|_| match self.state.borrow().moves_unsettled {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        });
        self.beside_reserving(settled).await?;
        self.forget_victims(slice);
        Ok(())
    }

    /// Forgets the segments that nothing lives in any more, or nothing waits for.
    fn forget_victims(&self, slice: &mut Slice) {
        let waits = |victim: &SegmentIndex| !slice.moves.is_empty() && self.is_held(*victim);
        let (waiting, done) = mem::take(&mut slice.victims).into_iter().partition(waits);
        slice.victims = waiting;
        let done: Vec<_> = done;
        done.into_iter().for_each(|victim| self.forget_uses(victim));
    }
}

impl Slice {
    /// Tells whether the move of a value waits. It is asked only where a copy is bad.
    fn takes(&self, key: &[u8], birth: Birth) -> bool {
        self.moves.iter().any(|moved| moved.birth == birth && *moved.key == *key)
    }
}

/// Yields the most bytes of records that a slice takes, but for one longer record.
fn slice_bytes_max(geometry: &VolumeGeometry) -> usize {
    SLICE_BYTES.min(geometry.segment_bytes()) - group::BYTES
}

impl Window {
    /// Yields what is at hand of the segment's bytes from `start` to `end`.
    fn from(&self, start: usize, end: usize) -> &[u8] {
        let from = start.checked_sub(self.start);
        let bytes = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        bytes.get(..end - start).unwrap_or(bytes)
    }
}
