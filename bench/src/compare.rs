//! StateFS beside the engines that people use today, in the same run, on the same device.

use crate::engine::{self, Shape, Store};
use crate::floor::Floor;
use crate::peers::{Engine, KINDS, Kind};
use crate::{Result, Sample, device, median};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Rounds of the durable puts; those with a busy neighbour are thrown away.
const ROUNDS: usize = 5;
/// Keys of the large store, of 41 bytes with values of 100.
const KEYS: u64 = 1_000_000;
/// Keys of a commit in a load.
const BATCH: usize = 256;
/// First argument of the process that loads a store and goes without closing it.
const LOADER: &str = "--load-and-go";

/// Loads a store and ends as if killed, if this process was started for that.
pub(crate) fn loader_child() -> Option<Result<()>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != LOADER {
        return None;
    }
    let (kind, folder) = (arguments.next()?, PathBuf::from(arguments.next()?));
    let kind = KINDS.into_iter().find(|known| known.name() == kind)?;
    Some(kind.open(&folder).and_then(|mut store| {
        store.load(&mut (0..KEYS), 100, BATCH)?;
        // Nothing is dropped: what an engine does at its end is not done.
        std::process::exit(0)
    }))
}

/// Measures the engines of these names, all if there are none, prints the tables and yields the rows of the chart.
pub(crate) fn run(folder: &Path, named: &[String]) -> Result<Vec<Row>> {
    let wanted = |kind: &Kind| named.is_empty() || named.iter().any(|name| name == kind.name());
    let mut rows: Vec<Row> = KINDS.into_iter().filter(wanted).map(Row::new).collect();
    let (mut floor, mut floors) = (Floor::new(folder)?, Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("peers, round {round} of {ROUNDS}");
        floors.push(floor.alone()?.p50());
        for row in &mut rows {
            row.durable_puts(folder, &mut floor)?;
        }
    }
    let quiet = crate::quiet(&floors);
    for row in &mut rows {
        eprintln!("peers, {KEYS} keys: {}", row.kind.name());
        row.keep(&quiet);
        row.many_keys(folder)?;
    }
    print(&rows, &quiet);
    Ok(rows)
}

/// What one engine did.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// p50 of a durable put of 100 bytes and of 4 KiB, in floors.
    pub(crate) lone: [Vec<f64>; 2],
    /// Durable puts a second of 16 and of 64 writers, times the floor: the floor's own rate is 1.
    pub(crate) many: [Vec<f64>; 2],
    /// Flushes, and KiB written, of the whole device for each lone put.
    flushes: Vec<f64>,
    kib: Vec<f64>,
    /// Puts a second of a load that is made durable at its end: 100 bytes, 4 KiB.
    pub(crate) load: [f64; 2],
    /// Get: p50 in microseconds. Scan: keys a second. Open after a kill, caches dropped, to the first value: milliseconds.
    pub(crate) get: f64,
    scan: f64,
    open: f64,
}

impl Row {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            lone: Default::default(),
            many: Default::default(),
            flushes: Vec::new(),
            kib: Vec::new(),
            load: [f64::NAN; 2],
            get: f64::NAN,
            scan: f64::NAN,
            open: f64::NAN,
        }
    }

    fn durable_puts(&mut self, folder: &Path, floor: &mut Floor) -> Result<()> {
        let folder = Fresh::new(folder)?;
        let mut engine = self.kind.open(&folder.0)?;
        // The first puts pay for files that are made once.
        engine.puts(1, 100, 20)?;
        let before = device::Writes::of(&folder.0);
        let puts = 100;
        engine.puts(1, 100, puts)?;
        if let (Ok(before), Ok(after)) = (before, device::Writes::of(&folder.0)) {
            self.flushes.push((after.flushes - before.flushes) as f64 / puts as f64);
            self.kib.push((after.bytes - before.bytes) as f64 / 1024.0 / puts as f64);
        }
        for (kept, bytes) in self.lone.iter_mut().zip([100, 4096]) {
            kept.push(floor.beside(300, |puts| engine.puts(1, bytes, puts))?.floors());
        }
        for (kept, writers) in self.many.iter_mut().zip([16, 64]) {
            kept.push(floor.beside(60, |puts| engine.puts(writers, 100, puts))?.rates());
        }
        Ok(())
    }

    /// Throws away what was measured beside a busy neighbour.
    fn keep(&mut self, quiet: &[bool]) {
        let lists = self.lone.iter_mut().chain(&mut self.many);
        for list in lists.chain([&mut self.flushes, &mut self.kib]) {
            let mut quiet = quiet.iter();
            list.retain(|_| quiet.next().copied().unwrap_or(true));
        }
    }

    fn many_keys(&mut self, folder: &Path) -> Result<()> {
        {
            let folder = Fresh::new(folder)?;
            let keys = KEYS / 20;
            let time = self.kind.open(&folder.0)?.load(&mut shuffled(keys), 4096, BATCH)?;
            self.load[1] = rate(keys, time);
        }
        let folder = Fresh::new(folder)?;
        let time = self.kind.open(&folder.0)?.load(&mut shuffled(KEYS), 100, BATCH)?;
        self.load[0] = rate(KEYS, time);
        drop(folder);

        let folder = Fresh::new(Path::new("target"))?;
        let mut loader = Command::new(std::env::current_exe()?);
        if !loader.arg(LOADER).arg(self.kind.name()).arg(&folder.0).status()?.success() {
            return Err("the process that loads a store failed".into());
        }
        device::drop_caches()?;
        let begun = Instant::now();
        let mut engine = self.kind.open(&folder.0)?;
        engine.gets(&[KEYS / 2])?;
        self.open = millis(begun.elapsed());
        let keys: Vec<u64> = shuffled(KEYS).take(200_000).collect();
        engine.gets(&keys)?;
        self.get = engine.gets(&keys)?.p50();
        let begun = Instant::now();
        let count = engine.scan()?;
        assert!(count == KEYS, "a scan sees all that was loaded");
        self.scan = rate(count, begun.elapsed());
        Ok(())
    }
}

