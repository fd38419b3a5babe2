//! Recovers from an image, and from every cut of that recovery, and of those: each image once.
//!
//! # What is not done again, and why that is enough
//!
//! A recovery is a function of the bytes that it reads and of the numbers that it draws, which are the same for all
//! recoveries of one depth. Which history left the image is no part of that: what was acknowledged there decides whether
//! the outcome is right, not what it is. So an outcome is kept by the [`Name`] of its image alone. Wherever the image
//! turns up again, the outcome is judged anew, by what was acknowledged there, and all that followed from the image
//! came to this outcome, too, or the run would have ended.
//!
//! * An image is not recovered from again if it was before, and that recovery was cut at least as deep. What histories
//!   leave is remembered through all of them: where the last operation left nothing yet, a shorter history left the same.
//!   What cuts of recoveries leave is remembered within a history.
//! * A cut of a recovery that leaves the very image it began with (nothing was written yet, or nothing of it was kept) is
//!   that recovery once more, with one cut less to come, and whatever may follow is tried there.
//! * A name does not tell apart what lies in copies of the superblock that do not verify, as [`super::classes`] does
//!   not: it is dropped before anything looks at it. Every byte of the zones is part of a name.
//! * The copies of the superblock are a set: the newest counts, the oldest are written first, and copies of one age are
//!   alike. So images that differ only in which copy holds what come to the same, and what a cut leaves of one recovery
//!   is what one leaves of the other, the copies changed over alike. With `placed` all of them are recovered from, and
//!   this claim is checked, for each of them and each depth: equal sets must come to equal outcomes and leave equal sets
//!   (`sets_suffice`). Without, all that a history leaves is still recovered from, and of what cuts of recoveries
//!   leave one of each set is.
//!
//! One in [`PROBED`] of the images that are left out is recovered from all the same, and must come to the same.

use super::classes::{Classes, Name, digest};
use super::rich::Map;
use crate::drive::{Task, poll, read_whole};
use blockdev::{Buffer, Completion, Geometry, Operation, Request};
use journal::{Clock, Disk, Got, Journal, Options, Origin, Random, Verifier};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

/// One in so many is probed.
pub const PROBED: u64 = 64;
/// Polls after which a task that should end counts as hanging.
const POLLS_MAX: u32 = 20_000;
/// A recovery draws other numbers at each depth, none that a history drew.
const SEED: u64 = 1 << 20;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Recoveries from images that a history left, from images that a cut of such a recovery left, and from images that
    /// a cut of one of those left.
    pub recoveries: [u64; 3],
    /// Recoveries that were cut at each of their flushes, in every way.
    pub cut: u64,
    /// Of those, recoveries of which all those that follow were cut so, too.
    pub cut_twice: u64,
    /// Images that cuts of recoveries leave, counted one by one and once for each recovery.
    pub images: u128,
    /// Images that were met again and not recovered again.
    pub known: u64,
    /// Of those, images that were recovered all the same, and of classes other images.
    pub probes: u64,
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.recoveries.iter_mut().zip(other.recoveries) {
            *sum += more;
        }
        self.cut += other.cut;
        self.cut_twice += other.cut_twice;
        self.images = self.images.saturating_add(other.images);
        self.known += other.known;
        self.probes += other.probes;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recoveries, cut, cut_twice, images, known, probes } = self;
        let [left, nested, twice] = recoveries;
        write!(
            f,
            "{} recoveries from distinct images: {left} that a history left, {nested} that a cut recovery left, {twice} that \
             the cut recovery of one of those left\n\
             {cut} recoveries cut at every write, {cut_twice} of them and all that follow those; that leaves {images:.1e} \
             images\n\
             {known} times an image was met again; {probes} probes",
            left + nested + twice
        )
    }
}

/// What a recovery came to.
#[derive(Clone, Copy)]
struct Outcome {
    map: u128,
    /// How often it was cut again.
    depth: usize,
}

/// What images came to, by the digests of their names.
#[derive(Default)]
pub struct Known(HashMap<u128, Outcome>);

impl Known {
    /// Yields what an image came to, if its recovery was cut at least so deep.
    fn at(&self, digest: u128, depth: usize) -> Option<u128> {
        self.0.get(&digest).filter(|outcome| outcome.depth >= depth).map(|outcome| outcome.map)
    }
}

/// Recovers.
pub struct Recoveries {
    /// The image at hand.
    pub medium: Medium,
    /// What was done.
    pub counts: Counts,
    options: Options,
    verifier: Verifier,
    keys: Rc<[Vec<u8>]>,
    depth: usize,
    /// It counts which copy of the superblock holds what.
    placed: bool,
    known: Known,
    /// What recoveries came to and what their cuts left, by the digest of the set and the depth.
    sets: HashMap<(u128, usize), u128>,
}

/// Yields what maps are compared by.
pub fn map_digest(map: &Map) -> u128 {
    digest(2, map)
}

