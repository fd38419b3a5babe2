//! Why the control could not be read or changed.

use core::fmt;

use crate::control::Refusal;

/// Why the control could not be read or changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The store did not do it. After [`statefs_client::Error::Indeterminate`] the change was made, or
    /// not: read the control to learn which.
    Store(statefs_client::Error),
    /// There is a control, and it cannot be used. It stays as it is.
    Damaged(Damage),
    /// The machine has no control yet.
    Absent,
    /// The machine has a control already.
    Present,
    /// The control does not allow the change.
    Refused(Refusal),
    /// Others changed the control again and again meanwhile.
    Contended,
}

/// What is wrong with a stored control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The store lost it: no copy on the medium is what was written.
    Lost,
    /// The record has another length than a record has.
    Length {
        /// Bytes that there are.
        bytes: u64,
    },
    /// The record does not begin as one.
    Magic,
    /// The record is of a format that this program does not know; a newer one may.
    Version {
        /// What it says.
        version: u16,
    },
    /// The checksum is not that of the record.
    Checksum,
    /// The record says what no control can be, such as that no slot is good.
    Meaning,
}

impl Error {
    /// Returns the stable word for it: the client's where the store refused, otherwise one of
    /// `CONTROL_DAMAGED`, `ABSENT`, `CONTROL_PRESENT`, `REFUSED` and `CONTENDED`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Damaged(_) => "CONTROL_DAMAGED",
            Self::Absent => "ABSENT",
            Self::Present => "CONTROL_PRESENT",
            Self::Refused(_) => "REFUSED",
            Self::Contended => "CONTENDED",
        }
    }
}

impl From<statefs_client::Error> for Error {
    fn from(error: statefs_client::Error) -> Self {
        match error {
            statefs_client::Error::DataLoss => Self::Damaged(Damage::Lost),
            other => Self::Store(other),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Damaged(damage) => write!(f, "the boot control is damaged: {damage}"),
            Self::Absent => f.write_str("the machine has no boot control yet"),
            Self::Present => f.write_str("the machine has a boot control, and it is well"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Contended => f.write_str("others change the boot control all the time"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the store cannot read it back"),
            Self::Length { bytes } => write!(f, "its record has {bytes} bytes"),
            Self::Magic => f.write_str("what is stored is no record of it"),
            Self::Version { version } => write!(f, "its record is of format {version}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Meaning => f.write_str("it says what cannot be"),
        }
    }
}

impl core::error::Error for Error {}
