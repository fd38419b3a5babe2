//! The simulator as a program: any number of crashes, one seed again, a planted fault.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use journal::{Plant, Plants};
use rustix::time::{ClockId, clock_gettime};
use tests::served::shrink::shrink as shrink_served;
use tests::served::{Planted, ServedCounts, Turns, play_turns};
use tests::sim::counts::Counts;
use tests::sim::plan::Plan;
use tests::sim::play::{Broken, JUDGED_EVERY, play_judging};
use tests::sim::shrink::{as_test, keep, keep_word, shrink};
use tests::sim::{Failure, Setup, over_seeds, run};

const HELP: &str = "\
Usage: sim [OPTIONS]

  --crashes N     stop after N crashes (default 1000000). Of the journal alone, a crash is a power cut or the death of the
                  process, in work or in a recovery. Each power cut is tried with several ends, which count one by one: other
                  fates of what no flush covered, as far as they leave other bytes, each recovered to its end and compared
  --threads N     as many threads (default: one for each processor)
  --first-seed N  begin with this seed (default: from the clock)
  --seed N        play this history alone, and shrink it if it fails
  --keep STEPS    of it only these steps, as a failure names them
  --chance N      with these chances of the device, as a failure names them
  --judge N       judge one image in N a second time, by the model's table (default 64); 0 for none
  --served        the whole server with its clients, instead of the journal alone
  --plant NAME    switch a rule of the engine off; the run must fail. This simulator finds
                  ack-before-flush, late-writes, later-proves, superblock-order, check-touches-tail, cut-forgotten,
                  deletes-limited, uploads-in-vain,
                  and with --served the server's: answer-early, look-first, tokens-forgotten, tokens-of-connection,
                  sync-skipped, shutdown-unsynced, quota-uncharged, own-writes-unseen; others are for
                  the suite of faults
  --ordinary      with a plant: play the histories that a run without one plays, not those that tell of it soonest
";

#[derive(Default)]
struct Arguments {
    crashes: u64,
    threads: usize,
    first_seed: u64,
    seed: Option<u64>,
    keep: Option<String>,
    chance: Option<u64>,
    plant: Option<(&'static str, Planted)>,
    judged_every: u64,
    served: bool,
    ordinary: bool,
}

fn main() -> ExitCode {
    if std::env::args().skip(1).any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let result = parse(std::env::args().skip(1)).and_then(|arguments| {
        let failed = match arguments.seed {
            seed if arguments.served => served(&arguments, seed)?,
            Some(seed) => again(&arguments, seed)?,
            None => many(&arguments),
        };
        Ok(failed == arguments.plant.is_some())
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("sim: {problem}\n{HELP}");
            ExitCode::from(2)
        }
    }
}

impl Arguments {
    fn setup(&self, seed: u64) -> Setup {
        let setup = match self.journal_plant() {
            Some(plant) if !self.ordinary => Setup::planted(plant),
            _ => Setup { plants: self.plants(), ..Setup::of_seed(seed) },
        };
        Setup { judged_every: self.judged_every, ..setup }
    }

    fn plants(&self) -> Plants {
        self.journal_plant().map_or_else(Plants::default, Plants::one)
    }

