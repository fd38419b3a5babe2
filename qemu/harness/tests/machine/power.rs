//! Power cuts: from the log of every write and flush of a real machine, each image that a cut could have left is
//! made, mounted and compared with what the client had been told.

use std::collections::BTreeMap;
use std::fs;

use harness::writes::{Log, logged};
use harness::{Setup, image};

use crate::{Volume, all, start};

type Model = BTreeMap<String, Option<Vec<u8>>>;

const OPERATIONS: usize = 150;

/// Images that differ in what arrived of the writes since the last flush, for each cut that has such writes.
const SUBSETS: usize = 4;

/// The least that the suite promises.
const IMAGES_MIN: usize = 1000;

/// What the client did, and when it was told that it was done.
struct History {
    /// The state after each operation, from none on.
    models: Vec<Model>,
    /// Bytes of the log when the answer to each operation had come.
    told: Vec<u64>,
}

#[test]
fn every_cut_keeps_what_was_acknowledged_and_shows_nothing_torn() {
    let volume = Volume::new();
    let base = fs::read(&volume.path).unwrap();
    let path = volume.folder.join("writes.log");
    let disk = logged(&volume.path, &path).unwrap();
    let history = {
        let machine = start(&Setup { disk, ..volume.setup() });
        let history = work(&machine, &path);
        machine.kill().unwrap();
        history
    };
    let log = Log::read(&path).unwrap();
    let whole = log.image(&base, log.entries.len(), |_, _| true);
    assert_eq!(image::mount(whole).unwrap().values, *history.models.last().unwrap());

    let mut images = 0;
    for count in 0..=log.entries.len() {
        let unflushed = log.unflushed(count).len();
        let subsets = if unflushed == 0 { 1 } else { 2 + SUBSETS };
        for subset in 0..subsets {
            let mut random = fastrand::Rng::with_seed((count * 100 + subset) as u64);
            let lost = random.usize(0..unflushed.max(1));
            let image = log.image(&base, count, |index, _| match subset {
                0 => true,
                1 => false,
                // Whole writes, then single sectors.
                2 => index % unflushed.max(1) != lost,
                _ => random.bool(),
            });
            check(&history, &log, count, subset, image);
            images += 1;
        }
    }
    println!("{images} images of {} writes and flushes", log.entries.len());
    assert!(images >= IMAGES_MIN, "{images} images");
}

/// Puts and deletes, one after the other, so that the states that may be found are those after each.
fn work(machine: &harness::Machine, log: &std::path::Path) -> History {
    let client = machine.client("one").unwrap();
    let directory = all(&client);
    let mut history = History { models: vec![Model::new()], told: Vec::new() };
    let mut model = Model::new();
    let mut random = fastrand::Rng::with_seed(1);
    for n in 0..OPERATIONS {
        let key = format!("key/{}", random.u8(..12));
        if random.u8(..4) == 0 {
            directory.delete(&key).unwrap();
            model.remove(&format!("/state/one/{key}"));
        } else {
            let length = if random.u8(..8) == 0 { 20_000 } else { random.usize(..600) };
            let value = [n.to_le_bytes().to_vec(), vec![random.u8(..); length]].concat();
            directory.put(&key, &value).unwrap();
            model.insert(format!("/state/one/{key}"), Some(value));
        }
        history.told.push(fs::metadata(log).unwrap().len());
        history.models.push(model.clone());
    }
    history
}

fn check(history: &History, log: &Log, count: usize, subset: usize, image: Vec<u8>) {
    let cut = format!("cut behind entry {count}, subset {subset}");
    let state = image::mount(image).unwrap_or_else(|failure| panic!("{cut}: {failure}"));
    assert!(state.intact, "{cut}: the volume is not intact");
    let bytes = count.checked_sub(1).and_then(|last| log.ends.get(last)).copied().unwrap_or(0);
    let told = history.told.iter().take_while(|told| **told <= bytes).count();
    let found = history.models.iter().skip(told).any(|model| *model == state.values);
    assert!(found, "{cut}: {told} operations were acknowledged, and their state is not there");
}
