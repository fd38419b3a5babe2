//! The asynchronous client: calls over a vat that somebody else drives.

use crate::admin::Admin;
use crate::batch::Batch;
use crate::call::Call;
#[cfg(feature = "std")]
use crate::call::look;
use crate::error::{Effect, Error, Result};
use crate::info::{Description, Health, Hello};
use crate::stream::{Reader, Writer};
use crate::types::{
    Durability, Held, ListOptions, Metadata, Page, Precondition, Rights, Usage, Value, WriteOptions,
};
use crate::version::Version;
use crate::wire;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::{Request, Response, StreamingRequest};
use capnp::traits::Owned;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use statefs::{ErrorCode, directory, revoker, state_fs};
use vat::Vat;

/// The store at the other end of a connection.
///
/// Whoever owns the [`Vat`] moves its bytes and polls it; the calls answer in between.
#[derive(Clone)]
pub struct StateFs {
    client: state_fs::Client,
    buffered: Rc<Buffered>,
}

/// Buffered writes of a connection: how often one was sent or answered, and how far a sync has confirmed that.
#[derive(Default)]
pub(crate) struct Buffered {
    noted: Cell<u64>,
    synced: Cell<u64>,
    /// Held once more for each that was sent, and whose answer nobody has read.
    unread: Rc<()>,
}

impl Buffered {
    /// Notes a write that was sent, if only a sync makes it durable, and notes it again once it was answered: a sync that was
    /// sent in between need not cover it.
    pub(crate) fn note<T: 'static>(
        self: &Rc<Self>,
        durability: Durability,
        write: Call<T>,
    ) -> Call<T> {
        if durability != Durability::Buffered {
            return write;
        }
        let (buffered, unread) = (self.clone(), self.unread.clone());
        let note = move || buffered.noted.set(buffered.noted.get().saturating_add(1));
        note();
        write.then(move || {
            note();
            drop(unread);
        })
    }
}

impl StateFs {
    /// Asks the peer of `vat` for its store, without waiting for the answer.
    #[must_use]
    pub fn over(vat: &Vat) -> Self {
        Self { client: vat.bootstrap(), buffered: Rc::default() }
    }

    /// Asks who answers; `client_name` is this program and its version, for the server's log.
    pub fn hello(&self, client_name: &str) -> Call<Hello> {
        let mut request = self.client.hello_request();
        let mut params = request.get();
        params.set_client_name(client_name);
        params.set_protocol(statefs::PROTOCOL);
        send(request, Effect::Reads, wire::hello)
    }

    /// Asks how the store fares.
    pub fn health(&self) -> Call<Health> {
        send(self.client.health_request(), Effect::Reads, wire::health)
    }

    /// Asks for the compiled schema.
    pub fn describe(&self) -> Call<Description> {
        send(self.client.describe_request(), Effect::Reads, wire::describe)
    }

    /// Yields the administration of the store.
    ///
    /// Does not wait, and cannot fail: a refusal is the answer to the first call on it.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { client: self.client.admin_request().send().pipeline.get_admin() }
    }

    /// Yields the directory of the keys below `prefix`, "/state" or a path below it, for certain
    /// rights.
    ///
    /// Does not wait, and cannot fail: a refusal is the answer to the first call on it.
    #[must_use]
    pub fn directory(&self, prefix: &str, rights: Rights) -> Directory {
        let mut request = self.client.open_request();
        let mut params = request.get();
        params.set_prefix(prefix);
        wire::write_rights(rights, params.init_rights());
        let client = request.send().pipeline.get_directory();
        Directory { client, buffered: self.buffered.clone() }
    }

    /// Whether buffered writes were sent, or answered, that no later sync has confirmed.
    #[cfg(feature = "std")]
    pub(crate) fn has_unsynced(&self) -> bool {
        let Buffered { noted, synced, unread } = &*self.buffered;
        noted > synced || Rc::strong_count(unread) > 1
    }
}

impl fmt::Debug for StateFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateFs")
    }
}

/// The keys below one prefix, for certain rights. Keys are relative to the prefix: no leading slash.
#[derive(Clone)]
pub struct Directory {
    client: directory::Client,
    buffered: Rc<Buffered>,
}

impl Directory {
    /// Whether it is known to have been refused, as every call on it would be.
    #[cfg(feature = "std")]
    pub(crate) fn is_refused(&self) -> bool {
        matches!(look(&mut self.client.client.when_resolved()), Some(Err(_)))
    }

