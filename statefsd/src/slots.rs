//! How many of something a connection or a service may hold: counted when made, given back when dropped.

use alloc::rc::Rc;
use core::cell::Cell;

/// A number of places; clones share them.
#[derive(Clone)]
pub(crate) struct Slots {
    taken: Rc<Cell<usize>>,
    total: usize,
}

/// One place, given back when dropped.
pub(crate) struct Slot(Rc<Cell<usize>>);

impl Slots {
    pub(crate) fn new(total: usize) -> Self {
        Self { taken: Rc::default(), total }
    }

    /// Takes a place; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<Slot> {
        let taken = self.taken.get();
        (taken < self.total).then(|| {
            self.taken.set(taken + 1);
            Slot(self.taken.clone())
        })
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_there_again_once_it_was_given_back() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.clone().take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        let again = slots.take();
        assert!(again.is_some() && slots.take().is_none());
        assert!(Slots::new(0).take().is_none());
    }
}
