//! Values of any size on their way in and out, one chunk or part at a time.
//!
//! Each of these is a capability that its client may hold for as long as its connection lasts, so
//! how many there are is bounded, and what each may hold counts as held by the connection.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use journal::{CommitError, Opened, Outcome, Piece, Upload, ValueReader, Version};
use policy::{Granted, Key};

use crate::error::Error;
use crate::permits::{Permit, Permits};
use crate::request::{Get, Store};
use crate::session::{Caller, Shared};
use crate::slots::Slot;
use crate::store::Written;

/// What one writer or reader holds: two chunks and the state of a digest.
pub(crate) const STREAM_BYTES: usize = 2 * journal::VALUE_BYTES_MAX + 8192;

/// One value on its way in. Dropped before its end, it gives up what was written.
pub(crate) struct Incoming {
    /// `None` once it was ended, or while a chunk is taken; a call that is cancelled leaves it so.
    upload: RefCell<Option<(Upload, Arrival)>>,
    /// The most bytes that it may have.
    most: u64,
    /// Whether its end was asked for.
    closed: Cell<bool>,
    _slot: Slot,
}

/// What is charged of an upload before its end, no longer than that is on its way.
struct Arrival {
    shared: Rc<Shared>,
    number: u64,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.shared.store.forget(self.number);
    }
}

/// One value on its way out.
pub(crate) struct Outgoing {
    held: Held,
    /// One read at a time.
    turn: Permits,
    _slot: Slot,
}

/// What a key held when a reader was made.
enum Held {
    DataLoss,
    Absent,
    Value { version: Version, bytes: u64, reader: RefCell<ValueReader>, lost: Cell<bool> },
}

/// What a reader is told of its value.
pub(crate) enum Info {
    DataLoss,
    Absent,
    Value { version: Version, bytes: u64 },
}

/// What a read of a part yields.
pub(crate) enum Part {
    DataLoss,
    Changed,
    Absent,
    Data { bytes: alloc::rc::Rc<[u8]>, most: usize },
}

impl Incoming {
    /// Begins a value that is `bytes` long, as far as that is known, of a caller that sees what its key holds or does not.
    ///
    /// # Errors
    /// What the value would be refused for at its end, as far as that can be told; and
    /// [`Error::TooMany`].
    pub(crate) fn begin(
        caller: &Caller,
        granted: &Granted<Store>,
        sees: bool,
        bytes: u64,
    ) -> Result<Self, Error> {
        let slot = slot(caller)?;
        let store = &caller.shared.store;
        let journal = store.journal()?;
        if let journal::Mode::ReadOnly(reason) = journal.mode() {
            return Err(Error::ReadOnly(reason));
        }
        let most = store.large_bytes_max();
        fits(bytes, most)?;
        let key = &granted.request().key;
        let number = store.expect(key, bytes, sees);
        let number = number.inspect_err(|error| caller.tell_quota(error))?;
        let arrival = Arrival { shared: caller.shared.clone(), number };
        let upload = RefCell::new(Some((journal.upload(caller.origin()), arrival)));
        Ok(Self { upload, most, closed: Cell::new(false), _slot: slot })
    }

    /// Ends it without a value: there is nothing to wait for any more.
    pub(crate) fn give_up(&self) {
        self.upload.take();
    }

    /// Takes no more: what has come is the value, however long its end has to wait.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Appends a chunk of a caller that sees what the key holds or does not, and returns once there is room for more.
    ///
    /// # Errors
    /// Why there can be no end any more.
    pub(crate) async fn append(
        &self,
        caller: &Caller,
        _: &Granted<Store>,
        sees: bool,
        chunk: &[u8],
    ) -> Result<(), Error> {
        let (mut upload, arrival) = self.upload.take().ok_or(Error::Argument(OVER))?;
        let store = &caller.shared.store;
        let bytes = upload.total_bytes().saturating_add(chunk.len() as u64);
        // Told before the volume is full of it, which is another error and ends by itself.
        fits(bytes, self.most)?;
        let arrived = store.arrive(arrival.number, bytes, sees);
        arrived.inspect_err(|error| caller.tell_quota(error))?;
        let (journal, service) = (store.journal()?, caller.service_name());
        let appended = store.line.append(&journal, service, &mut upload, chunk).await;
        appended.map_err(|error| broken(caller, error))?;
        self.upload.replace(Some((upload, arrival)));
        Ok(())
    }

    /// Waits until [`Incoming::finish`] may put the last piece into the queue.
    ///
    /// # Errors
    /// Why there is no volume.
    pub(crate) async fn room(&self, caller: &Caller) -> Result<(), Error> {
        let store = &caller.shared.store;
        store.line.room(&store.journal()?, caller.service_name()).await;
        Ok(())
    }

    /// Ends the value and gives it to its key.
    pub(crate) async fn finish(
        &self,
        caller: &Caller,
        granted: Granted<Store>,
    ) -> Result<Written, Error> {
        let (upload, arrival) = self.upload.take().ok_or(Error::Argument(OVER))?;
        // The end is charged in its place.
        drop(arrival);
        let granted = [granted];
        let upload = upload.with_notes(caller.mutation(&granted, 0));
        let [granted] = granted;
        let Store { key, precondition, durability } = granted.into_request();
        caller.note(durability);
        let store = &caller.shared.store;
        let service = caller.service_name();
        let written = store.finish(service, upload, key, precondition, durability).await;
        written.inspect_err(|error| caller.tell_quota(error))
    }
}

