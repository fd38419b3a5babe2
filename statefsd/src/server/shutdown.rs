//! The end of a server: what runs is answered, what was acknowledged becomes durable.

use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};

use super::Server;
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

impl Server {
    /// Begins to end: nobody connects any more and no further call is let in, those that run are
    /// answered, and what was acknowledged is made durable. Goes on with [`Server::poll`].
    pub fn shut_down(&mut self) {
        if matches!(self.end, End::Serving) {
            self.end = End::Finishing;
            if let Ok(journal) = self.shared.store.journal() {
                // Begins at once, even if a call should never end.
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

    /// Whether a shutdown has answered every call and made durable what it could.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.end, End::Done)
    }

    /// Goes on with a shutdown.
    pub(super) fn finish(&mut self) {
        if matches!(self.end, End::Finishing) && self.sessions.values().all(|s| s.calls() == 0) {
            let Ok(journal) = self.shared.store.journal() else {
                self.end = End::Done;
                return;
            };
            if self.shared.limits.plants.has(Plant::ShutdownUnsynced) {
                self.end = End::Done;
                return;
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
    }
}
