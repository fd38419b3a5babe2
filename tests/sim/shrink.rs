//! From a history that fails to the fewest steps that still do, and how those are told.

use super::Failure;
use super::plan::{Action, CHANGES_MAX, Plan, Step};
use super::play::{Broken, play_judging};
use journal::Plants;
use std::fmt::Write as _;
use std::ops::Range;

/// Steps that are played, over all tries, before a shorter plan counts as one that does not fail: long plans are
/// tried with few chances of the device, short ones with many.
const STEPS_TRIED: usize = 2000;
/// Most tries of one plan.
const TRIES_MAX: usize = 200;
/// Turns and steps that all tries may take: what is left of a plan that takes long, large values for the most part, is told
/// then. Others come to their end.
const TURNS_MAX: usize = 50_000_000;

/// Yields the shortest plan that is found to fail, and how it fails; every image is judged a second time, or none.
///
/// Delta debugging: pieces of the plan are taken away as long as what is left fails, first large ones, then
/// single steps; then changes of batches, turns and bad blocks. What fails may be another promise than at first.
pub fn shrink(plan: &Plan, plants: Plants, judges: bool) -> Option<(Plan, Broken)> {
    let judged_every = judges.into();
    let broken = play_judging(plan, plants, judged_every).err()?;
    let (best, left) = (plan.clone(), TURNS_MAX);
    let mut shrinking = Shrinking { best, broken, plants, judged_every, left };
    // Nothing behind the step that failed is needed.
    let behind = shrinking.best.steps.iter().position(|step| step.id == shrinking.broken.step);
    shrinking.keep(|steps| steps.truncate(behind.map_or(usize::MAX, |at| at + 1)));
    loop {
        let before = (shrinking.best.clone(), weight(&shrinking.best));
        shrinking.fewer_steps();
        shrinking.smaller_steps();
        if weight(&shrinking.best) >= before.1 {
            return Some((shrinking.best, shrinking.broken));
        }
    }
}

/// What shrinking makes less of.
fn weight(plan: &Plan) -> usize {
    plan.steps.iter().map(|step| 1000 + 10 * parts(&step.action) + usize::from(step.turns)).sum()
}

fn parts(action: &Action) -> usize {
    match action {
        Action::Commit { changes, .. } => changes.iter().flatten().count(),
        Action::Crash { harm, recovery, .. } => {
            usize::from(harm.is_some()) + usize::from(*recovery > 0)
        }
        _ => 0,
    }
}

struct Shrinking {
    best: Plan,
    broken: Broken,
    plants: Plants,
    judged_every: u64,
    /// Turns and steps that tries may still take.
    left: usize,
}

impl Shrinking {
    /// Keeps a changed plan if it fails, with the chances of the plan so far or with others.
    fn keep(&mut self, change: impl FnOnce(&mut Vec<Step>)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan.steps);
        if plan.steps == self.best.steps {
            return false;
        }
        let turns: usize = plan.steps.iter().map(|step| 1 + usize::from(step.turns)).sum();
        let tries = (STEPS_TRIED / plan.steps.len().max(1)).clamp(4, TRIES_MAX);
        for salt in 0..tries as u64 {
            let Some(left) = self.left.checked_sub(turns) else { return false };
            self.left = left;
            plan.seed = self.best.seed.wrapping_add(salt);
            if let Err(broken) = play_judging(&plan, self.plants, self.judged_every) {
                (self.best, self.broken) = (plan, broken);
                return true;
            }
        }
        false
    }

    fn fewer_steps(&mut self) {
        let count = |this: &Self| this.best.steps.len();
        pieces(self, count, |this, piece| {
            if this.keep(|steps| drop(steps.drain(piece.clone()))) {
                return;
            }
            // Perhaps nothing but its turns are of use.
            this.keep(|steps| {
                let taken = steps.drain(piece.clone()).map(|step| step.turns);
                let turns = taken.fold(0, u16::saturating_add);
                let before = piece.start.checked_sub(1).and_then(|at| steps.get_mut(at));
                if let Some(before) = before {
                    before.turns = before.turns.saturating_add(turns);
                }
            });
        });
    }

    fn smaller_steps(&mut self) {
        for at in 0..self.best.steps.len() {
            for change in 0..CHANGES_MAX {
                self.keep(|steps| {
                    if let Action::Commit { changes, .. } = &mut steps[at].action
                        && changes.iter().flatten().count() > 1
                    {
                        changes[change] = None;
                    }
                });
            }
            self.keep(|steps| {
                if let Action::Crash { harm, .. } = &mut steps[at].action {
                    *harm = None;
                }
            });
            for turns in [0, 1, 2, self.best.steps[at].turns / 2] {
                let fewer = turns < self.best.steps[at].turns;
                if fewer && self.keep(|steps| steps[at].turns = turns) {
                    break;
                }
            }
            self.keep(|steps| {
                if let Action::Crash { recovery, .. } = &mut steps[at].action {
                    *recovery = 0;
                }
            });
        }
    }
}

