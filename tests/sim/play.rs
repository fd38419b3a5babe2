//! Plays a plan: the journal on a device that crashes, each answer and each recovery held against the model.

mod clients;
mod ends;
mod harm;
mod judging;
mod tripping;

use super::counts::Counts;
use super::model::{ABSENT, Model, ValueId};
use super::plan::{Action, CHANGES_MAX, Change, Failing, Harm, How, Plan, Shape, Step};
use crate::drive::{Task, poll, read_whole, turn};
use blockdev::{BlockDevice, Fault, FaultKind, Repeat, SimConfig, SimDevice};
pub use ends::{ENDS, OTHER_END};
use fastrand::Rng;
use harm::Harmed;
use journal::{
    CheckReport, Clock, CommitError, Disk, FormatOptions, Got, Journal, Mode, OpenError, Options,
    Origin, Outcome, Plants, Random, Upload, Version, format,
};
use std::rc::Rc;
use std::task::Poll;
pub use tripping::play_tripping;

/// Turns after which something that should end counts as hanging.
const TURNS_MAX: u32 = 200_000;
/// Most commits, syncs and reads that are awaited.
const WAITING_MAX: (usize, usize, usize) = (12, 2, 4);
/// Most large values that are on their way.
const UPLOADS_MAX: usize = 2;
/// One image in so many is judged a second time where nothing else is asked for.
pub const JUDGED_EVERY: u64 = 64;
/// What the name of each key begins with; its number follows.
const PREFIX: &str = "/state/";
/// Bytes of a block of every volume here.
const BLOCK_BYTES: u32 = 512;

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The number of the step that showed it; that of the last where the end of the plan did.
    pub step: u32,
    /// What was seen.
    pub what: String,
}

/// Plays `plan` with `plants` planted; few of its images are judged a second time.
///
/// # Errors
/// [`Broken`] when the journal breaks a promise.
pub fn play(plan: &Plan, plants: Plants) -> Result<Counts, Broken> {
    play_judging(plan, plants, JUDGED_EVERY)
}

/// Plays `plan` with `plants` planted, and judges one in `every` of its images a second time; none if that is 0.
///
/// # Errors
/// [`Broken`] when the journal breaks a promise.
pub fn play_judging(plan: &Plan, plants: Plants, every: u64) -> Result<Counts, Broken> {
    play_ending(plan, plants, every, ENDS)
}

/// The same, and each power cut is tried with `ends` ends beside the one from which the history goes on.
///
/// # Errors
/// [`Broken`] when the journal breaks a promise.
pub fn play_ending(plan: &Plan, plants: Plants, every: u64, ends: u32) -> Result<Counts, Broken> {
    let mut player = Player::new(plan, plants);
    (player.judged_every, player.ends) = (every, ends);
    play_by(plan, player, Player::step)
}

/// Lets `player` play `plan`, each of its steps by `play`.
fn play_by(
    plan: &Plan,
    mut player: Player,
    mut play: impl FnMut(&mut Player, &Step) -> Result<(), String>,
) -> Result<Counts, Broken> {
    let mut played = player.format();
    for step in &plan.steps {
        if played.is_err() {
            break;
        }
        player.at = step.id;
        played = play(&mut player, step);
    }
    // A plan ends with a recovery that is compared.
    let ended = played.and_then(|()| player.opened());
    ended.map_err(|what| Broken { step: player.at, what })?;
    player.counts.histories += 1;
    Ok(player.counts)
}

struct Player {
    seed: u64,
    shape: Shape,
    options: Options,
    device: SimDevice,
    clock: Clock,
    model: Model,
    counts: Counts,
    keys: Rc<[Rc<[u8]>]>,
    open: Option<Open>,
    /// The number of the step that is played.
    at: u32,
    mounts: u64,
    /// Turns of the device while the volume was being opened or read.
    turns: u64,
    /// Where something went bad, if no check has run since.
    harmed: Option<Harmed>,
    /// Images that recoveries found, and probes.
    images: u64,
    /// One in so many of them is judged a second time.
    judged_every: u64,
    /// Ends that each power cut is tried with, beside the one from which the history goes on.
    ends: u32,
    /// The memory of a device beside this one.
    spare: Option<SimDevice>,
    /// A fault is armed, so requests may fail.
    armed: bool,
    /// The device's cache may show what is lost until the power is cut.
    cache_lies: bool,
    /// The volume was full when last written to.
    full: bool,
    /// Nothing but large values was written since the volume was opened, and none was given up.
    uploads_alone: bool,
}

