//! Deletes of a full volume while it is maintained: they may take a segment that others leave to cleaning, and no more.

use super::bench::{Answer, Bench, Commit, DEVICE_BYTES, Store, on};
use super::rich::{self, Age};
use super::traces::Ended;
use crate::drive::Task;
use blockdev::Damage;
use fastrand::Rng;
use journal::{BlockIndex, CommitError, Durability, Outcome, Plants, SegmentIndex, Zone};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

/// Volumes that are tried.
const VOLUMES: u64 = 600;
/// Commits of each, once it is full.
const COMMITS: u32 = 80;
/// Segments of twelve in which values go bad, at most: such that deletes are taken to the end.
const DAMAGED_MAX: usize = 5;
/// Most bytes of a value.
const VALUE_BYTES_MAX: usize = 400;
/// No key: to delete it takes room and gives none back.
const ABSENT: u32 = u32::MAX;

/// Keys and their values.
type Values = BTreeMap<u32, Vec<u8>>;

/// What is on its way, in order: the key, its value or none for a delete, and its answer.
type OnItsWay = Vec<(u32, Option<Vec<u8>>, Commit)>;

/// Values are written over and deleted at any moments of cleaning and of checkpoints, on volumes that are full and of which
/// damage holds segments: all commits end, no value but theirs changes, and no delete is refused for good.
pub fn beside_maintenance(plants: Plants) -> Ended {
    let image = rich::rich(Plants::default(), Age::Old)?.image;
    let mut deletes = 0;
    for seed in 0..VOLUMES {
        let mut bench = Bench::blank(plants, DEVICE_BYTES);
        bench.seed = (1 << 20) + (seed << 8);
        bench.device.restore(&image);
        deletes += volume(&mut bench, seed).map_err(|what| format!("volume {seed}: {what}"))?;
    }
    match deletes {
        0..20_000 => Err(format!("{deletes} deletes came while a volume was maintained")),
        _ => Ok(()),
    }
}

/// Yields how many deletes came while the volume was maintained.
fn volume(bench: &mut Bench, seed: u64) -> Result<u32, String> {
    let mut rng = Rng::with_seed(seed);
    let mut store = bench.open()?;
    bench.idle(&mut store)?;
    damage(bench, &store, &mut rng)?;
    let others = others(bench, &mut store)?;
    let mut values = full(bench, &mut store, &mut rng)?;
    let (mut on_its_way, mut deletes) = (OnItsWay::new(), 0);
    let keys = u32::try_from(values.len()).map_err(|error| error.to_string())?;
    for _ in 0..COMMITS {
        let burst = store.journal.stats().maintaining && rng.bool();
        let burst = if burst { rng.u32(1..8) } else { 0 };
        (0..burst).for_each(|_| delete(&store, &mut on_its_way, ABSENT));
        deletes += burst;
        match (rng.u32(..keys), rng.u8(..6)) {
            (_, 0) => delete(&store, &mut on_its_way, ABSENT),
            (n, 1) => delete(&store, &mut on_its_way, n),
            (n, _) => put(&store, &mut on_its_way, n, value(&mut rng)),
        }
        go_on(bench, &mut store, rng.u32(..40))?;
        if on_its_way.len() > rng.usize(..8) {
            settle(bench, &mut store, &mut on_its_way, &mut values)?;
        }
    }
    settle(bench, &mut store, &mut on_its_way, &mut values)?;
    let left: Vec<u32> = values.keys().copied().collect();
    left.into_iter().for_each(|n| delete(&store, &mut on_its_way, n));
    settle(bench, &mut store, &mut on_its_way, &mut values)?;
    bench.idle(&mut store)?;
    put(&store, &mut on_its_way, 0, vec![7; 200]);
    settle(bench, &mut store, &mut on_its_way, &mut values)?;
    if values.len() != 1 {
        return Err("nothing is written to a volume that was emptied".into());
    }
    served(bench, &mut store, keys, (&values, &others))?;
    drop(store);
    let mut store = bench.open()?;
    served(bench, &mut store, keys, (&values, &others))?;
    Ok(deletes)
}

