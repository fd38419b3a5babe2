//! Between generated types and ours: the only module that reads and writes messages.

pub(crate) mod admin;

use crate::batch::{Batch, Operation};
use crate::error::{Effect, Error, Result};
use crate::info::{Description, Health, Hello, Limits, Mode};
use crate::types::{
    Durability, Entry, Held, ListOptions, Metadata, Page, Precondition, Rights, Value, WriteOptions,
};
use crate::version::Version;
use alloc::string::String;
use alloc::vec::Vec;
use statefs::{current, directory, entry, precondition, reader, rights, state_fs, value};

/// Reads the answer to `hello`.
pub(crate) fn hello(results: state_fs::hello_results::Reader<'_>) -> Result<Hello> {
    let service = text(results.get_service_name())?;
    let limits = results.get_limits().map_err(unreadable)?;
    let rights = results.get_admin_rights().map_err(unreadable)?;
    Ok(Hello {
        protocol: results.get_protocol(),
        features: results.get_features(),
        limits: Limits {
            key_bytes: limits.get_key_bytes(),
            value_bytes: limits.get_value_bytes(),
            reply_bytes: limits.get_reply_bytes(),
            list_entries: limits.get_list_entries(),
            frame_bytes: limits.get_frame_bytes(),
            frame_segments: limits.get_frame_segments(),
            nesting: limits.get_nesting(),
            traversal_bytes: limits.get_traversal_bytes(),
            calls: limits.get_calls(),
            exports: limits.get_exports(),
            bytes_in_flight: limits.get_bytes_in_flight(),
            connections: limits.get_connections(),
            batch_operations: limits.get_batch_operations(),
            batch_bytes: limits.get_batch_bytes(),
            large_value_bytes: limits.get_large_value_bytes(),
            streams: limits.get_streams(),
            restrictions: limits.get_restrictions(),
        },
        service: (!service.is_empty()).then_some(service),
        software: text(results.get_software_version())?,
        admin_rights: rights.iter().map(text).collect::<Result<_>>()?,
    })
}

/// Reads the answer to `health`.
pub(crate) fn health(results: state_fs::health_results::Reader<'_>) -> Result<Health> {
    let mode = match results.get_mode() {
        Ok(statefs::Mode::Healthy) => Mode::Healthy,
        Ok(statefs::Mode::Degraded) => Mode::Degraded,
        Ok(statefs::Mode::ReadOnly) => Mode::ReadOnly,
        Ok(statefs::Mode::Sealed) => Mode::Sealed,
        Ok(statefs::Mode::Failed) => Mode::Failed,
        Ok(statefs::Mode::Unknown) | Err(_) => Mode::Unknown,
    };
    let reason = text(results.get_reason())?;
    Ok(Health { mode, reason, loss_count: results.get_loss_count() })
}

/// Reads the answer to `get`.
pub(crate) fn get(results: directory::get_results::Reader<'_>) -> Result<Option<Value>> {
    use directory::get_results::Which;
    match results.which() {
        Ok(Which::Value(value)) => read_value(value).map(Some),
        Ok(Which::Absent(())) => Ok(None),
        Ok(Which::Large(value)) => Err(Error::Large(read_metadata(value)?)),
        // An unknown member reads as the one that claims least.
        Ok(Which::DataLoss(())) | Err(_) => Err(Error::DataLoss),
    }
}

/// Reads the answer to a `get` of metadata.
pub(crate) fn metadata(results: directory::get_results::Reader<'_>) -> Result<Option<Metadata>> {
    match get(results) {
        Ok(value) => Ok(value.map(|Value { version, bytes, .. }| Metadata { version, bytes })),
        Err(Error::Large(metadata)) => Ok(Some(metadata)),
        Err(error) => Err(error),
    }
}

