//! Figures of speed, each with the floor of the same device in the same run.
//!
//! The floor is `pwrite` of 4 KiB and `fdatasync` on a file that was written with zeros before. Absolute times hold for
//! one machine; the ratios are what the project steers by. What is measured and its floor take turns, a few operations each,
//! rounds alternate, and medians are told.

#![forbid(unsafe_code)]

#[cfg(feature = "peers")]
mod chart;
#[cfg(feature = "peers")]
mod churn;
mod cleaning;
#[cfg(feature = "peers")]
mod compare;
#[cfg(feature = "peers")]
mod device;
#[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "the comparison uses the rest"))]
mod engine;
mod floor;
#[cfg(feature = "peers")]
mod peers;
mod served;

use floor::{Beside, Floor};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Usage: bench [ENGINE]...

Measures StateFS beside the floor of the same device, and ENGINEs beside each other, all without one. The machine should have
nothing else to do; it takes about five minutes. The engines:
  StateFS
  fjall
  LMDB
  SQLite
  redb

Or alone:
  cleaning  what lone puts wait for while the journal cleans and writes checkpoints beside them
";

/// Rounds of every measurement.
const ROUNDS: usize = 5;
/// Rounds whose floor is this much above the best are thrown away: a neighbour was busy.
const NOISY: f64 = 1.5;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if let Some(exit) = served::daemon_child() {
        return exit;
    }
    #[cfg(feature = "peers")]
    if let Some(ended) = compare::child() {
        return end(ended);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        // Who closed the pipe has seen enough.
        let _closed = std::io::stdout().write_all(HELP.as_bytes());
        return ExitCode::SUCCESS;
    }
    // Before anything is measured.
    let alone = words == [CLEANING];
    if let Some(word) = words.iter().find(|word| !alone && !is_engine(word)) {
        eprintln!("bench: `{word}` is no engine that this program was built with\n\n{HELP}");
        return ExitCode::from(2);
    }
    end(if alone { clean() } else { run(&words) })
}

/// The measurement that takes no engine beside it.
const CLEANING: &str = "cleaning";

#[cfg(feature = "peers")]
fn is_engine(word: &str) -> bool {
    peers::KINDS.iter().any(|kind| kind.name() == word)
}

#[cfg(not(feature = "peers"))]
fn is_engine(_: &str) -> bool {
    false
}

fn clean() -> Result<()> {
    cleaning::run(&Folder::new()?.0)
}

fn end(ended: Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg_attr(not(feature = "peers"), expect(unused_variables, reason = "there are none without"))]
fn run(engines: &[String]) -> Result<()> {
    let folder = Folder::new()?;
    let (mut floor, mut table) = (Floor::new(&folder.0)?, Table::default());
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        table.round(&folder.0, &mut floor)?;
    }
    table.print();
    #[cfg(feature = "peers")]
    {
        let rows = compare::run(&folder.0, engines)?;
        std::fs::write(CHART, chart::svg(&rows))?;
        eprintln!("the chart is in {CHART}");
        churn::run(&folder.0, engines)?;
        compare::replay(&folder.0)?;
    }
    Ok(())
}

/// Where the chart of a run is left.
#[cfg(feature = "peers")]
const CHART: &str = "target/speed.svg";

/// Counts what the index takes.
#[cfg(feature = "peers")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What one measurement took, operation by operation, and how many ran at once.
pub(crate) struct Sample {
    times: Vec<Duration>,
    wall: Duration,
}

impl Sample {
    pub(crate) fn new(mut times: Vec<Duration>, wall: Duration) -> Self {
        times.sort_unstable();
        Self { times, wall }
    }

    fn none() -> Self {
        Self { times: Vec::new(), wall: Duration::ZERO }
    }

    /// Adds what was measured later.
    fn add(&mut self, more: Self) {
        self.times.extend(more.times);
        self.times.sort_unstable();
        self.wall += more.wall;
    }

    fn p50(&self) -> f64 {
        self.at(500)
    }

