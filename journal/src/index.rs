//! The index: an ordered map from keys to places, with views that stay frozen.
//!
//! A B+tree whose nodes are shared by reference count and copied only where a view still holds
//! them, so that [`Index::clone`] costs one count and a change costs one path.

use crate::large::UploadId;
use crate::layout::manifest;
use crate::record::record_bytes;
use crate::types::{Birth, Place};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::mem;

/// Most entries of a node.
const NODE_ENTRIES_MAX: usize = 32;
/// A node with fewer entries is merged with a neighbour where both fit into one.
const NODE_ENTRIES_LOW: usize = NODE_ENTRIES_MAX / 4;

/// Where a key's value lies, and which write made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The record.
    pub place: Place,
    /// Bytes of the value, all chunks together.
    pub value_bytes: u32,
    /// A later record of this key may have been lost (FORMAT.md section 7).
    pub suspect: bool,
    /// The write that made the value.
    pub birth: Birth,
    /// Of a large value: whose chunks make it. The record then holds the manifest.
    pub upload: Option<UploadId>,
}

impl Entry {
    /// Yields the bytes of the value in the record: those of the manifest where the value is large.
    pub(crate) fn stored_bytes(&self) -> usize {
        if self.upload.is_some() { manifest::BYTES } else { self.value_bytes as usize }
    }

    /// Yields the bytes of the record by which `key` has its value.
    pub(crate) fn record_bytes(&self, key: &[u8]) -> usize {
        record_bytes(key.len(), self.stored_bytes())
    }
}

/// An ordered map; clones are frozen views.
#[derive(Clone)]
pub(crate) struct Index {
    root: Rc<Node>,
    count: usize,
}

#[derive(Clone)]
enum Node {
    Leaf(Vec<(Rc<[u8]>, Entry)>),
    /// Each child with a key at or below all of its keys and above all keys of the child before it.
    Inner(Vec<(Rc<[u8]>, Rc<Node>)>),
}

impl Default for Index {
    fn default() -> Self {
        Self { root: Rc::new(Node::Leaf(Vec::new())), count: 0 }
    }
}

impl Index {
    /// Gives `key` an entry and yields the one that it had.
    pub(crate) fn insert(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        let root = Rc::make_mut(&mut self.root);
        let (old, split) = root.insert(key, entry);
        if let Some(right) = split {
            let left = mem::replace(root, Node::Inner(Vec::new()));
            let children = [left, right].map(|node| (node.least(), Rc::new(node)));
            *root = Node::Inner(children.into());
        }
        self.count += usize::from(old.is_none());
        old
    }

    /// Takes `key` away and yields the entry that it had.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        // Looked up first: a miss must not copy a path that a view shares.
        self.get(key)?;
        let root = Rc::make_mut(&mut self.root);
        let old = root.remove(key);
        if let Node::Inner(children) = root {
            match children.as_mut_slice() {
                [] => *root = Node::Leaf(Vec::new()),
                [(_, only)] => {
                    let only = only.clone();
                    self.root = only;
                }
                _ => {}
            }
        }
        self.count -= usize::from(old.is_some());
        old
    }

    /// Marks every entry as one whose later record may be lost.
    pub(crate) fn suspect_all(&mut self) {
        Rc::make_mut(&mut self.root).suspect_all();
    }

    /// Yields the entry of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Entry> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = entries.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
                    return entries.get(at).map(|(_, entry)| *entry);
                }
                Node::Inner(children) => node = &children.get(child_of(children, key))?.1,
            }
        }
    }

    /// Yields the number of keys.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Yields the keys at or after `from` with their entries, in bytewise order.
    pub(crate) fn iter_from<'a>(&'a self, from: &[u8]) -> Iter<'a> {
        let mut iter = Iter { path: Vec::new() };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|(k, _)| **k < *from);
                    iter.path.push((node, at));
                    return iter;
                }
                Node::Inner(children) => {
                    let at = child_of(children, from);
                    iter.path.push((node, at + 1));
                    match children.get(at) {
                        Some((_, child)) => node = child,
                        None => return iter,
                    }
                }
            }
        }
    }
}

/// Keys and entries in order.
pub(crate) struct Iter<'a> {
    /// The way to the next entry: each node with the position to visit next.
    path: Vec<(&'a Node, usize)>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((node, at)) = self.path.last_mut() {
            let here = *at;
            *at += 1;
            match node {
                Node::Leaf(entries) => match entries.get(here) {
                    Some((key, entry)) => return Some((key, entry)),
                    None => drop(self.path.pop()),
                },
                Node::Inner(children) => match children.get(here) {
                    Some((_, child)) => self.path.push((child, 0)),
                    None => drop(self.path.pop()),
                },
            }
        }
        None
    }
}

