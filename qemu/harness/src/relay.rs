//! Between the clients of a Unix socket and a port of the machine: begins and ends connections as
//! [`guest::wire`] says, so that any client that speaks to a daemon speaks to a port.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use guest::wire::{self, Decoder, Item, Nonce};

use crate::Failure;

/// How often a beginning is repeated until it is answered.
const REPEAT: Duration = Duration::from_millis(20);

/// How long a port is given for that: a machine may be booting.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A socket whose clients reach a port, one after the other: a port has one connection at a time.
#[derive(Debug)]
pub struct Relay {
    socket: PathBuf,
}

impl Relay {
    /// Listens at `socket` for clients of the port that QEMU serves at `port`. The thread that does it
    /// lives as long as the process.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(socket: PathBuf, port: PathBuf) -> Result<Self, Failure> {
        let listener = UnixListener::bind(&socket).map_err(Failure::io("a relay's socket"))?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Whoever is not served sees the connection end.
                let _ = serve(client, &port);
            }
        });
        Ok(Self { socket })
    }

    /// Where clients connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Moves bytes until either side ends.
fn serve(client: UnixStream, port: &Path) -> io::Result<()> {
    let port = UnixStream::connect(port)?;
    let nonce = nonce();
    let (decoder, early) = begin(&port, &nonce)?;
    port.set_read_timeout(None)?;
    let (to_client, from_port) = (client.try_clone()?, port.try_clone()?);
    let down = thread::spawn(move || {
        let ended = deliver(from_port, &to_client, decoder, &early, &nonce);
        // The other direction ends with this one.
        let _ = to_client.shutdown(Shutdown::Both);
        ended
    });
    let sent = send(client, &port);
    let _ = port.shutdown(Shutdown::Both);
    let _ = down.join();
    sent
}

/// Begins a connection; yields what came behind the answer.
fn begin(port: &UnixStream, nonce: &Nonce) -> io::Result<(Decoder, Vec<u8>)> {
    let (mut decoder, mut data, mut begun) = (Decoder::default(), Vec::new(), false);
    let mut beginning = Vec::new();
    wire::begin(nonce, &mut beginning);
    let mut buffer = vec![0; BUFFER_BYTES];
    port.set_read_timeout(Some(REPEAT))?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        (&*port).write_all(&beginning)?;
        let count = match (&*port).read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            Ok(count) => count,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        decoder.decode(buffer.get(..count).unwrap_or_default(), |item| match item {
            Item::Begin(found) => begun = found == *nonce,
            Item::Data(more) if begun => data.extend_from_slice(more),
            Item::Data(_) => {}
            Item::End => begun = false,
        });
        if begun {
            return Ok((decoder, data));
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Sends what the client says, and its end.
fn send(mut client: UnixStream, mut port: &UnixStream) -> io::Result<()> {
    let (mut buffer, mut out) = (vec![0; BUFFER_BYTES], Vec::new());
    loop {
        let count = client.read(&mut buffer).unwrap_or(0);
        out.clear();
        wire::encode(buffer.get(..count).unwrap_or_default(), &mut out);
        if count == 0 {
            wire::end(&mut out);
        }
        port.write_all(&out)?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Delivers what the port says until it says that this is the end.
fn deliver(
    mut port: UnixStream,
    mut client: &UnixStream,
    mut decoder: Decoder,
    early: &[u8],
    nonce: &Nonce,
) -> io::Result<()> {
    client.write_all(early)?;
    let (mut buffer, mut data, mut over) = (vec![0; BUFFER_BYTES], Vec::new(), false);
    while !over {
        let count = port.read(&mut buffer)?;
        over = count == 0;
        data.clear();
        decoder.decode(buffer.get(..count).unwrap_or_default(), |item| match item {
            Item::Data(more) if !over => data.extend_from_slice(more),
            Item::Data(_) => {}
            Item::Begin(found) => over |= found != *nonce,
            Item::End => over = true,
        });
        client.write_all(&data)?;
    }
    Ok(())
}

/// Yields digits that no connection of this machine had before.
fn nonce() -> Nonce {
    let digits = format!("{:016x}", RandomState::new().build_hasher().finish());
    let mut nonce = [b'0'; wire::NONCE_BYTES];
    for (place, digit) in nonce.iter_mut().zip(digits.bytes()) {
        *place = digit;
    }
    nonce
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
