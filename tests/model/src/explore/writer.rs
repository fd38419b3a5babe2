//! The running writer: groups, flushes, superblock updates, checkpoints.

use super::{Explorer, Job, Mode, Phase, State, history};
use crate::config::Config;
use crate::disk::{
    Checkpoint, Content, Group, Id, Super, Use, evidence, group, intern, lsn, part, show, show_log,
};
use crate::recover::Placed;
use std::collections::VecDeque;

impl Explorer<'_> {
    pub(super) fn append(&mut self, s: &State, h: u128) {
        let c = self.c;
        let limit = if s.cuts == 0 { c.groups } else { c.groups_later };
        if s.made >= limit
            || s.unflushed.len() >= c.inflight
            || (!c.overlap_build && !s.flushes.is_empty())
        {
            return;
        }
        for len in 1..=c.len_max {
            let mut t = s.clone();
            if t.block + len > c.geometry.blocks {
                let Some(next) = t.log.get(usize::from(t.cur) + 1) else {
                    continue;
                };
                t.block = next.start;
                t.cur += 1;
                if t.block + len > c.geometry.blocks {
                    continue;
                }
            }
            let id = append_group(c, &mut t, len);
            let (seg, at) = (t.log[usize::from(t.cur)].seg, t.block - len);
            self.push(t, h, || format!("write {} to A{seg}.{at} and B{seg}.{at}", show(id)));
        }
    }

    /// A flush that covers the first `covered` writes returns (or, where asked for, fails).
    pub(super) fn flush_returns(&mut self, s: &State, h: u128, covered: u8) {
        let c = self.c;
        let mut t = s.clone();
        let claimed = match s.flushes.last() {
            Some(&newest) if c.newest_flush => newest,
            _ => covered,
        };
        t.pending.clear();
        for (i, w) in s.pending.iter().enumerate() {
            if i < usize::from(covered) && !w.limbo {
                t.settle(w.block, w.new, c.stale);
            } else {
                t.pending.push(*w);
            }
        }
        let gone = s.pending_count() - t.pending_count();
        t.flushes.retain(|&f| f != covered);
        for f in &mut t.flushes {
            *f = f.saturating_sub(gone);
        }
        t.flushes.retain(|&f| f > 0);
        if s.mode == Mode::Recover {
            self.push(t, h, || "flush returns".into());
            return;
        }
        let acked = acknowledge(c, &mut t, claimed, gone);
        if let Some(job) = &mut t.job {
            if job.mark <= covered {
                job.done += job.phases.pop_front().map_or(0, |p| p.pairs);
                advance(&mut t, c.super_act_after);
            } else {
                job.mark -= gone;
            }
        }
        self.push(t, h, || format!("flush returns; acknowledged {acked:?}"));
        if c.flush_fails {
            let mut t = s.clone();
            for w in &mut t.pending[..usize::from(covered)] {
                w.limbo = true;
            }
            t.flushes.clear();
            if !c.go_on_after_failure {
                t.mode = Mode::Stopped;
                t.job = None;
            }
            self.push(t, h, || "flush FAILS".into());
        }
    }

    pub(super) fn start_jobs(&mut self, s: &State, h: u128) {
        let reserved = self.reserve(s);
        if let Some((t, seg)) = &reserved {
            self.push(t.clone(), h, || format!("superblock update begins: reserve segment {seg}"));
        }
        let c = self.c;
        if s.durable > s.base
            && s.made > 0
            && let Some(t) = self.checkpoint(s)
        {
            // A mount that serves first owes a checkpoint: it has no open use.
            let owed = s.log.get(usize::from(s.cur)).is_none();
            if s.checkpoints < c.checkpoints || owed {
                let log = show_log(&t.job.as_ref().expect("just begun").log);
                let base = s.durable;
                self.push(t, h, || format!("checkpoint of LSN<={base} begins; log then {log}"));
            }
        } else if c.keep_one_free && s.pending.is_empty() && s.durable + 1 == s.next {
            let last = usize::from(s.cur) + 1 == s.log.len();
            if reserved.is_none() && last && s.block >= c.geometry.blocks {
                self.report.stuck += 1;
            }
        }
    }

    /// Reserves a next use, if there is none and the rule lets it.
    fn reserve(&self, s: &State) -> Option<(State, u8)> {
        let c = self.c;
        let last = usize::from(s.cur) + 1 >= s.log.len();
        if !last || (s.block < c.geometry.blocks && !c.reserve_ahead) || s.log.len() >= c.uses_max {
            return None;
        }
        let free = free(c, &s.log, s.checkpoint);
        if c.keep_one_free && c.reserve_leaves_free && free.len() < 2 {
            return None;
        }
        let &seg = free.last()?;
        let mut t = s.clone();
        let mut log = t.log.clone();
        log.push(Use { seg, epoch: t.epoch, start: 0, end: 0 });
        t.epoch += 1;
        begin(c, &mut t, None, log, s.checkpoint, s.base);
        Some((t, seg))
    }

    /// Begins a checkpoint of all that is durable, if the rule lets it.
    fn checkpoint(&self, s: &State) -> Option<State> {
        let c = self.c;
        let &seg = free(c, &s.log, s.checkpoint).last()?;
        let mut t = s.clone();
        t.checkpoints += 1;
        let epoch = t.epoch;
        t.epoch += 1;
        let id = intern(Content::Checkpoint(Checkpoint {
            epoch,
            state: history(&t, t.durable),
            durable: t.durable,
            lost: if c.carry_losses { t.lost.clone() } else { vec![] },
        }));
        let mut log = uncovered(c, &t);
        let whole = log.len() == 1 && log[0].start >= c.geometry.blocks;
        if c.free_and_reserve && c.keep_one_free && whole {
            log.clear(); // a full use, covered to its end
        }
        if (c.free_and_reserve && log.len() < 2) || log.is_empty() {
            let next = if c.behind_checkpoint && c.geometry.blocks > 1 {
                Some((seg, 1))
            } else {
                let listed = |u: &Use| log.iter().any(|w| w.seg == u.seg);
                t.log.iter().find(|u| !listed(u)).map(|u| (u.seg, 0))
            };
            if let Some((seg, start)) = next {
                log.push(Use { seg, epoch: t.epoch, start, end: 0 });
                t.epoch += 1;
            }
        }
        if log.is_empty()
            || (c.keep_one_free
                && c.checkpoint_leaves_free
                && free(c, &log, Some((seg, epoch))).is_empty())
        {
            return None;
        }
        let writes = [0, 1].map(|zone| (c.geometry.at(zone, seg, 0), id)).to_vec();
        let base = t.durable;
        begin(c, &mut t, Some(writes), log, Some((seg, epoch)), base);
        Some(t)
    }
}

