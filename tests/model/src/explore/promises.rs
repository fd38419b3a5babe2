//! The promises S1 to S10, asserted on every verdict.

use super::State;
use crate::config::Config;
use crate::disk::{Id, evidence, lsn, show};
use crate::recover::{Verdict, whole};

/// How a verdict stands to the promises it did not break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    /// All are kept.
    Fully,
    /// The documented residual: two faults took the last flush's group and nothing tells.
    Residual,
}

/// Judges `v`, the verdict on `image`.
pub(super) fn check(c: &Config, s: &State, image: &[Id], v: &Verdict) -> Result<Kept, String> {
    if let Some(why) = v.refused {
        return match s.faults {
            0 | 1 => Err(format!("S1: {why} with {} fault(s)", s.faults)),
            _ => Ok(Kept::Fully),
        };
    }
    let all: Vec<Id> = s.must.iter().chain(&s.may).copied().collect();
    let mut at = 0;
    // What was read in no copy once, and was reported as lost, may be read again: it is lost no more.
    let was_lost = |id: &Id| s.shown_lost.iter().any(|&(a, b)| (a..=b).contains(&lsn(*id)));
    for id in v.accepted.iter().filter(|id| !was_lost(id)) {
        match all[at..].iter().position(|a| a == id) {
            Some(p) => at += p + 1,
            None => {
                let who = show(*id);
                return Err(format!("S3: {who} accepted, but discarded before or never written"));
            }
        }
    }
    for &(a, b) in &v.lost {
        if b > s.flushed {
            let top = s.flushed;
            return Err(format!(
                "S2: DataLoss reported for LSN {a}..{b}, flushed only up to {top}"
            ));
        }
    }
    let in_lost = |l: u8| v.lost.iter().any(|&(a, b)| a <= l && l <= b);
    let is_back = |l: u8| v.accepted.iter().any(|&id| lsn(id) == l);
    let reported = s.shown_lost.iter().flat_map(|&(a, b)| a..=b);
    if let Some(l) = reported.into_iter().find(|&l| !in_lost(l) && !is_back(l)) {
        return Err(format!("S2: the loss of LSN {l} was reported and is forgotten"));
    }
    let mut intact = None;
    for &m in s.must.iter().filter(|m| !v.accepted.contains(m)) {
        let lost = in_lost(lsn(m));
        let intact = intact.get_or_insert_with(|| whole(image, c));
        let all_are = s.must.iter().all(|one| v.accepted.contains(one) || intact.contains(one));
        if s.faults > 1 && !lost && all_are {
            return Err(format!("S10: {} is whole, now called torn", show(m)));
        }
        if s.faults <= 1 {
            let now = if lost { "DataLoss" } else { "called torn" };
            return Err(format!("S1/S4: {} was acknowledged or shown, now {now}", show(m)));
        }
        if lost {
            continue;
        }
        if image.iter().any(|&i| evidence(i) >= lsn(m)) {
            let who = show(m);
            return Err(format!("S8: {who} called torn though evidence exists on the medium"));
        }
        return Ok(Kept::Residual);
    }
    if s.faults <= 1 && !v.lost.is_empty() {
        return Err(format!("S2: DataLoss {:?} with {} fault(s)", v.lost, s.faults));
    }
    if s.faults <= 1 && v.accepted[..] != all[..v.accepted.len()] {
        return Err("S3: accepted history is not a prefix".into());
    }
    same(c, s, v)
}

fn same(c: &Config, s: &State, v: &Verdict) -> Result<Kept, String> {
    if let Some(last) = &s.last
        && c.check_same
        && (&last.accepted, &last.lost) != (&v.accepted, &v.lost)
    {
        let (was, now, before, after) = (&last.accepted, &v.accepted, &last.lost, &v.lost);
        return Err(format!(
            "S3: not idempotent, was {was:?} now {now:?}, DataLoss {before:?} then {after:?}"
        ));
    }
    Ok(Kept::Fully)
}
