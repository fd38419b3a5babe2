//! One connection: who is there, its vat, and the bytes between it and the transport.

use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use journal::{Clock, Durability, Note, Origin};
use policy::{Demand, Granted, Peer, Policy, Right, ServiceId};
use vat::Vat;

use crate::audit::Audit;
use crate::doubt::Sending;
use crate::error::Error;
use crate::event::{Closed, Denied, Events};
use crate::figures::{Tally, count};
use crate::limits::{CLIENT_NAME_BYTES_MAX, Limits, READ_BYTES_MAX};
use crate::permits::Permits;
use crate::quota::OverQuota;
use crate::reload::Reload;
use crate::server::Ending;
use crate::slots::Slots;
use crate::store::Store;
use crate::stream::STREAM_BYTES;
use crate::turns::Turns;
use crate::wire;

/// Names a connection; never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all connections of a server have in common.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) policy: RefCell<Rc<Policy>>,
    pub(crate) store: Store,
    pub(crate) events: RefCell<Events>,
    pub(crate) reload: Reload,
    pub(crate) tally: Tally,
    pub(crate) audit: Audit,
    /// How often the server was polled.
    pub(crate) polls: Cell<u64>,
    pub(crate) turns: Turns,
    pub(crate) ending: Ending,
}

/// Who calls, and what a connection's calls share.
pub(crate) struct Caller {
    pub(crate) shared: Rc<Shared>,
    pub(crate) connection: ConnectionId,
    pub(crate) peer: Peer,
    /// `None` for a peer that the policy did not name when it connected.
    pub(crate) service: Option<ServiceId>,
    /// Bytes that reads under way may hold.
    pub(crate) reads: Permits,
    /// Writers and readers.
    pub(crate) streams: Slots,
    /// Restricted directories.
    pub(crate) restrictions: Slots,
    /// Writes that were taken as buffered.
    pub(crate) buffered: Cell<u64>,
    /// How many of them a sync has answered for.
    pub(crate) synced: Cell<u64>,
    /// The journal's drops before the first of the others: more since then may have taken them.
    pub(crate) drops: Cell<u64>,
    pub(crate) greeted: Cell<bool>,
    /// The last poll of the server in which a call of this connection passed over many keys.
    pub(crate) passed: Cell<u64>,
}

impl Caller {
    /// Waits until a call may pass over as many keys as there are.
    pub(crate) async fn pass(&self) {
        self.shared.turns.take(self).await;
    }

    /// Waits until the reads before this call have begun, where some wait for room, and with them the writes that wait so: no read is
    /// to show what is written behind it, and none to miss what was written before.
    pub(crate) async fn behind_reads(&self) {
        let none = self.reads.take(0).await;
        drop(none);
    }

    /// The policy of this moment.
    pub(crate) fn policy(&self) -> Rc<Policy> {
        self.shared.policy.borrow().clone()
    }

    /// Whether no other policy was put in force since `policy` was the one of the moment.
    pub(crate) fn is_in_force(&self, policy: &Rc<Policy>) -> bool {
        Rc::ptr_eq(policy, &self.shared.policy.borrow())
    }

    /// The name of the service; none for a peer that the policy did not name.
    pub(crate) fn service_name(&self) -> &str {
        self.service.as_ref().map_or("", ServiceId::name)
    }

    /// Who the policy of this moment says that it is; `None` also where that is somebody else than when it connected, who is denied
    /// all.
    pub(crate) fn service_now(&self) -> Option<ServiceId> {
        let now = self.shared.policy.borrow().identify(&self.peer);
        now.filter(|now| self.service.as_ref() == Some(now))
    }

    /// Where a call came at this time, and when it is answered: now.
    pub(crate) fn sending(&self, arrived: Arrived) -> Sending {
        let polls = self.shared.polls.get();
        Sending { connection: self.connection, arrived: arrived.0, polls }
    }

    /// When a call has come that has not waited yet.
    pub(crate) fn arrived(&self) -> Arrived {
        Arrived(self.shared.polls.get())
    }

    /// The number under which the journal orders the writes of this connection.
    pub(crate) fn origin(&self) -> Origin {
        Origin(self.connection.0)
    }

