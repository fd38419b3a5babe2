//! What the engine does beside the log: moves, watermarks, the check; each with the rule that a plant switches off.

use super::bench::{Bench, Go, fates};
use super::traces::{A, B, C, Ended, damage, expect_lost, expect_report};
use blockdev::Fate::{New, Old};
use blockdev::SimDevice;
use journal::{Durability, Outcome, Plants};

/// A value in doubt that cleaning moves stays in doubt, at whatever moment the store is opened again.
pub fn a_move_keeps_doubt(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, B, b"old")?;
    let places = bench.put(&mut store, A, b"1")?;
    bench.put(&mut store, C, b"2")?;
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[B])?;
    let mut moved = 0;
    for n in 0..200_u8 {
        bench.put(&mut store, C, &[n; 400])?;
        bench.idle(&mut store)?;
        let moves = store.journal.stats().moves;
        if moves > moved {
            moved = moves;
            let mut again = bench.fork();
            let mut store = again.open()?;
            expect_lost(&mut again, &mut store, &[B])?;
        }
    }
    if moved == 0 { Err("nothing is moved".into()) } else { Ok(()) }
}

/// A strict commit is vouched for when it is answered: damage to both of its copies is told.
pub fn strict_is_vouched_for(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut places = Vec::new();
    let mut go = |device: &SimDevice| {
        if places.is_empty() {
            places = device.risks().map(|risk| risk.offset).collect();
        }
        Go::On
    };
    let commit = store.submit(&[(A, Some(b"1"))], Durability::Strict);
    match bench.drive(&mut store, commit, &mut go)? {
        Some(Ok(Outcome::Applied(_))) => {}
        other => return Err(format!("a commit ended with {other:?}")),
    }
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[A])
}

/// A check repairs nothing of a torn tail, though its numbers were given out again and are durable by now.
pub fn a_check_leaves_a_torn_tail(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    bench.leave_in_flight(&mut store, &[(A, b"2"), (B, b"3")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, Old]));
    let mut store = bench.open_whole()?;
    bench.commit(&mut store, &[(A, Some(b"4")), (B, Some(b"5")), (C, Some(b"6"))])?;
    match bench.check(&mut store)? {
        0 => bench.expect(&mut store, B, Some(b"5")),
        repaired => Err(format!("{repaired} copies of a torn tail are repaired")),
    }
}