impl Outgoing {
    /// Opens what a key holds now.
    ///
    /// # Errors
    /// [`Error::TooMany`], and why the key cannot be read.
    pub(crate) async fn open(caller: &Caller, granted: Granted<Get>) -> Result<Self, Error> {
        let slot = slot(caller)?;
        let journal = caller.shared.store.journal()?;
        let Get { key, .. } = granted.into_request();
        let now = crate::store::version(&journal, &key);
        let held = match journal.open_value(key.as_str().as_bytes(), caller.origin()).await {
            Opened::Value(reader) => Held::Value {
                version: reader.version(),
                bytes: reader.total_bytes(),
                lost: Cell::new(caller.shared.store.knows_damage(&key, reader.version())),
                reader: RefCell::new(reader),
            },
            Opened::Absent => Held::Absent,
            Opened::DataLoss => {
                now.into_iter()
                    .for_each(|now| caller.shared.store.note_damage(&journal, &key, now));
                Held::DataLoss
            }
            Opened::Unreadable => return Err(Error::Unreadable),
        };
        Ok(Self { held, turn: Permits::new(1), _slot: slot })
    }

    pub(crate) fn info(&self, _: &Granted<Get>) -> Info {
        match &self.held {
            Held::DataLoss => Info::DataLoss,
            Held::Absent => Info::Absent,
            Held::Value { lost, .. } if lost.get() => Info::DataLoss,
            Held::Value { version, bytes, .. } => Info::Value { version: *version, bytes: *bytes },
        }
    }

    /// Reads from `at` on, at most `bytes_max` bytes, for which there is a permit.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    #[expect(
        clippy::await_holding_refcell_ref,
        reason = "who reads has the one turn, and a call that is cancelled gives both back"
    )]
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        granted: &Granted<Get>,
        at: u64,
        bytes_max: usize,
        _: Permit,
    ) -> Result<Part, Error> {
        let _turn = self.turn.take(1).await;
        let (reader, lost, version) = match &self.held {
            Held::DataLoss => return Ok(Part::DataLoss),
            Held::Absent => return Ok(Part::Absent),
            Held::Value { reader, lost, version, .. } => (reader, lost, *version),
        };
        let key = &granted.request().key;
        // What is cached of a small value says nothing of the key as it is now.
        if !self.is_current(caller, key).await? {
            return Ok(Part::Changed);
        }
        let piece = reader.borrow_mut().read(at).await;
        Ok(match piece {
            Piece::Bytes(bytes) => Part::Data { bytes, most: bytes_max },
            Piece::Changed => Part::Changed,
            Piece::Unreadable => return Err(Error::Unreadable),
            Piece::DataLoss => {
                lost.set(true);
                let store = &caller.shared.store;
                store.note_damage(&store.journal()?, key, version);
                Part::DataLoss
            }
        })
    }

    async fn is_current(&self, caller: &Caller, key: &Key) -> Result<bool, Error> {
        let journal = caller.shared.store.journal()?;
        let now = journal.look(key.as_str().as_bytes(), caller.origin()).await;
        Ok(match (&self.held, now) {
            (Held::Value { version, .. }, journal::Looked::Present(seen)) => {
                seen.version() == *version
            }
            // Damage is told by what is read.
            (_, journal::Looked::DataLoss) => true,
            (_, journal::Looked::Present(_) | journal::Looked::Absent) => false,
        })
    }
}

/// Refuses a value that is longer than any may be.
fn fits(bytes: u64, most: u64) -> Result<(), Error> {
    let number = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    let long = Error::ValueBytes { bytes: number(bytes), most: number(most) };
    if bytes > most { Err(long) } else { Ok(()) }
}

fn slot(caller: &Caller) -> Result<Slot, Error> {
    let most = caller.shared.limits.streams;
    caller.streams.take().ok_or(Error::TooMany { what: "writers and readers", most })
}

/// Says why a chunk was not taken. That the device failed is no open end: nothing is visible.
fn broken(caller: &Caller, error: CommitError) -> Error {
    let mode = caller.shared.store.journal().map(|journal| journal.mode());
    match (Error::of_commit(error), mode) {
        (Some(error), _) => error,
        (None, Ok(journal::Mode::ReadOnly(reason))) => Error::ReadOnly(reason),
        (None, _) => Error::Argument(OVER),
    }
}

/// Maps how the end of an upload was answered.
pub(crate) fn written(end: Result<Outcome, CommitError>) -> Result<Written, Error> {
    match end {
        Ok(Outcome::Applied(applied)) => Ok(Written::Applied(applied)),
        Ok(Outcome::Conflict { at, current }) => Ok(Written::Conflict { at, current }),
        Ok(Outcome::DataLoss { at }) => Ok(Written::DataLoss { at }),
        Err(error) => Error::of_commit(error).map_or(Ok(Written::Indeterminate), Err),
    }
}

/// Why a writer is of no more use.
pub(crate) const OVER: &str = "the writer is over: it was ended, or a call on it failed";
