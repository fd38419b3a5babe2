//! The store's semantics over the journal: what calls see of an open, failed or opening volume.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;

use journal::{
    Applied, Batch, CommitError, Durability, Got, Journal, Looked, Lost, Note, OpenError,
    Operation, Origin, Outcome, Precondition, Upload, Version,
};
use policy::{Key, Policy, Prefix};

use crate::error::Error;
use crate::limits::{DAMAGED_KEYS_MAX, Limits};
use crate::line::Line;
use crate::plant::Plants;
use crate::quota::{Ledger, Usage};
use crate::request::Change;
use crate::stream;
use crate::tokens::{REMEMBERED, Ticket, Tokens};

/// What the store can do, as the schema's `Mode` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The volume is being opened; no answer leaves before that has ended.
    Opening,
    /// Everything.
    Healthy,
    /// Everything, but redundancy or data was lost.
    Degraded,
    /// Reads only, until the volume is opened anew.
    ReadOnly,
    /// Nothing.
    Failed,
}

/// The answer to `health`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What the store can do.
    pub mode: Mode,
    /// Why it is not healthy, for people; empty when it is. Names no key and no service.
    pub reason: String,
    /// Losses of acknowledged data that are known.
    pub losses: u64,
}

/// What a key has.
pub(crate) enum Found {
    DataLoss,
    Absent,
    Value {
        version: Version,
        bytes: u64,
        /// `None` where only metadata was asked for.
        data: Option<Rc<[u8]>>,
    },
    /// A value that is read in parts alone.
    Large {
        version: Version,
        bytes: u64,
    },
}

impl Found {
    /// Yields the bytes of the value that was read.
    pub(crate) fn data_bytes(&self) -> usize {
        match self {
            Self::Value { data: Some(data), .. } => data.len(),
            Self::Value { data: None, .. } | Self::Large { .. } | Self::DataLoss | Self::Absent => {
                0
            }
        }
    }
}

/// How changes that were asked for together ended.
#[derive(Clone)]
pub(crate) enum Written {
    /// They were begun and could not be confirmed.
    Indeterminate,
    /// What each of them did.
    Applied(Vec<Applied>),
    /// Nothing was changed: a precondition does not hold.
    Conflict {
        /// Of which change.
        at: usize,
        /// What its key has instead.
        current: Option<Version>,
    },
    /// Nothing was changed: whether a precondition holds cannot be told.
    DataLoss {
        /// Of which change.
        at: usize,
    },
    /// Nothing was changed: whether the batch was applied before cannot be told.
    InDoubt,
}

/// One volume, from the attempt to open it.
pub(crate) struct Store {
    state: RefCell<State>,
    /// Keys whose values turned out to be unreadable, each with the version of that value. At most
    /// [`DAMAGED_KEYS_MAX`]: of those beyond, a read still tells, but not what needs no value.
    damaged: RefCell<BTreeMap<Key, Version>>,
    ledger: RefCell<Ledger>,
    pub(crate) line: Line,
    /// Why the policy in force is not the one that it should be.
    stale: Cell<Option<&'static str>>,
    tokens: RefCell<Rc<Tokens>>,
}

enum State {
    Opening,
    Open(Journal),
    Failed(OpenError),
}

impl Store {
    pub(crate) fn new(plants: Plants) -> Self {
        Self {
            state: RefCell::new(State::Opening),
            damaged: RefCell::default(),
            ledger: RefCell::new(Ledger::new(plants)),
            line: Line::default(),
            stale: Cell::new(None),
            tokens: RefCell::default(),
        }
    }

    /// Yields the batches that may be sent again.
    pub(crate) fn tokens(&self) -> Rc<Tokens> {
        self.tokens.borrow().clone()
    }

    /// Notes how opening ended.
    pub(crate) fn opened(&self, opened: Result<(Journal, Tokens), OpenError>) {
        let state = match opened {
            Ok((journal, tokens)) => {
                self.tokens.replace(Rc::new(tokens));
                State::Open(journal)
            }
            Err(error) => State::Failed(error),
        };
        self.state.replace(state);
        if let Ok(journal) = self.journal() {
            self.ledger.borrow_mut().recount(&journal);
        }
    }

