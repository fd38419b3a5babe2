//! The administration of a whole store.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use statefs::admin;

use crate::call::Call;
use crate::error::Effect;
use crate::store::send;
use crate::version::Version;
use crate::wire;

/// The power to look after a store. Each call needs a right of its own.
#[derive(Clone)]
pub struct Admin {
    pub(crate) client: admin::Client,
}

impl Admin {
    /// Asks for the figures of this moment. Needs `admin.stats`.
    pub fn stats(&self) -> Call<Vec<Counter>> {
        send(self.client.stats_request(), Effect::Reads, wire::admin::stats)
    }

    /// Reads every copy of all that the volume holds and repairs what one copy still has, at no
    /// more than `bytes_per_second`, or as fast as it goes if that is 0. Needs `admin.check`.
    ///
    /// The answer comes at the end, which may be far.
    pub fn check(&self, bytes_per_second: u64) -> Call<CheckReport> {
        let mut request = self.client.check_request();
        request.get().set_bytes_per_second(bytes_per_second);
        send(request, Effect::Reads, wire::admin::check)
    }

    /// Writes a checkpoint now. Needs `admin.checkpoint`.
    pub fn checkpoint(&self) -> Call<()> {
        // To write one more is no change of what the store holds.
        send(self.client.checkpoint_request(), Effect::Reads, |_| Ok(()))
    }

    /// Has the policy read anew. Needs `admin.policy`.
    pub fn reload_policy(&self) -> Call<Reload> {
        send(self.client.reload_policy_request(), Effect::Reads, wire::admin::reload)
    }

    /// Reads a page of audit records, those after `after`, oldest first; 0 from the oldest on.
    /// `limit` is the most records, or 0 for what the server allows. Needs `admin.audit`.
    pub fn audit(&self, ring: AuditRing, after: u64, limit: u32) -> Call<AuditPage> {
        let mut request = self.client.audit_request();
        let mut params = request.get();
        params.set_ring(match ring {
            AuditRing::Mutations => statefs::AuditRing::Mutations,
            AuditRing::Denials => statefs::AuditRing::Denials,
        });
        params.set_after(after);
        params.set_limit(limit);
        send(request, Effect::Reads, move |results| wire::admin::audit(results, after))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

/// One figure of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counter {
    /// Its name, with the unit last.
    pub name: String,
    /// The figure; it only grows if the name ends in "_total".
    pub value: u64,
}

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckReport {
    /// Bytes that were read, over all copies.
    pub bytes_read: u64,
    /// Groups of writes that verify in one copy at least.
    pub groups: u64,
    /// Copies that were written again from another one.
    pub repaired: u64,
    /// Groups that verify in no copy.
    pub damaged: u64,
}

/// What became of a policy that was read anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reload {
    /// It was not taken, for this reason, and the one of before is in force.
    Refused(String),
    /// It is in force.
    Loaded,
}

/// Which audit records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditRing {
    /// What was written and deleted.
    Mutations,
    /// What was refused.
    Denials,
}

/// A page of audit records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditPage {
    /// In the order of their numbers.
    pub records: Vec<AuditRecord>,
    /// What to ask for the next page with; `None` at the end.
    pub next: Option<u64>,
    /// The number of the oldest record that there is; 0 if there is none.
    pub oldest: u64,
}

/// One mutation that was applied, or one request that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRecord {
    /// Its number in its ring.
    pub sequence: u64,
    /// Milliseconds since 1970, for people only; 0 if the machine has no clock.
    pub unix_millis: u64,
    /// Who asked; empty for a peer that the policy did not name.
    pub service: String,
    /// The right that the operation is named after.
    pub operation: String,
    /// The whole path.
    pub key: String,
    /// The grant that allowed it, or what was missing.
    pub rule: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// How many refusals followed that have no record of their own.
    pub repeats: u32,
    /// Of a put the version that it gave the key.
    pub version: Option<Version>,
}

/// How an audited request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditOutcome {
    /// The server did not tell, or told what this client does not know.
    Unknown,
    /// It happened.
    Applied,
    /// It was refused.
    Denied,
}