impl Recoveries {
    /// Makes ready to recover from images of a volume and read `keys`. Each recovery is cut again to this depth; with
    /// `placed`, images that differ only in which copy of the superblock holds what are all recovered from.
    pub fn new(
        options: Options,
        verifier: Verifier,
        keys: Vec<Vec<u8>>,
        depth: usize,
        placed: bool,
    ) -> Self {
        let (medium, counts, keys) = (Medium::default(), Counts::default(), keys.into());
        let (known, sets) = (Known::default(), HashMap::new());
        Self { medium, counts, options, verifier, keys, depth, placed, known, sets }
    }

    /// Yields how the groups of the volume are checked.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Recovers from class `n` of what a cut of the image at hand, called `name`, leaves, and yields the digest of what it
    /// holds, all recoveries that follow having come to the same; `known` has what earlier histories left.
    ///
    /// # Errors
    /// A recovery refuses, reports a loss, or comes to something else.
    pub fn all(
        &mut self,
        (classes, n): (&Classes, usize),
        name: Name,
        known: &mut Known,
    ) -> Result<u128, String> {
        let left = classes.name(n, name);
        let digest = left.digest();
        if let Some(map) = known.at(digest, self.depth) {
            return self.met_again((classes, n), map);
        }
        classes.leave(n, &mut self.medium.bytes);
        let map = match self.known.at(self.digest(&left), self.depth) {
            // Each that a history leaves is recovered from, wherever its copies of the superblock lie.
            Some(map) => {
                self.counts.recoveries[0] += 1;
                self.probe(map)?;
                map
            }
            None => self.recover(left, self.depth)?,
        };
        classes.undo(&mut self.medium.bytes);
        known.0.insert(digest, Outcome { map, depth: self.depth });
        Ok(map)
    }

    /// Recovers from the image at hand and yields what it holds.
    ///
    /// # Errors
    /// The recovery refuses, or reports a loss.
    pub fn once(&mut self) -> Result<Map, String> {
        let (map, _) = self.mount(0)?;
        self.medium.undo();
        Ok(map)
    }

    /// Probes another image, the one at hand, that must come to the same.
    ///
    /// # Errors
    /// It does not.
    pub fn probe(&mut self, map: u128) -> Result<(), String> {
        self.counts.probes += 1;
        match map_digest(&self.once()?) == map {
            true => Ok(()),
            false => Err("images that are one to recovery do not come to the same".into()),
        }
    }

    fn met_again(&mut self, (classes, n): (&Classes, usize), map: u128) -> Result<u128, String> {
        self.counts.known += 1;
        if self.counts.known.is_multiple_of(PROBED) {
            classes.leave(n, &mut self.medium.bytes);
            self.probe(map)?;
            classes.undo(&mut self.medium.bytes);
        }
        Ok(map)
    }

    fn digest(&self, name: &Name) -> u128 {
        if self.placed { name.digest() } else { name.digest_of_set() }
    }

    /// Recovers from the image at hand and from what cuts of that leave.
    fn recover(&mut self, name: Name, depth: usize) -> Result<u128, String> {
        self.counts.recoveries[self.depth - depth] += 1;
        let (map, flushes) = self.mount(depth as u64)?;
        let map = map_digest(&map);
        // Before its cuts are: one that leaves this very image has nothing to add.
        self.known.0.insert(self.digest(&name), Outcome { map, depth });
        let written = self.medium.undo();
        if depth == 0 {
            return Ok(map);
        }
        self.counts.cut += 1;
        self.counts.cut_twice += u64::from(depth > 1);
        let (mut now, mut cuts, mut left) = (name, Vec::new(), vec![map]);
        for range in flushes {
            let writes = written.get(range).unwrap_or_default().iter();
            let writes = writes.flat_map(Written::blocks).collect();
            let classes = Classes::new(&self.medium.bytes, &now, writes, &self.verifier)?;
            self.counts.images = self.counts.images.saturating_add(classes.members());
            for n in 0..classes.count() {
                let name = classes.name(n, now);
                left.push(if self.placed { name.digest_of_set() } else { 0 });
                let came_to = match self.known.at(self.digest(&name), depth - 1) {
                    Some(map) => self.met_again((&classes, n), map)?,
                    None => {
                        classes.leave(n, &mut self.medium.bytes);
                        let map = self.recover(name, depth - 1)?;
                        classes.undo(&mut self.medium.bytes);
                        map
                    }
                };
                if came_to != map {
                    return Err("a cut in the recovery changes its verdict".into());
                }
            }
            now = classes.flush(&mut self.medium.bytes, now);
            cuts.push(classes);
        }
        cuts.iter().rev().for_each(|classes| classes.undo(&mut self.medium.bytes));
        self.sets_suffice(&name, depth, left)?;
        Ok(map)
    }

