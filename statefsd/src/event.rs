//! What a driver logs: structured, bounded, and never a value.

use alloc::collections::VecDeque;
use alloc::string::String;

use journal::{OpenError, Report};
use policy::{Peer, ServiceId};

use crate::limits::{DENIAL_WINDOW_MS, Limits};
use crate::session::ConnectionId;
use crate::store::Health;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The volume is open and calls are served.
    Opened {
        /// What recovery found and did.
        report: Report,
        /// What the store can do.
        health: Health,
    },
    /// The volume could not be opened: the mode is `failed` for good.
    OpenFailed {
        /// Why.
        error: OpenError,
    },
    /// What the store can do has changed.
    ModeChanged {
        /// What it can do now, and why.
        health: Health,
    },
    /// Somebody is connected.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// What the transport vouches for.
        peer: Peer,
        /// Who the policy says that is, if it does.
        service: Option<ServiceId>,
    },
    /// A connection was refused: there are as many as there may be, in all or of peers that the policy does not name.
    Refused {
        /// What the transport vouches for.
        peer: Peer,
    },
    /// A client told its name.
    Hello {
        /// The connection.
        connection: ConnectionId,
        /// What the client calls itself, cut and escaped; nothing vouches for it.
        client: String,
    },
    /// A connection ended.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        why: Closed,
    },
    /// A request was refused by the policy.
    Denied(Denied),
    /// A write was refused by a quota.
    OverQuota(Denied),
    /// Another policy is in force.
    PolicyChanged,
    /// So many denials came too fast to be told one by one.
    DenialsSkipped {
        /// How many.
        count: u64,
    },
    /// So many connections were refused or ended for what they did, too fast to be told one by one.
    ConnectionsSkipped {
        /// How many.
        count: u64,
    },
    /// So many events came faster than they were taken, and are gone.
    EventsLost {
        /// How many.
        count: u64,
    },
}

/// One refused request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The connection.
    pub connection: ConnectionId,
    /// The name of the service that asked; `None` for a peer that the policy does not name.
    pub service: Option<String>,
    /// The name of the right that the operation is named after; `admin` where any right of administration would do.
    pub right: &'static str,
    /// The whole path of the key or the prefix.
    pub path: String,
    /// Why, for the daemon's own log: the peer learns nothing of it.
    pub reason: String,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The driver said so: the peer went away, or the server ends.
    Transport,
    /// The peer broke the protocol or a limit, or said goodbye; the words are the transport's.
    Protocol(String),
    /// Memory was used up while the connection held more than its share and stood still.
    Memory,
}

/// The queue between the core and the driver's log.
pub(crate) struct Events {
    queue: VecDeque<Event>,
    queue_max: usize,
    lost: u64,
    now: u64,
    window: u64,
    denials: usize,
    denials_max: usize,
    skipped: u64,
    /// Connections that were refused or ended for what they did.
    connections: usize,
    connections_skipped: u64,
}

impl Events {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_max: limits.events,
            lost: 0,
            now: 0,
            window: 0,
            denials: 0,
            denials_max: limits.denials,
            skipped: 0,
            connections: 0,
            connections_skipped: 0,
        }
    }

    /// Tells the time, on which windows of denials end.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = now;
        if now.saturating_sub(self.window) < DENIAL_WINDOW_MS {
            return;
        }
        self.window = now;
        (self.denials, self.connections) = (0, 0);
        let count = core::mem::take(&mut self.skipped);
        if count > 0 {
            self.push(Event::DenialsSkipped { count });
        }
        let count = core::mem::take(&mut self.connections_skipped);
        if count > 0 {
            self.push(Event::ConnectionsSkipped { count });
        }
    }

    /// When [`Events::tick`] has something to tell.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let skipped = self.skipped > 0 || self.connections_skipped > 0;
        skipped.then(|| self.window.saturating_add(DENIAL_WINDOW_MS))
    }

    pub(crate) fn push(&mut self, event: Event) {
        if self.queue.len() < self.queue_max {
            self.queue.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    /// Tells of a connection that was refused or ended for what it did, unless it is one too many: nothing keeps a peer from
    /// coming again.
    pub(crate) fn refuse_connection(&mut self, event: Event) {
        if self.connections >= self.denials_max {
            self.connections_skipped += 1;
            return;
        }
        self.connections += 1;
        self.push(event);
    }

    /// Tells of a denial, unless it is one too many or repeats the one before.
    pub(crate) fn deny(&mut self, denied: Denied) {
        self.refuse(denied, Event::Denied);
    }

    /// Tells of a write over a quota, within the bounds of denials.
    pub(crate) fn over_quota(&mut self, denied: Denied) {
        self.refuse(denied, Event::OverQuota);
    }

    fn refuse(&mut self, denied: Denied, event: fn(Denied) -> Event) {
        let last = match self.queue.back() {
            Some(Event::Denied(last) | Event::OverQuota(last)) => Some(last),
            _ => None,
        };
        if last == Some(&denied) || self.denials >= self.denials_max {
            self.skipped += 1;
            return;
        }
        self.denials += 1;
        self.push(event(denied));
    }

    /// Takes the oldest event; what was lost is told once the queue is empty.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        if let Some(event) = self.queue.pop_front() {
            return Some(event);
        }
        let count = core::mem::take(&mut self.lost);
        (count > 0).then_some(Event::EventsLost { count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    fn events(queue_max: usize, denials_max: usize) -> Events {
        Events::new(&Limits { events: queue_max, denials: denials_max, ..Limits::default() })
    }

    fn denied(path: &str) -> Denied {
        Denied {
            connection: ConnectionId(1),
            service: None,
            right: "get",
            path: path.into(),
            reason: String::new(),
        }
    }

    fn told(events: &mut Events) -> Vec<String> {
        core::iter::from_fn(|| events.pop())
            .map(|event| match event {
                Event::Denied(denied) => denied.path,
                Event::DenialsSkipped { count } => format!("skipped {count}"),
                Event::EventsLost { count } => format!("lost {count}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn denials_are_told_up_to_a_rate_and_then_counted() {
        let mut events = events(100, 2);
        events.tick(5000);
        for path in ["a", "a", "b", "c", "d"] {
            events.deny(denied(path));
        }
        assert_eq!(told(&mut events), ["a", "b"]);
        assert_eq!(events.deadline(), Some(6000));
        events.tick(5999);
        assert!(told(&mut events).is_empty());
        events.tick(6000);
        events.deny(denied("e"));
        assert_eq!(told(&mut events), ["skipped 3", "e"]);
        assert_eq!(events.deadline(), None);
    }

    #[test]
    fn the_queue_is_bounded_and_says_what_it_lost() {
        let mut events = events(2, 100);
        for path in ["a", "b", "c", "d"] {
            events.deny(denied(path));
        }
        assert_eq!(told(&mut events), ["a", "b", "lost 2"]);
        assert!(told(&mut events).is_empty());
    }
}
