//! Faults that a running store meets and deals with before the next mount.

use super::bench::{Answer, Bench, DEVICE_BYTES, Go, Store, cut_after, fates, on};
use super::rich::{Age, keys, rich};
use super::traces::{A, B, C, Ended, damage};
use crate::drive::{Task, poll};
use blockdev::{Cure, Damage, Fate, Fault, FaultKind, Repeat};
use journal::{BlockIndex, CommitError, Durability, Mode, Outcome, Plants, SegmentIndex, Zone};
use std::task::Poll;

const SLOT: usize = 4096;
/// Where the copies of the superblock lie.
const COPIES: [u64; 4] = [0, 4096, DEVICE_BYTES - 8192, DEVICE_BYTES - 4096];

/// Copies of the superblock go bad, or back to what they held earlier, under a running store: a check finds each and mends
/// it, and where the power is cut meanwhile one is left.
pub fn a_check_mends_superblocks(plants: Plants) -> Ended {
    one_after_another(plants)?;
    for set in 1..16_u8 {
        for stale in [false, true] {
            let told = |what| format!("copies {set:04b}, stale {stale}: {what}");
            mended_whole(plants, set, stale).map_err(told)?;
            for spared in 0..2 {
                // Of a superblock that is in no copy nothing can be left.
                if set < 15 {
                    cut(plants, set, stale, spared).map_err(told)?;
                }
            }
        }
    }
    Ok(())
}

/// Each copy goes bad once, and nothing but a check comes between.
fn one_after_another(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    for place in COPIES {
        bench.device.corrupt(place, SLOT, Damage::Random);
        mended(&mut bench, &mut store, 1)?;
    }
    whole(&mut bench)
}

fn mended_whole(plants: Plants, set: u8, stale: bool) -> Ended {
    let (mut bench, mut store) = struck(plants, set, stale)?;
    mended(&mut bench, &mut store, set.count_ones().into())?;
    whole(&mut bench)
}

/// A check tells and counts so many repairs, and the next one none.
fn mended(bench: &mut Bench, store: &mut Store, expected: u64) -> Ended {
    let before = store.journal.stats().repaired;
    let told = bench.check(store)?;
    let counted = store.journal.stats().repaired - before;
    let again = bench.check(store)?;
    if (told, counted, again) == (expected, expected, 0) {
        return Ok(());
    }
    Err(format!("{told} repairs are told and {counted} counted, not {expected}, and {again} again"))
}

/// A mount after a power cut finds every copy in order.
fn whole(bench: &mut Bench) -> Ended {
    bench.device.power_cut_choosing(|_| Fate::Old);
    let mut store = bench.open_whole()?;
    match store.journal.report().superblocks_damaged {
        0 => bench.expect(&mut store, A, Some(b"1")),
        damaged => Err(format!("{damaged} superblocks are still damaged")),
    }
}

/// The power is cut at a flush of the repair, and leaves nothing of what was on its way.
fn cut(plants: Plants, set: u8, stale: bool, spared: u32) -> Ended {
    let (mut bench, mut store) = struck(plants, set, stale)?;
    if let Some(repaired) = bench.check_until(&mut store, &mut cut_after(spared))? {
        return Err(format!("{repaired} repairs under {spared} flushes"));
    }
    bench.device.power_cut_choosing(|_| Fate::Garbage);
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))
}

/// A running store, and the copies of the set as they were at its start, or damaged.
fn struck(plants: Plants, set: u8, stale: bool) -> Result<(Bench, Store), String> {
    let mut bench = Bench::new(plants);
    let older = bench.device.durable().to_vec();
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let mut image = bench.device.durable().to_vec();
    for (copy, place) in COPIES.into_iter().enumerate().filter(|(copy, _)| set >> copy & 1 == 1) {
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        let (into, from) = (image.get_mut(at..at + SLOT), older.get(at..at + SLOT));
        match into.zip(from) {
            Some((into, from)) if stale => into.copy_from_slice(from),
            Some((into, _)) => into.iter_mut().for_each(|byte| *byte ^= 0x5a),
            None => return Err(format!("there is no copy {copy}")),
        }
    }
    bench.device.restore(&image);
    Ok((bench, store))
}

