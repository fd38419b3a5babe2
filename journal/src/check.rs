//! The online check: reads the copies of the superblock, then both copies of everything, segment by segment, and
//! repairs what another copy has.
//!
//! It runs as a task of maintenance, so no segment is freed or listed anew meanwhile, nor the superblock updated, and
//! looks only at what is durable, so it never meets a write on its way.

use crate::checkpoint::group_at;
use crate::geometry::{SLOT_BYTES, SUPERBLOCK_COPIES, VolumeGeometry};
use crate::group::Header;
use crate::index::Entry;
use crate::journal::Inner;
use crate::plant::Plant;
use crate::scan;
use crate::state::{Durable, State};
use crate::ticket::{Settled, Ticket};
use crate::types::{BlockIndex, Epoch, Lsn, SegmentIndex, Use, Zone};
use crate::walk::Sighting;
use crate::writer::Stop;
use alloc::vec::Vec;
use core::ops::Range;

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Groups that verify in at least one copy.
    pub groups: u64,
    /// Copies that did not verify, or of the superblock were out of date, and were written again.
    pub repaired: u64,
    /// What verifies in no copy: groups of the checkpoint; and live values or, where these are more, gaps in the log behind
    /// it that the mount has not told.
    pub damaged: u64,
    /// Bytes that were read, over all copies.
    pub bytes: u64,
}

/// What was found in one segment.
pub(crate) struct Repair {
    report: CheckReport,
    whole: Whole,
    /// What the settled groups of the log hold.
    log: Covered,
}

/// LSNs whose groups verify: ranges, each from its first to its last one, those of one use in one as far as none is missing.
#[derive(Default)]
struct Covered(Vec<(Lsn, Lsn)>);

impl Covered {
    /// Adds a range. One too many is passed over: it counts as missing then, which is true of something near it.
    fn add(&mut self, first: Lsn, last: Lsn) {
        if let Some((_, end)) = self.0.last_mut()
            && end.next() == first
        {
            *end = last;
        } else if self.0.len() < RANGES_MAX {
            self.0.push((first, last));
        }
    }

    /// Counts what is missing from `first` to `last`: gaps, and LSNs in all of them.
    fn missing(&self, first: Lsn, last: Lsn) -> (u64, u64) {
        let (mut next, mut missing) = (first, (0, 0));
        while next <= last {
            let mut end = last.next();
            for (from, to) in &self.0 {
                if *from > next {
                    end = end.min(*from);
                } else if *to >= next {
                    end = next;
                    next = to.next();
                }
            }
            if end > next {
                missing = (missing.0 + 1, missing.1 + (end.0 - next.0));
                next = end;
            }
        }
        missing
    }
}

/// Ranges that are kept: a log without gaps is one for each use, of which there are far fewer.
const RANGES_MAX: usize = 4096;

/// Where a segment holds groups that verify, in bytes, by where they begin.
struct Whole {
    groups: Vec<Range<u32>>,
    /// Behind this place nothing was durable when the segment was read, nor known.
    end: u32,
}

impl Whole {
    /// Tells whether a place that was durable when the segment was read is in no group.
    fn misses(&self, offset: u32) -> bool {
        let behind = self.groups.partition_point(|group| group.start <= offset);
        let group = behind.checked_sub(1).and_then(|at| self.groups.get(at));
        offset < self.end && !group.is_some_and(|group| group.contains(&offset))
    }
}

/// A check under way.
pub(crate) struct Check {
    next: SegmentIndex,
    report: CheckReport,
    /// What was durable when it began.
    durable: Lsn,
    log: Covered,
    /// Live values that are lost.
    lost: u64,
    ticket: Ticket,
    /// Most bytes that are read in a second; 0 for no bound.
    rate: u64,
    /// When the next segment may be read, in milliseconds of the clock.
    due: u64,
}

impl State {
    /// Asks for a check at this rate, or joins the one that was asked for, which goes on at it.
    pub(crate) fn ask_for_check(&mut self, rate: u64) -> Ticket {
        let durable = self.durable.lsn;
        let fresh = || Check {
            next: SegmentIndex(0),
            report: CheckReport::default(),
            durable,
            log: Covered::default(),
            lost: 0,
            ticket: Ticket::default(),
            rate,
            due: 0,
        };
        let check = self.check.get_or_insert_with(fresh);
        if check.rate != rate {
            (check.rate, check.due) = (rate, 0);
        }
        check.ticket.clone()
    }

    /// Yields the segment that the check comes to next, if it may by now.
    pub(crate) fn check_next(&self, now: u64) -> Option<SegmentIndex> {
        self.check.as_ref().filter(|check| check.due <= now).map(|check| check.next)
    }

    /// Yields when the check goes on, if there is one.
    pub(crate) fn check_due(&self) -> Option<u64> {
        self.check.as_ref().map(|check| check.due)
    }

    /// Yields how many segments a check under way has yet to read.
    pub(crate) fn check_left(&self, geometry: &VolumeGeometry) -> u32 {
        self.check.as_ref().map_or(0, |check| geometry.segment_count() - check.next.0)
    }

