//! One connection: a vat, its socket, and the loop that moves bytes while a call is waited for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::format;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vat::Vat;

use crate::call::Call;
use crate::drive::drive;
use crate::error::{Effect, Error, Result};

/// Bytes read from the socket at a time: a few small answers, or a sixteenth of the largest.
const READ_BYTES: usize = 64 << 10;

/// Turns of the vat between two looks at the socket.
const TURNS: usize = 256;

/// Bytes that wait to be sent, beyond which none of our own calls would be let in: what is more answers a daemon that has
/// us talk and does not listen.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

pub(super) struct Link {
    vat: Vat,
    stream: UnixStream,
    timeout: Cell<Option<Duration>>,
    given_up: Cell<bool>,
    buffers: RefCell<Buffers>,
}

struct Buffers {
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
}

/// No answer came in time.
struct Silence;

/// Whether work was woken since somebody looked: a call that it waits for was answered, for nothing else wakes it. Bytes of
/// an answer that never becomes whole do not.
struct Answered(AtomicBool);

impl Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(stream: UnixStream, timeout: Option<Duration>) -> Self {
        let vat = Vat::new(None, vat::Limits::default());
        let input = std::vec![0; READ_BYTES];
        let buffers = RefCell::new(Buffers { output: Vec::new(), written: 0, input });
        let (timeout, given_up) = (Cell::new(timeout), Cell::new(false));
        Self { vat, stream, timeout, given_up, buffers }
    }

    pub(super) fn vat(&self) -> &Vat {
        &self.vat
    }

    /// Whether the connection was lost, or the daemon had no room for it any more. One that a peer ended by what it said is not made
    /// again.
    pub(super) fn is_lost(&self) -> bool {
        use capnp::ErrorKind::{Disconnected, Overloaded};
        self.vat.over().is_some_and(|over| matches!(over.kind, Disconnected | Overloaded))
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.get()
    }

    pub(super) fn set_timeout(&self, timeout: Option<Duration>) {
        self.timeout.set(timeout);
    }

    /// Whether the connection was ended from this side, for want of an answer to a batch that the daemon knows.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    fn give_up(&self, cause: &str) {
        self.given_up.set(true);
        self.ended(cause);
        // A peer that is gone already has no need to be told.
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    /// Makes a call and waits for it.
    pub(super) fn call<T: 'static>(&self, make: impl FnOnce() -> Call<T>) -> Result<T> {
        // A write on a connection that is over was not begun, so it is not indeterminate.
        match self.vat.over() {
            Some(over) => {
                Err(Error::of_exception(capnp::Error::disconnected(over.extra), Effect::Reads))
            }
            None => self.wait(make()),
        }
    }

    /// Waits for a call that was made.
    pub(super) fn wait<T: 'static>(&self, call: Call<T>) -> Result<T> {
        let effect = call.effect();
        let timeout = self.timeout.get();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut call = pin!(call);
        // Nothing but the vat wakes a call, and this loop asks it after every turn.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            while self.vat.poll(TURNS) {}
            if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
                return result;
            }
            if let Some(over) = self.vat.over() {
                let over = capnp::Error::disconnected(over.extra);
                return Err(Error::of_exception(over, effect));
            }
            if let Err(Silence) = self.turn(deadline) {
                if effect == Effect::WritesKnown {
                    // The answer may yet come and tell of a doubt, with nobody to hear it. Sent again over this connection,
                    // the daemon would take the batch for that of somebody who was told.
                    self.give_up("a batch was not answered in time");
                }
                return Err(Error::of_silence(timeout.unwrap_or_default(), effect));
            }
        }
    }

    /// Runs work of several calls.
    pub(super) fn run<T, E: From<Error>>(
        &self,
        work: impl Future<Output = core::result::Result<T, E>>,
    ) -> core::result::Result<T, E> {
        let answered = Arc::new(Answered(AtomicBool::new(true)));
        let waker = Waker::from(answered.clone());
        let mut work = pin!(work);
        let work = poll_fn(|_| work.as_mut().poll(&mut Context::from_waker(&waker)));
        let (mut timeout, mut deadline) = (None, None);
        drive(&self.vat, work, |_| {
            if answered.0.swap(false, Ordering::Relaxed) {
                timeout = self.timeout.get();
                deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            }
            let silence = |Silence| format!("no answer within {:?}", timeout.unwrap_or_default());
            self.turn(deadline).map_err(silence)
        })
    }

    /// Writes what the socket takes, waits until it is ready, reads what is there.
    fn turn(&self, deadline: Option<Instant>) -> core::result::Result<(), Silence> {
        let buffers = &mut *self.buffers.borrow_mut();
        let pending = self.write(buffers);
        let mut flags = PollFlags::IN;
        if pending {
            flags |= PollFlags::OUT;
        }
        if !self.ready(flags, deadline)? {
            return Ok(());
        }
        match (&self.stream).read(&mut buffers.input) {
            Ok(0) => self.ended("the daemon closed it"),
            Ok(count) => {
                let data = buffers.input.get(..count).unwrap_or_default();
                // What went wrong is kept by the vat, which is over then.
                self.vat.receive(data).unwrap_or_default();
                if self.vat.pending_output() > OUTPUT_BYTES_MAX {
                    let cause = "the daemon has more said to it than it reads";
                    self.vat.disconnect(capnp::Error::failed(cause.into()));
                }
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => self.ended(&format!("reading failed: {error}")),
        }
        Ok(())
    }

    /// Writes pending output and tells whether some is left.
    fn write(&self, buffers: &mut Buffers) -> bool {
        loop {
            if buffers.written == buffers.output.len() {
                buffers.written = 0;
                self.vat.swap_output(&mut buffers.output);
                if buffers.output.is_empty() {
                    return false;
                }
            }
            let rest = buffers.output.get(buffers.written..).unwrap_or_default();
            match (&self.stream).write(rest) {
                Ok(count) => buffers.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => return true,
                // The peer is gone; what it said last is still to be read.
                Err(_) => {
                    buffers.written = 0;
                    buffers.output.clear();
                    return false;
                }
            }
        }
    }

    /// Waits for the socket; tells whether there is something to read.
    fn ready(
        &self,
        flags: PollFlags,
        deadline: Option<Instant>,
    ) -> core::result::Result<bool, Silence> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                // Whatever is there to be read: who never stops talking would have us read for ever.
                return Err(Silence);
            }
            let left =
                left.map(|left| Timespec::try_from(left).map_err(|_| Silence)).transpose()?;
            let mut watched = [PollFd::new(&self.stream, flags)];
            match poll(&mut watched, left.as_ref()) {
                Ok(0) => return Err(Silence),
                Ok(_) => return Ok(watched.iter().any(|fd| fd.revents() != PollFlags::OUT)),
                // A signal is no word of the daemon's, and the time that is left goes on.
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.ended(&format!("waiting for it failed: {error}"));
                    return Ok(false);
                }
            }
        }
    }

    fn ended(&self, cause: &str) {
        self.vat.disconnect(capnp::Error::disconnected(cause.into()));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