    fn p99(&self) -> f64 {
        self.at(990)
    }

    /// Microseconds within which so many of a thousand operations ended.
    fn at(&self, per_mille: usize) -> f64 {
        self.times
            .get(self.times.len() * per_mille / 1000)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }

    fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.wall.as_secs_f64()
    }
}

/// One line of figures for each round: p50, that in floors, p99, operations a second, those in the floor's rate.
#[derive(Default)]
struct Table {
    floors: Vec<f64>,
    rows: Vec<(String, Vec<[f64; 5]>)>,
}

impl Table {
    /// Measures everything once.
    fn round(&mut self, folder: &Path, floor: &mut Floor) -> Result<()> {
        let alone = floor.alone()?;
        self.floors.push(alone.p50());
        let rate = alone.per_second();
        let figures = [alone.p50(), 1.0, alone.p99(), rate, rate * alone.p50() / 1e6];
        self.add("floor: pwrite 4 KiB + fdatasync", figures);
        for copies in [1, 2] {
            for bytes in [100, 4096] {
                let name = format!("durable put, {bytes} B, {copies} copies, in process");
                let shape = engine::Shape { copies, ..engine::SMALL };
                let mut store = engine::Store::create(folder, shape)?;
                let puts = floor.beside(300, |count| store.durable_puts(1, bytes, count))?;
                self.add_beside(&name, &puts);
            }
        }
        for writers in [16, 64] {
            let mut store = engine::Store::create(folder, engine::SMALL)?;
            let name = format!("durable put, 100 B, 2 copies, {writers} writers, in process");
            let puts = floor.beside(300, |count| store.durable_puts(writers, 100, count))?;
            self.add_beside(&name, &puts);
        }
        let mut store = engine::Store::create(folder, engine::SMALL)?;
        let gets = store.cached_gets(20_000)?;
        let gets = Beside { sample: gets, floor: alone };
        self.add_beside("get, 100 B, cached, in process", &gets);
        let served = served::Daemon::start(folder)?;
        let puts = floor.beside(300, |count| served.puts(count))?;
        self.add_beside("durable put, 100 B, served, one client", &puts);
        let gets = floor.beside(3000, |count| served.gets(count))?;
        self.add_beside("get, 100 B, served, one client", &gets);
        Ok(())
    }

    fn add_beside(&mut self, name: &str, beside: &Beside) {
        let Beside { sample, .. } = beside;
        let (p50, p99, rate) = (sample.p50(), sample.p99(), sample.per_second());
        self.add(name, [p50, beside.floors(), p99, rate, beside.rates()]);
    }

    fn add(&mut self, name: &str, figures: [f64; 5]) {
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, rounds)) => rounds.push(figures),
            None => self.rows.push((name.to_owned(), vec![figures])),
        }
    }

    fn print(&self) {
        let quiet = quiet(&self.floors);
        let used = quiet.iter().filter(|quiet| **quiet).count();
        println!("{used} of {ROUNDS} rounds were quiet; medians of those\n");
        println!("| what | p50 µs | x floor | p99 µs | per second | x floor's rate |");
        println!("|---|--:|--:|--:|--:|--:|");
        for (name, rounds) in &self.rows {
            let of = |figure: usize| {
                let kept = rounds.iter().zip(&quiet).filter(|(_, quiet)| **quiet);
                median(kept.filter_map(|(round, _)| round.get(figure).copied()))
            };
            let (p50, of_floor, p99, rate, of_rate) = (of(0), of(1), of(2), of(3), of(4));
            println!("| {name} | {p50:.1} | {of_floor:.2} | {p99:.0} | {rate:.0} | {of_rate:.2} |");
        }
    }
}

/// Tells for each round whether no neighbour was busy, by its floor.
fn quiet(floors: &[f64]) -> Vec<bool> {
    let best = floors.iter().copied().fold(f64::INFINITY, f64::min);
    floors.iter().map(|floor| *floor <= best * NOISY).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A folder beside the build, on a real file system, that goes when the run ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = Path::new("target").join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
