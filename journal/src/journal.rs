//! The journal as its callers see it: open, commit, get, scan, sync, and the task that writes.

use crate::batch::{Batch, CommitError, Outcome, Wanted};
use crate::cache::ValueCache;
use crate::check::CheckReport;
use crate::clean::Slice;
use crate::disk::Disk;
use crate::geometry::VolumeGeometry;
use crate::group::Verifier;
use crate::index::Index;
use crate::maintain::replay_bytes;
use crate::mount::{Flusher, Found, Mounted, OpenError, Report, look, mount};
use crate::overlay::Overlay;
use crate::plant::{Plant, Plants};
use crate::replay::Doubt;
use crate::ring::{Note, Numbers};
use crate::room::Room;
use crate::split::Splitting;
use crate::state::{Admitted, Asked, Durable, State};
use crate::stuck::Stuck;
use crate::superblock::Superblock;
use crate::tag::Random;
use crate::ticket::{Ticket, answered};
use crate::types::{Birth, BlockIndex, Lsn, Mode, ReadOnlyReason, Use, Version, VolumeId};
use crate::writer::{Tail, Volume};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::DeviceError;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::task::Poll;

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
    /// Milliseconds without commits after which a watermark says what is durable; `None`: never.
    pub watermark_ms: Option<u64>,
    /// Bound on the log that a mount replays, in bytes per copy; `None`: the larger of 4 MiB and twice the
    /// checkpoint. Never less than six segments, which cleaning needs to work.
    pub replay_bytes: Option<u64>,
    /// Longest value that one record holds, in bytes; a longer one is cut into chunks. Never more than the shape of the
    /// volume says.
    pub value_record_bytes_max: usize,
    /// Rules that a test switched off.
    pub plants: Plants,
}

/// Most bytes of groups under one flush: beyond it a commit would wait long for its neighbours.
const FLUSH_BYTES_MAX: usize = 2 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 4 << 20,
            group_bytes_max: 256 << 10,
            flush_bytes_max: FLUSH_BYTES_MAX,
            buffered_ms: 50,
            watermark_ms: Some(50),
            replay_bytes: None,
            value_record_bytes_max: usize::MAX,
            plants: Plants::default(),
        }
    }
}

/// An open volume; clones share it.
#[derive(Clone)]
pub struct Journal(pub(crate) Rc<Inner>);

/// Superblock updates, durable LSNs, moves and abandoned uploads; segments in use by a checkpoint; changes of those left alone.
pub(crate) type Changes = ([u64; 4], usize, usize);

