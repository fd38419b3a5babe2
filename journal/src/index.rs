//! The index: an ordered map from keys to places, with views that stay frozen.
//!
//! A B+tree whose leaves are runs of coded entries. Nodes are shared by reference count and copied only where a view
//! still holds them, so that [`Index::clone`] costs one count and a change costs one path.

use crate::geometry::VolumeGeometry;
use crate::large::UploadId;
use crate::layout::{checkpoint_run, manifest};
use crate::record::record_bytes;
use crate::run::{Encoder, RUN_BYTES_MAX, Reader, Run, shared_bytes};
use crate::sorted::{Rank, Sorted};
use crate::types::{Birth, Place};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::mem;

/// Most children of a node.
const CHILDREN_MAX: usize = 64;
/// A node with fewer children is joined with a neighbour where both fit into one.
const CHILDREN_LOW: usize = CHILDREN_MAX / 4;
/// Children of a node that is built of a checkpoint: room is left for some more.
const CHILDREN_BUILT: usize = CHILDREN_MAX * 3 / 4;
/// A leaf with fewer bytes is joined with a neighbour where both fit into half of one.
const LEAF_BYTES_LOW: usize = RUN_BYTES_MAX / 4;

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
#[derive(Clone, Default)]
pub(crate) struct Index {
    root: Node,
    /// Keys.
    count: usize,
    /// Of them, those of large values.
    larges: usize,
    /// Bytes that the leaves take in a checkpoint.
    coded_bytes: usize,
    /// Where runs are put together.
    scratch: Vec<u8>,
}

#[derive(Clone)]
enum Node {
    Leaf(Run),
    Inner(Rc<Inner>),
}

/// Children, and between each two a key above all keys of the one and not above any of the other.
#[derive(Clone, Default)]
struct Inner {
    children: Vec<Node>,
    separators: Sorted,
}

/// What a change works with on its way down.
struct Work<'a> {
    coded_bytes: &'a mut usize,
    scratch: &'a mut Vec<u8>,
}

/// The second half of a node that was cut, and the key between the halves.
type Cut = Option<(Rc<[u8]>, Node)>;

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Run::default())
    }
}

impl Index {
    /// Gives `key` an entry and yields the one that it had.
    pub(crate) fn insert(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        let Self { root, coded_bytes, scratch, .. } = self;
        let (old, cut) = root.insert(key, &entry, &mut Work { coded_bytes, scratch });
        if let Some((separator, right)) = cut {
            let children = [mem::take(&mut self.root), right].into();
            self.root = Node::inner(children, [separator].into());
        }
        self.count += usize::from(old.is_none());
        self.larges += usize::from(entry.upload.is_some());
        self.larges -= old.map_or(0, |old| usize::from(old.upload.is_some()));
        old
    }

    /// Takes `key` away and yields the entry that it had.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        // Looked up first: a miss must not copy a path that a view shares.
        self.get(key)?;
        let Self { root, coded_bytes, scratch, .. } = self;
        let old = root.remove(key, &mut Work { coded_bytes, scratch })?;
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
        {
            let only = Rc::make_mut(inner).children.pop();
            self.root = only.unwrap_or_default();
        }
        self.count -= 1;
        self.larges -= usize::from(old.upload.is_some());
        Some(old)
    }

    /// Marks every entry as one whose later record may be lost.
    pub(crate) fn suspect_all(&mut self) {
        self.root.suspect_all();
    }

    /// Yields the entry of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(run) => return run.get(key),
                Node::Inner(inner) => node = inner.children.get(inner.child_of(key))?,
            }
        }
    }

    /// Yields the number of keys.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Tells whether a key has a large value.
    pub(crate) fn has_larges(&self) -> bool {
        self.larges > 0
    }

    /// Yields the bytes that the keys take in a checkpoint: those of [`Index::leaves`], each with its item's.
    ///
    /// A move changes nothing of it, and no key that goes lets it grow.
    pub(crate) fn coded_bytes(&self) -> usize {
        self.coded_bytes
    }

    /// Yields a birth that none lies below.
    pub(crate) fn least_birth(&self) -> Option<Birth> {
        self.leaves().map(Run::base).min()
    }

    /// Yields the runs that hold the keys, in their order.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Run> {
        let mut nodes = Vec::from([&self.root]);
        core::iter::from_fn(move || {
            loop {
                match nodes.pop()? {
                    Node::Leaf(run) if run.is_empty() => {}
                    Node::Leaf(run) => return Some(run),
                    Node::Inner(inner) => nodes.extend(inner.children.iter().rev()),
                }
            }
        })
    }

    /// Begins at the first key at or after `from`.
    pub(crate) fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        let mut path = Vec::new();
        let mut node = &self.root;
        let run = loop {
            match node {
                Node::Leaf(run) => break run,
                Node::Inner(inner) => {
                    let at = inner.child_of(from);
                    path.push((&**inner, at + 1));
                    node = inner.children.get(at).expect("a key belongs to some child");
                }
            }
        };
        let mut cursor = Cursor { path, leaf: run.reader(), ahead: None };
        while cursor.peek().is_some_and(|(key, _)| key < from) {
            cursor.ahead = None;
        }
        cursor
    }

    /// Yields the keys at or after `from` with their entries, in bytewise order. Cost: an allocation for each.
    pub(crate) fn iter_from(&self, from: &[u8]) -> impl Iterator<Item = (Rc<[u8]>, Entry)> {
        let mut cursor = self.cursor(from);
        core::iter::from_fn(move || cursor.step().map(|(key, entry)| (key.into(), entry)))
    }
}

