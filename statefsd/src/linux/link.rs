//! One accepted socket: bytes between the kernel and the server, as far as neither has to wait.

use core::mem;
use std::io::{ErrorKind, Read as _, Write as _};

use mio::event::Event;
use mio::net::UnixStream;

use crate::{ConnectionId, Server};

/// Reads of one connection before others have their turn.
const READS_MAX: usize = 4;

/// A connection's socket, and what is known of it since it last said "would block".
pub(crate) struct Link {
    pub(crate) stream: UnixStream,
    readable: bool,
    /// That it would block was taken from a short read, which proves it of streams without descriptors in them alone.
    presumed: bool,
    writable: bool,
    /// The peer has hung up, and says so once: the end is read behind the last bytes.
    hung_up: bool,
}

/// What became of a connection when it was tended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tended {
    /// It waits for the peer or for the server; `moved` tells whether bytes came in.
    Waits { moved: bool },
    /// It could go on reading.
    Busy,
    /// It is over and can be closed.
    Over,
}

impl Link {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, readable: true, presumed: false, writable: true, hung_up: false }
    }

    /// Notes what the kernel says has changed.
    pub(crate) fn note(&mut self, event: &Event) {
        self.hung_up |= event.is_read_closed();
        self.readable |= event.is_readable() || event.is_read_closed();
        self.writable |= event.is_writable() || event.is_write_closed();
    }

    /// Whether there may be bytes of which no event will tell.
    pub(crate) fn is_presumed(&self) -> bool {
        self.presumed
    }

    /// Has the next tending read once more where the last read was short; tells whether it was. Descriptors are sent by no
    /// client of ours, so a second read after each would be one for nothing, a third of the system calls of a get.
    pub(crate) fn look_again(&mut self) -> bool {
        self.readable |= self.presumed;
        mem::take(&mut self.presumed)
    }

    /// Sends and receives what can be, through `buffer`.
    pub(crate) fn tend(
        &mut self,
        id: ConnectionId,
        server: &mut Server,
        buffer: &mut [u8],
    ) -> Tended {
        if !self.send(id, server) || server.is_over(id) {
            return Tended::Over;
        }
        let mut moved = false;
        for _ in 0..READS_MAX {
            if !self.readable || !server.wants_input(id) {
                return Tended::Waits { moved };
            }
            match self.stream.read(buffer) {
                Ok(0) => return Tended::Over,
                Ok(bytes) => {
                    let read = buffer.get(..bytes).unwrap_or_default();
                    if server.receive(id, read) != Ok(bytes) {
                        // It wanted input, so it takes a whole read or has just ended.
                        return Tended::Over;
                    }
                    moved = true;
                    // A stream that yields less than it could has no more now, epoll(7): the next bytes are an event.
                    // Its end may have come with the event of these. A read also ends behind bytes that came with descriptors, and
                    // what follows them may have no event of its own: see `look_again`.
                    self.readable = bytes == buffer.len() || self.hung_up;
                    self.presumed = !self.readable;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => (self.readable, self.presumed) = (false, false),
                    ErrorKind::Interrupted => {}
                    _ => return Tended::Over,
                },
            }
        }
        Tended::Busy
    }

    /// Sends until the kernel's buffer is full; false if the peer is gone.
    fn send(&mut self, id: ConnectionId, server: &mut Server) -> bool {
        while self.writable {
            let output = server.output(id);
            if output.is_empty() {
                return true;
            }
            match self.stream.write(output) {
                Ok(0) => return false,
                Ok(bytes) => server.sent(id, bytes),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.writable = false,
                    ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
        true
    }
}
