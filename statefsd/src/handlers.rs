//! What calls do. Each handler takes a request that the gate granted; there is no other way in.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use journal::{Applied, CheckReport, Durability, Note, Origin, Version};
use policy::{Granted, Right, Scope};

use crate::audit;
use crate::error::Error;
use crate::event::Event;
use crate::figures::Family;
use crate::gate;
use crate::page::{self, Page};
use crate::permits::Permit;
use crate::plant::Plant;
use crate::power::{Power, Restriction};
use crate::quota::Usage;
use crate::request::{Administer, Audited, Change, Count, Get, Hello, List, Open, Token, Write};
use crate::session::{Arrived, Caller};
use crate::store::{Found, Health, Written};
use crate::tokens::{self, Begun, Ticket};

/// What a read may hold of a value, its block padding included.
pub(crate) const GET_BYTES: usize = journal::VALUE_BYTES_MAX + 8192;

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

/// Tells what the store can do. Needs no right; who may see the figures of the store is told more of a loss.
pub(crate) fn health(caller: &Caller) -> Health {
    let store = &caller.shared.store;
    let sees = gate::admin_rights(caller).contains(Right::AdminStats);
    if sees { store.health_with_lsns() } else { store.health() }
}

/// Makes the power of a directory; what it is good for is asked again at each use.
pub(crate) fn open(caller: &Caller, granted: Granted<Open>) -> Result<Power, Error> {
    caller.shared.store.journal()?;
    let Open { prefix, rights, .. } = granted.into_request();
    Ok(Power::new(Scope::new(prefix, rights)))
}

/// Reads one key, for which there is a permit.
pub(crate) async fn get(
    caller: &Caller,
    granted: &Granted<Get>,
    _: Permit,
) -> Result<Found, Error> {
    let Get { key, metadata_only } = granted.request();
    let unseen = caller.shared.limits.plants.has(Plant::OwnWritesUnseen);
    let origin = if unseen { Origin(u64::MAX) } else { caller.origin() };
    caller.shared.store.get(key, origin, *metadata_only).await
}

/// Reads the first of several keys, as many as fit into one reply, for which there is a permit.
pub(crate) async fn get_many(
    caller: &Caller,
    granted: &[Granted<Get>],
    _: Permit,
) -> Result<Vec<Found>, Error> {
    let limits = &caller.shared.limits;
    page::many(&caller.shared.store, granted, caller.origin(), limits).await
}

pub(crate) async fn put(caller: &Caller, granted: Granted<Write>) -> Result<Written, Error> {
    write_one(caller, granted).await
}

pub(crate) async fn delete(caller: &Caller, granted: Granted<Write>) -> Result<Removed, Error> {
    let written = write_one(caller, granted).await?;
    Ok(match written {
        Written::Indeterminate => Removed::Indeterminate,
        Written::Applied(applied) => match applied.first() {
            Some(Applied::WasAbsent) => Removed::Absent,
            Some(Applied::Deleted(_) | Applied::Put(_)) => Removed::Deleted,
            // One change, one answer; nothing else may read as success.
            None => Removed::Indeterminate,
        },
        Written::Conflict { current, .. } => Removed::Conflict(current),
        Written::DataLoss { .. } | Written::InDoubt => Removed::DataLoss,
    })
}

/// Makes all of several changes, or none; those of a token that is known are not made again. Yields `None` where such a one turned out
/// to have applied nothing: the call is judged anew.
pub(crate) async fn commit(
    caller: &Caller,
    granted: Vec<Granted<Change>>,
    durability: Durability,
    token: Option<Token>,
    arrived: Arrived,
) -> Result<Option<Written>, Error> {
    // Who passed the gate has a name.
    let service = granted.first().map(|granted| granted.service().clone());
    let notes = caller.mutation(&granted, token.is_some().into());
    let changes: Vec<Change> = granted.into_iter().map(Granted::into_request).collect();
    let (Some(token), Some(service)) = (token, service) else {
        return write(caller, changes, None, notes, durability).await.map(Some);
    };
    let (store, digest) = (&caller.shared.store, tokens::digest(&changes));
    let (journal, tokens) = (store.journal()?, store.tokens());
    let of_connection = caller.shared.limits.plants.has(Plant::TokensOfConnection);
    let name = match of_connection {
        true => format!("{}{}", service.name(), caller.connection),
        false => String::from(service.name()),
    };
    let known = match tokens.begin(&name, caller.sending(arrived), token, digest)? {
        Begun::InDoubt => return Ok(Some(Written::InDoubt)),
        Begun::New(ticket) => {
            let buffered = (durability == Durability::Buffered).then(|| journal.drops());
            let written = write(caller, changes, Some(&ticket), notes, durability).await;
            tokens.settle(&ticket, &written, buffered);
            return written.map(Some);
        }
        Begun::Known(known) => known,
    };
    // Nothing counts them while this waits.
    drop((changes, notes));
    let applied = match tokens.resolve(&journal, &known).await? {
        Some(Written::Applied(applied)) => applied,
        other => return Ok(other),
    };
    // The first one may have been content with less.
    caller.note(durability);
    let kept = match durability {
        Durability::Buffered => Ok(()),
        Durability::Durable => journal.sync().await,
        Durability::Strict => journal.seal().await,
    };
    Ok(Some(kept.map_or(Written::Indeterminate, |()| Written::Applied(applied))))
}

