//! How long a lone put waits while the journal cleans and writes checkpoints beside it, on a device with a clock of its own.

use crate::volume::{BATCH, KEY_BYTES, Volume};

const LIVE: u64 = 30_000;
const VALUE_BYTES: usize = 100;
const LONE: usize = 6000;

/// Microseconds within which 50, 99 and 99.9 of a hundred lone puts end.
#[derive(Clone, Copy, Debug)]
struct Waits {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Puts lone values into zones of `percent` of what the clients' bytes take, of which so many were written over before.
fn waits(percent: u64, overwritten: u64) -> Waits {
    let user_bytes = (KEY_BYTES + VALUE_BYTES) as u64;
    let mut volume = Volume::new(LIVE * user_bytes * percent / 100, VALUE_BYTES);
    volume.load(LIVE);
    volume.overwrite(LIVE, 10, overwritten / BATCH);
    let (mut waits, cleaned) = (Vec::new(), volume.journal.stats().cleaned);
    for _ in 0..LONE {
        let begun = volume.now();
        let key = volume.rng.u64(..LIVE);
        volume.commit(&[key], false).expect("what lives fits");
        waits.push(volume.now() - begun);
    }
    waits.sort_unstable();
    let at = |per_mille: usize| waits[waits.len() * per_mille / 1000] as f64 / 1e3;
    let found = Waits { p50: at(500), p99: at(990), p999: at(999) };
    let cleaned = volume.journal.stats().cleaned - cleaned;
    println!("zones of {percent} %: {found:.0?}, {cleaned} segments cleaned");
    assert_eq!(cleaned > 0, overwritten > 0, "the first is to have room to spare, the others not");
    found
}

/// A put waits for a slice of cleaning at most, and for no checkpoint: the slowest in a thousand once waited for 3 ms.
#[test]
fn a_lone_put_hardly_waits_for_cleaning() {
    let idle = waits(2000, 0);
    for percent in [600, 300, 200] {
        let found = waits(percent, 3 * LIVE);
        let [p50, p99, p999] = [found.p50 / idle.p50, found.p99 / idle.p99, found.p999 / idle.p999];
        println!("to those with room: {p50:.2}, {p99:.2}, {p999:.2}");
        assert!(p50 < 1.5 && p99 < 1.5 && p999 < 1.5, "zones of {percent} %");
    }
}
