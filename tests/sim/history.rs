//! One history: format, then rounds of open, work and crash, each checked against the model.

use super::Setup;
use super::model::{Change, Map, Model};
use super::world::{Task, World, poll};
use crate::drive::read_whole;
use blockdev::{Damage, Fault, FaultKind, Repeat};
use journal::{
    Applied, Batch, Clock, CommitError, Durability, FormatOptions, Got, Journal, Mode, Operation,
    Options, Origin, Outcome, Precondition, Random, Shown, Upload, digest, format,
};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

/// Turns after which something that should end counts as hanging.
const TURNS_MAX: u32 = 200_000;

/// How the crashes of a run came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crashes {
    /// Power cuts while clients worked.
    pub working: u64,
    /// Power cuts inside recovery.
    pub recovering: u64,
    /// Deaths of the process, the device's cache kept.
    pub processes: u64,
    /// Damaged blocks.
    pub damaged: u64,
    /// Writes or flushes that failed.
    pub failed: u64,
    /// Copies that recovery wrote again.
    pub repaired: u64,
    /// Copies that a check wrote again.
    pub scrubbed: u64,
    /// Commits acknowledged as durable.
    pub acknowledged: u64,
    /// Mounts that found a checkpoint.
    pub checkpoints: u64,
    /// Segments cleaned.
    pub cleaned: u64,
    /// Values moved by cleaning.
    pub moves: u64,
    /// Commits that were refused for want of room.
    pub full: u64,
    /// Large values that came to their end.
    pub uploads: u64,
}

impl Crashes {
    /// Yields the number of crashes.
    pub fn all(&self) -> u64 {
        self.working + self.recovering + self.processes
    }

    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.working += other.working;
        self.recovering += other.recovering;
        self.processes += other.processes;
        self.damaged += other.damaged;
        self.failed += other.failed;
        self.repaired += other.repaired;
        self.acknowledged += other.acknowledged;
        self.scrubbed += other.scrubbed;
        self.checkpoints += other.checkpoints;
        self.full += other.full;
        self.uploads += other.uploads;
        self.cleaned += other.cleaned;
        self.moves += other.moves;
    }
}

/// A broken promise.
pub struct Failure {
    seed: u64,
    round: u32,
    what: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, round, what } = self;
        write!(
            f,
            "SIM_SEED={seed} round={round}: {what}\nrepeat it with: cargo xtask sim --seed {seed}"
        )
    }
}

/// Runs the history of one seed.
///
/// # Errors
/// [`Failure`] when the journal breaks a promise.
pub fn run_history(seed: u64, setup: Setup) -> Result<Crashes, Failure> {
    let mut history = History::new(seed, setup);
    history.run().map_err(|what| Failure { seed, round: history.round, what })?;
    Ok(history.crashes)
}

struct History {
    world: World,
    model: Rc<RefCell<Model>>,
    setup: Setup,
    options: Options,
    clock: Clock,
    crashes: Crashes,
    round: u32,
    next_value: u64,
    /// A block was damaged and no mount has repaired it yet.
    damaged: bool,
    /// The task that writes, where it was started before the work.
    running: Option<Task<()>>,
    /// Many keys and large values: the volume fills up, and cleaning has work.
    heavy: bool,
    /// The device's cache may show what is lost until the power is cut.
    cache_lies: bool,
    /// A fault is armed in this round, so writes may fail.
    armed: bool,
}

/// A commit whose answer is awaited.
struct Waiting {
    task: Task<Result<Outcome, CommitError>>,
    /// Its number among the commits taken, if the model says that it is taken.
    count: Option<usize>,
    values: Vec<Option<Rc<[u8]>>>,
    buffered: bool,
}

/// A sync whose answer is awaited, and how many commits were taken when it was called.
type Syncing = (Task<Result<(), CommitError>>, usize);

/// A get whose answer is awaited, its key, and how many commits its answer must at least show.
type Getting = (Task<Got>, Rc<[u8]>, usize);

/// A large value of which not all is on its way.
type Uploading = (Task<Result<Upload, CommitError>>, Rc<[u8]>);

