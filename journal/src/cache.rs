//! A bounded cache of values that were read from the device or are about to be asked for.

use crate::types::Place;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use core::cell::Cell;

/// Values by place, the oldest of them dropped first.
pub(crate) struct ValueCache {
    values: BTreeMap<(u32, u32), Rc<[u8]>>,
    order: VecDeque<(u32, u32)>,
    bytes: usize,
    bytes_max: usize,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// What a value costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

impl ValueCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        Self { values: BTreeMap::new(), order: VecDeque::new(), bytes: 0, bytes_max, hits, misses }
    }

    pub(crate) fn get(&self, place: Place) -> Option<Rc<[u8]>> {
        let value = self.values.get(&(place.segment.0, place.offset)).cloned();
        let count = if value.is_some() { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        value
    }

    /// Yields how often what was asked for was there, and how often not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// Keeps `value`; large ones are not worth pushing others out for.
    pub(crate) fn insert(&mut self, place: Place, value: Rc<[u8]>) {
        let cost = value.len() + OVERHEAD_BYTES;
        if cost > self.bytes_max / 8 {
            return;
        }
        let key = (place.segment.0, place.offset);
        match self.values.insert(key, value) {
            // A place may be written again after its segment was freed.
            Some(old) => self.bytes = self.bytes + cost - (old.len() + OVERHEAD_BYTES),
            None => {
                self.bytes += cost;
                self.order.push_back(key);
            }
        }
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(value) = self.values.remove(&oldest) {
                self.bytes -= value.len() + OVERHEAD_BYTES;
            }
        }
    }
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
            cache.insert(place(n % 300 * 8), vec![1; 500].into());
            assert!(cache.bytes <= 10_000);
            assert_eq!(cache.order.len(), cache.values.len());
        }
        cache.insert(place(1), vec![1; 5000].into());
        assert!(cache.get(place(1)).is_none());
        assert!(cache.get(place(999 % 300 * 8)).is_some());
    }
}
