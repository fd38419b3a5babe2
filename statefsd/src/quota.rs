//! What subtrees hold, and what they may: the quotas of today's policy, and what is charged to them.
//!
//! A key is charged to every quota over it, whoever writes it: its length as a whole path and the
//! length of its value. What the journal has accepted counts, durable or not, so that no haste
//! passes a quota; and of an upload what has come, against the others, for it takes room without an
//! end. A write is refused for making more of what there is too much of; one that makes
//! it less passes, also where a new policy left less room than there is use.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;

use journal::{
    Batch, CommitError, Durability, Journal, Note, Operation, Outcome, Precondition, Upload,
};
use policy::{Policy, Prefix, Quota};

use crate::plant::{Plant, Plants};

/// The quotas in force, each with what is charged to it.
#[derive(Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<String, Account>,
    /// Uploads without an end, by their numbers.
    arrivals: BTreeMap<u64, Arriving>,
    last_arrival: u64,
    /// The journal's count of accepted changes that came to nothing, when it was last looked at.
    drops: u64,
    /// What [`crate::plant::Plant::QuotaUncharged`] asks.
    uncharged: bool,
}

/// The key of an upload, and how many bytes have come.
type Arriving = (Rc<[u8]>, u64);

/// A key, and how many bytes its value shall have; `None` if it shall have none.
type End = (Rc<[u8]>, Option<u64>);

/// One quota and what is charged to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The subtree that the quota is on.
    pub prefix: Prefix,
    /// What it may hold, by the strictest of the grants on it.
    pub quota: Quota,
    /// What it holds.
    pub used: Used,
}

/// What keys take.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Used {
    /// Bytes of keys, as whole paths, and values together.
    pub bytes: u64,
    /// Number of keys.
    pub keys: u64,
}

/// What a subtree holds, and the quotas that a write somewhere in it is charged to, in the order of
/// their prefixes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// What all keys in it take, what was accepted and is not yet durable included.
    pub used: Used,
    /// The quotas over it and in it.
    pub accounts: Vec<Account>,
}

/// Which part of a quota a write would pass, and how much that allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exceeded {
    /// Bytes of keys and values together.
    Bytes(u64),
    /// Number of keys.
    Keys(u64),
    /// Bytes of the largest value.
    ValueBytes(u64),
}

/// A write that a quota refuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OverQuota {
    pub(crate) exceeded: Exceeded,
    /// The key that takes more than there is, of several the first.
    pub(crate) key: Rc<[u8]>,
}

impl Ledger {
    /// Makes one without quotas.
    pub(crate) fn new(plants: Plants) -> Self {
        Self { uncharged: plants.has(Plant::QuotaUncharged), ..Self::default() }
    }

    /// Puts the quotas of a policy in force, and counts what is charged to them if there is a
    /// volume.
    ///
    /// Cost: a pass over all keys, if there is a quota.
    pub(crate) fn load(&mut self, policy: &Policy, journal: Option<&Journal>) {
        let account = |(prefix, quota): (Prefix, Quota)| {
            (prefix.as_str().into(), Account { prefix, quota, used: Used::default() })
        };
        self.accounts = policy.quota_map().into_iter().map(account).collect();
        if let Some(journal) = journal {
            self.recount(journal);
        }
    }

    /// Counts what is charged, from the journal alone.
    pub(crate) fn recount(&mut self, journal: &Journal) {
        self.drops = journal.drops();
        for account in self.accounts.values_mut() {
            account.used = Used::default();
        }
        if !self.accounts.is_empty() {
            journal.each_accepted(b"/", |key, value_bytes| {
                self.charge(key, None, Some(value_bytes));
            });
        }
    }

    /// Commits a batch unless that passes a quota, and charges what it changes. As
    /// [`Journal::commit`], all is decided when this returns.
    ///
    /// # Errors
    /// [`OverQuota`]; nothing was changed.
    pub(crate) fn commit(
        &mut self,
        journal: &Journal,
        batch: Batch,
        notes: Vec<Note>,
    ) -> Result<impl Future<Output = Result<Outcome, CommitError>> + use<>, OverQuota> {
        let end = |Operation { key, value, .. }: &Operation| {
            (key.clone(), value.as_ref().map(|value| value.len() as u64))
        };
        let ends: Vec<End> = batch.operations.iter().map(end).collect();
        self.charged(journal, &ends, || journal.commit_noted(batch, notes))
    }

    /// Ends a value that was uploaded, as [`Ledger::commit`] commits a batch.
    ///
    /// # Errors
    /// [`OverQuota`]; the value is given up.
    pub(crate) fn finish(
        &mut self,
        journal: &Journal,
        upload: Upload,
        key: &[u8],
        precondition: Precondition,
        durability: Durability,
    ) -> Result<impl Future<Output = Result<Outcome, CommitError>> + use<>, OverQuota> {
        let ends = [(Rc::from(key), Some(upload.total_bytes()))];
        self.charged(journal, &ends, || upload.commit(key.into(), precondition, durability))
    }