/// An open volume and who waits for it.
struct Open {
    disk: Disk,
    journal: Journal,
    run: Task<()>,
    commits: Vec<Waiting>,
    syncs: Vec<Syncing>,
    gets: Vec<Getting>,
    uploads: Vec<Uploading>,
    check: Option<Task<Result<CheckReport, CommitError>>>,
    /// A checkpoint that was asked for, and how many commits were taken then.
    checkpoint: Option<Syncing>,
    /// The device failed: only what is durable is shown from here on.
    stopped: bool,
}

/// A commit whose answer is awaited.
struct Waiting {
    task: Task<Result<Outcome, CommitError>>,
    /// Its number among the commits taken, if the model says that it is taken.
    count: Option<usize>,
    values: [ValueId; CHANGES_MAX],
    buffered: bool,
}

/// A sync whose answer is awaited, and how many commits were taken when it was called.
type Syncing = (Task<Result<(), CommitError>>, usize);

/// A get whose answer is awaited, its key, and how many commits its answer must at least show.
type Getting = (Task<Got>, u8, usize);

/// A large value of which not all is on its way: its task, the number of its value, and what becomes of it.
struct Uploading {
    task: Task<Result<Upload, CommitError>>,
    id: ValueId,
    change: Change,
    abandoned: bool,
}

impl Player {
    fn new(plan: &Plan, plants: Plants) -> Self {
        let shape = plan.shape;
        let mut config = SimConfig::new(plan.seed, u64::from(shape.device_kib) << 10);
        config.stall = shape.stall;
        let options = Options {
            replay_bytes: shape.replay_bytes,
            plants,
            group_bytes_max: shape.group_bytes_max,
            flush_bytes_max: shape.flush_bytes_max,
            cache_bytes: shape.cache_bytes,
            value_record_bytes_max: shape.value_record_bytes_max,
            ..Options::default()
        };
        let mut device = SimDevice::new(config);
        if plan.goes_back() {
            device.remember();
        }
        Self {
            seed: plan.seed,
            shape,
            options,
            device,
            clock: Clock::default(),
            model: Model::new(shape.keys),
            counts: Counts::default(),
            keys: (0..shape.keys).map(|key| format!("{PREFIX}{key}").into_bytes().into()).collect(),
            open: None,
            at: 0,
            mounts: 0,
            turns: 0,
            harmed: None,
            images: 0,
            judged_every: 0,
            ends: ENDS,
            spare: None,
            armed: false,
            cache_lies: false,
            full: false,
            uploads_alone: false,
        }
    }

    /// Yields the entropy of the next mount.
    fn entropy(&mut self) -> Random {
        self.mounts += 1;
        let mut bytes = [0; 32];
        Rng::with_seed(chance(!self.seed, self.mounts)).fill(&mut bytes);
        Random::from_seed(bytes)
    }

    fn format(&mut self) -> Result<(), String> {
        let (disk, mut random) = (Disk::new(self.device.geometry()), self.entropy());
        let of = disk.clone();
        let options =
            FormatOptions { block_bytes: BLOCK_BYTES, copies: self.shape.copies, force: false };
        let task: Task<_> =
            Box::pin(async move { format(&of, &mut random, options).await.map(drop) });
        let formatted = self.drive(&disk, task, TURNS_MAX).ok_or("format hangs")?;
        formatted.map_err(|error| error.to_string())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.device.reseed(chance(self.seed, u64::from(step.id)));
        match step.action {
            Action::Crash { how, recovery, harm } => return self.crash(how, recovery, harm),
            Action::Fail { what, after, always } => {
                self.arm(what, after, always);
                return Ok(());
            }
            _ => self.opened()?,
        }
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let played = self.act(&mut open, step).and_then(|()| self.turns(&mut open, step.turns));
        self.open = Some(open);
        played
    }