/// Reads the answer to `getMany`: what the first of the keys hold, `None` for one that is absent.
pub(crate) fn get_many(
    results: directory::get_many_results::Reader<'_>,
) -> Result<Vec<Option<Held>>> {
    // Not by the count that the list claims, as in `list`.
    let mut entries = Vec::new();
    for entry in results.get_entries().map_err(unreadable)? {
        entries.push(match get(entry) {
            Ok(value) => value.map(Held::Value),
            Err(Error::Large(metadata)) => Some(Held::Large(metadata)),
            Err(Error::DataLoss) => Some(Held::DataLoss),
            Err(error) => return Err(error),
        });
    }
    Ok(entries)
}

/// Reads the answer to `commit`: the version that each operation gave its key.
pub(crate) fn commit(
    results: directory::commit_results::Reader<'_>,
) -> Result<Vec<Option<Version>>> {
    use directory::commit_results::Which;
    let index = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
    match results.which() {
        Ok(Which::Applied(versions)) => {
            let versions = versions.map_err(|_| Error::of_answer("cannot be read", Effect::Writes));
            Ok(versions?.iter().map(Version::from_wire).collect())
        }
        Ok(Which::Conflict(conflict)) => {
            let conflict = conflict.ok();
            let at = conflict.map_or(0, |conflict| conflict.get_index());
            let current = conflict.and_then(|conflict| conflict.get_current().ok());
            Err(Error::BatchConflict { index: index(at), current: version_of(current) })
        }
        Ok(Which::DataLoss(statefs::BATCH_IN_DOUBT)) => Err(Error::BatchInDoubt),
        Ok(Which::DataLoss(at)) => Err(Error::BatchDataLoss { index: index(at) }),
        Ok(Which::Indeterminate(())) | Err(_) => Err(unconfirmed()),
    }
}

/// Reads the answer to `info` of a reader.
pub(crate) fn info(results: reader::info_results::Reader<'_>) -> Result<Option<Metadata>> {
    use reader::info_results::Which;
    match results.which() {
        Ok(Which::Value(value)) => read_metadata(value).map(Some),
        Ok(Which::Absent(())) => Ok(None),
        Ok(Which::DataLoss(())) | Err(_) => Err(Error::DataLoss),
    }
}

/// Reads the answer to `read` of a reader. A value that is not there any more has changed.
pub(crate) fn part(results: reader::read_results::Reader<'_>) -> Result<Vec<u8>> {
    use reader::read_results::Which;
    match results.which() {
        Ok(Which::Data(data)) => Ok(data.map_err(unreadable)?.to_vec()),
        Ok(Which::Changed(()) | Which::Absent(())) => Err(Error::Changed),
        Ok(Which::DataLoss(())) | Err(_) => Err(Error::DataLoss),
    }
}

/// Reads the answer to `describe`.
pub(crate) fn describe(results: state_fs::describe_results::Reader<'_>) -> Result<Description> {
    let schema = results.get_schema().map_err(unreadable)?.to_vec();
    Ok(Description { schema, protocol: results.get_protocol() })
}

/// Reads the answer to `put`.
pub(crate) fn put(results: directory::put_results::Reader<'_>) -> Result<Version> {
    use directory::put_results::Which;
    match results.which() {
        Ok(Which::Version(version)) => read_version(version, Effect::Writes),
        Ok(Which::Conflict(current)) => Err(read_conflict(current)),
        Ok(Which::DataLoss(())) => Err(Error::DataLoss),
        Ok(Which::Indeterminate(())) | Err(_) => Err(unconfirmed()),
    }
}

/// Reads the answer to `delete`: whether there was something to delete.
pub(crate) fn delete(results: directory::delete_results::Reader<'_>) -> Result<bool> {
    use directory::delete_results::Which;
    match results.which() {
        Ok(Which::Deleted(())) => Ok(true),
        Ok(Which::Absent(())) => Ok(false),
        Ok(Which::Conflict(current)) => Err(read_conflict(current)),
        Ok(Which::DataLoss(())) => Err(Error::DataLoss),
        Ok(Which::Indeterminate(())) | Err(_) => Err(unconfirmed()),
    }
}

