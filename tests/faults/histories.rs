//! Every history of a few operations, cut at every write with every end, and its recovery cut again.

use super::bench::{Bench, Go, Store, fates};
use super::cuts::{Book, Ends, recover};
use super::traces::Ended;
use blockdev::SimDevice;
use journal::{Durability, Outcome, Plants};

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
    /// Open the store again.
    Reopen,
}

/// The alphabet.
pub const LETTERS: [Letter; 7] = [
    Letter::Put,
    Letter::Overwrite,
    Letter::Delete,
    Letter::Batch,
    Letter::Sync,
    Letter::Checkpoint,
    Letter::Reopen,
];

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest history.
    pub letters: usize,
    /// Longest history whose recoveries are cut, too.
    pub nested: usize,
    /// Most ends of one cut; where there are more, so many are sampled.
    pub ends: usize,
    /// The same inside a recovery.
    pub nested_ends: usize,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Histories {
    /// Histories.
    pub histories: u64,
    /// Moments at which they were cut: before each flush. A cut after any write is a cut there with later writes old.
    pub cuts: u64,
    /// Moments with more ends than the bound.
    pub sampled: u64,
    /// Images that were recovered.
    pub images: u64,
    /// Images of recoveries that were cut, recovered again.
    pub nested: u64,
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
    let (base, book) = base(plants)?;
    let mut histories = Histories::default();
    let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
    for length in 0..=bounds.letters {
        for word in words.iter().skip(share).step_by(of) {
            let mut run = Run::new(&base, &book, bounds, length <= bounds.nested);
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
        self.sampled += other.sampled;
        self.images += other.images;
        self.nested += other.nested;
    }
}

/// Makes a volume whose log is long enough for a checkpoint to be near.
fn base(plants: Plants) -> Result<(Bench, Book), String> {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut book = Book::new(super::rich::Map::new());
    for n in 0..8_u8 {
        bench.commit(&mut store, &[(b"/z", Some(&[n]))])?;
        bench.idle(&mut store)?;
        book.take(&[(b"/z".to_vec(), Some(vec![n]))]);
    }
    if store.journal.stats().checkpoints > 0 {
        return Err("the base has a checkpoint already".into());
    }
    Ok((bench, Book::new(book.newest().clone())))
}

fn keys() -> Vec<Vec<u8>> {
    [b"/a", b"/b", b"/c", b"/z"].map(|key| key.to_vec()).to_vec()
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
    keys: Vec<Vec<u8>>,
    bounds: Bounds,
    nested: bool,
    /// The letter at hand is the last: earlier cuts belong to shorter histories.
    awake: bool,
    found: Histories,
    ended: Ended,
}

impl Judge {
    /// Recovers from every end of a cut here.
    fn cut(&mut self, device: &SimDevice, book: &Book) -> Go {
        if self.awake && self.ended.is_ok() {
            self.ended = self.every_end(device, book);
        }
        if self.ended.is_ok() { Go::On } else { Go::Cut }
    }

    fn every_end(&mut self, device: &SimDevice, book: &Book) -> Ended {
        let mut ends = Ends::new(device, self.bounds.ends);
        self.found.cuts += 1;
        self.found.sampled += u64::from(ends.sampled);
        for n in 0..ends.count() {
            let end = ends.end(n);
            self.scratch.device.clone_from(device);
            self.scratch.device.power_cut_choosing(fates(&end));
            let done = if self.nested { self.recover_cut(book) } else { self.recover(book) };
            done.map_err(|what| format!("cut {} with {end:?}: {what}", self.found.cuts))?;
        }
        Ok(())
    }

    fn recover(&mut self, book: &Book) -> Ended {
        self.found.images += 1;
        book.judge(&recover(&mut self.scratch, &self.keys)?)
    }

    /// Recovers, and also cuts that recovery at each of its writes: it must come to the same.
    fn recover_cut(&mut self, book: &Book) -> Ended {
        let mut images = Vec::new();
        let most = self.bounds.nested_ends;
        let mut go = |device: &SimDevice| {
            let mut ends = Ends::new(device, most);
            for n in 0..ends.count() {
                let mut image = device.clone();
                image.power_cut_choosing(fates(&ends.end(n)));
                images.push(image);
            }
            Go::On
        };
        let mut store = self.scratch.open_until(&mut go)?.ok_or("cut")?;
        if !store.journal.report().lost.is_empty() {
            return Err("a loss is reported".into());
        }
        let map = super::cuts::read(&mut self.scratch, &mut store, &self.keys)?;
        self.found.images += 1;
        book.judge(&map)?;
        for image in images {
            self.scratch.device = image;
            self.found.nested += 1;
            if recover(&mut self.scratch, &self.keys)? != map {
                return Err("a cut in the recovery changes its verdict".into());
            }
        }
        Ok(())
    }
}

impl Run {
    fn new(base: &Bench, book: &Book, bounds: Bounds, nested: bool) -> Self {
        let mut scratch = base.fork();
        scratch.seed = 1 << 20;
        let judge = Judge {
            scratch,
            keys: keys(),
            bounds,
            nested,
            awake: false,
            found: Histories::default(),
            ended: Ok(()),
        };
        Self { bench: base.fork(), book: Book::new(book.newest().clone()), judge, value: 0 }
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
        let (a, b, c, z) = (b"/a".to_vec(), b"/b".to_vec(), b"/c".to_vec(), b"/z".to_vec());
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
            Letter::Checkpoint => {
                let before = store.journal.stats().checkpoints;
                for n in 0..60_u8 {
                    let change = [(z.clone(), Some(vec![self.value, n]))];
                    self.commit(store, &change, Durability::Durable)?;
                    self.idle(store)?;
                    if store.journal.stats().checkpoints > before {
                        return Ok(());
                    }
                }
                Err("no checkpoint is adopted".into())
            }
            Letter::Reopen => {
                *store = self.reopen()?;
                Ok(())
            }
        }
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
