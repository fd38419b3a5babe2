//! The blocking client over the daemon's Unix socket.
//!
//! It needs no runtime and starts no thread: bytes move while a call is waited for, and only then.

mod admin;
mod connect;
mod line;
mod link;
mod list;
mod stream;

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use std::vec::Vec;

use crate::batch::Batch;
use crate::call::Call;
use crate::error::{Effect, Error, Result};
use crate::info::{Description, Health, Hello};
use crate::store::{self, StateFs};
use crate::types::{Held, ListOptions, Metadata, Page, Rights, Usage, Value, WriteOptions};
use crate::version::Version;
pub use admin::Admin;
use line::{Connection, Line, Lost, Source};
pub use list::List;
pub use stream::{Reader, Writer};

/// How long a call is waited for unless [`Client::set_timeout`] says otherwise: long enough for a
/// slow medium under load, short enough that no script hangs.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What this crate calls itself to a daemon.
const NAME: &str = concat!("statefs-client ", env!("CARGO_PKG_VERSION"));

/// A client of a daemon, over one connection at a time.
///
/// It belongs to one thread. When the connection has ended, the next call that may be made again is
/// made over another one: a read, a write that was never sent, a batch with a token. A write whose
/// answer was lost is [`Error::Indeterminate`]. What begins something, such as [`Directory::writer`] and
/// [`Directory::calls`], begins it over another connection, too, where the one before is known to be over.
/// What was derived on a connection, by [`Directory::restrict`], [`Directory::writer`] or
/// [`Directory::reader`], ended with it. Calls that were made but not waited for when it is dropped may
/// never have been sent.
#[derive(Debug)]
pub struct Client {
    line: Rc<Line>,
}

impl Client {
    /// Connects to the daemon that serves the socket at `path`.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody does, or this user may not open it.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { line: Rc::new(Line::open(path.as_ref().into(), TIMEOUT)?) })
    }

    /// Says whether a connection that ended is made anew for what may be begun, or made again. At first
    /// it is; without it such a call answers [`Error::Disconnected`].
    pub fn set_reconnects(&self, reconnects: bool) {
        self.line.set_reconnects(reconnects);
    }

    /// Bounds how long each call is waited for; `None` waits for ever. At first it is [`TIMEOUT`].
    ///
    /// A write that is not answered in time is [`Error::Indeterminate`]. Of a batch with a token its connection is given up, too,
    /// so that the daemon does not take an answer for heard that came too late.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.line.connection().link.set_timeout(timeout);
    }

    /// Asks who answers, under the name of this crate.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hello(&self) -> Result<Hello> {
        self.hello_as(NAME)
    }

    /// Asks who answers; `client_name` is this program and its version, for the server's log.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hello_as(&self, client_name: &str) -> Result<Hello> {
        self.line.call(Lost::Open, |connection| Some(connection.store.hello(client_name)))
    }

    /// Asks how the store fares.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn health(&self) -> Result<Health> {
        self.line.call(Lost::Open, |connection| Some(connection.store.health()))
    }

    /// Yields the directory of the keys below `prefix`, "/state" or a path below it, for certain
    /// rights.
    ///
    /// Does not wait: a refusal is the answer to the first call on it, with which it shares a round
    /// trip.
    #[must_use]
    pub fn directory(&self, prefix: &str, rights: Rights) -> Directory {
        let source = Source::opened(&self.line.connection(), prefix, rights);
        Directory { line: self.line.clone(), source }
    }

    /// Asks for the compiled schema.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn describe(&self) -> Result<Description> {
        self.line.call(Lost::Open, |connection| Some(connection.store.describe()))
    }

    /// Yields the administration of the store.
    ///
    /// Does not wait: a refusal is the answer to each call on it.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.line.clone())
    }

    /// Waits for a call that was made on [`Directory::calls`] or [`Client::calls`].
    ///
    /// # Errors
    /// Those of the call and of the connection.
    pub fn wait<T: 'static>(&self, call: Call<T>) -> Result<T> {
        self.line.connection().link.wait(call)
    }

    /// Runs work of several calls on [`Client::calls`] to its end.
    ///
    /// The timeout bounds the time from one answer to the next, not the whole; bytes that are no whole
    /// answer do not count. When it is over so is the connection, and the work learns it from the call
    /// that it waits for.
    ///
    /// # Errors
    /// Those of the work; see [`crate::drive`].
    pub fn run<T, E: From<crate::Error>>(
        &self,
        work: impl Future<Output = core::result::Result<T, E>>,
    ) -> core::result::Result<T, E> {
        self.line.usable().link.run(work)
    }

    /// Yields the store for making calls without waiting for each; see [`Directory::calls`].
    #[must_use]
    pub fn calls(&self) -> StateFs {
        self.line.usable().store.clone()
    }
}

