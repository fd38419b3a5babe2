//! Batches that may be sent again: what was answered to each token.
//!
//! A batch with a token writes one key more, in the same commit: a slot beside everybody's keys that
//! names the service, the token and the operations. So the batch and the memory of it survive
//! together or not at all, and the table is read back from the slots when the volume is opened.
//! What versions the batch gave is not written: births are numbered without gaps in a batch, and
//! the slot's own version leads to them.
//!
//! Births do not outlast the volume: of a batch that was saved from another one it is known that it was applied, and not what
//! versions it gave. Its slot says so, see [`carried_over`], and its sender is told.
//!
//! What damage took of the slots is not taken for batches that were never sent: see [`crate::doubt`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::cmp::Reverse;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use journal::{Applied, Got, Journal, Looked, Origin, Precondition, Version};

use crate::doubt::{Doubt, Sending};
use crate::error::Error;
use crate::page::all;
use crate::plant::{Plant, Plants};
use crate::request::{Change, Token};
use crate::slots::{Slot, Slots};
use crate::store::Written;

/// Batches that the schema promises to remember.
pub(crate) const REMEMBERED: usize = 1024;

/// Slots: as many as that, and some for batches under way.
pub(crate) const SLOTS: u16 = 1024 + 256;

/// Batches of one service that are under way: nobody's slot is taken for another one before it has an end.
const UNDER_WAY_OF_SERVICE_MAX: usize = 256;

/// Slots that are read at the same time when a volume is opened.
const READS_AT_ONCE: usize = 64;

/// Where the slots lie. No key of a client begins so: theirs begin with a slash.
const SLOT_PREFIX: &str = "token/";

/// What a slot takes of a batch's room.
pub(crate) const RECORD_BYTES_MAX: usize = 512;

/// Who sent which token.
type Name = (String, Token);

/// What operations a batch has.
pub(crate) type OperationsDigest = [u8; 32];

/// Every batch that is remembered.
#[derive(Default)]
pub(crate) struct Tokens(Rc<RefCell<Table>>);

#[derive(Default)]
struct Table {
    known: BTreeMap<Name, Entry>,
    /// By their names, which are as many as policies ever named.
    services: BTreeMap<String, Service>,
    free: Vec<u16>,
    doubt: Doubt,
    next: u64,
}

/// The batches of one service.
struct Service {
    /// By their age.
    ages: BTreeMap<u64, Token>,
    under_way: Slots,
}

impl Default for Service {
    fn default() -> Self {
        Self { ages: BTreeMap::new(), under_way: Slots::new(UNDER_WAY_OF_SERVICE_MAX) }
    }
}

struct Entry {
    age: u64,
    slot: u16,
    digest: OperationsDigest,
    end: Rc<End>,
}

/// How a batch ended, once it has.
#[derive(Default)]
struct End {
    state: RefCell<State>,
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Clone, Default)]
enum State {
    #[default]
    Pending,
    Ended(Written),
    /// It was acknowledged as buffered when the journal had so many drops: more since then may have taken it.
    Buffered(Written, u64),
    /// Nobody waited for the end; the slot tells.
    Unknown,
    /// It was applied in a volume that this one was saved from. What versions it gave, nothing tells.
    Saved,
}

/// What is to be done about a batch.
pub(crate) enum Begun {
    /// It is new: write it, and this slot with it.
    New(Ticket),
    /// It was sent before.
    Known(Known),
    /// It may have been, or what it gave is not known: nothing tells.
    InDoubt,
}

/// A batch under way. Dropped without an end, it leaves the end to be looked up; one that was refused is forgotten.
pub(crate) struct Ticket {
    table: Rc<RefCell<Table>>,
    end: Rc<End>,
    refused: Cell<bool>,
    name: Name,
    age: u64,
    slot: u16,
    digest: OperationsDigest,
    _under_way: Slot,
}

/// A batch that was sent before.
pub(crate) struct Known {
    end: Rc<End>,
    name: Name,
    age: u64,
    slot: u16,
}