    fn act(&mut self, open: &mut Open, step: &Step) -> Result<(), String> {
        if open.stopped {
            return Ok(());
        }
        match step.action {
            Action::Commit { changes, ack, origin } if open.commits.len() < WAITING_MAX.0 => {
                self.uploads_alone = false;
                let waiting = self.commit(&open.journal, step.id, changes, ack, origin)?;
                open.commits.extend(waiting);
            }
            Action::Sync if open.syncs.len() < WAITING_MAX.1 => {
                open.syncs.push((Box::pin(open.journal.sync()), self.model.taken()));
            }
            Action::Get { key, origin } if open.gets.len() < WAITING_MAX.2 => {
                let (journal, of) = (open.journal.clone(), self.key(key));
                let origin = Origin(origin.into());
                let get = Box::pin(async move { read_whole(&journal, &of, origin).await });
                open.gets.push((get, key, self.model.must()));
            }
            Action::Upload { change, cut, abandoned, origin }
                if open.uploads.len() < UPLOADS_MAX =>
            {
                self.uploads_alone &= !abandoned;
                let upload = open.journal.upload(Origin(origin.into()));
                open.uploads.push(self.upload(upload, step.id, change, cut, abandoned));
            }
            Action::Wait { ms } => self.clock.set(self.clock.now() + u64::from(ms)),
            Action::Harm(harm) => self.harm(harm, true),
            Action::Delete { key } => self.delete(open, step.id, key)?,
            Action::Check if open.check.is_none() => {
                let idle = self.is_idle(&open.disk);
                if let Some(harmed) = self.harmed.as_mut().filter(|_| idle) {
                    harmed.may_be_missed = false;
                }
                let journal = open.journal.clone();
                open.check = Some(Box::pin(async move { journal.check().await }));
            }
            Action::Checkpoint if open.checkpoint.is_none() => {
                let journal = open.journal.clone();
                let task = Box::pin(async move { journal.checkpoint().await });
                open.checkpoint = Some((task, self.model.taken()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells whether the device has nothing to do. Otherwise what went bad may lie in a group that is on the medium and not
    /// durable yet, as far as the engine was told: a check passes that.
    fn is_idle(&mut self, disk: &Disk) -> bool {
        while let Some(request) = disk.next_request() {
            self.device.submit(request);
        }
        self.device.in_flight() == 0
    }

    fn turns(&mut self, open: &mut Open, turns: u16) -> Result<(), String> {
        self.answers(open)?;
        // Where nothing ended, nothing goes on.
        let mut goes_on = true;
        for _ in 0..turns {
            if open.stopped {
                break;
            }
            if goes_on {
                let _ = poll(&mut open.run);
            }
            goes_on = turn(&open.disk, &mut self.device);
            if !goes_on {
                continue;
            }
            if poll(&mut open.run).is_pending() {
                Self::goes_on_by_itself(open)?;
            }
            self.answers(open)?;
            if matches!(open.journal.mode(), Mode::ReadOnly(_)) {
                self.stopped(open)?;
            }
        }
        Ok(())
    }

    /// What one poll leaves, another one does not find: nobody asks again where nothing ends.
    fn goes_on_by_itself(open: &mut Open) -> Result<(), String> {
        let issued = open.disk.issued();
        let _ = poll(&mut open.run);
        if open.disk.issued() > issued {
            return Err("the store stood still until it was asked again".into());
        }
        Ok(())
    }

    /// A failed device shows nothing but what is durable, and goes on showing it.
    fn stopped(&mut self, open: &mut Open) -> Result<(), String> {
        if !self.armed {
            let mode = open.journal.mode();
            return Err(format!("the store stopped writing without a fault: {mode:?}"));
        }
        open.stopped = true;
        self.counts.stores_stopped += 1;
        // Later flushes may well succeed, and save nothing.
        self.heal();
        let state = self.state(&open.disk, &open.journal, Model::learn)?;
        self.model.frozen(&state)
    }

    fn arm(&mut self, what: Failing, after: u8, always: bool) {
        // Reads go past any cache (FORMAT.md section 7, R0): a cache that shows what a failed flush lost is only
        // followed by a power cut, which empties it.
        self.cache_lies |= what == Failing::FlushShown;
        self.armed = true;
        let kind = match what {
            Failing::Write => FaultKind::WriteFails,
            Failing::Flush => FaultKind::FlushFails { shows: false },
            Failing::FlushShown => FaultKind::FlushFails { shows: true },
        };
        let repeat = if always { Repeat::Always } else { Repeat::Once };
        self.device.inject(Fault { kind, after: after.into(), repeat });
    }

    /// Disarms what is armed; bad blocks stay bad.
    fn heal(&mut self) {
        if self.armed {
            self.device.heal();
        }
    }
}

/// Recovery.
impl Player {
    /// Opens the volume if it is not open, and compares all of it.
    fn opened(&mut self) -> Result<(), String> {
        if self.open.is_some() {
            return Ok(());
        }
        match self.recovery()? {
            Err(OpenError::Flush(_) | OpenError::Write(_)) if self.armed => {
                self.counts.recoveries_failed += 1;
                self.go_down(How::ProcessDeath)?;
                self.opened()
            }
            Err(error) => Err(format!("the volume does not open: {error}")),
            Ok((disk, journal)) => self.recovered(disk, journal),
        }
    }

    /// Opens the volume, whatever the device does meanwhile.
    fn recovery(&mut self) -> Result<Result<(Disk, Journal), OpenError>, String> {
        let judged = self.judged();
        let (disk, task) = self.opening();
        let before = self.turns;
        let opened = self.drive(&disk, task, TURNS_MAX).ok_or("opening hangs")?;
        self.counts.turns_of_recoveries += self.turns - before;
        if let Ok(journal) = &opened {
            Self::agreed(judged.as_ref(), journal.report())?;
        }
        Ok(opened.map(|journal| (disk, journal)))
    }

    fn opening(&mut self) -> (Disk, Task<Result<Journal, OpenError>>) {
        let (disk, random) = (Disk::new(self.device.geometry()), self.entropy());
        let open = Journal::open(disk.clone(), random, self.clock.clone(), self.options);
        (disk, Box::pin(open))
    }

    fn recovered(&mut self, disk: Disk, journal: Journal) -> Result<(), String> {
        let state = self.found(&disk, &journal, Model::learn)?;
        self.model.settle(&state)?;
        self.uploads_alone = true;
        if let Some(harmed) = &mut self.harmed {
            // The mount has written all copies of the superblock.
            harmed.of_superblock = false;
        }
        self.open = Some(Open {
            run: Box::pin(journal.run()),
            disk,
            journal,
            commits: Vec::new(),
            syncs: Vec::new(),
            gets: Vec::new(),
            uploads: Vec::new(),
            check: None,
            checkpoint: None,
            stopped: false,
        });
        Ok(())
    }

    /// Yields what a recovery left, all of it, and checks what it tells of itself.
    fn found(
        &mut self,
        disk: &Disk,
        journal: &Journal,
        told: impl Fn(&mut Model, ValueId, Version) -> Result<(), String>,
    ) -> Result<Vec<ValueId>, String> {
        let report = journal.report();
        self.counts.recoveries += 1;
        self.counts.copies_repaired += report.repaired as u64;
        self.counts.recoveries_from_checkpoint += u64::from(report.checkpoint_bytes > 0);
        self.counts.recoveries_with_torn_tail += u64::from(report.torn_groups > 0);
        if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
            return Err(format!("replay passes its bound: {report:?}"));
        }
        if !report.lost.is_empty() {
            return Err(format!("data loss is reported: {:?}", report.lost));
        }
        self.state(disk, journal, told)
    }

    /// Reads everything: the number of each key's value, its bytes compared; what its version is `told`.
    fn state(
        &mut self,
        disk: &Disk,
        journal: &Journal,
        told: impl Fn(&mut Model, ValueId, Version) -> Result<(), String>,
    ) -> Result<Vec<ValueId>, String> {
        let (of, keys) = (journal.clone(), self.keys.clone());
        let task: Task<Option<Vec<_>>> = Box::pin(async move {
            let mut seen = Vec::with_capacity(keys.len());
            of.scan(b"", |key, one| {
                seen.push((number_of(&keys, key), one));
                true
            });
            let mut all = Vec::with_capacity(seen.len());
            for (number, one) in seen {
                let (number, key) = number.and_then(|it| Some((it, keys.get(usize::from(it))?)))?;
                let value = match of.value(key, &one).await {
                    Got::Large { .. } => read_whole(&of, key, Origin(0)).await,
                    whole => whole,
                };
                all.push((number, one, value));
            }
            Some(all)
        });
        let all = self.drive(disk, task, TURNS_MAX).ok_or("reading hangs")?;
        let mut state = vec![ABSENT; self.keys.len()];
        for (key, seen, got) in all.ok_or("there is a key that nobody wrote")? {
            let Got::Value { version, value } = got else {
                return Err(format!("the value of key {key} cannot be read"));
            };
            if seen.suspect || version != seen.version() {
                return Err(format!("key {key} is in doubt, or in another version"));
            }
            let id = self.model.read(key, &value)?;
            told(&mut self.model, id, version)?;
            state[usize::from(key)] = id;
        }
        Ok(state)
    }

    /// Drives `task` to its end, or until `turns` turns are over.
    fn drive<T>(&mut self, disk: &Disk, mut task: Task<T>, turns: u32) -> Option<T> {
        // A task goes on when a request has ended, and never else.
        let mut goes_on = true;
        for _ in 0..turns {
            if goes_on && let Poll::Ready(value) = poll(&mut task) {
                return Some(value);
            }
            goes_on = turn(disk, &mut self.device);
            self.turns += 1;
        }
        None
    }
}

/// Crashes.
impl Player {
    fn crash(&mut self, how: How, recovery: u16, harm: Option<Harm>) -> Result<(), String> {
        if self.open.is_none() {
            let judged = self.judged();
            let (disk, task) = self.opening();
            match self.drive(&disk, task, recovery.into()) {
                Some(Ok(journal)) => {
                    Self::agreed(judged.as_ref(), journal.report())?;
                    self.recovered(disk, journal)?;
                }
                Some(Err(_)) if self.armed => self.counts.recoveries_failed += 1,
                Some(Err(error)) => return Err(format!("the volume does not open: {error}")),
                None => {}
            }
        }
        let at_work = self.open.is_some();
        let mut acknowledged = None;
        if let Some(open) = self.open.take() {
            let stats = open.journal.stats();
            acknowledged = Some(stats.durable);
            self.counts.checkpoints += stats.checkpoints;
            self.counts.segments_cleaned += stats.cleaned;
            self.counts.values_moved += stats.moves;
            self.counts.crashes_in_maintenance += u64::from(stats.maintaining);
            self.counts.crashes_of_full_volumes += u64::from(self.full);
            self.full = false;
        }
        self.ended(how, at_work)?;
        if let Some(harm) = harm {
            self.harm(harm, false);
        }
        acknowledged.map_or(Ok(()), |acknowledged| self.probe(acknowledged))
    }

    /// Ends the process, at work or while it recovers.
    fn ended(&mut self, how: How, at_work: bool) -> Result<(), String> {
        let died = self.go_down(how)?;
        *match (at_work, died) {
            (true, false) => &mut self.counts.cuts_at_work,
            (true, true) => &mut self.counts.deaths_at_work,
            (false, false) => &mut self.counts.cuts_in_recovery,
            (false, true) => &mut self.counts.deaths_in_recovery,
        } += 1;
        Ok(())
    }

    /// Ends the process, with the power or without; tells whether the device kept its cache.
    fn go_down(&mut self, how: How) -> Result<bool, String> {
        let died = how == How::ProcessDeath && !self.cache_lies;
        if died {
            self.device.process_death();
        } else {
            self.try_other_ends()?;
            self.device.power_cut();
        }
        self.heal();
        (self.armed, self.cache_lies) = (false, false);
        Ok(died)
    }
}

/// Yields the number of the key with this name, if it is one of `keys`.
fn number_of(keys: &[Rc<[u8]>], name: &[u8]) -> Option<u8> {
    let digits = str::from_utf8(name.strip_prefix(PREFIX.as_bytes())?).ok()?;
    let number: u8 = digits.parse().ok()?;
    keys.get(usize::from(number)).is_some_and(|key| **key == *name).then_some(number)
}

/// Yields the seed of what is left to chance at one place of a history.
fn chance(seed: u64, at: u64) -> u64 {
    (seed ^ (at + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