/// Offers the pieces of what is made less of, for `take` to leave out where what is left still fails: first halves,
/// then ever smaller ones.
pub fn pieces<T>(
    of: &mut T,
    count: impl Fn(&T) -> usize,
    mut take: impl FnMut(&mut T, Range<usize>),
) {
    let mut size = count(of).div_ceil(2);
    while size > 0 {
        // From the end, where what happens is most likely to be of no use.
        let mut end = count(of);
        while end > 0 {
            let start = end.saturating_sub(size);
            take(of, start..end);
            end = start.min(count(of));
        }
        size /= 2;
    }
}

/// Which steps of a seed's plan are left, and what of them: the word that `--keep` takes.
///
/// `17:4` is step 17 with 4 turns, `17.5:4` the same with the first and third change of its batch alone, `20.0` a
/// crash without its bad block; `/2` says how far the crash's recovery gets.
pub fn keep_word(whole: &Plan, kept: &Plan) -> String {
    let mut word = String::new();
    for step in &kept.steps {
        let comma = if word.is_empty() { "" } else { "," };
        let _ = write!(word, "{comma}{}", step.id);
        let before = whole.steps.iter().find(|before| before.id == step.id).copied();
        let before = before.unwrap_or(*step);
        if mask(&before.action) != mask(&step.action) {
            let _ = write!(word, ".{}", mask(&step.action));
        }
        if let (Action::Crash { recovery: was, .. }, Action::Crash { recovery, .. }) =
            (before.action, step.action)
            && was != recovery
        {
            let _ = write!(word, "/{recovery}");
        }
        if before.turns != step.turns {
            let _ = write!(word, ":{}", step.turns);
        }
    }
    word
}

/// Takes away what a word does not keep.
///
/// # Errors
/// A part of the word is no number, or names no step.
pub fn keep(whole: &Plan, word: &str) -> Result<Plan, String> {
    let mut steps = Vec::new();
    for part in word.split(',') {
        let number =
            |text: &str| text.parse::<u16>().map_err(|_| format!("{part}: {text} is no number"));
        let (rest, turns) = part.split_once(':').map_or((part, None), |(a, b)| (a, Some(b)));
        let (rest, recovery) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
        let (id, bits) = rest.split_once('.').map_or((rest, None), |(a, b)| (a, Some(b)));
        let id = u32::from(number(id)?);
        let step = whole.steps.iter().find(|step| step.id == id);
        let mut step = *step.ok_or_else(|| format!("{part}: there is no step {id}"))?;
        if let Some(turns) = turns {
            step.turns = number(turns)?;
        }
        let bits = bits.map(number).transpose()?;
        let recovery_new = recovery.map(number).transpose()?;
        match &mut step.action {
            Action::Commit { changes, .. } => {
                for (at, change) in changes.iter_mut().enumerate() {
                    *change = change.take_if(|_| bits.is_none_or(|bits| bits >> at & 1 == 1));
                }
            }
            Action::Crash { harm, recovery, .. } => {
                *harm = harm.take_if(|_| bits.is_none_or(|bits| bits > 0));
                *recovery = recovery_new.unwrap_or(*recovery);
            }
            _ => {}
        }
        steps.push(step);
    }
    Ok(Plan { steps, ..whole.clone() })
}

fn mask(action: &Action) -> u8 {
    match action {
        Action::Commit { changes, .. } => {
            changes.iter().enumerate().map(|(at, change)| u8::from(change.is_some()) << at).sum()
        }
        Action::Crash { harm, .. } => u8::from(harm.is_some()),
        _ => 0,
    }
}

/// Tells a plan as a named test, to be pasted into `tests/sim/main.rs`.
pub fn as_test(plan: &Plan, failure: &Failure) -> String {
    let mut code = format!(
        "/// {}\n///\n/// What was lost, what reached the medium, why the fix holds: tell it here.\n\
         #[test]\nfn name_it_after_what_was_lost() {{\n    holds(&Plan {{\n        seed: {},\n        \
         shape: {:?},\n        steps: vec![\n",
        failure.broken.what, plan.seed, plan.shape
    );
    for step in &plan.steps {
        let _ = writeln!(code, "            {step:?},");
    }
    code.push_str("        ],\n    });\n}\n");
    // What `Debug` leaves out.
    for name in
        ["Commit", "Upload", "Sync", "Get", "Wait", "Check", "Harm", "Delete", "Fail", "Crash"]
    {
        code = code.replace(&format!("action: {name}"), &format!("action: Action::{name}"));
    }
    code
}
