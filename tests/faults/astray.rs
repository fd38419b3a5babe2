//! Requests that go astray: writes that land elsewhere, reads that bring what another place has, flushes that were not done.

use super::bench::{Answer, Bench, Go, Store, fates, on};
use super::cuts::{Book, Ends};
use super::rich::{Map, Rich, keys};
use super::traces::Ended;
use blockdev::{Fault, FaultKind, Repeat, SimDevice};
use journal::{Mode, Plants};
use std::collections::BTreeMap;

/// What requests that went astray did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Astray {
    /// Runs of the script, or mounts, each with another request going to another place.
    pub runs: u64,
    /// Requests that went astray, each to every place.
    pub requests: u64,
    /// Copies of groups and of the superblock that a later mount found damaged.
    pub damaged: u64,
}

impl Astray {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.requests += other.requests;
        self.damaged += other.damaged;
    }
}

/// Puts before the fault.
const BEGUN: u8 = 16;
/// Puts behind it: enough for a checkpoint.
const PUTS: u8 = 20;

/// Plays a short script again and again, each time with another write landing at another block: what lay there is gone
/// in this copy, and what was written is not where it should be. `blocks` yields the blocks for a write.
///
/// # Errors
/// Something acknowledged is not there, while the store runs or afterwards.
pub fn writes<I: Iterator<Item = u64>>(
    plants: Plants,
    blocks: impl Fn(u64, u64) -> I,
) -> Result<Astray, String> {
    let mut begun = Bench::new(plants);
    let (mut map, mut astray) = (Map::new(), Astray::default());
    let mut store = begun.open()?;
    puts(&mut begun, &mut store, &mut map, 0..BEGUN)?;
    drop(store);
    let count = begun.device.durable().len() as u64 / 512;
    for after in 0.. {
        for block in blocks(after, count) {
            let mut bench = begun.fork();
            let kind = FaultKind::WriteMisdirected { to: block * 512 };
            bench.device.inject(Fault { kind, after, repeat: Repeat::Once });
            let before = bench.count.writes;
            let found = script(&mut bench, map.clone())
                .map_err(|what| format!("write {after} at block {block}: {what}"))?;
            if bench.count.writes - before <= after {
                return Ok(astray);
            }
            astray.runs += 1;
            astray.damaged += found;
        }
        astray.requests += 1;
    }
    Ok(astray)
}

/// Mounts, writes, reads; then mounts again, and yields how many damaged copies that found.
fn script(bench: &mut Bench, mut map: Map) -> Result<u64, String> {
    let mut store = bench.open_whole()?;
    puts(bench, &mut store, &mut map, BEGUN..BEGUN + PUTS)?;
    if store.journal.mode() != Mode::Healthy || store.journal.stats().checkpoints == 0 {
        return Err(format!("{:?}, {:?}", store.journal.mode(), store.journal.stats()));
    }
    expect_all(bench, &mut store, &map)?;
    bench.device.heal();
    let mut store = bench.open_whole()?;
    let report = store.journal.report();
    let found = report.repaired + report.superblocks_damaged;
    expect_all(bench, &mut store, &map)?;
    Ok(found as u64)
}

fn puts(
    bench: &mut Bench,
    store: &mut Store,
    map: &mut Map,
    numbers: std::ops::Range<u8>,
) -> Ended {
    for n in numbers {
        let (key, value) = (vec![b'/', b'a' + n % 4], vec![n; 40]);
        bench.commit(store, &[(&key, Some(&value))])?;
        map.insert(key, value);
        bench.idle(store)?;
    }
    Ok(())
}

fn expect_all(bench: &mut Bench, store: &mut Store, map: &Map) -> Ended {
    map.iter().try_for_each(|(key, value)| bench.expect(store, key, Some(value)))
}

/// Mounts a volume and reads all of it, each time with another read bringing the bytes of another block. `blocks` yields
/// the blocks for a read.
///
/// # Errors
/// Something is not told as it is, by the mount that was lied to or by the next.
pub fn reads<I: Iterator<Item = u64>>(
    rich: &Rich,
    plants: Plants,
    blocks: impl Fn(u64, u64) -> I,
) -> Result<Astray, String> {
    let mut bench = Bench::blank(plants, rich.image.len() as u64);
    let mut astray = Astray::default();
    for after in 0.. {
        for block in blocks(after, rich.blocks() as u64) {
            let said = |what| format!("read {after} from block {block}: {what}");
            bench.device.heal();
            bench.device.restore(&rich.image);
            let kind = FaultKind::ReadMisdirected { from: block * 512 };
            bench.device.inject(Fault { kind, after, repeat: Repeat::Once });
            let before = bench.count.reads;
            all_of(&mut bench, rich).map_err(said)?;
            if bench.count.reads - before <= after {
                return Ok(astray);
            }
            astray.runs += 1;
            astray.damaged += all_of(&mut bench, rich).map_err(said)?;
        }
        astray.requests += 1;
    }
    Ok(astray)
}

