//! What is recorded of each mutation and each refusal: who did what to which key, and by which
//! rule. Never a value.
//!
//! The record of a mutation is a note in the mutation's own commit group, so both survive or
//! neither does. Refusals cost their peers nothing, so they must not cost the device much either:
//! they are gathered, the same one in a row is counted, and what was gathered is written once in a
//! while. Both kinds go into rings of the journal, which forget their oldest.

mod encoding;

use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::mem;

use journal::{Got, Journal, Note, Ring};
use policy::{Demand, Granted, Right};

use crate::error::Error;
use crate::limits::Limits;
use crate::page::all;
use crate::request::Audited;

pub(crate) use encoding::NOTES_BYTES_MAX;

/// Milliseconds between two writes of refusals: a flood of them costs a device a few blocks in each.
pub const AUDIT_WRITE_MS: u64 = 10_000;

/// Refusals that are told one by one in each write; those beyond are counted.
pub const AUDIT_REFUSALS_MAX: usize = 16;

/// As many of them are of one service and one operation at most, so that who asks in a flood does not
/// drown what others were refused.
pub const AUDIT_REFUSALS_ALIKE_MAX: usize = 4;

/// As many of them are of one service at most, for the same reason: it may be refused several operations.
pub const AUDIT_REFUSALS_OF_SERVICE_MAX: usize = 8;

/// Notes of one page that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// What a reply holds besides its records, and what a record takes besides its texts.
const REPLY_OVERHEAD_BYTES: usize = 1024;
const RECORD_BYTES: usize = 72;

/// One mutation that was applied, or one request that was refused.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Record {
    /// Its number in its ring.
    pub(crate) sequence: u64,
    /// Milliseconds since 1970; 0 where the machine has no clock.
    pub(crate) unix_millis: u64,
    /// Empty for a peer that the policy did not name.
    pub(crate) service: String,
    pub(crate) operation: String,
    pub(crate) key: String,
    /// The grant that allowed it, or what was missing.
    pub(crate) rule: String,
    pub(crate) applied: bool,
    /// Refusals behind it that have no record of their own.
    pub(crate) repeats: u32,
    /// Of a put the version that it gave its key; else 0.
    pub(crate) version: u64,
}

/// One page of a ring.
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    /// There are more behind the last one.
    pub(crate) more: bool,
    /// The number of the oldest record; 0 if there is none.
    pub(crate) oldest: u64,
}

/// What a server records.
pub(crate) struct Audit {
    on: bool,
    /// What the machine's clock says more than the server's, in milliseconds.
    ahead: Cell<Option<u64>>,
    refusals: RefCell<Refusals>,
}

/// Refusals that are not written yet.
#[derive(Default)]
struct Refusals {
    pending: Vec<Record>,
    /// None is written before, in milliseconds of the server's clock.
    next: u64,
}

impl Audit {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ahead: Cell::new(None), refusals: RefCell::default() }
    }

    /// Sets what the machine's clock says at `now` of the server's.
    pub(crate) fn set_clock(&self, now: u64, unix_millis: u64) {
        self.ahead.set(Some(unix_millis.saturating_sub(now)));
    }

    fn unix_millis(&self, now: u64) -> u64 {
        self.ahead.get().map_or(0, |ahead| now.saturating_add(ahead))
    }

    /// Yields the notes of changes that were granted together, to be written with them, behind
    /// `marks` keys of the daemon.
    pub(crate) fn mutation<R: Demand>(
        &self,
        now: u64,
        granted: &[Granted<R>],
        marks: u16,
    ) -> Vec<Note> {
        let Some(first) = granted.first().filter(|_| self.on) else { return Vec::new() };
        let (count, service) = (granted.len(), first.service().name());
        let mut notes = encoding::Mutations::new(self.unix_millis(now), count, marks, service);
        for granted in granted {
            let line = granted.rule().position().line;
            let request = granted.request();
            notes.push(request.right() == Right::Put, line, request.target().as_str());
        }
        notes.finish()
    }

    /// Records a refusal, or counts it.
    pub(crate) fn deny(&self, now: u64, service: &str, right: &str, path: &str, rule: String) {
        if !self.on {
            return;
        }
        let pending = &mut self.refusals.borrow_mut().pending;
        let alike = |it: &Record| (&*it.service, &*it.operation) == (service, right);
        let same = |it: &Record| alike(it) && (&*it.key, &*it.rule) == (path, &*rule);
        let own = |it: &Record| &*it.service == service;
        let count = |of: &dyn Fn(&Record) -> bool| pending.iter().filter(|it| of(it)).count();
        let full = pending.len() >= AUDIT_REFUSALS_MAX;
        let counts = pending.last().is_some_and(same)
            || full
            || count(&alike) >= AUDIT_REFUSALS_ALIKE_MAX
            || count(&own) >= AUDIT_REFUSALS_OF_SERVICE_MAX;
        let before = last(pending, service, right).filter(|_| counts);
        // Of more services than there are records nobody has one to spare.
        let before = before.or_else(|| (full && !spare(pending)).then(|| pending.len() - 1));
        if let Some(before) = before.and_then(|at| pending.get_mut(at)) {
            before.repeats = before.repeats.saturating_add(1);
            return;
        }
        pending.push(Record {
            unix_millis: self.unix_millis(now),
            service: service.into(),
            operation: right.into(),
            key: path.into(),
            rule,
            ..Record::default()
        });
    }

    /// Hands what was gathered to the journal if that is due by now, or at once at the end.
    pub(crate) fn write(&self, journal: &Journal, now: u64, at_once: bool) {
        let mut refusals = self.refusals.borrow_mut();
        if refusals.pending.is_empty() || (now < refusals.next && !at_once) {
            return;
        }
        refusals.next = now.saturating_add(AUDIT_WRITE_MS);
        // What the journal does not take now is gathered on, and at last counted.
        if journal.note(encoding::refusals(&refusals.pending)).is_ok() {
            refusals.pending.clear();
        }
    }

    /// When [`Audit::write`] has something to do.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let refusals = self.refusals.borrow();
        (!refusals.pending.is_empty()).then_some(refusals.next)
    }
}

