//! The simulator: seeded histories of the journal on a device that crashes, against a model.
//!
//! One seed decides everything: the shape of the volume, what clients do, when the power goes, what
//! the device keeps, which block goes bad. A history is data ([`plan`]), so one that fails is shrunk
//! to the few steps that make it fail ([`shrink`]); the line that is printed repeats those.
//!
//! A crash is a power cut, or the death of the process. What comes back is compared as a whole when a recovery has ended, which
//! may be cut itself. Each power cut is tried with several ends: the history goes on from one, and from others of the same
//! moment, which left other bytes, the volume is recovered, compared and given up.
//!
//! Beside the model of what clients were told, [`judge`] looks at images: what a mount finds in one must be what the table
//! of the recovery model says of its bytes, also where both copies of a group are gone, and then torn must never be called
//! damaged, nor damaged torn where anything intact vouches for it.

pub mod counts;
pub mod judge;
pub mod model;
pub mod plan;
pub mod play;
pub mod shrink;

use counts::Counts;
use journal::{Plant, Plants};
use plan::Plan;
use play::{Broken, JUDGED_EVERY, play_judging};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a history shall do beside cutting the power.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// A rule of the engine that is switched off.
    pub plants: Plants,
    /// Damage at most one block between two checks.
    pub damage: bool,
    /// Let writes and flushes fail.
    pub failures: bool,
    /// Judge one image in so many a second time.
    pub judged_every: u64,
    /// Many keys and large values: the volume is full, and cleaning has work.
    pub heavy: bool,
    /// Copies of each group; where there is one, nothing may be damaged.
    pub copies: u8,
    /// What sets the history apart from others.
    pub twist: Twist,
}

/// What sets a history apart from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Twist {
    /// Nothing.
    None,
    /// Damage comes while the volume runs, too, and mostly is a write that was lost or went astray: the block holds what it
    /// held earlier.
    Lapses,
    /// Nothing but large values, many of them between two crashes.
    Uploads,
    /// The same of values that take more than one call, in a volume whose segments have room for many chunks.
    Large,
    /// The volume is filled to its brim and opened again, and must take deletes then.
    Brim,
}

impl Setup {
    /// Yields what seed `seed` does when nothing is planted: a third of the histories damages blocks, a third
    /// lets requests fail, and of each a quarter fills its volume. A fifth is set apart: most of those lose writes, the rest
    /// is of one copy, of values alone that are uploaded, or of volumes that are full.
    pub fn of_seed(seed: u64) -> Self {
        let plain = Self {
            plants: Plants::default(),
            damage: seed % 3 == 1,
            failures: seed % 3 == 2,
            judged_every: JUDGED_EVERY,
            heavy: seed % 4 == 3,
            copies: 2,
            twist: Twist::None,
        };
        if seed % 5 != 4 {
            return plain;
        }
        let one_copy = |twist| Self { damage: false, copies: 1, twist, ..plain };
        // Those that take long are few; the factor scatters them.
        match seed / 5 * 37 % 256 {
            0 => Self { twist: Twist::Uploads, ..plain },
            1 => one_copy(Twist::Uploads),
            2..14 => Self { twist: Twist::Brim, ..plain },
            14..18 => one_copy(Twist::Brim),
            18..50 => one_copy(Twist::None),
            // Every other one of those.
            50 if (seed / 1280).is_multiple_of(2) => one_copy(Twist::Large),
            _ => Self { damage: true, failures: false, twist: Twist::Lapses, ..plain },
        }
    }

    /// Yields a run with one planted fault and nothing else wrong; where it takes a lost write to tell, or a full volume, there
    /// are those.
    pub fn planted(plant: Plant) -> Self {
        let twist = match plant {
            Plant::CheckTouchesTail | Plant::CutForgotten => Twist::Lapses,
            Plant::UploadsInVain => Twist::Large,
            Plant::DeletesLimited => Twist::Brim,
            _ => Twist::None,
        };
        Self {
            plants: Plants::one(plant),
            damage: twist == Twist::Lapses,
            failures: false,
            judged_every: 0,
            heavy: false,
            copies: if twist == Twist::Large { 1 } else { 2 },
            twist,
        }
    }
}

/// A seed whose history breaks a promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What broke.
    pub broken: Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, broken: Broken { step, what } } = self;
        write!(f, "SIM_SEED={seed} step={step}: {what}")
    }
}

/// Plays the history of one seed.
///
/// # Errors
/// [`Failure`] when the journal breaks a promise.
pub fn run_history(seed: u64, setup: Setup) -> Result<Counts, Failure> {
    let plan = Plan::of_seed(seed, setup);
    play_judging(&plan, setup.plants, setup.judged_every).map_err(|broken| Failure { seed, broken })
}

/// Plays histories from `first_seed` on until `crashes` crashes have been survived, in `threads` threads;
/// `progress` is called with what was counted so far, now and then.
///
/// # Errors
/// The [`Failure`] with the least seed among those that were found before all threads had stopped.
pub fn run(
    first_seed: u64,
    crashes: u64,
    threads: usize,
    setup: impl Fn(u64) -> Setup + Sync,
    progress: impl Fn(&Counts) + Sync,
) -> Result<Counts, Failure> {
    let add = |total: &mut Counts, counts: &Counts| {
        total.add(counts);
        progress(total);
        total.crashes() >= crashes
    };
    over_seeds(first_seed, threads, |seed| run_history(seed, setup(seed)), add)
        .map_err(|(_, failure)| failure)
}

/// Plays the histories of seeds from `first_seed` on, which `threads` threads take in order, until `add` tells that
/// what they counted is enough.
///
/// # Errors
/// What `play` says of the least seed among those that failed before all threads had stopped, and that seed.
pub fn over_seeds<T: Default + Send, E: Send>(
    first_seed: u64,
    threads: usize,
    play: impl Fn(u64) -> Result<T, E> + Sync,
    add: impl Fn(&mut T, &T) -> bool + Sync,
) -> Result<T, (u64, E)> {
    let (next, total) = (AtomicU64::new(first_seed), Mutex::new((T::default(), false)));
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let enough = total.lock().expect("no thread panics with it").1;
            if enough || !failures.lock().expect("no thread panics with it").is_empty() {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            match play(seed) {
                Ok(counts) => {
                    let (total, enough) = &mut *total.lock().expect("no thread panics with it");
                    *enough = add(total, &counts);
                }
                Err(why) => failures.lock().expect("no thread panics with it").push((seed, why)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let failures = failures.into_inner().expect("no thread panics with it");
    match failures.into_iter().min_by_key(|(seed, _)| *seed) {
        Some(failure) => Err(failure),
        None => Ok(total.into_inner().expect("no thread panics with it").0),
    }
}