impl History {
    fn new(seed: u64, setup: Setup) -> Self {
        let heavy = setup.heavy;
        let sizes = if heavy { [192, 256, 320] } else { [64, 80, 128] };
        let device_bytes = sizes[(seed % 3) as usize] << 10;
        let mut world = World::new(seed, device_bytes);
        let group_bytes_max = [100, 1000, 256 << 10][world.rng.usize(..3)];
        let flush_bytes_max = [1, 2048, 2 << 20][world.rng.usize(..3)];
        let cache_bytes = [0, 4 << 20][world.rng.usize(..2)];
        let replay_bytes = [None, Some(4096), Some(12_288)][world.rng.usize(..3)];
        let options = Options {
            replay_bytes,
            plants: setup.plants,
            group_bytes_max,
            flush_bytes_max,
            cache_bytes,
            ..Options::default()
        };
        Self {
            world,
            model: Rc::default(),
            setup,
            options,
            clock: Clock::default(),
            crashes: Crashes::default(),
            round: 0,
            next_value: 1,
            damaged: false,
            armed: false,
            cache_lies: false,
            running: None,
            heavy,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let disk = self.world.disk();
        let mut random = Random::from_seed(self.world.seed());
        let of = disk.clone();
        let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
        let task: Task<_> =
            Box::pin(async move { format(&of, &mut random, options).await.map(drop) });
        self.world
            .drive(&disk, task, TURNS_MAX)
            .ok_or("format hangs")?
            .map_err(|e| e.to_string())?;
        let rounds = self.world.rng.u32(4..24);
        while self.round < rounds {
            self.round += 1;
            self.one_round()?;
        }
        Ok(())
    }

    fn one_round(&mut self) -> Result<(), String> {
        let disk = self.world.disk();
        let random = Random::from_seed(self.world.seed());
        let task: Task<_> = {
            let (disk, clock) = (disk.clone(), self.clock.clone());
            Box::pin(Journal::open(disk, random, clock, self.options))
        };
        let cut = self.world.rng.u8(..3) == 0;
        let turns = if cut { self.world.rng.u32(..60) } else { TURNS_MAX };
        let Some(opened) = self.world.drive(&disk, task, turns) else {
            if !cut {
                return Err("opening hangs".into());
            }
            self.crashes.recovering += 1;
            self.crash();
            return Ok(());
        };
        let journal = opened.map_err(|error| format!("the volume does not open: {error}"))?;
        let report = journal.report();
        self.crashes.repaired += report.repaired as u64;
        self.crashes.checkpoints += u64::from(report.checkpoint_bytes > 0);
        if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
            return Err(format!("replay passes its bound: {report:?}"));
        }
        if !journal.report().lost.is_empty() {
            return Err(format!("data loss is reported: {:?}", journal.report().lost));
        }
        let state = self.state(&disk, &journal)?;
        self.model.borrow_mut().settle(&state)?;
        // What recovery left alone, because no log leads there, a check repairs.
        if self.damaged && self.world.rng.bool() {
            self.check(&disk, &journal)?;
            self.damaged = false;
        }
        self.arm();
        let worked = self.work(&disk, &journal);
        self.world.device.heal();
        let stats = journal.stats();
        self.crashes.cleaned += stats.cleaned;
        self.crashes.moves += stats.moves;
        worked?;
        self.crash();
        Ok(())
    }

    /// Reads everything.
    fn state(&mut self, disk: &journal::Disk, journal: &Journal) -> Result<Map, String> {
        let of = journal.clone();
        let task: Task<Result<Map, String>> = Box::pin(async move {
            let (mut map, mut unread) = (Map::new(), false);
            let mut parts: Vec<u8> = Vec::new();
            digest(&of, |key, seen, shown| match shown {
                Shown::Value(value) => drop(map.insert(key.into(), value.into())),
                Shown::Part { at, bytes } => {
                    parts.truncate(at as usize);
                    parts.extend_from_slice(bytes);
                    if parts.len() == seen.value_bytes as usize {
                        map.insert(key.into(), parts.as_slice().into());
                    }
                }
                Shown::Lost => unread = true,
            })
            .await;
            if unread { Err("a value cannot be read".into()) } else { Ok(map) }
        });
        self.world.drive(disk, task, TURNS_MAX).ok_or("reading hangs")?
    }

