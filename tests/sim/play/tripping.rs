//! The engine trips over a false invariant: it panics, and the process ends.

use super::{Broken, Player, play_by};
use crate::sim::counts::Counts;
use crate::sim::plan::{How, Plan, Step};
use journal::Plants;
use journal::trip::{self, Tripped};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Plays `plan` with an engine that panics behind as many places as `next` says, and then behind as many as it says again, until
/// it says `None`. Of what the engine held nothing reaches the device any more.
///
/// # Errors
/// [`Broken`] when the journal breaks a promise.
pub fn play_tripping(plan: &Plan, mut next: impl FnMut() -> Option<u64>) -> Result<Counts, Broken> {
    let mut left = next();
    play_by(plan, Player::new(plan, Plants::default()), |player, step| {
        let (was_open, recoveries) = (player.open.is_some(), player.counts.recoveries);
        trip::after(left);
        let played = catch_unwind(AssertUnwindSafe(|| player.step(step)));
        left = trip::after(None);
        played.unwrap_or_else(|panic| {
            if !panic.is::<Tripped>() {
                resume_unwind(panic);
            }
            left = next();
            player.tripped(step, was_open || player.counts.recoveries > recoveries)
        })
    })
}

impl Player {
    /// The process has ended in the middle of `step`. One such end in four takes the power along.
    fn tripped(&mut self, step: &Step, at_work: bool) -> Result<(), String> {
        // Where it was open, unwinding has dropped it already.
        self.open = None;
        self.full = false;
        self.counts.panics += 1;
        let how = if step.id.is_multiple_of(4) { How::PowerCut } else { How::ProcessDeath };
        self.ended(how, at_work)
    }
}