/// Takes away the newest record of the service with most of them, and counts it on one before it; tells whether there is one.
fn spare(pending: &mut Vec<Record>) -> bool {
    let count = |of: &Record| pending.iter().filter(|it| it.service == of.service).count();
    let newest = pending.iter().enumerate().max_by_key(|(_, it)| count(it));
    let counted = newest.and_then(|(at, it)| {
        let before = last(pending.get(..at)?, &it.service, &it.operation)?;
        Some((at, before))
    });
    let Some((at, before)) = counted else { return false };
    let repeats = pending.remove(at).repeats.saturating_add(1);
    if let Some(before) = pending.get_mut(before) {
        before.repeats = before.repeats.saturating_add(repeats);
    }
    true
}

/// Yields where the last record of a service is, of an operation where it has one of that.
fn last(pending: &[Record], service: &str, operation: &str) -> Option<usize> {
    let own = |it: &Record| it.service == service;
    let alike = pending.iter().rposition(|it| own(it) && it.operation == operation);
    alike.or_else(|| pending.iter().rposition(own))
}

/// Reads a page of the records that are on the medium.
///
/// # Errors
/// [`Error::Unreadable`] when the device does not read one of them. What is lost is left out: the
/// numbers tell.
pub(crate) async fn page(
    journal: &Journal,
    asked: &Audited,
    limits: &Limits,
) -> Result<Page, Error> {
    let wanted = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    let most = if wanted == 0 { limits.list_entries } else { wanted.min(limits.list_entries) };
    let bytes_max = limits.reply_bytes.saturating_sub(REPLY_OVERHEAD_BYTES);
    let oldest = journal.notes(asked.ring, 0, 1).first().map_or(0, |note| {
        // A count is never more than the number.
        note.last + 1 - u64::from(note.count)
    });
    let mut page = Page { records: Vec::new(), more: false, oldest };
    let (mut from, mut bytes) = (asked.after, 0);
    loop {
        let notes = journal.notes(asked.ring, from, READS_AT_ONCE);
        let Some(last) = notes.last().map(|note| note.last) else { return Ok(page) };
        from = last;
        let reads = all(notes.iter().map(|note| journal.read_note(note))).await;
        for (note, got) in notes.iter().zip(reads) {
            let (version, value) = match got {
                Got::Value { version, value } => (version, value),
                Got::Unreadable => return Err(Error::Unreadable),
                Got::Absent | Got::DataLoss | Got::Large { .. } => continue,
            };
            let records = encoding::records(journal, asked.ring, note, version, &value);
            for record in records.into_iter().filter(|record| record.sequence > asked.after) {
                bytes += record.cost();
                let full = page.records.len() >= most || bytes > bytes_max;
                if full && !page.records.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                page.records.push(record);
            }
        }
    }
}

impl Record {
    /// What it takes in a message.
    fn cost(&self) -> usize {
        let texts = [&self.service, &self.operation, &self.key, &self.rule];
        let text = |text: &String| (text.len() + 1).next_multiple_of(8);
        RECORD_BYTES + texts.into_iter().map(text).sum::<usize>()
    }
}

/// Yields `text`, cut to at most `bytes_max` bytes between two characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or_default()
}

/// Writes a grant as the daemon's log does.
fn rule_at(line: u32) -> String {
    let mut rule = String::from("grant at line ");
    rule.push_str(&line.to_string());
    rule
}

/// Makes a note of what was gathered.
fn note(ring: Ring, count: usize, bytes: Vec<u8>) -> Note {
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    Note { ring, count, bytes: Rc::from(bytes) }
}

/// Takes `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (first, rest) = mem::take(bytes).split_at_checked(count)?;
    *bytes = rest;
    Some(first)
}