/// Both copies of what lives in some segments go bad.
fn damage(bench: &mut Bench, store: &Store, rng: &mut Rng) -> Ended {
    let geometry = store.journal.stats().geometry;
    let facts = bench.inspect()?.volume.ok_or("no volume")?.segments;
    let alive = (0..).map(SegmentIndex).zip(&facts);
    let alive = alive.filter(|(_, fact)| fact.live_values > 0 && !fact.checkpoint);
    let alive: Vec<_> = alive.map(|(segment, _)| segment).collect();
    let count = rng.usize(..=DAMAGED_MAX.min(alive.len()));
    for segment in rng.choose_multiple(alive, count) {
        for zone in [Zone::A, Zone::B] {
            let place = geometry.block_offset(zone, segment, BlockIndex(0));
            bench.device.corrupt(place, geometry.segment_bytes(), Damage::Random);
        }
    }
    Ok(())
}

/// Fills the volume; yields what it took.
fn full(bench: &mut Bench, store: &mut Store, rng: &mut Rng) -> Result<Values, String> {
    let mut values = Values::new();
    for n in 0.. {
        let mut one = OnItsWay::new();
        put(store, &mut one, n, value(rng));
        settle(bench, store, &mut one, &mut values)?;
        if !values.contains_key(&n) {
            break;
        }
    }
    Ok(values)
}

fn value(rng: &mut Rng) -> Vec<u8> {
    vec![rng.u8(..); rng.usize(1..=VALUE_BYTES_MAX)]
}

fn put(store: &Store, on_its_way: &mut OnItsWay, n: u32, value: Vec<u8>) {
    let commit = store.submit(&[(&key(n), Some(&value))], Durability::Durable);
    on_its_way.push((n, Some(value), commit));
}

fn delete(store: &Store, on_its_way: &mut OnItsWay, n: u32) {
    on_its_way.push((n, None, begun(store, n)));
}

/// A strict delete is written also where the key is not there.
fn begun(store: &Store, n: u32) -> Commit {
    store.submit(&[(&key(n), None)], Durability::Strict)
}

/// Waits for the answers, and applies to `values` what was applied. A delete that waited behind a put may be refused with it, and
/// one of many is told to come again; neither is refused once the others have ended.
fn settle(
    bench: &mut Bench,
    store: &mut Store,
    on_its_way: &mut OnItsWay,
    values: &mut Values,
) -> Ended {
    let (mut puts, mut again) = (false, Vec::new());
    for (n, value, commit) in on_its_way.drain(..) {
        puts |= value.is_some();
        match (bench.drive(store, commit, &mut on)?.ok_or("cut")?, value) {
            (Ok(Outcome::Applied(_)), Some(value)) => drop(values.insert(n, value)),
            (Ok(Outcome::Applied(_)), None) => drop(values.remove(&n)),
            (Err(CommitError::NoSpace), Some(_)) => {}
            (Err(CommitError::NoSpace), None) if puts => again.push(n),
            (Err(CommitError::Overloaded), None) => again.push(n),
            (other, value) => return Err(format!("/{n}, {value:?}: {other:?}")),
        }
    }
    for n in again {
        match bench.drive(store, begun(store, n), &mut on)?.ok_or("cut")? {
            Ok(Outcome::Applied(_)) => drop(values.remove(&n)),
            other => return Err(format!("/{n} is not deleted: {other:?}")),
        }
    }
    Ok(())
}

/// Lets the store go on for so many turns, whatever it is about.
fn go_on(bench: &mut Bench, store: &mut Store, mut turns: u32) -> Ended {
    let task: Task<()> = Box::pin(poll_fn(move |_| match turns {
        0 => Poll::Ready(()),
        _ => {
            turns -= 1;
            Poll::Pending
        }
    }));
    bench.drive(store, task, &mut on)?.ok_or_else(|| "cut".into())
}

/// Yields what the keys answer that the volume came with.
fn others(bench: &mut Bench, store: &mut Store) -> Result<Vec<Answer>, String> {
    rich::keys().iter().map(|key| bench.get(store, key)).collect()
}

/// Every key answers as it should, also those that nothing was done to.
fn served(
    bench: &mut Bench,
    store: &mut Store,
    keys: u32,
    (values, before): (&Values, &[Answer]),
) -> Ended {
    (0..keys).try_for_each(|n| bench.expect(store, &key(n), values.get(&n).map(Vec::as_slice)))?;
    let now = others(bench, store)?;
    if now == before { Ok(()) } else { Err(format!("of the others {before:?} became {now:?}")) }
}

/// That of [`ABSENT`] is long, so that to delete it takes room.
fn key(n: u32) -> Vec<u8> {
    let width = if n == ABSENT { 200 } else { 1 };
    format!("/{n:0width$}").into_bytes()
}
