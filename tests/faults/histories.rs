//! Every history of a few operations, cut at every write with every end, and its recovery cut again.

use super::bench::{Bench, Go, Store};
use super::classes::{Classes, Image, verifier};
use super::cuts::Book;
use super::rich::Map;
use super::traces::Ended;
use blockdev::SimDevice;
use journal::{Durability, Outcome, Plants, Stats, Verifier};
use std::collections::HashMap;

/// What can be done: one letter each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Letter {
    /// Put a small value to `a`.
    Put,
    /// Put a value of two blocks to `a`.
    Overwrite,
    /// Delete `a`.
    Delete,
    /// Put `b`, delete `a`, put `c`, together.
    Batch,
    /// Put `b`, buffered, and sync.
    Sync,
    /// Put another key until a checkpoint is adopted.
    Checkpoint,
    /// Put another key until a segment is cleaned.
    Clean,
    /// Open the store again.
    Reopen,
}

/// The alphabet.
pub const LETTERS: [Letter; 8] = [
    Letter::Put,
    Letter::Overwrite,
    Letter::Delete,
    Letter::Batch,
    Letter::Sync,
    Letter::Checkpoint,
    Letter::Clean,
    Letter::Reopen,
];

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest history.
    pub letters: usize,
    /// Longest history whose recoveries are cut, too.
    pub nested: usize,
    /// Longest history of which the recoveries of those are cut once more.
    pub twice: usize,
}

/// What was tried. Images are counted one by one, and mounted class by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histories {
    /// Histories.
    pub histories: u64,
    /// Moments at which they were cut: before each flush. A cut after any write is a cut there with later writes old.
    pub cuts: u64,
    /// Images that those cuts leave.
    pub images: u128,
    /// Images that were mounted: one of each class and history, and the probes.
    pub mounts: u64,
    /// Images that a cut in such a mount leaves.
    pub nested: u128,
    /// Of those, images that were mounted.
    pub nested_mounts: u64,
    /// Images that a cut in the mount of one of those leaves.
    pub twice: u128,
    /// Of those, images that were mounted.
    pub twice_mounts: u64,
    /// Mounts of another image of a class, which came to the same.
    pub probes: u64,
    /// Histories in which nothing was there to clean, for as many puts as there may be.
    pub without_cleaning: u64,
}

/// Tries every history within `bounds` whose number leaves `share` when divided by `of`.
///
/// # Errors
/// A promise was broken.
pub fn histories(
    plants: Plants,
    bounds: Bounds,
    (share, of): (usize, usize),
) -> Result<Histories, String> {
    let (young, old) = (base(plants, YOUNG)?, base(plants, OLD)?);
    let mut histories = Histories::default();
    let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
    for length in 0..=bounds.letters {
        for word in words.iter().skip(share).step_by(of) {
            let depth = usize::from(length <= bounds.nested) + usize::from(length <= bounds.twice);
            // What cleans begins where there is something to clean.
            let (base, book) = if word.contains(&Letter::Clean) { &old } else { &young };
            let mut run = Run::new(base, book, depth)?;
            run.play(word).map_err(|what| format!("{word:?}: {what}"))?;
            run.judge.found.histories = 1;
            histories.add(run.judge.found);
        }
        let longer = words.iter().flat_map(|word| {
            LETTERS.iter().map(move |letter| word.iter().chain([letter]).copied().collect())
        });
        words = longer.collect();
    }
    Ok(histories)
}

impl Histories {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.cuts += other.cuts;
        self.images += other.images;
        self.mounts += other.mounts;
        self.nested += other.nested;
        self.nested_mounts += other.nested_mounts;
        self.twice += other.twice;
        self.twice_mounts += other.twice_mounts;
        self.probes += other.probes;
        self.without_cleaning += other.without_cleaning;
    }
}

/// Puts after which a checkpoint and a cleaning must have come.
const PUTS_MAX: u8 = 120;

/// Makes a volume on which a checkpoint is near: young, or with values that lie in segments of their own, so that
/// cleaning is near, too.
fn base(plants: Plants, puts: u8) -> Result<(Bench, Book), String> {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut book = Book::new(Map::new());
    for n in 0..puts {
        // Every fourth value is not written over.
        let key = if n % 4 == 1 { vec![b'/', b'k' + n / 4] } else { b"/z".to_vec() };
        bench.commit(&mut store, &[(&key, Some(&[n]))])?;
        bench.idle(&mut store)?;
        book.take(&[(key, Some(vec![n]))]);
    }
    if (store.journal.stats().checkpoints > 0) == (puts == YOUNG) {
        return Err("a young volume has no checkpoint yet, and an old one has".into());
    }
    Ok((bench, Book::new(book.newest().clone())))
}