    /// Puts the quotas of a policy in force.
    pub(crate) fn load_quotas(&self, policy: &Policy) {
        self.ledger.borrow_mut().load(policy, self.journal().ok().as_ref());
    }

    /// Tells whether a policy that should be in force is not, which is a matter of health: it could
    /// not be loaded, and what is in force `denies_all` or is the one before it.
    pub(crate) fn set_stale(&self, denies_all: Option<bool>) {
        self.stale.set(denies_all.map(|denies_all| if denies_all { DENIES_ALL } else { STALE }));
    }

    /// Tells what a subtree holds and what it may.
    ///
    /// # Errors
    /// As [`Store::journal`].
    pub(crate) fn usage(&self, prefix: &Prefix) -> Result<Usage, Error> {
        let journal = self.journal()?;
        Ok(self.ledger.borrow_mut().usage(&journal, prefix))
    }

    /// Commits a batch of a service within the quotas. Its place in the order is fixed when this returns.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the service would have too much in the queue, [`Error::Quota`], or why there is no volume;
    /// nothing was changed.
    pub(crate) fn commit(
        &self,
        service: &str,
        batch: Batch,
        notes: Vec<Note>,
    ) -> Result<impl Future<Output = Result<Outcome, CommitError>> + use<>, Error> {
        let journal = self.journal()?;
        let bytes = |Operation { key, value, .. }: &Operation| {
            journal::record_bytes(key.len(), value.as_ref().map_or(0, |value| value.len()))
        };
        if !self.line.admits(service, batch.operations.iter().map(bytes).sum()) {
            return Err(Error::Overloaded);
        }
        let commit = || self.ledger.borrow_mut().commit(&journal, batch, notes);
        Ok(self.line.queueing(&journal, service, commit)?)
    }

