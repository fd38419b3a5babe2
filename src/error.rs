//! The codes that the reason of an exception starts with.

use core::fmt;

use capnp::ErrorKind;

/// Why a call was refused or failed: the schema's `ErrorCode`, which tells when each is used.
///
/// Written by hand because the generated enum knows neither the codes' text nor the exception's
/// type; the tests hold the two equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorCode {
    /// No right; says nothing of the key.
    AccessDenied,
    /// A key, prefix or `after` breaks a rule of keys other than its length.
    InvalidKey,
    /// A key, prefix or `after` is too long.
    KeyTooLong,
    /// A value is too long.
    ValueTooLarge,
    /// A group of writes passes a limit.
    BatchTooLarge,
    /// The write would pass a quota.
    QuotaExceeded,
    /// The volume is full.
    NoSpace,
    /// The store takes no writes.
    ReadOnly,
    /// The volume's key has not been given.
    Sealed,
    /// The device failed a read.
    IoError,
    /// The capability was revoked.
    Revoked,
    /// The capability's time is over.
    Expired,
    /// The connection is at a limit of its own; the same call may succeed later.
    Overloaded,
    /// An unknown method, union member, enumerant or feature.
    Unimplemented,
    /// A parameter other than a key cannot be read or has no meaning.
    InvalidArgument,
}

impl ErrorCode {
    /// Every code, in the order of the schema's ordinals.
    pub const ALL: [Self; 15] = [
        Self::AccessDenied,
        Self::InvalidKey,
        Self::KeyTooLong,
        Self::ValueTooLarge,
        Self::BatchTooLarge,
        Self::QuotaExceeded,
        Self::NoSpace,
        Self::ReadOnly,
        Self::Sealed,
        Self::IoError,
        Self::Revoked,
        Self::Expired,
        Self::Overloaded,
        Self::Unimplemented,
        Self::InvalidArgument,
    ];

    /// Finds the code that `reason` starts with: the code's text, then `": "` or the end.
    ///
    /// Understands the words that the runtimes of C++, Rust and Python put in front of what the
    /// peer sent. `None` for a reason of the transport, of the RPC layer, or of a newer schema.
    #[must_use]
    pub fn of_reason(reason: &str) -> Option<Self> {
        let reason = reason.strip_prefix("remote exception: ").unwrap_or(reason);
        let (code, _) = reason.split_once(": ").unwrap_or((reason, ""));
        Self::ALL.into_iter().find(|known| known.text() == code)
    }

    /// Returns the stable text, such as `ACCESS_DENIED`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AccessDenied => "ACCESS_DENIED",
            Self::InvalidKey => "INVALID_KEY",
            Self::KeyTooLong => "KEY_TOO_LONG",
            Self::ValueTooLarge => "VALUE_TOO_LARGE",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::NoSpace => "NO_SPACE",
            Self::ReadOnly => "READ_ONLY",
            Self::Sealed => "SEALED",
            Self::IoError => "IO_ERROR",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Overloaded => "OVERLOADED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
        }
    }

    /// Returns the type of the exception that carries the code.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Overloaded => ErrorKind::Overloaded,
            Self::Unimplemented => ErrorKind::Unimplemented,
            Self::AccessDenied
            | Self::InvalidKey
            | Self::KeyTooLong
            | Self::ValueTooLarge
            | Self::BatchTooLarge
            | Self::QuotaExceeded
            | Self::NoSpace
            | Self::ReadOnly
            | Self::Sealed
            | Self::IoError
            | Self::Revoked
            | Self::Expired
            | Self::InvalidArgument => ErrorKind::Failed,
        }
    }

    /// Builds the exception whose reason is the code, `": "` and `facts`.
    ///
    /// `facts` is for people and goes to the peer: it never holds a value.
    #[must_use]
    pub fn error(self, facts: impl fmt::Display) -> capnp::Error {
        capnp::Error { kind: self.kind(), extra: alloc::format!("{}: {facts}", self.text()) }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use capnp::introspect::{Introspect, TypeVariant};
    use capnp::schema::EnumSchema;

    use super::*;
    use crate::statefs_capnp;

    /// `accessDenied` as `ACCESS_DENIED`.
    fn upper_snake(name: &str) -> String {
        let mut text = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() {
                text.push('_');
            }
            text.push(letter.to_ascii_uppercase());
        }
        text
    }

    #[test]
    fn codes_agree_with_the_schema() {
        let TypeVariant::Enum(raw) = statefs_capnp::ErrorCode::introspect().which() else {
            panic!("ErrorCode is an enum");
        };
        let enumerants = EnumSchema::new(raw).get_enumerants().unwrap();
        assert_eq!(usize::from(enumerants.len()), ErrorCode::ALL.len());
        for (enumerant, code) in enumerants.iter().zip(ErrorCode::ALL) {
            assert_eq!(enumerant.get_ordinal(), code as u16);
            let name = enumerant.get_proto().get_name().unwrap().to_str().unwrap();
            assert_eq!(upper_snake(name), code.text());
        }
    }

    #[test]
    fn kinds_agree_with_the_schema() {
        let source = include_str!("../schema/statefs.capnp");
        for code in ErrorCode::ALL {
            let kind = match code.kind() {
                ErrorKind::Overloaded => "overloaded",
                ErrorKind::Unimplemented => "unimplemented",
                _ => "failed",
            };
            let rule = alloc::format!("  # {code}, {kind}. ");
            assert_eq!(source.matches(&rule).count(), 1, "{rule}");
        }
    }

    #[test]
    fn reason_is_read_back() {
        for code in ErrorCode::ALL {
            let error = code.error("300 bytes: the limit is 255");
            assert_eq!(error.kind, code.kind());
            assert_eq!(ErrorCode::of_reason(&error.extra), Some(code));
            assert_eq!(ErrorCode::of_reason(code.text()), Some(code));
            let prefixed = alloc::format!("remote exception: {}", error.extra);
            assert_eq!(ErrorCode::of_reason(&prefixed), Some(code));
        }
    }

    #[test]
    fn only_a_whole_code_at_the_start_counts() {
        for reason in [
            "",
            ": ",
            "peer disconnected",
            "SEALED_TWICE: no",
            "SEALED:no",
            "sealed: no",
            " SEALED: no",
            "remote: SEALED: no",
            "FUTURE_CODE: what",
        ] {
            assert_eq!(ErrorCode::of_reason(reason), None, "{reason:?}");
        }
    }
}