    /// Gives a number to an upload that nothing has come of yet.
    pub(crate) fn expect(&mut self, key: &[u8]) -> u64 {
        self.last_arrival += 1;
        self.arrivals.insert(self.last_arrival, (key.into(), 0));
        self.last_arrival
    }

    /// Forgets an upload: it has an end, or will have none.
    pub(crate) fn forget(&mut self, arrival: u64) {
        self.arrivals.remove(&arrival);
    }

    /// Notes that an upload has `bytes` now, unless with all that is on its way it could not have an end, as far as who sends it
    /// may know that.
    ///
    /// # Errors
    /// [`OverQuota`]; nothing was noted.
    pub(crate) fn arrive(
        &mut self,
        journal: &Journal,
        arrival: u64,
        bytes: u64,
        sees: bool,
    ) -> Result<(), OverQuota> {
        let Some((key, _)) = self.arrivals.get(&arrival) else { return Ok(()) };
        let key = key.clone();
        self.admits(journal, &key, bytes, Some(arrival), sees)?;
        self.arrivals.insert(arrival, (key, bytes));
        Ok(())
    }

    /// Tells whether a value of so many bytes may be written now, beside the uploads that are on their way, but for
    /// `own`: they take room as values do, and may never have an end.
    ///
    /// What the key holds already makes room for it, so the answer tells of that. Who does not see the key is answered as if the
    /// uploads were all there is: nothing is written yet, so it could ask as often as it likes, and nobody would be told.
    ///
    /// Cost: a look at each upload where a quota on bytes is over the key.
    ///
    /// # Errors
    /// [`OverQuota`].
    pub(crate) fn admits(
        &mut self,
        journal: &Journal,
        key: &[u8],
        bytes: u64,
        own: Option<u64>,
        sees: bool,
    ) -> Result<(), OverQuota> {
        self.catch_up(journal);
        if self.accounts.is_empty() {
            return Ok(());
        }
        let end = [(key.into(), Some(bytes))];
        self.check(journal, &end, sees)?;
        let held = if sees { journal.accepted_bytes(key) } else { None };
        let (less, more) = (taken(key, held), taken(key, Some(bytes)));
        // What takes no more than what it replaces passes, whatever else there is.
        for path in paths(key).filter(|_| more.bytes > less.bytes) {
            let Some(account) = self.accounts.get(path) else { continue };
            if account.quota.bytes.is_none() {
                continue;
            }
            let others = self.arrivals.iter().filter(|(arrival, _)| Some(**arrival) != own);
            let others = others.filter(|(_, (other, _))| lies_in(other, path));
            let arriving: u64 = others.map(|(_, (_, bytes))| *bytes).sum();
            let more = Used { bytes: more.bytes.saturating_add(arriving), keys: more.keys };
            let used = if sees { account.used } else { Used::default() };
            let passed = account.check(used, less, more);
            passed.map_err(|exceeded| OverQuota { exceeded, key: key.into() })?;
        }
        Ok(())
    }

    fn charged<F>(
        &mut self,
        journal: &Journal,
        ends: &[End],
        commit: impl FnOnce() -> F,
    ) -> Result<F, OverQuota> {
        self.catch_up(journal);
        let mut before = Vec::new();
        if !self.accounts.is_empty() {
            self.check(journal, ends, true)?;
            let keys = ends.iter().map(|(key, _)| key.clone());
            before = keys.map(|key| (journal.accepted_bytes(&key), key)).collect();
            // A key that is named twice changes once.
            before.sort_unstable_by(|(_, one), (_, two)| one.cmp(two));
            before.dedup_by(|(_, one), (_, two)| one == two);
        }
        let commit = commit();
        // What was refused has changed nothing, and is charged as that.
        if self.uncharged {
            before.clear();
        }
        for (old, key) in before {
            self.charge(&key, old, journal.accepted_bytes(&key));
        }
        Ok(commit)
    }

    /// Tells what a subtree holds, and what it may.
    ///
    /// Cost: a pass over its keys.
    pub(crate) fn usage(&mut self, journal: &Journal, prefix: &Prefix) -> Usage {
        self.catch_up(journal);
        let mut used = Used::default();
        journal.each_accepted(prefix.as_str().as_bytes(), |key, value_bytes| {
            if lies_in(key, prefix.as_str()) {
                used.bytes += key.len() as u64 + value_bytes;
                used.keys += 1;
            }
        });
        let concerned = |account: &&Account| {
            account.prefix.covers_prefix(prefix) || prefix.covers_prefix(&account.prefix)
        };
        Usage { used, accounts: self.accounts.values().filter(concerned).cloned().collect() }
    }