/// Segments that neither a listed use nor the checkpoint lies in, ascending.
pub(super) fn free(c: &Config, log: &[Use], checkpoint: Option<(u8, u8)>) -> Vec<u8> {
    let counts = |u: &Use| c.free_by_segment || u.start == 0;
    let used = |seg| {
        log.iter().any(|u| u.seg == seg && counts(u)) || checkpoint.is_some_and(|k| k.0 == seg)
    };
    (0..c.geometry.segs).filter(|&seg| !used(seg)).collect()
}

fn append_group(c: &Config, t: &mut State, len: u8) -> Id {
    let u = t.log[usize::from(t.cur)];
    assert!(u.end == 0, "a closed use takes no group");
    let g = Group {
        epoch: if c.use_epoch { u.epoch } else { 0 },
        lsn: t.next,
        prev: t.tag,
        durable: t.durable,
        payload: if c.retry { 0 } else { t.cuts },
        len,
        part: 0,
        zone: 0,
    };
    let id = intern(Content::Group(g.clone()));
    for zone in 0..c.copies {
        for p in 0..len {
            let copy = part(&g, p, if c.zone_in_tag { zone + 1 } else { 0 });
            t.issue(&[(c.geometry.at(zone, u.seg, t.block + p), copy)]);
        }
    }
    t.placed.push(Placed { id, seg: u.seg, epoch: u.epoch, block: t.block });
    t.unflushed.push((id, t.pending_count()));
    t.may.push(id);
    t.tag = id;
    t.next += 1;
    t.block += len;
    t.made += 1;
    id
}

/// The groups among the first `claimed` writes are durable. Strict: a group is acknowledged only
/// when a flushed structure vouches for it.
fn acknowledge(c: &Config, t: &mut State, claimed: u8, gone: u8) -> Vec<u8> {
    let count = t.unflushed.iter().take_while(|u| u.1 <= claimed).count();
    let done: Vec<Id> = t.unflushed.drain(..count).map(|u| u.0).collect();
    for u in &mut t.unflushed {
        u.1 = u.1.saturating_sub(gone);
    }
    if let Some(&last) = done.last() {
        t.flushed = t.flushed.max(lsn(last));
        t.durable = lsn(last);
    }
    if c.sloppy_durable {
        t.durable = t.next - 1;
    }
    let vouched = if c.strict {
        let witnesses = done.iter().chain(&t.medium[..4]);
        witnesses.map(|&i| evidence(i)).max().unwrap_or(0)
    } else {
        t.durable
    };
    let mut acked = vec![];
    while t.may.first().is_some_and(|&i| lsn(i) <= vouched) {
        let id = t.may.remove(0);
        acked.push(lsn(id));
        t.must.push(id);
    }
    acked
}

