//! A daemon's socket, and the connection over it that is in use: made anew when it has ended and
//! what was asked for may be asked again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::format;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::string::String;
use std::time::Duration;

use super::connect::connect;
use super::link::Link;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::store::{self, StateFs};
use crate::types::Rights;

/// One connection and what was asked of its daemon.
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) store: StateFs,
}

/// A socket, over all connections.
pub(super) struct Line {
    path: PathBuf,
    connection: RefCell<Rc<Connection>>,
    reconnects: Cell<bool>,
    /// A connection ended with buffered writes that no sync had confirmed.
    lost: Cell<bool>,
}

/// What may be done with a call whose answer was lost with its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: a write may have happened. A read may be made again all the same.
    Open,
    /// Make it again: the daemon knows it by its token.
    Known,
}

impl Line {
    pub(super) fn open(path: PathBuf, timeout: Duration) -> Result<Self> {
        let connection = RefCell::new(Rc::new(dial(&path, Some(timeout), timeout)?));
        Ok(Self { path, connection, reconnects: Cell::new(true), lost: Cell::new(false) })
    }

    pub(super) fn connection(&self) -> Rc<Connection> {
        self.connection.borrow().clone()
    }

    /// Yields the connection to begin something on: the one in use, or another one if that was lost.
    pub(super) fn usable(&self) -> Rc<Connection> {
        let connection = self.connection();
        self.renewed(&connection).unwrap_or(connection)
    }

    pub(super) fn set_reconnects(&self, reconnects: bool) {
        self.reconnects.set(reconnects);
    }

    /// Makes a call and waits for it; once more over another connection where the first one ended
    /// and nothing can have happened twice.
    ///
    /// `make` yields what can be made on a connection: `None` for what ended with another one.
    pub(super) fn call<T: 'static>(
        &self,
        lost: Lost,
        make: impl Fn(&Rc<Connection>) -> Option<Call<T>>,
    ) -> Result<T> {
        let connection = self.connection();
        let first = attempt(&connection, &make);
        let repeatable = match &first {
            // A read, or something that was never sent.
            Err(Error::Disconnected { .. }) => true,
            // One that was not answered in time has used up the caller's patience.
            Err(Error::Indeterminate { .. }) => {
                lost == Lost::Known && !connection.link.is_given_up()
            }
            _ => false,
        };
        // Nobody there to ask again: what the first attempt met is what the caller has to know.
        match repeatable.then(|| self.renewed(&connection)).flatten() {
            None => first,
            Some(connection) => joined(first, attempt(&connection, &make)),
        }
    }

    /// Whether buffered writes were lost sight of with a connection; told once.
    pub(super) fn take_lost(&self) -> bool {
        self.lost.take()
    }

    /// Yields what takes the place of a connection: `None` if that was not lost, or there is nothing.
    fn renewed(&self, old: &Rc<Connection>) -> Option<Rc<Connection>> {
        if !self.reconnects.get() || !old.link.is_lost() {
            return None;
        }
        let current = self.connection();
        if !Rc::ptr_eq(&current, old) {
            return Some(current);
        }
        let timeout = old.link.timeout();
        let patience = timeout.unwrap_or(super::TIMEOUT);
        let connection = Rc::new(dial(&self.path, timeout, patience).ok()?);
        if old.store.has_unsynced() {
            self.lost.set(true);
        }
        self.connection.replace(connection.clone());
        Some(connection)
    }
}

fn dial(path: &Path, timeout: Option<Duration>, patience: Duration) -> Result<Connection> {
    let link = Link::new(connect(path, patience)?, timeout);
    let store = StateFs::over(link.vat());
    Ok(Connection { link, store })
}

fn attempt<T: 'static>(
    connection: &Rc<Connection>,
    make: &impl Fn(&Rc<Connection>) -> Option<Call<T>>,
) -> Result<T> {
    connection.link.call(|| {
        let gone = || Error::Disconnected { cause: "it ended with its connection".into() };
        make(connection).unwrap_or_else(|| Call::refused(gone()))
    })
}

/// Yields what two attempts tell together. One that failed before the daemon looked for the token says nothing of the one
/// before it, which stays open.
fn joined<T>(first: Result<T>, second: Result<T>) -> Result<T> {
    match (first, second) {
        // Judged anew: the daemon did not know the token, so nothing had happened.
        (_, Err(judged @ (Error::BatchConflict { .. } | Error::BatchDataLoss { .. }))) => {
            Err(judged)
        }
        // Leaves the first attempt open too, and has to be told: the daemon takes it for heard.
        (_, doubt @ Err(Error::BatchInDoubt)) => doubt,
        (Err(Error::Indeterminate { cause }), Err(again)) => {
            let cause = format!("{cause}; made again, it ended with {}: {again}", again.code());
            Err(Error::Indeterminate { cause })
        }
        (_, second) => second,
    }
}

/// How a directory comes to be on a connection.
#[derive(Clone)]
pub(super) enum Source {
    /// By its prefix, on any.
    Opened {
        prefix: String,
        rights: Rights,
        /// On the one where it was asked for last.
        last: RefCell<(Rc<Connection>, store::Directory)>,
    },
    /// Derived on this one, and gone with it.
    Derived(Rc<Connection>, store::Directory),
}

impl Source {
    pub(super) fn opened(connection: &Rc<Connection>, prefix: &str, rights: Rights) -> Self {
        let directory = connection.store.directory(prefix, rights);
        let last = RefCell::new((connection.clone(), directory));
        Self::Opened { prefix: prefix.into(), rights, last }
    }

    /// Yields the directory on a connection; `None` if it ended with another one.
    pub(super) fn on(&self, connection: &Rc<Connection>) -> Option<store::Directory> {
        match self {
            Self::Opened { prefix, rights, last } => {
                let mut last = last.borrow_mut();
                // What refused it may have passed, or waits for nothing but another try.
                if !Rc::ptr_eq(&last.0, connection) || last.1.is_refused() {
                    let directory = connection.store.directory(prefix, *rights);
                    *last = (connection.clone(), directory);
                }
                Some(last.1.clone())
            }
            Self::Derived(own, directory) => Rc::ptr_eq(own, connection).then(|| directory.clone()),
        }
    }

    /// Yields the directory where it is now: of one that ended with its connection, what is left.
    pub(super) fn now(&self, connection: &Rc<Connection>) -> (Rc<Connection>, store::Directory) {
        match self {
            Self::Derived(own, directory) => (own.clone(), directory.clone()),
            Self::Opened { .. } => {
                let directory = self.on(connection).expect("what is opened is on any connection");
                (connection.clone(), directory)
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link).finish_non_exhaustive()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}
