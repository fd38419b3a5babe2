//! Explicit-state exploration of writer, device, power cut, fault and recovery.
//!
//! Every interleaving is followed: append, flush (issue and return apart where asked), checkpoint
//! and superblock steps, a cut between any two. At a cut each unflushed block is old, new or does
//! not verify, in all combinations; then come faults, then recovery, whose writes can be cut too.
//! The writer reads nothing back, so a latent fault matters only at the next recovery.

mod cut;
mod mount;
mod promises;
mod writer;

use crate::config::Config;
use crate::disk::{Content, Id, SUPERS, Super, Use, intern, lsn, show};
use crate::recover::Placed;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a run found.
#[derive(Default, Debug)]
pub struct Report {
    /// States followed.
    pub states: u64,
    /// Different images that cuts left.
    pub images: u64,
    /// Verdicts taken.
    pub recoveries: u64,
    /// Verdicts in the documented residual window.
    pub residual: u64,
    /// Refusals to mount.
    pub refused: u64,
    /// Verdicts that report a loss.
    pub losses: u64,
    /// Mounts that found no segment to go on in.
    pub no_place: u64,
    /// Idle states in which no append, reservation or checkpoint can go on for want of segments.
    pub stuck: u64,
    /// Mounts in place, behind the last accepted group.
    pub in_place: u64,
    /// Mounts in place, where a checkpoint cut the log.
    pub at_cut: u64,
    /// Mounts combined with a checkpoint.
    pub combined: u64,
    /// Every reachable state was followed.
    pub complete: bool,
    /// The broken promise, with the trace to it.
    pub violation: Option<(String, Vec<String>)>,
    /// The trace to the first residual case.
    pub residual_trace: Option<Vec<String>>,
}

/// Explores `config` to the end or to the first broken promise.
pub fn explore(config: &Config) -> Report {
    let mut x = Explorer {
        c: config,
        todo: VecDeque::new(),
        seen: HashSet::new(),
        images: HashSet::new(),
        parent: HashMap::new(),
        report: Report::default(),
    };
    x.push(State::formatted(config), 0, || "format".into());
    while let Some((s, h)) = x.take() {
        x.step(&s, h);
        if x.report.violation.is_some() || x.report.states > config.states_max {
            return x.report;
        }
    }
    x.report.complete = true;
    x.report
}

/// A block write that no flush has covered. In limbo: its flush failed, no later one saves it.
#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
struct Write {
    block: u8,
    new: Id,
    limbo: bool,
}

#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
enum Mode {
    Serve,
    Recover,
    Stopped,
}

/// Writes that one flush ends.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
struct Phase {
    writes: Vec<(u8, Id)>,
    /// Superblock pairs it completes (writer).
    pairs: u8,
    /// All that was accepted is durable before it (mount).
    vouched: bool,
}

/// A superblock update of the running writer, with its checkpoint if it has one.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
struct Job {
    phases: VecDeque<Phase>,
    mark: u8,
    log: Vec<Use>,
    checkpoint: Option<(u8, u8)>,
    base: u8,
    done: u8,
    adopted: bool,
}

/// What a verdict would show.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
struct Told {
    accepted: Vec<Id>,
    lost: Vec<(u8, u8)>,
}

#[derive(Clone, Hash, PartialEq, Eq)]
struct State {
    // The device: medium, one older content of each block, unflushed writes, and of each flush
    // that is out the number of writes it covers.
    medium: Vec<Id>,
    old: Vec<Id>,
    pending: Vec<Write>,
    flushes: Vec<u8>,
    // The writer.
    mode: Mode,
    log: Vec<Use>,
    cur: u8,
    block: u8,
    next: u8,
    tag: Id,
    durable: u8,
    seq: u8,
    checkpoint: Option<(u8, u8)>,
    base: u8,
    lost: Vec<(u8, u8)>,
    placed: Vec<Placed>,
    unflushed: Vec<(Id, u8)>,
    job: Option<Job>,
    plan: VecDeque<Phase>,
    verdict: Vec<Id>,
    // Ghosts: what must survive, what may (in this order), highest LSN ever flushed, the previous
    // verdict, the losses that a completed recovery has shown.
    must: Vec<Id>,
    may: Vec<Id>,
    flushed: u8,
    last: Option<Told>,
    shown_lost: Vec<(u8, u8)>,
    // Counters of the bounds.
    epoch: u8,
    cuts: u8,
    faults: u8,
    checkpoints: u8,
    made: u8,
}

struct Explorer<'a> {
    c: &'a Config,
    todo: VecDeque<(State, u128)>,
    seen: HashSet<u128>,
    images: HashSet<u128>,
    parent: HashMap<u128, (u128, String)>,
    report: Report,
}

