//! What is wrong with a policy file, and where.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::quote::Quoted;
use crate::{Denial, KeyError, NAME_BYTES_MAX, Right, UnknownRight};

/// A place in a policy file. Displays as the line, which is what a rule is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)
    }
}

/// One fault of a policy file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyError {
    /// Where the fault is.
    pub position: Position,
    /// What it is.
    pub kind: PolicyErrorKind,
}

impl PolicyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "INVALID_POLICY"
    }

    /// Displays the error as `FILE:LINE:COLUMN: message`, which editors follow.
    #[must_use]
    pub fn in_file<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        InFile { file, error: self }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.position.line, self.position.column, self.kind)
    }
}

impl core::error::Error for PolicyError {}

struct InFile<'a> {
    file: &'a str,
    error: &'a PolicyError,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, error: PolicyError { position, kind } } = self;
        write!(f, "{file}:{}:{}: {kind}", position.line, position.column)
    }
}

/// What is wrong. Texts of the file are quoted and cut when displayed, so that any of it may go
/// to a terminal; a policy file holds no secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicyErrorKind {
    /// The text has `bytes` bytes, more than `bytes_max`.
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The text is not TOML.
    Syntax {
        /// What the TOML parser says.
        message: String,
    },
    /// `version` is a number that this program does not know.
    UnknownVersion {
        /// The version that it knows.
        known: u64,
    },
    /// A section lacks a field.
    MissingField {
        /// The section.
        section: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A section has a field that it should not.
    UnknownField {
        /// The section.
        section: &'static str,
        /// The field.
        field: String,
        /// The fields it may have.
        known: &'static [&'static str],
    },
    /// A field has a value of the wrong type.
    WrongType {
        /// What was expected, with its article.
        expected: &'static str,
        /// The TOML type that is there.
        found: &'static str,
    },
    /// A number is not in its range.
    OutOfRange {
        /// Smallest legal number.
        min: u64,
        /// Largest legal number.
        max: u64,
    },
    /// There are more than `count_max` sections of a kind, or names in a list.
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        count_max: usize,
    },
    /// A service or channel has a name that is too long, empty or not plain.
    BadName {
        /// The name.
        name: String,
    },
    /// A prefix or a key is not well formed.
    BadPath(KeyError),
    /// A right does not exist.
    UnknownRight(UnknownRight),
    /// `expect` is neither `allow` nor `deny`.
    UnknownExpectation {
        /// What it is.
        text: String,
    },
    /// A list is empty.
    EmptyList {
        /// The field that holds it.
        field: &'static str,
    },
    /// A table that may leave out any of its fields leaves out all.
    EmptyTable {
        /// The field that holds it.
        field: &'static str,
    },
    /// A list names something twice.
    Repeated {
        /// What.
        item: String,
    },
    /// The rules, each well formed, do not make a sound policy.
    Rules(RuleFault),
}

impl fmt::Display for PolicyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a policy has at most {bytes_max} bytes, this one has {bytes}")
            }
            Self::Syntax { message } => f.write_str(message),
            Self::UnknownVersion { known } => write!(f, "the version must be {known}"),
            Self::MissingField { section, field } => write!(f, "{section} lacks `{field}`"),
            Self::UnknownField { section, field, known } => {
                write!(f, "{section} has no field {}; it has", Quoted(field))?;
                known.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::WrongType { expected, found } => {
                write!(f, "expected {expected}, found {}", article(found))
            }
            Self::OutOfRange { min, max } => write!(f, "the number must be {min} to {max}"),
            Self::TooMany { what, count_max } => {
                write!(f, "there may be at most {count_max} {what}")
            }
            Self::BadName { name } => write!(
                f,
                "a name is 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`; not {}",
                Quoted(name)
            ),
            Self::BadPath(error) => error.fmt(f),
            Self::UnknownRight(error) => error.fmt(f),
            Self::UnknownExpectation { text } => {
                write!(f, "expected \"allow\" or \"deny\", found {}", Quoted(text))
            }
            Self::EmptyList { field } => write!(f, "`{field}` is empty"),
            Self::EmptyTable { field } => write!(f, "`{field}` says nothing"),
            Self::Repeated { item } => write!(f, "{} is named twice", Quoted(item)),
            Self::Rules(fault) => fault.fmt(f),
        }
    }
}

/// What is wrong with well-formed rules when they are read together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleFault {
    /// A service names neither a channel nor a uid.
    NoIdentity {
        /// The service.
        service: String,
    },
    /// One peer could be either of two services.
    Ambiguous {
        /// The service that comes later in the file.
        service: String,
        /// The other.
        other: String,
        /// Where the other is.
        at: Position,
    },
    /// A rule names a service that has no section.
    UnknownService {
        /// The name.
        name: String,
    },
    /// A section says again what another one said.
    Duplicate {
        /// The section.
        section: &'static str,
        /// What both have in common.
        what: &'static str,
        /// Where the earlier one is.
        at: Position,
    },
    /// Another grant of the same service gives all that this one gives.
    Covered {
        /// Where the other grant is.
        at: Position,
    },
    /// Ceilings leave nothing of a grant.
    Forbidden {
        /// The ceiling that takes the last of it.
        at: Position,
    },
    /// A grant or an assertion has `right` on less than the whole namespace, where it cannot be used.
    NotOnRoot {
        /// The right.
        right: Right,
    },
    /// An assertion says `deny`, and a grant allows it.
    AssertedDeny {
        /// The grant.
        at: Position,
    },
    /// An assertion says `allow`, and it is refused.
    AssertedAllow {
        /// The refusal.
        denial: Box<Denial>,
    },
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity { service } => {
                write!(f, "service {} names neither `channel` nor `uid`", Quoted(service))
            }
            Self::Ambiguous { service, other, at } => {
                let (service, other) = (Quoted(service), Quoted(other));
                write!(f, "one peer could be both {service} and {other} ({at})")
            }
            Self::UnknownService { name } => write!(f, "no service is named {}", Quoted(name)),
            Self::Duplicate { section, what, at } => {
                write!(f, "{section} at {at} has the same {what}; write one")
            }
            Self::Covered { at } => write!(f, "the grant at {at} gives all of this already"),
            Self::Forbidden { at } => {
                write!(f, "this grant is unreachable: the ceiling at {at} leaves nothing of it")
            }
            Self::NotOnRoot { right } => {
                write!(f, "{right} acts on the whole volume: it must be on \"/state\"")
            }
            Self::AssertedDeny { at } => {
                write!(f, "the assertion fails: the grant at {at} allows it")
            }
            Self::AssertedAllow { denial } => write!(f, "the assertion fails: {denial}"),
        }
    }
}

/// A TOML type with its article.
fn article(kind: &str) -> impl fmt::Display {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    fmt::from_fn(move |f| write!(f, "{article} {kind}"))
}
