//! The administration of a store, call by call.

use std::rc::Rc;
use std::vec::Vec;

use super::line::{Line, Lost};
use crate::admin::{AuditPage, AuditRing, CheckReport, Counter, Reload};
use crate::error::Result;

/// The power to look after a store. Each call needs a right of its own, and may end with
/// [`crate::Error::Refused`] and the errors of the connection.
#[derive(Clone, Debug)]
pub struct Admin {
    line: Rc<Line>,
}

impl Admin {
    pub(super) fn new(line: Rc<Line>) -> Self {
        Self { line }
    }

    /// Asks for the figures of this moment. Needs `admin.stats`.
    ///
    /// # Errors
    /// Those of every call.
    pub fn stats(&self) -> Result<Vec<Counter>> {
        self.line.call(Lost::Open, |connection| Some(connection.store.admin().stats()))
    }

    /// Reads every copy of all that the volume holds and repairs what one copy still has, at no
    /// more than `bytes_per_second`, or as fast as it goes if that is 0. Needs `admin.check`.
    ///
    /// Waits for the end, however far that is.
    ///
    /// # Errors
    /// Those of every call.
    pub fn check(&self, bytes_per_second: u64) -> Result<CheckReport> {
        let connection = self.line.usable();
        let timeout = connection.link.timeout();
        connection.link.set_timeout(None);
        let report = connection.link.call(|| connection.store.admin().check(bytes_per_second));
        connection.link.set_timeout(timeout);
        report
    }

    /// Writes a checkpoint now. Needs `admin.checkpoint`.
    ///
    /// # Errors
    /// Those of every call.
    pub fn checkpoint(&self) -> Result<()> {
        self.line.call(Lost::Open, |connection| Some(connection.store.admin().checkpoint()))
    }

    /// Has the policy read anew. Needs `admin.policy`.
    ///
    /// # Errors
    /// Those of every call; that a policy was refused is none.
    pub fn reload_policy(&self) -> Result<Reload> {
        self.line.call(Lost::Open, |connection| Some(connection.store.admin().reload_policy()))
    }

    /// Reads a page of audit records, those after `after`, oldest first. Needs `admin.audit`.
    ///
    /// # Errors
    /// Those of every call.
    pub fn audit(&self, ring: AuditRing, after: u64, limit: u32) -> Result<AuditPage> {
        self.line
            .call(Lost::Open, |connection| Some(connection.store.admin().audit(ring, after, limit)))
    }
}