    /// Notes that the journal has gone on.
    pub(crate) fn follow(&self) {
        if let State::Open(journal) = &*self.state.borrow() {
            self.line.follow(journal);
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(*self.state.borrow(), State::Opening)
    }

    /// Yields the open volume.
    ///
    /// # Errors
    /// [`Error::Failed`] for good, [`Error::Opening`] for now.
    pub(crate) fn journal(&self) -> Result<Journal, Error> {
        match &*self.state.borrow() {
            State::Opening => Err(Error::Opening),
            State::Open(journal) => Ok(journal.clone()),
            State::Failed(error) => Err(Error::Failed(*error)),
        }
    }

    /// Tells what the store can do, as all may know it: its reason names no LSN, which would tell how much others write.
    pub(crate) fn health(&self) -> Health {
        self.told_health(false)
    }

    /// Tells the same to who may see how much is written: its reason names the LSNs of what was lost.
    pub(crate) fn health_with_lsns(&self) -> Health {
        self.told_health(true)
    }

    fn told_health(&self, with_lsns: bool) -> Health {
        let journal = match &*self.state.borrow() {
            State::Opening => {
                return Health { mode: Mode::Opening, reason: String::new(), losses: 0 };
            }
            State::Failed(error) => {
                return Health { mode: Mode::Failed, reason: error.to_string(), losses: 0 };
            }
            State::Open(journal) => journal.clone(),
        };
        let lost = journal.report().lost.len();
        let damaged = self.damaged.borrow().len();
        let forgotten = self.tokens.borrow().unread();
        let (mode, reason) = match (journal.mode(), self.stale.get()) {
            (journal::Mode::Healthy, None) if forgotten == 0 => (Mode::Healthy, String::new()),
            (journal::Mode::Healthy, Some(why)) => (Mode::Degraded, why.into()),
            (journal::Mode::Healthy | journal::Mode::Degraded, _) => {
                (Mode::Degraded, degraded(&journal, damaged, forgotten, with_lsns))
            }
            (journal::Mode::ReadOnly(reason), _) => (Mode::ReadOnly, reason.to_string()),
        };
        let losses = lost.saturating_add(damaged).saturating_add(forgotten);
        let losses = u64::try_from(losses).unwrap_or(u64::MAX);
        Health { mode, reason, losses }
    }

    /// Reads one key, after the caller's own earlier write of it.
    pub(crate) async fn get(
        &self,
        key: &Key,
        origin: Origin,
        metadata_only: bool,
    ) -> Result<Found, Error> {
        let journal = self.journal()?;
        let seen = match journal.look(key.as_str().as_bytes(), origin).await {
            Looked::Present(seen) => seen,
            Looked::Absent => return Ok(Found::Absent),
            Looked::DataLoss => return Ok(Found::DataLoss),
        };
        if metadata_only {
            return Ok(self.metadata(key, &seen));
        }
        self.value(&journal, key, &seen).await
    }

    /// Tells whether reads find no such key now: what [`crate::plant::Plant::LookFirst`] asks.
    pub(crate) fn is_absent(&self, key: &Key) -> bool {
        self.journal().is_ok_and(|journal| version(&journal, key).is_none())
    }

    /// Yields what is known of a key without reading its value.
    pub(crate) fn metadata(&self, key: &Key, seen: &journal::Seen) -> Found {
        if seen.suspect || self.damaged.borrow().get(key) == Some(&seen.version()) {
            return Found::DataLoss;
        }
        Found::Value { version: seen.version(), bytes: seen.value_bytes.into(), data: None }
    }

    /// Reads what a look or a scan has seen; of a large value its metadata.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the device reads no copy, which says nothing of what it holds.
    pub(crate) async fn value(
        &self,
        journal: &Journal,
        key: &Key,
        seen: &journal::Seen,
    ) -> Result<Found, Error> {
        let got = journal.value(key.as_str().as_bytes(), seen).await;
        let mut damaged = self.damaged.borrow_mut();
        Ok(match got {
            Got::Value { version, value } => {
                if damaged.get(key) == Some(&version) {
                    damaged.remove(key);
                }
                Found::Value { version, bytes: value.len() as u64, data: Some(value) }
            }
            Got::Large { version, .. } if damaged.get(key) == Some(&version) => Found::DataLoss,
            Got::Large { version, total_bytes } => Found::Large { version, bytes: total_bytes },
            Got::Absent => Found::Absent,
            Got::Unreadable => return Err(Error::Unreadable),
            Got::DataLoss => {
                drop(damaged);
                self.note_damage(journal, key, seen.version());
                Found::DataLoss
            }
        })
    }

    /// Makes changes of a service to different keys, all or none. Their place in the order is fixed at the first
    /// poll.
    ///
    /// What is remembered of a batch with a `ticket` is written with them, and so is what is noted of them.
    pub(crate) async fn write(
        &self,
        service: &str,
        changes: Vec<Change>,
        ticket: Option<&Ticket>,
        notes: Vec<Note>,
        durability: Durability,
        origin: Origin,
    ) -> Result<Written, Error> {
        let journal = self.journal()?;
        // The journal knows only of what was lost when it was opened.
        let lost = |change: &Change| {
            let asks = change.precondition != Precondition::Any;
            asks && self.is_damaged(&journal, &change.key)
        };
        if let Some(at) = changes.iter().position(lost) {
            return Ok(Written::DataLoss { at });
        }
        let mark = ticket.map(|ticket| ticket.record(&changes));
        let (keys, mut operations): (Vec<Key>, Vec<Operation>) = changes
            .into_iter()
            .map(|Change { key, value, precondition }| {
                let bytes = key.as_str().as_bytes().into();
                (key, Operation { key: bytes, value, precondition })
            })
            .unzip();
        let own = operations.len();
        operations.extend(mark.map(|(key, value)| {
            let (key, value) = (key.as_bytes().into(), Some(value.into()));
            Operation { key, value, precondition: Precondition::Any }
        }));
        let batch = Batch { operations, durability, origin };
        let commit = || self.commit(service, batch, notes);
        let commit = match ticket {
            Some(ticket) => ticket.judging(&journal, commit)?,
            None => commit()?,
        };
        let mut end = commit.await;
        if let Ok(Outcome::Applied(applied)) = &mut end {
            applied.truncate(own);
            self.forget_damage(&journal, &keys);
        }
        stream::written(end)
    }

    /// Ends a value that was uploaded, as [`Store::write`] writes one that came in one piece. Who calls has waited until
    /// the service may have its last piece in the queue.
    pub(crate) async fn finish(
        &self,
        service: &str,
        upload: Upload,
        key: Key,
        precondition: Precondition,
        durability: Durability,
    ) -> Result<Written, Error> {
        let journal = self.journal()?;
        if precondition != Precondition::Any && self.is_damaged(&journal, &key) {
            return Ok(Written::DataLoss { at: 0 });
        }
        let path = key.as_str().as_bytes();
        let finish =
            || self.ledger.borrow_mut().finish(&journal, upload, path, precondition, durability);
        let commit = self.line.queueing(&journal, service, finish)?;
        let end = commit.await;
        if matches!(end, Ok(Outcome::Applied(_))) {
            self.forget_damage(&journal, &[key]);
        }
        stream::written(end)
    }

    /// Expects an upload of `bytes`, as far as that is known, if the quotas let it be written now, as far as who sends it may know
    /// that: whether it `sees` the key. Yields its number.
    ///
    /// # Errors
    /// [`Error::Quota`], or why there is no volume.
    pub(crate) fn expect(&self, key: &Key, bytes: u64, sees: bool) -> Result<u64, Error> {
        let (journal, key) = (self.journal()?, key.as_str().as_bytes());
        let mut ledger = self.ledger.borrow_mut();
        ledger.admits(&journal, key, bytes, None, sees)?;
        Ok(ledger.expect(key))
    }

    /// Notes that an upload has so many bytes, if the quotas let them be written now, told as by [`Store::expect`].
    ///
    /// # Errors
    /// As [`Store::expect`].
    pub(crate) fn arrive(&self, arrival: u64, bytes: u64, sees: bool) -> Result<(), Error> {
        let journal = self.journal()?;
        self.ledger.borrow_mut().arrive(&journal, arrival, bytes, sees)?;
        Ok(())
    }

    /// Forgets an upload: it has an end, or will have none.
    pub(crate) fn forget(&self, arrival: u64) {
        self.ledger.borrow_mut().forget(arrival);
    }

    /// Yields the longest value that one call takes.
    pub(crate) fn value_bytes_max(&self) -> usize {
        let geometry = self.journal().map(|journal| journal.stats().geometry);
        geometry.map_or(journal::VALUE_BYTES_MAX, |geometry| geometry.value_bytes_max())
    }

    /// Yields the longest value that the volume could take in chunks if it held nothing else.
    pub(crate) fn large_bytes_max(&self) -> u64 {
        self.journal().map_or(journal::LARGE_BYTES_MAX, |journal| journal.large_bytes_max())
    }

    /// Yields the most operations, and the most bytes of keys and values, that the volume takes in one batch.
    pub(crate) fn batch_max(&self, limits: &Limits) -> (usize, usize) {
        let Ok(journal) = self.journal() else {
            return (limits.batch_operations, limits.batch_bytes);
        };
        let notes_bytes = if journal.keeps_notes() { crate::audit::NOTES_BYTES_MAX } else { 0 };
        let room = journal.stats().geometry.records_bytes_max();
        let room = room.saturating_sub(crate::tokens::RECORD_BYTES_MAX + notes_bytes);
        // Every record rounds up its own length. Of a small segment that takes half at most.
        let overhead = journal::record_bytes(1, 7);
        let operations = limits.batch_operations.min((room / 2 / overhead).max(1));
        let bytes = limits.batch_bytes.min(room.saturating_sub(operations * overhead));
        (operations, bytes)
    }

    /// Notes that a value was read and is damaged in all copies, if the key has it still.
    pub(crate) fn note_damage(&self, journal: &Journal, key: &Key, read: Version) {
        let mut damaged = self.damaged.borrow_mut();
        let room = damaged.len() < DAMAGED_KEYS_MAX || damaged.contains_key(key);
        if room && version(journal, key) == Some(read) {
            damaged.insert(key.clone(), read);
        }
    }

    /// Tells whether that value of a key is known to be damaged.
    pub(crate) fn knows_damage(&self, key: &Key, of: Version) -> bool {
        self.damaged.borrow().get(key) == Some(&of)
    }

    /// Tells whether what the newest accepted write gave a key is known to be damaged. A later write, also one on its way, is judged
    /// by itself.
    fn is_damaged(&self, journal: &Journal, key: &Key) -> bool {
        let noted = self.damaged.borrow().get(key).copied();
        noted.is_some() && noted == journal.accepted(key.as_str().as_bytes())
    }

    /// Forgets the damage of values that keys have no more.
    fn forget_damage(&self, journal: &Journal, keys: &[Key]) {
        let mut damaged = self.damaged.borrow_mut();
        for key in keys {
            if damaged.get(key).is_some_and(|noted| version(journal, key) != Some(*noted)) {
                damaged.remove(key);
            }
        }
    }
}

/// Why health is degraded though the volume is well.
const STALE: &str = "the policy file cannot be loaded, and the policy before it stays in force; \
                     the daemon's log names its faults";

/// The same where there was none before it.
const DENIES_ALL: &str = "the policy file cannot be loaded, and until one can, everything is \
                          denied; the daemon's log names its faults";

/// Yields the version in which reads find a key now, if that is in no doubt.
pub(crate) fn version(journal: &Journal, key: &Key) -> Option<Version> {
    let mut version = None;
    journal.scan(key.as_str().as_bytes(), |found, seen| {
        let own = found == key.as_str().as_bytes() && !seen.suspect;
        version = own.then(|| seen.version());
        false
    });
    version
}

/// Says why, and names no key.
fn degraded(journal: &Journal, damaged: usize, forgotten: usize, with_lsns: bool) -> String {
    let lost = &journal.report().lost;
    if with_lsns && !lost.is_empty() {
        return format!(
            "acknowledged writes with {} were lost, which `statefs image fsck` finds; \
             restore from a backup, or write the keys anew",
            lsns(lost)
        );
    }
    if !lost.is_empty() {
        return format!(
            "{} stretches of the journal with acknowledged writes were lost, which the log names and `statefs image fsck` \
             finds; restore from a backup, or write the keys anew",
            lost.len()
        );
    }
    if damaged > 0 {
        return format!(
            "{damaged} values cannot be read in any copy; check the device, and write them anew"
        );
    }
    if forgotten > 0 {
        return format!(
            "{forgotten} remembered batches with a token cannot be read in any copy; check the device; \
             until {REMEMBERED} newer ones were applied, each is answered with data loss first"
        );
    }
    if journal.has_doubt() {
        return "acknowledged writes were lost before this start, and keys in doubt are left; \
                restore from a backup, or write the keys anew"
            .into();
    }
    let reads = journal.stats().damaged_reads;
    format!(
        "{reads} reads found damaged copies, or none that the device reads; \
         check the device; opening the volume anew repairs copies"
    )
}

/// Stretches of lost LSNs that health names; the log names all.
const NAMED_MAX: usize = 4;

/// Names what was lost, as far as a sentence holds it.
fn lsns(lost: &[Lost]) -> String {
    let named = lost.iter().take(NAMED_MAX).map(|Lost { first, last }| match first == last {
        true => format!("{}", first.0),
        false => format!("{} to {}", first.0, last.0),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    match lost.len().saturating_sub(NAMED_MAX) {
        0 => format!("LSN {named}"),
        more => format!("LSN {named} and {more} more stretches"),
    }
}

#[cfg(test)]
mod tests {
    use journal::Lsn;

    use super::*;

    #[test]
    fn the_first_few_stretches_that_were_lost_are_named() {
        let all = [(12, 15), (20, 20), (31, 40), (50, 50), (61, 62), (70, 70)];
        let all = all.map(|(first, last)| Lost { first: Lsn(first), last: Lsn(last) });
        for (count, told) in [
            (1, "LSN 12 to 15"),
            (2, "LSN 12 to 15, 20"),
            (4, "LSN 12 to 15, 20, 31 to 40, 50"),
            (6, "LSN 12 to 15, 20, 31 to 40, 50 and 2 more stretches"),
        ] {
            assert_eq!(lsns(&all[..count]), told);
        }
    }
}
