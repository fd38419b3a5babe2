//! The blocking client over the daemon's Unix socket.
//!
//! It needs no runtime and starts no thread: bytes move while a call is waited for, and only then.

mod connect;
mod link;
mod list;

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::call::Call;
use crate::error::Result;
use crate::info::{Health, Hello};
use crate::store::{self, StateFs};
use crate::types::{ListOptions, Metadata, Page, Rights, Value, WriteOptions};
use crate::version::Version;
use link::Link;
pub use list::List;

/// How long a call is waited for unless [`Client::set_timeout`] says otherwise: long enough for a
/// slow medium under load, short enough that no script hangs.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a daemon.
///
/// It belongs to one thread. When it has ended, every call says so; connect anew. Calls that were
/// made but not waited for when it is dropped may never have been sent.
#[derive(Debug)]
pub struct Client {
    link: Rc<Link>,
    store: StateFs,
}

impl Client {
    /// Connects to the daemon that serves the socket at `path`.
    ///
    /// # Errors
    /// [`crate::Error::Connect`] if nobody does, or this user may not open it.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let link = Rc::new(Link::new(connect::connect(path.as_ref(), TIMEOUT)?, TIMEOUT));
        let store = StateFs::over(link.vat());
        Ok(Self { link, store })
    }

    /// Bounds how long each call is waited for; `None` waits for ever. At first it is [`TIMEOUT`].
    ///
    /// A write that is not answered in time is [`crate::Error::Indeterminate`].
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.link.set_timeout(timeout);
    }

    /// Asks who answers, under the name of this crate.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hello(&self) -> Result<Hello> {
        self.hello_as(concat!("statefs-client ", env!("CARGO_PKG_VERSION")))
    }

    /// Asks who answers; `client_name` is this program and its version, for the server's log.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hello_as(&self, client_name: &str) -> Result<Hello> {
        self.link.call(|| self.store.hello(client_name))
    }

    /// Asks how the store fares.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn health(&self) -> Result<Health> {
        self.link.call(|| self.store.health())
    }

    /// Yields the directory of the keys below `prefix`, "/state" or a path below it, for certain
    /// rights.
    ///
    /// Does not wait: a refusal is the answer to the first call on it, with which it shares a round
    /// trip.
    #[must_use]
    pub fn directory(&self, prefix: &str, rights: Rights) -> Directory {
        let calls = self.store.directory(prefix, rights);
        Directory { link: self.link.clone(), calls }
    }

    /// Waits for a call that was made on [`Directory::calls`] or [`Client::calls`].
    ///
    /// # Errors
    /// Those of the call and of the connection.
    pub fn wait<T: 'static>(&self, call: Call<T>) -> Result<T> {
        self.link.wait(call)
    }

    /// Runs work of several calls on [`Client::calls`] to its end.
    ///
    /// The timeout bounds the silence between two answers, not the whole. When it is over so is the
    /// connection, and the work learns it from the call that it waits for.
    ///
    /// # Errors
    /// Those of the work; see [`crate::drive`].
    pub fn run<T, E: From<crate::Error>>(
        &self,
        work: impl Future<Output = core::result::Result<T, E>>,
    ) -> core::result::Result<T, E> {
        self.link.run(work)
    }

    /// Yields the store for making calls without waiting for each; see [`Directory::calls`].
    #[must_use]
    pub fn calls(&self) -> &StateFs {
        &self.store
    }
}

/// The keys below one prefix, for certain rights. Keys are relative to the prefix: no leading slash.
///
/// Every method waits for its answer. Besides the errors that it names, each may end with those of
/// the connection, and with [`crate::Error::Refused`].
#[derive(Clone, Debug)]
pub struct Directory {
    link: Rc<Link>,
    calls: store::Directory,
}

impl Directory {
    /// Reads a key: its value, or `None` if there is no such key.
    ///
    /// # Errors
    /// [`crate::Error::DataLoss`] if the key is damaged.
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        self.link.call(|| self.calls.get(key))
    }

    /// Reads version and size of a key, without reading the value from the device.
    ///
    /// # Errors
    /// [`crate::Error::DataLoss`] if the key is known to be damaged.
    pub fn get_metadata(&self, key: &str) -> Result<Option<Metadata>> {
        self.link.call(|| self.calls.get_metadata(key))
    }

    /// Writes a key and yields the version of this write.
    ///
    /// Durability: the write is on the medium when this returns.
    ///
    /// # Errors
    /// [`crate::Error::Indeterminate`] alone leaves open whether it was written.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.link.call(|| self.calls.put(key, value))
    }

    /// Writes a key that does not exist.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] if it does; [`crate::Error::DataLoss`] if damage hides it.
    pub fn put_if_absent(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.link.call(|| self.calls.put_if_absent(key, value))
    }

    /// Writes a key that is in `version`.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] if it is not; [`crate::Error::DataLoss`] if damage hides it.
    pub fn put_if_version(&self, key: &str, value: &[u8], version: Version) -> Result<Version> {
        self.link.call(|| self.calls.put_if_version(key, value, version))
    }

    /// Writes a key that is acknowledged once it is ordered; [`Directory::sync`] makes it durable.
    ///
    /// # Errors
    /// As [`Directory::put`].
    pub fn put_buffered(&self, key: &str, value: &[u8]) -> Result<Version> {
        self.link.call(|| self.calls.put_buffered(key, value))
    }

    /// Writes a key as `options` say.
    ///
    /// # Errors
    /// As [`Directory::put`] and [`Directory::put_if_version`].
    pub fn put_with(&self, key: &str, value: &[u8], options: WriteOptions) -> Result<Version> {
        self.link.call(|| self.calls.put_with(key, value, options))
    }

    /// Deletes a key and yields whether there was something to delete.
    ///
    /// # Errors
    /// [`crate::Error::Indeterminate`] alone leaves open whether it was deleted.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.link.call(|| self.calls.delete(key))
    }

    /// Deletes a key that is in `version`.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] if it is not; [`crate::Error::DataLoss`] if damage hides it.
    pub fn delete_if_version(&self, key: &str, version: Version) -> Result<bool> {
        self.link.call(|| self.calls.delete_if_version(key, version))
    }

    /// Deletes a key as `options` say.
    ///
    /// # Errors
    /// As [`Directory::delete`] and [`Directory::delete_if_version`].
    pub fn delete_with(&self, key: &str, options: WriteOptions) -> Result<bool> {
        self.link.call(|| self.calls.delete_with(key, options))
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
        self.link.call(|| self.calls.page(options))
    }

    /// Makes durable what this connection wrote as buffered before.
    ///
    /// # Errors
    /// [`crate::Error::Indeterminate`] if some of it may be lost.
    pub fn sync(&self) -> Result<()> {
        self.link.call(|| self.calls.sync())
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
    pub fn calls(&self) -> &store::Directory {
        &self.calls
    }
}
