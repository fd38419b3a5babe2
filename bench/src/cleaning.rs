//! What a lone durable put waits for while the journal cleans and writes checkpoints beside it.

use crate::engine::{self, Shape, Store};
use crate::floor::Floor;
use crate::{ROUNDS, Result, Sample, median};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys of the store, of 41 bytes with values of 100.
const LIVE: u64 = 100_000;
const USER_BYTES: u64 = 141;
/// Puts of a commit while the store is brought to a steady state.
const BATCH: usize = 64;
/// Lone puts of a round: each takes a block, so that several segments are cleaned meanwhile.
const PUTS: usize = 2000;

/// Prints the percentiles of lone puts into a store with room and into such that clean all the time, round by round
/// in turn.
///
/// # Errors
/// The device fails or is too small.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let shapes = [1200, 300, 250, 200];
    let mut rows = shapes.map(|_| Vec::new());
    let (mut floor, mut floors) = (Floor::new(folder)?, Vec::new());
    for (percent, row) in shapes.into_iter().zip(&mut rows) {
        eprintln!("cleaning, a zone of {percent} % of what clients write");
        let zone = LIVE * USER_BYTES * percent / 100;
        let device_bytes = (2 * zone).next_multiple_of(4096) + (16 << 10);
        let shape = Shape { device_bytes, watermark: false, ..engine::SMALL };
        let mut store = Store::create(folder, shape)?;
        let mut random = fastrand::Rng::with_seed(5);
        for first in (0..LIVE).step_by(BATCH) {
            let keys: Vec<u64> = (first..(first + BATCH as u64).min(LIVE)).collect();
            store.commit(&keys, 100)?;
        }
        // With room to spare nothing is cleaned before the zone is full for the first time.
        let overwritten = if percent > 1000 { 0 } else { 3 * LIVE };
        for _ in 0..overwritten / BATCH as u64 {
            let keys: Vec<u64> = (0..BATCH).map(|_| random.u64(..LIVE)).collect();
            store.commit(&keys, 100)?;
        }
        for _ in 0..ROUNDS {
            floors.push(floor.alone()?.p50());
            let mut times = Vec::new();
            for _ in 0..PUTS {
                let begun = Instant::now();
                store.commit(&[random.u64(..LIVE)], 100)?;
                times.push(begun.elapsed());
            }
            let sample = Sample::new(times, Duration::from_secs(1));
            row.push([sample.p50(), sample.p99(), sample.at(999)]);
        }
    }
    let floor = median(floors.into_iter());
    println!(
        "\nlone durable puts of 100 B in {ROUNDS} rounds, medians; the floor is {floor:.0} µs\n"
    );
    println!(
        "| space per copy | p50, p99, p99.9 µs | p50 in floors | p99 and p99.9 to those of the first |"
    );
    println!("|--:|--:|--:|--:|");
    let mut idle = [f64::NAN; 3];
    for (percent, row) in shapes.into_iter().zip(rows) {
        let of = |at: usize| median(row.iter().filter_map(|round| round.get(at).copied()));
        let [p50, p99, p999] = [of(0), of(1), of(2)];
        if percent == 1200 {
            idle = [p50, p99, p999];
        }
        let [_, idle99, idle999] = idle;
        println!(
            "| {:.2} | {p50:.0}, {p99:.0}, {p999:.0} | {:.2} | {:.2}, {:.2} |",
            percent as f64 / 100.0,
            p50 / floor,
            p99 / idle99,
            p999 / idle999,
        );
    }
    Ok(())
}
