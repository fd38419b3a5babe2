//! What became durable, and how callers' keys come to show it.

use crate::checkpoint::deleted_bytes;
use crate::index::Entry;
use crate::large::replace;
use crate::plant::Plant;
use crate::run::{head, shared_bytes};
use crate::sorted::in_order;
use crate::state::State;
use crate::types::Birth;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// What a change that is durable gives a caller's key.
pub(crate) struct Given {
    pub(crate) key: Rc<[u8]>,
    pub(crate) birth: Birth,
    /// `None` takes the key away.
    pub(crate) entry: Option<Entry>,
}

impl State {
    /// Applies what batches gave callers' keys, from the last key to the first: neighbours lie in the same nodes of the
    /// index, and what is taken off the end of a block of the overlay moves nothing.
    pub(crate) fn apply(&mut self, given: &mut Vec<Given>) {
        let Some(first) = given.first().map(|given| given.key.clone()) else { return };
        let alike = given.iter().map(|given| shared_bytes(&first, &given.key)).min();
        let heads =
            given.iter().map(|given| head(given.key.get(alike.unwrap_or(0)..).unwrap_or_default()));
        // Births rise with the log, so that the last change of a key comes last.
        let by_key = |a: usize, b: usize| {
            given
                .get(a)
                .zip(given.get(b))
                .map_or(Ordering::Equal, |(a, b)| a.key.cmp(&b.key).then(b.birth.cmp(&a.birth)))
        };
        let mut in_order = in_order(heads, &by_key).into_iter().rev().peekable();
        let mut of_key = 0;
        while let Some((_, at)) = in_order.next() {
            let Some(Given { key, birth, entry }) = given.get(at) else { continue };
            of_key += 1;
            let next = in_order.peek().and_then(|(_, at)| given.get(*at));
            if next.is_none_or(|next| next.key != *key) {
                // Batches become durable in their order, so these are all up to the last.
                let removed = self.overlay.remove(key, *birth);
                debug_assert_eq!(removed, of_key, "no change before it is left");
                of_key = 0;
            }
            self.give(key, *entry);
            if !self.doubt.absent {
                continue;
            }
            let bytes = deleted_bytes(key);
            if entry.is_some() && self.doubt.deleted.remove(key) {
                self.room.deleted_bytes -= bytes;
            } else if entry.is_none() && self.doubt.deleted.insert(key.clone()) {
                self.room.deleted_bytes += bytes;
            }
        }
        given.clear();
    }

    /// Gives `key` an entry, or takes it away; with a large value its chunks go.
    pub(crate) fn give(&mut self, key: &[u8], entry: Option<Entry>) {
        let Self { index, room, .. } = self;
        if self.plants.has(Plant::ChunksOutlive) {
            let old = match entry {
                Some(entry) => index.insert(key, entry),
                None => index.remove(key),
            };
            if let Some(old) = old {
                room.remove(key, &old);
            }
        } else {
            replace(index, key, entry, |key, old| room.remove(key, old));
        }
        if let Some(entry) = entry {
            room.add(key, &entry);
        }
        room.measure(index);
    }
}
