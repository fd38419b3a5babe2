//! Reading: what everybody sees of a key, and its value from the device, verified.

use crate::batch::Origin;
use crate::index::{Entry, Iter};
use crate::journal::{Inner, Journal};
use crate::overlay::Pending;
use crate::plant::Plant;
use crate::record::Record;
use crate::state::State;
use crate::ticket::Settled;
use crate::types::{Mode, Use, Version};
use alloc::rc::Rc;
use core::iter::Peekable;

/// What a key has.
#[derive(Clone, PartialEq, Eq)]
pub enum Got {
    /// A value.
    Value {
        /// Its version.
        version: Version,
        /// Its bytes.
        value: Rc<[u8]>,
    },
    /// Nothing.
    Absent,
    /// It had something that was acknowledged and is lost, or it may have had.
    DataLoss,
}

/// What a key has, its value unread.
#[derive(Clone)]
pub enum Looked {
    /// A value, to be read with [`Journal::value`].
    Present(Seen),
    /// Nothing.
    Absent,
    /// It had something that was acknowledged and is lost, or it may have had.
    DataLoss,
}

/// What a scan sees of a key.
#[derive(Clone)]
pub struct Seen {
    /// Version of its value.
    pub version: Version,
    /// Bytes of its value.
    pub value_bytes: u32,
    /// Its value may be out of date: a later one was lost.
    pub suspect: bool,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Memory(Rc<[u8]>),
    Device(Entry),
}

impl Journal {
    /// Yields what `key` has: durable or acknowledged as buffered, after the caller's own pending write of it.
    pub async fn get(&self, key: &[u8], origin: Origin) -> Got {
        match self.look(key, origin).await {
            Looked::Present(seen) => self.value(key, &seen).await,
            Looked::Absent => Got::Absent,
            Looked::DataLoss => Got::DataLoss,
        }
    }

    /// Yields what `key` has like [`Journal::get`], without reading its value.
    pub async fn look(&self, key: &[u8], origin: Origin) -> Looked {
        // Only the writes before this call: later ones would keep it waiting for ever, and are not
        // what it asks for. Tickets settle in order, so the newest covers the others. Where everybody
        // sees something newer already that is the answer, and waiting could only miss it.
        let own = {
            let state = self.0.state.borrow();
            let visible = state.overlay.visible(key).map(|pending| pending.birth);
            let own = state.overlay.own(key, origin);
            own.filter(|own| visible.is_none_or(|visible| visible < own.birth)).cloned()
        };
        if let Some(own) = own
            && own.ticket.clone().await == Settled::Durable
        {
            return self.0.seen_pending(&own).map_or(Looked::Absent, Looked::Present);
        }
        self.0.visible(key)
    }

    /// Waits until the caller's own pending writes under `prefix` have ended.
    pub async fn own_writes_under(&self, prefix: &[u8], origin: Origin) {
        // As above: the writes before this call, of which the newest settles last.
        let own = {
            let state = self.0.state.borrow();
            state.overlay.own_under(prefix, origin).map(|own| own.ticket.clone())
        };
        if let Some(ticket) = own {
            ticket.await;
        }
    }

    /// Shows the keys at or after `from` in bytewise order, until `visit` returns false.
    pub fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], Seen) -> bool) {
        let state = self.0.state.borrow();
        let mut durable = state.index.iter_from(from).peekable();
        let mut pending = state.overlay.visible_from(from).peekable();
        while let Some((key, seen)) = self.0.next_seen(&mut durable, &mut pending) {
            if seen.is_some_and(|seen| !visit(key, seen)) {
                return;
            }
        }
    }

    /// Yields the bytes of the value that `key` will have once all that was accepted is durable.
    pub fn accepted_bytes(&self, key: &[u8]) -> Option<u64> {
        let state = self.0.state.borrow();
        match state.overlay.newest(key) {
            Some(pending) => pending.value.as_ref().map(|value| value.len() as u64),
            None => state.index.get(key).map(|entry| entry.value_bytes.into()),
        }
    }

    /// Shows the keys that begin with `start`, in no order, with the bytes that
    /// [`Journal::accepted_bytes`] tells of each.
    ///
    /// Cost: a pass over the index from `start` on; no value is read.
    pub fn each_accepted(&self, start: &[u8], mut visit: impl FnMut(&[u8], u64)) {
        let state = self.0.state.borrow();
        for (key, entry) in state.index.iter_from(start) {
            if !key.starts_with(start) {
                break;
            }
            if state.overlay.newest(key).is_none() {
                visit(key, entry.value_bytes.into());
            }
        }
        let pending = state.overlay.newest_from(start);
        for (key, pending) in pending.take_while(|(key, _)| key.starts_with(start)) {
            if let Some(value) = &pending.value {
                visit(key, value.len() as u64);
            }
        }
    }

    /// Yields how often changes that had been accepted came to nothing, so that what was counted by
    /// [`Journal::accepted_bytes`] has to be counted anew.
    pub fn drops(&self) -> u64 {
        self.0.state.borrow().drops
    }

    /// Reads the value that a look or a scan has seen; what the key has now, where that was written over meanwhile.
    pub async fn value(&self, key: &[u8], seen: &Seen) -> Got {
        let mut seen = seen.clone();
        loop {
            let entry = match seen.source {
                Source::Memory(value) => return Got::Value { version: seen.version, value },
                Source::Device(entry) => entry,
            };
            if let Some(value) = self.0.read(key, &entry).await {
                return Got::Value { version: seen.version, value };
            }
            let now = self.0.state.borrow().index.get(key);
            if now == Some(entry) {
                self.0.state.borrow_mut().damaged();
                let silent = self.0.options.plants.has(Plant::SilentAbsence);
                return if silent { Got::Absent } else { Got::DataLoss };
            }
            // Moved by cleaning, or written over, and its old place with it.
            seen = match self.0.visible(key) {
                Looked::Present(seen) => seen,
                Looked::Absent => return Got::Absent,
                Looked::DataLoss => return Got::DataLoss,
            };
        }
    }
}

