//! The suite of faults as a program: all of it, optimised.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use journal::{Plant, Plants};
use tests::faults::histories::{Bounds, Histories, histories};
use tests::faults::plants::{CHECKS, caught_by};
use tests::faults::rich::{Age, Rich, rich};
use tests::faults::{astray, pairs, repairs, singles};

const HELP: &str = "\
Usage: faults [PART]...

Without a PART, all but the last:
  traces     the counterexamples of the recovery model, and what goes with them
  plants     each planted fault against the check that must notice it
  flips      every bit of a small volume flipped
  blocks     every block damaged in every way, and replaced by every other
  pairs      every pair of blocks damaged
  repairs    many faults at once, and what a repair makes of them
  astray     every write at every other block, every read from every other block, every flush not done
  short      every cut of every history of up to three operations; of those of up to two each recovery is cut again at
             every write, and of those of one the recovery of that
  histories  the same of up to five operations, and of all of them each recovery is cut again, and the recovery of that;
             about an hour of processor time
";

/// What the test command takes.
const SHORT: Bounds = Bounds { letters: 3, nested: 2, twice: 1, placed: 3 };
/// All.
const LONG: Bounds = Bounds { letters: 5, nested: 5, twice: 5, placed: 3 };

/// One part of the suite.
type Part = (&'static str, fn() -> Result<String, String>);

/// The part that is long enough to be asked for.
const LAST: &str = "histories";

const PARTS: &[Part] = &[
    ("traces", traces),
    ("plants", plants),
    ("flips", flips),
    ("blocks", blocks),
    ("pairs", every_pair),
    ("repairs", many_repairs),
    ("astray", all_astray),
    ("short", || every_history(SHORT)),
    (LAST, || every_history(LONG)),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| PARTS.iter().all(|(name, _)| name != word)) {
        eprint!("{HELP}");
        return ExitCode::from(2);
    }
    for (name, part) in PARTS {
        let wanted = words.iter().any(|word| word == name) || (words.is_empty() && *name != LAST);
        if !wanted {
            continue;
        }
        let start = Instant::now();
        match part() {
            Ok(found) => println!("{name}: {found} ({:.1} s)", start.elapsed().as_secs_f64()),
            Err(what) => {
                println!("{name}: {what}\nrepeat it with: cargo xtask faults {name}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn none() -> Plants {
    Plants::default()
}

fn traces() -> Result<String, String> {
    for (name, check) in CHECKS {
        check(none()).map_err(|what| format!("{name}: {what}"))?;
    }
    Ok(format!("{} hold", CHECKS.len()))
}

fn plants() -> Result<String, String> {
    for (name, plant) in Plant::ALL {
        if caught_by(*plant)(Plants::one(*plant)).is_ok() {
            return Err(format!("{name} is not noticed"));
        }
    }
    Ok(format!("{} noticed", Plant::ALL.len()))
}

/// Flips every bit of a volume with everything in it, and of one whose values lie behind a checkpoint.
fn flips() -> Result<String, String> {
    let of = |age| -> Result<_, String> {
        let [mut all, odd] =
            halved(|half| singles::flips(&rich(none(), age)?, none(), half as u64, 2))?;
        all.add(odd);
        Ok(all)
    };
    Ok(format!("{:?}\n{:?}", of(Age::Old)?, of(Age::Settled)?))
}

fn blocks() -> Result<String, String> {
    let [old, young] = halved(|half| singles::blocks(&volume(half)?, none(), 1))?;
    let settled = singles::blocks(&rich(none(), Age::Settled)?, none(), 1)?;
    Ok(format!("{old:?}\n{young:?}\n{settled:?}"))
}

fn every_pair() -> Result<String, String> {
    let [old, young] = halved(|half| pairs::pairs(&volume(half)?, none(), 1))?;
    let settled = pairs::pairs(&rich(none(), Age::Settled)?, none(), 1)?;
    Ok(format!("{old:?}\n{young:?}\n{settled:?}"))
}

fn many_repairs() -> Result<String, String> {
    let split = |half: usize| (half as u64..30_000).step_by(2);
    let [old, young] =
        halved(|half| repairs::repairs(&volume(half)?, none(), split(0).chain(split(1))))?;
    let [settled, other] =
        halved(|half| repairs::repairs(&rich(none(), Age::Settled)?, none(), split(half)))?;
    Ok(format!("{old:?}\n{young:?}\n{settled:?}\n{other:?}"))
}

fn all_astray() -> Result<String, String> {
    let split = |half: usize| move |_: u64, blocks: u64| (half as u64..blocks).step_by(2);
    let [mut writes, odd] = halved(|half| astray::writes(none(), split(half)))?;
    writes.add(odd);
    let [old, young] = halved(|half| astray::reads(&volume(half)?, none(), |_, blocks| 0..blocks))?;
    let flushes = astray::flushes(none())?;
    let lost = astray::lost_for_good(none())?;
    Ok(format!(
        "writes {writes:?}\nreads {old:?}\nreads {young:?}\nflushes {flushes:?}\nlost {lost:?}"
    ))
}

fn every_history(bounds: Bounds) -> Result<String, String> {
    let all = Mutex::new(Histories::default());
    let (start, minutes) = (Instant::now(), AtomicU64::new(1));
    halved(|half| {
        histories(none(), bounds, (half, 2), |one| {
            let mut all = all.lock().expect("no thread panics with it");
            all.add(one);
            let minute = start.elapsed().as_secs() / 60;
            if minute >= minutes.load(Ordering::Relaxed) {
                minutes.store(minute + 1, Ordering::Relaxed);
                let recoveries: u64 = all.recoveries.recoveries.iter().sum();
                let (histories, of) = (all.histories, bounds.histories());
                eprintln!("{minute} min: {histories} of {of} histories, {recoveries} recoveries");
            }
        })
    })?;
    let all = all.into_inner().map_err(|_| "a thread panicked")?;
    Ok(all.to_string())
}

fn volume(half: usize) -> Result<Rich, String> {
    rich(none(), if half == 0 { Age::Old } else { Age::Young })
}

/// Does two halves of some work at once.
fn halved<T: Send>(work: impl Fn(usize) -> Result<T, String> + Sync) -> Result<[T; 2], String> {
    let work = &work;
    let [first, second] = std::thread::scope(|scope| {
        [0, 1].map(|half| scope.spawn(move || work(half))).map(|half| half.join())
    });
    let ended = |half: std::thread::Result<Result<T, String>>| {
        half.map_err(|_| "a thread panicked".to_owned()).flatten()
    };
    Ok([ended(first)?, ended(second)?])
}
