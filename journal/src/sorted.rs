//! Keys in their order, so held that most searches compare numbers alone.

use crate::run::{head, shared_bytes};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Keys in their order, each there once.
#[derive(Clone, Default)]
pub(crate) struct Sorted {
    keys: Vec<Rc<[u8]>>,
    /// Bytes that all keys begin with alike.
    shared: usize,
    /// Of each key the eight bytes behind those, as a number: most searches end with these.
    heads: Vec<u64>,
}

/// Where a key is, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rank {
    /// How many keys are below it.
    pub(crate) below: usize,
    /// It is there.
    pub(crate) there: bool,
}

impl Rank {
    const fn absent(below: usize) -> Self {
        Self { below, there: false }
    }
}

impl From<Vec<Rc<[u8]>>> for Sorted {
    /// Takes keys that are in their order.
    fn from(keys: Vec<Rc<[u8]>>) -> Self {
        let mut sorted = Self { keys, ..Self::default() };
        sorted.measure();
        sorted
    }
}

impl Sorted {
    /// Yields the keys.
    pub(crate) fn keys(&self) -> &[Rc<[u8]>] {
        &self.keys
    }

    /// Finds a key.
    pub(crate) fn rank(&self, key: &[u8]) -> Rank {
        let Some(prefix) = self.keys.first().and_then(|first| first.get(..self.shared)) else {
            return Rank::absent(0);
        };
        match key.get(..self.shared.min(key.len())).unwrap_or_default().cmp(prefix) {
            Ordering::Less => return Rank::absent(0),
            Ordering::Greater => return Rank::absent(self.keys.len()),
            Ordering::Equal => {}
        }
        let head = head(key.get(self.shared..).unwrap_or_default());
        let low = self.heads.partition_point(|other| *other < head);
        // Those that the heads do not tell apart; mostly there is none, or one.
        let alike = self.heads.iter().skip(low).take_while(|other| **other == head).count();
        let alike = self.keys.get(low..low + alike).unwrap_or_default();
        match alike.binary_search_by(|other| (**other).cmp(key)) {
            Ok(at) => Rank { below: low + at, there: true },
            Err(at) => Rank::absent(low + at),
        }
    }

    /// Adds a key that so many are below.
    pub(crate) fn insert(&mut self, below: usize, key: Rc<[u8]>) {
        let shared = self.keys.first().map(|first| shared_bytes(first, &key));
        let same = shared.is_some_and(|shared| shared >= self.shared);
        if same {
            self.heads.insert(below, head(key.get(self.shared..).unwrap_or_default()));
        }
        self.keys.insert(below, key);
        if !same {
            self.measure();
        }
    }

    /// Takes the key away that so many are below.
    pub(crate) fn remove(&mut self, below: usize) {
        self.keys.remove(below);
        self.heads.remove(below);
    }

    /// Takes all keys away that have at least so many below them, and yields them.
    pub(crate) fn split_off(&mut self, below: usize) -> Vec<Rc<[u8]>> {
        let keys = self.keys.split_off(below);
        self.measure();
        keys
    }

    /// Takes measure of the keys after they changed.
    fn measure(&mut self) {
        let (first, last) = (self.keys.first(), self.keys.last());
        self.shared = first.zip(last).map_or(0, |(first, last)| shared_bytes(first, last));
        self.heads.clear();
        let tails = self.keys.iter().map(|one| one.get(self.shared..).unwrap_or_default());
        self.heads.extend(tails.map(head));
    }
}

/// Yields numbers from 0 on in the order of their heads, `tie` telling of those with the same head.
pub(crate) fn in_order(
    heads: impl Iterator<Item = u64>,
    tie: &dyn Fn(usize, usize) -> Ordering,
) -> Vec<(u64, usize)> {
    let mut order: Vec<_> = heads.zip(0..).collect();
    order.sort_unstable_by(|(a_head, a), (b_head, b)| a_head.cmp(b_head).then_with(|| tie(*a, *b)));
    order
}
