//! The server as its drivers see it: bytes, block requests, time and events, in and out.

mod shutdown;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use blockdev::{Completion, Geometry, Request};
use journal::{Clock, Digest, Disk, Journal, OpenError, Random};
use policy::{Peer, Policy, Prefix, ServiceId};

use crate::audit::Audit;
use crate::event::{Closed, Event, Events};
use crate::figures::{Family, Tally, count};
use crate::limits::Limits;
use crate::quota::Usage;
use crate::reload::Reload;
use crate::session::{ConnectionId, Session, Shared};
use crate::store::{Health, Mode, Store};
use crate::tokens::Tokens;
use crate::turns::Turns;
use shutdown::End;
pub(crate) use shutdown::Ending;

/// One daemon: a volume, a policy, connections.
///
/// A driver moves what goes in and out, and calls [`Server::poll`] after it did and at the
/// deadline that the last poll named. Nothing happens anywhere else, and the same inputs yield
/// the same outputs.
pub struct Server {
    shared: Rc<Shared>,
    disk: Disk,
    clock: Clock,
    task: Task,
    sessions: BTreeMap<ConnectionId, Session>,
    /// Bytes that all of them make the server hold.
    held: usize,
    /// Connections that the transport has to look at.
    touched: VecDeque<ConnectionId>,
    last_id: u64,
    mode: Mode,
    end: End,
}

/// When a driver has to poll again though nothing came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// There is more to do right now; other work of the driver may come first.
    pub again: bool,
    /// At this time in milliseconds.
    pub deadline: Option<u64>,
}

/// There are as many connections as there may be, in all, of the peer's service or of peers that the policy does not name, the
/// places that are left are kept for services that have none, or the server is shutting down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// There is no such connection, or it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// A volume that was opened, and the batches that it remembers.
type Opened = Result<(Journal, Tokens), OpenError>;

/// What is to be done about the volume.
enum Task {
    Opening(Pin<Box<dyn Future<Output = Opened>>>),
    Writing(Pin<Box<dyn Future<Output = ()>>>),
    /// Opening or writing has failed.
    Stopped,
}

impl Server {
    /// Makes a server and begins to open the volume on a device of this shape.
    ///
    /// `seed` is 256 bits of entropy, for the identities of what is written: two mounts of the
    /// same volume must never have the same.
    #[must_use]
    pub fn new(geometry: Geometry, policy: Policy, seed: [u8; 32], limits: Limits) -> Self {
        let (disk, clock) = (Disk::new(geometry), Clock::default());
        let random = Random::from_seed(seed);
        let opening = Journal::open(disk.clone(), random, clock.clone(), limits.journal);
        let opening = async move {
            let journal = opening.await?;
            let tokens = Tokens::load(&journal, limits.plants).await;
            Ok((journal, tokens))
        };
        let store = Store::new(limits.plants);
        store.load_quotas(&policy);
        let tally = Tally::default();
        if !denies_all(&policy) {
            count(&tally.policy_loads);
        }
        let shared = Shared {
            limits,
            clock: clock.clone(),
            policy: RefCell::new(Rc::new(policy)),
            store,
            events: RefCell::new(Events::new(&limits)),
            tally,
            audit: Audit::new(limits.audit),
            reload: Reload::default(),
            polls: Cell::new(0),
            turns: Turns::default(),
            ending: Ending::default(),
        };
        Self {
            shared: Rc::new(shared),
            disk,
            clock,
            task: Task::Opening(Box::pin(opening)),
            sessions: BTreeMap::new(),
            held: 0,
            touched: VecDeque::new(),
            last_id: 0,
            mode: Mode::Opening,
            end: End::Serving,
        }
    }

    /// Takes a new connection from whom the transport vouches for.
    ///
    /// A peer that the policy does not name is let in too, as long as there are few, and denied
    /// everything: `hello` and `health` answer it.
    ///
    /// # Errors
    /// [`Full`]: the driver ends the connection at once.
    pub fn connect(&mut self, peer: Peer) -> Result<ConnectionId, Full> {
        if !self.has_room_for(&peer) || !matches!(self.end, End::Serving) {
            count(&self.shared.tally.connections_refused);
            self.shared.events.borrow_mut().refuse_connection(Event::Refused { peer });
            return Err(Full);
        }
        self.last_id += 1;
        let connection = ConnectionId(self.last_id);
        let session = Session::new(&self.shared, connection, peer, self.clock.now());
        let (peer, service) = (session.caller().peer.clone(), session.caller().service.clone());
        let event = Event::Connected { connection, peer, service };
        self.shared.events.borrow_mut().push(event);
        self.held += session.held_bytes();
        self.sessions.insert(connection, session);
        count(&self.shared.tally.connections_accepted);
        self.shared.tally.connections.set(self.sessions.len() as u64);
        Ok(connection)
    }

