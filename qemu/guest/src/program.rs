//! Clients inside of the machine: a program has a channel of its own, as a port has, and is known by it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use policy::Peer;
use statefs_client::StateFs;
use statefsd::{ConnectionId, Full, Server};
use vat::Vat;

/// Writes a line where the machine's owner sees it.
pub type Print = fn(fmt::Arguments<'_>);

/// What a program does until it ends; the error says why it failed, and holds no value of a key.
pub type Task = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// What a program is given each time the server starts.
pub struct Start {
    /// The store, as this program's service may use it.
    pub store: StateFs,
    /// How often the server has started before, since the machine has.
    pub restarts: u32,
    /// Fresh random bytes, for this program alone.
    pub seed: [u8; 32],
    /// Where to tell of what was done.
    pub print: Print,
}

/// A client inside of the machine.
pub struct Program {
    /// By which name the policy knows it, as it does a port.
    pub channel: &'static str,
    /// Begins its work; called anew whenever the server has started.
    pub run: Box<dyn FnMut(Start) -> Task>,
}

/// A program at work.
pub(crate) struct Running {
    pub(crate) channel: &'static str,
    connection: ConnectionId,
    vat: Vat,
    /// What the program sent and the server did not take yet.
    sent: Vec<u8>,
    task: Option<Task>,
    pub(crate) end: Option<Result<(), String>>,
}

impl Running {
    /// Connects a program to the server and starts it.
    pub(crate) fn new(
        program: &mut Program,
        server: &mut Server,
        restarts: u32,
        seed: [u8; 32],
        print: Print,
    ) -> Result<Self, Full> {
        let peer = Peer { channel: program.channel.into(), uid: None };
        let connection = server.connect(peer)?;
        let vat = Vat::new(None, vat::Limits::default());
        let store = StateFs::over(&vat);
        let task = Some((program.run)(Start { store, restarts, seed, print }));
        Ok(Self { channel: program.channel, connection, vat, sent: Vec::new(), task, end: None })
    }

    /// Lets the program go on and moves its bytes; tells whether anything moved.
    pub(crate) fn turn(&mut self, server: &mut Server) -> bool {
        let Some(task) = &mut self.task else {
            return false;
        };
        let mut moved = false;
        // Nothing but the vat wakes a program, and it was asked before this.
        if let Poll::Ready(end) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.end = Some(end);
            self.task = None;
            server.close(self.connection);
            return true;
        }
        while self.vat.poll(TURNS) {
            moved = true;
        }
        self.sent.extend(self.vat.take_output());
        if !self.sent.is_empty()
            && let Ok(taken @ 1..) = server.receive(self.connection, &self.sent)
        {
            self.sent.drain(..taken);
            moved = true;
        }
        moved | self.listen(server)
    }

    /// Takes what the server has to say.
    pub(crate) fn listen(&mut self, server: &mut Server) -> bool {
        let output = server.output(self.connection);
        let bytes = output.len();
        // A vat that refuses is over, and so are its calls.
        self.vat.receive(output).unwrap_or_default();
        server.sent(self.connection, bytes);
        if server.is_over(self.connection) {
            self.vat.disconnect(capnp::Error::disconnected("the server ended it".into()));
        }
        bytes > 0
    }
}

/// Turns of a vat before others have theirs.
const TURNS: usize = 64;