/// Makes an index of keys, or whole runs of them, that come in their order.
pub(crate) struct Builder {
    leaves: Vec<Node>,
    /// Before each run, a key above all keys of the one before and not above any of its own.
    separators: Vec<Rc<[u8]>>,
    index: Index,
    last: Vec<u8>,
    encoder: Encoder,
}

impl Builder {
    /// Makes a builder of entries whose births are at or above `base`.
    pub(crate) fn new(base: Birth) -> Self {
        let (leaves, separators, last) = (Vec::new(), Vec::new(), Vec::new());
        Self { leaves, separators, index: Index::default(), last, encoder: Encoder::new(base) }
    }

    /// Takes a key that lies above those before.
    pub(crate) fn push(&mut self, key: &[u8], entry: &Entry) {
        let shared = shared_bytes(&self.last, key);
        let mut first = self.encoder.is_empty();
        if !self.encoder.push(key, shared, entry) {
            self.close();
            first = self.encoder.push(key, shared, entry);
        }
        if first {
            self.separators.push(key.get(..=shared).unwrap_or_default().into());
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(key.get(shared..).unwrap_or_default());
        self.index.count += 1;
        self.index.larges += usize::from(entry.upload.is_some());
    }

    /// Ends the run of keys that were pushed.
    fn close(&mut self) {
        if let Some(run) = self.encoder.take() {
            self.index.coded_bytes += coded_bytes(&run);
            self.leaves.push(Node::Leaf(run));
        }
    }

    /// Takes a run of a checkpoint, whose keys must lie above those of the runs before; `None` if it makes no sense.
    pub(crate) fn parse(&mut self, bytes: &[u8], geometry: &VolumeGeometry) -> Option<()> {
        let Self { index, last, .. } = self;
        let before = last.clone();
        let (mut separator, mut count, mut larges) = (None, 0, 0);
        let run = Run::parse(bytes, last, geometry, |key, entry| {
            count += 1;
            larges += usize::from(entry.upload.is_some());
            separator.get_or_insert_with(|| {
                Rc::from(key.get(..=shared_bytes(&before, key)).unwrap_or_default())
            });
        })?;
        index.count += count;
        index.larges += larges;
        index.coded_bytes += coded_bytes(&run);
        self.separators.extend(separator);
        self.leaves.push(Node::Leaf(run));
        Some(())
    }

    /// Yields the index of all runs that were taken.
    pub(crate) fn finish(mut self) -> Index {
        self.close();
        let Self { leaves: mut nodes, mut separators, mut index, .. } = self;
        while nodes.len() > 1 {
            let (mut above, mut between) = (Vec::new(), Vec::new());
            let (mut below, mut keys) = (nodes.into_iter(), separators.into_iter());
            while below.len() > 0 {
                between.extend(keys.next());
                let children: Vec<_> = below.by_ref().take(CHILDREN_BUILT).collect();
                let separators = keys.by_ref().take(children.len() - 1).collect();
                above.push(Node::inner(children, separators));
            }
            (nodes, separators) = (above, between);
        }
        index.root = nodes.pop().unwrap_or_default();
        index
    }
}

/// A place in the order of keys.
pub(crate) struct Cursor<'a> {
    /// The way to the leaf: each node with the child to visit next.
    path: Vec<(&'a Inner, usize)>,
    leaf: Reader<'a>,
    /// The entry of the key that the reader of the leaf holds, as long as nobody has stepped over it.
    ahead: Option<Entry>,
}

impl Cursor<'_> {
    /// Yields the next key and its entry, and stays before it.
    pub(crate) fn peek(&mut self) -> Option<(&[u8], Entry)> {
        while self.ahead.is_none() {
            self.ahead = self.leaf.step();
            if self.ahead.is_none() {
                self.next_leaf()?;
            }
        }
        self.ahead.map(|entry| (&*self.leaf.key, entry))
    }

