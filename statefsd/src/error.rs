//! Why a call ends in an exception, and the one place where that becomes a code of the schema.

use journal::{CommitError, OpenError, ReadOnlyReason};
use policy::{Denial, KeyError};
use statefs::ErrorCode;

use crate::quota::{Exceeded, OverQuota};

/// A refusal or a fault. Nothing of the call was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Error {
    /// The policy refuses; the reason is in the daemon's log alone.
    Denied,
    /// A key, a prefix or `after` is not well formed.
    Key(KeyError),
    /// A parameter cannot be read or has no meaning.
    Argument(&'static str),
    /// A parameter is of a newer schema.
    Unknown(&'static str),
    /// The value is too long.
    ValueBytes {
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The records of one call do not fit into one group.
    BatchBytes {
        /// Their length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// There are too many operations in one call.
    BatchOperations {
        /// Their number.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// The capability, or one that it was derived from, was revoked.
    Revoked,
    /// The time of the capability, or of one that it was derived from, is over.
    Expired,
    /// The connection holds as many of something as it may.
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A quota would be passed.
    Quota(OverQuota),
    /// The volume is full.
    NoSpace,
    /// The store takes no writes.
    ReadOnly(ReadOnlyReason),
    /// The journal has too much to write.
    Overloaded,
    /// The device does not read a checkpoint as it was written.
    NotReadBack,
    /// The device reads no copy of a value.
    Unreadable,
    /// The volume could not be opened.
    Failed(OpenError),
    /// The volume is not open yet; calls are not let in before it is.
    Opening,
    /// The server ends, and does not wait for what was asked.
    Ending,
}

impl Error {
    /// Maps a refused commit; `None` for the one end that leaves open whether it was applied,
    /// which is no exception but a result.
    pub(crate) fn of_commit(error: CommitError) -> Option<Self> {
        match error {
            CommitError::Indeterminate => None,
            CommitError::NoSpace => Some(Self::NoSpace),
            CommitError::ReadOnly(reason) => Some(Self::ReadOnly(reason)),
            CommitError::KeyBytes(bytes) => Some(Self::Key(KeyError::TooLong { bytes })),
            // The journal's own keys lie outside of everybody's.
            CommitError::KeyReserved => Some(Self::Key(KeyError::OutsideState)),
            CommitError::ValueBytes { bytes, most } => Some(Self::ValueBytes { bytes, most }),
            CommitError::BatchBytes { bytes, most } => Some(Self::BatchBytes { bytes, most }),
            CommitError::Overloaded => Some(Self::Overloaded),
            CommitError::NotReadBack => Some(Self::NotReadBack),
        }
    }

    /// Maps the end of a task that is no write: that it was cut off leaves nothing open.
    pub(crate) fn of_task(error: CommitError, mode: journal::Mode) -> Self {
        match (Self::of_commit(error), mode) {
            (Some(error), _) => error,
            (None, journal::Mode::ReadOnly(reason)) => Self::ReadOnly(reason),
            (None, journal::Mode::Healthy | journal::Mode::Degraded) => Self::Unreadable,
        }
    }

    /// Yields the code that the peer sees.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Denied => ErrorCode::AccessDenied,
            Self::Key(KeyError::TooLong { .. }) => ErrorCode::KeyTooLong,
            Self::Key(
                KeyError::NotUtf8 { .. }
                | KeyError::OutsideState
                | KeyError::Empty
                | KeyError::EmptySegment { .. }
                | KeyError::DotSegment { .. }
                | KeyError::ControlCharacter { .. }
                | KeyError::TrailingSlash,
            ) => ErrorCode::InvalidKey,
            Self::Argument(_) => ErrorCode::InvalidArgument,
            Self::Unknown(_) => ErrorCode::Unimplemented,
            Self::ValueBytes { .. } => ErrorCode::ValueTooLarge,
            Self::BatchBytes { .. } | Self::BatchOperations { .. } => ErrorCode::BatchTooLarge,
            Self::Revoked => ErrorCode::Revoked,
            Self::Expired => ErrorCode::Expired,
            Self::Quota(over) => match over.exceeded {
                // No delete makes room for it.
                Exceeded::ValueBytes(_) => ErrorCode::ValueTooLarge,
                Exceeded::Bytes(_) | Exceeded::Keys(_) => ErrorCode::QuotaExceeded,
            },
            Self::NoSpace => ErrorCode::NoSpace,
            Self::ReadOnly(_) => ErrorCode::ReadOnly,
            Self::Overloaded | Self::Opening | Self::Ending | Self::TooMany { .. } => {
                ErrorCode::Overloaded
            }
            Self::NotReadBack | Self::Unreadable | Self::Failed(_) => ErrorCode::IoError,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<OverQuota> for Error {
    fn from(over: OverQuota) -> Self {
        Self::Quota(over)
    }
}

impl From<Error> for capnp::Error {
    fn from(error: Error) -> Self {
        let code = error.code();
        match error {
            // Not one byte more: the same for every key (schema, ErrorCode.accessDenied).
            Error::Denied => Self { kind: code.kind(), extra: Denial::PUBLIC.into() },
            Error::Key(error) => code.error(error),
            Error::Argument(what) => code.error(what),
            Error::Unknown(what) => code.error(format_args!("{what} is of a newer schema")),
            Error::ValueBytes { bytes, most } | Error::BatchBytes { bytes, most } => {
                code.error(format_args!("{bytes} bytes, the limit is {most}"))
            }
            Error::BatchOperations { count, most } => {
                code.error(format_args!("{count} operations, the limit is {most}"))
            }
            Error::Revoked => code.error("the capability was revoked"),
            Error::Expired => code.error("the time of the capability is over"),
            Error::TooMany { what, most } => {
                code.error(format_args!("the connection holds {most} {what}, which is the limit"))
            }
            Error::Quota(over) => code.error(over.exceeded),
            Error::NoSpace => code.error(CommitError::NoSpace),
            Error::ReadOnly(reason) => code.error(reason),
            Error::Overloaded => code.error(CommitError::Overloaded),
            Error::NotReadBack => code.error(CommitError::NotReadBack),
            Error::Unreadable => code.error(
                "the device reads no copy of the value; nothing says that it is lost: check the device",
            ),
            Error::Failed(error) => code.error(error),
            Error::Opening => code.error("the volume is being opened"),
            Error::Ending => code.error("the server ends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_start_with_the_code_of_the_error() {
        let errors = [
            Error::Denied,
            Error::Key(KeyError::Empty),
            Error::Key(KeyError::TooLong { bytes: 300 }),
            Error::Argument("protocol 0"),
            Error::Unknown("the durability"),
            Error::ValueBytes { bytes: 70_000, most: 65_536 },
            Error::BatchBytes { bytes: 2, most: 1 },
            Error::BatchOperations { count: 2, most: 1 },
            Error::Revoked,
            Error::Expired,
            Error::TooMany { what: "restricted directories", most: 1 },
            Error::Quota(OverQuota { exceeded: Exceeded::Bytes(4096), key: b"/state"[..].into() }),
            Error::NoSpace,
            Error::ReadOnly(ReadOnlyReason::FlushFailed),
            Error::Overloaded,
            Error::NotReadBack,
            Error::Unreadable,
            Error::Failed(OpenError::Blank),
            Error::Opening,
            Error::Ending,
        ];
        for error in errors {
            let code = error.code();
            let wire = capnp::Error::from(error);
            assert_eq!(ErrorCode::of_reason(&wire.extra), Some(code), "{}", wire.extra);
            assert_eq!(wire.kind, code.kind());
        }
    }

    #[test]
    fn a_denial_is_the_bare_code() {
        assert_eq!(capnp::Error::from(Error::Denied).extra, "ACCESS_DENIED");
    }

    #[test]
    fn policy_and_schema_agree_on_the_codes_of_keys() {
        for error in [
            KeyError::TooLong { bytes: 1 },
            KeyError::NotUtf8 { offset: 0 },
            KeyError::OutsideState,
            KeyError::Empty,
            KeyError::EmptySegment { offset: 0 },
            KeyError::DotSegment { offset: 0 },
            KeyError::ControlCharacter { offset: 0 },
            KeyError::TrailingSlash,
        ] {
            assert_eq!(Error::Key(error).code().text(), error.code());
        }
    }

    #[test]
    fn an_open_end_is_no_exception() {
        assert_eq!(Error::of_commit(CommitError::Indeterminate), None);
        assert_eq!(Error::of_commit(CommitError::NoSpace), Some(Error::NoSpace));
    }
}
