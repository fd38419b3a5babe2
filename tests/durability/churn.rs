//! What overwriting costs a volume, counted: bytes that reach a zone for each byte that a client writes.

use crate::volume::{BATCH, KEY_BYTES, Volume};

const VALUE_BYTES: usize = 100;

/// Overwrites keys at random, `to_hot` of a hundred writes to a tenth of them, 64 to a commit, in zones of `percent` of what the
/// clients' bytes take; yields the bytes written for each of the clients'.
fn amplification(live: u64, percent: u64, to_hot: u64) -> f64 {
    let user_bytes = (KEY_BYTES + VALUE_BYTES) as u64;
    let mut volume = Volume::new(live * user_bytes * percent / 100, VALUE_BYTES);
    volume.load(live);
    let mut overwrite = |rounds: u64| {
        volume.overwrite(live, to_hot, rounds);
        volume.written() as f64 / (rounds * BATCH * user_bytes) as f64
    };
    overwrite(2 * live / BATCH);
    let written = overwrite(4 * live / BATCH);
    println!("{live} keys, zones of {percent} %, {to_hot} of 100 to a tenth: {written:.2}");
    written
}

/// With room to spare, and where little is left: of each byte 1.25 are the record's, and the rest checkpoints and moves.
#[test]
fn overwriting_at_random_costs_few_bytes() {
    for (percent, most) in [(600, 1.7), (300, 2.2), (250, 2.75)] {
        let written = amplification(30_000, percent, 10);
        assert!(written <= most, "zones of {percent} %: {written:.2} > {most}");
    }
}

/// Keys that are written again and again lie beside those that are not, in one log.
#[test]
fn overwriting_a_tenth_of_the_keys_costs_few_bytes() {
    for (percent, most) in [(600, 1.8), (300, 2.5), (250, 3.4)] {
        let written = amplification(30_000, percent, 90);
        assert!(written <= most, "zones of {percent} %: {written:.2} > {most}");
    }
}

/// Cleaning once gave each value that it moved a group of its own. A block of each move was lost, so that cleaning small
/// values gained nothing, went on for ever, and no write came to its end any more.
#[test]
fn cleaning_small_values_gains_room() {
    let written = amplification(6000, 600, 10);
    assert!(written <= 2.0, "{written:.2} bytes written for each byte");
}
