//! A bounded cache of values that were read from the device or are about to be asked for.

use crate::types::{Birth, Place};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::Cell;
use core::hash::{BuildHasherDefault, Hasher};
use hashbrown::HashMap;

/// Values by place, the oldest of them dropped first.
pub(crate) struct ValueCache {
    values: HashMap<Key, Kept, BuildHasherDefault<PlaceHasher>>,
    /// What was kept, the oldest first, each with its number; some of it was dropped since.
    order: VecDeque<(Key, u64)>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// A place, its segment in the upper half.
type Key = u64;

/// Spreads places. Nobody but the journal chooses them, so a product with an odd number does.
#[derive(Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, place: u64) {
        // Golden ratio (Knuth, TAOCP volume 3, section 6.4): the upper half of the product is what is spread best.
        let spread = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Kept {
    value: Rc<[u8]>,
    /// Of the write that it came with: another record may lie at the place by the time that it is asked for.
    birth: Birth,
    number: u64,
}

/// What a value costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

impl ValueCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        let (values, order) = (HashMap::default(), VecDeque::new());
        Self { values, order, next: 0, bytes: 0, bytes_max, hits, misses }
    }

    /// Yields the value at a place that a write of this birth gave, if it is kept.
    pub(crate) fn get(&self, place: Place, birth: Birth) -> Option<Rc<[u8]>> {
        let value = self.kept(place, birth).map(|kept| kept.value.clone());
        let count = if value.is_some() { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        value
    }

    /// Yields how often what was asked for was there, and how often not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// Keeps `value`; large ones are not worth pushing others out for.
    pub(crate) fn insert(&mut self, place: Place, birth: Birth, value: Rc<[u8]>) {
        // A place may be written again after its segment was freed: what lay there is not the value any more.
        let cost = value.len() + OVERHEAD_BYTES;
        if cost > self.bytes_max / 8 {
            self.forget(key(place));
            return;
        }
        let (key, number) = (key(place), self.next);
        self.next += 1;
        self.bytes += cost;
        if let Some(old) = self.values.insert(key, Kept { value, birth, number }) {
            self.bytes -= old.value.len() + OVERHEAD_BYTES;
        }
        self.order.push_back((key, number));
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if self.is_kept(&oldest) {
                self.forget(oldest.0);
            }
        }
        if self.order.len() > 2 * self.values.len() + 16 {
            let mut order = core::mem::take(&mut self.order);
            order.retain(|one| self.is_kept(one));
            self.order = order;
        }
    }

    /// Keeps a value whose record was moved, if it was kept where that lay.
    pub(crate) fn moved(&mut self, from: Place, to: Place, birth: Birth) {
        match self.kept(from, birth).map(|kept| kept.value.clone()) {
            Some(value) => {
                self.forget(key(from));
                self.insert(to, birth, value);
            }
            None => self.forget(key(to)),
        }
    }

    fn kept(&self, place: Place, birth: Birth) -> Option<&Kept> {
        self.values.get(&key(place)).filter(|kept| kept.birth == birth)
    }

    fn forget(&mut self, key: Key) {
        if let Some(old) = self.values.remove(&key) {
            self.bytes -= old.value.len() + OVERHEAD_BYTES;
        }
    }

    fn is_kept(&self, (key, number): &(Key, u64)) -> bool {
        self.values.get(key).is_some_and(|kept| kept.number == *number)
    }
}

fn key(place: Place) -> Key {
    u64::from(place.segment.0) << 32 | u64::from(place.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SegmentIndex;

    #[test]
    fn stays_within_its_bound() {
        let mut cache = ValueCache::new(10_000);
        let place = |offset| Place { segment: SegmentIndex(0), offset };
        for n in 0..1000 {
            cache.insert(place(n % 300 * 8), Birth(1), vec![1; 500].into());
            assert!(cache.bytes <= 10_000);
            assert!(cache.order.len() <= 2 * cache.values.len() + 16);
        }
        cache.insert(place(1), Birth(1), vec![1; 5000].into());
        assert!(cache.get(place(1), Birth(1)).is_none());
        assert!(cache.get(place(999 % 300 * 8), Birth(1)).is_some());
    }

    #[test]
    fn a_value_too_large_for_it_is_not_what_lay_there_before() {
        let mut cache = ValueCache::new(10_000);
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        for _ in 0..3 {
            cache.insert(place, Birth(1), vec![1; 500].into());
            cache.insert(place, Birth(1), vec![2; 5000].into());
            assert!(cache.get(place, Birth(1)).is_none());
            assert_eq!(cache.bytes, 0);
        }
    }

    #[test]
    fn a_move_keeps_what_was_kept_and_nothing_else() {
        let mut cache = ValueCache::new(10_000);
        let place = |offset| Place { segment: SegmentIndex(0), offset };
        cache.insert(place(0), Birth(1), vec![1; 500].into());
        cache.insert(place(8), Birth(1), vec![2; 500].into());
        cache.moved(place(0), place(16), Birth(1));
        cache.moved(place(24), place(8), Birth(1));
        assert!(cache.get(place(16), Birth(1)).is_some_and(|value| value.first() == Some(&1)));
        assert!(cache.get(place(8), Birth(1)).is_none());
        assert!(cache.get(place(16), Birth(2)).is_none(), "another write's");
    }
}
