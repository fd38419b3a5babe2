//! How much of a zone live records fill before a put is refused, and that garbage refuses none.

use journal::CommitError;

use crate::volume::{MIB, Volume};

/// Bytes of records in one commit: several groups' worth wait together, as under load.
const BATCH_BYTES: usize = 30_000;

fn filled(zone_mib: u64, value_bytes: usize, least: f64) -> Volume {
    let mut volume = Volume::new(zone_mib * MIB, value_bytes);
    let share = fill(&mut volume);
    println!("{zone_mib} MiB, values of {value_bytes} bytes: {:.1} %", share * 100.0);
    assert!(share >= least, "{zone_mib} MiB, values of {value_bytes}: {share:.3} < {least}");
    volume
}

fn fill(volume: &mut Volume) -> f64 {
    volume.fill((BATCH_BYTES / volume.record_bytes()).max(1) as u64)
}

/// Writes keys over that were not deleted, as many bytes as `zones` take; none may be refused.
fn churn(volume: &mut Volume, zones: u64) {
    let count = (BATCH_BYTES / 2 / volume.record_bytes()).max(1);
    let rounds = volume.zone_bytes * zones / (count * volume.record_bytes()) as u64;
    let kept = volume.keys / 20 * 19;
    for _ in 0..rounds {
        let some = (0..count).map(|_| volume.rng.u64(..kept)).map(|n| n / 19 * 20 + 1 + n % 19);
        let some: Vec<u64> = some.collect();
        volume.commit(&some, false).expect("garbage is no reason to refuse");
    }
}

/// Fills zones of so many MiB with values of 100 B, 1 KiB, 4 KiB and 64 KiB; each takes at least such a share.
///
/// What counts is the bytes of live records, each with its header of 32 bytes and its key of 41, of one copy, against all
/// bytes of a zone. What is missing: the checkpoint and the place of the next one, both of which small values make
/// large; three segments for the head and cleaning; the end of each segment, where the next record does not fit,
/// a part of a value of 64 KiB as any other; and what is kept back for notes, 1 to 2 % of a zone or 1.25 MiB.
fn fills(zone_mib: u64, least: [f64; 4]) {
    for (value_bytes, least) in [100, 1 << 10, 4 << 10, 64 << 10].into_iter().zip(least) {
        filled(zone_mib, value_bytes, least);
    }
}

#[test]
fn live_records_fill_most_of_a_zone_of_16_mib() {
    fills(16, [0.785, 0.90, 0.90, 0.875]);
}

#[test]
fn live_records_fill_most_of_a_zone_of_64_mib() {
    fills(64, [0.815, 0.925, 0.935, 0.92]);
}

#[test]
fn live_records_fill_most_of_a_zone_of_256_mib() {
    fills(256, [0.82, 0.935, 0.94, 0.925]);
}

/// One value of 64 KiB among small ones costs its own bytes, and not as much at the end of every segment.
#[test]
fn one_long_value_takes_no_room_from_others() {
    for zone_mib in [4, 16, 64] {
        let alone = fill(&mut Volume::new(zone_mib * MIB, 1 << 10));
        let mut volume = Volume::new(zone_mib * MIB, 1 << 10);
        volume.upload(64 << 10).expect("an empty volume takes it");
        volume.keys = 1;
        let beside = fill(&mut volume) + (64 << 10) as f64 / volume.zone_bytes as f64;
        println!("{zone_mib} MiB: {:.1} %, {:.1} % alone", beside * 100.0, alone * 100.0);
        assert!(beside > alone - 0.065, "{zone_mib} MiB: {beside:.3}, and {alone:.3} without it");
    }
}

/// A full volume deletes, and then takes two zones of overwrites and as much as before.
///
/// A twentieth of the keys goes. On the smallest zones that is less than the two segments by which all grows smaller when the
/// checkpoint, whose numbers grow with time, takes one more.
#[test]
fn a_full_volume_deletes_and_is_writable_again_by_itself() {
    for (zone_mib, value_bytes, least) in
        [(16, 100, 0.78), (8, 4096, 0.85), (32, 4096, 0.91), (32, 65_536, 0.89)]
    {
        let mut volume = filled(zone_mib, value_bytes, least);
        let deleted: Vec<u64> = (0..volume.keys).step_by(20).collect();
        for keys in deleted.chunks(100) {
            volume.commit(keys, true).expect("a full volume deletes");
        }
        churn(&mut volume, 2);
        assert!(fill(&mut volume) >= least, "less fits after {zone_mib} MiB were full once");
    }
}

/// An empty volume takes the longest value that it tells, and none that is two chunks longer.
#[test]
fn the_longest_value_fits_and_no_longer_one() {
    for zone_kib in [256, 512, 1 << 10, 2 << 10, 16 << 10] {
        let most = Volume::new(zone_kib << 10, 1).journal.large_bytes_max();
        println!("{zone_kib} KiB: {most}");
        let least =
            if zone_kib < 16 << 10 { zone_kib * 1024 / 10 } else { zone_kib * 1024 / 4 * 3 };
        assert!(most > least, "{zone_kib} KiB take {most}");
        let mut volume = Volume::new(zone_kib << 10, 1);
        volume.upload(most).expect("it is told");
        let mut volume = Volume::new(zone_kib << 10, 1);
        // The checkpoint counts with the longest lines, so a segment more for each of the two.
        let more = 2 * volume.journal.stats().geometry.segment_bytes() as u64 + (128 << 10);
        assert_eq!(volume.upload(most + more), Err(CommitError::NoSpace));
    }
}

/// A volume that is full but for two commits takes a zone of overwrites: cleaning gains from segments that are almost all live.
#[test]
fn a_volume_that_is_as_good_as_full_is_written_over() {
    for (zone_mib, value_bytes) in [(4, 100), (8, 1 << 10), (16, 4 << 10), (16, 64 << 10)] {
        let mut volume = Volume::new(zone_mib * MIB, value_bytes);
        let share = fill(&mut volume);
        let count = (BATCH_BYTES / volume.record_bytes()).max(1) as u64;
        let apart = volume.keys / (2 * count);
        let deleted: Vec<u64> = (0..2 * count).map(|n| n * apart).collect();
        volume.commit(&deleted, true).expect("a full volume deletes");
        let commits = volume.zone_bytes / (count * volume.record_bytes() as u64);
        volume.written();
        for _ in 0..commits {
            let some = (0..count).map(|_| volume.rng.u64(..volume.keys));
            let some: Vec<u64> = some.map(|n| n + u64::from(n % apart == 0)).collect();
            volume.commit(&some, false).expect("garbage is no reason to refuse");
        }
        let cost = volume.written() as f64 / volume.zone_bytes as f64;
        println!("{zone_mib} MiB, {share:.3} full of {value_bytes} bytes: {cost:.1} for each byte");
    }
}
