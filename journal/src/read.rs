//! Reading: what everybody sees of a key, and its value from the device, verified.

use crate::batch::{Content, Origin};
use crate::index::{Cursor, Entry};
use crate::journal::{Inner, Journal};
use crate::large::{Manifest, callers_from, is_internal};
use crate::overlay::Pending;
use crate::plant::Plant;
use crate::reader::Piece;
use crate::record::Record;
use crate::state::{Current, State};
use crate::tag::Versions;
use crate::ticket::Settled;
use crate::types::{Birth, Mode, Version, Zone};
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
    /// A large value, to be read with [`Journal::open_value`].
    Large {
        /// Its version.
        version: Version,
        /// Bytes of all of it.
        total_bytes: u64,
    },
    /// It had something that was acknowledged and is lost, or it may have had.
    DataLoss,
    /// It has a value, which no copy holds that the device reads, and there is one that it does not read: nothing says that
    /// the value is lost.
    Unreadable,
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
    /// Bytes of its value, all of it.
    pub value_bytes: u32,
    /// It is a large value: [`Journal::open_value`] reads it, [`Journal::value`] does not.
    pub large: bool,
    /// Its value may be out of date: a later one was lost.
    pub suspect: bool,
    birth: Birth,
    versions: Versions,
    source: Source,
}

impl Seen {
    /// Yields the version of its value. Cost: some tens of nanoseconds, which most of a scan need not pay.
    pub fn version(&self) -> Version {
        self.versions.version(self.birth)
    }
}

#[derive(Clone)]
enum Source {
    Memory(Rc<[u8]>),
    Manifest(Manifest),
    Device(Entry),
}

/// What reading the record of a key yields.
pub(crate) enum Fetched {
    Value(Version, Rc<[u8]>),
    Large(Version, Manifest),
    Absent,
    DataLoss,
    Unreadable,
}

/// What a key has, as its record says.
enum Body {
    Value(Rc<[u8]>),
    Large(Manifest),
    /// Parts of it went meanwhile, with the whole.
    Changed,
    /// A part of it is lost, or cannot be read now; that is noted.
    Broken(Fault),
}

