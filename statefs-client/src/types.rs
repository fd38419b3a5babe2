//! What calls take and give: keys and values as the caller sees them.

use crate::version::Version;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// What a key holds. Its `Debug` form shows the length, never the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// The write that put it there.
    pub version: Version,
    /// The bytes; empty in an [`Entry`] of a list that asked for keys alone.
    pub data: Vec<u8>,
    /// How many bytes the value has, also where `data` was not asked for.
    pub bytes: u64,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, bytes, .. } = self;
        f.debug_struct("Value")
            .field("version", version)
            .field("bytes", bytes)
            .finish_non_exhaustive()
    }
}

/// What is known of a value without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The write that put the value there.
    pub version: Version,
    /// How many bytes the value has.
    pub bytes: u64,
}

/// One key of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key, relative to the directory.
    pub key: String,
    /// What it holds.
    pub held: Held,
}

/// What a listed key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// A value.
    Value(Value),
    /// A value that was asked for and is too long for a list.
    Large(Metadata),
    /// An acknowledged value that cannot be read back any more.
    DataLoss,
}

/// One page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Keys in the order of their bytes.
    pub entries: Vec<Entry>,
    /// The [`ListOptions::after`] of the next page; `None` at the end.
    pub next: Option<String>,
    /// No data loss touches what this page covers. False if an entry is [`Held::DataLoss`], or if
    /// keys may be missing.
    pub intact: bool,
}

/// Which part of a directory to list.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListOptions {
    /// A relative key: the list holds it and what lies beneath it. Empty for the whole directory.
    pub prefix: String,
    /// Only keys greater than this one; empty from the first on.
    pub after: String,
    /// Most entries of one page; 0 for what the server allows.
    pub limit: u32,
    /// Leave the values out; the right `list` then suffices.
    pub keys_only: bool,
}

/// What a subtree holds, and what it may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes of keys, as whole paths, and values together.
    pub bytes: u64,
    /// Number of keys.
    pub keys: u64,
    /// Every quota that a write to some key of it is charged to.
    pub quotas: Vec<Quota>,
}

/// A bound on what lies below a prefix, whoever wrote it; `None` where there is none of that kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    /// The whole path of the prefix.
    pub prefix: String,
    /// Bytes of keys and values below it.
    pub bytes_used: u64,
    /// The most bytes of them.
    pub bytes_max: Option<u64>,
    /// Keys below it.
    pub keys_used: u64,
    /// The most keys.
    pub keys_max: Option<u64>,
    /// Bytes of the longest value.
    pub value_bytes_max: Option<u64>,
}

/// What must hold of a key for a write to happen.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// Nothing.
    #[default]
    Any,
    /// There is no such key.
    Absent,
    /// The key is present in this version.
    Version(Version),
}

/// What is true of a write when it is acknowledged.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Durability {
    /// It survives a power cut.
    #[default]
    Durable,
    /// It is ordered and visible; `sync` makes it durable.
    Buffered,
    /// It survives a power cut, and the medium says so in a second place: damage to every copy is told as a loss
    /// even right after it. Costs a second flush.
    Strict,
}

/// How to write.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// Other than `Any` it needs the right `get` too.
    pub precondition: Precondition,
    /// What the answer shall mean.
    pub durability: Durability,
}

/// What a directory may be used for, within what the policy grants: a set, joined with `|`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No right: enough for `sync`.
    pub const NONE: Self = Self(0);
    /// Read values and versions.
    pub const GET: Self = Self(1);
    /// Learn names, sizes and versions of keys.
    pub const LIST: Self = Self(1 << 1);
    /// Create and replace keys.
    pub const PUT: Self = Self(1 << 2);
    /// Remove keys.
    pub const DELETE: Self = Self(1 << 3);
    /// Be told of changes.
    pub const WATCH: Self = Self(1 << 4);
    /// Freeze a view.
    pub const SNAPSHOT: Self = Self(1 << 5);
    /// Hand authority to another service.
    pub const DELEGATE: Self = Self(1 << 6);
    /// Whatever the policy grants.
    pub const ALL: Self = Self((1 << 7) - 1);

    /// Whether every right of `other` is among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Rights {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        let mut separator = "";
        for (_, name) in RIGHT_NAMES.iter().filter(|(right, _)| self.contains(*right)) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        f.write_str("}")
    }
}

const RIGHT_NAMES: [(Rights, &str); 7] = [
    (Rights::GET, "get"),
    (Rights::LIST, "list"),
    (Rights::PUT, "put"),
    (Rights::DELETE, "delete"),
    (Rights::WATCH, "watch"),
    (Rights::SNAPSHOT, "snapshot"),
    (Rights::DELEGATE, "delegate"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_of_a_value_shows_no_byte() {
        let version = Version::from_wire(7).unwrap();
        let value = Value { version, data: b"secret".to_vec(), bytes: 6 };
        let entry = Entry { key: "k".into(), held: Held::Value(value) };
        let text = format!("{entry:?}");
        assert!(text.contains("bytes: 6") && !text.contains("115"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn rights_are_a_set() {
        let mut rights = Rights::GET | Rights::PUT;
        assert!(rights.contains(Rights::GET) && !rights.contains(Rights::LIST));
        assert!(Rights::ALL.contains(rights) && rights.contains(Rights::NONE));
        rights |= Rights::DELEGATE;
        assert_eq!(format!("{rights:?}"), "{get, put, delegate}");
        let each = RIGHT_NAMES.iter().fold(Rights::NONE, |all, (right, _)| all | *right);
        assert_eq!(each, Rights::ALL);
    }
}