    /// Reads a key: its value, or `None` if there is no such key.
    ///
    /// Answers [`Error::DataLoss`] if the key is damaged.
    pub fn get(&self, key: &str) -> Call<Option<Value>> {
        self.send_get(key, false, wire::get)
    }

    /// Reads version and size of a key, without reading the value from the device.
    pub fn get_metadata(&self, key: &str) -> Call<Option<Metadata>> {
        self.send_get(key, true, wire::metadata)
    }

    /// Writes a key and answers the version of this write.
    ///
    /// Durability: the write is on the medium when the answer comes.
    pub fn put(&self, key: &str, value: &[u8]) -> Call<Version> {
        self.put_with(key, value, WriteOptions::default())
    }

    /// Writes a key that does not exist; else answers [`Error::Conflict`].
    pub fn put_if_absent(&self, key: &str, value: &[u8]) -> Call<Version> {
        self.put_with(key, value, only_if(Precondition::Absent))
    }

    /// Writes a key that is in `version`; else answers [`Error::Conflict`].
    pub fn put_if_version(&self, key: &str, value: &[u8], version: Version) -> Call<Version> {
        self.put_with(key, value, only_if(Precondition::Version(version)))
    }

    /// Writes a key that is acknowledged once it is ordered; [`Directory::sync`] makes it durable.
    pub fn put_buffered(&self, key: &str, value: &[u8]) -> Call<Version> {
        let durability = Durability::Buffered;
        self.put_with(key, value, WriteOptions { durability, ..WriteOptions::default() })
    }

    /// Writes a key as `options` say.
    pub fn put_with(&self, key: &str, value: &[u8], options: WriteOptions) -> Call<Version> {
        if let Err(error) = fits(key, value.len()) {
            return Call::refused(error);
        }
        let mut request = self.client.put_request();
        let mut params = request.get();
        params.set_key(key);
        wire::write_put(value, options, params);
        self.buffered.note(options.durability, send(request, Effect::Writes, wire::put))
    }

    /// Deletes a key and answers whether there was something to delete.
    pub fn delete(&self, key: &str) -> Call<bool> {
        self.delete_with(key, WriteOptions::default())
    }

    /// Deletes a key that is in `version`; else answers [`Error::Conflict`].
    pub fn delete_if_version(&self, key: &str, version: Version) -> Call<bool> {
        self.delete_with(key, only_if(Precondition::Version(version)))
    }

    /// Deletes a key as `options` say.
    pub fn delete_with(&self, key: &str, options: WriteOptions) -> Call<bool> {
        if let Err(error) = fits(key, 0) {
            return Call::refused(error);
        }
        let mut request = self.client.delete_request();
        let mut params = request.get();
        params.set_key(key);
        wire::write_delete(options, params);
        self.buffered.note(options.durability, send(request, Effect::Writes, wire::delete))
    }

    /// Reads one page of keys.
    pub fn page(&self, options: &ListOptions) -> Call<Page> {
        if let Err(error) = fits(&options.prefix, options.after.len()) {
            return Call::refused(error);
        }
        let mut request = self.client.list_request();
        wire::write_list(options, request.get());
        let after = options.after.clone();
        send(request, Effect::Reads, move |results| wire::list(results, &after))
    }

    /// Makes durable what this connection wrote as buffered before.
    pub fn sync(&self) -> Call<()> {
        let (buffered, covered) = (self.buffered.clone(), self.buffered.noted.get());
        send(self.client.sync_request(), Effect::Writes, move |results| {
            wire::sync(results)?;
            buffered.synced.set(covered.max(buffered.synced.get()));
            Ok(())
        })
    }

    /// Reads the first of several keys, as many as one reply takes: one entry for each, `None` for
    /// one that is absent. [`Directory::get_many`] asks until it has them all.
    pub fn get_some(&self, keys: &[&str], metadata_only: bool) -> Call<Vec<Option<Held>>> {
        let mut bytes = 0;
        let fit = keys.iter().take(KEYS_AT_ONCE).take_while(|key| {
            bytes += key.len() + 16;
            bytes <= VALUE_BYTES_WORTH
        });
        // One key that is too long for itself is sent alone, and refused.
        let keys = keys.get(..fit.count().max(1)).unwrap_or(keys);
        for key in keys {
            if let Err(error) = fits(key, 0) {
                return Call::refused(error);
            }
        }
        let mut request = self.client.get_many_request();
        let mut params = request.get();
        params.set_metadata_only(metadata_only);
        let count = u32::try_from(keys.len()).unwrap_or_default();
        let mut list = params.init_keys(count);
        for (index, key) in (0..count).zip(keys) {
            list.set(index, key);
        }
        send(request, Effect::Reads, wire::get_many)
    }