/// Reads the answer to `sync`.
pub(crate) fn sync(results: directory::sync_results::Reader<'_>) -> Result<()> {
    use directory::sync_results::Which;
    match results.which() {
        Ok(Which::Durable(())) => Ok(()),
        Ok(Which::Indeterminate(())) | Err(_) => Err(unconfirmed()),
    }
}

/// Reads the answer to `list` of what lies behind `after`.
pub(crate) fn list(results: directory::list_results::Reader<'_>, after: &str) -> Result<Page> {
    let listed = results.get_entries().map_err(unreadable)?;
    // Not by the count that the list claims: entries of no bytes would make it an amplifier.
    let mut entries = Vec::new();
    for entry in listed {
        entries.push(read_entry(entry)?);
    }
    let next = text(results.get_next())?;
    let last = entries.last().map(|entry| entry.key.as_str());
    let next = cursor(next.as_str(), last, after)?.map(String::from);
    Ok(Page { entries, next, intact: results.get_intact() })
}

/// Writes the rights to ask for.
pub(crate) fn write_rights(rights: Rights, mut builder: rights::Builder<'_>) {
    builder.set_get(rights.contains(Rights::GET));
    builder.set_list(rights.contains(Rights::LIST));
    builder.set_put(rights.contains(Rights::PUT));
    builder.set_delete(rights.contains(Rights::DELETE));
    builder.set_watch(rights.contains(Rights::WATCH));
    builder.set_snapshot(rights.contains(Rights::SNAPSHOT));
    builder.set_delegate(rights.contains(Rights::DELEGATE));
}

/// Writes the parameters of `put` other than the key.
pub(crate) fn write_put(
    value: &[u8],
    options: WriteOptions,
    mut params: directory::put_params::Builder<'_>,
) {
    params.set_value(value);
    params.set_durability(durability(options.durability));
    write_precondition(options.precondition, params.init_precondition());
}

/// Writes the parameters of `delete` other than the key.
pub(crate) fn write_delete(
    options: WriteOptions,
    mut params: directory::delete_params::Builder<'_>,
) {
    params.set_durability(durability(options.durability));
    write_precondition(options.precondition, params.init_precondition());
}

/// Writes the parameters of `commit`.
pub(crate) fn write_commit(batch: &Batch, mut params: directory::commit_params::Builder<'_>) {
    params.set_durability(durability(batch.durability));
    if let Some(token) = &batch.token {
        params.set_token(&token.0);
    }
    // What has too many operations to be counted has too many bytes to be sent.
    let count = u32::try_from(batch.operations.len()).unwrap_or_default();
    let mut operations = params.init_operations(count);
    for (index, Operation { key, value, precondition }) in (0..count).zip(&batch.operations) {
        let mut operation = operations.reborrow().get(index);
        operation.set_key(key);
        write_precondition(*precondition, operation.reborrow().init_precondition());
        match value {
            Some(value) => operation.set_put(value),
            None => operation.set_delete(()),
        }
    }
}

/// Writes the parameters of `writer` other than the key.
pub(crate) fn write_writer(
    bytes: Option<u64>,
    options: WriteOptions,
    mut params: directory::writer_params::Builder<'_>,
) {
    params.set_bytes(bytes.unwrap_or_default());
    params.set_durability(durability(options.durability));
    write_precondition(options.precondition, params.init_precondition());
}

/// Writes the parameters of `list`.
pub(crate) fn write_list(options: &ListOptions, mut params: directory::list_params::Builder<'_>) {
    params.set_prefix(&options.prefix);
    params.set_after(&options.after);
    params.set_limit(options.limit);
    params.set_keys_only(options.keys_only);
}

fn durability(durability: Durability) -> statefs::Durability {
    match durability {
        Durability::Durable => statefs::Durability::Durable,
        Durability::Buffered => statefs::Durability::Buffered,
        Durability::Strict => statefs::Durability::Strict,
    }
}

fn write_precondition(precondition: Precondition, mut builder: precondition::Builder<'_>) {
    match precondition {
        Precondition::Any => builder.set_any(()),
        Precondition::Absent => builder.set_absent(()),
        Precondition::Version(version) => builder.set_version(version.to_wire()),
    }
}

