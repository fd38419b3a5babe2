//! The loop: one thread polls sockets, device, signals and the server, and waits in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::string::String;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::vec::Vec;
use std::{format, fs, mem, vec};

use blockdev::{BlockDevice as _, FileDevice, OpenOptions};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::device::Failures;
use super::failure::Failure;
use super::link::{Link, Tended};
use super::listen::{self, Listener};
use super::log;
use super::metrics::{self, DeviceTally, Metrics, Place};
use super::notify::Notify;
use super::options::{Config, Confinement, Socket};
use super::policy_file;
use super::sandbox::{self, Access, Layer, Sandbox, folder};
use crate::event::Event;
use crate::limits::{READ_BYTES_MAX, STALL_MS};
use crate::{ConnectionId, Health, Mode, Server};

/// Milliseconds for which nobody is accepted after the system ran out of what that takes.
const ACCEPT_PAUSE_MS: u64 = 1000;

/// Connections that one socket accepts before the others and the calls have their turn.
const ACCEPTS_MAX: usize = 64;

/// Milliseconds for which bytes of connections are moved before the device, the calls that wait and who watches the daemon
/// have their turn. What one connection may send at a time takes longer at worst; what all of them may is too much for a
/// watchdog.
const TEND_MS: u64 = 100;

/// Milliseconds that a shutdown may take. Init systems kill after 90 seconds; clients that do not
/// read their answers should not cost that, and those that hold calls back end before.
const SHUTDOWN_MS: u64 = 5000;
const _: () = assert!(STALL_MS < SHUTDOWN_MS);

/// Milliseconds after which connections are read once more whose last read was short. Only who sends descriptors waits for
/// it, and under load it costs one read of each connection in so many.
const LOOK_MS: u64 = 20;

const WAKE: Token = Token(0);
const STOP: Token = Token(1);
const RELOAD: Token = Token(2);
const METRICS: Token = Token(3);
const LISTENERS: usize = 4;
/// First token of connections; more listeners than there is room for are not accepted.
const LINKS: usize = 1 << 16;

/// The running daemon.
pub(crate) struct Driver {
    server: Server,
    poll: Poll,
    stop: UnixStream,
    reload: UnixStream,
    image: PathBuf,
    policy: PathBuf,
    listeners: Vec<Listener>,
    links: BTreeMap<ConnectionId, Link>,
    /// Connections to tend in the next round.
    due: Due,
    /// Nobody is accepted before this time.
    accept_at: u64,
    /// When connections are read once more whose last read was short.
    look_at: Option<u64>,
    /// When a shutdown gives up.
    stop_at: Option<u64>,
    started: Instant,
    notify: Notify,
    sandbox: Sandbox,
    metrics: Metrics,
    /// What the device was asked.
    asked: DeviceTally,
    /// What of it failed.
    failures: Failures,
    buffer: Vec<u8>,
    /// Goes last: who finds its lock free finds no socket of this daemon.
    device: FileDevice,
}

/// Connections that have something to send or to be read, or have ended.
#[derive(Default)]
struct Due {
    ids: BTreeSet<ConnectionId>,
    /// The one that was tended last.
    last: Option<ConnectionId>,
}

