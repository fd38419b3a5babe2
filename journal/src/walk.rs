//! The walk of recovery: from what the medium shows to a history, without a write or a read.
//!
//! This is R3 of FORMAT.md section 7. It asks [`verdict`] at every place and does what the row says.

use crate::geometry::VolumeGeometry;
use crate::group::Header;
use crate::tag::Tag;
use crate::types::{BlockIndex, Lsn, Use, Zone};
use crate::verdict::{Later, Sight, UseState, Verdict, verdict};
use alloc::vec;
use alloc::vec::Vec;

/// A group header that verifies in at least one copy, at a place of a listed use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// What it states.
    pub header: Header,
    /// Copy A verifies as a whole.
    pub whole_a: bool,
    /// Copy B verifies as a whole.
    pub whole_b: bool,
}

impl Sighting {
    fn whole(&self) -> bool {
        self.whole_a || self.whole_b
    }
}

/// All that the walk may know.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The uses of the log, in order.
    pub uses: Vec<Use>,
    /// The sightings of each use, by rising block.
    pub groups: Vec<Vec<Sighting>>,
    /// The highest `durable_lsn` found: D.
    pub evidence: Lsn,
    /// Last LSN that the checkpoint covers.
    pub base: Lsn,
    /// Tag of the group that held it.
    pub base_tag: Tag,
    /// Shape of the volume.
    pub geometry: VolumeGeometry,
}

/// A group that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its use, as an index into the list.
    pub in_use: usize,
    /// Its header.
    pub header: Header,
    /// A copy that verifies.
    pub good: Zone,
    /// The copy to repair, if one does not verify.
    pub repair: Option<Zone>,
}

/// A range of LSNs that had been durable and are gone, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// First LSN lost.
    pub first: Lsn,
    /// Last LSN lost.
    pub last: Lsn,
}

/// What recovery found the log to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The groups that count, in order.
    pub accepted: Vec<Accepted>,
    /// What was lost, in order.
    pub lost: Vec<Lost>,
    /// The cut of each use; `None` where nothing was accepted or lost in it.
    pub cuts: Vec<Option<Lsn>>,
    /// The LSN at which the log goes on.
    pub next: Lsn,
    /// Tag of the last accepted group.
    pub tag: Tag,
    /// Later groups that verify and do not count: a torn tail.
    pub torn_groups: u32,
}

impl History {
    /// Yields the last LSN that was lost.
    ///
    /// What a loss leaves in doubt is all that came before it, so of several the last alone counts.
    pub(crate) fn last_lost(&self) -> Option<Lsn> {
        self.lost.last().map(|lost| lost.last)
    }
}

/// Which rule of recovery is switched off, to prove that a test would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weakened {
    /// Take any later group as proof that the gap was durable.
    pub later_proves: bool,
    /// Do not look at the next listed use.
    pub next_unseen: bool,
    /// Give LSNs out again after a loss.
    pub reuse_lsn: bool,
    /// Ignore all evidence.
    pub no_evidence: bool,
    /// Expect the first group of a use to name the last one of the use before it, also where that was closed.
    pub chain_across: bool,
    /// Let a use end with what was lost before a group of a later one.
    pub loss_in_cut: bool,
}

/// Walks the log.
pub fn walk(seen: &Seen, weakened: Weakened) -> History {
    Walk {
        seen,
        weakened,
        in_use: 0,
        block: seen.uses.first().map_or(BlockIndex(0), |use_| use_.start),
        want: seen.base.next(),
        previous: Some(seen.base_tag),
        history: History {
            accepted: Vec::new(),
            lost: Vec::new(),
            cuts: vec![None; seen.uses.len()],
            next: seen.base.next(),
            tag: seen.base_tag,
            torn_groups: 0,
        },
    }
    .run()
}

struct Walk<'a> {
    seen: &'a Seen,
    weakened: Weakened,
    in_use: usize,
    block: BlockIndex,
    want: Lsn,
    previous: Option<Tag>,
    history: History,
}

