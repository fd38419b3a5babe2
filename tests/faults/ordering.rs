//! A long history with commits under way together, cut at every flush with everything of one sort kept and everything of
//! the other lost: what must be durable before what (T14 to T16).

use super::bench::{Bench, Commit, Go, Store, fates};
use super::cuts::{Book, recover};
use super::rich::keys;
use super::traces::{Ended, in_frame};
use crate::drive::Task;
use blockdev::{Fate, SimDevice};
use journal::{Durability, Outcome, Plant, Plants};

/// Steps of the history, each of up to nine commits.
const STEPS: u32 = 220;

/// A key, and its new value or nothing.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Cuts at every flush, with one fate for all copies of the superblock and one for all blocks of groups.
fn cut_at_every_flush(plants: Plants, frame: Fate, zones: Fate) -> Ended {
    let keys = keys();
    let mut bench = Bench::new(plants);
    let mut book = Book::new(super::rich::Map::new());
    let mut store = bench.open()?;
    let mut scratch = bench.fork();
    scratch.seed = 1 << 20;
    let mut random = 7_u64;
    let mut moves = 0;
    for step in 0..STEPS {
        let changes = changes(step, &mut random, &keys);
        let acknowledged = book.acknowledged.clone();
        let told = move || acknowledged.set(acknowledged.get() + 1);
        let all = commit_each(&store, changes.iter().map(|(key, value)| (key, value)), told);
        changes.into_iter().for_each(|change| book.take(&[change]));
        let mut ended = Ok(());
        let mut go = |device: &SimDevice| {
            if ended.is_ok() {
                scratch.device = device.clone();
                let sort = |offset| if in_frame(offset) { frame } else { zones };
                let ends: Vec<Fate> = device.risks().map(|risk| sort(risk.offset)).collect();
                scratch.device.power_cut_choosing(fates(&ends));
                ended = recover(&mut scratch, &keys).and_then(|map| book.judge(&map));
            }
            if ended.is_ok() { Go::On } else { Go::Cut }
        };
        let done = bench.drive(&mut store, all, &mut go)?;
        ended.map_err(|what| {
            format!("step {step}, superblock {frame:?}, groups {zones:?}: {what}")
        })?;
        done.ok_or("cut")??;
        moves = store.journal.stats().moves;
    }
    bench.idle(&mut store)?;
    if moves < 10 { Err(format!("cleaning moved {moves} values")) } else { Ok(()) }
}

/// Commits each change for itself, all at once; `told` hears of each that is acknowledged.
pub(super) fn commit_each<'a>(
    store: &Store,
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
    mut told: impl FnMut() + 'static,
) -> Task<Ended> {
    let commit = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
        store.submit(&[(key, value.as_deref())], Durability::Durable)
    };
    let commits: Vec<Commit> = changes.map(commit).collect();
    Box::pin(async move {
        for commit in commits {
            match commit.await {
                Ok(Outcome::Applied(_)) => told(),
                other => return Err(format!("a commit ended with {other:?}")),
            }
        }
        Ok(())
    })
}

/// Yields the changes of a step, up to nine.
pub(super) fn changes(step: u32, random: &mut u64, keys: &[Vec<u8>]) -> Vec<Change> {
    let next = |_| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        change(step, *random >> 33, keys)
    };
    (0..[1, 2, 9][step as usize % 3]).map(next).collect()
}

/// Yields a change: mostly of few keys, seldom of one that lies long.
fn change(step: u32, random: u64, keys: &[Vec<u8>]) -> Change {
    let bytes = [20, 400, 90, 260][random as usize % 4];
    let value: Vec<u8> = (0..bytes).map(|n: u64| (n ^ random >> 3) as u8).collect();
    let key = |n: u64| keys.get(n as usize % 16).cloned().unwrap_or_default();
    match random % 16 {
        0..=4 => (key(8 + random / 16 % 8), Some(value.into_iter().take(50).collect())),
        5 => (key(random / 16 % 16), None),
        _ => (key(u64::from(step) + random / 16 % 3), Some(value.into_iter().take(70).collect())),
    }
}

/// T15: nothing is written into a segment before the superblock that lists it, or frees it, is durable.
pub fn t15(plants: Plants) -> Ended {
    cut_at_every_flush(plants, Fate::Old, Fate::New)?;
    cut_at_every_flush(plants, Fate::Garbage, Fate::New)
}

/// T16: a move never undoes a later put or delete; C2: nothing is freed before its moves are durable.
///
/// Cleaning writes no move behind a newer write; a volume that was written before it was so may hold some.
pub fn t16(plants: Plants) -> Ended {
    let plants = plants.and(Plant::StaleMoves);
    cut_at_every_flush(plants, Fate::New, Fate::New)?;
    cut_at_every_flush(plants, Fate::Old, Fate::Old)?;
    cut_at_every_flush(plants, Fate::New, Fate::Garbage)
}

/// A superblock vouches for nothing that is not durable.
pub fn superblock_first(plants: Plants) -> Ended {
    cut_at_every_flush(plants, Fate::New, Fate::Old)?;
    cut_at_every_flush(plants, Fate::New, Fate::Garbage)
}
