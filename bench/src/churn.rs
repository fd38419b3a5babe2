//! What values that are written over and over cost: space, writes, and what lone puts wait for.

use crate::compare::{Fresh, shuffled};
use crate::engine::{self, Shape, Store};
use crate::floor::Floor;
use crate::peers::{Engine, KINDS, Kind};
use crate::{Result, Sample, device};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys, of 41 bytes with values of 100, each written over six times.
const LIVE: u64 = 200_000;
const USER_BYTES: u64 = 141;
/// Puts of a commit.
const BATCH: usize = 64;
/// Lone puts that are timed.
const PUTS: usize = 3000;
/// Commits between two looks at what the files take.
const LOOKED_EVERY: u64 = 200;
/// Zones of StateFS, in percent of what clients hold.
const ZONES: [u64; 4] = [600, 200, 175, 150];

/// Measures the engines of these names, all if there are none, and prints the table.
pub(crate) fn run(folder: &Path, named: &[String]) -> Result<()> {
    let floor = Floor::new(folder)?.alone()?;
    println!(
        "\n{LIVE} keys written over at random, {BATCH} to a commit; the floor is {:.0}, {:.0}, {:.0} µs\n",
        floor.p50(),
        floor.p99(),
        floor.at(999)
    );
    println!(
        "| engine | most space | written, of what clients wrote | lone put p50, p99, p99.9 µs | p99, p99.9 to those of an empty store |"
    );
    println!("|---|--:|--:|--:|--:|");
    for kind in KINDS.into_iter().filter(|kind| crate::compare::wanted(*kind, named)) {
        if kind != Kind::StateFs {
            eprintln!("churn: {}", kind.name());
            let folder = Fresh::new(folder)?;
            let mut engine = kind.open(&folder.0)?;
            print(kind.name(), churn(&mut *engine, &folder.0));
            continue;
        }
        for percent in ZONES {
            eprintln!("churn: StateFS in a zone of {percent} %");
            let folder = Fresh::new(folder)?;
            let zone = LIVE * USER_BYTES * percent / 100;
            let device_bytes = (2 * zone).next_multiple_of(4096) + (16 << 10);
            let shape = Shape { device_bytes, watermark: false, ..engine::SMALL };
            let mut store = Store::create(&folder.0, shape)?;
            let name = format!("StateFS, per copy, in {:.2}", percent as f64 / 100.0);
            let found = churn(&mut store, &folder.0);
            print(
                &name,
                found.map(|found| Found {
                    space: found.space / 2.0,
                    written: found.written / 2.0,
                    ..found
                }),
            );
        }
    }
    Ok(())
}

/// What one store did: bytes of space and bytes written for each byte of its clients, and its lone puts.
struct Found {
    space: f64,
    written: f64,
    empty: Sample,
    lone: Sample,
}

fn churn(engine: &mut dyn Engine, folder: &Path) -> Result<Found> {
    // The first puts pay for files that are made once.
    engine.puts(1, 100, 100)?;
    let empty = engine.puts(1, 100, PUTS)?;
    let mut keys = shuffled(LIVE).peekable();
    while keys.peek().is_some() {
        let some: Vec<u64> = keys.by_ref().take(BATCH).collect();
        engine.commit(&some, 100)?;
    }
    let mut random = fastrand::Rng::with_seed(5);
    let mut space = 0;
    let mut overwrite = |engine: &mut dyn Engine, commits: u64| -> Result<()> {
        for commit in 0..commits {
            let keys: Vec<u64> = (0..BATCH).map(|_| random.u64(..LIVE)).collect();
            engine.commit(&keys, 100)?;
            if commit % LOOKED_EVERY == 0 {
                space = space.max(device::space_of(folder)?);
            }
        }
        Ok(())
    };
    overwrite(engine, 2 * LIVE / BATCH as u64)?;
    let (before, commits) = (device::Writes::of(folder)?.bytes, 4 * LIVE / BATCH as u64);
    overwrite(engine, commits)?;
    let written = (device::Writes::of(folder)?.bytes - before) as f64
        / (commits * BATCH as u64 * USER_BYTES) as f64;
    let mut times = Vec::with_capacity(PUTS);
    for _ in 0..PUTS {
        let begun = Instant::now();
        engine.commit(&[random.u64(..LIVE)], 100)?;
        times.push(begun.elapsed());
    }
    let lone = Sample::new(times, Duration::from_secs(1));
    Ok(Found { space: space as f64 / (LIVE * USER_BYTES) as f64, written, empty, lone })
}

fn print(name: &str, found: Result<Found>) {
    match found {
        Ok(Found { space, written, empty, lone }) => println!(
            "| {name} | {space:.2} | {written:.2} | {:.0}, {:.0}, {:.0} | {:.2}, {:.2} |",
            lone.p50(),
            lone.p99(),
            lone.at(999),
            lone.p99() / empty.p99(),
            lone.at(999) / empty.at(999),
        ),
        Err(error) => println!("| {name} | {error} | | | |"),
    }
}
