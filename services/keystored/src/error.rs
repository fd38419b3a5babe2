//! Why there is no key to sign with.

use core::fmt;

/// Why there is no key to sign with. No variant holds a byte of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The store did not do it. After [`statefs_client::Error::Indeterminate`] the key may have been
    /// made, or not: ask again.
    Store(statefs_client::Error),
    /// There was a key, and it cannot be used. It is not replaced.
    Damaged(Damage),
    /// The entropy is all zeros or all ones: a source that does not work.
    NoEntropy,
    /// The key is well, so there is nothing to replace.
    Intact,
}

/// What is wrong with a stored key.
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
    /// The public key is not that of the secret.
    Mismatch,
}

impl Error {
    /// Returns the stable word for it: the client's where the store refused, otherwise one of
    /// `KEY_DAMAGED`, `NO_ENTROPY` and `KEY_INTACT`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Damaged(_) => "KEY_DAMAGED",
            Self::NoEntropy => "NO_ENTROPY",
            Self::Intact => "KEY_INTACT",
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Damaged(damage) => write!(f, "the device key is damaged: {damage}"),
            Self::NoEntropy => f.write_str("the entropy is none"),
            Self::Intact => f.write_str("the device key is well and stays"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the store cannot read it back"),
            Self::Length { bytes } => write!(f, "its record has {bytes} bytes"),
            Self::Magic => f.write_str("what is stored is no record of a key"),
            Self::Version { version } => write!(f, "its record is of format {version}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Mismatch => f.write_str("its public key is not that of its secret"),
        }
    }
}

impl core::error::Error for Error {}