/// Groups are lost in which no value lives, and groups of the checkpoint: a check tells of each, and what the next mount would read
/// in their place is written before it comes to that.
pub fn a_check_tells_what_a_mount_would_miss(plants: Plants) -> Ended {
    let kept: [(&[u8], Option<&[u8]>); 3] = [(A, Some(b"1")), (B, None), (C, Some(b"3"))];
    for last in [false, true] {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        bench.put(&mut store, A, b"1")?;
        bench.put(&mut store, B, b"2")?;
        if last {
            bench.put(&mut store, C, b"3")?;
        }
        let deleted = written(&mut bench, &mut store, |store| {
            store.submit(&[(B, None)], Durability::Durable)
        })?;
        if !last {
            bench.put(&mut store, C, b"3")?;
        }
        told_and_healed(&mut bench, &mut store, &deleted, &kept)
            .map_err(|what| format!("of the log, last {last}: {what}"))?;
    }
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    bench.put(&mut store, C, b"3")?;
    let written = written(&mut bench, &mut store, checkpoint)?;
    told_and_healed(&mut bench, &mut store, &written, &kept)
        .map_err(|what| format!("of the checkpoint: {what}"))
}

/// Runs a task; yields where it wrote what its first flush covered.
fn written<T>(
    bench: &mut Bench,
    store: &mut Store,
    task: impl FnOnce(&Store) -> Task<Result<T, CommitError>>,
) -> Result<Vec<u64>, String> {
    let (task, mut places) = (task(store), Vec::new());
    let go = &mut |device: &blockdev::SimDevice| {
        if places.is_empty() {
            places = device.risks().map(|risk| risk.offset).collect();
        }
        Go::On
    };
    bench.drive(store, task, go)?.ok_or("cut")?.map_err(|error| error.to_string())?;
    Ok(places)
}

/// Some blocks go bad under a running store: a check tells it, once, and a mount finds nothing lost.
fn told_and_healed(
    bench: &mut Bench,
    store: &mut Store,
    bad: &[u64],
    kept: &[(&[u8], Option<&[u8]>)],
) -> Ended {
    let before = bench.checked(store)?;
    damage(bench, bad);
    let first = bench.checked(store)?;
    bench.idle(store)?;
    let second = bench.checked(store)?;
    if (before.damaged, first.damaged > 0, second.damaged) != (0, true, 0) {
        return Err(format!("{before:?}, then {first:?}, then {second:?}"));
    }
    bench.device.power_cut_choosing(|_| Fate::Old);
    let mut store = bench.open_whole()?;
    kept.iter().try_for_each(|(key, value)| bench.expect(&mut store, key, *value))
}

fn checkpoint(store: &Store) -> Task<Result<(), CommitError>> {
    let journal = store.journal.clone();
    Box::pin(async move { journal.checkpoint().await })
}

/// A checkpoint that was asked for and that the device does not read back is no want of room: it says what it was, and the
/// next one is written.
pub fn not_read_back(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    bench.device.inject(Fault { kind: FaultKind::ReadFails, after: 0, repeat: Repeat::Always });
    let asked = checkpoint(&store);
    let told = bench.drive(&mut store, asked, &mut on)?.ok_or("cut")?;
    if told != Err(CommitError::NotReadBack) || store.journal.mode() != Mode::Healthy {
        return Err(format!("it ends with {told:?} in {:?}", store.journal.mode()));
    }
    bench.device.heal();
    let asked = checkpoint(&store);
    let told = bench.drive(&mut store, asked, &mut on)?.ok_or("cut")?;
    told.map_err(|error| format!("another one ends with {error}"))?;
    bench.put(&mut store, B, b"2")?;
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))?;
    bench.expect(&mut store, B, Some(b"2"))
}

/// Volumes that are as good as full, and of whose next checkpoint one copy is not read back, once: that segment is left alone, and
/// taken all the same before a commit is refused that was admitted, for one copy holds what it is given.
pub fn room_is_not_short_for_one_copy(plants: Plants) -> Ended {
    // Where values of 174 bytes fill a volume, one segment decides.
    for value_bytes in [120, 174, 178, 300] {
        overwritten_at_the_brim(plants, value_bytes)
            .map_err(|what| format!("values of {value_bytes} bytes: {what}"))?;
    }
    Ok(())
}