pub(crate) struct Inner {
    pub(crate) disk: Disk,
    pub(crate) verifier: Verifier,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
    pub(crate) state: RefCell<State>,
    pub(crate) volume: RefCell<Volume>,
    /// A checkpoint or a cleaning is under way.
    pub(crate) maintaining: Cell<bool>,
    /// A flush is out; there is never more than one.
    pub(crate) flushing: Cell<bool>,
    running: Cell<bool>,
    /// Tasks of maintenance that came to their end.
    pub(crate) jobs_ended: Cell<u64>,
    /// Free segments, and after which changes they were counted.
    pub(crate) free_counted: Cell<Option<(Changes, u32)>>,
    /// Most free segments since something was asked to be written, and the cleanings since then that freed no more.
    pub(crate) cleaned_in_vain: Cell<(u32, u32)>,
    /// Moves that wait for those of another segment.
    pub(crate) slice: RefCell<Slice>,
    pub(crate) report: Report,
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
    /// Bytes left for puts per copy, headers and padding included, but not what damage is known to hold.
    pub free_bytes: u64,
    /// Bytes of batches that wait to be written.
    pub queued_bytes: usize,
    /// Reads that found one copy damaged and were answered from the other.
    pub damaged_reads: u64,
    /// Checkpoints written by this mount.
    pub checkpoints: u64,
    /// Segments cleaned by this mount.
    pub cleaned: u64,
    /// Values moved by cleaning.
    pub moves: u64,
    /// Copies repaired by this mount while it was running.
    pub repaired: u64,
    /// Batches that this mount accepted.
    pub commits: u64,
    /// Values that reads found in memory.
    pub cache_hits: u64,
    /// Values that reads had to fetch from the device.
    pub cache_misses: u64,
    /// A checkpoint or a cleaning is under way.
    pub maintaining: bool,
    /// Bytes of log behind the last checkpoint, which the next mount replays, per copy.
    pub log_bytes: u64,
    /// Segments that the check under way has yet to read; 0 where none is.
    pub check_left: u32,
    /// Checks of this mount that came to their end.
    pub checks: u64,
    /// What the last of them found.
    pub last_check: CheckReport,
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
        let Mounted {
            mut superblock,
            ages,
            verifier,
            index,
            doubt,
            uses,
            room,
            tag,
            fresh,
            report,
        } = mounted;
        // The bound binds this mount; the next update of the superblock states it.
        if superblock.replay_bytes == 0 {
            let bytes = report.checkpoint_bytes;
            superblock.replay_bytes =
                replay_bytes(options.replay_bytes, bytes, &superblock.geometry);
        }
        let use_ = fresh.and_then(|at| superblock.log.get(at)).copied();
        let block = use_.map_or(BlockIndex(0), |use_| use_.start);
        let epoch = use_.map(|use_| use_.epoch);
        let durable = Durable { lsn: report.next.before(), tag, epoch, block };
        let tail = Tail { epoch, block: block.0, tag, next: report.next };
        let mut state = State::new(&superblock, durable, options, index, doubt, uses, room);
        state.mode = healthy(&report, &state.doubt);
        let checkpoint_bytes = report.checkpoint_bytes;
        let (busy, stuck) = (Vec::new(), Stuck::default());
        let volume = Volume { superblock, ages, random, tail, busy, stuck, checkpoint_bytes };
        Ok(Self::of(Inner::new(disk, verifier, clock, options, state, volume, report)))
    }

    /// Opens a volume without changing a byte: R0 to R3 alone. Every commit is refused.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_read_only(disk: Disk, options: Options) -> Result<Self, OpenError> {
        let (copies, verifier, found) = look(&disk, options.plants).await?;
        let report = found.report(&copies, 0);
        let Found { superblock, index, doubt, uses, .. } = found;
        let tag = superblock.base_tag;
        let (epoch, block) = (None, BlockIndex(0));
        let durable = Durable { lsn: report.next.before(), tag, epoch, block };
        let tail = Tail { epoch, block: 0, tag, next: report.next };
        let room = Room::of(&index, &doubt, &superblock.geometry);
        let mut state = State::new(&superblock, durable, options, index, doubt, uses, room);
        state.mode = Mode::ReadOnly(ReadOnlyReason::Requested);
        let random = Random::from_seed([0; 32]);
        let (ages, busy, stuck) = (copies.ages(), Vec::new(), Stuck::default());
        let checkpoint_bytes = report.checkpoint_bytes;
        let volume = Volume { superblock, ages, random, tail, busy, stuck, checkpoint_bytes };
        let clock = Clock::default();
        Ok(Self::of(Inner::new(disk, verifier, clock, options, state, volume, report)))
    }

    fn of(inner: Inner) -> Self {
        Self(Rc::new(inner))
    }

    /// The task that writes: polled by the driver with every turn, until the volume is closed.
    ///
    /// It ends after a write or flush failed, never otherwise. Only the first call gets the task.
    pub fn run(&self) -> impl Future<Output = ()> + 'static {
        let inner = self.0.clone();
        async move {
            let writes = !matches!(inner.state.borrow().mode, Mode::ReadOnly(_));
            if writes && !inner.running.replace(true) {
                crate::writer::run(&inner).await;
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
        self.commit_noted(batch, Vec::new())
    }

    /// As [`Journal::commit`], with notes that are written in the same group if anything is applied: all of it survives a
    /// cut, or nothing does. Their births follow that of the last operation.
    ///
    /// # Errors
    /// Those of [`Journal::commit`]; notes count as a part of the batch.
    pub fn commit_noted(
        &self,
        batch: Batch,
        notes: Vec<Note>,
    ) -> impl Future<Output = Result<Outcome, CommitError>> + use<> {
        let admitted = self.admit(batch, notes);
        async move { admitted?.answer().await }
    }

    pub(crate) fn admit(&self, batch: Batch, notes: Vec<Note>) -> Result<Admitted, CommitError> {
        let Batch { operations, durability, origin } = batch;
        let operations = operations.into_iter().map(Wanted::from).collect();
        let asked = Asked { operations, durability, origin, chunks: Vec::new(), notes };
        let now = self.0.clock.now();
        self.0.clean_anew();
        self.0.state.borrow_mut().admit(&self.0.verifier, asked, now)
    }

    /// Waits until everything accepted so far is durable. What had come to nothing before that is told by
    /// [`Journal::drops`] alone, so that each of several who commit can learn of it.
    ///
    /// # Errors
    /// [`CommitError::Indeterminate`] when the device failed first, or what waits found no room.
    pub fn sync(&self) -> impl Future<Output = Result<(), CommitError>> + use<> {
        let state = &mut *self.0.state.borrow_mut();
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
                Some(ticket) => answered(ticket.await).map_err(|_| CommitError::Indeterminate),
                None => Ok(()),
            }
        }
    }

    /// Makes everything accepted so far durable, and leaves a watermark behind it: for a clean shutdown.
    ///
    /// # Errors
    /// [`CommitError::Indeterminate`] when the device failed first.
    pub async fn seal(&self) -> Result<(), CommitError> {
        self.sync().await?;
        let ticket = {
            let mut state = self.0.state.borrow_mut();
            match state.mode {
                _ if state.is_vouched() => return Ok(()),
                Mode::ReadOnly(ReadOnlyReason::Requested) => return Ok(()),
                Mode::ReadOnly(_) => return Err(CommitError::Indeterminate),
                Mode::Healthy | Mode::Degraded => {}
            }
            // Others may go on committing: what they add is none of what is waited for.
            let (last, ticket) = (state.last_record, Ticket::default());
            state.strict.push_back((last, ticket.clone()));
            ticket
        };
        answered(ticket.await)
    }

    /// Tells whether keys may be missing from what scans show, lost with damaged groups.
    pub fn has_doubt(&self) -> bool {
        self.0.state.borrow().doubt.absent
    }

    /// Reads both copies of everything that is durable, and repairs what only one copy has.
    ///
    /// Runs beside commits, one segment at a time. Durability: the repairs are on the medium when this yields.
    ///
    /// # Errors
    /// [`CommitError::Indeterminate`] when the device failed, [`CommitError::ReadOnly`] when it had failed before.
    pub async fn check(&self) -> Result<CheckReport, CommitError> {
        self.check_at(0).await
    }

    /// As [`Journal::check`], reading no more than so many bytes in a second, over all copies; 0 for as fast as it
    /// goes. Who joins a check changes its rate.
    ///
    /// # Errors
    /// Those of [`Journal::check`].
    pub async fn check_at(&self, bytes_per_second: u64) -> Result<CheckReport, CommitError> {
        if let Mode::ReadOnly(reason) = self.mode() {
            return Err(CommitError::ReadOnly(reason));
        }
        let ticket = self.0.state.borrow_mut().ask_for_check(bytes_per_second);
        answered(ticket.await).map_err(|_| CommitError::Indeterminate)?;
        Ok(self.0.state.borrow().last_check)
    }

    /// Writes a checkpoint of everything accepted so far, so that the next mount replays next to nothing.
    ///
    /// Runs beside commits. Durability: all of it is on the medium when this yields, and the checkpoint too.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] where there is no room for one; [`CommitError::ReadOnly`];
    /// [`CommitError::NotReadBack`] when the device does not read what it took, after which another call tries another place;
    /// [`CommitError::Indeterminate`] when it failed.
    pub async fn checkpoint(&self) -> Result<(), CommitError> {
        self.sync().await?;
        let asked = {
            let state = &mut *self.0.state.borrow_mut();
            if let Mode::ReadOnly(reason) = state.mode {
                return Err(CommitError::ReadOnly(reason));
            }
            let covered = self.0.volume.borrow().superblock.base >= state.durable.lsn;
            if covered && state.base_is_whole {
                return Ok(());
            }
            // One that is being written may not cover all that is durable by now.
            state.checkpoint_asked.get_or_insert_default().clone()
        };
        answered(asked.await)
    }

    /// Yields the version of the change that stood `back` places before the one that made `version`, in one batch with it:
    /// a batch numbers its changes without gaps.
    pub fn version_before(&self, version: Version, back: u64) -> Version {
        let keys = &self.0.verifier.keys;
        keys.version(Birth(keys.birth(version).0.wrapping_sub(back)))
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
        let write = match state.mode {
            _ if !state.queue.is_empty() => self.0.buffered_due(&state),
            Mode::ReadOnly(_) => None,
            Mode::Healthy | Mode::Degraded => self.0.watermark_due(&state),
        };
        // A check that is due already waits for nothing but its turn.
        let check = state.check_due().filter(|due| *due > self.0.clock.now());
        [write, check].into_iter().flatten().min()
    }

    /// Yields the figures of this moment.
    pub fn stats(&self) -> Stats {
        let state = self.0.state.borrow();
        let geometry = self.0.verifier.geometry;
        let (cache_hits, cache_misses) = state.cache.hits_and_misses();
        let volume = self.0.volume.borrow();
        Stats {
            volume: self.0.verifier.volume,
            geometry,
            mount: state.mount,
            keys: state.room.callers_keys,
            durable: state.durable.lsn,
            free_bytes: state.room.left(&geometry, state.uses.len(), volume.stuck.segments()),
            queued_bytes: state.queue_bytes,
            damaged_reads: state.damaged_reads,
            checkpoints: state.checkpoints,
            cleaned: state.cleaned,
            moves: state.moves_settled,
            repaired: state.repaired,
            commits: state.commits,
            cache_hits,
            cache_misses,
            maintaining: self.0.maintaining.get(),
            log_bytes: self.0.log_bytes(),
            check_left: state.check_left(&geometry),
            checks: state.checks,
            last_check: state.last_check,
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
        durable: Durable,
        options: Options,
        index: Index,
        doubt: Doubt,
        uses: Vec<Use>,
        room: Room,
    ) -> Self {
        let numbers = Numbers::behind(&index, &doubt, durable.lsn);
        let mut state = Self {
            mode: Mode::Healthy,
            index,
            doubt,
            overlay: Overlay::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            urgent: false,
            buffered_since: None,
            newest: None,
            vouched: durable.lsn,
            last_record: Lsn::NONE,
            idle_since: 0,
            strict: VecDeque::new(),
            moves: VecDeque::new(),
            moves_unsettled: 0,
            drops: 0,
            commits: 0,
            next_birth: Birth::new(durable.lsn.next(), superblock.mount),
            durable,
            mount: superblock.mount,
            room,
            uses,
            cache: ValueCache::new(options.cache_bytes),
            damaged_reads: 0,
            checkpoints: 0,
            cleaned: 0,
            moves_settled: 0,
            moves_sent: 0,
            repaired: 0,
            uploads: BTreeSet::new(),
            abandoned: 0,
            plants: options.plants,
            check: None,
            checkpoint_asked: None,
            base_is_whole: true,
            checkpoint_awaited: None,
            last_check: CheckReport::default(),
            checks: 0,
            to_repair: Vec::new(),
            numbers,
            splitting: Splitting::new(&superblock.geometry, &options),
        };
        state.list_uses(&superblock.log);
        state
    }
}

