//! Changes that are accepted and not yet durable, by key.

use crate::batch::{Content, Origin};
use crate::sorted::{Rank, Sorted};
use crate::ticket::Ticket;
use crate::types::Birth;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::iter::{from_fn, successors};

/// Most keys of a block: half of one is moved for a key that comes between.
const BLOCK_KEYS_MAX: usize = 64;
/// Slots that are kept when no change is on its way.
const SLOTS_KEPT: usize = 1024;

/// One change on its way.
#[derive(Clone)]
pub(crate) struct Pending {
    pub(crate) birth: Birth,
    /// The new value; `None` deletes.
    pub(crate) content: Option<Content>,
    pub(crate) origin: Origin,
    /// Acknowledged as buffered: everybody sees it.
    pub(crate) visible: bool,
    pub(crate) ticket: Ticket,
}

/// The changes of each key; keys without any are not held.
///
/// Under load there are tens of thousands of keys, each here for one cycle: what counts is that one is found, added and
/// taken away at little cost. So they lie in blocks, in their order, and no block is empty but one that is alone.
#[derive(Default)]
pub(crate) struct Overlay {
    blocks: Vec<Block>,
    /// Between each two blocks a key above all keys of the one and not above any of the other.
    between: Sorted,
    slots: Vec<Slot>,
    /// Slots that hold nothing.
    free: Vec<u32>,
}

#[derive(Default)]
struct Block {
    keys: Sorted,
    /// The slot of each key's newest change.
    newest: Vec<u32>,
}

/// A change, and the slot of the one before it of the same key.
struct Slot {
    pending: Option<Pending>,
    older: Option<u32>,
}

impl Overlay {
    pub(crate) fn push(&mut self, key: Rc<[u8]>, pending: Pending) {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let fresh = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { pending: None, older: None });
            u32::try_from(self.slots.len() - 1).expect("what is queued is bounded")
        });
        let at = self.block_of(&key);
        let block = self.blocks.get_mut(at).expect("there is one for each key");
        let Rank { below, there } = block.keys.rank(&key);
        let older = if there {
            block.newest.get_mut(below).map(|newest| core::mem::replace(newest, fresh))
        } else {
            block.keys.insert(below, key);
            block.newest.insert(below, fresh);
            None
        };
        if let Some((first, right)) = block.split() {
            self.between.insert(at, first);
            self.blocks.insert(at + 1, right);
        }
        if let Some(slot) = self.slots.get_mut(fresh as usize) {
            *slot = Slot { pending: Some(pending), older };
        }
    }

    /// Yields the newest change of `key`, whoever made it.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Pending> {
        self.changes(self.slot_of(key)).next()
    }

    /// Yields the newest change of `key` that everybody sees.
    pub(crate) fn visible(&self, key: &[u8]) -> Option<&Pending> {
        self.changes(self.slot_of(key)).find(|pending| pending.visible)
    }

    /// Yields the newest change of `key` by `origin` that nobody sees yet.
    pub(crate) fn own(&self, key: &[u8], origin: Origin) -> Option<&Pending> {
        let hidden = |pending: &&Pending| pending.origin == origin && !pending.visible;
        self.changes(self.slot_of(key)).find(hidden)
    }

    /// Yields the newest hidden change by `origin` under `prefix`.
    pub(crate) fn own_under(&self, prefix: &[u8], origin: Origin) -> Option<&Pending> {
        let hidden = |pending: &&Pending| pending.origin == origin && !pending.visible;
        let under = self.from(prefix).take_while(|(key, _)| key.starts_with(prefix));
        let own = under.flat_map(|(_, newest)| self.changes(Some(newest))).filter(hidden);
        own.max_by_key(|pending| pending.birth)
    }

    /// Yields the keys at or after `from` that have a visible change, with it.
    pub(crate) fn visible_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], &Pending)> {
        self.from(from).filter_map(|(key, newest)| {
            let visible = self.changes(Some(newest)).find(|pending| pending.visible)?;
            Some((key, visible))
        })
    }

    /// Yields the keys at or after `from` that have a change, with the newest, whoever made it.
    pub(crate) fn newest_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], &Pending)> {
        self.from(from).filter_map(|(key, newest)| Some((key, self.changes(Some(newest)).next()?)))
    }

    /// Forgets the change of `key` that `birth` made, and all before it: they are durable. Yields how many those are.
    ///
    /// Cost: those that are newer, and those that go.
    pub(crate) fn remove(&mut self, key: &[u8], birth: Birth) -> usize {
        let at = self.block_of(key);
        let Some(block) = self.blocks.get_mut(at) else { return 0 };
        let Rank { below, there } = block.keys.rank(key);
        let Some(newest) = block.newest.get(below).filter(|_| there) else { return 0 };
        let (mut newer, mut gone) = (None, Some(*newest));
        while let Some(slot) = gone.and_then(|gone| self.slots.get(gone as usize))
            && slot.pending.as_ref().is_some_and(|pending| pending.birth > birth)
        {
            (newer, gone) = (gone, slot.older);
        }
        let before = self.free.len();
        while let Some(at) = gone
            && let Some(slot) = self.slots.get_mut(at as usize)
        {
            slot.pending = None;
            gone = slot.older.take();
            self.free.push(at);
        }
        let count = self.free.len() - before;
        if let Some(newer) = newer.and_then(|newer| self.slots.get_mut(newer as usize)) {
            newer.older = None;
            return count;
        }
        block.keys.remove(below);
        block.newest.remove(below);
        if block.newest.is_empty() && self.blocks.len() > 1 {
            self.blocks.remove(at);
            self.between.remove(at.saturating_sub(1));
        }
        if self.free.len() == self.slots.len() && self.slots.len() > SLOTS_KEPT {
            self.clear();
        }
        count
    }

    /// Forgets everything: none of it became durable.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The block that holds `key`, or would.
    fn block_of(&self, key: &[u8]) -> usize {
        let Rank { below, there } = self.between.rank(key);
        below + usize::from(there)
    }

    /// The slot of the newest change of `key`.
    fn slot_of(&self, key: &[u8]) -> Option<u32> {
        let block = self.blocks.get(self.block_of(key))?;
        let Rank { below, there } = block.keys.rank(key);
        block.newest.get(below).copied().filter(|_| there)
    }

    /// Yields the changes of a key from the one in this slot on, the newest first.
    fn changes(&self, newest: Option<u32>) -> impl Iterator<Item = &Pending> {
        let slot = |at: u32| self.slots.get(at as usize);
        let slots = successors(newest.and_then(slot), move |slot_| slot_.older.and_then(slot));
        slots.filter_map(|slot| slot.pending.as_ref())
    }

    /// Yields the keys at or after `from`, each with the slot of its newest change.
    fn from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
        let mut at = self.block_of(from);
        let mut below = self.blocks.get(at).map_or(0, |block| block.keys.rank(from).below);
        from_fn(move || {
            loop {
                let block = self.blocks.get(at)?;
                if let Some((key, newest)) =
                    block.keys.keys().get(below).zip(block.newest.get(below))
                {
                    below += 1;
                    return Some((&**key, *newest));
                }
                (at, below) = (at + 1, 0);
            }
        })
    }
}