impl Due {
    fn insert(&mut self, id: ConnectionId) {
        self.ids.insert(id);
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes all of them, those behind the last that was tended first: nobody is left out each time that time runs out.
    fn take(&mut self) -> Vec<ConnectionId> {
        let mut first = mem::take(&mut self.ids);
        let Some(last) = self.last else { return first.into_iter().collect() };
        let mut behind = first.split_off(&last);
        let tended = behind.take(&last);
        behind.into_iter().chain(first).chain(tended).collect()
    }
}

impl Driver {
    /// Opens the image, makes the sockets besides `listeners`, and begins to open the volume.
    ///
    /// # Errors
    /// Anything of that cannot be done.
    pub(crate) fn start(
        config: Config,
        mut listeners: Vec<Listener>,
        notify: Notify,
        mut sandbox: Sandbox,
        seed: [u8; 32],
    ) -> Result<Self, Failure> {
        let Config { image, sockets, socket_mode, policy, limits, confinement, metrics } = config;
        if let Some(place) = &metrics {
            // Before the sandbox, from within which what is there could not be read.
            place.check()?;
        }
        let nobody = listen::nobody();
        let (rules, fault) = first_policy(&policy)?;
        if confinement != Confinement::Off {
            // Before the device's threads, which inherit it.
            let kept = files(&image, &policy, &sockets, metrics.as_ref());
            sandbox.note(Layer::Files, sandbox::confine(kept));
        }
        let system = |what| move |error| Failure::System { what, error };
        let poll = Poll::new().map_err(system("waiting for events"))?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(system("waking the main thread"))?;
        let stop = signals(&poll, STOP, &[SIGTERM, SIGINT]).map_err(system("taking signals"))?;
        let reload = signals(&poll, RELOAD, &[SIGHUP]).map_err(system("taking signals"))?;
        let wake = move || {
            // A wake-up that fails is followed by that of the next completion, or by a deadline.
            let _lost = waker.wake();
        };
        // Before the sockets: the lock on the image tells two daemons apart.
        let device = FileDevice::open(&image, OpenOptions::default(), wake)
            .map_err(|error| Failure::Image { path: image.clone(), error })?;
        watch(&poll, &device).map_err(system("watching the device"))?;
        let (direct, ring) = (device.direct(), device.ready().is_some());
        tracing::info!(image = %image.display(), direct, ring, "image open");
        for socket in sockets {
            listeners.push(Listener::bind(socket, socket_mode, nobody)?);
        }
        for (listener, token) in listeners.iter_mut().zip(LISTENERS..LINKS) {
            let registered =
                poll.registry().register(&mut listener.socket, Token(token), Interest::READABLE);
            registered.map_err(system("watching a socket"))?;
        }
        let written = matches!(metrics, Some(Place::File(_)));
        let metrics = Metrics::open(metrics, poll.registry(), METRICS)?;
        if confinement != Confinement::Off {
            // After everything that takes more than serving does.
            sandbox.note(Layer::Calls, sandbox::seal(written));
        }
        check_sandbox(&sandbox, confinement)?;
        notify.status("opening the volume");
        let mut server = Server::new(device.geometry(), rules, seed, limits);
        server.offer_policies();
        if let Some(failure) = fault {
            server.keep_policy(format!("{failure}"));
        }
        Ok(Self {
            server,
            device,
            poll,
            stop,
            reload,
            image,
            policy,
            listeners,
            links: BTreeMap::new(),
            due: Due::default(),
            accept_at: 0,
            look_at: None,
            stop_at: None,
            started: Instant::now(),
            notify,
            sandbox,
            metrics,
            asked: DeviceTally::default(),
            failures: Failures::default(),
            buffer: vec![0; READ_BYTES_MAX],
        })
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// The volume cannot be opened, the system fails, or the shutdown stays unfinished.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(256);
        loop {
            let deadline = self.round()?;
            if let Some(end) = self.end() {
                self.metrics.finish(|| figures(&self.server, &self.asked, &self.sandbox));
                return end;
            }
            let wait = deadline.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::System { what: "waiting for events", error }),
            }
            for event in &events {
                self.take(event);
            }
        }
    }

    /// Does what can be done; yields when there is more to do.
    fn round(&mut self) -> Result<Option<u64>, Failure> {
        self.tell_time();
        let accepts = self.accept();
        self.look_again();
        let mut moved = self.tend();
        let now = self.now();
        while let Some(completion) = self.device.completion() {
            if let Some(failed) = self.failures.answered(&completion, now) {
                log::device(&failed);
            }
            self.server.complete(completion);
        }
        let turn = self.server.poll(self.now());
        if self.server.wants_policy() {
            self.load_policy();
        }
        while let Some(request) = self.server.next_request() {
            self.asked.note(&request);
            self.failures.asked(&request);
            self.device.submit(request);
        }
        while let Some(id) = self.server.next_touched() {
            self.due.insert(id);
        }
        // Answers leave in the same round in which they were made.
        moved |= self.tend();
        self.log()?;
        let now = self.now();
        // Peers that never pause keep nobody who watches the machine waiting.
        let figures = || figures(&self.server, &self.asked, &self.sandbox);
        let told = self.metrics.tell(now, figures);
        let alive = self.notify.live(now);
        // What this round sent may let calls go on that the poll before held back, or leave room for what is ready behind it.
        if moved || self.server.wants_poll() || !self.due.is_empty() {
            return Ok(Some(now));
        }
        let waits = [accepts, turn.deadline, self.look_at, self.stop_at, told, alive];
        Ok(waits.into_iter().flatten().min())
    }

    /// Tells the server what time it is, before anything that came in while the loop waited.
    fn tell_time(&mut self) {
        let now = self.now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.server.set_clock(now);
        self.server.set_wall_clock(now, u64::try_from(unix).unwrap_or_default());
    }

    fn take(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKE => {}
            STOP => self.shut_down(),
            RELOAD => self.load_policy(),
            METRICS => self.metrics.wake(),
            Token(token) if token < LINKS => {
                if let Some(listener) = self.listeners.get_mut(token - LISTENERS) {
                    listener.ready = true;
                }
            }
            Token(token) => {
                let id = ConnectionId((token - LINKS) as u64);
                if let Some(link) = self.links.get_mut(&id) {
                    link.note(event);
                    self.due.insert(id);
                }
            }
        }
    }

    /// Accepts whoever waits; yields when to try again what the system refused.
    fn accept(&mut self) -> Option<u64> {
        let now = self.now();
        if now < self.accept_at {
            return self.listeners.iter().any(|listener| listener.ready).then_some(self.accept_at);
        }
        let mut listeners = mem::take(&mut self.listeners);
        for listener in listeners.iter_mut().filter(|listener| listener.ready) {
            for _ in 0..ACCEPTS_MAX {
                match listener.accept() {
                    Ok((stream, peer)) => self.connect(stream, peer),
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock => {
                            listener.ready = false;
                            break;
                        }
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                        _ => {
                            // Out of descriptors or memory: who waits stays in the kernel's queue.
                            self.accept_at = now.saturating_add(ACCEPT_PAUSE_MS);
                            let socket = listener.path().display();
                            tracing::warn!(%error, %socket, "nobody can be accepted for now");
                            break;
                        }
                    },
                }
            }
        }
        self.listeners = listeners;
        let more = self.listeners.iter().any(|listener| listener.ready);
        more.then_some(self.accept_at.max(now))
    }

    fn connect(&mut self, mut stream: UnixStream, peer: policy::Peer) {
        // Over the limit the stream is dropped, which ends the connection at once.
        let Ok(id) = self.server.connect(peer) else { return };
        let Some(token) = usize::try_from(id.0).ok().and_then(|id| id.checked_add(LINKS)) else {
            return self.server.close(id);
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Token(token), both) {
            tracing::warn!(%error, "a connection cannot be watched");
            return self.server.close(id);
        }
        self.links.insert(id, Link::new(stream));
        self.due.insert(id);
    }

    /// Has connections read once more whose last read was short, when it is time.
    fn look_again(&mut self) {
        if self.look_at.is_none_or(|at| self.now() < at) {
            return;
        }
        self.look_at = None;
        for (id, link) in &mut self.links {
            if link.look_again() {
                self.due.insert(*id);
            }
        }
    }

    /// Moves bytes of the connections that are due, as far as there is time; tells whether any came in or a connection ended.
    fn tend(&mut self) -> bool {
        let (mut came_in, mut presumed) = (false, false);
        let until = self.now().saturating_add(TEND_MS);
        for id in self.due.take() {
            if self.now() >= until {
                self.due.insert(id);
                continue;
            }
            self.due.last = Some(id);
            let Some(link) = self.links.get_mut(&id) else { continue };
            let tended = link.tend(id, &mut self.server, &mut self.buffer);
            presumed |= link.is_presumed();
            match tended {
                Tended::Waits { moved } => came_in |= moved,
                Tended::Busy => {
                    came_in = true;
                    self.due.insert(id);
                }
                Tended::Over => {
                    // What it held may be what others wait for.
                    came_in = true;
                    self.close(id);
                }
            }
        }
        if presumed && self.look_at.is_none() {
            self.look_at = Some(self.now().saturating_add(LOOK_MS));
        }
        came_in
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(mut link) = self.links.remove(&id) {
            // The kernel forgets the descriptor when it is closed, in any case.
            let _forgotten = self.poll.registry().deregister(&mut link.stream);
        }
        self.server.close(id);
        self.accept_at = 0;
    }

    /// Logs what happened.
    fn log(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.server.next_event() {
            if let Event::OpenFailed { error } = event {
                return Err(Failure::Volume { path: self.image.clone(), error });
            }
            log::event(&event);
            match event {
                Event::Opened { health, .. } => {
                    let sockets: Vec<_> = self.listeners.iter().map(Listener::path).collect();
                    tracing::info!(?sockets, "ready");
                    if self.stop_at.is_none() {
                        self.notify.ready(&status(&health));
                    }
                }
                Event::ModeChanged { health } => self.notify.status(&status(&health)),
                _ => {}
            }
        }
        Ok(())
    }

    fn load_policy(&mut self) {
        drain(&mut self.reload);
        // Ready is what comes behind it: before the volume is open nothing is, and a manager that stops the daemon waits for no more.
        let tells = self.server.health().mode != Mode::Opening && self.stop_at.is_none();
        if tells {
            self.notify.reloading();
        }
        match policy_file::load(&self.policy) {
            Ok(policy) => self.server.set_policy(policy),
            Err(failure) => {
                tracing::error!(%failure, "the policy in force stays");
                self.server.keep_policy(format!("{failure}"));
            }
        }
        if tells {
            self.notify.ready(&status(&self.server.health()));
        }
    }

    fn shut_down(&mut self) {
        drain(&mut self.stop);
        if self.stop_at.is_none() {
            tracing::info!("shutting down");
            self.notify.stopping();
            self.stop_at = Some(self.now().saturating_add(SHUTDOWN_MS));
            self.listeners.clear();
            self.server.shut_down();
        }
    }

    /// Whether the shutdown that began is over, and how.
    fn end(&self) -> Option<Result<(), Failure>> {
        let stop_at = self.stop_at?;
        if self.server.is_drained() {
            tracing::info!("shut down");
            return Some(Ok(()));
        }
        let synced = self.server.is_synced();
        (self.now() >= stop_at).then_some(Err(Failure::Unfinished { synced }))
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Wakes the loop when the device is done with something, where it has a descriptor for that.
fn watch(poll: &Poll, device: &FileDevice) -> io::Result<()> {
    let Some(ready) = device.ready() else { return Ok(()) };
    poll.registry().register(&mut SourceFd(&ready.as_raw_fd()), WAKE, Interest::READABLE)
}

/// Loads the policy; where there is none to be had, the one that denies everything, and why.
///
/// # Errors
/// Its folder is out of reach, and from within the sandbox would be for good: no policy could be loaded later either.
fn first_policy(path: &Path) -> Result<(::policy::Policy, Option<Failure>), Failure> {
    let within = fs::metadata(folder(path));
    within.map_err(|error| Failure::PolicyFolder { path: path.into(), error })?;
    Ok(match policy_file::load(path) {
        Ok(rules) => (rules, None),
        Err(failure) => {
            tracing::error!(%failure, "there is no policy, and everything is denied until one can be loaded");
            (::policy::Policy::deny_all(), Some(failure))
        }
    })
}

/// The text of all that is counted.
fn figures(server: &Server, asked: &DeviceTally, sandbox: &Sandbox) -> String {
    let mut families = server.figures();
    families.extend(asked.families(sandbox));
    metrics::text(&families)
}

/// The files that serving takes.
fn files(image: &Path, policy: &Path, sockets: &[Socket], metrics: Option<&Place>) -> Vec<Access> {
    let mut kept = vec![Access::Image(image.into()), Access::Read(folder(policy))];
    // Where the device is in use, it tells who has it; the device is opened behind this, as its threads are to be confined.
    kept.push(Access::Read("/proc".into()));
    kept.extend(FileDevice::description(image).map(Access::Read));
    // Nor figures, where theirs is not; that is logged, and takes no layer away.
    let figures = metrics.map(|place| folder(place.path())).filter(|folder| folder.exists());
    kept.extend(figures.map(Access::Replace));
    kept.extend(sockets.iter().map(|socket| Access::Replace(folder(&socket.path))));
    kept
}

/// Tells what the sandbox lacks.
///
/// # Errors
/// It lacks something, and must not.
fn check_sandbox(sandbox: &Sandbox, confinement: Confinement) -> Result<(), Failure> {
    for (layer, why) in sandbox.missing() {
        if confinement == Confinement::Required {
            return Err(Failure::Sandbox { layer: *layer, why: why.clone() });
        }
        tracing::warn!(%layer, why, "the sandbox lacks a layer");
    }
    if confinement == Confinement::Off {
        tracing::warn!("files and system calls are in reach: --no-sandbox");
    }
    let in_force = Layer::ALL.into_iter().filter(|layer| sandbox.is_in_force(*layer));
    let in_force: Vec<_> = in_force.map(Layer::name).collect();
    tracing::debug!(?in_force, "sandbox");
    Ok(())
}

/// What the service manager shows; names no key.
fn status(health: &Health) -> String {
    match health.mode {
        Mode::Opening => "opening the volume".into(),
        Mode::Healthy => "serving".into(),
        Mode::Degraded => format!("serving, degraded: {}", health.reason),
        Mode::ReadOnly => format!("serving reads only: {}", health.reason),
        Mode::Failed => format!("serving nothing: {}", health.reason),
    }
}

/// Makes a stream that becomes readable when one of `signals` comes.
fn signals(poll: &Poll, token: Token, signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, theirs) = StdStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, theirs.try_clone()?)?;
    }
    ours.set_nonblocking(true)?;
    let mut ours = UnixStream::from_std(ours);
    poll.registry().register(&mut ours, token, Interest::READABLE)?;
    Ok(ours)
}

/// Takes off what signals wrote.
fn drain(stream: &mut UnixStream) {
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).is_ok_and(|bytes| bytes > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_left_out_is_next() {
        for (last, order) in [
            (None, [2, 3, 5, 8]),
            (Some(3), [5, 8, 2, 3]),
            (Some(4), [5, 8, 2, 3]),
            (Some(8), [2, 3, 5, 8]),
        ] {
            let ids = [2, 3, 5, 8].map(ConnectionId).into();
            let mut due = Due { ids, last: last.map(ConnectionId) };
            assert_eq!(due.take(), order.map(ConnectionId), "{last:?}");
            assert!(due.is_empty());
        }
    }
}