async fn write_one(caller: &Caller, granted: Granted<Write>) -> Result<Written, Error> {
    let granted = [granted];
    let notes = caller.mutation(&granted, 0);
    let [granted] = granted;
    let Write { change, durability } = granted.into_request();
    write(caller, Vec::from([change]), None, notes, durability).await
}

async fn write(
    caller: &Caller,
    changes: Vec<Change>,
    ticket: Option<&Ticket>,
    notes: Vec<Note>,
    durability: Durability,
) -> Result<Written, Error> {
    let plants = caller.shared.limits.plants;
    let early = plants.has(Plant::AnswerEarly);
    let durability = if early { Durability::Buffered } else { durability };
    caller.note(durability);
    let (store, service, origin) = (&caller.shared.store, caller.service_name(), caller.origin());
    let written = store.write(service, changes, ticket, notes, durability, origin).await;
    written.inspect_err(|error| caller.tell_quota(error))
}

/// Counts what a subtree holds, and what it may.
pub(crate) fn usage(caller: &Caller, granted: &Granted<Count>) -> Result<Usage, Error> {
    caller.shared.store.usage(&granted.request().prefix)
}

/// Yields what the server has counted.
pub(crate) fn stats(caller: &Caller, _: &Granted<Administer>) -> Vec<Family> {
    caller.shared.tally.families(&caller.shared.store)
}

/// Reads all copies of everything, and repairs what one of them still has. It takes as long as its rate says, so it does not keep
/// the server from its end.
pub(crate) async fn check(
    caller: &Caller,
    _: Granted<Administer>,
    bytes_per_second: u64,
) -> Result<CheckReport, Error> {
    let journal = caller.shared.store.journal()?;
    let check = async {
        let report = journal.check_at(bytes_per_second).await;
        report.map_err(|error| Error::of_task(error, journal.mode()))
    };
    caller.shared.ending.or(check).await
}

/// Makes a checkpoint of all that was acknowledged.
pub(crate) async fn checkpoint(caller: &Caller, _: Granted<Administer>) -> Result<(), Error> {
    let journal = caller.shared.store.journal()?;
    journal.checkpoint().await.map_err(|error| Error::of_task(error, journal.mode()))
}

/// Reads a page of what was recorded.
pub(crate) async fn audit(
    caller: &Caller,
    _: Granted<Administer>,
    asked: &Audited,
) -> Result<audit::Page, Error> {
    let limits = &caller.shared.limits;
    let _permit = caller.reads.take(limits.reply_bytes).await;
    audit::page(&caller.shared.store.journal()?, asked, limits).await
}

/// Has the policy read anew, and yields why it was not taken.
pub(crate) async fn reload_policy(caller: &Caller, _: Granted<Administer>) -> Result<(), String> {
    caller.shared.reload.ask().await
}

/// Derives a power from another one.
///
/// # Errors
/// [`Error::TooMany`] if the connection holds as many as it may.
pub(crate) fn restrict(
    caller: &Caller,
    from: &Power,
    granted: Granted<Open>,
    expiry_millis: u64,
) -> Result<(Power, Rc<Restriction>), Error> {
    let most = caller.shared.limits.restrictions;
    let full = Error::TooMany { what: "restricted directories", most };
    let slot = caller.restrictions.take().ok_or(full)?;
    let expiry =
        (expiry_millis > 0).then(|| caller.shared.clock.now().saturating_add(expiry_millis));
    let Open { prefix, rights, .. } = granted.into_request();
    // What is not within the directory was not granted through it.
    from.restrict(prefix, rights, expiry, slot).ok_or(Error::Denied)
}

/// Reads a page of keys, for which there is a permit.
pub(crate) async fn list(
    caller: &Caller,
    granted: &Granted<List>,
    _: Permit,
) -> Result<Page, Error> {
    let limits = &caller.shared.limits;
    let journal = caller.shared.store.journal()?;
    let prefix = granted.request().prefix.as_str().as_bytes();
    journal.own_writes_under(prefix, caller.origin()).await;
    let keys_only = granted.request().keys_only;
    let mut after = None;
    loop {
        let rows = page::rows(&journal, granted, after.as_ref(), limits);
        after = rows.last();
        let page = page::read(&caller.shared.store, &journal, rows, keys_only).await?;
        // A page of none that has a successor would be taken for the last.
        if !page.more || !page.entries.is_empty() {
            return Ok(page);
        }
    }
}

/// Makes what this connection wrote as buffered durable; yields whether that is certain.
///
/// Needs no right beyond a directory: it acts on nothing but the caller's own writes.
pub(crate) async fn sync(caller: &Caller) -> Result<bool, Error> {
    let noted = caller.buffered.get();
    if caller.synced.get() >= noted || caller.shared.limits.plants.has(Plant::SyncSkipped) {
        return Ok(true);
    }
    let journal = caller.shared.store.journal()?;
    let drops = journal.drops();
    let durable = drops == caller.drops.get() && journal.sync().await.is_ok();
    // A device that failed is told each time; what was lost while the store goes on, once.
    if durable || !matches!(journal.mode(), journal::Mode::ReadOnly(_)) {
        caller.synced.set(caller.synced.get().max(noted));
        caller.drops.set(caller.drops.get().max(drops));
    }
    Ok(durable)
}