/// Mounts and reads everything; yields how many damaged copies the mount found.
fn all_of(bench: &mut Bench, rich: &Rich) -> Result<u64, String> {
    let mut store = bench.open_whole()?;
    let report = store.journal.report();
    let found = report.repaired + report.superblocks_damaged;
    for key in keys() {
        bench.expect(&mut store, &key, rich.map.get(&key).map(Vec::as_slice))?;
    }
    Ok(found as u64)
}

/// What flushes that were not done left behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// Flushes that were not done, alone or with those behind it.
    pub flushes: u64,
    /// Images that cuts left.
    pub images: u64,
    /// Those of which no loss is told: all is there, or an earlier state.
    pub earlier: u64,
    /// Those of which a loss is told.
    pub told: u64,
    /// Those that are refused.
    pub refused: u64,
}

/// Puts of the history in which flushes lie.
const LIES_PUTS: u8 = 40;
/// Most ends of one cut.
const ENDS: usize = 40;

/// Plays a history again and again, each time with another flush, or two in a row, answered and not done; the power goes
/// before the next flush, which would make good for them. Later ones show nothing.
///
/// Nothing can bring back what was acknowledged. But what is found is a state that was, but for keys that are told as lost.
///
/// # Errors
/// A key has a value that it never had, or what the keys answer is of two states.
pub fn flushes(plants: Plants) -> Result<Lies, String> {
    let mut begun = Bench::new(plants);
    let mut book = Book::new(Map::new());
    let mut store = begun.open()?;
    commits(&mut begun, &mut store, &mut book, 0..16, &mut on)?;
    drop(store);
    let mut lies = Lies::default();
    for (after, count) in (0..).flat_map(|after| [(after, 1), (after, 2)]) {
        let mut bench = begun.fork();
        let mut book = Book::new(book.newest().clone());
        let mut store = bench.open_whole()?;
        for at in after..after + count {
            let kind = FaultKind::FlushLies;
            bench.device.inject(Fault { kind, after: at, repeat: Repeat::Once });
        }
        let mut left = after + count;
        let mut go = |_: &SimDevice| match left {
            0 => Go::Cut,
            _ => {
                left -= 1;
                Go::On
            }
        };
        if commits(&mut bench, &mut store, &mut book, 16..16 + LIES_PUTS, &mut go)? {
            return Ok(lies);
        }
        lies.flushes += 1;
        let mut ends = Ends::new(&bench.device, ENDS);
        for n in 0..ends.count() {
            let end = ends.end(n);
            let said = |what| format!("{count} flushes from {after} on, end {n}: {what}");
            let mut cut = bench.fork();
            cut.device.heal();
            cut.device.power_cut_choosing(fates(&end));
            judge(&mut cut, book.states(), &mut lies).map_err(said)?;
        }
    }
    Ok(lies)
}

