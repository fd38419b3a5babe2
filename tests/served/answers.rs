//! Calls whose answers are awaited, and what each answer is held against.

use super::client::{KEYS, Known};
use crate::sim::model::{ABSENT, ValueId};
use crate::sim::plan::CHANGES_MAX;
use statefs_client::{
    Call, Durability, Error, ErrorCode, Held, Metadata, Page, Reader, Usage, Value, Version,
};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A call whose answer is awaited.
pub(super) enum Awaited {
    Put(Call<Version>, Write),
    Delete(Call<bool>, Write),
    Batch {
        call: Call<Vec<Option<Version>>>,
        write: Write,
        /// It has a token.
        token: bool,
        /// It was sent before, and must not be applied again.
        again: bool,
    },
    /// A part of a large value.
    Part(Call<()>),
    /// The end of a large value.
    Upload(Call<Version>, Write),
    /// The first write of a connection.
    Barrier(Call<Version>),
    /// A sync, and how many of the client's commits were acknowledged before it.
    Sync(Call<()>, usize),
    /// A read of a key of client `of`, and how many of its commits it must at least show.
    Get {
        call: Call<Option<Value>>,
        of: usize,
        key: u8,
        least: usize,
        epoch: u64,
    },
    /// A read of the client's own keys, one by one in one call; as for a list.
    Many(Call<Vec<Option<Held>>>, usize),
    /// A list of the client's own keys, and how many of its commits it must at least show.
    List(Call<Page>, usize),
    /// A large value of the client, all of it, while nobody writes it.
    Whole {
        call: Call<Vec<u8>>,
        key: u8,
        reader: Reader,
        bytes: Vec<u8>,
    },
    /// What the server counts of the client's keys, while nobody writes them.
    Usage(Call<Usage>),
    DeniedPut(Call<Version>),
    DeniedDelete(Call<bool>),
    DeniedGet(Call<Option<Value>>),
}

/// What a write is to the model.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// Its number among the client's commits, if the model says that it is taken.
    pub(super) count: Option<usize>,
    /// Its precondition does not hold.
    pub(super) conflicts: bool,
    /// What it writes.
    pub(super) values: [ValueId; CHANGES_MAX],
    pub(super) durability: Durability,
}

/// What an answer means for its connection.
pub(super) enum Went {
    On,
    /// The store has stopped writing.
    Stopped,
    /// A large value came to its end.
    Uploaded,
    /// Everything of earlier connections has ended.
    Barrier,
    /// A key has this value.
    Compared(u8, ValueId),
    /// A key has a value that is read in parts.
    Large(u8),
    /// So many keys are counted.
    Counted(u64),
}

impl Awaited {
    /// Takes the answer of client `number` if it has come; `comparing` tells that it compares its keys.
    pub(super) fn poll(
        &mut self,
        number: usize,
        comparing: bool,
        known: &mut Known<'_>,
    ) -> Poll<Result<Went, String>> {
        match self {
            Self::Put(call, write) => poll(call).map(|answer| put(number, *write, answer, known)),
            Self::Delete(call, write) => {
                poll(call).map(|answer| deleted(number, *write, answer, known))
            }
            Self::Batch { call, write, token, again } => {
                let (token, again) = (*token, *again);
                poll(call).map(|answer| batch(number, *write, (token, again), answer, known))
            }
            Self::Part(call) => poll(call).map(|answer| match answer {
                Ok(()) => Ok(Went::On),
                Err(error) => failed(&error, known),
            }),
            Self::Upload(call, write) => {
                poll(call).map(|answer| uploaded(number, *write, answer, known))
            }
            Self::Barrier(call) => poll(call).map(|answer| match answer {
                Ok(_) => Ok(Went::Barrier),
                Err(error) => failed(&error, known),
            }),
            Self::Sync(call, acknowledged) => {
                poll(call).map(|answer| synced(number, *acknowledged, answer, known))
            }
            Self::Get { call, of, key, least, epoch } => {
                let (of, key) = (*of, *key);
                let current = of == number || *epoch == known.epochs[of];
                let least = current.then_some(*least);
                poll(call).map(|answer| read(number, (of, key), least, comparing, answer, known))
            }
            Self::Many(call, least) => poll(call).map(|all| many(number, all, *least, known)),
            Self::List(call, least) => poll(call).map(|page| listed(number, page, *least, known)),
            Self::Whole { call, key, reader, bytes } => {
                let part = match std::task::ready!(poll(call)) {
                    Ok(part) => part,
                    Err(error) => return Poll::Ready(Err(format!("a part fails: {error}"))),
                };
                if !part.is_empty() {
                    bytes.extend(part);
                    *call = reader.read(bytes.len() as u64, 0);
                    return Poll::Pending;
                }
                let value = known.models[number].read(*key, bytes);
                Poll::Ready(value.map(|value| Went::Compared(*key, value)))
            }
            Self::Usage(call) => poll(call).map(counted),
            Self::DeniedPut(call) => poll(call).map(|answer| denied(answer.err(), known)),
            Self::DeniedDelete(call) => poll(call).map(|answer| denied(answer.err(), known)),
            Self::DeniedGet(call) => poll(call).map(|answer| denied(answer.err(), known)),
        }
    }
}

