//! Parameters become requests. Nothing is checked twice: what is read is well formed.

use journal::{Durability, Precondition, Version};
use policy::{Key, KeyError, Prefix, Right, Rights, Scope};
use statefs::{directory, precondition, rights, state_fs};

use crate::error::Error;
use crate::request::{Delete, Get, Hello, List, Put};

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

pub(super) fn get(scope: &Scope, params: directory::get_params::Reader<'_>) -> Read<Get> {
    let key = key(scope, params.get_key())?;
    Ok(Get { key, metadata_only: params.get_metadata_only() })
}

pub(super) fn put(scope: &Scope, params: directory::put_params::Reader<'_>) -> Read<Put> {
    Ok(Put {
        key: key(scope, params.get_key())?,
        precondition: precondition(params.get_precondition())?,
        durability: durability(params.get_durability())?,
        value: value(params.get_value().map_err(unreadable)?)?,
    })
}

pub(super) fn delete(scope: &Scope, params: directory::delete_params::Reader<'_>) -> Read<Delete> {
    Ok(Delete {
        key: key(scope, params.get_key())?,
        precondition: precondition(params.get_precondition())?,
        durability: durability(params.get_durability())?,
    })
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
