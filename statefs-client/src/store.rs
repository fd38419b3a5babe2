//! The asynchronous client: calls over a vat that somebody else drives.

use crate::call::Call;
use crate::error::{Effect, Error, Result};
use crate::info::{Health, Hello};
use crate::types::{
    Durability, ListOptions, Metadata, Page, Precondition, Rights, Value, WriteOptions,
};
use crate::version::Version;
use crate::wire;
use alloc::format;
use capnp::capability::{Request, Response};
use capnp::traits::Owned;
use core::fmt;
use statefs::{ErrorCode, directory, state_fs};
use vat::Vat;

/// The store at the other end of a connection.
///
/// Whoever owns the [`Vat`] moves its bytes and polls it; the calls answer in between.
#[derive(Clone)]
pub struct StateFs {
    client: state_fs::Client,
}

impl StateFs {
    /// Asks the peer of `vat` for its store, without waiting for the answer.
    #[must_use]
    pub fn over(vat: &Vat) -> Self {
        Self { client: vat.bootstrap() }
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
        Directory { client: request.send().pipeline.get_directory() }
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
}

impl Directory {
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
        send(request, Effect::Writes, wire::put)
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
        send(request, Effect::Writes, wire::delete)
    }

    /// Reads one page of keys.
    pub fn page(&self, options: &ListOptions) -> Call<Page> {
        if let Err(error) = fits(&options.prefix, options.after.len()) {
            return Call::refused(error);
        }
        let mut request = self.client.list_request();
        wire::write_list(options, request.get());
        send(request, Effect::Reads, wire::list)
    }

    /// Makes durable what this connection wrote as buffered before.
    pub fn sync(&self) -> Call<()> {
        send(self.client.sync_request(), Effect::Writes, wire::sync)
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

/// Refuses what would not fit into a frame, which would end in an error without a code.
fn fits(key: &str, value_bytes: usize) -> Result<()> {
    let (code, bytes, most) = if key.len() > KEY_BYTES_WORTH {
        (ErrorCode::KeyTooLong, key.len(), KEY_BYTES_WORTH)
    } else if value_bytes > VALUE_BYTES_WORTH {
        (ErrorCode::ValueTooLarge, value_bytes, VALUE_BYTES_WORTH)
    } else {
        return Ok(());
    };
    Err(Error::Refused { code, message: format!("{bytes} bytes; more than {most} are not sent") })
}

fn only_if(precondition: Precondition) -> WriteOptions {
    WriteOptions { precondition, ..WriteOptions::default() }
}

/// Sends a request now; the call reads its answer later.
fn send<Params, Results, T>(
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