/// The uses that a checkpoint of all that is durable leaves in the log, from behind it on.
///
/// The use in which the last durable group lies stays as long as a block of it is left, even where
/// the writer has moved on from it: the next use may hold nothing that a recovery accepts.
fn uncovered(c: &Config, t: &State) -> Vec<Use> {
    let cur = usize::from(t.cur);
    let durable = t.placed.iter().find(|p| lsn(p.id) == t.durable);
    let behind = |p: &Placed| p.block + group(p.id).map_or(0, |g| g.len);
    let mut log = vec![];
    for (i, u) in t.log.iter().enumerate() {
        let own = |p: &&Placed| p.seg == u.seg && p.epoch == u.epoch && lsn(p.id) > t.durable;
        let start = match t.placed.iter().find(own) {
            Some(p) => p.block,
            None if i == cur => t.block,
            None if i > cur => u.start,
            None => match durable.filter(|p| (p.seg, p.epoch) == (u.seg, u.epoch)).map(behind) {
                Some(start) if u.end == 0 && start < c.geometry.blocks => start,
                _ => continue,
            },
        };
        log.push(Use { start, ..*u });
    }
    log
}

/// Begins a superblock update; each phase ends with a flush.
fn begin(
    c: &Config,
    t: &mut State,
    first: Option<Vec<(u8, Id)>>,
    log: Vec<Use>,
    checkpoint: Option<(u8, u8)>,
    base: u8,
) {
    t.seq += 1;
    let (seq, durable) = (t.seq, t.durable);
    let update = Super { seq, log: log.clone(), checkpoint, base, durable, salt: 0 };
    let id = intern(Content::Super(update));
    let phase = |writes, pairs| Phase { writes, pairs, vouched: false };
    let copies = |from: u8, to: u8| (from..to).map(|b| (b, id)).collect::<Vec<_>>();
    let mut phases: VecDeque<Phase> = first.into_iter().map(|w| phase(w, 0)).collect();
    if c.super_all_at_once {
        phases.push_back(phase(copies(0, 4), 2));
    } else {
        phases.push_back(phase(copies(0, 2), 1));
        phases.push_back(phase(copies(2, 4), 1));
    }
    if c.checkpoint_unflushed && phases.len() == 3 {
        let own = phases.pop_front().map(|p| p.writes).unwrap_or_default();
        phases[0].writes.splice(0..0, own);
    }
    t.job = Some(Job { phases, mark: 0, log, checkpoint, base, done: 0, adopted: false });
    advance(t, c.super_act_after);
}

/// Issues the next phase; switches to the new list once enough pairs are durable.
fn advance(t: &mut State, act_after: u8) {
    let Some(mut job) = t.job.take() else { return };
    if job.done >= act_after && !job.adopted {
        job.adopted = true;
        adopt(t, &job);
    }
    if let Some(phase) = job.phases.front() {
        t.issue(&phase.writes);
        job.mark = t.pending_count();
        t.job = Some(job);
    }
}

fn adopt(t: &mut State, job: &Job) {
    let cur = t.log.get(usize::from(t.cur)).copied();
    let is_cur = |u: &Use| cur.is_some_and(|c| (c.seg, c.epoch) == (u.seg, u.epoch));
    (t.checkpoint, t.base) = (job.checkpoint, job.base);
    t.log.clone_from(&job.log);
    if let Some(at) = t.log.iter().position(is_cur) {
        t.cur = u8::try_from(at).expect("few uses are listed");
    } else {
        // The current use was dropped, or a mount left none: go on in the first open one.
        let at = t.log.iter().position(|u| u.end == 0).expect("an update lists an open use");
        (t.cur, t.block) = (u8::try_from(at).expect("few uses are listed"), t.log[at].start);
    }
    let (log, base) = (&t.log, t.base);
    let listed = |p: &Placed| log.iter().any(|u| u.seg == p.seg && u.epoch == p.epoch);
    t.placed.retain(|p| listed(p) && lsn(p.id) > base);
}