    fn check(&mut self, disk: &journal::Disk, journal: &Journal) -> Result<(), String> {
        let (of, mut run): (_, Task<()>) = (journal.clone(), Box::pin(journal.run()));
        let mut check: Task<_> = Box::pin(async move { of.check().await });
        for _ in 0..TURNS_MAX {
            let _ = poll(&mut run);
            if let Poll::Ready(report) = poll(&mut check) {
                self.crashes.scrubbed += report.map_err(|error| error.to_string())?.repaired;
                self.running = Some(run);
                return Ok(());
            }
            self.world.turn(disk);
        }
        Err("a check hangs".into())
    }

    /// In a run with failures, lets some coming write or flush fail.
    fn arm(&mut self) {
        let rng = &mut self.world.rng;
        self.armed = self.setup.failures && rng.bool();
        if self.armed {
            // Reads go past any cache (FORMAT.md section 7, R0): a cache that shows what a failed flush lost is only
            // followed by a power cut, which empties it.
            let shows = rng.bool();
            self.cache_lies = shows;
            let kind =
                if rng.bool() { FaultKind::WriteFails } else { FaultKind::FlushFails { shows } };
            let repeat = if rng.bool() { Repeat::Once } else { Repeat::Always };
            let after = rng.u64(..12);
            self.world.device.inject(Fault { kind, after, repeat });
        }
    }

    fn work(&mut self, disk: &journal::Disk, journal: &Journal) -> Result<(), String> {
        let mut run: Task<()> = self.running.take().unwrap_or_else(|| Box::pin(journal.run()));
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut syncs: Vec<Syncing> = Vec::new();
        let mut gets: Vec<Getting> = Vec::new();
        let mut uploads: Vec<Uploading> = Vec::new();
        for _ in 0..self.world.rng.u32(..if self.heavy { 2000 } else { 150 }) {
            match self.world.rng.u8(..16) {
                0..=4 if waiting.len() < 12 => waiting.extend(self.commit(journal)?),
                5 if syncs.len() < 2 => {
                    let taken = self.model.borrow().taken();
                    syncs.push((Box::pin(journal.sync()), taken));
                }
                6 | 7 if gets.len() < 4 => gets.push(self.get(journal)),
                8 if uploads.len() < 2 && self.world.rng.u8(..4) == 0 => {
                    uploads.push(self.upload(journal));
                }
                8 => self.clock.set(self.clock.now() + self.world.rng.u64(..40)),
                _ => {
                    let _ = poll(&mut run);
                    self.world.turn(disk);
                    let _ = poll(&mut run);
                }
            }
            if let Some((task, _)) = uploads.first_mut()
                && let Poll::Ready(upload) = poll(task)
            {
                let (_, value) = uploads.remove(0);
                match upload {
                    Ok(upload) => waiting.extend(self.end_upload(upload, value)?),
                    Err(CommitError::NoSpace) => self.crashes.full += 1,
                    Err(_) if self.armed => {}
                    Err(error) => return Err(format!("an upload fails: {error}")),
                }
            }
            self.answers(&mut waiting, &mut syncs, &mut gets)?;
            if matches!(journal.mode(), Mode::ReadOnly(_)) {
                return self.after_failure(disk, journal);
            }
        }
        Ok(())
    }

    /// A failed device shows nothing but what is durable, and goes on showing it.
    fn after_failure(&mut self, disk: &journal::Disk, journal: &Journal) -> Result<(), String> {
        if !self.armed {
            return Err(format!("the store stopped writing without a fault: {:?}", journal.mode()));
        }
        self.crashes.failed += 1;
        // Later flushes may well succeed, and save nothing.
        self.world.device.heal();
        let state = self.state(disk, journal)?;
        self.model.borrow_mut().frozen(&state)
    }

    fn commit(&mut self, journal: &Journal) -> Result<Option<Waiting>, String> {
        let buffered = self.world.rng.u8(..4) == 0;
        let origin = Origin(self.world.rng.u64(..3));
        let operations: Vec<_> =
            (0..self.world.rng.usize(1..=3)).map(|_| self.operation()).collect();
        let model = self.model.clone();
        let holds = operations.iter().all(|o| model.borrow().holds(&o.key, o.precondition));
        let deletes_nothing = operations
            .iter()
            .all(|o| o.value.is_none() && model.borrow().pending(&o.key).is_none());
        let taken = holds && !deletes_nothing;
        let changes: Vec<Change> =
            operations.iter().map(|o| (o.key.clone(), o.value.clone())).collect();
        let durability = match self.world.rng.u8(..5) {
            _ if buffered => Durability::Buffered,
            0 => Durability::Strict,
            _ => Durability::Durable,
        };
        let batch = Batch { operations, durability, origin };
        let task: Task<_> = Box::pin(journal.commit(batch));
        self.sent(task, taken, changes, buffered)
    }