fn overwritten_at_the_brim(plants: Plants, value_bytes: usize) -> Ended {
    let name = |n: u32| format!("/{n:03}").into_bytes();
    let (mut bench, value) = (Bench::sized(plants, 2 * DEVICE_BYTES), vec![7; value_bytes]);
    let mut store = bench.open()?;
    let mut keys = 0;
    while put_admitted(&mut bench, &mut store, &name(keys), &value)? {
        keys += 1;
    }
    for n in keys - 2..keys {
        bench.commit(&mut store, &[(&name(n), None)])?;
    }
    keys -= 2;
    // More than once: the segment is tried again and again.
    for _ in 0..4 {
        for after in 0..=64 {
            bench.device.heal();
            let kind = FaultKind::ReadMisdirected { from: 0 };
            bench.device.inject(Fault { kind, after, repeat: Repeat::Once });
            let asked = checkpoint(&store);
            match bench.drive(&mut store, asked, &mut on)?.ok_or("cut")? {
                Err(CommitError::NotReadBack) => break,
                told => told.map_err(|error| format!("a checkpoint ends with {error}"))?,
            }
        }
        for n in 0..8 * keys {
            put_admitted(&mut bench, &mut store, &name(n * 7 % keys), &value)?;
        }
    }
    let mut store = bench.open_whole()?;
    (0..keys).try_for_each(|n| bench.expect(&mut store, &name(n), Some(&value)))
}

/// Puts a value, unless that is refused at once: what is not must come to be.
fn put_admitted(
    bench: &mut Bench,
    store: &mut Store,
    key: &[u8],
    value: &[u8],
) -> Result<bool, String> {
    let mut put = store.submit(&[(key, Some(value))], Durability::Durable);
    if let Poll::Ready(Err(CommitError::NoSpace)) = poll(&mut put) {
        return Ok(false);
    }
    match bench.drive(store, put, &mut on)?.ok_or("cut")? {
        Ok(Outcome::Applied(_)) => Ok(true),
        told => Err(format!("a put that was admitted ends with {told:?}")),
    }
}

/// Who asks for a checkpoint while one is written that does not cover all that is durable by now gets the next one.
pub fn asked_meanwhile(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let mut first = checkpoint(&store);
    if poll(&mut first).is_ready() {
        return Err("there is nothing to write".into());
    }
    bench.put(&mut store, B, b"2")?;
    if store.journal.stats().checkpoints > 0 {
        return Err("the first one has ended already".into());
    }
    let second = checkpoint(&store);
    for (which, task) in [("second", second), ("first", first)] {
        let told = bench.drive(&mut store, task, &mut on)?.ok_or("cut")?;
        told.map_err(|error| format!("the {which} ends with {error}"))?;
    }
    match store.journal.stats().checkpoints {
        2 => Ok(()),
        written => Err(format!("{written} checkpoints are written")),
    }
}

/// Each read of an `fsck` that repairs fails once, or brings something else: what is sound stays as it is, for both copies
/// are read again before anything is written.
pub fn misread_by_fsck(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    for (key, value) in [(A, &[1; 40][..]), (B, &[2; 600]), (C, &[3; 40])] {
        bench.put(&mut store, key, value)?;
        bench.idle(&mut store)?;
    }
    // A cut leaves one copy of the superblock that is newer than the others.
    bench.open_until(&mut cut_after(1))?;
    bench.device.power_cut_choosing(fates(&[Fate::New; 8]));
    let sound = bench.device.durable().to_vec();
    for kind in [FaultKind::ReadFails, FaultKind::ReadMisdirected { from: 20 << 10 }] {
        for after in 0.. {
            let mut bench = bench.fork();
            bench.device.inject(Fault { kind, after, repeat: Repeat::Once });
            let reads = bench.count.reads;
            let written = bench.mend()?;
            if !written.is_empty() || bench.device.durable() != sound {
                return Err(format!("{kind:?}, read {after}: blocks are written at {written:?}"));
            }
            if bench.count.reads - reads <= after {
                break;
            }
        }
    }
    Ok(())
}

/// What lets a segment be tried again of which a value could not be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Nothing,
    Later,
    Check,
}

