//! The end of a server: what runs is answered, what was acknowledged becomes durable.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use super::Server;
use crate::error::Error;
use crate::event::Closed;
use crate::plant::Plant;
use crate::session::Session;

/// How far a shutdown has come.
pub(super) enum End {
    Serving,
    /// No call is let in any more.
    Finishing,
    /// No call runs; what was acknowledged as buffered is on its way.
    Syncing(Pin<Box<dyn Future<Output = ()>>>),
    Done,
}

/// Tells calls that take long that the server ends.
#[derive(Default)]
pub(crate) struct Ending {
    begun: Cell<bool>,
    /// One for each call that waits.
    waiting: RefCell<Vec<Waker>>,
}

impl Ending {
    /// Yields what `call` comes to, or that the server ends before.
    pub(crate) async fn or<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (mut call, mut waits) = (pin!(call), Waits { ending: self, waker: None });
        poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending if self.begun.get() => Poll::Ready(Err(Error::Ending)),
            Poll::Pending => {
                waits.renew(context.waker());
                Poll::Pending
            }
        })
        .await
    }

    fn begin(&self) {
        self.begun.set(true);
        self.waiting.borrow().iter().for_each(Waker::wake_by_ref);
    }
}

/// A call that waits; its waker goes with it.
struct Waits<'a> {
    ending: &'a Ending,
    waker: Option<Waker>,
}

impl Waits<'_> {
    fn renew(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.forget();
            self.waker = Some(waker.clone());
            self.ending.waiting.borrow_mut().push(waker.clone());
        }
    }

    fn forget(&mut self) {
        let Some(waker) = self.waker.take() else { return };
        let mut waiting = self.ending.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|one| one.will_wake(&waker)) {
            waiting.swap_remove(at);
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Server {
    /// Begins to end: nobody connects any more and no further call is let in, those that run are
    /// answered, and what was acknowledged is made durable. Goes on with [`Server::poll`].
    ///
    /// Who waits for a check is refused, and who holds its calls back for [`Limits::stall_ms`](crate::Limits::stall_ms), because
    /// it does not read what is answered, is ended.
    pub fn shut_down(&mut self) {
        if matches!(self.end, End::Serving) {
            self.end = End::Finishing;
            self.shared.ending.begin();
            if let Ok(journal) = self.shared.store.journal() {
                // Begins at once, however long calls take.
                drop(journal.sync());
            }
        }
    }

    /// Whether a shutdown is complete. A client that does not read its answers can keep it from
    /// being so, and a driver's patience ends that; writes are safe before ([`Server::is_synced`]).
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_synced() && self.sessions.values().all(Session::is_quiet)
    }

    /// Whether a shutdown has answered every call that it waits for and made durable what it could.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.end, End::Done)
    }

    /// Goes on with a shutdown; yields when to look again.
    pub(super) fn finish(&mut self, now: u64) -> Option<u64> {
        if matches!(self.end, End::Finishing) {
            self.recount();
            let (held_max, stall_ms) = (self.held_max(), self.shared.limits.stall_ms);
            let mut next: Option<u64> = None;
            for session in self.sessions.values_mut().filter(|session| session.calls() > 0) {
                let since = session.held_back_since(held_max, now);
                match since.map(|since| since.saturating_add(stall_ms)) {
                    Some(due) if due <= now => session.end(Closed::Transport),
                    Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                    None => {}
                }
            }
            if self.sessions.values().any(|session| session.calls() > 0) {
                return next;
            }
            let Ok(journal) = self.shared.store.journal() else {
                self.end = End::Done;
                return None;
            };
            if self.shared.limits.plants.has(Plant::ShutdownUnsynced) {
                self.end = End::Done;
                return None;
            }
            self.write_audit(&journal, true);
            // A failure was told to those who waited, and is an event.
            self.end = End::Syncing(Box::pin(async move {
                let _ended = journal.seal().await;
            }));
        }
        if let End::Syncing(sync) = &mut self.end {
            let mut context = Context::from_waker(Waker::noop());
            if sync.as_mut().poll(&mut context).is_ready() {
                self.end = End::Done;
            } else {
                self.drive();
            }
        }
        None
    }
}
