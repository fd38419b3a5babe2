//! Parameters become requests. Nothing is checked twice: what is read is well formed.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use journal::{Durability, Precondition, Ring, Version};
use policy::{Key, KeyError, Prefix, Right, Rights, Scope};
use statefs::{
    AuditRing, admin, directory, operation, precondition, reader, rights, state_fs, writer,
};

use crate::error::Error;
use crate::request::{Audited, Change, Commit, Count, Get, Hello, List, Store, Write};

type Read<T> = Result<T, Error>;

/// What a message that cannot be followed is answered.
pub(super) fn unreadable(_: capnp::Error) -> Error {
    Error::Argument("a parameter cannot be read")
}

pub(super) fn hello(params: state_fs::hello_params::Reader<'_>) -> Read<Hello<'_>> {
    let client = params.get_client_name().map_err(unreadable)?.as_bytes();
    Ok(Hello { client, protocol: params.get_protocol() })
}

pub(super) fn open(params: state_fs::open_params::Reader<'_>) -> Read<(Prefix, Rights)> {
    let prefix = text(params.get_prefix())?;
    Ok((Prefix::parse(prefix)?, rights(params.get_rights().map_err(unreadable)?)))
}

pub(super) fn audit(params: admin::audit_params::Reader<'_>) -> Read<Audited> {
    let ring = match params.get_ring() {
        Ok(AuditRing::Mutations) => Ring::Mutations,
        Ok(AuditRing::Denials) => Ring::Denials,
        Err(capnp::NotInSchema(_)) => return Err(Error::Unknown("the ring")),
    };
    Ok(Audited { ring, after: params.get_after(), limit: params.get_limit() })
}

pub(super) fn get(scope: &Scope, params: directory::get_params::Reader<'_>) -> Read<Get> {
    let key = key(scope, params.get_key())?;
    Ok(Get { key, metadata_only: params.get_metadata_only() })
}

/// Reads the keys of a `getMany`, as many as are looked at.
pub(super) fn get_many(
    scope: &Scope,
    keys_max: usize,
    params: directory::get_many_params::Reader<'_>,
) -> Read<Vec<Get>> {
    let metadata_only = params.get_metadata_only();
    let keys = params.get_keys().map_err(unreadable)?.iter().take(keys_max);
    keys.map(|name| Ok(Get { key: key(scope, name)?, metadata_only })).collect()
}

pub(super) fn put(scope: &Scope, params: directory::put_params::Reader<'_>) -> Read<Write> {
    let change = Change {
        key: key(scope, params.get_key())?,
        precondition: precondition(params.get_precondition())?,
        value: Some(value(params.get_value().map_err(unreadable)?)?),
    };
    Ok(Write { change, durability: durability(params.get_durability())? })
}

pub(super) fn delete(scope: &Scope, params: directory::delete_params::Reader<'_>) -> Read<Write> {
    let change = Change {
        key: key(scope, params.get_key())?,
        precondition: precondition(params.get_precondition())?,
        value: None,
    };
    Ok(Write { change, durability: durability(params.get_durability())? })
}

/// Reads a batch of at most `bytes_max` bytes of keys and values.
pub(super) fn commit(
    scope: &Scope,
    operations_max: usize,
    bytes_max: usize,
    params: directory::commit_params::Reader<'_>,
) -> Read<Commit> {
    let durability = durability(params.get_durability())?;
    let token = match params.get_token().map_err(unreadable)? {
        [] => None,
        token => Some(token.try_into().map_err(|_| Error::Argument("a token has 16 bytes"))?),
    };
    let operations = params.get_operations().map_err(unreadable)?;
    let count = usize::try_from(operations.len()).unwrap_or(usize::MAX);
    if count == 0 {
        return Err(Error::Argument("a batch has one operation at least"));
    }
    if count > operations_max {
        return Err(Error::BatchOperations { count, most: operations_max });
    }
    let (mut changes, mut bytes) = (Vec::with_capacity(count), 0_usize);
    for operation in operations {
        let change = change(scope, operation)?;
        let value_bytes = change.value.as_ref().map_or(0, |value| value.len());
        bytes = bytes.saturating_add(change.key.as_str().len()).saturating_add(value_bytes);
        if bytes > bytes_max {
            return Err(Error::BatchBytes { bytes, most: bytes_max });
        }
        changes.push(change);
    }
    let keys: BTreeSet<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    if keys.len() < count {
        return Err(Error::Argument("a key occurs twice in the batch"));
    }
    Ok(Commit { changes, durability, token })
}

fn change(scope: &Scope, operation: operation::Reader<'_>) -> Read<Change> {
    let value = match operation.which() {
        Ok(operation::Put(bytes)) => Some(value(bytes.map_err(unreadable)?)?),
        Ok(operation::Delete(())) => None,
        Ok(operation::Unset(())) => return Err(Error::Argument("an operation is not set")),
        Err(capnp::NotInSchema(_)) => return Err(Error::Unknown("an operation")),
    };
    let precondition = precondition(operation.get_precondition())?;
    Ok(Change { key: key(scope, operation.get_key())?, value, precondition })
}

pub(super) fn usage(scope: &Scope, params: directory::usage_params::Reader<'_>) -> Read<Count> {
    Ok(Count { prefix: scope.prefix().join_prefix(text(params.get_prefix())?)? })
}

/// Reads what shall be written in chunks, and how long it will be.
pub(super) fn writer(
    scope: &Scope,
    params: directory::writer_params::Reader<'_>,
) -> Read<(Store, u64)> {
    let request = Store {
        key: key(scope, params.get_key())?,
        precondition: precondition(params.get_precondition())?,
        durability: durability(params.get_durability())?,
    };
    Ok((request, params.get_bytes()))
}

pub(super) fn reader(scope: &Scope, params: directory::reader_params::Reader<'_>) -> Read<Get> {
    Ok(Get { key: key(scope, params.get_key())?, metadata_only: false })
}

/// Reads a chunk of at most `most` bytes.
pub(super) fn chunk(params: writer::write_params::Reader<'_>, most: usize) -> Read<&[u8]> {
    let chunk = params.get_chunk().map_err(unreadable)?;
    if chunk.len() > most {
        return Err(Error::ValueBytes { bytes: chunk.len(), most });
    }
    Ok(chunk)
}

/// Reads where a part begins and how long it may be, `most` at most.
pub(super) fn part(params: reader::read_params::Reader<'_>, most: usize) -> (u64, usize) {
    let asked = usize::try_from(params.get_bytes()).unwrap_or(usize::MAX);
    (params.get_offset(), if asked == 0 { most } else { asked.min(most) })
}

/// Reads what a restricted directory shall be for: prefix, rights, milliseconds.
pub(super) fn restrict(
    scope: &Scope,
    params: directory::restrict_params::Reader<'_>,
) -> Read<(Prefix, Rights, u64)> {
    let prefix = scope.prefix().join_prefix(text(params.get_prefix())?)?;
    let rights = rights(params.get_rights().map_err(unreadable)?);
    Ok((prefix, rights, params.get_expiry_millis()))
}

pub(super) fn list(scope: &Scope, params: directory::list_params::Reader<'_>) -> Read<List> {
    let after = text(params.get_after())?;
    let after = if after.is_empty() { None } else { Some(scope.prefix().join(after)?) };
    Ok(List {
        directory: scope.prefix().clone(),
        prefix: scope.prefix().join_prefix(text(params.get_prefix())?)?,
        after,
        limit: params.get_limit(),
        keys_only: params.get_keys_only(),
    })
}

fn text(text: capnp::Result<capnp::text::Reader<'_>>) -> Read<&str> {
    let text = text.map_err(unreadable)?;
    let not_utf8 = |error: core::str::Utf8Error| KeyError::NotUtf8 { offset: error.valid_up_to() };
    Ok(text.to_str().map_err(not_utf8)?)
}

fn key(scope: &Scope, name: capnp::Result<capnp::text::Reader<'_>>) -> Read<Key> {
    Ok(scope.prefix().join(text(name)?)?)
}

/// Copies a value once, unless it is longer than any volume takes.
fn value(bytes: &[u8]) -> Read<alloc::rc::Rc<[u8]>> {
    let most = journal::VALUE_BYTES_MAX;
    if bytes.len() > most {
        return Err(Error::ValueBytes { bytes: bytes.len(), most });
    }
    Ok(bytes.into())
}

fn precondition(reader: capnp::Result<precondition::Reader<'_>>) -> Read<Precondition> {
    match reader.map_err(unreadable)?.which() {
        Ok(precondition::Any(())) => Ok(Precondition::Any),
        Ok(precondition::Absent(())) => Ok(Precondition::Absent),
        Ok(precondition::Version(version)) => Ok(Precondition::Version(Version(version))),
        Err(capnp::NotInSchema(_)) => Err(Error::Unknown("the precondition")),
    }
}

fn durability(durability: Result<statefs::Durability, capnp::NotInSchema>) -> Read<Durability> {
    match durability {
        Ok(statefs::Durability::Durable) => Ok(Durability::Durable),
        Ok(statefs::Durability::Buffered) => Ok(Durability::Buffered),
        Ok(statefs::Durability::Strict) => Ok(Durability::Strict),
        Err(capnp::NotInSchema(_)) => Err(Error::Unknown("the durability")),
    }
}

fn rights(reader: rights::Reader<'_>) -> Rights {
    let asked = [
        (reader.get_get(), Right::Get),
        (reader.get_list(), Right::List),
        (reader.get_put(), Right::Put),
        (reader.get_delete(), Right::Delete),
        (reader.get_watch(), Right::Watch),
        (reader.get_snapshot(), Right::Snapshot),
        (reader.get_delegate(), Right::Delegate),
    ];
    asked.into_iter().filter(|(asked, _)| *asked).map(|(_, right)| right).collect()
}
