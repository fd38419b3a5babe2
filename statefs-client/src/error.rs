//! Why a call did not do what it was asked.

use crate::types::Metadata;
use crate::version::Version;
use alloc::format;
use alloc::string::String;
use capnp::ErrorKind;
use core::fmt;
use core::time::Duration;
use statefs::ErrorCode;

/// What the calls of this crate give.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call did not do what it was asked. No variant ever holds a value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server refused or failed, and nothing was applied.
    Refused {
        /// The stable code.
        code: ErrorCode,
        /// The facts, for people.
        message: String,
    },
    /// The precondition does not hold; nothing was written.
    Conflict {
        /// The version that the key has; `None` if there is no such key.
        current: Option<Version>,
    },
    /// The key is damaged: an acknowledged value of it cannot be read back. It is not absent.
    DataLoss,
    /// A precondition of a batch does not hold; nothing of it happened.
    BatchConflict {
        /// Of which operation, from 0.
        index: usize,
        /// The version that its key has; `None` if there is no such key.
        current: Option<Version>,
    },
    /// A key of a batch is damaged, so its precondition cannot be told; nothing of it happened.
    BatchDataLoss {
        /// Of which operation, from 0.
        index: usize,
    },
    /// A loss of data may have taken what the server remembered of this batch's token, or it remembers it from a volume that was
    /// salvaged into its own: what became of the batch when it was sent before cannot be told, and this time nothing happened. It may have been sent before
    /// with another call, or with this one over a connection that was lost.
    /// Its keys may tell; sent again with its token, it is applied, once it was answered so on the same connection, or twice.
    BatchInDoubt,
    /// The value is too long for one call; it is read in parts.
    Large(Metadata),
    /// A value that is read in parts was written or deleted meanwhile.
    Changed,
    /// A write was begun and not confirmed: it may be found later, or not.
    Indeterminate {
        /// What came in the way.
        cause: String,
    },
    /// The connection ended before a read was answered.
    Disconnected {
        /// Why, as far as it is known.
        cause: String,
    },
    /// A read was not answered in time.
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer answered what no server of this schema would, or failed without a code.
    Protocol {
        /// What it was.
        cause: String,
    },
    /// Nobody could be reached.
    #[cfg(feature = "std")]
    Connect {
        /// The socket.
        path: std::path::PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
}

/// Whether a call may change something: it decides what an answer that never came means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reads,
    Writes,
    /// It writes, and the server knows it by its token when it is sent again.
    WritesKnown,
}

impl Error {
    /// Returns the stable word for it: the schema's code where the server refused, otherwise one of
    /// `CONFLICT`, `DATA_LOSS`, `CHANGED`, `INDETERMINATE`, `DISCONNECTED`, `TIMED_OUT`, `PROTOCOL` and
    /// `NO_DAEMON`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } => code.text(),
            Self::Conflict { .. } | Self::BatchConflict { .. } => "CONFLICT",
            Self::DataLoss | Self::BatchDataLoss { .. } | Self::BatchInDoubt => "DATA_LOSS",
            Self::Changed => "CHANGED",
            Self::Large(_) => ErrorCode::ValueTooLarge.text(),
            Self::Indeterminate { .. } => "INDETERMINATE",
            Self::Disconnected { .. } => "DISCONNECTED",
            Self::TimedOut { .. } => "TIMED_OUT",
            Self::Protocol { .. } => "PROTOCOL",
            #[cfg(feature = "std")]
            Self::Connect { .. } => "NO_DAEMON",
        }
    }

    /// Returns the schema's code, if the server refused with one.
    #[must_use]
    pub fn refusal(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Judges the exception that ended a call.
    ///
    /// An exception with a code applied nothing. A write that ended in any other is indeterminate, and so is one that ended with
    /// its connection: a code then tells why that ended, not what became of the call.
    pub(crate) fn of_exception(error: capnp::Error, effect: Effect) -> Self {
        let ended = error.kind == ErrorKind::Disconnected;
        if let Some(code) = ErrorCode::of_reason(&error.extra).filter(|_| !ended) {
            let reason = error.extra.strip_prefix(REMOTE).unwrap_or(&error.extra);
            let message = reason.strip_prefix(code.text()).unwrap_or(reason);
            let message = message.strip_prefix(": ").unwrap_or(message).into();
            return Self::Refused { code, message };
        }
        let cause = if error.extra.is_empty() { format!("{}", error.kind) } else { error.extra };
        match (effect, error.kind) {
            (Effect::Writes | Effect::WritesKnown, _) => Self::Indeterminate { cause },
            (Effect::Reads, ErrorKind::Disconnected) => Self::Disconnected { cause },
            // An unknown code: the type of the exception decides.
            (Effect::Reads, ErrorKind::Overloaded) => {
                Self::Refused { code: ErrorCode::Overloaded, message: cause }
            }
            (Effect::Reads, ErrorKind::Unimplemented) => {
                Self::Refused { code: ErrorCode::Unimplemented, message: cause }
            }
            (Effect::Reads, _) => Self::Protocol { cause },
        }
    }

    /// Judges an answer that cannot be read, or has no meaning: something was answered, so a write
    /// may have happened.
    pub(crate) fn of_answer(cause: &str, effect: Effect) -> Self {
        let cause = format!("the server's answer {cause}");
        match effect {
            Effect::Writes | Effect::WritesKnown => Self::Indeterminate { cause },
            Effect::Reads => Self::Protocol { cause },
        }
    }

    /// Judges an answer that did not come within `after`.
    #[cfg(feature = "std")]
    pub(crate) fn of_silence(after: Duration, effect: Effect) -> Self {
        match effect {
            Effect::Writes | Effect::WritesKnown => {
                Self::Indeterminate { cause: format!("no answer within {after:?}") }
            }
            Effect::Reads => Self::TimedOut { after },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A denial tells its peer no more than the code.
            Self::Refused { code: ErrorCode::AccessDenied, message } if message.is_empty() => {
                f.write_str("the policy does not grant it")
            }
            Self::Refused { message, .. } => f.write_str(message),
            Self::Conflict { current: Some(version) } => {
                write!(f, "the key is in version {version}; nothing was written")
            }
            Self::Conflict { current: None } => {
                f.write_str("there is no such key; nothing was written")
            }
            Self::DataLoss => f.write_str("what the key held cannot be read back"),
            Self::BatchConflict { index, current } => {
                write!(f, "operation {index} of the batch: ")?;
                Self::Conflict { current: *current }.fmt(f)
            }
            Self::BatchDataLoss { index } => {
                write!(f, "operation {index} of the batch: ")?;
                Self::DataLoss.fmt(f)
            }
            Self::BatchInDoubt => f.write_str(
                "what became of this batch when it was sent before cannot be told, for what was remembered of such \
                 batches is damaged or of another volume, which was salvaged; this time nothing was written",
            ),
            Self::Changed => f.write_str("the value was written or deleted while it was read"),
            Self::Large(Metadata { bytes, .. }) => {
                write!(f, "the value has {bytes} bytes, which is too long for one call")
            }
            Self::Indeterminate { cause } => {
                write!(f, "the write was not confirmed and may be found later, or not: {cause}")
            }
            Self::Disconnected { cause } => write!(f, "the connection ended: {cause}"),
            Self::TimedOut { after } => write!(f, "no answer within {after:?}"),
            Self::Protocol { cause } => f.write_str(cause),
            #[cfg(feature = "std")]
            Self::Connect { path, kind } => connect_text(f, path, *kind),
        }
    }
}

