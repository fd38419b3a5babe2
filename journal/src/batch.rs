//! What a commit asks for and what it is answered.

use crate::large::Manifest;
use crate::layout::manifest;
use crate::record::record_bytes;
use crate::split::Part;
use crate::types::{ReadOnlyReason, Version};
use alloc::rc::Rc;
use alloc::vec::Vec;

/// Who makes a call, as far as the order of its own effects goes: one number per connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin(pub u64);

/// What must hold for an operation to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// The key has no value.
    Absent,
    /// The key's value has this version.
    Version(Version),
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Operation {
    /// The key, 1 to 255 bytes.
    pub key: Rc<[u8]>,
    /// The new value; `None` deletes.
    pub value: Option<Rc<[u8]>>,
    /// What must hold.
    pub precondition: Precondition,
}

/// When a commit is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Once it survives a power cut.
    Durable,
    /// Once it survives a power cut, and the medium says so in a second place: should both copies be damaged
    /// later, it is reported as lost and never taken for a torn write. Costs a second flush, shared under load.
    Strict,
    /// At once; a later sync or durable commit is the barrier.
    Buffered,
}

/// Changes that happen together or not at all.
#[derive(Clone)]
pub struct Batch {
    /// The changes, in order.
    pub operations: Vec<Operation>,
    /// When to answer.
    pub durability: Durability,
    /// Who asks.
    pub origin: Origin,
}

/// How a commit that reached a decision ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything was applied; one answer per operation.
    Applied(Vec<Applied>),
    /// Nothing was applied: the precondition of operation `at` does not hold.
    Conflict {
        /// Index of the operation.
        at: usize,
        /// The version that the key has instead.
        current: Option<Version>,
    },
    /// Nothing was applied: whether the precondition of operation `at` holds was lost with damaged groups.
    DataLoss {
        /// Index of the operation.
        at: usize,
    },
}

/// What one operation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The key has a value of this version.
    Put(Version),
    /// The key has no value any more; it had this version, if that is known.
    Deleted(Option<Version>),
    /// The key had no value: nothing to delete.
    WasAbsent,
}

/// Why a commit was refused or has no certain end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitError {
    /// The log has no room for it; deletes may still have.
    NoSpace,
    /// Nothing is written any more.
    ReadOnly(ReadOnlyReason),
    /// The device failed while it was on its way: it may or may not survive.
    Indeterminate,
    /// A key is empty or longer than 255 bytes.
    KeyBytes(usize),
    /// A key begins with a zero byte, which is the journal's own.
    KeyReserved,
    /// A value is longer than the volume takes.
    ValueBytes {
        /// Bytes of the value.
        bytes: usize,
        /// Most bytes that the volume takes.
        most: usize,
    },
    /// The batch does not fit into one group.
    BatchBytes {
        /// Bytes that its records take.
        bytes: usize,
        /// Most bytes that a group takes.
        most: usize,
    },
    /// Too much is waiting to be written; nothing was taken.
    Overloaded,
    /// A checkpoint was not read back as it was written, and nothing relies on it. No commit ends so.
    NotReadBack,
}

impl core::fmt::Display for CommitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoSpace => f.write_str("the log is full; deletes make room"),
            Self::ReadOnly(reason) => reason.fmt(f),
            Self::Indeterminate => {
                f.write_str("the device failed on the way: the change may or may not survive")
            }
            Self::KeyBytes(bytes) => write!(f, "the key has {bytes} bytes; 1 to 255 are allowed"),
            Self::KeyReserved => f.write_str("the key begins with a zero byte, which is reserved"),
            Self::ValueBytes { bytes, most } => {
                write!(f, "the value has {bytes} bytes; at most {most} are allowed")
            }
            Self::BatchBytes { bytes, most } => {
                write!(f, "the batch takes {bytes} bytes; at most {most} are allowed")
            }
            Self::Overloaded => f.write_str("too much is waiting to be written; nothing was taken"),
            Self::NotReadBack => f.write_str(
                "the device does not read a checkpoint as it was written; nothing relies on it, and nothing is lost: \
                 check the device",
            ),
        }
    }
}

impl core::error::Error for CommitError {}

/// What a change gives its key.
#[derive(Clone)]
pub(crate) enum Content {
    /// A value of one record.
    Value(Rc<[u8]>),
    /// A value of many, and its bytes where they came in one call.
    Large(Manifest, Option<Rc<[u8]>>),
    /// A part of one; the key is internal.
    Chunk(Part),
    /// What a ring is given; the key is internal.
    Note(Rc<[u8]>),
}

impl Content {
    /// Yields the bytes of the value, all of it.
    pub(crate) fn value_bytes(&self) -> u64 {
        match self {
            Self::Value(bytes) | Self::Note(bytes) => bytes.len() as u64,
            Self::Chunk(part) => part.len() as u64,
            Self::Large(manifest, _) => manifest.total_bytes.into(),
        }
    }

    /// Yields the bytes of the value in its record.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value(bytes) | Self::Note(bytes) => bytes.len(),
            Self::Chunk(part) => part.len(),
            Self::Large(..) => manifest::BYTES,
        }
    }
}

/// An operation as it is judged and taken.
pub(crate) struct Wanted {
    pub(crate) key: Rc<[u8]>,
    /// `None` deletes.
    pub(crate) content: Option<Content>,
    pub(crate) precondition: Precondition,
}

impl From<Operation> for Wanted {
    fn from(Operation { key, value, precondition }: Operation) -> Self {
        Self { key, content: value.map(Content::Value), precondition }
    }
}

impl Wanted {
    /// Yields the bytes of its record.
    pub(crate) fn record_bytes(&self) -> usize {
        record_bytes(self.key.len(), self.content.as_ref().map_or(0, Content::bytes))
    }
}
