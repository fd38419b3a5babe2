//! Changes of a log, collected and applied to the index together.
//!
//! Sorted, they are merged with the keys that are there into new leaves, which costs a fraction of as many insertions.

use crate::index::{Builder, Entry, Index};
use crate::large::{UploadId, drop_chunks, is_internal, replace};
use crate::record::Kind;
use crate::run::{head, shared_bytes};
use crate::sorted::in_order;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::mem;

/// Bytes of changes that are collected before they are applied: the replay of a long log must not hold all of it.
const BYTES_MAX: usize = 32 << 20;
/// Merging takes all keys in hand; where they are so many times more than the changes, those are made one by one.
const KEYS_PER_CHANGE: usize = 8;

/// Changes in the order of the log.
#[derive(Default)]
pub(crate) struct Bulk {
    keys: Vec<u8>,
    changes: Vec<Change>,
}

/// What a record does to its key.
struct Change {
    key_start: u32,
    key_bytes: u8,
    kind: Kind,
    /// Meaningless in a delete.
    entry: Entry,
}

impl Change {
    /// Yields what a key has after this, `old` being what it had.
    fn after(&self, old: Option<Entry>) -> Option<Entry> {
        match self.kind {
            Kind::Put | Kind::Note | Kind::Chunk => Some(self.entry),
            Kind::Delete => None,
            // FORMAT.md section 5: a move never undoes a later put or delete.
            Kind::Move if old.is_some_and(|old| old.birth == self.entry.birth) => Some(self.entry),
            Kind::Move => old,
        }
    }
}

impl Bulk {
    /// Adds a change; of a delete `entry` counts for nothing.
    pub(crate) fn push(&mut self, kind: Kind, key: &[u8], entry: Entry) {
        let key_start = u32::try_from(self.keys.len()).expect("it is applied once it is full");
        let key_bytes = u8::try_from(key.len()).expect("keys have at most 255 bytes");
        self.changes.push(Change { key_start, key_bytes, kind, entry });
        self.keys.extend_from_slice(key);
    }

    /// Tells whether it is time to apply what was collected.
    pub(crate) fn is_full(&self) -> bool {
        self.keys.len() + self.changes.len() * size_of::<Change>() >= BYTES_MAX
    }

    /// Applies all changes to `index` and forgets them. With a large value its chunks go.
    pub(crate) fn apply(&mut self, index: &mut Index) {
        let Self { keys, changes } = &*self;
        let key = |change: &Change| {
            let start = change.key_start as usize;
            keys.get(start..start + usize::from(change.key_bytes)).unwrap_or_default()
        };
        // Internal keys come before all others; what those share says nothing of their order.
        let mut callers = changes.iter().map(key).filter(|key| !is_internal(key));
        let first = callers.next().unwrap_or_default();
        let alike = callers.map(|key| shared_bytes(first, key)).min().unwrap_or(0);
        let rank = |change| match key(change) {
            key if is_internal(key) => 0,
            key => head(key.get(alike..).unwrap_or_default()),
        };
        let of = |at: usize| changes.get(at).expect("it has a number");
        let by_key = |a: usize, b: usize| key(of(a)).cmp(key(of(b))).then(a.cmp(&b));
        let sorted = in_order(changes.iter().map(rank), &by_key);
        if changes.len() < index.len() / KEYS_PER_CHANGE {
            for change in sorted.iter().map(|(_, at)| of(*at)) {
                let moves = change.kind == Kind::Move;
                let old = if moves { index.get(key(change)) } else { None };
                let new = change.after(old);
                if !moves || new != old {
                    replace(index, key(change), new, |_, _| ());
                }
            }
            self.clear();
            return;
        }
        let births = changes.iter().map(|change| change.entry.birth);
        let base = births.chain(index.least_birth()).min().unwrap_or_default();
        let sorted = sorted
            .chunk_by(|(a_rank, a), (b_rank, b)| a_rank == b_rank && key(of(*a)) == key(of(*b)));
        let of_key = sorted.filter_map(|of_key| Some((key(of(of_key.first()?.1)), of_key)));
        let (mut builder, mut gone) = (Builder::new(base), Vec::new());
        let mut there = index.cursor(&[]);
        for (key, of_key) in of_key {
            let mut now = None;
            while let Some((other, entry)) = there.peek() {
                match other.cmp(key) {
                    Ordering::Less => builder.push(other, &entry),
                    Ordering::Equal => now = Some(entry),
                    Ordering::Greater => break,
                }
                there.step();
            }
            for change in of_key.iter().map(|(_, at)| of(*at)) {
                let new = change.after(now);
                let old = mem::replace(&mut now, new);
                let upload = |entry: Option<Entry>| entry.and_then(|entry| entry.upload);
                gone.extend(upload(old).filter(|old| upload(now) != Some(*old)));
            }
            if let Some(entry) = now {
                builder.push(key, &entry);
            }
        }
        while let Some((key, entry)) = there.step() {
            builder.push(key, &entry);
        }
        *index = builder.finish();
        // A value's chunks come before it in the log, so none of these is another's.
        gone.into_iter().for_each(|upload: UploadId| drop_chunks(index, upload, |_, _| ()));
        self.clear();
    }

    /// Forgets all changes; their memory is used again.
    fn clear(&mut self) {
        self.keys.clear();
        self.changes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large::chunk_key;
    use crate::types::{Birth, Place, SegmentIndex};

    fn entry(birth: u64, upload: Option<u64>) -> Entry {
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        let upload = upload.and_then(|upload| UploadId::of(Birth(upload)));
        Entry { place, value_bytes: 1, suspect: false, birth: Birth(birth), upload }
    }

    fn state(index: &Index) -> Vec<(alloc::rc::Rc<[u8]>, Entry)> {
        index.iter_from(&[]).collect()
    }

    #[test]
    fn together_they_do_what_they_do_one_by_one() {
        let mut rng = 7_u64;
        let mut roll = |sides: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (rng >> 33) % sides
        };
        let (mut merged, mut one_by_one) = (Index::default(), Index::default());
        for round in 0..60 {
            let mut bulk = Bulk::default();
            for step in 0..[5, 300, 2000][round % 3] {
                let key = format!("/state/{:x}", roll(1500)).into_bytes();
                let birth = 1 + round as u64 * 2000 + step;
                let (kind, key, entry) = match roll(10) {
                    0 | 1 => (Kind::Delete, key, entry(birth, None)),
                    2 => {
                        let chunk = chunk_key(UploadId::of(Birth(birth)).unwrap(), 0).to_vec();
                        bulk.push(Kind::Chunk, &chunk, entry(birth, None));
                        replace(&mut one_by_one, &chunk, Some(entry(birth, None)), |_, _| ());
                        (Kind::Put, key, entry(birth, Some(birth)))
                    }
                    3 | 4 => {
                        let old = one_by_one.get(&key);
                        let stale = entry(birth, None);
                        (Kind::Move, key, old.filter(|_| roll(3) > 0).unwrap_or(stale))
                    }
                    _ => (Kind::Put, key, entry(birth, None)),
                };
                bulk.push(kind, &key, entry);
                let old = one_by_one.get(&key);
                let new = match kind {
                    Kind::Delete => None,
                    Kind::Move if old.is_none_or(|old| old.birth != entry.birth) => old,
                    _ => Some(entry),
                };
                replace(&mut one_by_one, &key, new, |_, _| ());
            }
            bulk.apply(&mut merged);
            assert_eq!(state(&merged), state(&one_by_one));
        }
        assert!(merged.len() > 500 && merged.has_larges());
    }
}
