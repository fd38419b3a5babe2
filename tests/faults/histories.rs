//! Every history of a few operations, cut at every write with every end, and its recovery cut again.

use super::bench::{BLOCK_BYTES, Bench, Go, Store};
use super::classes::{Classes, Name, verifier};
use super::cuts::Book;
use super::recoveries::{Counts, Known, Recoveries, map_digest};
use super::rich::Map;
use super::traces::Ended;
use blockdev::SimDevice;
use journal::{Durability, Outcome, Plants, Stats};
use std::fmt;

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
    pub letters: u32,
    /// Longest history whose recoveries are cut, too.
    pub nested: u32,
    /// Longest history of which the recoveries of those are cut once more.
    pub twice: u32,
    /// Longest history where it counts which copy of the superblock holds what, also for what cuts of recoveries leave.
    pub placed: u32,
}

/// What was tried. Images are counted one by one, and recovered from class by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histories {
    /// Histories, from each base that they begin from.
    pub histories: u64,
    /// Moments at which they were cut: before each flush. A cut after any write is a cut there with later writes old.
    pub cuts: u64,
    /// Images that those cuts leave.
    pub images: u128,
    /// Recoveries, and the cuts of those.
    pub recoveries: Counts,
    /// Histories in which nothing was there to clean, for as many puts as there may be.
    pub without_cleaning: u64,
}

/// Tries every history within `bounds` whose first two letters leave `share` when divided by `of`, and tells what each
/// of them adds.
///
/// A history is cut during its last letter: earlier cuts belong to shorter ones from the same base. So those that a history
/// that cleans may begin with are tried from its base too.
///
/// # Errors
/// A promise was broken.
pub fn histories(
    plants: Plants,
    bounds: Bounds,
    (share, of): (usize, usize),
    mut told: impl FnMut(&Histories),
) -> Result<(), String> {
    let bases = Bases::new(plants)?;
    let mut known = Known::default();
    let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
    for length in 0..=bounds.letters {
        let depth = usize::from(length <= bounds.nested) + usize::from(length <= bounds.twice);
        // Histories that begin alike leave images in common, so they stay together.
        let first =
            |word: &[Letter]| word.iter().take(2).map(|letter| *letter as usize).sum::<usize>();
        for word in words.iter().filter(|word| first(word) % of == share) {
            let how = (depth, length <= bounds.placed);
            told(&history_from(bases.of(word), word, how, &mut known)?);
            if length < bounds.letters && !cleans(word) {
                told(&history_from(&bases.old, word, how, &mut known)?);
            }
        }
        let longer = words.iter().flat_map(|word| {
            LETTERS.iter().map(move |letter| word.iter().chain([letter]).copied().collect())
        });
        words = longer.collect();
    }
    Ok(())
}

/// Tries one history, each recovery being cut again to `depth`; with `placed` it counts which copy of the superblock holds
/// what.
///
/// # Errors
/// A promise was broken.
pub fn history(
    plants: Plants,
    word: &[Letter],
    depth: usize,
    placed: bool,
) -> Result<Histories, String> {
    history_from(Bases::new(plants)?.of(word), word, (depth, placed), &mut Known::default())
}

fn history_from(
    base: &(Bench, Book),
    word: &[Letter],
    how: (usize, bool),
    known: &mut Known,
) -> Result<Histories, String> {
    let mut run = Run::new(base, how, std::mem::take(known))?;
    run.play(word).map_err(|what| format!("{word:?}: {what}"))?;
    let Judge { recoveries, known: left, mut found, .. } = run.judge;
    *known = left;
    found.histories = 1;
    found.recoveries = recoveries.counts;
    Ok(found)
}

fn cleans(word: &[Letter]) -> bool {
    word.contains(&Letter::Clean)
}

/// What histories begin with.
struct Bases {
    young: (Bench, Book),
    old: (Bench, Book),
}

impl Bases {
    fn new(plants: Plants) -> Result<Self, String> {
        Ok(Self { young: base(plants, YOUNG)?, old: base(plants, OLD)? })
    }

    /// What cleans begins where there is something to clean.
    fn of(&self, word: &[Letter]) -> &(Bench, Book) {
        if cleans(word) { &self.old } else { &self.young }
    }
}

impl Histories {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.cuts += other.cuts;
        self.images = self.images.saturating_add(other.images);
        self.recoveries.add(&other.recoveries);
        self.without_cleaning += other.without_cleaning;
    }
}

impl Bounds {
    /// Yields how many histories there are.
    pub fn histories(&self) -> u64 {
        let of = |length| (LETTERS.len() as u64).pow(length);
        let from_both = |length| (LETTERS.len() as u64 - 1).pow(length);
        (0..=self.letters).map(of).chain((0..self.letters).map(from_both)).sum()
    }
}

impl fmt::Display for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, cuts, images, recoveries, without_cleaning } = self;
        write!(
            f,
            "{histories} histories, of which {without_cleaning} had nothing to clean; {cuts} cuts, which leave {images:.1e} \
             images\n{recoveries}"
        )
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
    recoveries: Recoveries,
    /// What the images of all histories so far came to.
    known: Known,
    /// The letter at hand is the last: earlier cuts belong to shorter histories from the same base.
    awake: bool,
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
        let (durable, seen) = (device.durable(), device.visible());
        let name = Name::of(durable);
        let writes = device.risks().map(|risk| {
            let at = usize::try_from(risk.offset).unwrap_or(usize::MAX);
            (at, &seen[at..at + BLOCK_BYTES])
        });
        let classes = Classes::new(durable, &name, writes.collect(), self.recoveries.verifier())?;
        self.found.cuts += 1;
        self.found.images = self.found.images.saturating_add(classes.members());
        let allowed: Vec<u128> = book.allowed().iter().map(map_digest).collect();
        self.recoveries.medium.load(durable);
        for n in 0..classes.count() {
            let cut = self.found.cuts;
            let said = |what| format!("cut {cut}, class {n}: {what}");
            let map = self.recoveries.all((&classes, n), name, &mut self.known).map_err(said)?;
            if !allowed.contains(&map) {
                classes.leave(n, &mut self.recoveries.medium.bytes);
                book.judge(&self.recoveries.once()?).map_err(said)?;
                return Err(said("an image that was met before came to something else".into()));
            }
            if (n + self.found.cuts as usize).is_multiple_of(PROBED) {
                classes.leave_other(n, &mut self.recoveries.medium.bytes);
                self.recoveries.probe(map).map_err(said)?;
                classes.undo(&mut self.recoveries.medium.bytes);
            }
        }
        Ok(())
    }
}

impl Run {
    fn new(
        (base, book): &(Bench, Book),
        (depth, placed): (usize, bool),
        known: Known,
    ) -> Result<Self, String> {
        let verifier = verifier(base.device.durable()).ok_or("the base has no superblock")?;
        let recoveries = Recoveries::new(base.options, verifier, keys(), depth, placed);
        let found = Histories::default();
        let judge = Judge { recoveries, known, awake: false, found, ended: Ok(()) };
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
