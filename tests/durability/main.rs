//! Flushes are real: what is acknowledged lies under a flush that was asked for after both copies
//! were written, and that returned. And they are few: what a put costs the device, to the byte.

#![forbid(unsafe_code)]

mod capacity;
mod churn;
mod cost;
mod held;
mod history;
mod notes;
mod pace;
mod paced;
mod reopened;
mod rig;
mod spy;
mod uploads;
mod volume;
mod window;

use blockdev::{BlockDevice, FileDevice, SimConfig, SimDevice};
use fastrand::Rng;
use journal::{Plant, Plants};
use std::fs;
use std::path::PathBuf;

use history::{Tally, run};

/// Histories over the simulated device.
const SEEDS: u64 = 60;
/// Commits of one history.
const COMMITS: u32 = 150;
/// Room for all of them: nothing is ever cleaned here.
const DEVICE_BYTES: u64 = 4 << 20;

#[test]
fn nothing_is_acknowledged_early_on_a_device_that_completes_at_once() {
    check(|seed| sim(seed, true));
}

#[test]
fn nothing_is_acknowledged_early_on_a_device_that_completes_late_and_in_any_order() {
    check(|seed| sim(seed, false));
}

#[test]
fn nothing_is_acknowledged_early_on_a_file() {
    let file = TempFile::new("acknowledged");
    let device = FileDevice::create(&file.0, DEVICE_BYTES, || {}).unwrap();
    let tally = run(device, 0, Plants::default(), COMMITS).unwrap_or_else(|what| panic!("{what}"));
    assert!(tally.commits > 50 && tally.syncs > 5, "{tally:?}");
}

#[test]
fn an_acknowledgement_before_the_flush_is_found() {
    must_be_found(Plant::AckBeforeFlush, true);
    must_be_found(Plant::AckBeforeFlush, false);
}

#[test]
fn writes_after_the_flush_began_are_found() {
    must_be_found(Plant::LateWrites, true);
    must_be_found(Plant::LateWrites, false);
}

fn check<D: BlockDevice>(device: impl Fn(u64) -> D) {
    let mut all = Tally::default();
    for seed in 0..SEEDS {
        match run(device(seed), seed, Plants::default(), COMMITS) {
            Ok(tally) => all.add(tally),
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(all.commits > 3000 && all.syncs > 300, "{all:?}");
    assert!(all.shared > 100, "some groups hold several commits: {all:?}");
}

fn must_be_found(plant: Plant, immediate: bool) {
    let found = (0..SEEDS)
        .find_map(|seed| run(sim(seed, immediate), seed, Plants::one(plant), COMMITS).err());
    println!("found: {}", found.expect("the planted fault is not noticed"));
}

fn sim(seed: u64, immediate: bool) -> SimDevice {
    let mut config = SimConfig::new(seed, DEVICE_BYTES);
    config.immediate = immediate;
    config.stall = [0, 64, 200][Rng::with_seed(seed).usize(..3)];
    SimDevice::new(config)
}

/// The place of a file that is gone with this value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        let name = format!("durability-{name}-{}", std::process::id());
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