    /// Ends a check that will not come to its end.
    pub(crate) fn abandon_check(&mut self) {
        if let Some(check) = self.check.take() {
            check.ticket.settle(Settled::Indeterminate);
        }
    }
}

impl Inner {
    /// Checks one segment, before the first one the superblock, and settles the check behind the last one.
    pub(crate) async fn check_segment(&self, segment: SegmentIndex) -> Result<(), Stop> {
        let first = segment == SegmentIndex(0);
        let superblocks = if first { self.repair_superblocks().await? } else { 0 };
        let found = self.repair_segment(segment).await?;
        let lost = self.lost_in(segment, &found.whole);
        let (log, mut found, now) = (found.log, found.report, self.clock.now());
        found.repaired += superblocks;
        found.bytes += if first { SUPERBLOCK_COPIES as u64 * SLOT_BYTES } else { 0 };
        let last = segment.0 + 1 >= self.verifier.geometry.segment_count();
        let base = self.volume.borrow().superblock.base;
        let state = &mut *self.state.borrow_mut();
        let Some(check) = &mut state.check else { return Ok(()) };
        check.report.groups += found.groups;
        check.report.repaired += found.repaired;
        check.report.damaged += found.damaged + lost;
        check.lost += lost;
        log.0.into_iter().for_each(|(first, last)| check.log.add(first, last));
        check.report.bytes += found.bytes;
        check.due = match check.rate {
            0 => 0,
            rate => now.saturating_add(found.bytes.saturating_mul(1000) / rate),
        };
        check.next = SegmentIndex(segment.0 + 1);
        let mut gaps = found.damaged;
        if last && !self.options.plants.has(Plant::GapsUnseen) {
            // What the mount lost it has told.
            self.report.lost.iter().for_each(|lost| check.log.add(lost.first, lost.last));
            let (of_log, _) = check.log.missing(base.next(), check.durable);
            // Where values are lost these tell of it, and most lie in the gaps.
            check.report.damaged += of_log.saturating_sub(check.lost);
            gaps += of_log;
        }
        if gaps > 0 {
            // The index is in memory, and a checkpoint of it leaves nothing to be read there.
            state.base_is_whole = false;
            state.checkpoint_asked.get_or_insert_default();
        }
        if last {
            // What could not be read may be readable again.
            self.volume.borrow_mut().stuck.release(u64::MAX);
            state.last_check = check.report;
            state.checks += 1;
            check.ticket.settle(Settled::Durable);
            state.check = None;
        }
        Ok(())
    }

    /// Reads the copies of the superblock, and updates it where one is not as it was written last; yields how many are not.
    ///
    /// The repair is an update like any other, of a generation of its own in all four copies: what does not verify counts as
    /// oldest, so that what does is written over only when others are durable. No other update is under way, for maintenance
    /// alone makes them, one task at a time.
    async fn repair_superblocks(&self) -> Result<u64, Stop> {
        let volume_bytes = self.verifier.geometry.volume_bytes();
        let copies = scan::superblocks_of(&self.disk, volume_bytes).await;
        let bad = {
            let mut volume = self.volume.borrow_mut();
            volume.ages = copies.ages_up_to(&volume.superblock);
            copies.are(&volume.superblock).into_iter().filter(|current| !current).count() as u64
        };
        if bad > 0 {
            self.witness().await?;
            self.state.borrow_mut().repaired += bad;
        }
        Ok(bad)
    }

    /// Counts the live values of a segment that no whole group holds.
    ///
    /// Cost: a pass over the index, where the segment has live values.
    fn lost_in(&self, segment: SegmentIndex, whole: &Whole) -> u64 {
        let state = self.state.borrow();
        if state.room.live_in(segment) == 0 {
            return 0;
        }
        let lost =
            |entry: Entry| entry.place.segment == segment && whole.misses(entry.place.offset);
        let (mut cursor, mut count) = (state.index.cursor(&[]), 0);
        while let Some((_, entry)) = cursor.step() {
            count += u64::from(lost(entry));
        }
        count
    }

    /// Yields the LSNs of the groups of the checkpoint that a use of it holds, if it is one.
    fn of_checkpoint(&self, epoch: Epoch) -> Option<(Lsn, Lsn)> {
        let superblock = &self.volume.borrow().superblock;
        let at = superblock.checkpoint.iter().position(|use_| use_.epoch == epoch)?;
        let before = at
            .checked_sub(1)
            .map_or(Some(superblock.base), |at| superblock.checkpoint.get(at)?.end)?;
        Some((before.next(), superblock.checkpoint.get(at)?.end?))
    }

    /// Yields the uses of a segment, each from where it begins to its cut.
    fn uses_in(&self, segment: SegmentIndex, state: &State) -> Vec<Use> {
        let superblock = &self.volume.borrow().superblock;
        let forgotten = self.options.plants.has(Plant::CutForgotten);
        // What a checkpoint tells of a use is where it begins, and the log where it was cut.
        let cut = |use_: &Use| {
            let mut log = superblock.log.iter().filter(|_| !forgotten);
            let of_log = log.find(|one| one.epoch == use_.epoch);
            Use { end: of_log.map_or(use_.end, |one| one.end), ..*use_ }
        };
        let uses = state.uses.iter().map(cut).chain(superblock.checkpoint.iter().copied());
        uses.filter(|use_| use_.segment == segment).collect()
    }

