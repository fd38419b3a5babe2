//! The counterexamples of the recovery model, T1 to T25, played to the real engine: each holds with the rule and breaks
//! without it.

use super::bench::{Answer, Bench, DEVICE_BYTES, Go, Store, cut_after, fates, on};
use crate::drive::Task;
use blockdev::Fate::{Garbage, New, Old};
use blockdev::{Cure, Damage, Fate, Fault, FaultKind, Repeat, Risk, SimDevice};
use journal::{Applied, CommitError, Durability, Mode, OpenError, Outcome, Plants};

/// What a trace ends with: nothing, or the broken promise.
pub type Ended = Result<(), String>;

pub(super) const A: &[u8] = b"/a";
pub(super) const B: &[u8] = b"/b";
pub(super) const C: &[u8] = b"/c";
/// A value whose group takes two blocks.
const LONG: &[u8] = &[7; 600];

/// Tells whether a place is in the superblock's slots.
pub(super) fn in_frame(offset: u64) -> bool {
    !(8192..DEVICE_BYTES - 8192).contains(&offset)
}

/// Cuts before the first flush that would make a superblock durable.
fn at_superblock(device: &SimDevice) -> Go {
    if device.risks().any(|risk| in_frame(risk.offset)) { Go::Cut } else { Go::On }
}

/// Keeps what was written to the superblock and loses the rest.
fn superblock_alone(risk: Risk) -> Fate {
    if in_frame(risk.offset) { New } else { Old }
}

pub(super) fn damage(bench: &mut Bench, places: &[u64]) {
    for place in places {
        bench.device.corrupt(*place, 512, Damage::Random);
    }
}

pub(super) fn expect_lost(bench: &mut Bench, store: &mut Store, keys: &[&[u8]]) -> Ended {
    for key in keys {
        let got = bench.get(store, key)?;
        if got != Answer::Lost {
            return Err(format!(
                "{} has {got:?}: its loss is silent",
                String::from_utf8_lossy(key)
            ));
        }
    }
    Ok(())
}

pub(super) fn expect_report(store: &Store) -> Ended {
    if store.journal.report().lost.is_empty() {
        return Err("the loss is not reported".into());
    }
    Ok(())
}

/// T1: two cuts in two mounts leave a superblock.
pub fn t1(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    bench.open_until(&mut cut_after(2))?;
    bench.device.power_cut_choosing(|_| Garbage);
    bench.open_until(&mut cut_after(1))?;
    bench.device.power_cut_choosing(|_| Garbage);
    bench.open_whole().map(drop)
}

/// T2: one copy of the superblock is enough.
pub fn t2(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    bench.open_until(&mut cut_after(1))?;
    bench.device.power_cut_choosing(|_| Garbage);
    damage(&mut bench, &[DEVICE_BYTES - 8192]);
    bench.open_whole().map(drop)
}

/// T3: what a mount did not find stays discarded, also when it can be read again.
pub fn t3(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.leave_in_flight(&mut store, &[(A, b"1"), (B, b"2")])?;
    bench.device.power_cut_choosing(fates(&[New, New, New, Old]));
    let only = *places.get(2).ok_or("two groups of one block")?;
    bench.device.make_unreadable(only, 512, Cure::Never);
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))?;
    bench.expect(&mut store, B, None)?;
    bench.device.power_cut_choosing(|_| Old);
    bench.device.heal();
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, B, None)
}

/// T4: what a mount has shown survives one fault.
pub fn t4(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.leave_in_flight(&mut store, &[(A, b"1")])?;
    bench.device.power_cut_choosing(fates(&[New, Old]));
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))?;
    bench.device.power_cut_choosing(|_| Old);
    damage(&mut bench, places.get(..1).unwrap_or_default());
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))
}

/// T5: a superblock vouches for nothing whose repair is not durable.
pub fn t5(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.leave_in_flight(&mut store, &[(A, b"1")])?;
    bench.device.power_cut_choosing(fates(&[New, Old]));
    bench.open_until(&mut at_superblock)?;
    bench.device.power_cut_choosing(superblock_alone);
    damage(&mut bench, places.get(..1).unwrap_or_default());
    bench.open_whole().map(drop)
}