fn read_entry(entry: entry::Reader<'_>) -> Result<Entry> {
    let held = match entry.which() {
        Ok(entry::Which::Value(value)) => Held::Value(read_value(value)?),
        Ok(entry::Which::Large(value)) => Held::Large(read_metadata(value)?),
        Ok(entry::Which::DataLoss(())) | Err(_) => Held::DataLoss,
    };
    Ok(Entry { key: text(entry.get_key())?, held })
}

fn read_value(value: capnp::Result<value::Reader<'_>>) -> Result<Value> {
    let value = value.map_err(unreadable)?;
    let version = read_version(value.get_version(), Effect::Reads)?;
    let data = value.get_data().map_err(unreadable)?.to_vec();
    Ok(Value { version, data, bytes: value.get_bytes() })
}

fn read_metadata(value: capnp::Result<value::Reader<'_>>) -> Result<Metadata> {
    let value = value.map_err(unreadable)?;
    let version = read_version(value.get_version(), Effect::Reads)?;
    Ok(Metadata { version, bytes: value.get_bytes() })
}

fn read_version(number: u64, effect: Effect) -> Result<Version> {
    Version::from_wire(number).ok_or_else(|| Error::of_answer("has no version", effect))
}

/// A conflict whose details cannot be read is one all the same: nothing was written.
fn read_conflict(current: capnp::Result<current::Reader<'_>>) -> Error {
    Error::Conflict { current: version_of(current.ok()) }
}

fn version_of(current: Option<current::Reader<'_>>) -> Option<Version> {
    match current?.which() {
        Ok(current::Which::Version(version)) => Version::from_wire(version),
        Ok(current::Which::Absent(())) | Err(_) => None,
    }
}

/// Yields where the next page begins, if there is one: behind the last entry of this one, which asked for what lies behind
/// `after`. Another cursor, or one that stood still, could make an endless list.
fn cursor<T: Ord + Default>(next: T, last: Option<T>, after: T) -> Result<Option<T>> {
    if next == T::default() {
        return Ok(None);
    }
    match last {
        Some(last) if last == next && next > after => Ok(Some(next)),
        _ => {
            Err(Error::of_answer("has a cursor that does not advance with its page", Effect::Reads))
        }
    }
}

fn unconfirmed() -> Error {
    Error::Indeterminate {
        cause: "the store could not confirm it and takes no further writes".into(),
    }
}

fn unreadable(_: capnp::Error) -> Error {
    Error::of_answer("cannot be read", Effect::Reads)
}

fn text(text: capnp::Result<capnp::text::Reader<'_>>) -> Result<String> {
    let text = text.map_err(unreadable)?;
    let text = text.to_str().map_err(|_| Error::of_answer("is not UTF-8", Effect::Reads))?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::message::TypedBuilder;

    fn turn(keys: &[&str], next: &str) -> Result<Option<String>> {
        let mut message = TypedBuilder::<directory::list_results::Owned>::new_default();
        let mut results = message.init_root();
        results.set_next(next);
        let mut entries = results.init_entries(u32::try_from(keys.len()).unwrap());
        for (index, key) in (0..).zip(keys) {
            entries.reborrow().get(index).set_key(key);
        }
        list(message.get_root_as_reader().unwrap(), "b").map(|page| page.next)
    }

    #[test]
    fn a_list_ends_whatever_cursors_the_server_gives() {
        assert_eq!(turn(&["c", "d"], "d"), Ok(Some("d".into())));
        assert_eq!(turn(&["c", "d"], ""), Ok(None));
        assert_eq!(turn(&[], ""), Ok(None), "the last page may turn out to be empty");
        for (keys, next) in
            [(&[][..], "c"), (&["c", "d"], "c"), (&["c", "d"], "e"), (&["b"], "b"), (&["a"], "a")]
        {
            assert_eq!(turn(keys, next).unwrap_err().code(), "PROTOCOL", "{keys:?} {next}");
        }
    }
}