impl Inner {
    /// Yields what everybody sees of `key`.
    fn visible(&self, key: &[u8]) -> Looked {
        let state = self.state.borrow();
        let seen = match state.overlay.visible(key) {
            Some(pending) => self.seen_pending(pending),
            None => match state.index.get(key) {
                Some(entry) => Some(self.seen_entry(entry)),
                None if state.doubtful(key) => return Looked::DataLoss,
                None => None,
            },
        };
        match seen {
            None => Looked::Absent,
            Some(seen) if seen.suspect => Looked::DataLoss,
            Some(seen) => Looked::Present(seen),
        }
    }

    fn seen_pending(&self, pending: &Pending) -> Option<Seen> {
        let value = pending.value.clone()?;
        Some(Seen {
            version: self.verifier.keys.version(pending.birth),
            value_bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
            suspect: false,
            source: Source::Memory(value),
        })
    }

    fn seen_entry(&self, entry: Entry) -> Seen {
        Seen {
            version: self.verifier.keys.version(entry.birth),
            value_bytes: entry.value_bytes,
            suspect: entry.suspect,
            source: Source::Device(entry),
        }
    }

    /// Merges the next key of both sources; a visible change hides what is durable.
    fn next_seen<'a>(
        &self,
        durable: &mut Peekable<Iter<'a>>,
        pending: &mut Peekable<impl Iterator<Item = (&'a [u8], &'a Pending)>>,
    ) -> Option<(&'a [u8], Option<Seen>)> {
        let from_durable = match (durable.peek(), pending.peek()) {
            (None, None) => return None,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((left, _)), Some((right, _))) => left < right,
        };
        if from_durable {
            return durable.next().map(|(key, entry)| (key, Some(self.seen_entry(*entry))));
        }
        let (key, change) = pending.next()?;
        durable.next_if(|(left, _)| *left == key);
        Some((key, self.seen_pending(change)))
    }

    /// Reads a value from the device: copy A, else copy B, else it is lost.
    pub(crate) async fn read(&self, key: &[u8], entry: &Entry) -> Option<Rc<[u8]>> {
        if let Some(value) = self.state.borrow().cache.get(entry.place) {
            return Some(value);
        }
        let geometry = &self.verifier.geometry;
        let block = geometry.block_of(entry.place);
        let epoch = {
            let state = self.state.borrow();
            let holds = |use_: &&Use| use_.segment == entry.place.segment && use_.start <= block;
            state.uses.iter().filter(holds).max_by_key(|use_| use_.start)?.epoch
        };
        let skip = entry.place.offset as usize % geometry.block_bytes();
        let bytes = crate::record::record_bytes(key.len(), entry.value_bytes as usize);
        let bytes = (skip + bytes).next_multiple_of(geometry.block_bytes());
        let copies = if self.options.plants.has(Plant::ReadOneCopy) { 1 } else { 2 };
        for (tries, zone) in geometry.zones().take(copies).enumerate() {
            let offset = geometry.block_offset(zone, entry.place.segment, block);
            let Ok(buffer) = self.disk.read(offset, bytes).await else {
                continue;
            };
            let record = buffer.get(skip..).unwrap_or_default();
            let Ok(record) = Record::decode(epoch, entry.place, record) else {
                continue;
            };
            if record.key != key || record.birth != entry.birth {
                continue;
            }
            let value: Rc<[u8]> = record.value.into();
            let mut state = self.state.borrow_mut();
            if tries > 0 {
                state.damaged_reads += 1;
                if !state.to_repair.contains(&entry.place.segment) {
                    state.to_repair.push(entry.place.segment);
                }
            }
            state.cache.insert(entry.place, value.clone());
            return Some(value);
        }
        None
    }
}

impl State {
    /// Notes that a copy did not verify when it was read; the next mount repairs it.
    fn damaged(&mut self) {
        self.damaged_reads += 1;
        if self.mode == Mode::Healthy {
            self.mode = Mode::Degraded;
        }
    }
}
