//! Whose bytes wait in the journal's queue, so that no service fills it alone.
//!
//! The queue is left in the order in which it was entered. So what waits is what came last, and whose that is follows from
//! how long the queue is: nothing has to be told when a batch has ended, and nobody need wait for one. A call that was
//! given up, a connection that ended and a write that was answered as buffered count for as long as their bytes wait.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::ready;

use journal::{CommitError, Journal, Upload, VALUE_BYTES_MAX};

use crate::limits::QUEUE_BYTES_OF_SERVICE_MAX;

/// The journal's queue, by the services that put in what waits there.
#[derive(Default)]
pub(crate) struct Line(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Bytes next to each other of one service, the front of the queue first.
    stretches: VecDeque<(Rc<str>, usize)>,
    bytes: usize,
    /// The bytes of each service that has some.
    of: BTreeMap<Rc<str>, usize>,
}

impl Line {
    /// Whether a service may have so many bytes more in the queue.
    pub(crate) fn admits(&self, service: &str, bytes: usize) -> bool {
        let waiting = self.0.borrow();
        let taken = waiting.of.get(service).copied().unwrap_or_default();
        taken == 0 || taken.saturating_add(bytes) <= QUEUE_BYTES_OF_SERVICE_MAX
    }

    /// Waits until a service may have a piece of an upload more in the queue, or there is none any more.
    pub(crate) async fn room(&self, journal: &Journal, service: &str) {
        while !self.admits(service, VALUE_BYTES_MAX) && journal.sync().await.is_ok() {}
    }

    /// Has `queue` done, and counts what it puts into the queue as a service's; as nobody's if that has no name.
    pub(crate) fn queueing<T>(
        &self,
        journal: &Journal,
        service: &str,
        queue: impl FnOnce() -> T,
    ) -> T {
        let done = queue();
        self.0.borrow_mut().grow(service, journal.stats().queued_bytes);
        done
    }

    /// Appends to an upload of a service, as far as that may have more in the queue.
    ///
    /// # Errors
    /// As [`Upload::append`].
    pub(crate) async fn append(
        &self,
        journal: &Journal,
        service: &str,
        upload: &mut Upload,
        chunk: &[u8],
    ) -> Result<(), CommitError> {
        let mut append = pin!(upload.append(chunk));
        // Asked each time: what was free before it waited for its last piece, others may have now.
        poll_fn(|context| {
            ready!(pin!(self.room(journal, service)).poll(context));
            self.queueing(journal, service, || append.as_mut().poll(context))
        })
        .await
    }

    /// Forgets what was taken out of the queue. To be called whenever the journal has gone on.
    pub(crate) fn follow(&self, journal: &Journal) {
        let waiting = &mut *self.0.borrow_mut();
        if waiting.bytes > 0 {
            waiting.shrink(journal.stats().queued_bytes);
        }
    }
}

impl Waiting {
    /// The queue is so long now, by what a service put in.
    fn grow(&mut self, service: &str, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return;
        }
        self.bytes += more;
        let known = self.of.get_key_value(service).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| service.into());
        *self.of.entry(name.clone()).or_default() += more;
        match self.stretches.back_mut() {
            Some((last, bytes)) if *last == name => *bytes += more,
            _ => self.stretches.push_back((name, more)),
        }
    }

    /// The queue is so long now, by what was taken out.
    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some((name, stretch)) = self.stretches.front_mut()
        {
            let less = (self.bytes - bytes).min(*stretch);
            *stretch -= less;
            self.bytes -= less;
            if let Some(taken) = self.of.get_mut(name) {
                *taken -= less;
                if *taken == 0 {
                    self.of.remove(name);
                }
            }
            if *stretch == 0 {
                self.stretches.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_what_came_last() {
        let mut waiting = Waiting::default();
        let has = |waiting: &Waiting, one: usize, other: usize, stretches: usize| {
            let of = |service: &str| waiting.of.get(service).copied().unwrap_or_default();
            assert_eq!((of("one"), of("other")), (one, other));
            assert_eq!((waiting.bytes, waiting.stretches.len()), (one + other, stretches));
        };
        waiting.grow("one", 10);
        waiting.grow("one", 15);
        waiting.grow("other", 35);
        waiting.grow("one", 36);
        waiting.grow("one", 36);
        has(&waiting, 16, 20, 3);
        waiting.shrink(25);
        has(&waiting, 5, 20, 3);
        waiting.shrink(20);
        has(&waiting, 1, 19, 2);
        waiting.grow("other", 22);
        has(&waiting, 1, 21, 3);
        waiting.shrink(0);
        has(&waiting, 0, 0, 0);
        assert!(waiting.of.is_empty());
    }
}