/// What a slot holds, for a batch.
enum Slotted {
    /// Its record, by which it was applied.
    Applied(Vec<Applied>),
    /// Something else.
    Other,
    /// Nobody knows.
    Lost,
}

impl Tokens {
    /// Reads the table back from a volume that was opened.
    pub(crate) async fn load(journal: &Journal, plants: Plants) -> Self {
        let mut slots = Vec::new();
        journal.scan(SLOT_PREFIX.as_bytes(), |key, seen| {
            let number = slot_number(key).filter(|_| !plants.has(Plant::TokensForgotten));
            slots.extend(number.map(|number| (number, key.to_vec(), seen)));
            key.starts_with(SLOT_PREFIX.as_bytes())
        });
        let mut table = Table::default();
        let (mut unread, mut certain) = (Vec::new(), 0);
        for some in slots.chunks(READS_AT_ONCE) {
            let reads = some.iter().map(|(_, key, seen)| journal.value(key, seen));
            for ((slot, _, seen), got) in some.iter().zip(all(reads).await) {
                if let Got::Value { version, value } = got
                    && let Some(record) = Record::decode(&value)
                {
                    let applied = record.applied(journal, version).map(Written::Applied);
                    table.remember(*slot, &record, applied.map_or(State::Saved, State::Ended));
                    // What is out of date was true once: its batch was applied, and maybe another one.
                    certain += usize::from(!seen.suspect);
                } else {
                    unread.push(*slot);
                }
            }
        }
        let taken = |slot: &u16| slots.iter().any(|(taken, ..)| taken == slot);
        let empty = (0..SLOTS).rev().filter(|slot| !taken(slot)).collect();
        let lost = journal.has_doubt() && certain < REMEMBERED;
        let (free, empty) = if lost { (Vec::new(), Some(empty)) } else { (empty, None) };
        table.free.extend(free);
        table.doubt = Doubt::new(unread, empty, certain);
        Self(Rc::new(RefCell::new(table)))
    }

    /// Tells of how many batches what was remembered cannot be read.
    pub(crate) fn unread(&self) -> usize {
        self.0.borrow().doubt.unread()
    }

    /// Finds a batch, or gives it a slot.
    ///
    /// # Errors
    /// [`Error::Argument`] if the token was used for another batch; [`Error::Overloaded`] if every
    /// slot is under way, or too many of the service's.
    pub(crate) fn begin(
        &self,
        service: &str,
        sending: Sending,
        token: Token,
        digest: OperationsDigest,
    ) -> Result<Begun, Error> {
        let table = &mut *self.0.borrow_mut();
        let name = (String::from(service), token);
        let mut saved = None;
        if let Some(Entry { age, slot, digest: known, end }) = table.known.get(&name) {
            if *known != digest {
                return Err(Error::Argument("the token was used for other operations"));
            }
            let (end, age, slot) = (end.clone(), *age, *slot);
            if !matches!(*end.state.borrow(), State::Saved) {
                return Ok(Begun::Known(Known { end, name, age, slot }));
            }
            saved = Some(age);
        }
        let admitted = match saved {
            // Damage elsewhere changes nothing about it, and neither does it about others.
            Some(_) => table.doubt.was_told(service, token, sending),
            None => table.doubt.admits(service, token, sending),
        };
        if !admitted {
            return Ok(Begun::InDoubt);
        }
        let under_way = table.service(service).under_way.take().ok_or(Error::Overloaded)?;
        if let Some(age) = saved {
            // What is free last goes first: the new record is written over this one.
            table.forget(&name, age);
        }
        let slot = table.take_slot().ok_or(Error::Overloaded)?;
        let (age, end) = (table.next, Rc::new(End::default()));
        table.next += 1;
        table.service(service).ages.insert(age, token);
        table.known.insert(name.clone(), Entry { age, slot, digest, end: end.clone() });
        let (table, refused, _under_way) = (self.0.clone(), Cell::new(false), under_way);
        Ok(Begun::New(Ticket { table, end, refused, name, age, slot, digest, _under_way }))
    }