/// Puts of a young volume, and of an old one.
const YOUNG: u8 = 8;
const OLD: u8 = 32;

fn keys() -> Vec<Vec<u8>> {
    (b'a'..=b'c').chain(b'k'..=b'r').chain([b'z']).map(|name| vec![b'/', name]).collect()
}

/// One history.
struct Run {
    bench: Bench,
    book: Book,
    judge: Judge,
    /// Makes every value of the history another.
    value: u8,
}

/// Cuts a history's device at a flush, in every way, and recovers.
struct Judge {
    scratch: Bench,
    verifier: Verifier,
    keys: Vec<Vec<u8>>,
    /// How often recoveries are cut again.
    depth: usize,
    /// The letter at hand is the last: earlier cuts belong to shorter histories.
    awake: bool,
    /// What each image of this history came to, and how deep its recovery was cut.
    known: HashMap<u64, (Map, usize)>,
    found: Histories,
    ended: Ended,
}

/// One class in so many is probed with another of its images.
const PROBED: usize = 16;

impl Judge {
    /// Recovers from every end of a cut here.
    fn cut(&mut self, device: &SimDevice, book: &Book) -> Go {
        if self.awake && self.ended.is_ok() {
            self.ended = self.every_end(device, book);
        }
        if self.ended.is_ok() { Go::On } else { Go::Cut }
    }

    fn every_end(&mut self, device: &SimDevice, book: &Book) -> Ended {
        let classes = Classes::new(device, &self.verifier)?;
        self.found.cuts += 1;
        self.found.images += classes.members();
        for n in 0..classes.count() {
            let cut = self.found.cuts;
            let said = |what| format!("cut {cut}, class {n}: {what}");
            let map = self.recover(&classes.image(n, false), self.depth);
            let map = map.map_err(said)?;
            book.judge(&map).map_err(|what| format!("class {n}: {what}"))?;
            if (n + self.found.cuts as usize).is_multiple_of(PROBED) {
                self.found.probes += 1;
                let probed = self.recover(&classes.image(n, true), 0)?;
                if probed != map {
                    return Err(format!("class {n}: its images do not come to the same"));
                }
            }
        }
        Ok(())
    }

    /// Recovers from an image, and `depth` times also from every cut of that recovery: it must come to the same.
    fn recover(&mut self, image: &Image, depth: usize) -> Result<Map, String> {
        if let Some((map, deep)) = self.known.get(&image.hash)
            && *deep >= depth
        {
            return Ok(map.clone());
        }
        match self.depth - depth {
            0 => self.found.mounts += 1,
            1 => self.found.nested_mounts += 1,
            _ => self.found.twice_mounts += 1,
        }
        // Another epoch for each depth, and the same for equal images, so that what follows is equal, too.
        self.scratch.seed = (1 << 20) + depth as u64;
        self.scratch.device.restore(&image.bytes);
        let mut cuts = Vec::new();
        let mut go = |device: &SimDevice| {
            if depth > 0 {
                cuts.push(device.clone());
            }
            Go::On
        };
        let mut store = self.scratch.open_until(&mut go)?.ok_or("cut")?;
        let report = store.journal.report();
        if !report.lost.is_empty() {
            return Err("a loss is reported".into());
        }
        if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
            return Err(format!("replay passes its bound: {report:?}"));
        }
        let map = super::cuts::read(&mut self.scratch, &mut store, &self.keys)?;
        for cut in cuts {
            let classes = Classes::new(&cut, &self.verifier)?;
            match self.depth - depth {
                0 => self.found.nested += classes.members(),
                _ => self.found.twice += classes.members(),
            }
            for n in 0..classes.count() {
                if self.recover(&classes.image(n, false), depth - 1)? != map {
                    return Err("a cut in the recovery changes its verdict".into());
                }
            }
        }
        self.known.insert(image.hash, (map.clone(), depth));
        Ok(map)
    }
}

