//! A refusal: everything for the daemon's own log, one word for the peer.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::quote::Quoted;
use crate::{Position, Prefix, Right, Rights};

/// A request that was refused.
///
/// It displays as one line for the daemon's own log. A peer learns [`Denial::PUBLIC`] and
/// nothing else, which is why this is no [`core::error::Error`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    pub(crate) service: Arc<str>,
    pub(crate) right: Right,
    pub(crate) path: Box<str>,
    pub(crate) refusal: Refusal,
}

impl Denial {
    /// All that a peer ever learns of a refusal, byte for byte.
    pub const PUBLIC: &'static str = "ACCESS_DENIED";

    /// The stable code of the schema.
    #[must_use]
    pub fn code(&self) -> &'static str {
        Self::PUBLIC
    }

    /// The name of the service that asked.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The right that the request is audited under.
    #[must_use]
    pub fn right(&self) -> Right {
        self.right
    }

    /// The whole path of the key or the prefix that was asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// Why, as one line for the daemon's own records, which say elsewhere who asked for what.
    #[must_use]
    pub fn why(&self) -> impl fmt::Display {
        Why(self)
    }

    /// The smallest grant that would have let the request pass, where a grant is what it lacks.
    #[must_use]
    pub fn missing_grant(&self) -> Option<MissingGrant<'_>> {
        match &self.refusal {
            Refusal::NoGrant { to, lacking } => {
                Some(MissingGrant { to, prefix: &self.path, rights: *lacking })
            }
            Refusal::UnknownService { .. }
            | Refusal::OutsideCapability { .. }
            | Refusal::Ceiling { .. } => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, right, path, .. } = self;
        write!(f, "{} may not {right} {}: {}", Quoted(service), Quoted(path), self.why())
    }
}

/// Why a request was refused, in words, without who asked for what.
struct Why<'a>(&'a Denial);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denial { path, refusal, .. } = self.0;
        match refusal {
            Refusal::UnknownService { service } => {
                write!(f, "the policy knows no such peer as {}", Quoted(service))
            }
            Refusal::OutsideCapability { prefix, rights } => {
                write!(f, "its capability holds {rights} in {}", Quoted(prefix.as_str()))
            }
            Refusal::Ceiling { at, service, lacking } => {
                write!(f, "the ceiling at {at} keeps {lacking} from {}", Quoted(service))
            }
            Refusal::NoGrant { to, lacking } => {
                let path = Quoted(path);
                write!(f, "no grant to = {}, prefix = {path}, rights = {lacking}", Quoted(to))
            }
        }
    }
}

/// Why a request was refused: the first of these that holds, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Today's policy has no service of this name that the connection's evidence fits.
    UnknownService {
        /// The holder, or a service that saved the capability.
        service: Arc<str>,
    },
    /// The capability does not reach the path, or lacks a right.
    OutsideCapability {
        /// Where the capability reaches.
        prefix: Prefix,
        /// The rights it holds there.
        rights: Rights,
    },
    /// A ceiling covers the path and holds back rights that the request needs.
    Ceiling {
        /// The first such ceiling in the policy file.
        at: Position,
        /// Whom it stops: the holder, or a service that saved the capability.
        service: Arc<str>,
        /// The rights it holds back.
        lacking: Rights,
    },
    /// No grant covers the path with all the rights that the request needs.
    NoGrant {
        /// Whose grants count: the holder, or the first service that saved the capability.
        to: Arc<str>,
        /// The rights that no grant gives.
        lacking: Rights,
    },
}

/// A grant that is not there. Displays as the TOML to paste into the policy file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingGrant<'a> {
    /// The service that lacks it.
    pub to: &'a str,
    /// The whole path that was asked for.
    pub prefix: &'a str,
    /// The rights that no grant gives.
    pub rights: Rights,
}

impl fmt::Display for MissingGrant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, prefix, rights } = self;
        writeln!(f, "[[grant]]")?;
        writeln!(f, "to = {}", Quoted(to))?;
        writeln!(f, "prefix = {}", Quoted(prefix))?;
        writeln!(f, "rights = {rights}")
    }
}
