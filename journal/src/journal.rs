//! The journal as its callers see it: open, commit, get, scan, sync, and the task that writes.

use crate::batch::{Batch, CommitError, Origin, Outcome};
use crate::cache::ValueCache;
use crate::disk::Disk;
use crate::geometry::VolumeGeometry;
use crate::group::Verifier;
use crate::index::{Entry, Index, Iter};
use crate::mount::{Mounted, OpenError, Report, look, mount};
use crate::overlay::{Overlay, Pending};
use crate::plant::Plants;
use crate::record::Record;
use crate::replay::Doubt;
use crate::space::Space;
use crate::state::State;
use crate::superblock::Superblock;
use crate::tag::Random;
use crate::ticket::Settled;
use crate::types::{Lsn, Mode, ReadOnlyReason, Use, Version, VolumeId};
use crate::writer::{Writer, flush_bytes_max};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::iter::Peekable;

/// Milliseconds on a clock that never goes back, set by the driver; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// Sets the time.
    pub fn set(&self, now: u64) {
        self.0.set(now.max(self.0.get()));
    }

    /// Yields the time that was set last.
    pub fn now(&self) -> u64 {
        self.0.get()
    }
}

/// Bounds and behaviour that a driver chooses.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of values kept in memory.
    pub cache_bytes: usize,
    /// Records that one group takes at most, in bytes; a larger batch gets a group of its own.
    pub group_bytes_max: usize,
    /// Bytes of groups under one flush at most.
    pub flush_bytes_max: usize,
    /// Milliseconds that buffered data may wait before it is written.
    pub buffered_ms: u64,
    /// Rules that a test switched off.
    pub plants: Plants,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 4 << 20,
            group_bytes_max: 256 << 10,
            flush_bytes_max: flush_bytes_max(),
            buffered_ms: 50,
            plants: Plants::default(),
        }
    }
}

/// An open volume; clones share it.
#[derive(Clone)]
pub struct Journal(Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) disk: Disk,
    pub(crate) verifier: Verifier,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
    pub(crate) state: RefCell<State>,
    writer: RefCell<Option<Writer>>,
    report: Report,
}

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

/// Figures of an open volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// The volume.
    pub volume: VolumeId,
    /// Its shape.
    pub geometry: VolumeGeometry,
    /// This mount's number.
    pub mount: u64,
    /// Keys with a value.
    pub keys: usize,
    /// Last LSN that is durable.
    pub durable: Lsn,
    /// Bytes left for puts per copy, headers and padding included.
    pub free_bytes: u64,
    /// Bytes of batches that wait to be written.
    pub queued_bytes: usize,
    /// Reads that found one copy damaged and were answered from the other.
    pub damaged_reads: u64,
}

impl Journal {
    /// Opens a volume: flush, recover, repair, flush, superblock (FORMAT.md section 7).
    ///
    /// Durability: when this returns, all that it shows survives any later cut. The caller polls
    /// [`Journal::run`] from then on.
    ///
    /// # Errors
    /// [`OpenError`]; before a write fails nothing has been changed but repairs of damaged copies.
    pub async fn open(
        disk: Disk,
        mut random: Random,
        clock: Clock,
        options: Options,
    ) -> Result<Self, OpenError> {
        let mounted = mount(&disk, &mut random, options.plants).await?;
        let Mounted { superblock, ages, verifier, index, doubt, tag, fresh, list_full, report } =
            mounted;
        let block = fresh.and_then(|at| superblock.log.get(at)).map_or(0, |use_| use_.start.0);
        let writer = Writer { superblock, ages, random, in_use: fresh, block, tag };
        let mode =
            if list_full { Mode::ReadOnly(ReadOnlyReason::ListFull) } else { healthy(&report) };
        let superblock = &writer.superblock;
        let mut state = State::new(superblock, report.next, options, index, doubt);
        state.mode = mode;
        state.space = writer.space();
        let writer = RefCell::new(Some(writer));
        let state = RefCell::new(state);
        Ok(Self(Rc::new(Inner { disk, verifier, clock, options, state, writer, report })))
    }