impl State {
    fn formatted(c: &Config) -> Self {
        let blocks = usize::from(c.geometry.total());
        let open = |seg, epoch| Use { seg, epoch, start: 0, end: 0 };
        let log = vec![open(0, 1), open(1, 2)];
        let first =
            Super { seq: 1, log: log.clone(), checkpoint: None, base: 0, durable: 0, salt: 0 };
        let first = intern(Content::Super(first));
        let mut medium = vec![0; blocks];
        medium[..usize::from(SUPERS)].fill(first);
        Self {
            medium,
            old: vec![0; blocks],
            pending: vec![],
            flushes: vec![],
            mode: Mode::Serve,
            log,
            cur: 0,
            block: 0,
            next: 1,
            tag: 0,
            durable: 0,
            seq: 1,
            checkpoint: None,
            base: 0,
            lost: vec![],
            placed: vec![],
            unflushed: vec![],
            job: None,
            plan: VecDeque::new(),
            verdict: vec![],
            must: vec![],
            may: vec![],
            flushed: 0,
            last: None,
            shown_lost: vec![],
            epoch: 3,
            cuts: 0,
            faults: 0,
            checkpoints: 0,
            made: 0,
        }
    }

    /// Power is gone: only the device and the ghosts stay.
    fn power_off(&mut self) {
        self.flushes.clear();
        self.job = None;
        self.plan.clear();
        self.unflushed.clear();
        self.placed.clear();
        self.verdict.clear();
        self.cuts += 1;
        self.mode = Mode::Recover;
    }

    /// The medium takes `new`; the block's older content is what it held before.
    fn settle(&mut self, block: u8, new: Id, stale: bool) {
        let at = usize::from(block);
        if self.medium[at] != new {
            self.old[at] = if stale { self.medium[at] } else { 0 };
            self.medium[at] = new;
        }
    }

    fn dirty(&self) -> bool {
        self.pending.iter().any(|w| !w.limbo)
    }

    fn issue(&mut self, writes: &[(u8, Id)]) {
        let unflushed = |&(block, new): &(u8, Id)| Write { block, new, limbo: false };
        self.pending.extend(writes.iter().map(unflushed));
    }

    /// Writes that no flush has covered, as a figure for `flushes`.
    fn pending_count(&self) -> u8 {
        u8::try_from(self.pending.len()).expect("bounds keep the cache small")
    }
}

impl Explorer<'_> {
    fn take(&mut self) -> Option<(State, u128)> {
        if self.c.shortest { self.todo.pop_front() } else { self.todo.pop_back() }
    }

    fn push(&mut self, s: State, from: u128, event: impl FnOnce() -> String) {
        let h = hash(&s);
        if !self.seen.insert(h) {
            return;
        }
        self.report.states += 1;
        if self.c.trace {
            self.parent.insert(h, (from, event()));
        }
        self.todo.push_back((s, h));
    }

    fn trace(&self, mut h: u128, tail: [String; 2]) -> Vec<String> {
        let mut trace: Vec<String> = tail.into_iter().rev().collect();
        while let Some((parent, event)) = self.parent.get(&h) {
            trace.push(event.clone());
            h = *parent;
        }
        trace.reverse();
        trace
    }

    fn step(&mut self, s: &State, h: u128) {
        match s.mode {
            Mode::Recover => self.mount_step(s, h),
            Mode::Serve => self.serve_step(s, h),
            Mode::Stopped => {}
        }
        if s.cuts < self.c.cuts {
            self.cut(s, h);
        }
    }

    /// The next write, flush or end of a mount.
    fn mount_step(&mut self, s: &State, h: u128) {
        if s.dirty() {
            self.flush_returns(s, h, s.pending_count());
            return;
        }
        let mut t = s.clone();
        let Some(phase) = t.plan.pop_front() else {
            t.mode = Mode::Serve;
            t.must = std::mem::take(&mut t.verdict);
            t.may.clear();
            t.flushed = t.next - 1;
            t.shown_lost = t.lost.clone();
            t.last = None;
            self.push(t, h, || "serve: the verdict is shown to readers".into());
            return;
        };
        if phase.vouched {
            t.flushed = t.flushed.max(t.next - 1);
        }
        t.issue(&phase.writes);
        self.push(t, h, || format!("recovery writes {}", names_of(self.c, &phase.writes)));
    }

    fn serve_step(&mut self, s: &State, h: u128) {
        let c = self.c;
        self.append(s, h);
        if !c.overlap {
            if s.dirty() {
                self.flush_returns(s, h, s.pending_count());
            }
        } else if s.flushes.len() < c.flushes
            && s.dirty()
            && s.flushes.last() != Some(&s.pending_count())
        {
            let mut t = s.clone();
            t.flushes.push(t.pending_count());
            self.push(t, h, || "flush issued".into());
        }
        for &covered in &s.flushes {
            self.flush_returns(s, h, covered);
        }
        if s.job.is_none() {
            self.start_jobs(s, h);
        }
    }
}

fn hash<T: Hash>(value: &T) -> u128 {
    let half = |key: u64| {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(2))
}

fn names_of(c: &Config, writes: &[(u8, Id)]) -> String {
    let one = |&(b, id): &(u8, Id)| format!("{}={}", c.geometry.name(b), show(id));
    writes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The history that a checkpoint of LSNs up to `durable` stands for.
fn history(s: &State, durable: u8) -> Vec<Id> {
    s.must.iter().chain(&s.may).copied().take_while(|&i| lsn(i) <= durable).collect()
}
