//! A full volume that is opened again takes deletes, whatever its keys take in the new mount's checkpoints.

use journal::{CommitError, Durability, Options};

use crate::rig::{Rig, name};

/// Puts so many keys under one flush: what an index that begins with many keys at once takes is less than what the next mount makes
/// of it. Yields how many were taken.
fn burst(rig: &mut Rig, keys: u32) -> u32 {
    let mut waiting = Vec::new();
    for first in (0..keys).step_by(32) {
        let names: Vec<_> = (first..first + 32).map(name).collect();
        let changes: Vec<_> = names.iter().map(|name| (&name[..], Some(&b""[..]))).collect();
        waiting.push(rig.asked(&changes, Durability::Durable));
    }
    let mut taken = 0;
    for task in waiting {
        match rig.drive(task) {
            Ok(_) => taken += 32,
            Err(CommitError::NoSpace) => {}
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

/// Puts a value of so many bytes under the keys from `next` on, until one is refused; yields the key that was.
fn fill(rig: &mut Rig, mut next: u32, bytes: usize) -> u32 {
    loop {
        match rig.commit(&[(&name(next), Some(&vec![1; bytes]))], Durability::Durable) {
            Ok(_) => next += 1,
            Err(CommitError::NoSpace) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Of both volumes the keys take a segment more of a checkpoint once they are opened again, so that more lives in them than
/// they would take, and every delete was refused from then on.
#[test]
fn a_full_volume_that_is_opened_again_deletes() {
    for (zone_kib, at_once, least_first) in
        [(1000, 5344, false), (2500, 13_344, false), (1000, 5344, true)]
    {
        let mut rig = Rig::new((zone_kib << 11) + 16_384, 512, 2, Options::default());
        let taken = burst(&mut rig, at_once);
        let keys = fill(&mut rig, taken, 0);
        // As far as new keys go; the rest is for longer values.
        for key in keys - 10..keys {
            rig.commit(&[(&name(key), None)], Durability::Durable).expect("a full volume deletes");
        }
        let mut next = 0;
        for bytes in [8000, 4000, 1000, 200, 50, 8] {
            next = fill(&mut rig, next, bytes);
        }
        rig.reopen();
        let left = rig.journal.stats().free_bytes;
        assert_eq!(left, 0, "the keys take more than before");
        let names: Vec<_> = (0..keys).map(name).collect();
        // One by one those that give back next to nothing.
        let (least, most) = names.split_at(if least_first { 2000 } else { 0 });
        for name in least.iter().rev() {
            rig.commit(&[(name, None)], Durability::Durable).expect("a full volume deletes");
        }
        for some in most.chunks(16) {
            let changes: Vec<_> = some.iter().map(|name| (&name[..], None)).collect();
            rig.commit(&changes, Durability::Durable).expect("a full volume deletes");
        }
        assert_eq!(rig.journal.stats().keys, 0);
        assert!(fill(&mut rig, 0, 0) > keys - 1000, "it takes as much as before");
    }
}