    /// Notes how a new batch ended. One that applied nothing is not remembered; of one that was only `buffered` it is known how
    /// many drops the journal had before.
    pub(crate) fn settle(
        &self,
        ticket: &Ticket,
        result: &Result<Written, Error>,
        buffered: Option<u64>,
    ) {
        if matches!(result, Ok(Written::Applied(_))) {
            self.0.borrow_mut().applied(&ticket.name);
        }
        match (result, buffered) {
            (Ok(written @ Written::Applied(_)), Some(drops)) => {
                ticket.end.settle(State::Buffered(written.clone(), drops));
            }
            (Ok(written @ (Written::Applied(_) | Written::Indeterminate)), _) => {
                ticket.end.settle(State::Ended(written.clone()));
            }
            (Ok(Written::Conflict { .. } | Written::DataLoss { .. } | Written::InDoubt), _)
            | (Err(_), _) => ticket.forget(),
        }
    }

    /// Yields how a batch that was sent before ended; `None` if it applied nothing, or nothing tells any more, and it is to begin
    /// anew.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the device does not read what tells.
    pub(crate) async fn resolve(
        &self,
        journal: &Journal,
        known: &Known,
    ) -> Result<Option<Written>, Error> {
        loop {
            let pending = known.end.is_pending();
            match known.end.state.borrow().clone() {
                State::Ended(written) => return Ok(Some(written)),
                State::Buffered(written, drops) if drops == journal.drops() => {
                    return Ok(Some(written));
                }
                State::Buffered(..) | State::Unknown | State::Pending | State::Saved => {}
            }
            // The call that it is the end of may wait for a peer that reads nothing: the slot tells of it as well.
            let synced = journal.sync().await.is_ok();
            if !synced && (!pending || matches!(journal.mode(), journal::Mode::ReadOnly(_))) {
                return Ok(Some(Written::Indeterminate));
            }
            if !synced {
                // Something else was lost.
                known.end.wait().await;
            }
            if pending && !known.end.is_pending() {
                continue;
            }
            match self.look(journal, known).await? {
                Slotted::Applied(applied) => {
                    let written = Written::Applied(applied);
                    known.end.settle(State::Ended(written.clone()));
                    return Ok(Some(written));
                }
                Slotted::Lost if pending => known.end.wait().await,
                // It says nothing of what is there, for good, and to write the batch anew could be to write it twice.
                Slotted::Lost => {
                    self.0.borrow_mut().lose(known);
                    return Ok(None);
                }
                // What it was to write was queued or refused when its call began, so by now it was refused.
                Slotted::Other => {
                    self.0.borrow_mut().forget(&known.name, known.age);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads what the slot of a batch holds.
    ///
    /// # Errors
    /// [`Error::Unreadable`]: it says nothing of what is there, and to write the batch anew could be to write it twice.
    async fn look(&self, journal: &Journal, known: &Known) -> Result<Slotted, Error> {
        let key = slot_key(known.slot);
        let got = match journal.look(key.as_bytes(), Origin(0)).await {
            Looked::Present(seen) => journal.value(key.as_bytes(), &seen).await,
            // What is in doubt was before this server: nothing was written there since.
            Looked::Absent | Looked::DataLoss => Got::Absent,
        };
        let (service, token) = &known.name;
        match got {
            Got::Value { version, value } => {
                let record = Record::decode(&value)
                    .filter(|it| (it.service, &it.token, it.age) == (service, token, known.age));
                let applied = record.and_then(|record| record.applied(journal, version));
                Ok(applied.map_or(Slotted::Other, Slotted::Applied))
            }
            Got::Unreadable => Err(Error::Unreadable),
            Got::DataLoss => Ok(Slotted::Lost),
            Got::Absent | Got::Large { .. } => Ok(Slotted::Other),
        }
    }
}

impl Table {
    /// Takes in what a slot holds. Of two records of one batch the newer one counts: the slot of the other had been given away.
    fn remember(&mut self, slot: u16, record: &Record<'_>, state: State) {
        let (age, name) = (record.age, (record.service.into(), record.token));
        match self.known.get(&name).map(|known| known.age) {
            Some(known) if known >= age => return self.free.push(slot),
            Some(known) => self.forget(&name, known),
            None => {}
        }
        let end = Rc::new(End { state: RefCell::new(state), waiting: RefCell::default() });
        self.next = self.next.max(age.saturating_add(1));
        self.service(record.service).ages.insert(age, record.token);
        self.known.insert(name, Entry { age, slot, digest: record.digest, end });
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.services.entry(name.into()).or_default()
    }

    /// Yields a slot for another batch. What is free goes first, and what nothing is known of last, but for so much of it that
    /// the batches to come have room.
    fn take_slot(&mut self) -> Option<u16> {
        let free = self.free.pop().or_else(|| self.doubt.take_spare());
        free.or_else(|| self.forget_one()).or_else(|| self.doubt.take_last())
    }

    /// Notes that a batch was applied.
    fn applied(&mut self, (service, token): &Name) {
        let free = self.doubt.applied(service, *token);
        self.free.extend(free);
    }

    fn forget(&mut self, name: &Name, age: u64) {
        let slot = self.take_out(name, age);
        self.free.extend(slot);
    }

    /// Forgets a batch of which its slot does not tell any more whether it was applied.
    fn lose(&mut self, known: &Known) {
        if let Some(slot) = self.take_out(&known.name, known.age) {
            self.doubt.add(slot);
        }
    }

    /// Takes a batch out of the table, and yields its slot.
    fn take_out(&mut self, name: &Name, age: u64) -> Option<u16> {
        let entry = self.known.get(name).filter(|entry| entry.age == age)?;
        let slot = entry.slot;
        self.known.remove(name);
        self.service(&name.0).ages.remove(&age);
        Some(slot)
    }

    /// Gives the slot of a batch that has ended to another one: the oldest of the service that has most, so that nobody
    /// makes the others' forgotten.
    fn forget_one(&mut self) -> Option<u16> {
        let oldest = |(service, of): (&String, &Service)| {
            of.ages.iter().find_map(|(age, token)| {
                let name = (service.clone(), *token);
                let entry = self.known.get(&name)?;
                let ended = !entry.end.is_pending();
                ended.then_some((of.ages.len(), Reverse(*age), name))
            })
        };
        let (_, Reverse(age), name) = self.services.iter().filter_map(oldest).max()?;
        self.service(&name.0).ages.remove(&age);
        self.known.remove(&name).map(|entry| entry.slot)
    }
}

impl Ticket {
    /// Yields the key and the value that the batch writes besides its own.
    pub(crate) fn record(&self, changes: &[Change]) -> (String, Vec<u8>) {
        let mut puts = [0; PUTS_BYTES];
        for (at, change) in changes.iter().enumerate() {
            if let (true, Some(byte)) = (change.value.is_some(), puts.get_mut(at / 8)) {
                *byte |= 1_u8 << (at % 8);
            }
        }
        let count = u16::try_from(changes.len()).unwrap_or(u16::MAX);
        let (service, token) = &self.name;
        let (saved, age, token, digest) = (false, self.age, *token, self.digest);
        let record = Record { saved, age, token, digest, count, puts, service };
        (slot_key(self.slot), record.encode())
    }

    /// Has the journal judge the batch and queue it, record and all, or nothing of it, before this returns; notes which it was.
    /// An answer may follow much later, when whoever sent the batch has given it up.
    pub(crate) fn judging<T>(&self, journal: &Journal, judge: impl FnOnce() -> T) -> T {
        let key = slot_key(self.slot);
        let before = journal.accepted(key.as_bytes());
        let judged = judge();
        self.refused.set(journal.accepted(key.as_bytes()) == before);
        judged
    }

    /// Forgets the batch, which applied nothing.
    fn forget(&self) {
        self.table.borrow_mut().forget(&self.name, self.age);
        // Who waited judges anew.
        self.end.settle(State::Unknown);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match (self.end.is_pending(), self.refused.get()) {
            (true, true) => self.forget(),
            (true, false) => self.end.settle(State::Unknown),
            (false, _) => {}
        }
    }
}

impl End {
    fn settle(&self, state: State) {
        self.state.replace(state);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn is_pending(&self) -> bool {
        matches!(*self.state.borrow(), State::Pending)
    }

    /// Waits while it is pending.
    async fn wait(&self) {
        poll_fn(|context| {
            if !self.is_pending() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// What a slot holds: a byte 1, or 2 where it was `saved`, then the other fields in their order, numbers little-endian.
struct Record<'a> {
    /// The batch was applied in a volume that this one was saved from: no birth of this one is of it.
    saved: bool,
    age: u64,
    token: Token,
    digest: OperationsDigest,
    /// Operations of the batch.
    count: u16,
    /// One bit for each operation: it was a put.
    puts: [u8; PUTS_BYTES],
    service: &'a str,
}

/// The first byte of the record of a batch that was applied in this volume.
const APPLIED: u8 = 1;

/// That of one that was applied in a volume that this one was saved from.
const SAVED: u8 = 2;

/// One bit for each of the most operations that a batch may have.
const PUTS_BYTES: usize = crate::limits::BATCH_OPERATIONS_MAX.div_ceil(8);

impl<'a> Record<'a> {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from([if self.saved { SAVED } else { APPLIED }]);
        bytes.extend(self.age.to_le_bytes());
        bytes.extend(self.token);
        bytes.extend(self.digest);
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.puts);
        bytes.extend(self.service.as_bytes());
        bytes
    }

    /// Reads a slot; `None` if it makes no sense.
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (age, rest) = rest.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (puts, service) = rest.split_first_chunk()?;
        let count = u16::from_le_bytes(*count);
        let age = u64::from_le_bytes(*age);
        // A forged age must not bring the counting to its end.
        let known = [APPLIED, SAVED].contains(version);
        let sound = known && usize::from(count) <= PUTS_BYTES * 8 && age < 1 << 62;
        sound.then_some(Self {
            saved: *version == SAVED,
            age,
            token: *token,
            digest: *digest,
            count,
            puts: *puts,
            service: core::str::from_utf8(service).ok()?,
        })
    }

    /// Yields what the batch did, the slot being its last write; `None` if that was in another volume.
    fn applied(&self, journal: &Journal, slot: Version) -> Option<Vec<Applied>> {
        let operation = |at: u16| {
            let byte = self.puts.get(usize::from(at / 8)).copied().unwrap_or_default();
            match byte >> (at % 8) & 1 {
                0 => Applied::Deleted(None),
                _ => Applied::Put(journal.version_before(slot, u64::from(self.count - at))),
            }
        };
        (!self.saved).then(|| (0..self.count).map(operation).collect())
    }
}

/// Yields what tells a batch from every other one.
pub(crate) fn digest(changes: &[Change]) -> OperationsDigest {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for Change { key, value, precondition } in changes {
        part(key.as_str().as_bytes());
        match precondition {
            Precondition::Any => part(b"any"),
            Precondition::Absent => part(b"absent"),
            Precondition::Version(version) => part(&version.0.to_le_bytes()),
        }
        match value {
            Some(value) => {
                part(b"put");
                part(value);
            }
            None => part(b"delete"),
        }
    }
    *hasher.finalize().as_bytes()
}

/// Yields what a value becomes in a volume that all is saved into, if it is what is remembered of a batch with a token: in that
/// volume each value has another version, and what births lie below the record's own tells nothing of the batch. It is
/// remembered that the batch was applied, and not what versions it gave. `None` of all other keys and values, which are as they were.
#[must_use]
pub fn carried_over(key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    slot_number(key)?;
    Some(Record { saved: true, ..Record::decode(value)? }.encode())
}

fn slot_key(slot: u16) -> String {
    format!("{SLOT_PREFIX}{slot:04}")
}

/// Reads the key of a slot; `None` if it is another key.
fn slot_number(key: &[u8]) -> Option<u16> {
    core::str::from_utf8(key).ok()?.strip_prefix(SLOT_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests;
