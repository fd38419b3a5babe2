//! Ends of calls become results.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use journal::{Applied, CheckReport, Version};
use statefs::{AuditOutcome, Feature, admin, current, directory, limits, reader, state_fs, value};

use crate::audit;
use crate::figures::{Family, Kind};
use crate::gate;
use crate::handlers::Removed;
use crate::page::Page;
use crate::quota::{Account, Usage};
use crate::session::Caller;
use crate::store::{Found, Health, Mode, Written};
use crate::stream::{Info, Part};

/// What is served beyond the first state of the schema, whatever the volume.
const SERVED: [Feature; 8] = [
    Feature::Describe,
    Feature::Admin,
    Feature::GetMany,
    Feature::Commit,
    Feature::Tokens,
    Feature::Restrict,
    Feature::Streams,
    Feature::Usage,
];

/// Writes who answers whom.
///
/// # Errors
/// More rights than a message can count, which there are not.
pub(super) fn hello(
    caller: &Caller,
    protocol: u32,
    mut results: state_fs::hello_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    results.set_protocol(protocol);
    let keeps_notes = caller.shared.store.journal().is_ok_and(|journal| journal.keeps_notes());
    let served = SERVED.into_iter().chain(keeps_notes.then_some(Feature::Audit));
    results.set_features(served.fold(0, |bits, feature| bits | 1 << feature as u64));
    let service = caller.service_now();
    results.set_service_name(service.as_ref().map_or("", |service| service.name()));
    results.set_software_version(&*format!("statefsd {}", env!("CARGO_PKG_VERSION")));
    limits(caller, results.reborrow().init_limits());
    let rights: Vec<_> = gate::admin_rights(caller).iter().collect();
    let count = count(rights.len())?;
    let mut names = results.init_admin_rights(count);
    for (index, right) in (0..count).zip(rights) {
        names.set(index, right.name());
    }
    Ok(())
}

fn limits(caller: &Caller, mut results: limits::Builder<'_>) {
    let limits = &caller.shared.limits;
    let (connection, number) =
        (&limits.connection, |bound| u32::try_from(bound).unwrap_or(u32::MAX));
    results.set_key_bytes(number(policy::Key::BYTES_MAX));
    results.set_value_bytes(number(caller.shared.store.value_bytes_max()));
    results.set_reply_bytes(number(limits.reply_bytes));
    results.set_list_entries(number(limits.list_entries));
    results.set_frame_bytes(number(connection.frame_bytes));
    results.set_frame_segments(connection.segments);
    results.set_nesting(u32::try_from(connection.nesting).unwrap_or_default());
    results.set_traversal_bytes(number(connection.traversal_words.saturating_mul(8)));
    results.set_calls(number(connection.calls));
    results.set_exports(number(connection.exports));
    results.set_bytes_in_flight(number(connection.in_flight_bytes));
    results.set_connections(number(limits.connections));
    let (batch_operations, batch_bytes) = caller.shared.store.batch_max(limits);
    results.set_batch_operations(number(batch_operations));
    results.set_batch_bytes(number(batch_bytes));
    results.set_large_value_bytes(caller.shared.store.large_bytes_max());
    results.set_streams(number(limits.streams));
    results.set_restrictions(number(limits.restrictions));
}

pub(super) fn describe(mut results: state_fs::describe_results::Builder<'_>) {
    results.set_schema(statefs::SCHEMA_IMAGE);
    results.set_protocol(statefs::PROTOCOL);
}

pub(super) fn health(health: &Health, mut results: state_fs::health_results::Builder<'_>) {
    results.set_mode(match health.mode {
        // Calls are not let in before the volume is open.
        Mode::Opening => statefs::Mode::Unknown,
        Mode::Healthy => statefs::Mode::Healthy,
        Mode::Degraded => statefs::Mode::Degraded,
        Mode::ReadOnly => statefs::Mode::ReadOnly,
        Mode::Failed => statefs::Mode::Failed,
    });
    results.set_reason(&*health.reason);
    results.set_loss_count(health.losses);
}

