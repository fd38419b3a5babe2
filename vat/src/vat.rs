//! The public face of one connection.
use crate::conn::Conn;
use crate::exec::Kind;
use crate::limits::{Limits, Stats};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::{Client, FromClientHook};
use capnp::{Error, Result};
use core::future::Future;
use core::task::{Context, Waker};

/// One end of one connection: bytes in, bytes out, and the calls in between.
///
/// The driver, which owns the transport, does four things, in any order and as often as it likes:
/// [`Vat::receive`] while [`Vat::wants_input`], [`Vat::poll`] while it tells so,
/// [`Vat::take_output`] once the last output was written, and [`Vat::disconnect`] when the
/// transport ends. Dropping the vat ends the connection too.
///
/// A connection that is over keeps its last output (an `Abort`, perhaps) to be taken.
pub struct Vat {
    conn: Rc<Conn>,
}

impl Vat {
    /// Makes the vat of a connection just opened. `bootstrap` is what the peer gets when it asks
    /// for our bootstrap capability; without one it gets an error.
    pub fn new(bootstrap: Option<Client>, limits: Limits) -> Vat {
        Vat { conn: Conn::new(bootstrap.map(|client| client.hook), limits, None) }
    }

    /// Makes a vat that calls `driver` when a task of it was woken or when it has output again, for
    /// drivers that sleep: without it, only what happens inside [`Vat::receive`] and
    /// [`Vat::poll`] is known to be followed by a look at the output.
    pub fn with_driver(bootstrap: Option<Client>, limits: Limits, driver: Waker) -> Vat {
        Vat { conn: Conn::new(bootstrap.map(|client| client.hook), limits, Some(driver)) }
    }

    /// Takes received bytes, cut anywhere, and handles the messages that are complete.
    ///
    /// Handlers that need not wait run to their end in here. Output grows by at most a few times
    /// `data` and one reply beyond [`Limits::in_flight_bytes`], so feed one buffer of the transport
    /// at a time and look at [`Vat::wants_input`] in between.
    ///
    /// # Errors
    /// The peer broke the protocol or a limit, or ended the connection, or it was over before. The
    /// connection is over, and the output ends with an `Abort` if the peer is to be told.
    pub fn receive(&self, data: &[u8]) -> Result<()> {
        self.conn.receive(data)
    }

    /// Bounds what calls may make this connection hold from now on, within
    /// [`Limits::in_flight_bytes`]: for who shares memory between connections. A call beyond is
    /// answered `OVERLOADED`.
    pub fn set_in_flight_bytes_max(&self, bytes_max: usize) {
        let conn = &self.conn;
        conn.in_flight_bytes_max.set(bytes_max.min(conn.limits.in_flight_bytes));
    }

    /// Tells which methods stream, by the numbers of their interface and their own: where a call of one is refused for a limit of
    /// the connection, later calls on the same object fail too, as they do where one failed in the object. One that was let in is
    /// made also if the peer finishes it before its end. At first none does.
    pub fn set_streams(&self, streams: fn(u64, u16) -> bool) {
        self.conn.refused.streams.set(streams);
    }

    /// Runs woken tasks, at most `turns_max` turns, first woken first, and tells whether more can
    /// run now.
    ///
    /// While more output than [`Limits::output_high_water_bytes`] waits, nothing runs: the results
    /// of a peer that does not read stay unwritten. A handler must not hold, across an `await`,
    /// what handlers of other connections wait for. Ask [`Vat::wants_poll`] after taking output.
    pub fn poll(&self, turns_max: usize) -> bool {
        for _ in 0..turns_max {
            if self.conn.is_congested() {
                return false;
            }
            let turn = self.conn.tasks.borrow_mut().next_ready();
            let Some(mut turn) = turn else {
                return self.wants_poll();
            };
            let mut context = Context::from_waker(&turn.waker);
            if turn.task.as_mut().poll(&mut context).is_ready() {
                let none = self.conn.tasks.borrow_mut().release(turn.id);
                drop((none, turn.task));
            } else {
                // Given back if the task was cancelled meanwhile.
                let cancelled = self.conn.tasks.borrow_mut().put(turn.id, turn.task);
                drop(cancelled);
            }
            self.conn.drop_cancelled();
        }
        self.wants_poll()
    }

    /// Whether [`Vat::poll`] has something to run, and may.
    pub fn wants_poll(&self) -> bool {
        !self.conn.is_congested() && self.conn.tasks.borrow().has_ready()
    }

    /// Whether the driver should go on reading from the transport. False only while more output
    /// than [`Limits::output_high_water_bytes`] waits to be taken, and when the connection is over.
    pub fn wants_input(&self) -> bool {
        !self.conn.is_congested() && self.conn.over().is_none()
    }

    /// Takes all pending output. Do so only when the output taken before was written: what is taken
    /// no longer counts against the limits.
    pub fn take_output(&self) -> Vec<u8> {
        let mut output = Vec::new();
        self.conn.swap_output(&mut output);
        output
    }

    /// Takes all pending output like [`Vat::take_output`], and leaves the memory of `buffer` for the
    /// next. What was in `buffer` is discarded.
    pub fn swap_output(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        self.conn.swap_output(buffer);
    }

    /// Bytes of output not taken yet.
    pub fn pending_output(&self) -> usize {
        self.conn.output_bytes()
    }

    /// Runs a future of this end in [`Vat::poll`], like the handlers of calls. It outlives the
    /// connection, whose calls then fail, but not the vat.
    ///
    /// # Errors
    /// There are [`Limits::tasks`] already.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Result<()> {
        let mut tasks = self.conn.tasks.borrow_mut();
        let (id, waker) = tasks.reserve(Kind::Spawned).ok_or_else(|| {
            Error::overloaded(format!("OVERLOADED: {} tasks are spawned", self.conn.limits.tasks))
        })?;
        let none = tasks.put(id, Box::pin(future));
        drop(tasks);
        drop(none);
        waker.wake();
        Ok(())
    }

    /// Asks the peer for its bootstrap capability. Calls may be made at once; if the peer has none,
    /// or the connection is over, they fail.
    pub fn bootstrap<C: FromClientHook>(&self) -> C {
        match self.conn.ask() {
            Ok(question) => {
                self.conn.send(|message| message.init_bootstrap().set_question_id(question.id));
                C::new(question.cap(&[]))
            }
            Err(error) => C::new(crate::broken::broken(error)),
        }
    }

    /// Ends the connection because the transport did. The peer's calls are cancelled and what it
    /// held is dropped; our calls fail with the reason of `error`, as disconnected.
    pub fn disconnect(&self, error: Error) {
        self.conn.end(error, false);
    }

    /// Ends the connection like [`Vat::disconnect`], and tells the peer why.
    pub fn abort(&self, error: Error) {
        self.conn.end(error, true);
    }

    /// Why the connection is over, if it is.
    pub fn over(&self) -> Option<Error> {
        self.conn.over()
    }

    /// Calls of the peer that run.
    pub fn calls_in_flight(&self) -> usize {
        self.conn.meter.calls()
    }

    /// Whether no call of the peer runs and all output was taken: the moment to shut down at.
    pub fn is_idle(&self) -> bool {
        self.calls_in_flight() == 0 && self.pending_output() == 0
    }

    /// What the connection holds now.
    pub fn stats(&self) -> Stats {
        self.conn.stats()
    }
}

impl Drop for Vat {
    fn drop(&mut self) {
        self.conn.end(Error::disconnected("the vat was dropped".into()), false);
        let tasks = self.conn.tasks.borrow_mut().release_all(Kind::Spawned);
        drop(tasks);
        self.conn.drop_cancelled();
    }
}
