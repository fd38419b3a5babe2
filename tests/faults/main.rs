//! The journal, faulted and cut by enumeration; the whole of it runs optimised in the program `faults`.

#![forbid(unsafe_code)]

use journal::{Plant, Plants};
use tests::faults::histories::{Bounds, histories};
use tests::faults::plants::{CHECKS, caught_by};
use tests::faults::rich::rich;
use tests::faults::{pairs, singles};

#[test]
fn the_volume_has_everything_in_it() {
    let rich = rich(Plants::default()).unwrap();
    println!("{} checkpoints {} cleaned {:?}", rich.checkpoints, rich.cleaned, rich.map.len());
    assert!(rich.checkpoints > 0 && rich.cleaned > 0 && rich.map.len() > 4);
    assert!(rich.older.len() > 3);
}

#[test]
fn no_flipped_bit_loses_anything() {
    let rich = rich(Plants::default()).unwrap();
    let singles = singles::flips(&rich, Plants::default(), 3, 401).unwrap();
    println!("{singles:?}");
    assert!(singles.repaired > 50 && singles.superblocks > 50 && singles.harmless > 50);
}

#[test]
fn no_bad_block_loses_anything() {
    let rich = rich(Plants::default()).unwrap();
    let singles = singles::blocks(&rich, Plants::default(), 13).unwrap();
    println!("{singles:?}");
    assert!(singles.repaired > 50 && singles.superblocks > 50 && singles.checked > 5);
}

#[test]
fn the_rule_holds_in_every_trace() {
    let mut broken = Vec::new();
    for (name, check) in CHECKS {
        if let Err(what) = check(Plants::default()) {
            broken.push(format!("{name}: {what}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_plant_is_caught() {
    let mut missed = Vec::new();
    for (name, plant) in Plant::ALL {
        match caught_by(*plant)(Plants::one(*plant)) {
            Ok(()) => missed.push(*name),
            Err(what) => println!("{name}: {what}"),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn two_bad_blocks_are_never_hidden() {
    let rich = rich(Plants::default()).unwrap();
    let pairs = pairs::pairs(&rich, Plants::default(), 7).unwrap();
    println!("{pairs:?}");
    assert!(pairs.images > 1000 && pairs.lost > 5 && pairs.opened > 1000);
}

#[test]
fn every_cut_of_every_short_history_leaves_a_prefix() {
    let bounds = Bounds { letters: 2, nested: 0, ends: 100, nested_ends: 9 };
    let found = histories(Plants::default(), bounds).unwrap();
    println!("{found:?}");
    assert!(found.images > 1000);
}
