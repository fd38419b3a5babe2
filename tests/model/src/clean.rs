//! Cleaning, one level up: the log is a sequence of records.
//!
//! Its behaviour at a cut, "a prefix that holds everything flushed", is what the rest of the model
//! proves. One key; a segment holds two records.

use std::collections::{HashSet, VecDeque};

/// The clauses of the cleaning rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The victim is freed only after the move record is durable.
    pub free_needs_flush: bool,
    /// A move takes effect only on the version it moved.
    pub conditional: bool,
    /// The victim lies wholly below the checkpoint.
    pub below_base: bool,
    /// A checkpoint counts only what is durable.
    pub checkpoint_needs_flush: bool,
}

/// One question about cleaning.
#[derive(Clone, Copy, Debug)]
pub struct CleaningRun {
    /// `C1`, `C2`: the first word of the title.
    pub name: &'static str,
    /// The name and what is asked.
    pub title: &'static str,
    /// The rule holds; else a counterexample must be found.
    pub holds: bool,
    /// The rule.
    pub rule: Rule,
}

/// What a cleaning run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// States followed.
    pub states: u64,
    /// The broken promise, with the trace to it.
    pub violation: Option<(String, Vec<String>)>,
}

/// All cleaning runs.
pub fn runs() -> Vec<CleaningRun> {
    let good = Rule {
        free_needs_flush: true,
        conditional: true,
        below_base: true,
        checkpoint_needs_flush: true,
    };
    let run = |title: &'static str, rule| CleaningRun {
        name: title.split(' ').next().unwrap_or(title),
        title,
        holds: title.starts_with("C1 "),
        rule,
    };
    vec![
        run("C1 the cleaning rule", good),
        run(
            "C2 victim freed before the move record is durable",
            Rule { free_needs_flush: false, ..good },
        ),
        run("C3 a move replays like a put", Rule { conditional: false, ..good }),
        run(
            "C4 victim inside the replayed log (tombstones dropped)",
            Rule { below_base: false, ..good },
        ),
        run(
            "C5 checkpoint counts unflushed records",
            Rule { checkpoint_needs_flush: false, ..good },
        ),
    ]
}

/// Explores `rule` to the end or to the first broken promise.
pub fn explore(rule: Rule) -> Report {
    let mut seen = HashSet::new();
    let mut todo = VecDeque::from([State::default()]);
    let mut states = 0;
    while let Some(s) = todo.pop_front() {
        if !seen.insert(State { said: vec![], ..s.clone() }) {
            continue;
        }
        states += 1;
        if let Err(broken) = every_cut(&s, rule) {
            return Report { states, violation: Some((broken, s.said)) };
        }
        todo.extend(successors(&s, rule));
    }
    Report { states, violation: None }
}

#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
enum Kind {
    Put,
    Delete,
    Move,
}

#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
struct Record {
    kind: Kind,
    version: u8,
}

/// What the index says of the key; `at` is the record that holds the value.
#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug, Default)]
struct Entry {
    version: u8,
    live: bool,
    at: usize,
}

#[derive(Clone, Hash, PartialEq, Eq, Default)]
struct State {
    log: Vec<Record>,
    durable: usize,
    freed: u8,
    base: usize,
    checkpoint: Entry,
    index: Entry,
    ops: u8,
    checkpoints: u8,
    cleanings: u8,
    moving: Option<(usize, Option<u8>)>,
    waiting: Option<(usize, usize)>,
    said: Vec<String>,
}

impl State {
    fn is_freed(&self, seg: usize) -> bool {
        self.freed & (1 << seg) != 0
    }

    fn say(mut self, said: String) -> Self {
        self.said.push(said);
        self
    }
}

const RECORDS_PER_SEGMENT: usize = 2;
const OPS_MAX: u8 = 5;
const CHECKPOINTS_MAX: u8 = 2;
const CLEANINGS_MAX: u8 = 2;

fn seg(record: usize) -> usize {
    record / RECORDS_PER_SEGMENT
}

fn apply(e: &mut Entry, r: Record, at: usize, rule: Rule) {
    let version = r.version;
    match r.kind {
        Kind::Put => *e = Entry { version, live: true, at },
        Kind::Delete => *e = Entry { version, live: false, at },
        Kind::Move if !rule.conditional || (e.live && e.version == version) => {
            *e = Entry { version, live: true, at };
        }
        Kind::Move => {}
    }
}