impl<'a> Walk<'a> {
    fn run(mut self) -> History {
        loop {
            let fit = self.fit(self.in_use, self.block);
            let next = self.seen.uses.get(self.in_use + 1);
            let next_fit = next.and_then(|next| self.fit(self.in_use + 1, next.start));
            let next_fit = next_fit.filter(|_| !self.weakened.next_unseen);
            let use_ = self.use_state();
            // Rows 1 to 3 do not ask for X. To look for it at every group would take the square of their number.
            let settled = match use_ {
                UseState::Complete => true,
                UseState::Closed | UseState::Exhausted => fit.is_some(),
                UseState::Open => fit.is_some() || next_fit.is_some(),
            };
            let later = if settled { None } else { self.later() };
            let evidence = self.evidence(later);
            let sight = Sight {
                use_,
                fits: fit.is_some(),
                next_fits: next_fit.is_some(),
                later: match later {
                    None => Later::None,
                    Some((_, x)) if evidence.max(self.cut()) >= x.header.first.before() => {
                        Later::Covered
                    }
                    Some(_) => Later::Uncovered,
                },
                vouched: evidence >= self.want,
            };
            match (verdict(sight), fit, later) {
                (Verdict::Accept, Some(group), _) => self.accept(group),
                (Verdict::UseComplete, _, _) => {
                    // What the mount that wrote the next use read in neither copy, and left out of the chain, may be back.
                    self.previous = self.previous.filter(|_| self.weakened.chain_across);
                    self.next_use();
                }
                (Verdict::MovedOn, _, _) => self.next_use(),
                (Verdict::LossBeforeLater, _, Some((in_use, x))) => {
                    // Where X lies in a later use, what is lost may lie there before it: this one ends with what it holds.
                    let cuts = self.weakened.loss_in_cut.then_some(self.in_use);
                    self.lose(x.header.first.before(), cuts);
                    self.in_use = in_use;
                    self.block = x.header.block;
                }
                (Verdict::LossToCut, _, _) => {
                    self.lose(self.cut(), Some(self.in_use));
                    self.next_use();
                }
                (Verdict::LossToEvidence, _, _) => {
                    if self.weakened.reuse_lsn {
                        self.history.lost.push(Lost { first: self.want, last: evidence });
                        return self.end();
                    }
                    self.lose(evidence, Some(self.in_use));
                    return self.end();
                }
                (Verdict::End, _, _) => return self.end(),
                (Verdict::Accept, None, _) | (Verdict::LossBeforeLater, _, None) => {
                    unreachable!(
                        "the table accepts only what fits, and goes on only at what is there"
                    )
                }
            }
        }
    }

    fn use_state(&self) -> UseState {
        match self.seen.uses.get(self.in_use) {
            None => UseState::Exhausted,
            Some(Use { end: None, .. }) => UseState::Open,
            Some(Use { end: Some(end), .. }) if self.want > *end => UseState::Complete,
            Some(Use { end: Some(_), .. }) => UseState::Closed,
        }
    }

    /// The cut of the use that the walk is in; `NONE` while it is open.
    fn cut(&self) -> Lsn {
        self.seen.uses.get(self.in_use).and_then(|use_| use_.end).unwrap_or(Lsn::NONE)
    }

    fn evidence(&self, later: Option<(usize, &Sighting)>) -> Lsn {
        match later {
            Some((_, x)) if self.weakened.later_proves => {
                self.seen.evidence.max(x.header.first.before())
            }
            _ if self.weakened.no_evidence => Lsn::NONE,
            _ => self.seen.evidence,
        }
    }

    /// Yields the group at `block` of use `in_use`, if it is whole and the one that must come next.
    fn fit(&self, in_use: usize, block: BlockIndex) -> Option<Sighting> {
        let groups = self.seen.groups.get(in_use)?;
        let at = groups.binary_search_by_key(&block, |group| group.header.block).ok()?;
        let group = groups.get(at)?;
        let chained = self.previous.is_none_or(|previous| previous == group.header.previous);
        (group.whole() && group.header.first == self.want && chained).then_some(*group)
    }