    /// Takes bytes that a connection received, cut anywhere, and yields how many: all of them, up
    /// to [`crate::limits::READ_BYTES_MAX`], while [`Server::wants_input`], else none.
    ///
    /// Calls in them may run at once, at the time that [`Server::set_clock`] was told.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<usize, Gone> {
        if self.is_over(id) {
            return Err(Gone);
        }
        if !self.wants_input(id) {
            return Ok(0);
        }
        let (now, held_max) = (self.clock.now(), self.held_max());
        let session = self.sessions.get_mut(&id).ok_or(Gone)?;
        self.held -= session.held_bytes();
        let taken = session.receive(bytes, held_max, now);
        self.held += session.held_bytes();
        Ok(taken)
    }

    /// Ends a connection: its transport is gone, or the driver is done with it. Its calls are
    /// cancelled; a write that was begun goes on and nobody learns how it ended.
    pub fn close(&mut self, connection: ConnectionId) {
        if let Some(mut session) = self.sessions.remove(&connection) {
            self.held -= session.held_bytes();
            session.end(Closed::Transport);
            self.shared.tally.connections.set(self.sessions.len() as u64);
            let why = session.ended().cloned().unwrap_or(Closed::Transport);
            let mut events = self.shared.events.borrow_mut();
            match why {
                Closed::Transport => events.push(Event::Closed { connection, why }),
                Closed::Protocol(_) | Closed::Memory => {
                    events.refuse_connection(Event::Closed { connection, why });
                }
            }
        }
    }

    /// Tells the time, in milliseconds of a clock that never goes back. To be called before what came in since the last
    /// [`Server::poll`] is given to the server: by this time it is judged.
    pub fn set_clock(&mut self, now: u64) {
        self.clock.set(now);
    }

    /// Does all that can be done at this time, in milliseconds of the same clock.
    pub fn poll(&mut self, now: u64) -> Turn {
        self.set_clock(now);
        self.shared.polls.set(self.shared.polls.get() + 1);
        self.shared.turns.wake();
        self.shared.events.borrow_mut().tick(now);
        for _ in 0..ROUNDS_MAX {
            self.drive();
            if !self.run() {
                break;
            }
        }
        if let Ok(journal) = self.shared.store.journal() {
            self.write_audit(&journal, false);
        }
        self.drive();
        self.notice_mode();
        let pressed = self.relieve(now);
        let finishing = self.finish(now);
        self.refresh();
        let again = self.wants_poll();
        let journal = self.shared.store.journal().ok();
        let audit = self.shared.audit.deadline().filter(|_| journal.is_some());
        let journal = journal.and_then(|journal| journal.deadline());
        let events = self.shared.events.borrow().deadline();
        let deadlines = [journal, events, audit, pressed, finishing].into_iter().flatten();
        // What was due by now has begun, and its end is an event: on a slow device to poll again at once would be all that
        // the driver did.
        Turn { again, deadline: deadlines.filter(|at| *at > now).min() }
    }

    /// Tells what the machine's clock says at `now`, for records that people read; nothing else asks.
    pub fn set_wall_clock(&mut self, now: u64, unix_millis: u64) {
        self.shared.audit.set_clock(now, unix_millis);
    }

    /// Hands out the next request for the device.
    pub fn next_request(&mut self) -> Option<Request> {
        self.disk.next_request()
    }

    /// Takes the end of a request back.
    pub fn complete(&mut self, completion: Completion) {
        self.disk.complete(completion);
    }

    /// Hands out the next connection that the driver has to look at: it has new output, wants
    /// input that it refused before, or has ended.
    pub fn next_touched(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.touched.pop_front()?;
            if let Some(session) = self.sessions.get_mut(&id) {
                session.touched = false;
                return Some(id);
            }
        }
    }

    /// Whether a poll would let calls go on, or have a driver look at a connection. What was sent since the last one can make it
    /// so: unread results hold back calls, input, and the results behind them, and of their end no event of the driver's tells.
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        let (held_max, admission) = (self.held_max(), self.admission());
        let wants = |session: &Session| {
            session.wants_run(held_max) || session.has_news(admission.admits(session))
        };
        self.shared.turns.is_waited_for() || self.sessions.values().any(wants)
    }

    /// What waits to be sent, as far as it is ready to be.
    #[must_use]
    pub fn output(&self, id: ConnectionId) -> &[u8] {
        self.sessions.get(&id).map_or(&[], Session::output)
    }

    /// Notes that the first `bytes` of [`Server::output`] were sent.
    pub fn sent(&mut self, id: ConnectionId, bytes: usize) {
        let now = self.clock.now();
        if let Some(session) = self.sessions.get_mut(&id) {
            self.held -= session.held_bytes();
            session.sent(bytes, now);
            self.held += session.held_bytes();
        }
    }

    /// Whether the driver should read from this connection. After it was told not to, the
    /// connection is among [`Server::next_touched`] once that has changed.
    pub fn wants_input(&mut self, id: ConnectionId) -> bool {
        let admission = self.admission();
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let wants = session.wants_input() && admission.admits(session);
        if !wants {
            session.refuse();
        }
        wants
    }

    /// Whether the connection has ended on this side: the driver sends what output there is, as
    /// far as that goes without waiting, and closes it.
    #[must_use]
    pub fn is_over(&self, id: ConnectionId) -> bool {
        self.sessions.get(&id).is_none_or(|session| session.ended().is_some())
    }

    /// Hands out the oldest event that was not logged yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.shared.events.borrow_mut().pop()
    }

    /// What the store can do now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.store.health()
    }

    /// What the server has counted, family by family.
    #[must_use]
    pub fn figures(&self) -> Vec<Family> {
        self.shared.tally.families(&self.shared.store)
    }

    /// What a subtree holds, and the quotas that concern it; `None` while there is no volume.
    ///
    /// Cost: a pass over its keys.
    #[must_use]
    pub fn usage(&self, prefix: &Prefix) -> Option<Usage> {
        self.shared.store.usage(prefix).ok()
    }

    /// Computes the digest of all that the volume holds, which `statefs image dump` computes from its image; `None` while
    /// it is not open.
    ///
    /// Reads every value; the future goes on whenever [`Server::poll`] was called. What is written
    /// meanwhile may be in it or not.
    pub fn digest(&self) -> Option<impl Future<Output = Digest> + use<>> {
        let journal = self.shared.store.journal().ok()?;
        Some(async move { journal::digest(&journal, |_, _, _| {}).await })
    }

    /// Puts another policy in force, at once and for every connection and capability there is.
    ///
    /// Connections keep the identity that they were given; a service that the new policy names
    /// differently is denied from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.shared.store.load_quotas(&policy);
        count(&self.shared.tally.policy_loads);
        self.shared.store.set_stale(None);
        self.shared.policy.replace(Rc::new(policy));
        self.shared.events.borrow_mut().push(Event::PolicyChanged);
        self.shared.reload.answer(&Ok(()));
    }

    /// Notes that the driver was told to load a policy and could not, for a reason that an
    /// administrator may read: the one in force stays, and health is degraded until another one is
    /// put in force.
    pub fn keep_policy(&mut self, reason: String) {
        count(&self.shared.tally.policy_faults);
        let denies_all = denies_all(&self.shared.policy.borrow());
        self.shared.store.set_stale(Some(denies_all));
        self.shared.reload.answer(&Err(reason));
    }

    /// Notes that the driver can load a policy when an administrator asks for it: it looks at
    /// [`Server::wants_policy`] after each poll.
    pub fn offer_policies(&mut self) {
        self.shared.reload.serve();
    }

    /// Whether an administrator asked for the policy to be read anew. Told once; the driver answers
    /// with [`Server::set_policy`] or [`Server::keep_policy`].
    pub fn wants_policy(&mut self) -> bool {
        self.shared.reload.is_asked()
    }
}

