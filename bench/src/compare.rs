//! StateFS beside the engines that people use today, in the same run, on the same device.

use crate::engine::{self, Shape, Store};
use crate::floor::Floor;
use crate::peers::{Engine, KINDS, Kind};
use crate::{Result, device, median};
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
/// That of the process that opens it, and tells what memory it takes.
const OPENER: &str = "--open-and-tell";

/// Does what this process was started for, if it is the child of another.
pub(crate) fn child() -> Option<Result<()>> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().filter(|what| what == LOADER || what == OPENER)?;
    let (kind, folder) = (arguments.next()?, PathBuf::from(arguments.next()?));
    let kind = KINDS.into_iter().find(|known| known.name() == kind)?;
    Some(if what == LOADER { load_and_go(kind, &folder) } else { open_and_tell(kind, &folder) })
}

/// Loads a store and ends as if killed.
fn load_and_go(kind: Kind, folder: &Path) -> Result<()> {
    let mut store = kind.open(folder)?;
    store.load(&mut (0..KEYS), 100, BATCH)?;
    // Nothing is dropped: what an engine does at its end is not done.
    std::process::exit(0)
}

/// Opens a store, reads one key, and prints the bytes of memory of its own that this takes.
fn open_and_tell(kind: Kind, folder: &Path) -> Result<()> {
    let before = device::own_memory()?;
    let mut store = kind.open(folder)?;
    store.gets(&[KEYS / 2])?;
    println!("{}", device::own_memory()? - before);
    Ok(())
}

/// Measures the engines of these names, all if there are none, prints the tables and yields the rows of the chart.
pub(crate) fn run(folder: &Path, named: &[String]) -> Result<Vec<Row>> {
    let kinds = KINDS.into_iter().filter(|kind| wanted(*kind, named));
    let mut rows: Vec<Row> = kinds.map(Row::new).collect();
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

/// Tells whether an engine is among those that were named, or none was.
pub(crate) fn wanted(kind: Kind, named: &[String]) -> bool {
    named.is_empty() || named.iter().any(|name| name == kind.name())
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
    /// Bytes of memory of its own for each key, once the store is open.
    memory: f64,
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
            memory: f64::NAN,
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
        self.child(LOADER, &folder)?;
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
        drop(engine);
        self.memory = self.child(OPENER, &folder)?.trim().parse::<f64>()? / KEYS as f64;
        Ok(())
    }

    /// Runs a process of its own over the store in `folder`, and yields what it prints.
    fn child(&self, what: &str, folder: &Fresh) -> Result<String> {
        let mut child = Command::new(std::env::current_exe()?);
        let output = child.arg(what).arg(self.kind.name()).arg(&folder.0).output()?;
        if !output.status.success() {
            return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A million keys: replayed from the log alone, and opened from a checkpoint. Only the journal is asked.
pub(crate) fn replay(folder: &Path) -> Result<()> {
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
         | load 100 B/s | load 4 KiB/s | get µs | scan keys/s | open after kill ms | memory B/key |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let of = |list: &[f64]| median(list.iter().copied());
    for row in rows {
        let ([small, large], [few, many]) = (&row.lone, &row.many);
        println!(
            "| {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.2}, {:.1} | {:.0} | {:.0} | {:.1} | {:.1}M | {:.0} | {:.0} |",
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
            row.memory,
        );
    }
}

/// The numbers below `count`, in an order that no engine gains from.
pub(crate) fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    // Odd and far from the powers of two, so coprime to counts made of twos and fives.
    (0..count).map(move |n| n * 7_368_787 % count)
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A folder for one store.
pub(crate) struct Fresh(pub(crate) PathBuf);

impl Fresh {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
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