    /// Yields the first whole group behind the place whose first LSN is past the expected one: X.
    fn later(&self) -> Option<(usize, &'a Sighting)> {
        let closed = !matches!(self.use_state(), UseState::Open | UseState::Exhausted);
        let uses = if closed { self.in_use + 1 } else { self.seen.uses.len() };
        let seen: &'a Seen = self.seen;
        (self.in_use..uses).find_map(|in_use| {
            let use_ = seen.uses.get(in_use)?;
            let from = if in_use == self.in_use { self.block } else { use_.start };
            let groups = seen.groups.get(in_use)?;
            let before = groups.partition_point(|group| group.header.block < from);
            let x = groups.get(before..)?.iter().find(|group| {
                group.whole()
                    && group.header.first > self.want
                    && use_.end.is_none_or(|end| group.header.last <= end)
            });
            x.map(|x| (in_use, x))
        })
    }

    fn accept(&mut self, group: Sighting) {
        let header = group.header;
        let repair = match (group.whole_a, group.whole_b) {
            _ if self.seen.geometry.copies() < 2 => None,
            (true, false) => Some(Zone::B),
            (false, true) => Some(Zone::A),
            (true, true) | (false, false) => None,
        };
        let good = if group.whole_a { Zone::A } else { Zone::B };
        self.history.accepted.push(Accepted { in_use: self.in_use, header, good, repair });
        self.account(header.last, Some(self.in_use));
        self.previous = Some(header.tag);
        self.history.tag = header.tag;
        self.block = BlockIndex(header.block.0 + header.blocks(&self.seen.geometry));
    }

    fn lose(&mut self, last: Lsn, cuts: Option<usize>) {
        self.history.lost.push(Lost { first: self.want, last });
        self.previous = None;
        self.account(last, cuts);
    }

    /// Everything up to `last` is accounted for, which is the cut of the use `cuts`.
    fn account(&mut self, last: Lsn, cuts: Option<usize>) {
        if let Some(cut) = cuts.and_then(|in_use| self.history.cuts.get_mut(in_use)) {
            *cut = Some(last);
        }
        self.want = last.next();
    }

    fn next_use(&mut self) {
        self.in_use += 1;
        self.block = self.seen.uses.get(self.in_use).map_or(BlockIndex(0), |use_| use_.start);
    }

    fn end(mut self) -> History {
        self.history.next = self.want;
        let torn = self.seen.groups.iter().flatten().filter(|group| group.header.last >= self.want);
        self.history.torn_groups = u32::try_from(torn.count()).unwrap_or(u32::MAX);
        self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, SegmentIndex};

    fn group(block: u32, first: u64, whole_a: bool) -> Sighting {
        let (first, tag) = (Lsn(first), Tag::default());
        let header = Header {
            epoch: Epoch([5; 16]),
            segment: SegmentIndex(0),
            block: BlockIndex(block),
            first,
            last: first,
            payload_bytes: 8,
            record_count: 1,
            previous: tag,
            durable: first.before(),
            payload_tag: tag,
            tag,
            checkpoint: false,
        };
        Sighting { header, whole_a, whole_b: false }
    }

    /// As many as the largest segments hold, twice: a walk that took the square of it would show.
    #[test]
    fn a_long_use_is_walked_to_its_end() {
        const COUNT: u32 = 60_000;
        let (segment, epoch) = (SegmentIndex(0), Epoch([5; 16]));
        let uses = vec![Use { segment, start: BlockIndex(0), end: None, epoch }];
        let groups = vec![(0..COUNT).map(|at| group(at, u64::from(at) + 1, true)).collect()];
        let seen = Seen {
            uses,
            groups,
            evidence: Lsn::NONE,
            base: Lsn::NONE,
            base_tag: Tag::default(),
            geometry: VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap(),
        };
        assert_eq!(walk(&seen, Weakened::default()).accepted.len(), COUNT as usize);
    }
}
