//! Figures for whoever watches the machine, as OpenMetrics text: told to each that connects to a
//! socket, or written to a file again and again.

use core::fmt::Write as _;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

use blockdev::{Operation, Request};
use mio::{Interest, Registry, Token};
use rustix::fs::OFlags;

use super::failure::Failure;
use super::listen::Listener;
use super::options::Socket;
use super::sandbox::{Layer, Sandbox};
use crate::{Family, Kind, Sample};

/// Where the figures go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// To each that connects there.
    Socket(PathBuf),
    /// Into the file, as a whole.
    File(PathBuf),
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Socket(path) | Self::File(path) => path,
        }
    }

    /// Judges what is there already: figures of an earlier run are replaced, and nothing else, for a
    /// slip of the pen would put figures in the place of the image, the policy or a device.
    ///
    /// # Errors
    /// [`Failure::NotFigures`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        match [path, &fresh(path)].into_iter().find(|path| !may_replace(path)) {
            Some(path) => Err(Failure::NotFigures { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether nothing is there but what [`write()`] left, be it cut short.
fn may_replace(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(error) => return error.kind() == ErrorKind::NotFound,
        Ok(found) if !found.is_file() => return false,
        Ok(_) => {}
    }
    let mut head = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(START.len() as u64).read_to_end(&mut head).map(drop));
    read.is_ok() && START.as_bytes().starts_with(&head)
}

/// Where the text is written before it takes the file's place.
fn fresh(path: &Path) -> PathBuf {
    let mut fresh = OsString::from(path);
    fresh.push(".new");
    fresh.into()
}

/// What every text begins with.
const START: &str = "# TYPE statefs_";

/// Figures tell how much others do, so not everybody reads them: who is in the daemon's group does,
/// whatever the permissions of the sockets for clients.
const SOCKET_MODE: u32 = 0o660;
const FILE_MODE: u32 = 0o640;

/// Milliseconds between two writings of the file: collectors look about as often.
const FILE_MS: u64 = 10_000;

/// Milliseconds for which nobody is told after the system ran out of what that takes.
const PAUSE_MS: u64 = 1000;

/// Connections that are told before the others have their turn.
const TOLD_MAX: usize = 16;

/// What the device was asked.
#[derive(Default)]
pub(crate) struct DeviceTally {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    flushes: u64,
}

impl DeviceTally {
    pub(crate) fn note(&mut self, request: &Request) {
        let bytes = request.buffer.len() as u64;
        match request.operation {
            Operation::Read { .. } => {
                self.reads += 1;
                self.read_bytes += bytes;
            }
            Operation::Write { .. } => {
                self.writes += 1;
                self.written_bytes += bytes;
            }
            Operation::Flush => self.flushes += 1,
        }
    }

    /// What was asked of the device and what of the sandbox is in force.
    pub(crate) fn families(&self, sandbox: &Sandbox) -> Vec<Family> {
        let Self { reads, read_bytes, writes, written_bytes, flushes } = *self;
        let layers = Layer::ALL.into_iter().map(|layer| Sample {
            labels: Vec::from([("layer", layer.name())]),
            value: u64::from(sandbox.is_in_force(layer)),
        });
        let counter = |name, help, value| Family::one(name, Kind::Counter, help, value);
        Vec::from([
            counter("device_reads", "Reads of the device.", reads),
            counter("device_read_bytes", "Bytes of them.", read_bytes),
            counter("device_writes", "Writes to the device, all copies.", writes),
            counter("device_written_bytes", "Bytes of them.", written_bytes),
            counter("device_flushes", "Flushes of the device.", flushes),
            Family {
                name: "sandbox",
                kind: Kind::Gauge,
                help: "Layers of the sandbox: 1 for those in force.",
                samples: layers.collect(),
            },
        ])
    }
}

/// The way out.
pub(crate) enum Metrics {
    /// Nobody wants to know.
    None,
    Socket(Listener, Option<u64>),
    File {
        path: PathBuf,
        /// When it is written next.
        due: u64,
        /// The last writing failed, which was logged.
        failed: bool,
    },
}

impl Metrics {
    /// Makes the socket.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn open(
        place: Option<Place>,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Failure> {
        match place {
            None => Ok(Self::None),
            Some(Place::File(path)) => Ok(Self::File { path, due: 0, failed: false }),
            Some(Place::Socket(path)) => {
                let mut listener =
                    Listener::bind(Socket { channel: String::new(), path }, SOCKET_MODE, None)?;
                let watched = registry.register(&mut listener.socket, token, Interest::READABLE);
                let what = "watching a socket";
                watched.map_err(|error| Failure::System { what, error })?;
                Ok(Self::Socket(listener, None))
            }
        }
    }

    /// Somebody may have connected.
    pub(crate) fn wake(&mut self) {
        if let Self::Socket(listener, _) = self {
            listener.ready = true;
        }
    }

    /// Tells who waits, or writes what is due; yields when there is more to do.
    pub(crate) fn tell(&mut self, now: u64, text: impl Fn() -> String) -> Option<u64> {
        match self {
            Self::None => None,
            Self::File { due, .. } if now < *due => Some(*due),
            Self::File { path, due, failed } => {
                let written = write(path, &text());
                if let Err(error) = &written
                    && !*failed
                {
                    tracing::warn!(%error, path = %path.display(), "metrics cannot be written");
                }
                *failed = written.is_err();
                *due = now.saturating_add(FILE_MS);
                Some(*due)
            }
            Self::Socket(listener, _) if !listener.ready => None,
            Self::Socket(listener, pause) => {
                if let Some(until) = pause.filter(|until| now < *until) {
                    return Some(until);
                }
                *pause = None;
                for _ in 0..TOLD_MAX {
                    match listener.accept() {
                        // Far less than what the kernel buffers; who reads nothing gets nothing.
                        Ok((mut stream, _)) => drop(stream.write_all(text().as_bytes())),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            listener.ready = false;
                            return None;
                        }
                        Err(_) => {
                            *pause = Some(now.saturating_add(PAUSE_MS));
                            return *pause;
                        }
                    }
                }
                Some(now)
            }
        }
    }

    /// Writes the last figures.
    pub(crate) fn finish(&mut self, text: impl Fn() -> String) {
        if let Self::File { due, .. } = self {
            *due = 0;
            self.tell(0, text);
        }
    }
}

/// Puts `text` in the place of the file, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = fresh(path);
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    // Who else may write in the folder does not choose which file is cut off.
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(&new)?.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// The text of families, each name behind `statefs_`.
pub(crate) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing to a string does not fail.
        let _infallible = one(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn one(text: &mut String, family: &Family) -> core::fmt::Result {
    let Family { name, kind, help, samples } = family;
    let (kind, suffix) = match kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
    };
    writeln!(text, "# TYPE statefs_{name} {kind}")?;
    if name.ends_with("_bytes") {
        writeln!(text, "# UNIT statefs_{name} bytes")?;
    }
    writeln!(text, "# HELP statefs_{name} {help}")?;
    for Sample { labels, value } in samples {
        write!(text, "statefs_{name}{suffix}")?;
        for (index, (label, of)) in labels.iter().enumerate() {
            let open = if index == 0 { "{" } else { "," };
            write!(text, "{open}{label}=\"{of}\"")?;
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(text, "{close} {value}")?;
    }
    Ok(())
}