    /// Opens a volume without changing a byte: R0 to R3 alone. Every commit is refused.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_read_only(disk: Disk, options: Options) -> Result<Self, OpenError> {
        let (copies, verifier, found) = look(&disk, options.plants).await?;
        let report = found.report(&copies, 0);
        let superblock = &found.superblock;
        let mut state = State::new(superblock, report.next, options, found.index, found.doubt);
        state.mode = Mode::ReadOnly(ReadOnlyReason::Requested);
        let (writer, state) = (RefCell::new(None), RefCell::new(state));
        let clock = Clock::default();
        Ok(Self(Rc::new(Inner { disk, verifier, clock, options, state, writer, report })))
    }

    /// The task that writes: polled by the driver with every turn, until the volume is closed.
    ///
    /// It ends after a write or flush failed, never otherwise. Only the first call gets the task.
    pub fn run(&self) -> impl Future<Output = ()> + 'static {
        let inner = self.0.clone();
        async move {
            let writer = inner.writer.borrow_mut().take();
            if let Some(writer) = writer {
                writer.run(&inner).await;
            }
        }
    }

    /// Judges a batch and fixes its place in the order, all before this returns; the future yields the answer.
    ///
    /// Durability: for [`crate::Durability::Durable`] all of it is on the medium, in every copy, when the future
    /// yields `Applied`.
    ///
    /// # Errors
    /// [`CommitError`]; `Indeterminate` alone leaves open whether the batch survives.
    pub fn commit(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<Outcome, CommitError>> + use<> {
        let now = self.0.clock.now();
        let admitted = self.0.state.borrow_mut().admit(&self.0.verifier, batch, now);
        async move {
            let admitted = admitted?;
            match admitted.ticket {
                Some(ticket) => answer(ticket.await).map(|()| admitted.outcome),
                None => Ok(admitted.outcome),
            }
        }
    }

    /// Waits until everything accepted so far is durable.
    ///
    /// # Errors
    /// [`CommitError::Indeterminate`] when the device failed first.
    pub fn sync(&self) -> impl Future<Output = Result<(), CommitError>> + use<> {
        let mut state = self.0.state.borrow_mut();
        state.urgent = !state.queue.is_empty();
        let waits = match state.mode {
            Mode::ReadOnly(ReadOnlyReason::WriteFailed | ReadOnlyReason::FlushFailed) => {
                Err(CommitError::Indeterminate)
            }
            _ => Ok(state.newest.clone()),
        };
        async move {
            match waits? {
                // What was never written had been acknowledged as buffered: its end is as open.
                Some(ticket) => match ticket.await {
                    Settled::Durable => Ok(()),
                    Settled::Indeterminate | Settled::NotApplied => Err(CommitError::Indeterminate),
                },
                None => Ok(()),
            }
        }
    }

    /// Yields what `key` has: durable or acknowledged as buffered, after the caller's own pending write of it.
    pub async fn get(&self, key: &[u8], origin: Origin) -> Got {
        match self.look(key, origin).await {
            Looked::Present(seen) => match self.value(key, &seen).await {
                Some(value) => Got::Value { version: seen.version, value },
                None => Got::DataLoss,
            },
            Looked::Absent => Got::Absent,
            Looked::DataLoss => Got::DataLoss,
        }
    }

    /// Yields what `key` has like [`Journal::get`], without reading its value.
    pub async fn look(&self, key: &[u8], origin: Origin) -> Looked {
        // Only the writes before this call: later ones would keep it waiting for ever. Tickets
        // settle in order, so the newest covers the others.
        let own = self.0.state.borrow().overlay.own(key, origin).map(|own| own.ticket.clone());
        if let Some(ticket) = own {
            ticket.await;
        }
        let state = self.0.state.borrow();
        let seen = match state.overlay.visible(key) {
            Some(pending) => self.0.seen_pending(pending),
            None => match state.index.get(key) {
                Some(entry) => Some(self.0.seen_entry(entry)),
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

    /// Waits until the caller's own pending writes under `prefix` have ended.
    pub async fn own_writes_under(&self, prefix: &[u8], origin: Origin) {
        loop {
            let own = self
                .0
                .state
                .borrow()
                .overlay
                .own_under(prefix, origin)
                .map(|own| own.ticket.clone());
            match own {
                Some(ticket) => drop(ticket.await),
                None => return,
            }
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

    /// Tells whether keys may be missing from what scans show, lost with damaged groups.
    pub fn has_doubt(&self) -> bool {
        self.0.state.borrow().doubt.absent
    }

    /// Yields the value of a key that a scan showed, or `None` when it cannot be read any more.
    pub async fn value(&self, key: &[u8], seen: &Seen) -> Option<Rc<[u8]>> {
        match &seen.source {
            Source::Memory(value) => Some(value.clone()),
            Source::Device(entry) => self.0.read(key, entry).await,
        }
    }

    /// Yields the mode and why.
    pub fn mode(&self) -> Mode {
        self.0.state.borrow().mode
    }

    /// Yields what opening found.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// Yields when the writer wants to be polled though nothing happens, in the clock's milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        let state = self.0.state.borrow();
        if state.queue.is_empty() { None } else { self.0.buffered_due(&state) }
    }

    /// Yields the figures of this moment.
    pub fn stats(&self) -> Stats {
        let state = self.0.state.borrow();
        let geometry = self.0.verifier.geometry;
        Stats {
            volume: self.0.verifier.volume,
            geometry,
            mount: state.mount,
            keys: state.index.len(),
            durable: state.durable,
            free_bytes: state.space.blocks_left() * geometry.block_bytes() as u64,
            queued_bytes: state.queue_bytes,
            damaged_reads: state.damaged_reads,
        }
    }

    /// Yields the uses of the log and the LSN behind its end, as far as they are known.
    pub fn uses(&self) -> alloc::vec::Vec<Use> {
        self.0.state.borrow().uses.clone()
    }
}

impl State {
    fn new(
        superblock: &Superblock,
        next: Lsn,
        options: Options,
        index: Index,
        doubt: Doubt,
    ) -> Self {
        Self {
            mode: Mode::Healthy,
            index,
            doubt,
            overlay: Overlay::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            urgent: false,
            buffered_since: None,
            newest: None,
            next,
            durable: next.before(),
            mount: superblock.mount,
            space: Space::default(),
            uses: superblock.log.clone(),
            cache: ValueCache::new(options.cache_bytes),
            damaged_reads: 0,
        }
    }
}

impl Inner {
    pub(crate) fn buffered_due(&self, state: &State) -> Option<u64> {
        state.buffered_since.map(|since| since.saturating_add(self.options.buffered_ms))
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
    async fn read(&self, key: &[u8], entry: &Entry) -> Option<Rc<[u8]>> {
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
        for (tries, zone) in geometry.zones().enumerate() {
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
                state.damaged();
            }
            state.cache.insert(entry.place, value.clone());
            return Some(value);
        }
        self.state.borrow_mut().damaged();
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

fn healthy(report: &Report) -> Mode {
    if report.lost.is_empty() { Mode::Healthy } else { Mode::Degraded }
}

fn answer(settled: Settled) -> Result<(), CommitError> {
    match settled {
        Settled::Durable => Ok(()),
        Settled::Indeterminate => Err(CommitError::Indeterminate),
        Settled::NotApplied => Err(CommitError::ReadOnly(ReadOnlyReason::WriteFailed)),
    }
}
