//! Answers of the administration.

use super::{cursor, text, unreadable};
use crate::admin::{AuditOutcome, AuditPage, AuditRecord, CheckReport, Counter, Reload};
use crate::error::Result;
use crate::types::{Quota, Usage};
use crate::version::Version;
use alloc::string::String;
use alloc::vec::Vec;
use statefs::{admin, audit_record, directory};

/// Reads the answer to `usage`.
pub(crate) fn usage(results: directory::usage_results::Reader<'_>) -> Result<Usage> {
    let bound = |most: u64| (most < u64::MAX).then_some(most);
    // As in a list of keys, not by the count that the list claims.
    let mut quotas = Vec::new();
    for quota in results.get_quotas().map_err(unreadable)? {
        quotas.push(Quota {
            prefix: text(quota.get_prefix())?,
            bytes_used: quota.get_bytes_used(),
            bytes_max: bound(quota.get_bytes_max()),
            keys_used: quota.get_keys_used(),
            keys_max: bound(quota.get_keys_max()),
            value_bytes_max: bound(quota.get_value_bytes_max()),
        });
    }
    Ok(Usage { bytes: results.get_bytes(), keys: results.get_keys(), quotas })
}

/// Reads the answer to `stats`.
pub(crate) fn stats(results: admin::stats_results::Reader<'_>) -> Result<Vec<Counter>> {
    let mut counters = Vec::new();
    for counter in results.get_counters().map_err(unreadable)? {
        counters.push(Counter { name: text(counter.get_name())?, value: counter.get_value() });
    }
    Ok(counters)
}

/// Reads the answer to `check`.
pub(crate) fn check(results: admin::check_results::Reader<'_>) -> Result<CheckReport> {
    Ok(CheckReport {
        bytes_read: results.get_bytes_read(),
        groups: results.get_groups(),
        repaired: results.get_repaired(),
        damaged: results.get_damaged(),
    })
}

/// Reads the answer to `reloadPolicy`.
pub(crate) fn reload(results: admin::reload_policy_results::Reader<'_>) -> Result<Reload> {
    use admin::reload_policy_results::Which;
    match results.which() {
        Ok(Which::Loaded(())) => Ok(Reload::Loaded),
        Ok(Which::Refused(reason)) => Ok(Reload::Refused(text(reason)?)),
        Err(_) => Ok(Reload::Refused(String::new())),
    }
}

/// Reads the answer to `audit` of what comes after `after`.
pub(crate) fn audit(results: admin::audit_results::Reader<'_>, after: u64) -> Result<AuditPage> {
    let mut records = Vec::new();
    for record in results.get_records().map_err(unreadable)? {
        records.push(audit_record(record)?);
    }
    let last = records.last().map(|record: &AuditRecord| record.sequence);
    let next = cursor(results.get_next(), last, after)?;
    Ok(AuditPage { records, next, oldest: results.get_oldest() })
}

fn audit_record(record: audit_record::Reader<'_>) -> Result<AuditRecord> {
    Ok(AuditRecord {
        sequence: record.get_sequence(),
        unix_millis: record.get_unix_millis(),
        service: text(record.get_service())?,
        operation: text(record.get_operation())?,
        key: text(record.get_key())?,
        rule: text(record.get_rule())?,
        outcome: match record.get_outcome() {
            Ok(statefs::AuditOutcome::Applied) => AuditOutcome::Applied,
            Ok(statefs::AuditOutcome::Denied) => AuditOutcome::Denied,
            Ok(statefs::AuditOutcome::Unknown) | Err(_) => AuditOutcome::Unknown,
        },
        repeats: record.get_repeats(),
        version: Version::from_wire(record.get_version()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::message::TypedBuilder;

    fn turn(sequences: &[u64], next: u64) -> Result<Option<u64>> {
        let mut message = TypedBuilder::<admin::audit_results::Owned>::new_default();
        let mut results = message.init_root();
        results.set_next(next);
        let mut records = results.init_records(u32::try_from(sequences.len()).unwrap());
        for (index, sequence) in (0..).zip(sequences) {
            records.reborrow().get(index).set_sequence(*sequence);
        }
        audit(message.get_root_as_reader().unwrap(), 2).map(|page| page.next)
    }

    #[test]
    fn pages_of_records_end_whatever_cursors_the_server_gives() {
        assert_eq!(turn(&[3, 5], 5), Ok(Some(5)));
        assert_eq!(turn(&[3, 5], 0), Ok(None));
        for (sequences, next) in [(&[][..], 3), (&[3, 5], 3), (&[3, 5], 6), (&[2], 2)] {
            assert_eq!(turn(sequences, next).unwrap_err().code(), "PROTOCOL", "{next}");
        }
    }
}
