//! What calls do. Each handler takes a request that the gate granted; there is no other way in.

use journal::{Applied, Durability, Version};
use policy::{Granted, Scope};

use crate::error::Error;
use crate::event::Event;
use crate::page::{self, Page};
use crate::request::{Delete, Get, Hello, List, Open, Put};
use crate::session::Caller;
use crate::store::{Found, Written};

/// What a read may hold of a value, its block padding included.
const GET_BYTES: usize = journal::VALUE_BYTES_MAX + 8192;

/// How a removal ended.
pub(crate) enum Removed {
    Indeterminate,
    Deleted,
    Absent,
    Conflict(Option<Version>),
    DataLoss,
}

/// Greets. Needs no right: it acts on no key, and what it tells is the same for everybody.
///
/// # Errors
/// [`Error::Argument`] for a protocol that does not exist.
pub(crate) fn hello(caller: &Caller, hello: &Hello<'_>) -> Result<u32, Error> {
    if hello.protocol == 0 {
        return Err(Error::Argument("there is no protocol 0"));
    }
    if !caller.greeted.replace(true) {
        let client = caller.client_name(hello.client);
        let event = Event::Hello { connection: caller.connection, client };
        caller.shared.events.borrow_mut().push(event);
    }
    Ok(hello.protocol.min(statefs::PROTOCOL))
}

/// Makes the power of a directory; what it is good for is asked again at each use.
pub(crate) fn open(caller: &Caller, granted: Granted<Open>) -> Result<Scope, Error> {
    caller.shared.store.journal()?;
    let Open { prefix, rights, .. } = granted.into_request();
    Ok(Scope::new(prefix, rights))
}

pub(crate) async fn get(caller: &Caller, granted: Granted<Get>) -> Result<Found, Error> {
    let Get { key, metadata_only } = granted.into_request();
    let _permit = caller.reads.take(GET_BYTES).await;
    caller.shared.store.get(&key, caller.origin(), metadata_only).await
}

pub(crate) async fn put(caller: &Caller, granted: Granted<Put>) -> Result<Written, Error> {
    let Put { key, value, precondition, durability } = granted.into_request();
    note(caller, durability);
    let store = &caller.shared.store;
    store.write(key, Some(value), precondition, durability, caller.origin()).await
}

pub(crate) async fn delete(caller: &Caller, granted: Granted<Delete>) -> Result<Removed, Error> {
    let Delete { key, precondition, durability } = granted.into_request();
    note(caller, durability);
    let store = &caller.shared.store;
    let written = store.write(key, None, precondition, durability, caller.origin()).await?;
    Ok(match written {
        Written::Indeterminate => Removed::Indeterminate,
        Written::Applied(Applied::WasAbsent) => Removed::Absent,
        Written::Applied(Applied::Deleted(_) | Applied::Put(_)) => Removed::Deleted,
        Written::Conflict(current) => Removed::Conflict(current),
        Written::DataLoss => Removed::DataLoss,
    })
}

pub(crate) async fn list(caller: &Caller, granted: Granted<List>) -> Result<Page, Error> {
    let limits = &caller.shared.limits;
    let _permit = caller.reads.take(limits.reply_bytes).await;
    let journal = caller.shared.store.journal()?;
    let prefix = granted.request().prefix.as_str().as_bytes();
    journal.own_writes_under(prefix, caller.origin()).await;
    let rows = page::rows(&journal, &granted, limits);
    let keys_only = granted.request().keys_only;
    Ok(page::read(&caller.shared.store, &journal, rows, keys_only).await)
}

/// Makes what this connection wrote as buffered durable; yields whether that is certain.
///
/// Needs no right beyond a directory: it acts on nothing but the caller's own writes.
pub(crate) async fn sync(caller: &Caller) -> Result<bool, Error> {
    let noted = caller.buffered.get();
    if caller.synced.get() >= noted {
        return Ok(true);
    }
    if caller.shared.store.journal()?.sync().await.is_err() {
        return Ok(false);
    }
    caller.synced.set(caller.synced.get().max(noted));
    Ok(true)
}

/// Counts a write that a later sync has to cover.
fn note(caller: &Caller, durability: Durability) {
    if durability == Durability::Buffered {
        caller.buffered.set(caller.buffered.get() + 1);
    }
}