/// The key's true version, and whether it is there.
fn truth(log: &[Record]) -> (u8, bool) {
    let last = log.iter().rfind(|r| r.kind != Kind::Move);
    last.map_or((0, false), |r| (r.version, r.kind == Kind::Put))
}

/// Every cut: the log survives up to any point at or past what was flushed.
fn every_cut(s: &State, rule: Rule) -> Result<(), String> {
    for kept in s.durable.max(s.base.min(s.log.len()))..=s.log.len() {
        let mut e = s.checkpoint;
        for i in (s.base..kept).filter(|&i| !s.is_freed(seg(i))) {
            apply(&mut e, s.log[i], i, rule);
        }
        let (version, live) = truth(&s.log[..kept]);
        if live != e.live || (live && version != e.version) {
            let word = |live| if live { "live" } else { "absent" };
            return Err(format!(
                "cut keeping {kept} records: key is {} v{}, must be {} v{version}",
                word(e.live),
                e.version,
                word(live)
            ));
        }
        if live && s.is_freed(seg(e.at)) {
            let at = seg(e.at);
            return Err(format!("cut keeping {kept} records: v{version} is in freed segment {at}"));
        }
    }
    // A checkpoint not covered by a flush may outlive the records it counts.
    let e = s.checkpoint;
    if s.base > s.durable
        && truth(&s.log[..s.durable]) != (e.version, e.live)
        && e.live
        && e.at >= s.durable
    {
        let (kept, at) = (s.durable, e.at);
        return Err(format!("cut keeping {kept} records: the index names record {at}, gone"));
    }
    Ok(())
}

fn successors(s: &State, rule: Rule) -> Vec<State> {
    let mut next = vec![];
    if s.ops < OPS_MAX {
        for kind in [Kind::Put, Kind::Delete] {
            let mut t = s.clone();
            t.ops += 1;
            let record = Record { kind, version: t.ops };
            let at = t.log.len();
            apply(&mut t.index, record, at, rule);
            t.log.push(record);
            let segment = seg(at);
            next.push(t.say(format!(
                "client {kind:?} v{} -> record {at} (segment {segment})",
                record.version
            )));
        }
    }
    if s.durable < s.log.len() {
        let mut t = s.clone();
        t.durable = t.log.len();
        next.push(t.say("flush".into()));
    }
    let flushed = s.durable == s.log.len() || !rule.checkpoint_needs_flush;
    if s.checkpoints < CHECKPOINTS_MAX && s.base < s.log.len() && flushed {
        let mut t = s.clone();
        t.checkpoints += 1;
        t.base = t.log.len();
        t.checkpoint = t.index;
        next.push(t.say(format!("checkpoint covers records below {}", s.log.len())));
    }
    next.extend(cleaning_steps(s, rule));
    next
}

fn cleaning_steps(s: &State, rule: Rule) -> Vec<State> {
    let mut next = vec![];
    if s.cleanings < CLEANINGS_MAX && s.moving.is_none() && s.waiting.is_none() {
        for victim in 0..seg(s.log.len()) {
            let above = (victim + 1) * RECORDS_PER_SEGMENT > s.base;
            if s.is_freed(victim) || (rule.below_base && above) {
                continue;
            }
            let mut t = s.clone();
            t.cleanings += 1;
            let here = t.index.live && seg(t.index.at) == victim;
            let live = here.then_some(t.index.version);
            t.moving = Some((victim, live));
            next.push(t.say(format!("cleaning of segment {victim} begins, live: {live:?}")));
        }
    }
    if let Some((victim, live)) = s.moving {
        let mut t = s.clone();
        t.moving = None;
        if let Some(version) = live {
            let record = Record { kind: Kind::Move, version };
            let at = t.log.len();
            apply(&mut t.index, record, at, rule);
            t.log.push(record);
        }
        t.waiting = Some((victim, t.log.len()));
        next.push(t.say(format!("move record {live:?} appended")));
    }
    if let Some((victim, need)) = s.waiting
        && (s.durable >= need || !rule.free_needs_flush)
    {
        let mut t = s.clone();
        t.waiting = None;
        t.freed |= 1 << victim;
        next.push(t.say(format!("segment {victim} freed")));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cleaning_rule_holds_and_every_weakening_fails() {
        for run in runs() {
            let report = explore(run.rule);
            assert_eq!(report.violation.is_none(), run.holds, "{}: {report:?}", run.title);
        }
    }
}
