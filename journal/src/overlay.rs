//! Changes that are accepted and not yet durable, by key.

use crate::batch::{Content, Origin};
use crate::ticket::Ticket;
use crate::types::Birth;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound;

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

/// The changes of each key, oldest first; keys without any are not held.
#[derive(Default)]
pub(crate) struct Overlay(BTreeMap<Rc<[u8]>, Vec<Pending>>);

impl Overlay {
    pub(crate) fn push(&mut self, key: Rc<[u8]>, pending: Pending) {
        self.0.entry(key).or_default().push(pending);
    }

    /// Yields the newest change of `key`, whoever made it.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Pending> {
        self.0.get(key)?.last()
    }

    /// Yields the newest change of `key` that everybody sees.
    pub(crate) fn visible(&self, key: &[u8]) -> Option<&Pending> {
        self.0.get(key)?.iter().rev().find(|pending| pending.visible)
    }

    /// Yields the newest change of `key` by `origin` that nobody sees yet.
    pub(crate) fn own(&self, key: &[u8], origin: Origin) -> Option<&Pending> {
        let hidden = |pending: &&Pending| pending.origin == origin && !pending.visible;
        self.0.get(key)?.iter().rev().find(hidden)
    }

    /// Yields the newest hidden change by `origin` under `prefix`.
    pub(crate) fn own_under(&self, prefix: &[u8], origin: Origin) -> Option<&Pending> {
        let hidden = |pending: &&Pending| pending.origin == origin && !pending.visible;
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.0.range::<[u8], _>(from);
        let under = keys.take_while(|(key, _)| key.starts_with(prefix));
        let own = under.flat_map(|(_, list)| list).filter(hidden);
        own.max_by_key(|pending| pending.birth)
    }

    /// Yields the keys at or after `from` that have a visible change, with it.
    pub(crate) fn visible_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], &Pending)> {
        let keys = self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        keys.filter_map(|(key, list)| {
            let newest = list.iter().rev().find(|pending| pending.visible)?;
            Some((&**key, newest))
        })
    }

    /// Yields the keys at or after `from` that have a change, with the newest, whoever made it.
    pub(crate) fn newest_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], &Pending)> {
        let keys = self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        keys.filter_map(|(key, list)| Some((&**key, list.last()?)))
    }

    /// Forgets the change of `key` that `birth` made: it is durable.
    pub(crate) fn remove(&mut self, key: &[u8], birth: Birth) {
        if let Some(list) = self.0.get_mut(key) {
            list.retain(|pending| pending.birth != birth);
            if list.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Forgets everything: none of it became durable.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
