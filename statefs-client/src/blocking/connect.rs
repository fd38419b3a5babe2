//! Reaching a daemon's socket without waiting for ever.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as dial, socket_with,
};

use crate::error::{Error, Result};

/// Connects; a daemon that accepts nobody is given up after `timeout`.
pub(super) fn connect(path: &Path, timeout: Duration) -> Result<UnixStream> {
    open(path, timeout).map_err(|error| Error::Connect { path: path.into(), kind: error.kind() })
}

fn open(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    if path.as_os_str().is_empty() {
        // The system would bind it to a name of its own choice.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let address = SocketAddrUnix::new(path).map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Bounds the wait for a place in the daemon's queue of connections.
    let timeout = timeout.max(Duration::from_micros(1));
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    // Who was interrupted while it waited for a place is not connected.
    retry_on_intr(|| dial(&socket, &address))?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}
