//! Why a dump was not kept, or cannot be had.

use core::fmt;

use crate::id::Id;

/// Why a dump was not kept, or cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The store did not do it. After [`statefs_client::Error::Indeterminate`] the dump may be there.
    Store(statefs_client::Error),
    /// The bytes stopped coming before their end, so nothing of the dump was kept.
    Source,
    /// The bytes found no taker.
    Sink,
    /// The dump is larger than all that is kept together; nothing of it was kept.
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// There is no such dump.
    Absent(Id),
    /// What lies there is no dump of a format that this program knows.
    Foreign(Id),
}

impl Error {
    /// Returns the stable word for it: the client's where the store refused, otherwise one of `SOURCE`,
    /// `SINK`, `DUMP_TOO_LARGE`, `ABSENT` and `FOREIGN`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Source => "SOURCE",
            Self::Sink => "SINK",
            Self::TooLarge { .. } => "DUMP_TOO_LARGE",
            Self::Absent(_) => "ABSENT",
            Self::Foreign(_) => "FOREIGN",
        }
    }
}

impl From<statefs_client::Error> for Error {
    fn from(error: statefs_client::Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Source => f.write_str("the dump broke off; nothing of it was kept"),
            Self::Sink => f.write_str("the dump cannot be written"),
            Self::TooLarge { bytes_max } => {
                write!(f, "the dump has more than the {bytes_max} bytes that are kept in all")
            }
            Self::Absent(id) => write!(f, "there is no dump {id}"),
            Self::Foreign(id) => write!(f, "{id} is no dump that this program knows"),
        }
    }
}

impl core::error::Error for Error {}
