//! What can go wrong outside of the machine.

use std::path::PathBuf;
use std::{fmt, io};

/// Why the harness could not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// QEMU is not there, or could not be started.
    Qemu {
        /// What the system says.
        error: io::Error,
    },
    /// The guest was not built.
    NoGuest {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file or a socket failed.
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The machine did not do something in time; its serial line says how far it came.
    Late {
        /// What was waited for.
        what: String,
        /// What the machine has written.
        serial: String,
    },
    /// QEMU refused a command.
    Refused {
        /// The command and its answer.
        what: String,
    },
    /// An image is not what it should be.
    Image {
        /// In which way.
        what: String,
    },
    /// The machine ended with another code than it should have.
    Exit {
        /// What QEMU exited with; `None` for a signal.
        code: Option<i32>,
        /// What the machine has written.
        serial: String,
    },
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qemu { error } => {
                write!(f, "{error}: qemu-system-x86_64 is needed; {}", crate::machine::ADVICE)
            }
            Self::NoGuest { path } => {
                let path = path.display();
                write!(f, "{path} is not there; build it with {}", crate::machine::BUILD)
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Late { what, serial } => {
                write!(f, "no {what} in time; the serial line says:\n{serial}")
            }
            Self::Refused { what } => write!(f, "QEMU refused {what}"),
            Self::Image { what } => write!(f, "the image {what}"),
            Self::Exit { code, serial } => {
                write!(f, "QEMU ended with {code:?}; the serial line says:\n{serial}")
            }
        }
    }
}

impl std::error::Error for Failure {}