    /// Begins a large value; the task ends when all but its end is on its way.
    fn upload(&mut self, journal: &Journal) -> Uploading {
        let rng = &mut self.world.rng;
        let bytes = rng.usize(900..if self.heavy { 9000 } else { 2600 });
        let mut value = self.next_value.to_le_bytes().to_vec();
        // No chunk is like another, so that none can stand in its place.
        value.extend((0..bytes / 8).flat_map(|_| rng.u64(..).to_le_bytes()));
        self.next_value += 1;
        let mut upload = journal.upload(Origin(rng.u64(..3)));
        let cut = rng.usize(1..value.len());
        let bytes: Rc<[u8]> = value.into();
        let of = bytes.clone();
        let task = Box::pin(async move {
            let (first, rest) = of.split_at(cut);
            upload.append(first).await?;
            upload.append(rest).await?;
            Ok(upload)
        });
        (task, bytes)
    }

    /// Ends a large value, or gives it up.
    fn end_upload(&mut self, upload: Upload, value: Rc<[u8]>) -> Result<Option<Waiting>, String> {
        if self.world.rng.u8(..4) == 0 {
            return Ok(None);
        }
        let Operation { key, precondition, .. } = self.operation();
        let taken = self.model.borrow().holds(&key, precondition);
        let task = Box::pin(upload.commit(key.clone(), precondition, Durability::Durable));
        self.crashes.uploads += 1;
        self.sent(task, taken, vec![(key, Some(value))], false)
    }

    /// Notes a commit whose place in the order is fixed, and whether the model takes it.
    fn sent(
        &mut self,
        mut task: Task<Result<Outcome, CommitError>>,
        taken: bool,
        changes: Vec<Change>,
        buffered: bool,
    ) -> Result<Option<Waiting>, String> {
        let model = self.model.clone();
        let values: Vec<_> = changes.iter().map(|(_, value)| value.clone()).collect();
        let first = poll(&mut task);
        use CommitError::{BatchBytes, NoSpace, ReadOnly, ValueBytes};
        if let Poll::Ready(Err(NoSpace | ReadOnly(_) | BatchBytes { .. } | ValueBytes { .. })) =
            first
        {
            self.crashes.full += u64::from(matches!(first, Poll::Ready(Err(NoSpace))));
            return Ok(None);
        }
        let count = taken.then(|| model.borrow_mut().commit(changes, buffered));
        let mut waiting = Waiting { task, count, values, buffered };
        match first {
            Poll::Ready(answer) => self.answered(&mut waiting, answer).map(|()| None),
            Poll::Pending => Ok(Some(waiting)),
        }
    }

    fn operation(&mut self) -> Operation {
        let key = self.key();
        let heavy = self.heavy;
        let rng = &mut self.world.rng;
        let value: Option<Rc<[u8]>> = (rng.u8(..if heavy { 8 } else { 4 }) > 0).then(|| {
            let most = if heavy { 560 } else { 120 };
            let bytes = if rng.u8(..8) == 0 { rng.usize(..900) } else { rng.usize(..most) };
            let mut value = self.next_value.to_le_bytes().to_vec();
            value.resize(8 + bytes, rng.u8(..));
            self.next_value += 1;
            value.into()
        });
        let current = self.model.borrow().pending(&key);
        let version = current.and_then(|value| self.model.borrow().version(&value));
        let precondition = match (self.world.rng.u8(..6), version) {
            (0, _) => Precondition::Absent,
            (1 | 2, Some(version)) => Precondition::Version(version),
            (3, Some(version)) => Precondition::Version(journal::Version(version.0 ^ 1)),
            _ => Precondition::Any,
        };
        Operation { key, value, precondition }
    }