impl Block {
    /// Gives the upper half away where there are too many keys, and yields it behind its first key.
    fn split(&mut self) -> Option<(Rc<[u8]>, Self)> {
        if self.newest.len() <= BLOCK_KEYS_MAX {
            return None;
        }
        let keys = self.keys.split_off(BLOCK_KEYS_MAX / 2);
        let newest = self.newest.split_off(BLOCK_KEYS_MAX / 2);
        let first = keys.first()?.clone();
        Some((first, Self { keys: keys.into(), newest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::format;

    fn pending(birth: u64, visible: bool) -> Pending {
        let (content, ticket) = (None, Ticket::default());
        Pending { birth: Birth(birth), content, origin: Origin(birth % 3), visible, ticket }
    }

    #[test]
    fn agrees_with_a_model() {
        let (mut overlay, mut model) = (Overlay::default(), BTreeMap::<_, Vec<_>>::new());
        let mut state = 1_u64;
        let mut roll = |sides: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % sides
        };
        let key = |n: usize| -> Rc<[u8]> {
            let text = ["", "/a", "/state/keys/"][n % 3];
            format!("{text}{n:x}").into_bytes().into()
        };
        for step in 0..60_000 {
            // Phases of growth and of decay, so that blocks split and go.
            if roll(10) < if step / 10_000 % 2 == 0 { 8 } else { 2 } {
                let (key, visible) = (key(roll(3000)), roll(2) == 0);
                overlay.push(key.clone(), pending(step, visible));
                model.entry(key).or_default().push((step, visible));
            } else if let Some((some, list)) = model.range_mut(key(roll(3000))..).next() {
                let (birth, _) = list[roll(list.len())];
                let (some, before) = (some.clone(), list.len());
                list.retain(|(other, _)| *other > birth);
                assert_eq!(overlay.remove(&some, Birth(birth)), before - list.len());
                model.retain(|key, list| *key != some || !list.is_empty());
            }
            let probe = key(roll(3000));
            let births = |newest| {
                let mut births: Vec<_> = overlay.changes(newest).map(|it| it.birth.0).collect();
                births.reverse();
                births
            };
            let there = model.get(&probe).into_iter().flatten().map(|it| it.0);
            assert_eq!(births(overlay.slot_of(&probe)), there.collect::<Vec<_>>());
            if step % 500 == 0 {
                let all = overlay.from(&probe).map(|(key, at)| (key.to_vec(), births(Some(at))));
                let same = model.range(probe.clone()..);
                let same = same.map(|(k, l)| (k.to_vec(), l.iter().map(|it| it.0).collect()));
                assert!(all.eq(same));
                let alone = overlay.blocks.len() == 1;
                assert!(alone || overlay.blocks.iter().all(|block| !block.newest.is_empty()));
            }
        }
        for (key, list) in &model {
            let (last, _) = list.last().unwrap();
            assert_eq!(overlay.remove(key, Birth(*last)), list.len());
        }
        assert!(overlay.blocks.len() <= 1 && overlay.between.keys().is_empty());
        assert!(overlay.free.len() == overlay.slots.len() && overlay.slots.len() <= SLOTS_KEPT);
    }
}