    /// Reads several keys, in as many calls as it takes: one entry for each, `None` for one that is
    /// absent. They are not one snapshot.
    ///
    /// # Errors
    /// Those of every call, and [`ErrorCode::AccessDenied`] if one of the keys may not be read. A
    /// damaged key is [`Held::DataLoss`].
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Held>>> {
        let mut all = Vec::new();
        while let Some(rest) = keys.get(all.len()..).filter(|rest| !rest.is_empty()) {
            let told = self.get_some(rest, false).await?;
            // An answer that stood still would make an endless loop.
            if told.is_empty() || told.len() > rest.len() {
                let cause = "has another number of entries than it was asked for";
                return Err(Error::of_answer(cause, Effect::Reads));
            }
            all.extend(told);
        }
        Ok(all)
    }

    /// Makes all changes of a batch, or none, and answers for each the version that it gave its
    /// key: `None` for a delete.
    ///
    /// Answers [`Error::BatchConflict`] or [`Error::BatchDataLoss`] where nothing happened, and [`Error::BatchInDoubt`] where
    /// nothing happened and it cannot be told whether the batch was applied before. Wait for it: the server takes the latter for
    /// told, and applies the batch when it is sent again, also where the call was dropped with its answer unread.
    pub fn commit(&self, batch: &Batch) -> Call<Vec<Option<Version>>> {
        let longest = batch.operations.iter().map(|operation| operation.key.len()).max();
        if longest.unwrap_or_default() > KEY_BYTES_WORTH {
            return Call::refused(too_large(ErrorCode::KeyTooLong, longest, KEY_BYTES_WORTH));
        }
        let words = batch.len().saturating_mul(OPERATION_BYTES);
        let bytes = batch.bytes().saturating_add(words);
        if bytes > BATCH_BYTES_WORTH {
            let code = ErrorCode::BatchTooLarge;
            return Call::refused(too_large(code, Some(bytes), BATCH_BYTES_WORTH));
        }
        let count = batch.operations.len();
        let mut request = self.client.commit_request();
        wire::write_commit(batch, request.get());
        let effect = if batch.token.is_some() { Effect::WritesKnown } else { Effect::Writes };
        let call = send(request, effect, move |results| {
            let versions = wire::commit(results)?;
            if versions.len() == count {
                return Ok(versions);
            }
            Err(Error::of_answer("has another number of versions", Effect::Writes))
        });
        self.buffered.note(batch.durability, call)
    }

    /// Begins to write a value of any size; `bytes` is its size if that is known.
    ///
    /// Does not wait: a refusal is the answer to the first call on it.
    #[must_use]
    pub fn writer(&self, key: &str, bytes: Option<u64>, options: WriteOptions) -> Writer {
        let mut request = self.client.writer_request();
        let mut params = request.get();
        params.set_key(fitting(key));
        wire::write_writer(bytes, options, params);
        let client = request.send().pipeline.get_writer();
        let durability = options.durability;
        Writer { client, durability, buffered: self.buffered.clone(), missing: Rc::default() }
    }

    /// Begins to read a value of any size.
    ///
    /// Does not wait: a refusal is the answer to the first call on it.
    #[must_use]
    pub fn reader(&self, key: &str) -> Reader {
        let mut request = self.client.reader_request();
        request.get().set_key(fitting(key));
        Reader { client: request.send().pipeline.get_reader() }
    }