/// T6: the walk goes on in the next use.
pub fn t6(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    for n in 0..6_u8 {
        bench.put(&mut store, &[b'/', b'a' + n], &[n; 40])?;
    }
    let mut store = bench.open_whole()?;
    for n in 0..6_u8 {
        bench.expect(&mut store, &[b'/', b'a' + n], Some(&[n; 40]))?;
    }
    Ok(())
}

/// T7: a later group proves nothing about one that was in flight with it.
pub fn t7(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.leave_in_flight(&mut store, &[(A, b"1"), (B, b"2")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, New]));
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, None)?;
    bench.expect(&mut store, B, None)
}

/// T8: a loss is reported at every mount, and its numbers are not given out again.
pub fn t8(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    bench.leave_in_flight(&mut store, &[(B, b"2"), (C, b"3")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, New]));
    damage(&mut bench, &places);
    for _ in 0..3 {
        let mut store = bench.open()?;
        expect_report(&store)?;
        expect_lost(&mut bench, &mut store, &[A])?;
    }
    Ok(())
}

/// T9: a header is evidence even where its payload is torn.
pub fn t9(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    let torn = bench.leave_in_flight(&mut store, &[(B, LONG)])?;
    if torn.len() != 4 {
        return Err(format!("two blocks in each copy, not {torn:?}"));
    }
    bench.device.power_cut_choosing(fates(&[New, Old, Old, Old]));
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[A])
}

/// T10: a copy that lands on its mirror destroys nothing.
pub fn t10(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let mut before = bench.fork();
    let mut again = before.open()?;
    let places = before.put(&mut again, B, b"2")?;
    for (after, to) in [(0, places.get(1)), (1, places.first())] {
        let mut bench = before_put(&bench)?;
        let to = *to.ok_or("two copies")?;
        let kind = FaultKind::WriteMisdirected { to };
        bench.0.device.inject(Fault { kind, after, repeat: Repeat::Once });
        bench.0.put(&mut bench.1, B, b"2")?;
        let mut store = bench.0.open_whole()?;
        if store.journal.report().repaired != 1 {
            return Err("the copy that was written elsewhere is not repaired".into());
        }
        bench.0.expect(&mut store, A, Some(b"1"))?;
        bench.0.expect(&mut store, B, Some(b"2"))?;
    }
    Ok(())
}

fn before_put(bench: &Bench) -> Result<(Bench, Store), String> {
    let mut bench = bench.fork();
    let store = bench.open()?;
    Ok((bench, store))
}

/// T11: a device whose physical unit is larger than the block is refused.
pub fn t11(plants: Plants) -> Ended {
    let mut fine = Bench::new(plants);
    let image = fine.device.durable().to_vec();
    let mut bench = Bench::coarse(plants);
    bench.device.restore(&image);
    let mut store = match bench.try_open(&mut on)?.ok_or("cut")? {
        Err(OpenError::Geometry(_)) => return Ok(()),
        Err(other) => return Err(format!("refused for another reason: {other}")),
        Ok(store) => store,
    };
    bench.put(&mut store, A, b"1")?;
    bench.leave_in_flight(&mut store, &[(B, b"2")])?;
    bench.device.power_cut_choosing(|_| Garbage);
    fine.device.restore(bench.device.durable());
    let mut store = fine.open_whole()?;
    fine.expect(&mut store, A, Some(b"1"))
}

/// Tells whether a checkpoint is among what no flush covers.
fn writes_checkpoint(device: &SimDevice) -> bool {
    device.risks().any(|risk| {
        let at = usize::try_from(risk.offset).unwrap_or(usize::MAX);
        let header = device.visible().get(at..).unwrap_or_default();
        header.starts_with(b"SFG1") && header.get(6).is_some_and(|flags| flags & 1 != 0)
    })
}

