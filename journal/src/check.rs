//! The online check: reads both copies of everything, segment by segment, and repairs what one copy has.
//!
//! It runs as a task of maintenance, so no segment is freed or listed anew meanwhile, and looks only at
//! what is durable, so it never meets a write on its way.

use crate::checkpoint::group_at;
use crate::group::Header;
use crate::journal::Inner;
use crate::scan;
use crate::state::State;
use crate::ticket::{Settled, Ticket};
use crate::types::{SegmentIndex, Use, Zone};
use crate::walk::Sighting;
use crate::writer::Stop;
use alloc::vec::Vec;

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Groups that verify in at least one copy.
    pub groups: u64,
    /// Copies that did not verify and were written again from the other one.
    pub repaired: u64,
}

/// A check under way.
pub(crate) struct Check {
    next: SegmentIndex,
    report: CheckReport,
    ticket: Ticket,
}

impl State {
    /// Asks for a check, or joins the one that was asked for.
    pub(crate) fn ask_for_check(&mut self) -> Ticket {
        let fresh = || Check {
            next: SegmentIndex(0),
            report: CheckReport::default(),
            ticket: Ticket::default(),
        };
        self.check.get_or_insert_with(fresh).ticket.clone()
    }

    /// Yields the segment that the check comes to next.
    pub(crate) fn check_next(&self) -> Option<SegmentIndex> {
        self.check.as_ref().map(|check| check.next)
    }

    /// Ends a check that will not come to its end.
    pub(crate) fn abandon_check(&mut self) {
        if let Some(check) = self.check.take() {
            check.ticket.settle(Settled::Indeterminate);
        }
    }
}

impl Inner {
    /// Checks one segment, and settles the check behind the last one.
    pub(crate) async fn check_segment(&self, segment: SegmentIndex) -> Result<(), Stop> {
        let found = self.repair_segment(segment).await?;
        let last = segment.0 + 1 >= self.verifier.geometry.segment_count();
        let state = &mut *self.state.borrow_mut();
        let Some(check) = &mut state.check else { return Ok(()) };
        check.report.groups += found.groups;
        check.report.repaired += found.repaired;
        check.next = SegmentIndex(segment.0 + 1);
        if last {
            state.last_check = check.report;
            check.ticket.settle(Settled::Durable);
            state.check = None;
        }
        Ok(())
    }

    /// Repairs the copies of a segment's groups that do not verify; durable when this returns.
    pub(crate) async fn repair_segment(&self, segment: SegmentIndex) -> Result<CheckReport, Stop> {
        let (mut uses, durable) = {
            let state = self.state.borrow();
            (state.uses.clone(), state.durable.lsn)
        };
        // The log's own entries come last: the use that a checkpoint cut begins earlier in the former.
        uses.extend(&self.volume.borrow().superblock.checkpoint);
        let listed: Vec<Use> = uses.into_iter().filter(|use_| use_.segment == segment).collect();
        let mut report = CheckReport::default();
        if listed.is_empty() {
            return Ok(report);
        }
        let sightings = scan::sightings(&self.disk, &self.verifier, segment, &listed).await;
        for sighting in sightings {
            let settled = sighting.header.checkpoint || sighting.header.last <= durable;
            if !settled || !(sighting.whole_a || sighting.whole_b) {
                continue;
            }
            report.groups += 1;
            if let Some((good, bad)) = damaged_copy(&sighting, self.verifier.geometry.copies()) {
                report.repaired += u64::from(self.repair_group(&sighting.header, good, bad).await?);
            }
        }
        if report.repaired > 0 {
            self.flush(|| ()).await.map_err(|_| Stop::Flush)?;
            self.state.borrow_mut().repaired += report.repaired;
        }
        Ok(report)
    }

    async fn repair_group(&self, header: &Header, good: Zone, bad: Zone) -> Result<bool, Stop> {
        let (segment, block) = (header.segment, header.block);
        let found = group_at(&self.disk, &self.verifier, good, segment, block).await;
        let Some((again, bytes)) = found else { return Ok(false) };
        if again != *header {
            return Ok(false);
        }
        let offset = self.verifier.geometry.block_offset(bad, segment, block);
        self.disk.write(offset, bytes).await.map_err(|_| Stop::Write)?;
        Ok(true)
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