    /// Checks that what a recovery comes to, and what its cuts leave, rests on the set of the superblock's copies alone.
    fn sets_suffice(
        &mut self,
        name: &Name,
        depth: usize,
        mut left: Vec<u128>,
    ) -> Result<(), String> {
        if !self.placed {
            return Ok(());
        }
        left[1..].sort_unstable();
        let left = digest(4, left);
        match *self.sets.entry((name.digest_of_set(), depth)).or_insert(left) == left {
            true => Ok(()),
            false => Err("it matters which copy of the superblock holds what".into()),
        }
    }

    /// Opens the image at hand and reads all keys. What it writes is on the medium then; yields what it holds, and the
    /// writes that each flush covers.
    fn mount(&mut self, seed: u64) -> Result<(Map, Vec<Range<usize>>), String> {
        let disk = Disk::new(Medium::GEOMETRY);
        let (of, keys) = (disk.clone(), self.keys.clone());
        let mut seeds = [0; 32];
        seeds[..8].copy_from_slice(&(SEED + seed).to_le_bytes());
        let opening = Journal::open(of, Random::from_seed(seeds), Clock::default(), self.options);
        let task: Task<Result<Map, String>> = Box::pin(async move {
            let journal = opening.await;
            let journal = journal.map_err(|error| format!("the volume does not open: {error}"))?;
            let report = journal.report();
            if !report.lost.is_empty() {
                return Err("a loss is reported".into());
            }
            if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
                return Err(format!("replay passes its bound: {report:?}"));
            }
            let mut map = Map::new();
            for key in keys.iter() {
                match read_whole(&journal, key, Origin(0)).await {
                    Got::Value { value, .. } => drop(map.insert(key.clone(), value.to_vec())),
                    Got::Absent => {}
                    _ => return Err(format!("{} is lost", String::from_utf8_lossy(key))),
                }
            }
            Ok(map)
        });
        let map = self.medium.drive(&disk, task)??;
        Ok((map, self.medium.flushes()))
    }
}

/// What was written, and over what.
struct Written {
    at: usize,
    old: Vec<u8>,
    new: Buffer,
}

impl Written {
    fn blocks(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let blocks = self.new.chunks(super::bench::BLOCK_BYTES).enumerate();
        blocks.map(|(n, block)| (self.at + n * super::bench::BLOCK_BYTES, block))
    }
}

/// A device of which every request ends at once, and what is written can be undone.
#[derive(Default)]
pub struct Medium {
    /// Its bytes.
    pub bytes: Vec<u8>,
    written: Vec<Written>,
    /// How much was written before each flush.
    flushed: Vec<usize>,
}

impl Medium {
    const GEOMETRY: Geometry = Geometry {
        sector_bytes: 512,
        physical_bytes: 512,
        device_bytes: super::bench::DEVICE_BYTES,
    };

    /// Puts an image on it.
    pub fn load(&mut self, image: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(image);
    }

    fn drive<T>(&mut self, disk: &Disk, mut task: Task<T>) -> Result<T, String> {
        for _ in 0..POLLS_MAX {
            if let Poll::Ready(value) = poll(&mut task) {
                return Ok(value);
            }
            while let Some(request) = disk.next_request() {
                disk.complete(self.finish(request)?);
            }
        }
        Err("a task hangs".into())
    }

    fn finish(&mut self, request: Request) -> Result<Completion, String> {
        let Request { id, operation, mut buffer } = request;
        let place = |offset: u64, bytes: usize| {
            let at = usize::try_from(offset).map_err(|_| "a request beyond the device")?;
            Ok::<_, String>(at..at + bytes)
        };
        match operation {
            Operation::Read { offset } => {
                let range = place(offset, buffer.len())?;
                let bytes = self.bytes.get(range).ok_or("a read beyond the device")?;
                buffer.copy_from_slice(bytes);
            }
            Operation::Write { offset } => {
                let range = place(offset, buffer.len())?;
                let at = range.start;
                let bytes = self.bytes.get_mut(range).ok_or("a write beyond the device")?;
                let old = bytes.to_vec();
                bytes.copy_from_slice(&buffer);
                self.written.push(Written { at, old, new: std::mem::take(&mut buffer) });
            }
            Operation::Flush => self.flushed.push(self.written.len()),
        }
        Ok(Completion { id, buffer, result: Ok(()) })
    }

    /// Yields the writes that each flush covered, and those that none covered, if there are any.
    fn flushes(&mut self) -> Vec<Range<usize>> {
        let mut from = 0;
        let mut ends = std::mem::take(&mut self.flushed);
        ends.extend(Some(self.written.len()).filter(|end| ends.last() != Some(end)));
        ends.into_iter().map(|to| std::mem::replace(&mut from, to)..to).collect()
    }

    /// Takes back what was written, and yields it.
    fn undo(&mut self) -> Vec<Written> {
        for written in self.written.iter().rev() {
            self.bytes[written.at..written.at + written.old.len()].copy_from_slice(&written.old);
        }
        self.flushed.clear();
        std::mem::take(&mut self.written)
    }
}