/// Puts until a checkpoint is written, and cuts before the superblock that adopts it; yields the last put's places and
/// what it put.
fn up_to_a_checkpoint(bench: &mut Bench, store: &mut Store) -> Result<(Vec<u64>, u8), String> {
    for n in 0..200_u8 {
        let places = bench.put(store, A, &[n; 30])?;
        let mut written = false;
        let mut go = |device: &SimDevice| {
            written |= writes_checkpoint(device);
            let adopts = written && at_superblock(device) == Go::Cut;
            if adopts { Go::Cut } else { Go::On }
        };
        if !bench.idle_until(store, &mut go)? {
            return Ok((places, n));
        }
    }
    Err("no checkpoint is written".into())
}

/// T12: the heads of unlisted segments are evidence.
pub fn t12(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let (places, _) = up_to_a_checkpoint(&mut bench, &mut store)?;
    bench.device.power_cut_choosing(|_| Old);
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[A])
}

/// T13: nothing relies on a superblock before its second pair is durable.
pub fn t13(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    bench.device.power_cut_choosing(|_| Old);
    bench.open_until(&mut at_superblock)?;
    bench.device.power_cut_choosing(|_| Garbage);
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))
}

/// T14: a superblock adopts no checkpoint that is not durable.
pub fn t14(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let (_, last) = up_to_a_checkpoint(&mut bench, &mut store)?;
    bench.device.power_cut_choosing(superblock_alone);
    let mut store = bench.open_whole()?;
    if store.journal.report().checkpoint_bytes == 0 {
        return Err("the checkpoint is not adopted".into());
    }
    bench.expect(&mut store, A, Some(&[last; 30]))
}

/// T17: a flush covers what had been written when it was issued.
pub fn t17(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    bench.options.flush_bytes_max = 1;
    let mut store = bench.open()?;
    let commits = [A, B, C].map(|key| store.submit(&[(key, Some(b"1"))], Durability::Durable));
    for (key, commit) in [A, B, C].into_iter().zip(commits) {
        bench.drive(&mut store, commit, &mut on)?.ok_or("cut")?.map_err(|e| e.to_string())?;
        let mut cut = bench.fork();
        cut.device.power_cut_choosing(|_| Old);
        let mut store = cut.open_whole()?;
        cut.expect(&mut store, key, Some(b"1"))?;
    }
    Ok(())
}

/// T18: a flush that failed is not tried again.
pub fn t18(plants: Plants) -> Ended {
    for shows in [false, true] {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        let kind = FaultKind::FlushFails { shows };
        bench.device.inject(Fault { kind, after: 0, repeat: Repeat::Once });
        let acknowledged = bench.put(&mut store, A, b"1").is_ok();
        let later = bench.put(&mut store, B, b"2").is_ok();
        let stopped = matches!(store.journal.mode(), Mode::ReadOnly(_));
        bench.device.power_cut_choosing(|_| Old);
        let mut store = bench.open_whole()?;
        if acknowledged {
            bench.expect(&mut store, A, Some(b"1"))?;
        }
        if later || !stopped {
            return Err("the store goes on after a failed flush".into());
        }
    }
    Ok(())
}

/// T19: a mount flushes before it believes what it reads.
pub fn t19(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.leave_in_flight(&mut store, &[(A, b"1")])?;
    bench.device.process_death();
    bench.open_until(&mut at_superblock)?;
    bench.device.power_cut_choosing(superblock_alone);
    bench.open_whole().map(drop)?;
    let kind = FaultKind::FlushFails { shows: true };
    bench.device.inject(Fault { kind, after: 0, repeat: Repeat::Once });
    match bench.try_open(&mut on)? {
        Some(Err(OpenError::Flush(_))) => Ok(()),
        _ => Err("a mount goes on without its first flush".into()),
    }
}