    /// Yields the block of a segment from which on nothing is durable: the log goes on there, and in the uses behind.
    ///
    /// Births do not tell that, for they are given when a batch is taken, and it may wait.
    fn durable_end(&self, segment: SegmentIndex, durable: &Durable) -> Option<BlockIndex> {
        let log = &self.volume.borrow().superblock.log;
        let at = log.iter().position(|use_| Some(use_.epoch) == durable.epoch);
        let open = log.iter().skip(at.unwrap_or(0)).filter(|use_| use_.end.is_none());
        let own = open.filter(|use_| use_.segment == segment);
        let at_hand = |use_: &Use| Some(use_.epoch) == durable.epoch;
        own.map(|use_| if at_hand(use_) { durable.block } else { use_.start }).min()
    }

    /// Repairs the copies of a segment's groups that do not verify; durable when this returns.
    pub(crate) async fn repair_segment(&self, segment: SegmentIndex) -> Result<Repair, Stop> {
        let (listed, durable) = {
            let state = self.state.borrow();
            (self.uses_in(segment, &state), state.durable)
        };
        let base = self.volume.borrow().superblock.base;
        let geometry = &self.verifier.geometry;
        let offset = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let end = self.durable_end(segment, &durable);
        let end = end.map_or(u32::MAX, |end| offset(end.0 as usize * geometry.block_bytes()));
        let mut report = CheckReport::default();
        let mut whole = Whole { groups: Vec::new(), end };
        let (mut log, mut checkpoints) = (Covered::default(), Covered::default());
        if listed.is_empty() {
            return Ok(Repair { report, whole, log });
        }
        let from = listed.iter().map(|use_| use_.start.0).min().unwrap_or_default();
        let blocks = u64::from(geometry.segment_blocks().saturating_sub(from));
        report.bytes = blocks * geometry.block_bytes() as u64 * u64::from(geometry.copies());
        let sightings = scan::sightings(&self.disk, &self.verifier, segment, &listed).await;
        for sighting in sightings {
            // Behind the cut of a use lies a torn tail, whose LSNs were given out again.
            let cut = listed.iter().find(|use_| use_.epoch == sighting.header.epoch);
            let cut = cut.and_then(|use_| use_.end);
            let cut = cut.filter(|_| !self.options.plants.has(Plant::CheckTouchesTail));
            let cut = cut.unwrap_or(durable.lsn).min(durable.lsn);
            let settled = sighting.header.checkpoint || sighting.header.last <= cut;
            if !(sighting.whole_a || sighting.whole_b) {
                continue;
            }
            let start = sighting.header.block.0 as usize * geometry.block_bytes();
            let end = start + sighting.header.blocks(geometry) as usize * geometry.block_bytes();
            whole.groups.push(offset(start)..offset(end));
            if !settled {
                continue;
            }
            let Header { checkpoint, first, last, .. } = sighting.header;
            if checkpoint {
                checkpoints.add(first, last);
            } else if last > base {
                log.add(first, last);
            }
            report.groups += 1;
            if let Some((good, bad)) = damaged_copy(&sighting, self.verifier.geometry.copies()) {
                report.repaired += u64::from(self.repair_group(&sighting.header, good, bad).await);
            }
        }
        if report.repaired > 0 {
            self.flush(|| ()).await.map_err(|_| Stop::Flush)?;
            self.state.borrow_mut().repaired += report.repaired;
        }
        let unseen = self.options.plants.has(Plant::GapsUnseen);
        let uses = listed.iter().filter(|_| !unseen);
        for (first, last) in uses.filter_map(|use_| self.of_checkpoint(use_.epoch)) {
            // Each group takes one.
            report.damaged += checkpoints.missing(first, last).1;
        }
        whole.groups.sort_unstable_by_key(|group| group.start);
        Ok(Repair { report, whole, log })
    }

    /// Writes the bad copy anew; false where the good one is not read again, or the device does not take it.
    ///
    /// A device that takes it not has lost nothing that counts: nothing is acknowledged for it, and the place held nothing good.
    async fn repair_group(&self, header: &Header, good: Zone, bad: Zone) -> bool {
        let (segment, block) = (header.segment, header.block);
        let found = group_at(&self.disk, &self.verifier, good, segment, block).await;
        let Some((again, bytes)) = found else { return false };
        if again != *header {
            return false;
        }
        let offset = self.verifier.geometry.block_offset(bad, segment, block);
        self.disk.write(offset, bytes).await.is_ok()
    }
}

fn damaged_copy(sighting: &Sighting, copies: u8) -> Option<(Zone, Zone)> {
    match (sighting.whole_a, sighting.whole_b) {
        _ if copies < 2 => None,
        (true, false) => Some((Zone::A, Zone::B)),
        (false, true) => Some((Zone::B, Zone::A)),
        (true, true) | (false, false) => None,
    }
}