    /// Counts a write that a later sync has to cover.
    pub(crate) fn note(&self, durability: Durability) {
        if durability == Durability::Buffered {
            if self.synced.get() == self.buffered.get() {
                self.drops.set(self.shared.store.journal().map_or(0, |journal| journal.drops()));
            }
            self.buffered.set(self.buffered.get() + 1);
        }
    }

    /// Counts a write over a quota, and tells the driver's log of it with the key that passes it.
    pub(crate) fn tell_quota(&self, error: &Error) {
        if let Error::Quota(OverQuota { exceeded, key }) = error {
            count(&self.shared.tally.quota_rejections);
            // Only what is text lies under a quota.
            let path = core::str::from_utf8(key).unwrap_or_default();
            let rule = exceeded.to_string();
            self.record_denial(Right::Put.name(), path, rule.clone());
            self.shared.events.borrow_mut().over_quota(Denied {
                connection: self.connection,
                service: self.service.as_ref().map(|service| service.name().into()),
                right: Right::Put.name(),
                path: path.into(),
                reason: rule,
            });
        }
    }

    /// Yields the records of changes that were granted together, to be written with them.
    pub(crate) fn mutation<R: Demand>(&self, granted: &[Granted<R>], marks: u16) -> Vec<Note> {
        self.shared.audit.mutation(self.shared.clock.now(), granted, marks)
    }

    /// Records that a request was refused, and what it lacked.
    pub(crate) fn record_denial(&self, right: &str, path: &str, rule: String) {
        self.shared.audit.deny(self.shared.clock.now(), self.service_name(), right, path, rule);
    }

    /// Cuts and escapes what a client calls itself.
    pub(crate) fn client_name(&self, name: &[u8]) -> String {
        let name = name.get(..CLIENT_NAME_BYTES_MAX).unwrap_or(name);
        String::from_utf8_lossy(name).escape_debug().collect()
    }
}

/// A connection as the server keeps it.
pub(crate) struct Session {
    caller: Rc<Caller>,
    vat: Vat,
    /// What the transport is sending; what it sent already comes first.
    output: Vec<u8>,
    sent: usize,
    /// When bytes moved last, in milliseconds: all that there were to send, or as many as one read has.
    moved: u64,
    /// Bytes that were sent since.
    trickled: usize,
    /// Whether the transport has to look at it.
    pub(crate) touched: bool,
    /// Whether the transport was last told to read.
    wanted: bool,
    ended: Option<Closed>,
    /// Whether the transport has yet to be told of the end.
    ending: bool,
    /// Since when nothing goes on before the peer reads, as a shutdown found it.
    held_back: Option<u64>,
}

/// How often the server had been polled when a call came.
#[derive(Clone, Copy)]
pub(crate) struct Arrived(u64);

impl Session {
    pub(crate) fn new(shared: &Rc<Shared>, id: ConnectionId, peer: Peer, now: u64) -> Self {
        let service = shared.policy.borrow().identify(&peer);
        let caller = Rc::new(Caller {
            shared: shared.clone(),
            connection: id,
            peer,
            service,
            reads: Permits::new(shared.limits.reply_bytes),
            streams: Slots::new(shared.limits.streams),
            restrictions: Slots::new(shared.limits.restrictions),
            buffered: Cell::new(0),
            synced: Cell::new(0),
            drops: Cell::new(0),
            greeted: Cell::new(false),
            passed: Cell::new(0),
        });
        let vat = Vat::new(Some(wire::bootstrap(&caller)), shared.limits.connection);
        vat.set_streams(wire::streams);
        Self {
            caller,
            vat,
            output: Vec::new(),
            sent: 0,
            moved: now,
            trickled: 0,
            touched: false,
            wanted: true,
            ended: None,
            ending: false,
            held_back: None,
        }
    }

    /// Feeds received bytes to the vat, which wants input; yields how many it took. Calls that
    /// would make it hold more than `held_max` bytes are overloaded.
    pub(crate) fn receive(&mut self, bytes: &[u8], held_max: usize, now: u64) -> usize {
        let bytes = bytes.get(..READ_BYTES_MAX).unwrap_or(bytes);
        self.vat.set_in_flight_bytes_max(held_max.saturating_sub(self.output().len()));
        self.moved = now;
        if let Err(error) = self.vat.receive(bytes) {
            self.end(Closed::Protocol(error.extra));
        }
        bytes.len()
    }