/// The keys below one prefix, for certain rights. Keys are relative to the prefix: no leading slash.
///
/// Every method waits for its answer. Besides the errors that it names, each may end with those of
/// the connection, and with [`Error::Refused`].
#[derive(Clone, Debug)]
pub struct Directory {
    line: Rc<Line>,
    source: Source,
}

impl Directory {
    /// Reads a key: its value, or `None` if there is no such key.
    ///
    /// # Errors
    /// [`Error::DataLoss`] if the key is damaged.
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        self.call(|calls| calls.get(key))
    }

    /// Reads version and size of a key, without reading the value from the device.
    ///
    /// # Errors
    /// [`Error::DataLoss`] if the key is known to be damaged.
    pub fn get_metadata(&self, key: &str) -> Result<Option<Metadata>> {
        self.call(|calls| calls.get_metadata(key))
    }

    /// Writes a key and yields the version of this write.
    ///
    /// Durability: the write is on the medium when this returns.
    ///
    /// # Errors
    /// [`Error::Indeterminate`] alone leaves open whether it was written.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.call(|calls| calls.put(key, value))
    }

    /// Writes a key that does not exist.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it does; [`Error::DataLoss`] if damage hides it.
    pub fn put_if_absent(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.call(|calls| calls.put_if_absent(key, value))
    }

    /// Writes a key that is in `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; [`Error::DataLoss`] if damage hides it.
    pub fn put_if_version(&self, key: &str, value: &[u8], version: Version) -> Result<Version> {
        self.call(|calls| calls.put_if_version(key, value, version))
    }

    /// Writes a key that is acknowledged once it is ordered; [`Directory::sync`] makes it durable.
    ///
    /// # Errors
    /// As [`Directory::put`].
    pub fn put_buffered(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.call(|calls| calls.put_buffered(key, value))
    }

    /// Writes a key as `options` say.
    ///
    /// # Errors
    /// As [`Directory::put`] and [`Directory::put_if_version`].
    pub fn put_with(&self, key: &str, value: &[u8], options: WriteOptions) -> Result<Version> {
        self.call(|calls| calls.put_with(key, value, options))
    }

    /// Deletes a key and yields whether there was something to delete.
    ///
    /// # Errors
    /// [`Error::Indeterminate`] alone leaves open whether it was deleted.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.call(|calls| calls.delete(key))
    }

    /// Deletes a key that is in `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; [`Error::DataLoss`] if damage hides it.
    pub fn delete_if_version(&self, key: &str, version: Version) -> Result<bool> {
        self.call(|calls| calls.delete_if_version(key, version))
    }

    /// Deletes a key as `options` say.
    ///
    /// # Errors
    /// As [`Directory::delete`] and [`Directory::delete_if_version`].
    pub fn delete_with(&self, key: &str, options: WriteOptions) -> Result<bool> {
        self.call(|calls| calls.delete_with(key, options))
    }

    /// Yields the entries of `options`, page by page as they are asked for. Its `limit` is that of
    /// a page.
    #[must_use]
    pub fn list(&self, options: ListOptions) -> List<'_> {
        List::new(self, options)
    }

    /// Reads one page of keys.
    ///
    /// # Errors
    /// Those of every call.
    pub fn page(&self, options: &ListOptions) -> Result<Page> {
        self.call(|calls| calls.page(options))
    }

    /// Makes durable what this client wrote as buffered before.
    ///
    /// # Errors
    /// [`Error::Indeterminate`] if some of it may be lost; so it may be once where a connection
    /// ended before it was synced.
    pub fn sync(&self) -> Result<()> {
        self.call(store::Directory::sync)?;
        if self.line.take_lost() {
            let cause = "the connection that it was written on ended before a sync".into();
            return Err(Error::Indeterminate { cause });
        }
        Ok(())
    }

    /// Reads several keys, in as many calls as it takes: one entry for each, `None` for one that is
    /// absent. They are not one snapshot.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ACCESS_DENIED` if one of the keys may not be read. A damaged key is
    /// [`Held::DataLoss`].
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Held>>> {
        let mut all = Vec::new();
        while let Some(rest) = keys.get(all.len()..).filter(|rest| !rest.is_empty()) {
            let told = self.call(|calls| calls.get_some(rest, false))?;
            // An answer that stood still would make an endless loop.
            if told.is_empty() || told.len() > rest.len() {
                let cause = "has another number of entries than it was asked for";
                return Err(Error::of_answer(cause, Effect::Reads));
            }
            all.extend(told);
        }
        Ok(all)
    }

    /// Makes all changes of a batch, or none, and yields for each the version that it gave its key:
    /// `None` for a delete.
    ///
    /// With a [`crate::Token`] it is sent again if the connection ended before it was answered.
    ///
    /// # Errors
    /// [`Error::BatchConflict`] and [`Error::BatchDataLoss`] where nothing happened.
    /// [`Error::Indeterminate`] leaves open whether all of it did; of a batch that was sent before, with another call or over a
    /// connection that was lost meanwhile, [`Error::BatchInDoubt`] leaves open whether it happened then.
    pub fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>> {
        let lost = if batch.token.is_some() { Lost::Known } else { Lost::Open };
        self.line.call(lost, |connection| Some(self.source.on(connection)?.commit(batch)))
    }

    /// Begins to write a value of any size; `bytes` is its size if that is known. It is visible once
    /// [`Writer::finish`] has returned, and never in part.
    ///
    /// Does not wait: a refusal is the answer to the first write that is waited for.
    #[must_use]
    pub fn writer(&self, key: &str, bytes: Option<u64>, options: WriteOptions) -> Writer {
        let (connection, calls) = self.now();
        Writer::new(connection, calls.writer(key, bytes, options))
    }

    /// Begins to read a value of any size; `None` if there is no such key.
    ///
    /// # Errors
    /// [`Error::DataLoss`] if the key is damaged.
    pub fn reader(&self, key: &str) -> Result<Option<Reader>> {
        let made = std::cell::RefCell::new(None);
        let info = self.line.call(Lost::Open, |connection| {
            let reader = self.source.on(connection)?.reader(key);
            let info = reader.info();
            made.replace(Some((connection.clone(), reader)));
            Some(info)
        })?;
        let reader = made.take().zip(info);
        Ok(reader.map(|((connection, calls), metadata)| Reader::new(connection, calls, metadata)))
    }

    /// Yields a directory that can do less than this one, for the keys below `prefix`, and what
    /// takes it away; see [`store::Directory::restrict`]. Both end with the connection.
    ///
    /// Does not wait: a refusal is the answer to the first call on either.
    #[must_use]
    pub fn restrict(
        &self,
        prefix: &str,
        rights: Rights,
        expiry: Option<Duration>,
    ) -> (Self, Revoker) {
        let (connection, calls) = self.now();
        let (directory, calls) = calls.restrict(prefix, rights, expiry);
        let source = Source::Derived(connection.clone(), directory);
        (Self { line: self.line.clone(), source }, Revoker { connection, calls })
    }

    /// Asks what a key and all beneath it hold, and what they may; of the whole directory if
    /// `prefix` is empty. Needs the right to list all of it.
    ///
    /// # Errors
    /// Those of every call.
    pub fn usage(&self, prefix: &str) -> Result<Usage> {
        self.call(|calls| calls.usage(prefix))
    }

    /// Yields the directory for making calls without waiting for each: they share round trips, and
    /// durable writes share flushes.
    ///
    /// A server admits [`crate::Limits::calls`] calls and [`crate::Limits::bytes_in_flight`] bytes
    /// at a time and refuses more with `OVERLOADED`, so wait now and then.
    ///
    /// ```no_run
    /// # use statefs_client::{Client, Error, Rights};
    /// # fn batch(client: &Client) -> Result<(), Error> {
    /// let log = client.directory("/state/log", Rights::PUT);
    /// let calls: Vec<_> = ["a", "b", "c"].map(|key| log.calls().put(key, b"1")).into();
    /// for call in calls {
    ///     client.wait(call)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn calls(&self) -> store::Directory {
        self.now().1
    }

    fn call<T: 'static>(&self, make: impl Fn(&store::Directory) -> Call<T>) -> Result<T> {
        self.line.call(Lost::Open, |connection| Some(make(&self.source.on(connection)?)))
    }

    fn now(&self) -> (Rc<Connection>, store::Directory) {
        self.source.now(&self.line.usable())
    }
}

/// The power to end one directory that came from [`Directory::restrict`].
#[derive(Clone, Debug)]
pub struct Revoker {
    connection: Rc<Connection>,
    calls: store::Revoker,
}

impl Revoker {
    /// Ends the directory and all that was derived from it: their calls answer `REVOKED`.
    ///
    /// # Errors
    /// Those of the connection, with whose end the directory ended too.
    pub fn revoke(&self) -> Result<()> {
        self.connection.link.call(|| self.calls.revoke())
    }
}