impl Run {
    fn new(base: &Bench, book: &Book, depth: usize) -> Result<Self, String> {
        let verifier = verifier(base.device.durable()).ok_or("the base has no superblock")?;
        let judge = Judge {
            scratch: base.fork(),
            verifier,
            keys: keys(),
            depth,
            awake: false,
            known: HashMap::new(),
            found: Histories::default(),
            ended: Ok(()),
        };
        Ok(Self { bench: base.fork(), book: Book::new(book.newest().clone()), judge, value: 0 })
    }

    fn play(&mut self, word: &[Letter]) -> Ended {
        self.judge.awake = word.is_empty();
        let mut store = self.reopen()?;
        for (at, letter) in word.iter().enumerate() {
            self.judge.awake = at + 1 == word.len();
            self.letter(*letter, &mut store)?;
        }
        self.idle(&mut store)?;
        self.book.acknowledge_all();
        let device = self.bench.device.clone();
        self.judge.cut(&device, &self.book);
        self.judge.ended.clone()
    }

    fn letter(&mut self, letter: Letter, store: &mut Store) -> Ended {
        self.value += 1;
        let small = vec![self.value; 20];
        let (a, b, c) = (b"/a".to_vec(), b"/b".to_vec(), b"/c".to_vec());
        match letter {
            Letter::Put => self.commit(store, &[(a, Some(small))], Durability::Durable),
            Letter::Overwrite => {
                let long = vec![self.value; 500];
                self.commit(store, &[(a, Some(long))], Durability::Durable)
            }
            Letter::Delete => self.commit(store, &[(a, None)], Durability::Durable),
            Letter::Batch => {
                let batch = [(b, Some(small.clone())), (a, None), (c, Some(small))];
                self.commit(store, &batch, Durability::Durable)
            }
            Letter::Sync => self.commit(store, &[(b, Some(small))], Durability::Buffered),
            Letter::Checkpoint => match self.until(store, |stats| stats.checkpoints)? {
                true => Ok(()),
                false => Err("no checkpoint is adopted".into()),
            },
            Letter::Clean => {
                let cleaned = self.until(store, |stats| stats.cleaned)?;
                self.judge.found.without_cleaning += u64::from(!cleaned);
                Ok(())
            }
            Letter::Reopen => {
                *store = self.reopen()?;
                Ok(())
            }
        }
    }

    /// Puts a key until a figure of the store rises; tells whether it did.
    fn until(&mut self, store: &mut Store, figure: fn(&Stats) -> u64) -> Result<bool, String> {
        let before = figure(&store.journal.stats());
        for n in 0..PUTS_MAX {
            let change = [(b"/z".to_vec(), Some(vec![self.value, n]))];
            self.commit(store, &change, Durability::Durable)?;
            self.idle(store)?;
            if figure(&store.journal.stats()) > before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn commit(
        &mut self,
        store: &mut Store,
        changes: &[(Vec<u8>, Option<Vec<u8>>)],
        durability: Durability,
    ) -> Ended {
        self.book.take(changes);
        let given: Vec<_> = changes.iter().map(|(k, v)| (k.as_slice(), v.as_deref())).collect();
        let commit = store.submit(&given, durability);
        let Self { bench, book, judge, .. } = self;
        let mut go = |device: &SimDevice| judge.cut(device, book);
        let done = bench.drive(store, commit, &mut go)?;
        match done {
            None => return judge.ended.clone(),
            Some(Ok(Outcome::Applied(_))) => {}
            Some(other) => return Err(format!("a commit ended with {other:?}")),
        }
        if durability == Durability::Buffered {
            let journal = store.journal.clone();
            let sync = Box::pin(async move { journal.sync().await });
            let mut go = |device: &SimDevice| judge.cut(device, book);
            match bench.drive(store, sync, &mut go)? {
                None => return judge.ended.clone(),
                Some(done) => done.map_err(|error| error.to_string())?,
            }
        }
        book.acknowledge_all();
        Ok(())
    }

    fn idle(&mut self, store: &mut Store) -> Ended {
        let Self { bench, book, judge, .. } = self;
        let mut go = |device: &SimDevice| judge.cut(device, book);
        bench.idle_until(store, &mut go)?;
        judge.ended.clone()
    }

    fn reopen(&mut self) -> Result<Store, String> {
        let Self { bench, book, judge, .. } = self;
        let mut go = |device: &SimDevice| judge.cut(device, book);
        let store = bench.open_until(&mut go)?;
        judge.ended.clone()?;
        store.ok_or_else(|| "cut".into())
    }
}