impl Server {
    /// Whether there may be one connection more, and of the service of this peer, or of those that the policy does not name. The
    /// last places are kept for who has none. Who had the name under a policy of before is none of the service's.
    fn has_room_for(&self, peer: &Peer) -> bool {
        let service = self.shared.policy.borrow().identify(peer);
        let name = service.as_ref().map(ServiceId::name);
        let callers = self.sessions.values().map(Session::caller);
        let alike = callers.filter(|it| it.service_now().as_ref().map(ServiceId::name) == name);
        let Limits { connections, kept, of_service, strangers, .. } = self.shared.limits;
        let (alike, most) = (alike.count(), if name.is_some() { of_service } else { strangers });
        let kept = if alike == 0 { 0 } else { kept };
        self.sessions.len() + kept < connections && alike < most
    }

    /// Hands records that are due to the journal.
    fn write_audit(&self, journal: &Journal, at_once: bool) {
        let Shared { audit, store, .. } = &*self.shared;
        let now = self.clock.now();
        if at_once || audit.deadline().is_some_and(|due| due <= now) {
            store.line.queueing(journal, "", || audit.write(journal, now, at_once));
        }
    }

    /// Runs the volume's task as far as it gets.
    fn drive(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match &mut self.task {
                Task::Opening(opening) => match opening.as_mut().poll(&mut context) {
                    Poll::Ready(opened) => {
                        self.task = match &opened {
                            Ok((journal, _)) => Task::Writing(Box::pin(journal.run())),
                            Err(_) => Task::Stopped,
                        };
                        self.opened(opened);
                    }
                    Poll::Pending => return,
                },
                Task::Writing(writing) => {
                    if writing.as_mut().poll(&mut context).is_ready() {
                        self.task = Task::Stopped;
                    }
                    self.shared.store.follow();
                    return;
                }
                Task::Stopped => return,
            }
        }
    }

    /// Lets the calls of every connection go on; tells whether any did.
    fn run(&mut self) -> bool {
        let (share, memory) = (self.share(), self.shared.limits.memory_bytes);
        let mut held = self.recount();
        let mut ran = false;
        for session in self.sessions.values_mut() {
            held -= session.held_bytes();
            // One result at a time: each may be the one that uses the memory up.
            for _ in 0..TURNS_MAX {
                let pressed = held.saturating_add(session.held_bytes()) > memory;
                if !session.run(if pressed { share } else { usize::MAX }) {
                    break;
                }
                ran = true;
            }
            held += session.held_bytes();
        }
        self.held = held;
        ran
    }

    /// Counts anew what the connections hold, after calls went on or ended; what bytes in and out change is known.
    fn recount(&mut self) -> usize {
        self.held = self.sessions.values().map(Session::held_bytes).sum();
        self.held
    }

    fn opened(&mut self, opened: Opened) {
        let report = opened.as_ref().map(|(journal, _)| journal.report().clone());
        let report = report.map_err(|error| *error);
        self.shared.store.opened(opened);
        let health = self.shared.store.health();
        self.mode = health.mode;
        let event = match report {
            Ok(report) => Event::Opened { report, health },
            Err(error) => Event::OpenFailed { error },
        };
        self.shared.events.borrow_mut().push(event);
    }

    fn notice_mode(&mut self) {
        let health = self.shared.store.health();
        if health.mode != self.mode {
            self.mode = health.mode;
            self.shared.events.borrow_mut().push(Event::ModeChanged { health });
        }
    }

    /// Whether calls are let in at all: not before the volume is open, so that no call is answered
    /// before, and not during a shutdown.
    fn serves(&self) -> bool {
        matches!(self.end, End::Serving) && !self.shared.store.is_opening()
    }

    /// Whether the connections hold more memory than they may together. Then those that hold more
    /// than a share of it have to wait.
    fn is_pressed(&self) -> bool {
        let held = || self.sessions.values().map(Session::held_bytes).sum::<usize>();
        debug_assert_eq!(self.held, held(), "what the connections hold is known");
        self.held > self.shared.limits.memory_bytes
    }

    /// Whose input is let in at this moment.
    fn admission(&self) -> Admission {
        let held_max = self.is_pressed().then(|| self.share());
        Admission { serves: self.serves(), held_max }
    }

    /// What a connection may hold at this moment for its calls to go on.
    fn held_max(&self) -> usize {
        if self.is_pressed() { self.share() } else { usize::MAX }
    }

    fn share(&self) -> usize {
        let Limits { memory_bytes, connections, .. } = self.shared.limits;
        memory_bytes / connections.max(1)
    }

    /// Ends who stands still with more than a share of a memory that is used up; yields when to
    /// look again.
    fn relieve(&mut self, now: u64) -> Option<u64> {
        self.recount();
        if !self.is_pressed() {
            return None;
        }
        let (stall_ms, share) = (self.shared.limits.stall_ms, self.share());
        let greedy: alloc::vec::Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.ended().is_none() && session.held_bytes() > share)
            .map(|(id, session)| (*id, session.moved().saturating_add(stall_ms)))
            .collect();
        for (id, _) in greedy.iter().filter(|(_, due)| *due <= now) {
            if let Some(session) = self.sessions.get_mut(id) {
                session.end(Closed::Memory);
            }
        }
        greedy.into_iter().map(|(_, due)| due).filter(|due| *due > now).min()
    }

    fn refresh(&mut self) {
        self.recount();
        let admission = self.admission();
        for (id, session) in &mut self.sessions {
            let news = session.refresh(admission.admits(session));
            if news && !session.touched {
                session.touched = true;
                self.touched.push_back(*id);
            }
        }
        self.recount();
    }
}

/// Whose input is let in.
#[derive(Clone, Copy)]
struct Admission {
    serves: bool,
    /// What a connection may hold, where that is less than it may anyway.
    held_max: Option<usize>,
}

impl Admission {
    fn admits(self, session: &Session) -> bool {
        self.serves && self.held_max.is_none_or(|most| session.held_bytes() <= most)
    }
}

/// Whether a policy is that of who has none.
fn denies_all(policy: &Policy) -> bool {
    policy.services().len() == 0
}

/// Turns of calls that one connection gets before the next one has its own.
const TURNS_MAX: usize = 64;

/// Rounds of volume and calls in one poll, so that a driver gets to its sockets and device.
const ROUNDS_MAX: usize = 16;