pub(super) fn found(found: &Found, mut results: directory::get_results::Builder<'_>) {
    match found {
        Found::DataLoss => results.set_data_loss(()),
        Found::Absent => results.set_absent(()),
        Found::Value { version, bytes, data } => {
            value(*version, *bytes, data.as_deref(), results.init_value());
        }
        Found::Large { version, bytes } => value(*version, *bytes, None, results.init_large()),
    }
}

/// Writes what several keys hold.
///
/// # Errors
/// More entries than a message can count, which their limit excludes.
pub(super) fn many(
    found: &[Found],
    results: directory::get_many_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    let count = count(found.len())?;
    let mut entries = results.init_entries(count);
    for (index, one) in (0..count).zip(found) {
        self::found(one, entries.reborrow().get(index));
    }
    Ok(())
}

pub(super) fn written(written: &Written, mut results: directory::put_results::Builder<'_>) {
    match written {
        Written::Applied(applied) => match applied.first() {
            Some(Applied::Put(version)) => results.set_version(version.0),
            // A put is answered with a put; nothing else may read as success.
            Some(Applied::Deleted(_) | Applied::WasAbsent) | None => results.set_indeterminate(()),
        },
        Written::Indeterminate => results.set_indeterminate(()),
        Written::Conflict { current: now, .. } => current(*now, results.init_conflict()),
        Written::DataLoss { .. } | Written::InDoubt => results.set_data_loss(()),
    }
}

/// Writes how a batch ended.
///
/// # Errors
/// More operations than a message can count, which their limit excludes.
pub(super) fn committed(
    written: &Written,
    mut results: directory::commit_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    match written {
        Written::Indeterminate => results.set_indeterminate(()),
        Written::Applied(applied) => {
            let count = count(applied.len())?;
            let mut versions = results.init_applied(count);
            for (index, applied) in (0..count).zip(applied) {
                versions.set(
                    index,
                    match applied {
                        Applied::Put(version) => version.0,
                        Applied::Deleted(_) | Applied::WasAbsent => 0,
                    },
                );
            }
        }
        Written::Conflict { at, current: now } => {
            let mut conflict = results.init_conflict();
            conflict.set_index(count(*at)?);
            current(*now, conflict.init_current());
        }
        Written::DataLoss { at } => results.set_data_loss(count(*at)?),
        Written::InDoubt => results.set_data_loss(statefs::BATCH_IN_DOUBT),
    }
    Ok(())
}

pub(super) fn removed(removed: &Removed, mut results: directory::delete_results::Builder<'_>) {
    match removed {
        Removed::Indeterminate => results.set_indeterminate(()),
        Removed::Deleted => results.set_deleted(()),
        Removed::Absent => results.set_absent(()),
        Removed::Conflict(now) => current(*now, results.init_conflict()),
        Removed::DataLoss => results.set_data_loss(()),
    }
}

/// Writes a page.
///
/// # Errors
/// More entries than a message can count, which a page's limit excludes.
pub(super) fn page(
    page: &Page,
    mut results: directory::list_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    let count = count(page.entries.len())?;
    results.set_intact(page.intact);
    if let Some((last, _)) = page.entries.last().filter(|_| page.more) {
        results.set_next(page.directory.relative(last).unwrap_or_default());
    }
    let mut entries = results.init_entries(count);
    for (index, (key, found)) in (0..count).zip(&page.entries) {
        let mut entry = entries.reborrow().get(index);
        entry.set_key(page.directory.relative(key).unwrap_or_default());
        match found {
            Found::Value { version, bytes, data } => {
                value(*version, *bytes, data.as_deref(), entry.init_value());
            }
            Found::Large { version, bytes } => value(*version, *bytes, None, entry.init_large()),
            Found::DataLoss | Found::Absent => entry.set_data_loss(()),
        }
    }
    Ok(())
}

/// Writes what a subtree holds and may.
///
/// # Errors
/// More quotas than a message can count, which no policy has.
pub(super) fn usage(
    usage: &Usage,
    mut results: directory::usage_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    results.set_bytes(usage.used.bytes);
    results.set_keys(usage.used.keys);
    let count = count(usage.accounts.len())?;
    let mut quotas = results.init_quotas(count);
    for (index, Account { prefix, quota, used }) in (0..count).zip(&usage.accounts) {
        let mut told = quotas.reborrow().get(index);
        told.set_prefix(prefix.as_str());
        told.set_bytes_used(used.bytes);
        told.set_bytes_max(quota.bytes.unwrap_or(u64::MAX));
        told.set_keys_used(used.keys);
        told.set_keys_max(quota.keys.unwrap_or(u64::MAX));
        told.set_value_bytes_max(quota.value_bytes_max.unwrap_or(u64::MAX));
    }
    Ok(())
}