    /// Counts anew if accepted changes came to nothing since.
    fn catch_up(&mut self, journal: &Journal) {
        if journal.drops() != self.drops {
            self.recount(journal);
        }
    }

    /// Decides whether a batch may be committed, by its longest values, and by what all of it would leave behind if that may be
    /// told.
    fn check(&self, journal: &Journal, changes: &[End], sees: bool) -> Result<(), OverQuota> {
        let mut ends: BTreeMap<&[u8], Option<u64>> = BTreeMap::new();
        for (key, bytes) in changes {
            for path in paths(key) {
                let most =
                    self.accounts.get(path).and_then(|account| account.quota.value_bytes_max);
                if let Some(most) = most.filter(|most| bytes.is_some_and(|bytes| bytes > *most)) {
                    return Err(OverQuota {
                        exceeded: Exceeded::ValueBytes(most),
                        key: key.clone(),
                    });
                }
            }
            ends.insert(key, *bytes);
        }
        if !sees {
            return Ok(());
        }
        let mut after: BTreeMap<&str, (Used, Used)> = BTreeMap::new();
        for (key, end) in ends {
            let (less, more) = (taken(key, journal.accepted_bytes(key)), taken(key, end));
            for path in paths(key) {
                let (all_less, all_more) = after.entry(path).or_default();
                all_less.add(less);
                all_more.add(more);
            }
        }
        for (path, (less, more)) in after {
            if let Some(account) = self.accounts.get(path) {
                account.check(account.used, less, more).map_err(|exceeded| {
                    let key = first_over(journal, changes, path, exceeded);
                    OverQuota { exceeded, key }
                })?;
            }
        }
        Ok(())
    }

    /// Charges one key's change of value to every quota over it.
    fn charge(&mut self, key: &[u8], old: Option<u64>, new: Option<u64>) {
        let (less, more) = (taken(key, old), taken(key, new));
        for path in paths(key) {
            if let Some(Account { used, .. }) = self.accounts.get_mut(path) {
                // What was counted before is part of it, so neither goes below zero.
                used.bytes = (used.bytes + more.bytes) - less.bytes;
                used.keys = (used.keys + more.keys) - less.keys;
            }
        }
    }
}

impl Account {
    /// Refuses what makes more of that of which there would be too much, where there is so much of it.
    fn check(&self, used: Used, less: Used, more: Used) -> Result<(), Exceeded> {
        let passes =
            |used: u64, less: u64, more: u64, most: u64| more > less && used + more - less > most;
        let Self { quota, .. } = self;
        match (quota.bytes, quota.keys) {
            (Some(most), _) if passes(used.bytes, less.bytes, more.bytes, most) => {
                Err(Exceeded::Bytes(most))
            }
            (_, Some(most)) if passes(used.keys, less.keys, more.keys, most) => {
                Err(Exceeded::Keys(most))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(most) => write!(f, "a quota allows {most} bytes of keys and values"),
            Self::Keys(most) => write!(f, "a quota allows {most} keys"),
            Self::ValueBytes(most) => write!(f, "a quota allows values of {most} bytes"),
        }
    }
}

impl Used {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.keys += other.keys;
    }
}

/// What a key with a value of so many bytes takes; nothing without one.
fn taken(key: &[u8], value_bytes: Option<u64>) -> Used {
    let used = |bytes| Used { bytes: key.len() as u64 + bytes, keys: 1 };
    value_bytes.map(used).unwrap_or_default()
}

/// Yields the first key in a subtree that a batch gives more of what there would be too much of there.
fn first_over(journal: &Journal, changes: &[End], path: &str, exceeded: Exceeded) -> Rc<[u8]> {
    let grows = |(key, end): &&End| {
        // No value is less than an empty one.
        let old = journal.accepted_bytes(key);
        let counts = old.is_none() || !matches!(exceeded, Exceeded::Keys(_));
        *end > old && counts && lies_in(key, path)
    };
    changes.iter().find(grows).map(|(key, _)| key.clone()).unwrap_or_default()
}

/// Tells whether a key is the one of this path or lies below it.
fn lies_in(key: &[u8], path: &str) -> bool {
    let below = key.strip_prefix(path.as_bytes());
    below.is_some_and(|below| below.first().is_none_or(|byte| *byte == b'/'))
}

/// Yields the path of each subtree that a key lies in, the key's own included, the widest first.
///
/// Keys that are no text lie in none: no call makes one.
fn paths(key: &[u8]) -> impl Iterator<Item = &str> {
    let key = core::str::from_utf8(key).unwrap_or_default();
    let slashes = key.match_indices('/').map(|(at, _)| at).skip(1);
    slashes.chain([key.len()]).filter_map(|end| key.get(..end))
}

#[cfg(test)]
mod tests;