impl core::error::Error for Error {}

/// Says what to do about a daemon that cannot be reached.
#[cfg(feature = "std")]
fn connect_text(
    f: &mut fmt::Formatter<'_>,
    path: &std::path::Path,
    kind: std::io::ErrorKind,
) -> fmt::Result {
    use std::io::ErrorKind;
    let path = path.display();
    match kind {
        ErrorKind::NotFound => {
            write!(f, "there is no socket {path}; start a daemon with `statefsd --dev`")
        }
        ErrorKind::ConnectionRefused => write!(
            f,
            "nobody serves {path}: its daemon is gone, or it is no socket; start one with \
             `statefsd --dev`"
        ),
        ErrorKind::PermissionDenied => write!(
            f,
            "the socket {path} may not be opened by this user; its owner, group and mode decide"
        ),
        ErrorKind::InvalidInput => {
            write!(f, "{path} is no path of a socket: empty, or too long for the system")
        }
        other => write!(f, "the socket {path} cannot be reached: {other}"),
    }
}

/// What some runtimes put in front of the peer's reason.
const REMOTE: &str = "remote exception: ";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn judge(kind: ErrorKind, reason: &str, effect: Effect) -> &'static str {
        let error = capnp::Error { kind, extra: reason.to_string() };
        Error::of_exception(error, effect).code()
    }

    #[test]
    fn a_write_without_a_code_is_indeterminate_whatever_its_type() {
        use ErrorKind::{Disconnected, Failed, Overloaded, Unimplemented};
        for kind in [Failed, Disconnected, Overloaded, Unimplemented] {
            assert_eq!(judge(kind, "peer gone", Effect::Writes), "INDETERMINATE");
            let told = judge(kind, "READ_ONLY: a flush failed", Effect::Writes);
            assert_eq!(told, if kind == Disconnected { "INDETERMINATE" } else { "READ_ONLY" });
        }
        assert_eq!(judge(Disconnected, "peer gone", Effect::Reads), "DISCONNECTED");
        assert_eq!(judge(Overloaded, "FUTURE: x", Effect::Reads), "OVERLOADED");
        assert_eq!(judge(Unimplemented, "no method", Effect::Reads), "UNIMPLEMENTED");
        assert_eq!(judge(Failed, "", Effect::Reads), "PROTOCOL");
    }

    #[test]
    fn the_code_is_not_repeated_in_the_message() {
        for reason in ["KEY_TOO_LONG: 300 bytes", "remote exception: KEY_TOO_LONG: 300 bytes"] {
            let error = Error::of_exception(capnp::Error::failed(reason.into()), Effect::Reads);
            assert_eq!(error.refusal(), Some(ErrorCode::KeyTooLong));
            assert_eq!(error.to_string(), "300 bytes");
        }
        let bare = Error::of_exception(capnp::Error::failed("SEALED".into()), Effect::Writes);
        assert_eq!(bare.to_string(), "");
    }
}