    fn journal_plant(&self) -> Option<Plant> {
        match self.plant {
            Some((_, Planted::Journal(plant))) => Some(plant),
            _ => None,
        }
    }
}

/// Plays many histories; tells whether one failed.
fn many(arguments: &Arguments) -> bool {
    let (start, minutes) = (Instant::now(), AtomicU64::new(1));
    let progress = |counts: &Counts| {
        let minute = start.elapsed().as_secs() / 60;
        if minute >= minutes.load(Ordering::Relaxed) {
            minutes.store(minute + 1, Ordering::Relaxed);
            eprintln!("{minute} min: {} crashes", counts.crashes());
        }
    };
    let setup = |seed| arguments.setup(seed);
    match run(arguments.first_seed, arguments.crashes, arguments.threads, setup, progress) {
        Ok(counts) => {
            show(&counts, start, arguments.threads);
            false
        }
        Err(failure) => {
            println!("{failure}");
            let plan = Plan::of_seed(failure.seed, arguments.setup(failure.seed));
            tell_shrunk(arguments, &plan, &plan);
            true
        }
    }
}

/// Plays histories of the whole server, or the one of a seed; tells whether one failed.
fn served(arguments: &Arguments, seed: Option<u64>) -> Result<bool, String> {
    let start = Instant::now();
    let planted = arguments.plant.map(|(_, planted)| planted);
    let add = |total: &mut ServedCounts, counts: &ServedCounts| {
        total.add(counts);
        seed.is_some() || total.crashes() >= arguments.crashes
    };
    let threads = if seed.is_some() { 1 } else { arguments.threads };
    let first = seed.unwrap_or(arguments.first_seed);
    let kept = match (&arguments.keep, seed) {
        (Some(word), Some(seed)) => Some(Turns::read(seed, word)?),
        _ => None,
    };
    let play = |seed| match &kept {
        Some(turns) => play_turns(seed, planted, turns),
        None => tests::served::play(seed, planted),
    };
    match over_seeds(first, threads, play, add) {
        Ok(counts) => {
            print!("{counts}");
            show_rate(counts.crashes(), start, threads);
            Ok(false)
        }
        Err((seed, what)) => {
            let plant =
                arguments.plant.map_or(String::new(), |(name, _)| format!(" --plant {name}"));
            println!("SIM_SEED={seed}: {what}");
            println!("repeat it with: cargo xtask sim --served --seed {seed}{plant}");
            let all = kept.unwrap_or_else(|| Turns::of_seed(seed));
            if let Some((least, what)) = shrink_served(seed, planted, &all) {
                println!("\nshrunk from {} turns to {}: {what}", all.count(), least.count());
                print!("{}", least.told(seed));
                let word = least.word();
                println!(
                    "repeat it with: cargo xtask sim --served --seed {seed} --keep {word}{plant}"
                );
                println!("or as a test:\n\n{}", least.as_test(seed, &what));
            }
            Ok(true)
        }
    }
}

/// Plays one history, or a part of it; tells whether it failed.
fn again(arguments: &Arguments, seed: u64) -> Result<bool, String> {
    let whole = Plan::of_seed(seed, arguments.setup(seed));
    let mut plan = match &arguments.keep {
        Some(word) => keep(&whole, word)?,
        None => whole.clone(),
    };
    plan.seed = arguments.chance.unwrap_or(plan.seed);
    let start = Instant::now();
    match play_judging(&plan, arguments.plants(), arguments.judged_every) {
        Ok(counts) => {
            show(&counts, start, 1);
            Ok(false)
        }
        Err(broken) => {
            println!("{}", Failure { seed, broken });
            tell_shrunk(arguments, &whole, &plan);
            Ok(true)
        }
    }
}

fn show(counts: &Counts, start: Instant, threads: usize) {
    print!("{counts}");
    show_rate(counts.crashes(), start, threads);
}

fn show_rate(all: u64, start: Instant, threads: usize) {
    let seconds = start.elapsed().as_secs_f64();
    // Others may have been at work on the same processors.
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!(
        "{all} crashes survived in {seconds:.1} s with {threads} threads, {cpu_seconds:.1} s of processor time: \
         {:.0} a second and processor",
        all as f64 / cpu_seconds
    );
}

/// Shrinks `plan`, which fails, and tells how to repeat what is left of `whole`.
fn tell_shrunk(arguments: &Arguments, whole: &Plan, plan: &Plan) {
    let Some((least, broken)) = shrink(plan, arguments.plants(), arguments.judged_every > 0) else {
        return;
    };
    let Broken { what, .. } = &broken;
    println!("\nshrunk from {} steps to {}: {what}", plan.steps.len(), least.steps.len());
    for step in &least.steps {
        println!("  {:?}, then {} turns", step.action, step.turns);
    }
    print!("repeat it with: cargo xtask sim --seed {}", whole.seed);
    print!(" --keep {}", keep_word(whole, &least));
    if least.seed != whole.seed {
        print!(" --chance {}", least.seed);
    }
    if let Some((name, _)) = arguments.plant {
        print!(" --plant {name}{}", if arguments.ordinary { " --ordinary" } else { "" });
    }
    println!("\nor as a test:\n\n{}", as_test(&least, &Failure { seed: whole.seed, broken }));
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first_seed = clock.map_or(0, |now| now.as_secs() << 20);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        crashes: 1_000_000,
        threads,
        first_seed,
        judged_every: JUDGED_EVERY,
        ..Arguments::default()
    };
    while let Some(word) = words.next() {
        let flag = match word.as_str() {
            "--served" => Some(&mut arguments.served),
            "--ordinary" => Some(&mut arguments.ordinary),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{word}: {value} is not a number"));
        match word.as_str() {
            "--crashes" => arguments.crashes = number()?,
            "--threads" => arguments.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--first-seed" => arguments.first_seed = number()?,
            "--seed" => arguments.seed = Some(number()?),
            "--judge" => arguments.judged_every = number()?,
            "--chance" => arguments.chance = Some(number()?),
            "--keep" => arguments.keep = Some(value),
            "--plant" => {
                let named = Planted::all().find(|(name, _)| *name == value);
                arguments.plant = Some(named.ok_or_else(|| format!("no plant {value}"))?);
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if let (Some((name, Planted::Server(_))), false) = (arguments.plant, arguments.served) {
        return Err(format!("the server's plant {name} needs --served"));
    }
    Ok(arguments)
}
