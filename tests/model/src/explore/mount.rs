//! The mount: verdict, repairs, checkpoint where needed, superblock in two pairs.

use super::promises::{Kept, check};
use super::writer::free;
use super::{Explorer, Phase, State, Told};
use crate::config::{AtCut, Config, Fresh, MountCheckpoint, MountVouch, Target};
use crate::disk::{Checkpoint, Content, Id, SUPERS, Super, Use, group, intern, lsn};
use crate::recover::{Verdict, recover};
use std::collections::VecDeque;

impl Explorer<'_> {
    /// Recovers `image`, judges the verdict, and begins the mount.
    pub(super) fn verdict(&mut self, mut s: State, image: &[Id], h: u128, what: &str) {
        let c = self.c;
        self.report.recoveries += 1;
        let v = recover(image, c);
        let tail = || [what.to_owned(), format!("recovery: {}", v.tell())];
        match check(c, &s, image, &v) {
            Ok(Kept::Fully) => {}
            Ok(Kept::Residual) => {
                self.report.residual += 1;
                if self.report.residual_trace.is_none() {
                    self.report.residual_trace = Some(self.trace(h, tail()));
                }
                return;
            }
            Err(broken) => {
                self.report.violation = Some((broken, self.trace(h, tail())));
                return;
            }
        }
        self.report.losses += u64::from(!v.lost.is_empty());
        if v.refused.is_some() {
            self.report.refused += 1;
            return;
        }
        let as_read = s.faults == 0 || image == s.medium;
        s.last = as_read.then(|| Told { accepted: v.accepted.clone(), lost: v.lost.clone() });
        if s.cuts >= c.cuts && !c.keep_one_free {
            return;
        }
        if c.expose_early {
            s.must.clone_from(&v.accepted);
            s.may.clear();
            s.flushed = s.flushed.max(v.durable());
        }
        (s.next, s.tag, s.durable) = (v.next, v.tag, v.durable());
        (s.checkpoint, s.base) = (v.checkpoint, v.base);
        s.lost.clone_from(&v.lost);
        s.verdict.clone_from(&v.accepted);
        let begun = [self.plain_mounts(&s, &v), self.combined_mount(&s, &v)];
        if begun.iter().all(Vec::is_empty) {
            self.report.no_place += 1;
            if c.keep_one_free {
                let broken = "S9: a mount finds no place to go on".to_owned();
                self.report.violation = Some((broken, self.trace(h, tail())));
            }
        }
        if s.cuts >= c.cuts {
            return;
        }
        for t in begun.into_iter().flatten() {
            self.push(t, h, || format!("{what}; recovery: {}", v.tell()));
        }
    }

    /// Mounts that keep the log: repair, flush, superblock in two pairs with a flush after each.
    fn plain_mounts(&mut self, s: &State, v: &Verdict) -> Vec<State> {
        let c = self.c;
        if needs_checkpoint(c, v) {
            return vec![];
        }
        let behind = in_place(c, v);
        let cut = at_cut(c, v).filter(|_| behind.is_none() || c.at_cut == AtCut::OverAccepted);
        let place = cut.map(|u| (u.seg, u.start)).or(behind);
        let mut starts = vec![];
        if place.is_some() && c.fresh != Fresh::FreeSegment {
            starts.push(place);
        }
        if starts.is_empty() || c.fresh == Fresh::Either {
            starts.push(None);
        }
        let mut mounts = vec![];
        for place in starts {
            let mut t = s.clone();
            let mut log = v.uses.clone();
            let cut = cut.filter(|_| place.is_some());
            let mut free = by_stale_content(c, s, free(c, &log, v.checkpoint));
            if c.at_cut != AtCut::SegmentFree {
                free.retain(|&seg| cut.is_none_or(|u| u.seg != seg));
            }
            let mut free = free.into_iter();
            t.cur = count(&log);
            let Some((seg, start)) = place.or_else(|| free.next().map(|seg| (seg, 0))) else {
                continue;
            };
            match cut {
                Some(u) if c.at_cut == AtCut::OldEpoch => log.push(u),
                _ => list(c, &mut t, &mut log, seg, start),
            }
            let left = free.len();
            if let Some(seg) = free.next()
                && (!c.keep_one_free || left > 1)
                && log.len() < c.uses_max
            {
                list(c, &mut t, &mut log, seg, 0);
            }
            self.report.in_place += u64::from(place.is_some() && cut.is_none());
            self.report.at_cut += u64::from(cut.is_some());
            t.block = start;
            t.seq = v.seq + 1;
            t.placed.clone_from(&v.placed);
            let mut plan = VecDeque::new();
            if c.repair && !v.repairs.is_empty() {
                plan.push_back(Phase { writes: v.repairs.clone(), pairs: 0, vouched: false });
            }
            supers(c, &mut plan, v, &t, &log, c.repair && c.repair_flush);
            if !c.repair_flush && plan.len() > 1 && c.repair && !v.repairs.is_empty() {
                let repairs = plan.pop_front().map(|p| p.writes).unwrap_or_default();
                plan[0].writes.extend(repairs);
            }
            t.plan = plan;
            t.log = log;
            mounts.push(t);
        }
        mounts
    }

    /// The mount that drops the log: repair, flush, checkpoint, flush, superblock in two pairs.
    fn combined_mount(&mut self, s: &State, v: &Verdict) -> Vec<State> {
        let c = self.c;
        if !needs_checkpoint(c, v) {
            return vec![];
        }
        let candidates = by_stale_content(c, s, free(c, &v.uses, v.checkpoint));
        let unnamed = candidates.iter().copied().find(|&seg| v.named & (1 << seg) == 0);
        let (settle, target) = match c.target {
            Target::FreeInChosen => (false, candidates.first().copied()),
            Target::Settled => (true, candidates.first().copied()),
            Target::FreeInEveryCopy if unnamed.is_some() => (false, unnamed),
            Target::FreeInEveryCopy => (true, candidates.first().copied()),
        };
        let Some(target) = target else { return vec![] };
        self.report.combined += 1;
        let mut t = s.clone();
        let mut plan = VecDeque::new();
        t.seq = v.seq;
        // A settled superblock keeps the log and vouches for it, so repairs come before it.
        let repair = c.repair && (settle || c.vouch != MountVouch::EvidenceOnly);
        let vouched = c.repair && (settle || c.vouch == MountVouch::RepairFirst);
        if repair && !v.repairs.is_empty() {
            plan.push_back(Phase { writes: v.repairs.clone(), pairs: 0, vouched: false });
        }
        if settle {
            t.seq += 1;
            supers(c, &mut plan, v, &t, &v.uses, vouched);
        }
        if c.serve_first {
            t.placed.clone_from(&v.placed);
            t.log.clone_from(&v.uses);
            (t.cur, t.block) = (count(&t.log), c.geometry.blocks);
            t.plan = plan;
            return vec![t];
        }
        let epoch = t.epoch;
        t.epoch += 1;
        let all = c.vouch != MountVouch::EvidenceOnly;
        let id = intern(Content::Checkpoint(Checkpoint {
            epoch,
            state: v.accepted.clone(),
            durable: if all { v.durable() } else { v.evidence },
            lost: if c.carry_losses { v.lost.clone() } else { vec![] },
        }));
        let copies = [0, 1].map(|zone| (c.geometry.at(zone, target, 0), id));
        match plan.back_mut() {
            Some(last) if c.vouch == MountVouch::WithLast => last.writes.extend(copies),
            _ => plan.push_back(Phase { writes: copies.to_vec(), pairs: 0, vouched }),
        }
        t.checkpoint = Some((target, epoch));
        t.base = v.durable();
        t.placed.clear();
        let log = self.list_after_checkpoint(&mut t, target);
        t.seq += 1;
        let before = plan.len();
        supers(c, &mut plan, v, &t, &log, vouched);
        if !c.mount_checkpoint_flush {
            let own = plan.remove(before - 1).map(|p| p.writes).unwrap_or_default();
            plan[before - 1].writes.extend(own);
        }
        t.plan = plan;
        t.log = log;
        vec![t]
    }

    /// Fresh use (in a freed segment or behind the checkpoint) and reserved use.
    fn list_after_checkpoint(&self, t: &mut State, target: u8) -> Vec<Use> {
        let c = self.c;
        let mut log = vec![];
        let mut free = by_stale_content(c, t, free(c, &[], t.checkpoint)).into_iter();
        let behind = c.behind_checkpoint && c.geometry.blocks > 1;
        let fresh = if behind { Some((target, 1)) } else { free.next().map(|seg| (seg, 0)) };
        let (seg, start) = fresh.expect("a volume has more than one segment");
        list(c, t, &mut log, seg, start);
        (t.cur, t.block) = (0, start);
        let left = free.len();
        if let Some(seg) = free.next()
            && (!c.keep_one_free || left > 1)
        {
            list(c, t, &mut log, seg, 0);
        }
        log
    }
}