/// T20 to T24: a mount writes nothing but repairs to the zones before all four copies of the superblock are its own.
pub fn t20(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.leave_in_flight(&mut store, &[(A, b"1")])?;
    bench.device.power_cut_choosing(fates(&[New, Old]));
    let mut updates = 0;
    let mut foreign = Vec::new();
    let mut go = |device: &SimDevice| {
        updates += u32::from(at_superblock(device) == Go::Cut);
        let zones = device.risks().map(|risk| risk.offset).filter(|offset| !in_frame(*offset));
        foreign.extend(zones.filter(|offset| places.get(1) != Some(offset)));
        Go::On
    };
    let store = bench.open_until(&mut go)?.ok_or("cut")?;
    if store.journal.report().repaired != 1 || updates != 2 || !foreign.is_empty() {
        return Err(format!("{updates} updates, writes to {foreign:?}"));
    }
    Ok(())
}

/// T25: a checkpoint carries losses on.
pub fn t25(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    bench.put(&mut store, B, b"2")?;
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[A, b"/z"])?;
    for n in 0..100_u8 {
        bench.put(&mut store, C, &[n; 400])?;
        bench.idle(&mut store)?;
    }
    if store.journal.stats().checkpoints < 2 {
        return Err("no checkpoint is written".into());
    }
    let mut store = bench.open()?;
    bench.expect(&mut store, C, Some(&[99; 400]))?;
    if store.journal.mode() != Mode::Degraded {
        return Err("keys are in doubt, and the store calls itself healthy".into());
    }
    expect_lost(&mut bench, &mut store, &[A, b"/z"])
}

/// A group in the middle that is gone is reported, and what it may have held is in doubt.
pub fn a_gap_is_reported(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let places = bench.put(&mut store, B, b"2")?;
    bench.put(&mut store, C, b"3")?;
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    bench.expect(&mut store, C, Some(b"3"))?;
    expect_lost(&mut bench, &mut store, &[A, B])
}

/// Each key that is deleted after a loss is written down in every checkpoint, also one that never was: such deletes are refused
/// in time, and whatever was taken before that stays.
pub fn deletes_after_a_loss_are_bounded(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let places = bench.put(&mut store, B, b"2")?;
    bench.put(&mut store, C, b"3")?;
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    let key = |n: u32| format!("/what/never/was/{n:032}").into_bytes();
    let mut taken = 0;
    while taken < 2000 {
        let commit = store.submit(&[(&key(taken), None)], Durability::Durable);
        match bench.drive(&mut store, commit, &mut on)?.ok_or("cut")? {
            Ok(_) => taken += 1,
            Err(CommitError::NoSpace) => break,
            Err(error) => return Err(format!("delete {taken}: {error}")),
        }
    }
    if !(20..2000).contains(&taken) {
        return Err(format!("{taken} deletes were taken"));
    }
    let journal = store.journal.clone();
    let checkpoint: Task<_> = Box::pin(async move { journal.checkpoint().await });
    let written = bench.drive(&mut store, checkpoint, &mut on)?.ok_or("cut")?;
    written.map_err(|error| format!("no checkpoint: {error}"))?;
    let mut store = bench.open_whole()?;
    for n in 0..taken {
        bench.expect(&mut store, &key(n), None)?;
    }
    expect_lost(&mut bench, &mut store, &[&key(taken)])?;
    // A start makes no room for them.
    for n in taken..taken + 3 {
        let commit = store.submit(&[(&key(n), None)], Durability::Durable);
        match bench.drive(&mut store, commit, &mut on)?.ok_or("cut")? {
            Err(CommitError::NoSpace) => {}
            other => return Err(format!("delete {n} after a start: {other:?}")),
        }
    }
    expect_lost(&mut bench, &mut store, &[&key(taken)])
}

/// A value that goes bad while the store runs is read from the other copy, and is never absent.
pub fn a_value_goes_bad(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    damage(&mut bench, places.get(..1).unwrap_or_default());
    bench.expect(&mut store, A, Some(b"1"))?;
    damage(&mut bench, &places);
    expect_lost(&mut bench, &mut store, &[A])
}