impl Node {
    /// The first key below this node, which is never an empty one when this is asked.
    fn least(&self) -> Rc<[u8]> {
        let first = match self {
            Self::Leaf(entries) => entries.first().map(|(key, _)| key.clone()),
            Self::Inner(children) => children.first().map(|(key, _)| key.clone()),
        };
        first.expect("a node that was split or kept holds something")
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// Inserts below this node; a node that grew too large gives its upper half away.
    fn insert(&mut self, key: &[u8], entry: Entry) -> (Option<Entry>, Option<Node>) {
        match self {
            Self::Leaf(entries) => match entries.binary_search_by(|(k, _)| (**k).cmp(key)) {
                Ok(at) => {
                    let old = entries.get_mut(at).map(|(_, old)| mem::replace(old, entry));
                    (old, None)
                }
                Err(at) => {
                    entries.insert(at, (key.into(), entry));
                    (None, split(entries).map(Node::Leaf))
                }
            },
            Self::Inner(children) => {
                let at = child_of(children, key);
                let (least, child) = children.get_mut(at).expect("an inner node has children");
                if key < &**least {
                    *least = key.into();
                }
                let (old, grown) = Rc::make_mut(child).insert(key, entry);
                if let Some(right) = grown {
                    children.insert(at + 1, (right.least(), Rc::new(right)));
                }
                (old, split(children).map(Node::Inner))
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        match self {
            Self::Leaf(entries) => {
                let at = entries.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
                Some(entries.remove(at).1)
            }
            Self::Inner(children) => {
                let at = child_of(children, key);
                let child = Rc::make_mut(&mut children.get_mut(at)?.1);
                let old = child.remove(key);
                let left = child.len();
                if left == 0 {
                    children.remove(at);
                } else if left < NODE_ENTRIES_LOW {
                    merge(children, at.saturating_sub(1));
                }
                old
            }
        }
    }

    fn suspect_all(&mut self) {
        match self {
            Self::Leaf(entries) => entries.iter_mut().for_each(|(_, entry)| entry.suspect = true),
            Self::Inner(children) => {
                children.iter_mut().for_each(|(_, child)| Rc::make_mut(child).suspect_all());
            }
        }
    }
}

/// The child whose range holds `key`: the last whose least key is not above it, else the first.
fn child_of(children: &[(Rc<[u8]>, Rc<Node>)], key: &[u8]) -> usize {
    children.partition_point(|(least, _)| **least <= *key).saturating_sub(1)
}

fn split<T>(entries: &mut Vec<T>) -> Option<Vec<T>> {
    (entries.len() > NODE_ENTRIES_MAX).then(|| entries.split_off(NODE_ENTRIES_MAX / 2))
}

/// Joins the children at `at` and behind it where both fit into one node.
fn merge(children: &mut Vec<(Rc<[u8]>, Rc<Node>)>, at: usize) {
    let sizes = children.get(at..at + 2).unwrap_or_default().iter().map(|(_, node)| node.len());
    if children.len() < at + 2 || sizes.sum::<usize>() > NODE_ENTRIES_MAX {
        return;
    }
    let (_, right) = children.remove(at + 1);
    let Some((_, left)) = children.get_mut(at) else {
        return;
    };
    match (Rc::make_mut(left), &*right) {
        (Node::Leaf(left), Node::Leaf(right)) => left.extend_from_slice(right),
        (Node::Inner(left), Node::Inner(right)) => left.extend_from_slice(right),
        _ => unreachable!("all leaves have the same depth"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SegmentIndex;
    use alloc::collections::BTreeMap;
    use alloc::format;

    fn entry(n: u64) -> Entry {
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        Entry { place, value_bytes: 0, suspect: false, birth: Birth(n), upload: None }
    }

    fn same(index: &Index, model: &BTreeMap<Vec<u8>, u64>) {
        assert_eq!(index.len(), model.len());
        let seen: Vec<_> = index.iter_from(b"").map(|(k, e)| (k.to_vec(), e.birth.0)).collect();
        let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), *v)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn agrees_with_a_model_and_keeps_its_views() {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        let mut views = Vec::new();
        let mut state = 1_u64;
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("{:x}", (state >> 33) % 700).into_bytes();
            // Phases of growth and of decay, so that nodes split and merge.
            if (state >> 20) % 10 < if step / 4000 % 2 == 0 { 8 } else { 2 } {
                let old = index.insert(&key, entry(step)).map(|old| old.birth.0);
                assert_eq!(old, model.insert(key, step));
            } else {
                let old = index.remove(&key).map(|old| old.birth.0);
                assert_eq!(old, model.remove(&key));
            }
            if step % 1999 == 0 {
                views.push((index.clone(), model.clone()));
            }
        }
        same(&index, &model);
        for (view, model) in &views {
            same(view, model);
        }
        for from in [&b"3"[..], b"7f", b"zz", b""] {
            let first = index.iter_from(from).next().map(|(k, _)| k.to_vec());
            assert_eq!(first, model.range(from.to_vec()..).next().map(|(k, _)| k.clone()));
        }
    }

    #[test]
    fn emptied_it_is_like_new() {
        let mut index = Index::default();
        for n in 0..5000_u32 {
            index.insert(&n.to_be_bytes(), entry(1));
        }
        for n in 0..5000_u32 {
            assert!(index.remove(&n.to_be_bytes()).is_some());
            assert!(index.remove(&n.to_be_bytes()).is_none());
        }
        assert_eq!(index.len(), 0);
        assert_eq!(index.iter_from(b"").count(), 0);
    }
}
