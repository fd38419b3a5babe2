//! One port as the server sees it: at most one connection at a time, of one service.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use policy::Peer;
use statefsd::{ConnectionId, Server};

use crate::wire::{self, Decoder, Item, Nonce};

/// Bytes of a connection that are encoded at a time; encoded, at most twice as many.
const OUTPUT_BYTES: usize = 16 << 10;

/// A port and its connection. The service is known by the port's name, which the machine's owner gave; no
/// byte changes it.
#[derive(Debug)]
pub struct Link {
    peer: Peer,
    decoder: Decoder,
    session: Option<Session>,
    /// Bytes that the server did not take yet.
    inbox: Vec<u8>,
    /// Encoded bytes on their way to the port.
    outbox: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    connection: ConnectionId,
    nonce: Nonce,
}

impl Link {
    /// Makes the link of the port called `name`. Whoever is at the other end from before hears that its
    /// connection has ended.
    #[must_use]
    pub fn new(name: String) -> Self {
        let mut outbox = Vec::new();
        wire::end(&mut outbox);
        let peer = Peer { channel: name, uid: None };
        Self { peer, decoder: Decoder::default(), session: None, inbox: Vec::new(), outbox }
    }

    /// Whether bytes of the port may be given to [`Link::receive`]: none wait for the server.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Takes bytes that came through the port.
    pub fn receive(&mut self, bytes: &[u8], server: &mut Server) {
        let mut decoder = mem::take(&mut self.decoder);
        decoder.decode(bytes, |item| match item {
            Item::Data(data) if self.session.is_some() => self.inbox.extend_from_slice(data),
            // The remainder of a connection that is over.
            Item::Data(_) => {}
            Item::Begin(nonce) => self.begin(nonce, server),
            Item::End => self.close(server),
        });
        self.decoder = decoder;
        self.tend(server);
    }

    /// Gives the server what it takes, and takes what it has to say; tells whether bytes moved.
    pub fn tend(&mut self, server: &mut Server) -> bool {
        let Some(Session { connection, .. }) = self.session else {
            return false;
        };
        let mut moved = false;
        while !self.inbox.is_empty() {
            match server.receive(connection, &self.inbox) {
                Ok(0) | Err(_) => break,
                Ok(taken) => {
                    self.inbox.drain(..taken);
                    moved = true;
                }
            }
        }
        if self.outbox.is_empty() {
            let output = server.output(connection);
            let output = output.get(..OUTPUT_BYTES).unwrap_or(output);
            wire::encode(output, &mut self.outbox);
            let bytes = output.len();
            server.sent(connection, bytes);
            moved |= bytes > 0;
        }
        if server.is_over(connection) && server.output(connection).is_empty() {
            self.close(server);
            moved = true;
        }
        moved
    }

    /// Yields encoded bytes for the port.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.outbox
    }

    /// Notes that the port took so many of [`Link::output`].
    pub fn sent(&mut self, bytes: usize) {
        self.outbox.drain(..bytes.min(self.outbox.len()));
    }

    /// Ends the connection, if there is one, and says so.
    pub fn close(&mut self, server: &mut Server) {
        self.inbox.clear();
        if let Some(session) = self.session.take() {
            server.close(session.connection);
            wire::end(&mut self.outbox);
        }
    }

    /// Forgets the connection to a server that is gone, and says that it has ended.
    pub fn forget(&mut self) {
        self.inbox.clear();
        if self.session.take().is_some() {
            wire::end(&mut self.outbox);
        }
    }

    /// Begins a connection, unless it is the one that is there: a client repeats itself until it is
    /// answered.
    fn begin(&mut self, nonce: Nonce, server: &mut Server) {
        if self.session.is_some_and(|session| session.nonce == nonce) {
            return;
        }
        self.close(server);
        // What the old connection had to say ends here, perhaps within an escape.
        self.outbox.clear();
        wire::begin(&nonce, &mut self.outbox);
        match server.connect(self.peer.clone()) {
            Ok(connection) => self.session = Some(Session { connection, nonce }),
            Err(_) => wire::end(&mut self.outbox),
        }
    }
}