    /// Yields a directory that can do less than this one, for the keys below `prefix`, and what
    /// takes it away; an empty prefix is this directory's. It ends after `expiry`, in whole
    /// milliseconds, if there is one.
    ///
    /// Does not wait: a refusal is the answer to the first call on either.
    #[must_use]
    pub fn restrict(
        &self,
        prefix: &str,
        rights: Rights,
        expiry: Option<Duration>,
    ) -> (Self, Revoker) {
        let mut request = self.client.restrict_request();
        let mut params = request.get();
        params.set_prefix(fitting(prefix));
        let millis = expiry.map_or(0, |expiry| {
            // Less than a millisecond is not for ever.
            u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        params.set_expiry_millis(millis);
        wire::write_rights(rights, params.init_rights());
        let pipeline = request.send().pipeline;
        let directory = Self { client: pipeline.get_directory(), buffered: self.buffered.clone() };
        (directory, Revoker { client: pipeline.get_revoker() })
    }

    /// Asks what a key and all beneath it hold, and what they may; of the whole directory if
    /// `prefix` is empty.
    pub fn usage(&self, prefix: &str) -> Call<Usage> {
        if let Err(error) = fits(prefix, 0) {
            return Call::refused(error);
        }
        let mut request = self.client.usage_request();
        request.get().set_prefix(prefix);
        send(request, Effect::Reads, wire::admin::usage)
    }

    fn send_get<T: 'static>(
        &self,
        key: &str,
        metadata_only: bool,
        read: impl FnOnce(directory::get_results::Reader<'_>) -> Result<T> + 'static,
    ) -> Call<T> {
        if let Err(error) = fits(key, 0) {
            return Call::refused(error);
        }
        let mut request = self.client.get_request();
        let mut params = request.get();
        params.set_key(key);
        params.set_metadata_only(metadata_only);
        send(request, Effect::Reads, read)
    }
}

/// The power to end one directory that came from [`Directory::restrict`]. Dropping it leaves the
/// directory as it is.
#[derive(Clone)]
pub struct Revoker {
    client: revoker::Client,
}

impl Revoker {
    /// Ends the directory and all that was derived from it: their calls answer `REVOKED`.
    pub fn revoke(&self) -> Call<()> {
        send(self.client.revoke_request(), Effect::Writes, |_| Ok(()))
    }
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revoker")
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

/// Longest key and longest value that are worth sending: many times what any server takes, and
/// together less than the frame that a connection admits.
const KEY_BYTES_WORTH: usize = 4096;
const VALUE_BYTES_WORTH: usize = 1 << 20;
const _: () = assert!(KEY_BYTES_WORTH + VALUE_BYTES_WORTH + 4096 < vat::limits::FRAME_BYTES_MAX);

/// Most keys in one request; servers look at as many.
const KEYS_AT_ONCE: usize = 1024;

/// Largest batch that is worth sending, with what each operation takes besides its key and value:
/// more than any server takes.
const BATCH_BYTES_WORTH: usize = 1200 * 1024;
const OPERATION_BYTES: usize = 96;
const _: () = assert!(BATCH_BYTES_WORTH + 4096 < vat::limits::FRAME_BYTES_MAX);

/// Refuses what would not fit into a frame, which would end in an error without a code.
fn fits(key: &str, value_bytes: usize) -> Result<()> {
    let (code, bytes, most) = if key.len() > KEY_BYTES_WORTH {
        (ErrorCode::KeyTooLong, key.len(), KEY_BYTES_WORTH)
    } else if value_bytes > VALUE_BYTES_WORTH {
        (ErrorCode::ValueTooLarge, value_bytes, VALUE_BYTES_WORTH)
    } else {
        return Ok(());
    };
    Err(too_large(code, Some(bytes), most))
}

fn too_large(code: ErrorCode, bytes: Option<usize>, most: usize) -> Error {
    let bytes = bytes.unwrap_or_default();
    Error::Refused { code, message: format!("{bytes} bytes; more than {most} are not sent") }
}

/// Cuts a key that no server takes to one that it refuses for the same reason.
fn fitting(key: &str) -> &str {
    let end = key.floor_char_boundary(KEY_BYTES_WORTH.min(key.len()));
    key.get(..end).unwrap_or_default()
}

/// Sends a part of a stream now; the call tells when it was taken.
pub(crate) fn send_streaming<Params: Owned + 'static>(
    request: StreamingRequest<Params>,
) -> Call<()> {
    let answer = request.send();
    Call::new(Effect::Reads, async move {
        answer.await.map_err(|error| Error::of_exception(error, Effect::Reads))
    })
}

fn only_if(precondition: Precondition) -> WriteOptions {
    WriteOptions { precondition, ..WriteOptions::default() }
}

/// Sends a request now; the call reads its answer later.
pub(crate) fn send<Params, Results, T>(
    request: Request<Params, Results>,
    effect: Effect,
    read: impl FnOnce(Results::Reader<'_>) -> Result<T> + 'static,
) -> Call<T>
where
    Params: Owned,
    Results: Owned + capnp::traits::Pipelined + Unpin + 'static,
    <Results as capnp::traits::Pipelined>::Pipeline: capnp::capability::FromTypelessPipeline,
    T: 'static,
{
    let answer = request.send().promise;
    Call::new(effect, async move {
        let response: Response<Results> =
            answer.await.map_err(|error| Error::of_exception(error, effect))?;
        let results = response.get().map_err(|_| Error::of_answer("cannot be read", effect))?;
        read(results)
    })
}
