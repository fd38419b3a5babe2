//! Calls that pass over as many keys as there are: one of each service between two polls of the server, so that no more of
//! them keep the others waiting, however many connections it has.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use crate::session::{Caller, ConnectionId};

/// Whose turn it is.
#[derive(Default)]
pub(crate) struct Turns {
    /// By their names, which are as many as policies ever named.
    services: RefCell<BTreeMap<String, Service>>,
    /// Calls that ask again at the next poll.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Default)]
struct Service {
    /// The last poll in which it had a turn.
    last: u64,
    /// Connections that were refused one: in which poll, and in which they had their own last.
    refused: BTreeMap<ConnectionId, (u64, u64)>,
}

impl Turns {
    /// Waits for the turn of a call.
    pub(crate) async fn take(&self, caller: &Caller) {
        poll_fn(|context| {
            let now = caller.shared.polls.get();
            let mut services = self.services.borrow_mut();
            let service = services.entry(caller.service_name().into()).or_default();
            if service.admits(caller.connection, caller.passed.get(), now) {
                caller.passed.set(now);
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets all that wait ask again.
    pub(crate) fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }
}

impl Service {
    /// Gives a connection, whose last turn was in the poll `before`, the turn in the poll `now`, unless it was given, or another
    /// one that still asks has waited longer. One that does not ask, because its peer reads no answers, keeps nobody waiting.
    fn admits(&mut self, connection: ConnectionId, before: u64, now: u64) -> bool {
        self.refused.retain(|_, (asked, _)| asked.saturating_add(1) >= now);
        let mut others = self.refused.iter().filter(|(other, _)| **other != connection);
        if self.last == now || others.any(|(_, (_, theirs))| *theirs < before) {
            self.refused.insert(connection, (now, before));
            return false;
        }
        self.last = now;
        self.refused.remove(&connection);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_longest_is_next_and_who_does_not_ask_is_passed_over() {
        let mut service = Service::default();
        let mut last = BTreeMap::new();
        let mut poll = |now: u64, asking: &[u64]| {
            let mut admitted = Vec::new();
            for id in asking {
                let before = last.entry(*id).or_default();
                if service.admits(ConnectionId(*id), *before, now) {
                    *before = now;
                    admitted.push(*id);
                }
            }
            admitted
        };
        let all: Vec<_> = (1..7).map(|now| poll(now, &[1, 2, 3])).collect();
        assert_eq!(all, [[1], [2], [3], [1], [2], [3]]);
        // The first one asks once and is heard of no more.
        assert_eq!(poll(7, &[1, 2, 2, 3]), [1]);
        assert_eq!(poll(8, &[3]), [0_u64; 0], "the second one may still ask");
        assert_eq!(poll(9, &[3]), [3]);
        assert_eq!(poll(10, &[3]), [3]);
    }
}
