//! The end of a server: what runs is answered, what was acknowledged becomes durable.

use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};

use super::Server;
use crate::event::Closed;
use crate::plant::Plant;
use crate::session::Session;

/// How far a shutdown has come.
pub(super) enum End {
    Serving,
    /// No call is let in any more.
    Finishing,
    /// No call runs but those that wait for a check; what was acknowledged as buffered is on its way.
    Syncing(Pin<Box<dyn Future<Output = ()>>>),
    Done,
}

impl Server {
    /// Begins to end: nobody connects any more and no further call is let in, those that run are
    /// answered, and what was acknowledged is made durable. Goes on with [`Server::poll`].
    ///
    /// Who waits for a check is not answered, and who holds its calls back for [`Limits::stall_ms`](crate::Limits::stall_ms), because
    /// it does not read what is answered, is ended.
    pub fn shut_down(&mut self) {
        if matches!(self.end, End::Serving) {
            self.end = End::Finishing;
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