fn put(
    number: usize,
    write: Write,
    answer: Result<Version, Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    match (answer, write.count) {
        (Ok(version), Some(count)) => {
            known.models[number].learn(write.values[0], journal_version(version))?;
            acknowledged(number, count, write.durability, known);
            Ok(Went::On)
        }
        (Ok(_), None) => Err("a put goes through against its precondition".into()),
        (Err(error), _) => not_written(number, write, &error, known),
    }
}

fn deleted(
    number: usize,
    write: Write,
    answer: Result<bool, Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    match (answer, write.count) {
        (Ok(true), Some(count)) => {
            acknowledged(number, count, write.durability, known);
            Ok(Went::On)
        }
        (Ok(false), None) if !write.conflicts => Ok(Went::On),
        (Ok(existed), _) => Err(format!("a delete answers {existed}, which is not so")),
        (Err(error), _) => not_written(number, write, &error, known),
    }
}

/// Judges the answer to a batch, which has a token or not and was sent before or not.
fn batch(
    number: usize,
    write: Write,
    (token, again): (bool, bool),
    answer: Result<Vec<Option<Version>>, Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    let versions = match answer {
        Ok(_) if write.conflicts => {
            return Err("a batch goes through against a precondition".into());
        }
        Ok(versions) => versions,
        // What was sent before is not refused anew: it is the first one that is.
        Err(error) if again => return failed(&error, known),
        Err(error) => return not_written(number, write, &error, known),
    };
    for (version, value) in versions.iter().zip(write.values) {
        match version {
            Some(version) if value != ABSENT => {
                known.models[number].learn(value, journal_version(*version))?;
            }
            None if value == ABSENT => {}
            _ => return Err("a batch answers versions of another batch".into()),
        }
    }
    if let Some(count) = write.count {
        acknowledged(number, count, write.durability, known);
    }
    *(if again { &mut known.counts.applied_once } else { &mut known.counts.batches }) += 1;
    if let Some(sent) = known.sent[number].as_mut().filter(|_| token) {
        sent.applied = true;
    }
    Ok(Went::On)
}

fn uploaded(
    number: usize,
    write: Write,
    answer: Result<Version, Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    // A writer of which a part failed is over.
    let over = |error: &Error| error.refusal() == Some(ErrorCode::InvalidArgument);
    let went = match answer {
        Err(error) if over(&error) && known.armed => {
            refused(number, write, known);
            Went::Stopped
        }
        answer => {
            known.counts.uploads += u64::from(answer.is_ok());
            put(number, write, answer, known)?
        }
    };
    Ok(if matches!(went, Went::On) { Went::Uploaded } else { went })
}

fn acknowledged(number: usize, count: usize, durability: Durability, known: &mut Known<'_>) {
    let newest = &mut known.acknowledged[number];
    *newest = (*newest).max(count);
    if durability == Durability::Buffered {
        known.counts.buffered += 1;
    } else {
        known.counts.durable += 1;
        known.models[number].must_survive(count);
    }
}

fn not_written(
    number: usize,
    write: Write,
    error: &Error,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    let conflict = matches!(error, Error::Conflict { .. } | Error::BatchConflict { .. });
    if conflict && write.conflicts {
        known.counts.conflicts += 1;
        return Ok(Went::On);
    }
    // What has a code applied nothing, and never will have.
    if error.refusal().is_some() {
        refused(number, write, known);
    }
    failed(error, known)
}

fn refused(number: usize, write: Write, known: &mut Known<'_>) {
    if let Some(count) = write.count {
        known.models[number].refused(count);
    }
}

/// A write fails only where the device did.
fn failed(error: &Error, known: &mut Known<'_>) -> Result<Went, String> {
    let allowed = matches!(error, Error::Indeterminate { .. })
        || matches!(error.refusal(), Some(ErrorCode::ReadOnly | ErrorCode::IoError));
    if !(allowed && known.armed) {
        return Err(format!("a write fails: {error}"));
    }
    known.counts.failed_writes += 1;
    Ok(Went::Stopped)
}