/// Why no copy of a record was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Every copy was read, and none is the record.
    Mismatch,
    /// The device did not read a copy, which may be the record, and no other is.
    Device,
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
        let from = callers_from(from);
        let mut durable = state.index.cursor(from);
        let mut pending = state.overlay.visible_from(from).peekable();
        while pending.peek().is_some() {
            if !self.0.visit_next(&mut durable, &mut pending, &mut visit) {
                return;
            }
        }
        while let Some((key, entry)) = durable.step() {
            if !visit(key, self.0.seen_entry(entry)) {
                return;
            }
        }
    }

    /// Yields the bytes of the value that `key` will have once all that was accepted is durable.
    pub fn accepted_bytes(&self, key: &[u8]) -> Option<u64> {
        let state = self.0.state.borrow();
        match state.overlay.newest(key) {
            Some(pending) => pending.content.as_ref().map(Content::value_bytes),
            None => state.index.get(key).map(|entry| entry.value_bytes.into()),
        }
    }

    /// Shows the keys that begin with `start`, in no order, with the bytes that
    /// [`Journal::accepted_bytes`] tells of each.
    ///
    /// Cost: a pass over the index from `start` on; no value is read.
    pub fn each_accepted(&self, start: &[u8], mut visit: impl FnMut(&[u8], u64)) {
        let state = self.0.state.borrow();
        let mut durable = state.index.cursor(callers_from(start));
        while let Some((key, entry)) = durable.step().filter(|(key, _)| key.starts_with(start)) {
            if state.overlay.newest(key).is_none() {
                visit(key, entry.value_bytes.into());
            }
        }
        let pending = state.overlay.newest_from(start);
        for (key, pending) in pending.take_while(|(key, _)| key.starts_with(start)) {
            if let Some(content) = &pending.content {
                visit(key, content.value_bytes());
            }
        }
    }

    /// Yields how often changes that had been accepted came to nothing: the device failed, or damage holds the room that
    /// they were to have. Buffered ones had been acknowledged; and what [`Journal::accepted_bytes`] counted has to be counted anew.
    pub fn drops(&self) -> u64 {
        self.0.state.borrow().drops
    }

    /// Yields the version that the newest accepted write of a key gives it, though nobody may see it yet; nothing where it has none.
    pub fn accepted(&self, key: &[u8]) -> Option<Version> {
        match self.0.state.borrow().current(key) {
            Current::Present(birth) => Some(self.0.verifier.keys.version(birth)),
            Current::Absent | Current::Doubt => None,
        }
    }

    /// Reads the value that a look or a scan has seen; what the key has now, where that was written over meanwhile.
    ///
    /// Of a large value it tells the length and reads nothing.
    pub async fn value(&self, key: &[u8], seen: &Seen) -> Got {
        if seen.large {
            return Got::Large { version: seen.version(), total_bytes: seen.value_bytes.into() };
        }
        match self.fetch(key, seen).await {
            Fetched::Value(version, value) => Got::Value { version, value },
            Fetched::Large(version, manifest) => {
                Got::Large { version, total_bytes: manifest.total_bytes.into() }
            }
            Fetched::Absent => Got::Absent,
            Fetched::DataLoss => Got::DataLoss,
            Fetched::Unreadable => Got::Unreadable,
        }
    }

    /// Reads the record by which a key has what a look or a scan has seen, or has it now.
    pub(crate) async fn fetch(&self, key: &[u8], seen: &Seen) -> Fetched {
        let mut seen = seen.clone();
        loop {
            let version = seen.version();
            let entry = match seen.source {
                Source::Memory(value) => return Fetched::Value(version, value),
                Source::Manifest(manifest) => return Fetched::Large(version, manifest),
                Source::Device(entry) => entry,
            };
            let fault = match self.0.read_entry(key, &entry).await {
                Ok(Body::Value(value)) => return Fetched::Value(version, value),
                Ok(Body::Large(manifest)) => return Fetched::Large(version, manifest),
                Ok(Body::Broken(Fault::Mismatch)) => return Fetched::DataLoss,
                Ok(Body::Broken(Fault::Device)) => return Fetched::Unreadable,
                Ok(Body::Changed) => None,
                Err(fault) => Some(fault),
            };
            let now = self.0.state.borrow().index.get(key);
            if let Some(fault) = fault.filter(|_| now == Some(entry)) {
                self.0.state.borrow_mut().damaged();
                let silent = self.0.options.plants.has(Plant::SilentAbsence);
                return match fault {
                    _ if silent => Fetched::Absent,
                    Fault::Mismatch => Fetched::DataLoss,
                    Fault::Device => Fetched::Unreadable,
                };
            }
            // Moved by cleaning, or written over, and its old place with it.
            seen = match self.0.visible(key) {
                Looked::Present(seen) => seen,
                Looked::Absent => return Fetched::Absent,
                Looked::DataLoss => return Fetched::DataLoss,
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
        let (value_bytes, source) = match pending.content.clone()? {
            Content::Value(value) | Content::Note(value) | Content::Large(_, Some(value)) => {
                (u32::try_from(value.len()).unwrap_or(u32::MAX), Source::Memory(value))
            }
            Content::Large(manifest, None) => (manifest.total_bytes, Source::Manifest(manifest)),
            // Nobody asks for a part.
            Content::Chunk(_) => return None,
        };
        Some(Seen {
            value_bytes,
            large: matches!(source, Source::Manifest(_)),
            suspect: false,
            birth: pending.birth,
            versions: self.verifier.keys.versions,
            source,
        })
    }

    pub(crate) fn seen_entry(&self, entry: Entry) -> Seen {
        Seen {
            value_bytes: entry.value_bytes,
            large: entry.upload.is_some() && self.is_large(entry.value_bytes),
            suspect: entry.suspect,
            birth: entry.birth,
            versions: self.verifier.keys.versions,
            source: Source::Device(entry),
        }
    }

    /// Reads the value that `entry` points to; of a large one the manifest.
    async fn read_entry(&self, key: &[u8], entry: &Entry) -> Result<Body, Fault> {
        let Some(upload) = entry.upload else {
            return self.read(key, entry).await.map(Body::Value);
        };
        let large = self.is_large(entry.value_bytes);
        if !large && let Some(value) = self.state.borrow().cache.get(entry.place, entry.birth) {
            return Ok(Body::Value(value));
        }
        let manifest = Manifest::decode(&self.read(key, entry).await?);
        let same = |it: &Manifest| it.upload == upload && it.total_bytes == entry.value_bytes;
        let manifest = manifest.filter(same).ok_or(Fault::Mismatch)?;
        if large {
            return Ok(Body::Large(manifest));
        }
        let value = match self.assemble(key, &manifest).await {
            Piece::Bytes(value) => value,
            Piece::Changed => return Ok(Body::Changed),
            Piece::DataLoss => return Ok(Body::Broken(Fault::Mismatch)),
            Piece::Unreadable => return Ok(Body::Broken(Fault::Device)),
        };
        self.state.borrow_mut().keep(key, entry, &value);
        Ok(Body::Value(value))
    }

    /// Shows the next key of both sources, a visible change hiding what is durable; tells whether to go on.
    fn visit_next<'a>(
        &self,
        durable: &mut Cursor<'_>,
        pending: &mut Peekable<impl Iterator<Item = (&'a [u8], &'a Pending)>>,
        visit: &mut impl FnMut(&[u8], Seen) -> bool,
    ) -> bool {
        let next = durable.peek().map(|(key, _)| key);
        let before = |(key, _): &(&[u8], &Pending)| next.is_none_or(|next| *key <= next);
        let Some((key, change)) = pending.next_if(before) else {
            let next = durable.step();
            return next.is_some_and(|(key, entry)| visit(key, self.seen_entry(entry)));
        };
        if next == Some(key) {
            durable.step();
        }
        self.seen_pending(change).is_none_or(|seen| visit(key, seen))
    }

    /// Reads the value of a record, or its manifest, from the device: copy A, else copy B, else copy A again, which may have been
    /// repaired after it was read, when copy B had yet to go bad.
    pub(crate) async fn read(&self, key: &[u8], entry: &Entry) -> Result<Rc<[u8]>, Fault> {
        // Chunks and manifests are not kept: they would push out what is asked for more often.
        let kept = entry.upload.is_none() && !is_internal(key);
        if kept && let Some(value) = self.state.borrow().cache.get(entry.place, entry.birth) {
            return Ok(value);
        }
        let geometry = &self.verifier.geometry;
        let block = geometry.block_of(entry.place);
        let use_ = self.state.borrow().use_at(entry.place.segment, block);
        let epoch = use_.ok_or(Fault::Mismatch)?.epoch;
        let skip = entry.place.offset as usize % geometry.block_bytes();
        let mut fault = Fault::Mismatch;
        let bytes = (skip + entry.record_bytes(key)).next_multiple_of(geometry.block_bytes());
        // A forged checkpoint may claim any length; no record leaves its segment.
        if block.0 as usize * geometry.block_bytes() + bytes > geometry.segment_bytes() {
            return Err(Fault::Mismatch);
        }
        let one = geometry.copies() < 2 || self.options.plants.has(Plant::ReadOneCopy);
        let zones: &[Zone] = if one { &[Zone::A] } else { &[Zone::A, Zone::B, Zone::A] };
        for (tries, &zone) in zones.iter().enumerate() {
            let offset = geometry.block_offset(zone, entry.place.segment, block);
            let Ok(buffer) = self.disk.read(offset, bytes).await else {
                fault = Fault::Device;
                continue;
            };
            let record = buffer.get(skip..).unwrap_or_default();
            let Ok(record) = Record::decode(epoch, entry.place, record) else {
                continue;
            };
            let manifest = entry.upload.is_some();
            if record.key != key || record.birth != entry.birth || record.manifest != manifest {
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
            if kept {
                state.keep(key, entry, &value);
            }
            return Ok(value);
        }
        Err(fault)
    }
}

impl State {
    /// Keeps what reading `entry` yielded, if `key` has it still: the device took its time, and another record may lie at that
    /// place by now.
    fn keep(&mut self, key: &[u8], entry: &Entry, value: &Rc<[u8]>) {
        if self.index.get(key) == Some(*entry) {
            self.cache.insert(entry.place, entry.birth, value.clone());
        }
    }

    /// Notes that a copy did not verify when it was read; the next mount repairs it.
    pub(crate) fn damaged(&mut self) {
        self.damaged_reads += 1;
        if self.mode == Mode::Healthy {
            self.mode = Mode::Degraded;
        }
    }
}
