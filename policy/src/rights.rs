//! What may be done: a closed set of rights, and sets of them.

use alloc::string::String;
use core::fmt;

use crate::quote::Quoted;

/// One kind of operation. The order is append-only: [`Rights::bits`] is kept in tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Right {
    /// Read a value and its version, or test a precondition on it.
    Get,
    /// See which keys there are.
    List,
    /// Write a value.
    Put,
    /// Remove a value.
    Delete,
    /// Be told of changes.
    Watch,
    /// Freeze a view of a subtree.
    Snapshot,
    /// Hand authority to another service.
    Delegate,
    /// Read the server's counters.
    AdminStats,
    /// Verify the volume while it serves.
    AdminCheck,
    /// Make a checkpoint now.
    AdminCheckpoint,
    /// Load the policy anew.
    AdminPolicy,
    /// Read the audit records.
    AdminAudit,
}

impl Right {
    /// Every right, in order.
    pub const ALL: [Self; 12] = [
        Self::Get,
        Self::List,
        Self::Put,
        Self::Delete,
        Self::Watch,
        Self::Snapshot,
        Self::Delegate,
        Self::AdminStats,
        Self::AdminCheck,
        Self::AdminCheckpoint,
        Self::AdminPolicy,
        Self::AdminAudit,
    ];

    /// The name in a policy file, stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Watch => "watch",
            Self::Snapshot => "snapshot",
            Self::Delegate => "delegate",
            Self::AdminStats => "admin.stats",
            Self::AdminCheck => "admin.check",
            Self::AdminCheckpoint => "admin.checkpoint",
            Self::AdminPolicy => "admin.policy",
            Self::AdminAudit => "admin.audit",
        }
    }

    /// The right of that name.
    ///
    /// # Errors
    /// [`UnknownRight`] for any other text; there are no abbreviations and no globs.
    pub fn parse(name: &str) -> Result<Self, UnknownRight> {
        let found = Self::ALL.into_iter().find(|right| right.name() == name);
        found.ok_or_else(|| UnknownRight { name: name.into() })
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`Right`]s. Displays as the list that a policy file would hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rights(u16);

impl Rights {
    /// No right.
    pub const EMPTY: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self((1 << Right::ALL.len()) - 1);
    /// The rights that act on the whole volume, not on a path.
    pub const ADMIN: Self = Self(
        Right::AdminStats.bit()
            | Right::AdminCheck.bit()
            | Right::AdminCheckpoint.bit()
            | Right::AdminPolicy.bit()
            | Right::AdminAudit.bit(),
    );

    /// The set that `bits` stands for, or `None` if a bit stands for no right.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// The set of the named rights.
    ///
    /// # Errors
    /// [`UnknownRight`] for the first name that names none.
    pub fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, UnknownRight> {
        names.into_iter().map(Right::parse).collect()
    }

    /// One bit for each right, from [`Right::Get`] up.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if `right` is in the set.
    #[must_use]
    pub const fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// True if all of `other` is in the set.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        other.minus(self).is_empty()
    }

    /// True if there is no right.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights in order.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

impl From<Right> for Rights {
    fn from(right: Right) -> Self {
        Self(right.bit())
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::EMPTY, |set, right| set.union(right.into()))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, right) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{right}\"")?;
        }
        f.write_str("]")
    }
}

/// A text that names no [`Right`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownRight {
    /// The text.
    pub name: String,
}

impl fmt::Display for UnknownRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no right; the rights are", Quoted(&self.name))?;
        for right in Right::ALL {
            write!(f, " {right}")?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownRight {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString as _, vec::Vec};

    #[test]
    fn names_and_bits_are_stable() {
        let told: Vec<_> =
            Right::ALL.into_iter().map(|right| format!("{right}={}", right.bit())).collect();
        let golden = "get=1 list=2 put=4 delete=8 watch=16 snapshot=32 delegate=64 \
                      admin.stats=128 admin.check=256 admin.checkpoint=512 admin.policy=1024 \
                      admin.audit=2048";
        assert_eq!(told.join(" "), golden);
        for right in Right::ALL {
            assert_eq!(Right::parse(right.name()), Ok(right));
        }
    }

    #[test]
    fn refuses_other_names() {
        for name in ["", "Get", "get ", "*", "admin", "admin.*", "put\n"] {
            assert_eq!(Right::parse(name), Err(UnknownRight { name: name.into() }));
        }
        assert!(Rights::parse(["get", "gte"]).is_err());
        assert_eq!(
            Right::parse("admin.*").unwrap_err().to_string(),
            "\"admin.*\" is no right; the rights are get list put delete watch snapshot delegate \
             admin.stats admin.check admin.checkpoint admin.policy admin.audit"
        );
    }

    #[test]
    fn behaves_as_a_set() {
        let (read, write) =
            (Rights::parse(["get", "list"]).unwrap(), Rights::parse(["put", "get"]).unwrap());
        assert_eq!(read.union(write).to_string(), r#"["get", "list", "put"]"#);
        assert_eq!(read.intersection(write), Right::Get.into());
        assert_eq!(read.minus(write), Right::List.into());
        assert!(read.includes(Right::List.into()));
        assert!(!read.includes(write));
        assert!(read.includes(Rights::EMPTY));
        assert!(Rights::EMPTY.is_empty() && !read.is_empty());
        assert_eq!(Rights::ALL.iter().count(), Right::ALL.len());
        assert_eq!(Rights::from_bits(read.bits()), Some(read));
        assert_eq!(Rights::from_bits(1 << Right::ALL.len()), None);
        assert_eq!(Rights::EMPTY.to_string(), "[]");
    }
}
