//! A channel over a Unix socket: a daemon's, or that of a machine's port.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::Channel;

/// A [`Channel`] over a connected stream.
#[derive(Debug)]
pub struct SocketChannel {
    stream: UnixStream,
    patience: Timespec,
}

impl SocketChannel {
    /// Takes a connected stream; a peer from which nothing comes for as long as `patience` is given
    /// up.
    ///
    /// # Panics
    /// If the system refuses to make the stream non-blocking, or cannot wait for so long.
    #[must_use]
    pub fn new(stream: UnixStream, patience: Duration) -> Self {
        stream.set_nonblocking(true).expect("a socket can be made non-blocking");
        let patience = Timespec::try_from(patience).expect("a time that the system can wait for");
        Self { stream, patience }
    }

    fn wait(&self, flags: PollFlags) -> Result<(), String> {
        loop {
            let mut watched = [PollFd::new(&self.stream, flags)];
            match poll(&mut watched, Some(&self.patience)) {
                Ok(0) => return Err(format!("silent for {} s", self.patience.tv_sec)),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("waiting failed: {error}")),
            }
        }
    }
}

impl Channel for SocketChannel {
    fn exchange(&mut self, mut output: &[u8]) -> Result<Vec<u8>, String> {
        let mut input = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        // Reads while it writes: a daemon whose answers nobody reads takes no more calls.
        while !output.is_empty() || input.is_empty() {
            let written = match self.stream.write(output) {
                Ok(count) => count,
                Err(error) if is_transient(error.kind()) => 0,
                Err(error) => return Err(format!("writing failed: {error}")),
            };
            output = output.get(written..).unwrap_or_default();
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the peer closed it".into()),
                Ok(count) => input.extend(buffer.get(..count).unwrap_or_default()),
                Err(error) if is_transient(error.kind()) => {
                    let out = if output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                    if !output.is_empty() || input.is_empty() {
                        self.wait(PollFlags::IN | out)?;
                    }
                }
                Err(error) => return Err(format!("reading failed: {error}")),
            }
        }
        Ok(input)
    }
}

fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 << 10;