/// Writes figures, each under its name and labels as OpenMetrics has them.
///
/// # Errors
/// More figures than a message can count, which no server has.
pub(super) fn stats(
    families: &[Family],
    results: admin::stats_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    let figures = families.iter().flat_map(|family| {
        let total = if family.kind == Kind::Counter { "_total" } else { "" };
        family.samples.iter().map(move |sample| {
            let labels: Vec<String> =
                sample.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let labels = labels.join(",");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            (format!("{}{total}{labels}", family.name), sample.value)
        })
    });
    let figures: Vec<(String, u64)> = figures.collect();
    let count = count(figures.len())?;
    let mut counters = results.init_counters(count);
    for (index, (name, value)) in (0..count).zip(&figures) {
        let mut counter = counters.reborrow().get(index);
        counter.set_name(&**name);
        counter.set_value(*value);
    }
    Ok(())
}

/// Writes a page of audit records.
///
/// # Errors
/// More records than a message can count, which no page has.
pub(super) fn audit(
    page: &audit::Page,
    mut results: admin::audit_results::Builder<'_>,
) -> Result<(), capnp::Error> {
    results.set_oldest(page.oldest);
    let last = page.records.last().filter(|_| page.more);
    results.set_next(last.map_or(0, |last| last.sequence));
    let count = count(page.records.len())?;
    let mut records = results.init_records(count);
    for (index, record) in (0..count).zip(&page.records) {
        let mut told = records.reborrow().get(index);
        told.set_sequence(record.sequence);
        told.set_unix_millis(record.unix_millis);
        told.set_service(&*record.service);
        told.set_operation(&*record.operation);
        told.set_key(&*record.key);
        told.set_rule(&*record.rule);
        told.set_outcome(match record.applied {
            true => AuditOutcome::Applied,
            false => AuditOutcome::Denied,
        });
        told.set_repeats(record.repeats);
        told.set_version(record.version);
    }
    Ok(())
}

pub(super) fn check(report: &CheckReport, mut results: admin::check_results::Builder<'_>) {
    results.set_bytes_read(report.bytes);
    results.set_groups(report.groups);
    results.set_repaired(report.repaired);
    results.set_damaged(report.damaged);
}

pub(super) fn reloaded(
    end: &Result<(), String>,
    mut results: admin::reload_policy_results::Builder<'_>,
) {
    match end {
        Ok(()) => results.set_loaded(()),
        Err(reason) => results.set_refused(&**reason),
    }
}

pub(super) fn info(info: &Info, mut results: reader::info_results::Builder<'_>) {
    match info {
        Info::DataLoss => results.set_data_loss(()),
        Info::Absent => results.set_absent(()),
        Info::Value { version, bytes } => value(*version, *bytes, None, results.init_value()),
    }
}

pub(super) fn part(part: &Part, mut results: reader::read_results::Builder<'_>) {
    match part {
        Part::DataLoss => results.set_data_loss(()),
        Part::Changed => results.set_changed(()),
        Part::Absent => results.set_absent(()),
        Part::Data { bytes, most } => results.set_data(bytes.get(..*most).unwrap_or(bytes)),
    }
}

pub(super) fn synced(durable: bool, mut results: directory::sync_results::Builder<'_>) {
    if durable {
        results.set_durable(());
    } else {
        results.set_indeterminate(());
    }
}

fn value(version: Version, bytes: u64, data: Option<&[u8]>, mut results: value::Builder<'_>) {
    results.set_version(version.0);
    results.set_bytes(bytes);
    if let Some(data) = data {
        results.set_data(data);
    }
}

fn count(count: usize) -> Result<u32, capnp::Error> {
    u32::try_from(count).map_err(|_| capnp::Error::failed("the answer is too long".into()))
}

fn current(version: Option<Version>, mut results: current::Builder<'_>) {
    match version {
        Some(version) => results.set_version(version.0),
        None => results.set_absent(()),
    }
}
