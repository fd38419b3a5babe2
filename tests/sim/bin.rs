//! The simulator as a program: any number of crashes, one seed again, a planted fault.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use journal::Plant;
use tests::sim::{Failure, Setup, run, run_history};

const HELP: &str = "\
Usage: sim [--crashes N] [--first-seed N] [--seed N] [--plant NAME]

  --crashes N     stop after N crashes (default 1000000)
  --first-seed N  begin with this seed (default: from the clock)
  --seed N        run this history alone
  --plant NAME    switch a rule of the engine off; the run must fail. This simulator finds
                  ack-before-flush, late-writes, later-proves, superblock-order; others are
                  for the suite of faults
";

struct Arguments {
    crashes: u64,
    first_seed: u64,
    seed: Option<u64>,
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    if std::env::args().skip(1).any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("sim: {problem}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let setup = |seed| arguments.plant.map_or_else(|| Setup::of_seed(seed), Setup::planted);
    let start = Instant::now();
    let result = match arguments.seed {
        Some(seed) => run_history(seed, setup(seed)),
        None => run(arguments.first_seed, arguments.crashes, setup),
    };
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(crashes) => {
            let all = crashes.all();
            println!("{crashes:?}");
            println!("{all} crashes survived, {:.0} a second", all as f64 / seconds);
            exit(arguments.plant.is_none())
        }
        Err(failure) => {
            show(&failure);
            exit(arguments.plant.is_some())
        }
    }
}

fn show(failure: &Failure) {
    println!("{failure}");
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first_seed = clock.map_or(0, |now| now.as_secs() << 20);
    let mut arguments = Arguments { crashes: 1_000_000, first_seed, seed: None, plant: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{word}: {value} is not a number"));
        match word.as_str() {
            "--crashes" => arguments.crashes = number()?,
            "--first-seed" => arguments.first_seed = number()?,
            "--seed" => arguments.seed = Some(number()?),
            "--plant" => {
                let named = Plant::ALL.iter().find(|(name, _)| *name == value);
                arguments.plant = Some(named.ok_or_else(|| format!("no plant {value}"))?.1);
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(arguments)
}