/// Whether the mount must write a checkpoint and drop the log.
fn needs_checkpoint(c: &Config, v: &Verdict) -> bool {
    match c.mount_checkpoint {
        MountCheckpoint::Never => false,
        MountCheckpoint::Always => true,
        MountCheckpoint::Needed => {
            v.uses.len() + 2 > c.uses_max || free(c, &v.uses, v.checkpoint).len() < 2
        }
    }
}

/// The place behind the last accepted group, if its use is the last and the segment has room.
fn in_place(c: &Config, v: &Verdict) -> Option<(u8, u8)> {
    let last = v.placed.last()?;
    let u = v.uses.last()?;
    if (last.seg, last.epoch) != (u.seg, u.epoch) {
        return None;
    }
    if v.durable() > lsn(last.id) && !c.in_place_over_loss {
        return None;
    }
    let start = last.block + group(last.id)?.len;
    let start = if c.in_place_behind { start } else { 0 };
    (start < c.geometry.blocks).then_some((u.seg, start))
}

/// The first listed use, if a checkpoint cut it where there is room and nothing lies behind.
fn at_cut(c: &Config, v: &Verdict) -> Option<Use> {
    let nothing = match c.at_cut {
        AtCut::Never => return None,
        AtCut::OverAccepted => true,
        AtCut::OverLoss => v.placed.is_empty(),
        // Neither accepted nor lost: the checkpoint covers all that is accounted for.
        AtCut::NothingBehind | AtCut::OldEpoch | AtCut::SegmentFree => v.durable() == v.base,
    };
    let u = v.first.filter(|_| nothing)?;
    (u.start > 0 && u.start < c.geometry.blocks).then_some(Use { end: 0, ..u })
}