    /// Yields the next key and its entry, and steps over it.
    pub(crate) fn step(&mut self) -> Option<(&[u8], Entry)> {
        let entry = loop {
            if let Some(entry) = self.ahead.take().or_else(|| self.leaf.step()) {
                break entry;
            }
            self.next_leaf()?;
        };
        Some((&self.leaf.key, entry))
    }

    fn next_leaf(&mut self) -> Option<()> {
        loop {
            let (inner, at) = self.path.last_mut()?;
            let child = inner.children.get(*at);
            *at += 1;
            match child {
                None => drop(self.path.pop()),
                Some(Node::Leaf(run)) => {
                    self.leaf.go_on(run);
                    return Some(());
                }
                Some(Node::Inner(inner)) => self.path.push((inner, 0)),
            }
        }
    }
}

impl Node {
    fn inner(children: Vec<Self>, separators: Vec<Rc<[u8]>>) -> Self {
        Self::Inner(Rc::new(Inner { children, separators: separators.into() }))
    }

    /// Inserts below this node; a node that grew too large gives a part of it away.
    fn insert(&mut self, key: &[u8], entry: &Entry, work: &mut Work<'_>) -> (Option<Entry>, Cut) {
        match self {
            Self::Leaf(run) => {
                *work.coded_bytes -= coded_bytes(run);
                let old = run.insert(key, entry, work.scratch);
                let cut = (run.bytes().len() > RUN_BYTES_MAX).then(|| run.split());
                *work.coded_bytes += coded_bytes(run);
                *work.coded_bytes += cut.as_ref().map_or(0, |(_, right)| coded_bytes(right));
                (old, cut.map(|(separator, right)| (separator, Self::Leaf(right))))
            }
            Self::Inner(inner) => {
                let inner = Rc::make_mut(inner);
                let at = inner.child_of(key);
                let child = inner.children.get_mut(at).expect("a key belongs to some child");
                let (old, cut) = child.insert(key, entry, work);
                let cut = cut.and_then(|(separator, right)| {
                    inner.children.insert(at + 1, right);
                    inner.separators.insert(at, separator);
                    inner.split()
                });
                (old, cut)
            }
        }
    }

    fn remove(&mut self, key: &[u8], work: &mut Work<'_>) -> Option<Entry> {
        match self {
            Self::Leaf(run) => {
                *work.coded_bytes -= coded_bytes(run);
                let old = run.remove(key, work.scratch);
                *work.coded_bytes += coded_bytes(run);
                old
            }
            Self::Inner(inner) => {
                let inner = Rc::make_mut(inner);
                let at = inner.child_of(key);
                let child = inner.children.get_mut(at)?;
                let old = child.remove(key, work)?;
                if child.is_low() {
                    inner.shrink(at, work);
                }
                Some(old)
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(run) => run.is_empty(),
            Self::Inner(inner) => inner.children.is_empty(),
        }
    }

    fn is_low(&self) -> bool {
        match self {
            Self::Leaf(run) => run.bytes().len() < LEAF_BYTES_LOW,
            Self::Inner(inner) => inner.children.len() < CHILDREN_LOW,
        }
    }

    fn suspect_all(&mut self) {
        match self {
            Self::Leaf(run) => run.suspect_all(),
            Self::Inner(inner) => {
                Rc::make_mut(inner).children.iter_mut().for_each(Self::suspect_all);
            }
        }
    }

    /// Yields both nodes, between which `separator` stands, as one, if that is not too large.
    fn joined(&self, separator: &Rc<[u8]>, right: &Self) -> Option<Self> {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.joined(right).map(Self::Leaf),
            (Self::Inner(left), Self::Inner(right)) => {
                let fits = left.children.len() + right.children.len() <= CHILDREN_MAX;
                fits.then(|| {
                    let children = [&*left.children, &right.children].concat();
                    let between = core::slice::from_ref(separator);
                    let (left, right) = (left.separators.keys(), right.separators.keys());
                    Self::inner(children, [left, between, right].concat())
                })
            }
            _ => unreachable!("all leaves have the same depth"),
        }
    }
}

