//! The simulator: seeded histories of the journal on a device that crashes, against a model.
//!
//! One seed decides everything: the shape of the volume, what clients do, when the power goes, what
//! the device keeps, which block is damaged. A failure is a seed; the line that is printed repeats it.

mod history;
mod model;
mod world;

pub use history::{Crashes, Failure, run_history};
use journal::{Plant, Plants};

/// What a run shall do beside cutting the power.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// A rule of the engine that is switched off.
    pub plants: Plants,
    /// Damage at most one block between two mounts.
    pub damage: bool,
    /// Let writes and flushes fail.
    pub failures: bool,
    /// Many keys and large values: the volume fills up, and cleaning has work.
    pub heavy: bool,
}

impl Setup {
    /// Yields what seed `seed` does when nothing is planted.
    pub fn of_seed(seed: u64) -> Self {
        Self {
            plants: Plants::default(),
            damage: seed % 3 == 1,
            failures: seed % 3 == 2,
            heavy: seed % 4 == 3,
        }
    }

    /// Yields a run with one planted fault and nothing else wrong.
    pub fn planted(plant: Plant) -> Self {
        Self { plants: Plants::one(plant), damage: false, failures: false, heavy: false }
    }
}

/// Runs histories from `first_seed` on until `crashes` crashes have been survived.
///
/// # Errors
/// The first [`Failure`].
pub fn run(
    first_seed: u64,
    crashes: u64,
    setup: impl Fn(u64) -> Setup,
) -> Result<Crashes, Failure> {
    let mut total = Crashes::default();
    let mut seed = first_seed;
    while total.all() < crashes {
        total.add(run_history(seed, setup(seed))?);
        seed += 1;
    }
    Ok(total)
}
