//! The journal, faulted and cut by enumeration; the whole of it runs optimised in the program `faults`.

#![forbid(unsafe_code)]

use journal::Plants;
use tests::faults::rich::rich;
use tests::faults::singles;

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