impl Inner {
    /// The child whose range holds `key`: behind every separator that is not above it.
    fn child_of(&self, key: &[u8]) -> usize {
        let Rank { below, there } = self.separators.rank(key);
        below + usize::from(there)
    }

    /// Gives the upper half away where there are too many children.
    fn split(&mut self) -> Cut {
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let children = self.children.split_off(CHILDREN_MAX / 2);
        let separators = self.separators.split_off(CHILDREN_MAX / 2);
        let between = self.separators.keys().last()?.clone();
        self.separators.remove(CHILDREN_MAX / 2 - 1);
        Some((between, Node::inner(children, separators)))
    }

    /// Takes the child at `at` away where it is empty, or joins it with a neighbour where that goes.
    fn shrink(&mut self, at: usize, work: &mut Work<'_>) {
        let left = at.saturating_sub(1);
        if self.children.len() > 1 && self.children.get(at).is_some_and(Node::is_empty) {
            self.children.remove(at);
            self.separators.remove(left);
            return;
        }
        let Some([one, two]) = self.children.get(left..left + 2) else { return };
        let separator =
            self.separators.keys().get(left).expect("one stands between each two children");
        if let Some(joined) = one.joined(separator, two) {
            if let (Node::Leaf(one), Node::Leaf(two), Node::Leaf(joined)) = (one, two, &joined) {
                *work.coded_bytes += coded_bytes(joined);
                *work.coded_bytes -= coded_bytes(one) + coded_bytes(two);
            }
            self.children.splice(left..left + 2, [joined]);
            self.separators.remove(left);
        }
    }
}

/// Yields the bytes that a run takes in a checkpoint.
fn coded_bytes(run: &Run) -> usize {
    if run.is_empty() { 0 } else { checkpoint_run::BYTES + run.bytes().len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{cut_bytes_max, entry_bytes_max};
    use crate::types::SegmentIndex;
    use alloc::collections::BTreeMap;
    use alloc::format;

    fn entry(n: u64) -> Entry {
        let place = Place { segment: SegmentIndex(0), offset: 0 };
        Entry { place, value_bytes: 0, suspect: false, birth: Birth(n), upload: None }
    }

    fn same(index: &Index, model: &BTreeMap<Vec<u8>, u64>) {
        assert_eq!(index.len(), model.len());
        assert_eq!(index.coded_bytes(), index.leaves().map(coded_bytes).sum());
        let seen: Vec<_> = index.iter_from(b"").map(|(k, e)| (k.to_vec(), e.birth.0)).collect();
        let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), *v)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn agrees_with_a_model_and_keeps_its_views() {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        let mut views = Vec::new();
        let mut state = 1_u64;
        for step in 0..120_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("{:x}", (state >> 33) % 9000).into_bytes();
            let before = index.coded_bytes();
            // Phases of growth and of decay, so that nodes split and merge.
            if (state >> 20) % 10 < if step / 24_000 % 2 == 0 { 8 } else { 2 } {
                let old = index.insert(&key, entry(step)).map(|old| old.birth.0);
                let most = entry_bytes_max(key.len()) + cut_bytes_max(4);
                assert!(index.coded_bytes() <= before + most);
                assert_eq!(old, model.insert(key, step));
            } else {
                let old = index.remove(&key).map(|old| old.birth.0);
                assert!(index.coded_bytes() <= before);
                assert_eq!(old, model.remove(&key));
            }
            if step % 11_999 == 0 {
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
    fn what_is_built_of_runs_is_like_what_they_were() {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        for step in 0..30_000_u64 {
            let key = format!("{:x}", step * 7919 % 30_011).into_bytes();
            index.insert(&key, entry(step));
            model.insert(key, step);
        }
        let mut built = Builder::new(Birth(0));
        let geometry = VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap();
        index.leaves().try_for_each(|run| built.parse(run.bytes(), &geometry)).unwrap();
        let mut built = built.finish();
        same(&built, &model);
        for step in 0..700_u64 {
            let key = format!("{step:x}").into_bytes();
            assert_eq!(built.get(&key), index.get(&key));
            built.insert(&key, entry(step));
            model.insert(key, step);
        }
        same(&built, &model);
        let read = index.leaves().try_fold(Builder::new(Birth(0)), |mut built, run| {
            built.parse(run.bytes(), &geometry)?;
            built.parse(run.bytes(), &geometry).is_none().then_some(built)
        });
        assert!(read.is_some(), "a run that comes twice is refused");
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