impl Flusher for Inner {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn plants(&self) -> Plants {
        self.options.plants
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        if self.options.plants.has(Plant::AdoptBeforeFlush) {
            return Ok(());
        }
        Inner::flush(self, || ()).await
    }
}

impl Inner {
    fn new(
        disk: Disk,
        verifier: Verifier,
        clock: Clock,
        options: Options,
        state: State,
        volume: Volume,
        report: Report,
    ) -> Self {
        Self {
            disk,
            verifier,
            clock,
            options,
            state: RefCell::new(state),
            volume: RefCell::new(volume),
            maintaining: Cell::new(false),
            jobs_ended: Cell::new(0),
            flushing: Cell::new(false),
            running: Cell::new(false),
            free_counted: Cell::new(None),
            cleaned_in_vain: Cell::new((0, 0)),
            slice: RefCell::default(),
            report,
        }
    }

    /// Flushes once no other flush is out; `late` runs when it has been issued.
    pub(crate) async fn flush(&self, late: impl FnOnce()) -> Result<(), DeviceError> {
        poll_fn(|_| if self.flushing.replace(true) { Poll::Pending } else { Poll::Ready(()) })
            .await;
        let flush = self.disk.flush();
        late();
        let done = flush.await;
        self.flushing.set(false);
        done.map(drop)
    }

    pub(crate) fn buffered_due(&self, state: &State) -> Option<u64> {
        state.buffered_since.map(|since| since.saturating_add(self.options.buffered_ms))
    }
}

/// Yields the mode that a mount begins in: what an earlier one lost, a checkpoint may have taken the place of, and keys are in
/// doubt all the same.
fn healthy(report: &Report, doubt: &Doubt) -> Mode {
    if report.lost.is_empty() && !doubt.absent { Mode::Healthy } else { Mode::Degraded }
}

impl Admitted {
    /// Yields the answer once it may leave.
    pub(crate) async fn answer(self) -> Result<Outcome, CommitError> {
        match self.ticket {
            Some(ticket) => answered(ticket.await).map(|()| self.outcome),
            None => Ok(self.outcome),
        }
    }
}