    fn key(&mut self) -> Rc<[u8]> {
        let keys = if self.heavy { 150 } else { 8 };
        format!("/state/{}", self.world.rng.u8(..keys)).as_bytes().into()
    }

    fn get(&mut self, journal: &Journal) -> Getting {
        let key = self.key();
        let origin = Origin(self.world.rng.u64(..3));
        let (journal, of) = (journal.clone(), key.clone());
        let must = self.model.borrow().must();
        (Box::pin(async move { read_whole(&journal, &of, origin).await }), key, must)
    }

    /// Takes the answers that have come.
    fn answers(
        &mut self,
        waiting: &mut Vec<Waiting>,
        syncs: &mut Vec<Syncing>,
        gets: &mut Vec<Getting>,
    ) -> Result<(), String> {
        let mut still = Vec::new();
        for mut one in waiting.drain(..) {
            match poll(&mut one.task) {
                Poll::Ready(answer) => self.answered(&mut one, answer)?,
                Poll::Pending => still.push(one),
            }
        }
        *waiting = still;
        let mut still = Vec::new();
        for (mut task, taken) in syncs.drain(..) {
            match poll(&mut task) {
                Poll::Ready(Ok(())) => self.model.borrow_mut().must_survive(taken),
                Poll::Ready(Err(error)) if !self.armed => return Err(format!("sync: {error}")),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => still.push((task, taken)),
            }
        }
        *syncs = still;
        let mut still = Vec::new();
        for (mut task, key, must) in gets.drain(..) {
            match poll(&mut task) {
                Poll::Ready(Got::Value { value, version }) => {
                    let mut model = self.model.borrow_mut();
                    model.learn(&value, version)?;
                    model.shown(&key, Some(&value), must)?;
                }
                Poll::Ready(Got::Absent) => self.model.borrow_mut().shown(&key, None, must)?,
                Poll::Ready(Got::DataLoss | Got::Unreadable | Got::Large { .. }) => {
                    return Err("a get answers data loss".into());
                }
                Poll::Pending => still.push((task, key, must)),
            }
        }
        *gets = still;
        Ok(())
    }

    fn answered(
        &mut self,
        waiting: &mut Waiting,
        answer: Result<Outcome, CommitError>,
    ) -> Result<(), String> {
        let mut model = self.model.borrow_mut();
        match (answer, waiting.count) {
            (Ok(Outcome::Applied(applied)), Some(count)) => {
                for (applied, value) in applied.into_iter().zip(&waiting.values) {
                    if let (Applied::Put(version), Some(value)) = (applied, value) {
                        model.learn(value, version)?;
                    }
                }
                if !waiting.buffered {
                    self.crashes.acknowledged += 1;
                    model.must_survive(count);
                }
                Ok(())
            }
            // Nothing to delete, or the precondition does not hold: as the model said.
            (Ok(Outcome::Applied(_) | Outcome::Conflict { .. }), None) => Ok(()),
            (Ok(Outcome::Conflict { .. }), Some(_)) => Err("a conflict that is none".into()),
            (Ok(Outcome::DataLoss { .. }), _) => Err("a commit answers data loss".into()),
            (Err(CommitError::Indeterminate | CommitError::ReadOnly(_)), _) if self.armed => Ok(()),
            (Err(error), _) => Err(format!("a commit fails: {error}")),
        }
    }

    /// Cuts the power or kills the process, and may damage one block.
    fn crash(&mut self) {
        if self.world.rng.u8(..4) == 0 && !self.cache_lies {
            self.world.device.process_death();
            self.crashes.processes += 1;
        } else {
            self.world.device.power_cut();
            self.cache_lies = false;
            self.crashes.working += 1;
        }
        if self.setup.damage && !self.damaged && self.world.rng.bool() {
            self.damaged = true;
            self.crashes.damaged += 1;
            let blocks = self.world.device.visible().len() as u64 / 512;
            let block = self.world.rng.u64(..blocks) * 512;
            let from = self.world.rng.u64(..blocks) * 512;
            let damage = match self.world.rng.u8(..4) {
                0 => Damage::BitFlip { bit: self.world.rng.u64(..4096) },
                1 => Damage::Zero,
                2 => Damage::Random,
                _ => Damage::CopyFrom { offset: from },
            };
            self.world.device.corrupt(block, 512, damage);
        }
    }
}