fn synced(
    number: usize,
    acknowledged: usize,
    answer: Result<(), Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    match answer {
        Ok(()) => {
            known.counts.syncs += 1;
            known.models[number].must_survive(acknowledged);
            Ok(Went::On)
        }
        Err(error) => failed(&error, known),
    }
}

/// Judges what a read of key `key` of client `of` showed; `None` for `least` where the owner's commits were counted
/// anew meanwhile.
fn read(
    number: usize,
    (of, key): (usize, u8),
    least: Option<usize>,
    comparing: bool,
    answer: Result<Option<Value>, Error>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    *(if of == number { &mut known.counts.reads } else { &mut known.counts.foreign_reads }) += 1;
    let held = match answer {
        Ok(value) => value.map(Held::Value),
        Err(Error::Large(_)) if comparing => return Ok(Went::Large(key)),
        Err(Error::Large(metadata)) => Some(Held::Large(metadata)),
        Err(error) => return Err(format!("a read fails: {error}")),
    };
    if comparing {
        let value = value_of(of, key, held.as_ref(), known)?.unwrap_or(ABSENT);
        return Ok(Went::Compared(key, value));
    }
    shown(of, key, held.as_ref(), least, known)
}

/// Yields the number of what was shown; `None` of a large value whose version is not known yet.
fn value_of(
    of: usize,
    key: u8,
    held: Option<&Held>,
    known: &mut Known<'_>,
) -> Result<Option<ValueId>, String> {
    let model = &mut known.models[of];
    match held {
        None => Ok(Some(ABSENT)),
        Some(Held::Value(value)) => {
            let id = model.read(key, &value.data)?;
            model.learn(id, journal_version(value.version))?;
            Ok(Some(id))
        }
        Some(Held::Large(Metadata { version, .. })) => {
            Ok(model.of_version(key, journal_version(*version)))
        }
        Some(Held::DataLoss) => Err("data loss is shown".into()),
    }
}

fn shown(
    of: usize,
    key: u8,
    held: Option<&Held>,
    least: Option<usize>,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    if let (Some(id), Some(least)) = (value_of(of, key, held, known)?, least) {
        known.models[of].shown(key, id, least)?;
    }
    Ok(Went::On)
}

fn many(
    number: usize,
    all: Result<Vec<Option<Held>>, Error>,
    least: usize,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    let all = all.map_err(|error| format!("a read of several keys fails: {error}"))?;
    known.counts.reads += 1;
    for (key, held) in (0..KEYS).zip(&all) {
        shown(number, key, held.as_ref(), Some(least), known)?;
    }
    Ok(Went::On)
}

fn listed(
    number: usize,
    page: Result<Page, Error>,
    least: usize,
    known: &mut Known<'_>,
) -> Result<Went, String> {
    let page = page.map_err(|error| format!("a list fails: {error}"))?;
    known.counts.lists += 1;
    if !page.intact || page.next.is_some() {
        return Err("a list of a few keys is not whole".into());
    }
    let mut all = vec![None; KEYS.into()];
    for entry in page.entries {
        let Ok(key) = entry.key.parse::<usize>() else { continue };
        *all.get_mut(key).ok_or("a list shows a key that nobody wrote")? = Some(entry.held);
    }
    for (key, held) in (0..KEYS).zip(&all) {
        shown(number, key, held.as_ref(), Some(least), known)?;
    }
    Ok(Went::On)
}

/// Compares what the ledger has charged with a count of the keys.
fn counted(usage: Result<Usage, Error>) -> Result<Went, String> {
    let usage = usage.map_err(|error| format!("usage is not told: {error}"))?;
    let [quota] = &usage.quotas[..] else {
        return Err("the one quota over the keys is not told".into());
    };
    if (quota.bytes_used, quota.keys_used) != (usage.bytes, usage.keys) {
        return Err(format!("the ledger says {quota:?}, the keys {} bytes", usage.bytes));
    }
    Ok(Went::Counted(usage.keys))
}

fn denied(error: Option<Error>, known: &mut Known<'_>) -> Result<Went, String> {
    if error.as_ref().and_then(Error::refusal) != Some(ErrorCode::AccessDenied) {
        return Err(format!("what nobody grants is not denied: {error:?}"));
    }
    known.counts.denials += 1;
    Ok(Went::On)
}

fn poll<T: 'static>(call: &mut Call<T>) -> Poll<Result<T, Error>> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

/// Versions have no numbers but those of their text.
fn journal_version(version: Version) -> journal::Version {
    let number = u64::from_str_radix(&version.to_string(), 16);
    journal::Version(number.expect("a version is 16 hexadecimal digits"))
}
