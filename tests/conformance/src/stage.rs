//! Where a case plays: a host, a place of its own, and connections.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;

use statefs_client::{Directory, Error, Hello, ListOptions, Result, Rights, StateFs, drive};
use vat::Vat;

use crate::host::{Channel, End, Host};

/// What must hold of every host. It panics if it does not.
pub type Case = fn(&mut Stage<'_>);

/// A host, and the subtree that belongs to one case.
pub struct Stage<'h> {
    host: &'h mut dyn Host,
    place: String,
}

impl<'h> Stage<'h> {
    /// Yields the stage of the case `name`, with nothing on it.
    pub(crate) fn clear(host: &'h mut dyn Host, name: &str) -> Self {
        let mut stage = Self { host, place: format!("/state/suite/{}", name.replace("::", "/")) };
        let owner = stage.connect("owner");
        let all = owner.directory(&stage.place, Rights::ALL);
        for key in all_keys(&owner, &all, ListOptions::default()) {
            assert_eq!(owner.wait(all.delete(&key)), Ok(true));
        }
        drop(owner);
        stage
    }

    /// The directory of this case, a whole path.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Connects as a service.
    pub fn connect(&mut self, service: &'static str) -> Port {
        Port::over(self.host.connect(service))
    }

    /// Connects as `owner`, and opens the directory of this case.
    pub fn owner(&mut self) -> (Port, Directory) {
        self.connect_here("owner")
    }

    /// Connects as a service, and opens the directory of this case.
    pub fn connect_here(&mut self, service: &'static str) -> (Port, Directory) {
        let port = self.connect(service);
        let directory = port.directory(&self.place, Rights::ALL);
        (port, directory)
    }

    /// Ends the daemon and starts it again.
    pub fn restart(&mut self, end: End) {
        self.host.restart(end);
    }
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A connection to the host's daemon.
pub struct Port {
    vat: Vat,
    store: StateFs,
    channel: RefCell<Box<dyn Channel>>,
    heard: RefCell<Vec<u8>>,
}

impl Port {
    /// Takes a channel and asks for the store at its other end.
    fn over(channel: Box<dyn Channel>) -> Self {
        let vat = Vat::new(None, vat::Limits::default());
        let store = StateFs::over(&vat);
        Self { vat, store, channel: RefCell::new(channel), heard: RefCell::default() }
    }

    /// The store, for making calls.
    #[must_use]
    pub fn store(&self) -> &StateFs {
        &self.store
    }

    /// Opens a directory, for making calls.
    #[must_use]
    pub fn directory(&self, prefix: &str, rights: Rights) -> Directory {
        self.store.directory(prefix, rights)
    }

    /// Waits for a call of this connection, or for work of several.
    ///
    /// # Errors
    /// Those of the work.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        drive(&self.vat, work, |vat| {
            let input = self.channel.borrow_mut().exchange(&vat.take_output())?;
            self.heard.borrow_mut().extend(&input);
            // What is wrong with it is kept by the vat, which is over then.
            vat.receive(&input).unwrap_or_default();
            Ok(())
        })
    }

    /// Yields every byte that the daemon has sent on this connection.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        self.heard.borrow().clone()
    }

    /// Asks who answers.
    ///
    /// # Panics
    /// If nobody does.
    #[must_use]
    pub fn hello(&self) -> Hello {
        self.wait(self.store.hello("conformance 1")).unwrap()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

/// Walks all pages of a list for its keys.
pub(crate) fn all_keys(port: &Port, directory: &Directory, options: ListOptions) -> Vec<String> {
    let mut options = ListOptions { keys_only: true, ..options };
    let mut keys = Vec::new();
    loop {
        let page = port.wait(directory.page(&options)).unwrap();
        assert!(page.intact, "nothing was damaged");
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { return keys };
        assert!(next > options.after, "a cursor that stands still");
        options.after = next;
    }
}

/// Demands that the policy refused it, and tells nothing more.
#[track_caller]
pub(crate) fn assert_denied<T: fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert_eq!(error.code(), "ACCESS_DENIED", "{error:?}");
    let says_nothing = matches!(&error, Error::Refused { message, .. } if message.is_empty());
    assert!(says_nothing, "{error:?}");
}

/// Demands that it was refused with this code.
#[track_caller]
pub(crate) fn assert_refused<T: fmt::Debug>(answer: Result<T>, code: &str) {
    let error = answer.unwrap_err();
    assert!(error.refusal().is_some(), "{error:?}");
    assert_eq!(error.code(), code, "{error:?}");
}