/// Copy B alone is enough.
pub fn copy_b_is_enough(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    bench.device.corrupt(*places.first().ok_or("written")?, 512, Damage::Zero);
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))
}

/// A checkpoint of which both copies of the last group were lost is not adopted, and the store goes on without it.
pub fn a_checkpoint_is_read_back(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut counted = bench.fork();
    let mut store = counted.open()?;
    let mut first = None;
    for n in 0..200_u8 {
        counted.put(&mut store, A, &[n; 30])?;
        let mut go = |device: &SimDevice| {
            if writes_checkpoint(device) { Go::Cut } else { Go::On }
        };
        if !counted.idle_until(&mut store, &mut go)? {
            first = Some(counted.count.writes - 2);
            break;
        }
    }
    let mut store = bench.open()?;
    let spared = first.ok_or("no checkpoint is written")? - bench.count.writes;
    for after in [spared, spared + 1] {
        let kind = FaultKind::WriteLost;
        bench.device.inject(Fault { kind, after, repeat: Repeat::Once });
    }
    for n in 0..60_u8 {
        if bench.put(&mut store, A, &[n; 30]).is_err() {
            // Without room for another try, the store stops before it relies on such a checkpoint.
            if !matches!(store.journal.mode(), Mode::ReadOnly(_)) {
                return Err(format!("put {n} is refused"));
            }
            store = bench.open_whole()?;
            bench.put(&mut store, A, &[n; 30])?;
        }
        bench.idle(&mut store)?;
        let mut again = bench.fork();
        let mut store = again.open_whole()?;
        again.expect(&mut store, A, Some(&[n; 30]))?;
    }
    Ok(())
}

/// A block that stays bad, also when it is written, stops neither checkpoints nor the store.
pub fn a_bad_block_stops_nothing(plants: Plants) -> Ended {
    for block in (16..112).step_by(4) {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        bench.device.make_unreadable(block * 512, 512, Cure::Never);
        for n in 0..80_u8 {
            let put = bench.put(&mut store, A, &[n; 30]);
            put.map_err(|what| format!("block {block}, put {n}: {what}"))?;
            bench.idle(&mut store)?;
        }
        let mut store = bench.open_whole()?;
        bench.expect(&mut store, A, Some(&[79; 30]))?;
    }
    Ok(())
}

/// A version that was told is never told again for another write.
pub fn versions_do_not_repeat(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut told = Vec::new();
    for n in 0..4_u8 {
        let mut store = bench.open_whole()?;
        let commit = store.submit(&[(A, Some(&[n]))], Durability::Buffered);
        let outcome = bench.drive(&mut store, commit, &mut on)?.ok_or("cut")?;
        let Ok(Outcome::Applied(applied)) = outcome else {
            return Err(format!("a buffered put ended with {outcome:?}"));
        };
        let [Applied::Put(version)] = applied.as_slice() else {
            return Err(format!("a put was answered {applied:?}"));
        };
        if told.contains(version) {
            return Err("two writes have one version".into());
        }
        told.push(*version);
        bench.device.power_cut_choosing(|_| Old);
    }
    Ok(())
}

/// A mount replays no more than the superblock states.
pub fn replay_is_bounded(plants: Plants) -> Ended {
    let mut bench = Bench::sized(plants, 2 * DEVICE_BYTES);
    bench.options.replay_bytes = Some(4096);
    let mut store = bench.open()?;
    let mut stated = 0;
    for n in 0..200_u8 {
        bench.put(&mut store, &[b'/', b'a' + n % 5], &[n; 300])?;
        bench.idle(&mut store)?;
        let mut again = bench.fork();
        let opened = again.open_whole()?;
        let report = opened.journal.report();
        stated += u32::from(report.replay_bytes > 0);
        if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
            return Err(format!("replay passes its bound: {report:?}"));
        }
    }
    if stated < 100 { Err(format!("the bound was stated {stated} times")) } else { Ok(()) }
}