/// A segment that cleaning could not read is left alone for a while and then tried again, or once a check was made: it does
/// not hold its room until the next mount, nor is it tried all the time.
pub fn tried_again(plants: Plants) -> Ended {
    for again in [Again::Nothing, Again::Later, Again::Check] {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        let places = bench.put(&mut store, A, b"1")?;
        bench.put(&mut store, C, &[0; 400])?;
        for place in &places {
            bench.device.make_unreadable(*place, 512, Cure::Never);
        }
        let (reads, free) = (bench.count.reads, store.journal.stats().free_bytes);
        // Of a segment of four blocks cleaning never fills the last.
        let held = |store: &Store| free.saturating_sub(store.journal.stats().free_bytes);
        clean(&mut bench, &mut store)?;
        let reads = bench.count.reads - reads;
        if store.journal.stats().cleaned == 0 || reads > 4000 {
            return Err(format!("{reads} reads, and {} cleaned", store.journal.stats().cleaned));
        }
        if held(&store) < 512 {
            return Err(format!("it holds its room, and {} bytes fewer are free", held(&store)));
        }
        bench.device.heal();
        match again {
            Again::Nothing => {}
            Again::Later => store.clock.set(60_000),
            Again::Check => bench.check(&mut store).map(drop)?,
        }
        clean(&mut bench, &mut store)?;
        // What was moved lies elsewhere by now.
        damage(&mut bench, &places);
        if (again == Again::Nothing) != (held(&store) >= 512) {
            return Err(format!("then {} bytes fewer are free", held(&store)));
        }
        let expected = (again == Again::Nothing).then_some(Answer::Lost);
        let expected = expected.unwrap_or_else(|| Answer::Value(b"1"[..].into()));
        let got = bench.get(&mut store, A)?;
        if got != expected {
            return Err(format!("it is {got:?}, not {expected:?}"));
        }
    }
    Ok(())
}

/// A copy goes bad at a place that takes no writes: the other one is served, nothing else stops, and a later read tries again.
pub fn a_repair_that_is_not_taken(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let places = bench.put(&mut store, A, b"1")?;
    let written = checkpoint(&store);
    let written = bench.drive(&mut store, written, &mut on)?.ok_or("cut")?;
    written.map_err(|error| format!("no checkpoint: {error}"))?;
    bench.idle(&mut store)?;
    damage(&mut bench, places.get(..1).ok_or("two copies")?);
    for taken in [false, true] {
        if !taken {
            let (kind, repeat) = (FaultKind::WriteFails, Repeat::Once);
            bench.device.inject(Fault { kind, after: 0, repeat });
        }
        bench.expect(&mut store, A, Some(b"1"))?;
        bench.idle(&mut store)?;
        if matches!(store.journal.mode(), Mode::ReadOnly(_)) {
            return Err("a copy that is not repaired ends writing".into());
        }
        let repaired = store.journal.stats().repaired;
        if repaired != u64::from(taken) {
            return Err(format!("{repaired} copies are repaired, the device takes it: {taken}"));
        }
    }
    bench.put(&mut store, B, b"2")?;
    Ok(())
}

/// Both copies of values go bad in five of twelve segments while the store runs, and the volume is filled then: no delete is
/// refused, or nothing but a salvage makes room any more.
pub fn deletes_beside_damage(plants: Plants) -> Ended {
    let rich = rich(Plants::default(), Age::Old)?;
    let mut bench = Bench::blank(plants, DEVICE_BYTES);
    bench.seed = 1 << 20;
    bench.device.restore(&rich.image);
    let mut store = bench.open()?;
    bench.idle(&mut store)?;
    let geometry = store.journal.stats().geometry;
    let segments = bench.inspect()?.volume.ok_or("no volume")?.segments;
    for (segment, fact) in (0..).map(SegmentIndex).zip(&segments) {
        for zone in [Zone::A, Zone::B] {
            if fact.live_values > 0 && !fact.checkpoint {
                let place = geometry.block_offset(zone, segment, BlockIndex(0));
                bench.device.corrupt(place, geometry.segment_bytes(), Damage::Random);
            }
        }
    }
    let mut change = |key: &[u8], value: Option<&[u8]>| {
        let change = store.submit(&[(key, value)], Durability::Durable);
        bench.drive(&mut store, change, &mut on)?.ok_or_else(|| String::from("cut"))
    };
    let mut taken = 0;
    while change(format!("/{taken}").as_bytes(), Some(&[7; 200]))?.is_ok() {
        taken += 1;
    }
    for key in [b"/0".to_vec()].into_iter().chain(keys()) {
        change(&key, None)?.map_err(|error| {
            format!("{} is not deleted, with {taken} keys: {error}", String::from_utf8_lossy(&key))
        })?;
    }
    change(b"/0", Some(&[7; 200]))?.map_err(|error| format!("nothing is written: {error}"))?;
    Ok(())
}

/// Overwrites a value so often that every other one must have been moved.
fn clean(bench: &mut Bench, store: &mut Store) -> Ended {
    for n in 0..100_u8 {
        bench.put(store, C, &[n; 400])?;
        bench.idle(store)?;
    }
    Ok(())
}
