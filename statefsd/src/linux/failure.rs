//! Why the daemon ends, each with what to do about it.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

use journal::{FormatError, OpenError};

use super::policy_file::Mistrust;
use super::sandbox::Layer;

/// An end that was not asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The image cannot be opened.
    Image { path: PathBuf, error: blockdev::OpenError },
    /// The volume on it cannot be opened.
    Volume { path: PathBuf, error: OpenError },
    /// A development image cannot be made.
    Format { path: PathBuf, error: FormatError },
    /// A file or folder of a development set-up cannot be made.
    Dev { path: PathBuf, error: io::Error },
    /// The policy cannot be read.
    PolicyFile { path: PathBuf, error: io::Error },
    /// The folder of the policy cannot be reached.
    PolicyFolder { path: PathBuf, error: io::Error },
    /// The policy file could be written by others.
    PolicyTrust { path: PathBuf, mistrust: Mistrust },
    /// The policy is not sound; one line for each fault.
    Policy { faults: Vec<String> },
    /// Somebody listens on the socket.
    SocketLive { path: PathBuf },
    /// Something that is no socket is in its place.
    NotSocket { path: PathBuf },
    /// Something else is in the place of the file of figures.
    NotFigures { path: PathBuf },
    /// The socket cannot be made.
    Socket { path: PathBuf, error: io::Error },
    /// A socket that the service manager passed on is of no use.
    Passed { channel: String, error: io::Error },
    /// The system refuses what the daemon cannot do without.
    System { what: &'static str, error: io::Error },
    /// A layer of the sandbox is required and cannot be had.
    Sandbox { layer: Layer, why: String },
    /// There is no entropy.
    Entropy(io::Error),
    /// The shutdown took too long.
    Unfinished { synced: bool },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { path, error } => {
                write!(f, "image {}: {error}", path.display())?;
                if *error == blockdev::OpenError::Absent {
                    let path = path.display();
                    write!(f, "; `statefs image format {path} --size 64M` makes one")?;
                }
                Ok(())
            }
            Self::Volume { path, error } => {
                write!(f, "image {}: {error}{}", path.display(), remedy(error))
            }
            Self::Format { path, error } => write!(f, "making {}: {error}", path.display()),
            Self::Dev { path, error } => {
                write!(f, "making {}: {error}; choose another folder: --dev DIR", path.display())
            }
            Self::PolicyFile { path, error } => write!(
                f,
                "policy {}: {error}; without a policy everything is denied, so name one that can \
                 be read (--policy PATH), or mend it and reload",
                path.display()
            ),
            Self::PolicyFolder { path, error } => no_folder(f, path, error),
            Self::PolicyTrust { path, mistrust } => {
                write!(f, "policy {}: {mistrust}", path.display())
            }
            Self::Policy { faults } => {
                f.write_str("the policy is not sound; mend these lines:")?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
            Self::SocketLive { path } => write!(
                f,
                "socket {}: somebody listens there already; stop that first or choose another \
                 path: --socket PATH",
                path.display()
            ),
            Self::NotSocket { path } => taken(f, "socket", "socket", path, "--socket PATH"),
            Self::NotFigures { path } => {
                taken(f, "metrics", "file of figures", path, "--metrics file:PATH")
            }
            Self::Socket { path, error } => write!(
                f,
                "socket {}: {error}; its folder must exist and be writable, and its path have \
                 less than 108 bytes",
                path.display()
            ),
            Self::Passed { channel, error } => {
                write!(f, "the socket passed on for channel {channel:?}: {error}")
            }
            Self::System { what, error } => write!(
                f,
                "{what}: {error}; the daemon cannot do without: raise the limits of its service \
                 (descriptors, memory), then start it again"
            ),
            Self::Sandbox { layer, why } => write!(f, "the sandbox lacks {layer}: {why}"),
            Self::Entropy(error) => write!(
                f,
                "the system gives no random bytes: {error}; allow the call getrandom(2), then \
                 start the daemon again"
            ),
            Self::Unfinished { synced: true } => f.write_str(
                "shut down before every client had read its answers; all writes are durable",
            ),
            Self::Unfinished { synced: false } => f.write_str(
                "shut down before the device had taken everything: buffered writes may be lost, \
                 and nothing that was acknowledged as durable is",
            ),
        }
    }
}

/// Names the tool for a volume that no daemon opens.
fn remedy(error: &OpenError) -> &'static str {
    match error {
        OpenError::Checkpoint(_) => {
            "; `statefs image salvage` saves what verifies into a new image"
        }
        _ => "",
    }
}

/// Says that the folder of the policy is out of reach, and what to do.
fn no_folder(f: &mut fmt::Formatter<'_>, path: &Path, error: &io::Error) -> fmt::Result {
    write!(
        f,
        "policy {}: its folder cannot be reached: {error}; once confined the daemon could load no \
         policy from it either, so make the folder first, or name another one: --policy PATH",
        path.display()
    )
}

/// Says that something is where something of ours would be, and what to do.
fn taken(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    kind: &str,
    path: &Path,
    option: &str,
) -> fmt::Result {
    let path = path.display();
    write!(
        f,
        "{what} {path}: something that is no {kind} is there, and is never deleted; move it away or \
         choose another path: {option}"
    )
}