/// Plays the same history once, and then makes each flush of it, alone or with the one behind it, one that was answered and
/// not done, and loses for good what it should have made durable: later flushes are done, and the power goes at any of them.
/// Until then reads showed all that was written.
///
/// What was acknowledged since is there, and what is not there is told. Directly behind two lies an earlier state may be found.
///
/// # Errors
/// A key has a value that it never had, or what the keys answer is of two states, or of an earlier one.
pub fn lost_for_good(plants: Plants) -> Result<Lies, String> {
    let mut bench = Bench::new(plants);
    let mut book = Book::new(Map::new());
    let mut store = bench.open()?;
    commits(&mut bench, &mut store, &mut book, 0..16, &mut on)?;
    drop(store);
    // What each flush finds written, and how many commits were acknowledged then.
    let mut flushed = vec![(bench.device.durable().to_vec(), book.acknowledged.get())];
    let acknowledged = book.acknowledged.clone();
    let mut go = |device: &SimDevice| {
        flushed.push((device.visible().to_vec(), acknowledged.get()));
        Go::On
    };
    let mut store = bench.open_until(&mut go)?.ok_or("cut")?;
    commits(&mut bench, &mut store, &mut book, 16..16 + LIES_PUTS, &mut go)?;
    drop(store);
    let mut lies = Lies::default();
    for (lie, count) in (1..flushed.len()).flat_map(|lie| [(lie, 1), (lie, 2)]) {
        lies.flushes += 1;
        for cut in lie + count..flushed.len() {
            let (image, acknowledged) = &flushed[cut];
            let mut image = image.clone();
            forget(&mut image, &flushed[lie - 1].0, &flushed[lie + count - 1].0);
            bench.device.restore(&image);
            let said = |what| format!("{count} flushes from {lie} on, cut at {cut}: {what}");
            // Of two lies the second may take along what vouched for what the first lost.
            let all = if cut == lie + 2 && count == 2 { 0 } else { *acknowledged };
            let told = lies.told;
            let found = judge(&mut bench.fork(), &book.states()[all..], &mut lies).map_err(said)?;
            let newest = &book.states()[*acknowledged..];
            let is_older = found.is_some_and(|found| !newest.iter().any(|state| found.fits(state)));
            if is_older && lies.told > told {
                return Err(said("a loss is told, and what came behind it is not there".into()));
            }
        }
    }
    Ok(lies)
}

/// Puts each block that changed between two images back to the first, unless it was written over since the second.
fn forget(image: &mut [u8], before: &[u8], written: &[u8]) {
    let blocks = image.chunks_mut(512).zip(before.chunks(512).zip(written.chunks(512)));
    for (block, (before, written)) in blocks {
        if before != written && block == written {
            block.copy_from_slice(before);
        }
    }
}

/// What keys answer: a value, or nothing where it is absent; those that are lost are left out.
#[derive(Debug)]
struct Answered(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Answered {
    /// Tells whether all of it is of one state.
    fn fits(&self, state: &Map) -> bool {
        self.0.iter().all(|(key, value)| state.get(key) == value.as_ref())
    }
}

/// Commits puts and deletes, one after the other; false when `go` cut.
fn commits(
    bench: &mut Bench,
    store: &mut Store,
    book: &mut Book,
    numbers: std::ops::Range<u8>,
    go: &mut dyn FnMut(&SimDevice) -> Go,
) -> Result<bool, String> {
    for n in numbers {
        // Every fourth value is seldom written over, so that cleaning has something to move.
        let key = if n % 4 == 1 { vec![b'/', b'k' + n / 4 % 6] } else { vec![b'/', b'a' + n % 3] };
        let value = (n % 7 != 5).then(|| vec![n; 50]);
        book.take(&[(key.clone(), value.clone())]);
        let done = bench.commit_until(store, &[(&key, value.as_deref())], go)?
            && bench.idle_until(store, go)?;
        if !done {
            return Ok(false);
        }
        book.acknowledge_all();
    }
    Ok(true)
}

/// Opens what was left, and checks that what keys answer is of one of the states; yields it, unless the volume is refused.
fn judge(bench: &mut Bench, states: &[Map], lies: &mut Lies) -> Result<Option<Answered>, String> {
    lies.images += 1;
    let Ok(mut store) = bench.try_open(&mut on)?.ok_or("cut")? else {
        lies.refused += 1;
        return Ok(None);
    };
    let mut told = !store.journal.report().lost.is_empty();
    let mut answered = Answered(BTreeMap::new());
    for key in (b'a'..=b'c').chain(b'k'..=b'p').map(|name| vec![b'/', name]) {
        match bench.get(&mut store, &key)? {
            Answer::Value(value) => drop(answered.0.insert(key, Some(value.to_vec()))),
            Answer::Absent => drop(answered.0.insert(key, None)),
            Answer::Lost => told = true,
            Answer::Unreadable => {
                return Err(format!("{} is not read", String::from_utf8_lossy(&key)));
            }
        }
    }
    // Nothing that was acknowledged counts here, so any state that was will do.
    if !states.iter().any(|state| answered.fits(state)) {
        return Err(format!("of no one state, a loss is told: {told}, {answered:?}"));
    }
    lies.told += u64::from(told);
    lies.earlier += u64::from(!told);
    Ok(Some(answered))
}