/// What only the journal is asked: its cost under churn, what cleaning adds to a put, how it opens.
pub(crate) fn ours(folder: &Path) -> Result<()> {
    churn(folder)?;
    replay(folder)
}

/// Overwrites of a store that fills two thirds of its zone, 64 puts to a commit, and lone puts beside the cleaning.
fn churn(folder: &Path) -> Result<()> {
    const LIVE: u64 = 200_000;
    const USER_BYTES: u64 = 141;
    println!(
        "\n| space per copy | written per copy, of what clients wrote | lone put p50, p99, p99.9 µs |"
    );
    println!("|--:|--:|--:|");
    for percent in [600, 200, 175, 150] {
        let folder = Fresh::new(folder)?;
        let zone = LIVE * USER_BYTES * percent / 100;
        let device_bytes = (2 * zone).next_multiple_of(4096) + (16 << 10);
        let space = percent as f64 / 100.0;
        let shape = Shape { device_bytes, watermark: false, ..engine::SMALL };
        let mut store = Store::create(&folder.0, shape)?;
        if let Err(error) = Engine::load(&mut store, &mut shuffled(LIVE), 100, 64) {
            println!("| {space:.2} | {error} | |");
            continue;
        }
        let mut random = fastrand::Rng::with_seed(5);
        let mut overwrite = |store: &mut Store, commits: u64| -> Result<()> {
            for _ in 0..commits {
                let keys: Vec<u64> =
                    std::iter::repeat_with(|| random.u64(..LIVE)).take(64).collect();
                store.commit(&keys, 100)?;
            }
            Ok(())
        };
        overwrite(&mut store, 2 * LIVE / 64)?;
        let (before, commits) = (store.counts().bytes_written, 4 * LIVE / 64);
        overwrite(&mut store, commits)?;
        let written = (store.counts().bytes_written - before) as f64 / 2.0;
        let amplification = written / (commits * 64 * USER_BYTES) as f64;
        let mut times = Vec::new();
        for _ in 0..3000 {
            let begun = Instant::now();
            store.commit(&[random_key(LIVE)], 100)?;
            times.push(begun.elapsed());
        }
        let lone = Sample::new(times, Duration::from_secs(1));
        let (p50, p99, p999) = (lone.p50(), lone.p99(), lone.at(999));
        println!("| {space:.2} | {amplification:.2} | {p50:.0}, {p99:.0}, {p999:.0} |");
    }
    Ok(())
}

/// A million keys: replayed from the log alone, and opened from a checkpoint.
fn replay(folder: &Path) -> Result<()> {
    println!("\n| {KEYS} keys of 41 + 100 bytes, caches dropped | open ms | index bytes per key |");
    println!("|---|--:|--:|");
    for (name, replay_bytes) in [("from the log alone", Some(1 << 30)), ("with checkpoints", None)]
    {
        let folder = Fresh::new(folder)?;
        let shape = Shape { replay_bytes, ..engine::BIG };
        let mut store = Store::create(&folder.0, shape)?;
        Engine::load(&mut store, &mut shuffled(KEYS), 100, BATCH)?;
        drop(store);
        device::drop_caches()?;
        let region = stats_alloc::Region::new(crate::ALLOCATOR);
        let begun = Instant::now();
        let store = Store::reopen(&folder.0, shape)?;
        let open = millis(begun.elapsed());
        let grown = region.change();
        // What a reallocation adds or takes is in both of these.
        let bytes = grown.bytes_allocated as i128 - grown.bytes_deallocated as i128;
        drop(store);
        println!("| {name} | {open:.0} | {:.0} |", bytes as f64 / KEYS as f64);
    }
    Ok(())
}

fn print(rows: &[Row], quiet: &[bool]) {
    let used = quiet.iter().filter(|quiet| **quiet).count();
    println!(
        "\n{used} of {ROUNDS} rounds were quiet; lone puts in floors, writers in the floor's rate\n"
    );
    println!(
        "| engine | put 100 B | put 4 KiB | 16 writers | 64 writers | flushes, KiB a put \
         | load 100 B/s | load 4 KiB/s | get µs | scan keys/s | open after kill ms |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let of = |list: &[f64]| median(list.iter().copied());
    for row in rows {
        let ([small, large], [few, many]) = (&row.lone, &row.many);
        println!(
            "| {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.2}, {:.1} | {:.0} | {:.0} | {:.1} | {:.1}M | {:.0} |",
            row.kind.name(),
            of(small),
            of(large),
            of(few),
            of(many),
            of(&row.flushes),
            of(&row.kib),
            row.load[0],
            row.load[1],
            row.get,
            row.scan / 1e6,
            row.open,
        );
    }
}

/// The numbers below `count`, in an order that no engine gains from.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    // Odd and far from the powers of two, so coprime to counts made of twos and fives.
    (0..count).map(move |n| n * 7_368_787 % count)
}

fn random_key(count: u64) -> u64 {
    fastrand::u64(..count)
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A folder for one store.
struct Fresh(PathBuf);

impl Fresh {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("peer-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