/// Adversarial order: segments that hold stale content first.
fn by_stale_content(c: &Config, s: &State, mut free: Vec<u8>) -> Vec<u8> {
    let held = |seg, b: u8| {
        [0, 1].iter().any(|&zone| s.medium[usize::from(c.geometry.at(zone, seg, b))] != 0)
    };
    let stale = |seg| (0..c.geometry.blocks).filter(|&b| held(seg, b)).count();
    free.sort_by_key(|&seg| std::cmp::Reverse(stale(seg)));
    free
}

fn count(log: &[Use]) -> u8 {
    u8::try_from(log.len()).expect("few uses are listed")
}

fn list(c: &Config, t: &mut State, log: &mut Vec<Use>, seg: u8, start: u8) {
    let epoch = match c.fresh_epoch {
        true => {
            t.epoch += 1;
            t.epoch - 1
        }
        false => 1,
    };
    log.push(Use { seg, epoch, start, end: 0 });
}

/// The update that makes `log` the list: two oldest copies, flush, the other two, flush.
///
/// `vouched`: repairs are durable by then, so what the superblock vouches for has been flushed.
fn supers(
    c: &Config,
    plan: &mut VecDeque<Phase>,
    v: &Verdict,
    t: &State,
    log: &[Use],
    vouched: bool,
) {
    let id = intern(Content::Super(Super {
        seq: t.seq,
        log: log.to_vec(),
        checkpoint: t.checkpoint,
        base: t.base,
        durable: v.durable(),
        salt: t.cuts,
    }));
    let mut order: Vec<u8> = (0..SUPERS).collect();
    if c.super_oldest_first {
        order.sort_by_key(|&copy| v.supers[usize::from(copy)]);
    }
    let phase = |copies: &[u8]| {
        let writes = copies.iter().map(|&b| (b, id)).collect();
        Phase { writes, pairs: 0, vouched }
    };
    if c.super_all_at_once {
        plan.push_back(phase(&order));
        return;
    }
    plan.push_back(phase(&order[..2]));
    if c.super_act_after >= 2 {
        plan.push_back(phase(&order[2..]));
    }
}
