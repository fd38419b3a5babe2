//! A table whose keys are small numbers, reused after they are freed.
use alloc::vec::Vec;

/// Entries by index. The caller bounds how many it adds.
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn add(&mut self, entry: T) -> u32 {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slot(index)
        {
            *slot = Some(entry);
            return index;
        }
        let index = u32::try_from(self.entries.len()).expect("every table is bounded far below");
        self.entries.push(Some(entry));
        index
    }

    pub(crate) fn get(&mut self, index: u32) -> Option<&mut T> {
        self.slot(index)?.as_mut()
    }

    /// Removes an entry, which the caller drops outside any borrow of the table.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.slot(index)?.take()?;
        self.free.push(index);
        Some(entry)
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = T> {
        self.entries.into_iter().flatten()
    }

    fn slot(&mut self, index: u32) -> Option<&mut Option<T>> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_keys_are_reused_and_counted() {
        let mut slab = Slab::new();
        assert_eq!((slab.add('a'), slab.add('b')), (0, 1));
        assert_eq!(slab.remove(0), Some('a'));
        assert_eq!(slab.remove(0), None);
        assert_eq!(slab.remove(7), None);
        assert_eq!(slab.count(), 1);
        assert_eq!(slab.add('c'), 0);
        assert_eq!(slab.get(0), Some(&mut 'c'));
        assert_eq!(slab.into_entries().count(), 2);
    }
}