    /// Lets one call go on, unless more than `unsent_max` bytes wait to be sent; tells whether one
    /// did.
    pub(crate) fn run(&mut self, unsent_max: usize) -> bool {
        let runs = self.wants_run(unsent_max);
        if runs {
            self.vat.poll(1);
            // An answer with one capability too many ends the connection from within: nothing that comes in does.
            if let Some(error) = self.vat.over() {
                self.end(Closed::Protocol(error.extra));
            }
        }
        runs
    }

    /// Whether calls could go on now.
    pub(crate) fn wants_run(&self, unsent_max: usize) -> bool {
        self.unsent() <= unsent_max && !self.is_congested() && self.vat.wants_poll()
    }

    /// Notes that the transport was told not to read.
    pub(crate) fn refuse(&mut self) {
        self.wanted = false;
    }

    /// Moves output of the vat to where the transport takes it; tells whether the transport has
    /// to look: for new output, for input that is wanted after it was refused (while `admits`), or
    /// for the end.
    pub(crate) fn refresh(&mut self, admits: bool) -> bool {
        let news = self.has_news(admits);
        self.ending = false;
        if self.has_output_behind() {
            self.vat.swap_output(&mut self.output);
            self.sent = 0;
        }
        self.wanted |= admits && self.wants_input();
        news
    }

    /// Whether [`Session::refresh`] would have the transport look.
    pub(crate) fn has_news(&self, admits: bool) -> bool {
        self.ending || self.has_output_behind() || (admits && !self.wanted && self.wants_input())
    }

    /// Ends the connection; what the vat still has to say may be sent.
    pub(crate) fn end(&mut self, why: Closed) {
        if self.ended.is_none() {
            self.vat.disconnect(capnp::Error::disconnected("the connection has ended".into()));
            self.ended = Some(why);
            self.ending = true;
        }
    }

    /// Notes that the transport has sent the first `bytes` of [`Session::output`].
    pub(crate) fn sent(&mut self, bytes: usize, now: u64) {
        self.sent = self.sent.saturating_add(bytes).min(self.output.len());
        self.trickled = self.trickled.saturating_add(bytes);
        // Who takes a byte now and then stands still.
        if self.sent == self.output.len() || self.trickled >= READ_BYTES_MAX {
            (self.moved, self.trickled) = (now, 0);
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            // An idle connection keeps no large buffer.
            self.output.shrink_to(READ_BYTES_MAX);
        }
    }

    pub(crate) fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.ended.is_none() && !self.is_congested() && self.vat.wants_input()
    }

    pub(crate) fn ended(&self) -> Option<&Closed> {
        self.ended.as_ref()
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Calls that are not answered.
    pub(crate) fn calls(&self) -> usize {
        self.vat.calls_in_flight()
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.unsent() == 0
    }

    /// Since when so much waits to be sent, more than `unsent_max` bytes or what a connection may have, that no call goes on before
    /// the peer reads: as far as this was asked before.
    pub(crate) fn held_back_since(&mut self, unsent_max: usize, now: u64) -> Option<u64> {
        let unsent = self.unsent();
        let most = self.caller.shared.limits.connection.output_high_water_bytes;
        let since = self.held_back.unwrap_or(now);
        self.held_back = (unsent > unsent_max || unsent >= most).then_some(since);
        self.held_back
    }

    /// When bytes moved last.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// Bytes that the connection makes the server hold.
    pub(crate) fn held_bytes(&self) -> usize {
        let vat = self.vat.stats();
        let reads = self.caller.reads.taken() + self.caller.streams.taken() * STREAM_BYTES;
        self.output.len() + vat.held_bytes + vat.input_bytes + vat.output_bytes + reads
    }

    /// Whether all was sent that the transport could take, and the vat has more.
    fn has_output_behind(&self) -> bool {
        self.output().is_empty() && self.vat.pending_output() > 0
    }

    /// Bytes that wait to be sent.
    fn unsent(&self) -> usize {
        self.output().len().saturating_add(self.vat.pending_output())
    }

    /// Whether so much waits to be sent that nothing more is answered.
    fn is_congested(&self) -> bool {
        self.output().len() >= self.caller.shared.limits.connection.output_high_water_bytes
    }
}
