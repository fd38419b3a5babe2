//! A store on a simulated device that completes at once, driven request by request: a cut falls exactly where a test
//! wants it.

use crate::drive::{Task, poll, read_whole};
use blockdev::{BlockDevice, Fate, FateWeights, Operation as Request, SimConfig, SimDevice};
use journal::inspect::{Inspection, inspect};
use journal::{
    Batch, CheckReport, Clock, CommitError, Digest, Disk, Durability, FormatOptions, Got, Journal,
    OpenError, Operation, Options, Origin, Outcome, Plants, Precondition, Random, digest, format,
};
use std::rc::Rc;
use std::task::Poll;

/// Bytes of a block, and of the device's physical unit.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of the device: the smallest volumes that checkpoint and clean.
pub const DEVICE_BYTES: u64 = 64 << 10;
/// Polls after which a task that should end counts as hanging.
const POLLS_MAX: u32 = 20_000;

/// What a key answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This value.
    Value(Rc<[u8]>),
    /// Nothing.
    Absent,
    /// Its value was lost, or may have been.
    Lost,
    /// The device reads no copy of it.
    Unreadable,
}

/// What a test wants before a flush is submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Go {
    /// Submit it.
    On,
    /// Stop here: the power goes.
    Cut,
}

/// A device and how stores on it are opened.
pub struct Bench {
    /// The device.
    pub device: SimDevice,
    /// How stores are opened.
    pub options: Options,
    /// Makes every open, and every run, its own; the same again in every run.
    pub seed: u64,
    /// Requests submitted so far.
    pub count: Requests,
}

/// How many requests of each kind were submitted; flushes are counted by who looks at them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// An open store: the journal, its queue, its task.
pub struct Store {
    /// The journal.
    pub journal: Journal,
    /// Its time, which stands still unless it is set.
    pub clock: Clock,
    disk: Disk,
    run: Task<()>,
}

/// A change: the key, and its value or none for a delete.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// A commit whose answer is awaited.
pub type Commit = Task<Result<Outcome, CommitError>>;

/// Goes on at every flush.
pub fn on(_: &SimDevice) -> Go {
    Go::On
}

/// Cuts before the flush that follows `spared` others.
pub fn cut_after(spared: u32) -> impl FnMut(&SimDevice) -> Go {
    let mut left = spared;
    move |_| match left {
        0 => Go::Cut,
        _ => {
            left -= 1;
            Go::On
        }
    }
}

/// Leaves the unit with each index as `fates` says, those beyond as they were.
pub fn fates(fates: &[Fate]) -> impl FnMut(blockdev::Risk) -> Fate + '_ {
    |risk| fates.get(risk.index).copied().unwrap_or(Fate::Old)
}

impl Bench {
    /// Cuts the power: the first `kept` units at risk end as `first`, the others the other way; yields how many there were.
    pub fn cut_between(&mut self, first: Fate, kept: usize) -> usize {
        let count = self.device.risks().count();
        let other = if first == Fate::Old { Fate::New } else { Fate::Old };
        let ends: Vec<Fate> =
            (0..count).map(|unit| if unit < kept { first } else { other }).collect();
        self.device.power_cut_choosing(fates(&ends));
        count
    }

    /// Makes a bench with an empty volume.
    ///
    /// # Panics
    /// When the volume cannot be made.
    pub fn new(plants: Plants) -> Self {
        Self::sized(plants, DEVICE_BYTES)
    }

    /// Makes a bench with an empty volume on a device of this size.
    ///
    /// # Panics
    /// When the volume cannot be made.
    pub fn sized(plants: Plants, device_bytes: u64) -> Self {
        Self::with_copies(plants, device_bytes, 2)
    }

    /// Makes a bench with an empty volume that keeps so many copies.
    ///
    /// # Panics
    /// When the volume cannot be made.
    pub fn with_copies(plants: Plants, device_bytes: u64, copies: u8) -> Self {
        let mut bench = Self::leaving(plants, (device_bytes, 512), Fate::Old);
        bench.format(copies).expect("a blank device takes a volume");
        bench
    }

    /// Lets no record hold a value of more than so many bytes.
    #[must_use]
    pub fn cutting(mut self, value_record_bytes_max: usize) -> Self {
        self.options.value_record_bytes_max = value_record_bytes_max;
        self
    }

    /// Makes a bench with a blank device, for an image that another bench made: no mount draws that one's epochs again.
    pub fn blank(plants: Plants, device_bytes: u64) -> Self {
        let bench = Self::leaving(plants, (device_bytes, 512), Fate::Old);
        Self { seed: 1 << 32, ..bench }
    }

    /// Makes a bench with a blank device of physical units of 4096 bytes.
    pub fn coarse(plants: Plants) -> Self {
        Self::leaving(plants, (DEVICE_BYTES, 4096), Fate::Old)
    }

    /// Makes a bench with an empty volume on a device of which a request that fails leaves `left` in each block.
    ///
    /// # Panics
    /// When the volume cannot be made.
    pub fn failing(plants: Plants, left: Fate) -> Self {
        let mut bench = Self::leaving(plants, (DEVICE_BYTES, 512), left);
        bench.format(2).expect("a blank device takes a volume");
        bench
    }

    fn leaving(plants: Plants, (device_bytes, physical_bytes): (u64, u32), left: Fate) -> Self {
        let mut config = SimConfig::new(1, device_bytes);
        config.geometry.physical_bytes = physical_bytes;
        config.immediate = true;
        config.stall = 0;
        let weight = |fate| u8::from(fate == left);
        config.fates = FateWeights {
            old: weight(Fate::Old),
            new: weight(Fate::New),
            prefix: weight(Fate::Prefix),
            suffix: weight(Fate::Suffix),
            mixed: weight(Fate::Mixed),
            garbage: weight(Fate::Garbage),
        };
        let options = Options { plants, group_bytes_max: 1, cache_bytes: 0, ..Options::default() };
        Self { device: SimDevice::new(config), options, seed: 1, count: Requests::default() }
    }

    fn format(&mut self, copies: u8) -> Result<(), String> {
        let disk = Disk::new(self.device.geometry());
        let (of, mut random) = (disk.clone(), self.random());
        let options = FormatOptions { block_bytes: 512, copies, force: false };
        let task: Task<_> =
            Box::pin(async move { format(&of, &mut random, options).await.map(drop) });
        let done = drive((&mut self.device, &mut self.count), &disk, None, task, &mut on)?;
        done.ok_or("a cut while formatting")?.map_err(|error| error.to_string())
    }

    fn random(&mut self) -> Random {
        self.seed += 1;
        let mut seed = [0; 32];
        for (into, byte) in seed.iter_mut().zip(self.seed.to_le_bytes()) {
            *into = byte;
        }
        Random::from_seed(seed)
    }

    /// Makes a bench whose device is as this one's, with the same stores to come.
    pub fn fork(&self) -> Self {
        Self {
            device: self.device.clone(),
            options: self.options,
            seed: self.seed,
            count: self.count,
        }
    }

    /// Opens the volume, unless `go` cuts: `None`.
    ///
    /// # Errors
    /// It hangs, or the journal refuses.
    pub fn open_until(
        &mut self,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<Option<Store>, String> {
        match self.try_open(go)? {
            None => Ok(None),
            Some(Ok(store)) => Ok(Some(store)),
            Some(Err(error)) => Err(format!("the volume does not open: {error}")),
        }
    }

    /// Opens the volume, and tells a refusal from a hang.
    ///
    /// # Errors
    /// It hangs.
    pub fn try_open(
        &mut self,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<Option<Result<Store, OpenError>>, String> {
        let disk = Disk::new(self.device.geometry());
        let clock = Clock::default();
        let opening = Journal::open(disk.clone(), self.random(), clock.clone(), self.options);
        let opened =
            drive((&mut self.device, &mut self.count), &disk, None, Box::pin(opening), go)?;
        Ok(opened.map(|opened| {
            opened.map(|journal| {
                let writes = journal.run();
                // It ends when the device has failed, and is polled on.
                let run: Task<()> = Box::pin(async move {
                    writes.await;
                    std::future::pending().await
                });
                Store { journal, clock, disk, run }
            })
        }))
    }

    /// Opens the volume.
    ///
    /// # Errors
    /// It hangs, or the journal refuses.
    pub fn open(&mut self) -> Result<Store, String> {
        self.open_until(&mut on)?.ok_or_else(|| "cut".into())
    }

    /// Opens the volume, which must report no loss.
    ///
    /// # Errors
    /// It hangs, the journal refuses, or reports a loss.
    pub fn open_whole(&mut self) -> Result<Store, String> {
        let store = self.open()?;
        match store.journal.report().lost.as_slice() {
            [] => Ok(store),
            lost => Err(format!("a loss is reported: {lost:?}")),
        }
    }

    /// Drives `task` on `store` to its end, unless `go` cuts: `None`.
    ///
    /// # Errors
    /// It hangs.
    pub fn drive<T>(
        &mut self,
        store: &mut Store,
        task: Task<T>,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<Option<T>, String> {
        drive((&mut self.device, &mut self.count), &store.disk, Some(&mut store.run), task, go)
    }

    /// Commits one batch and waits until it is durable.
    ///
    /// # Errors
    /// It is refused, indeterminate, or hangs.
    pub fn commit(&mut self, store: &mut Store, changes: &[Change<'_>]) -> Result<(), String> {
        self.commit_until(store, changes, &mut on).map(drop)
    }

    /// Commits one batch; false when `go` cut before the answer.
    ///
    /// # Errors
    /// It is refused, indeterminate, or hangs.
    pub fn commit_until(
        &mut self,
        store: &mut Store,
        changes: &[Change<'_>],
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<bool, String> {
        let commit = store.submit(changes, Durability::Durable);
        match self.drive(store, commit, go)? {
            None => Ok(false),
            Some(Ok(Outcome::Applied(_))) => Ok(true),
            Some(other) => Err(format!("a commit ended with {other:?}")),
        }
    }

    /// Commits one put and yields the places that its flush made durable.
    ///
    /// # Errors
    /// As for [`Bench::commit`].
    pub fn put(&mut self, store: &mut Store, key: &[u8], value: &[u8]) -> Result<Vec<u64>, String> {
        let mut places = Vec::new();
        let go = &mut |device: &SimDevice| {
            places = device.risks().map(|risk| risk.offset).collect();
            Go::On
        };
        self.commit_until(store, &[(key, Some(value))], go)?;
        Ok(places)
    }

    /// Commits puts, each in a group of its own and all under one flush, and cuts before that flush; yields the places
    /// of what was written, in order: copy A, copy B, group by group.
    ///
    /// # Errors
    /// It hangs, or the commits were answered.
    pub fn leave_in_flight(
        &mut self,
        store: &mut Store,
        puts: &[(&[u8], &[u8])],
    ) -> Result<Vec<u64>, String> {
        let commits: Vec<Commit> =
            puts.iter().map(|(k, v)| store.submit(&[(k, Some(v))], Durability::Durable)).collect();
        let all: Task<()> = Box::pin(async move {
            for commit in commits {
                let _ = commit.await;
            }
        });
        match self.drive(store, all, &mut cut_after(0))? {
            None => Ok(self.device.risks().map(|risk| risk.offset).collect()),
            Some(()) => Err("answered before the flush".into()),
        }
    }

    /// Asks for a key.
    ///
    /// # Errors
    /// It hangs.
    pub fn get(&mut self, store: &mut Store, key: &[u8]) -> Result<Answer, String> {
        let (journal, key) = (store.journal.clone(), key.to_vec());
        let task: Task<Got> = Box::pin(async move { read_whole(&journal, &key, Origin(0)).await });
        // Nothing but the read moves: a cut right after an open is a cut right after it.
        let got = drive((&mut self.device, &mut self.count), &store.disk, None, task, &mut on)?;
        Ok(match got.ok_or("cut")? {
            Got::Value { value, .. } => Answer::Value(value),
            Got::Absent => Answer::Absent,
            Got::DataLoss => Answer::Lost,
            Got::Unreadable => Answer::Unreadable,
            Got::Large { .. } => return Err("a value is read to its end".into()),
        })
    }

    /// Checks what a key answers.
    ///
    /// # Errors
    /// It answers otherwise.
    pub fn expect(
        &mut self,
        store: &mut Store,
        key: &[u8],
        expected: Option<&[u8]>,
    ) -> Result<(), String> {
        let expected = expected.map_or(Answer::Absent, |value| Answer::Value(value.into()));
        let got = self.get(store, key)?;
        if got == expected {
            return Ok(());
        }
        Err(format!("{} has {got:?}, not {expected:?}", String::from_utf8_lossy(key)))
    }

    /// Puts a large value and waits until it is durable; false when `go` cut before the answer.
    ///
    /// # Errors
    /// It is refused, indeterminate, or hangs.
    pub fn upload_until(
        &mut self,
        store: &mut Store,
        key: &[u8],
        value: &[u8],
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<bool, String> {
        let (journal, key, value) = (store.journal.clone(), Rc::from(key), value.to_vec());
        let task: Commit = Box::pin(async move {
            let mut upload = journal.upload(Origin(1));
            upload.append(&value).await?;
            upload.commit(key, Precondition::Any, Durability::Durable).await
        });
        match self.drive(store, task, go)? {
            None => Ok(false),
            Some(Ok(Outcome::Applied(_))) => Ok(true),
            Some(other) => Err(format!("an upload ended with {other:?}")),
        }
    }

    /// Puts a large value and waits until it is durable.
    ///
    /// # Errors
    /// It is refused, indeterminate, or hangs.
    pub fn upload(&mut self, store: &mut Store, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.upload_until(store, key, value, &mut on).map(drop)
    }

    /// Lets the store's task go on until it wants nothing more.
    ///
    /// # Errors
    /// It goes on for ever.
    pub fn idle(&mut self, store: &mut Store) -> Result<(), String> {
        self.idle_until(store, &mut on).map(drop)
    }

    /// Lets the store's task go on until it wants nothing more; false when `go` cut.
    ///
    /// # Errors
    /// It goes on for ever.
    pub fn idle_until(
        &mut self,
        store: &mut Store,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<bool, String> {
        let mut quiet = 0;
        for _ in 0..POLLS_MAX {
            let _ = poll(&mut store.run);
            let moved = turn((&mut self.device, &mut self.count), &store.disk, go);
            let Some(moved) = moved else { return Ok(false) };
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 3 {
                return Ok(true);
            }
        }
        Err("the store does not come to rest".into())
    }

    /// Yields the digest of all that the store holds.
    ///
    /// # Errors
    /// It hangs.
    pub fn digest(&mut self, store: &mut Store) -> Result<Digest, String> {
        let journal = store.journal.clone();
        let task: Task<_> = Box::pin(async move { digest(&journal, |_, _, _| {}).await });
        let got = drive((&mut self.device, &mut self.count), &store.disk, None, task, &mut on)?;
        got.ok_or_else(|| "cut".into())
    }

    /// Looks at the device as `image fsck` does, and changes nothing.
    ///
    /// # Errors
    /// It hangs.
    pub fn inspect(&mut self) -> Result<Inspection, String> {
        let disk = Disk::new(self.device.geometry());
        let of = disk.clone();
        let task: Task<_> = Box::pin(async move { inspect(&of, |_, _| {}).await });
        drive((&mut self.device, &mut self.count), &disk, None, task, &mut on)?
            .ok_or_else(|| "cut".into())
    }

    /// Runs an online check and yields how many copies it repaired.
    ///
    /// # Errors
    /// It fails or hangs.
    pub fn check(&mut self, store: &mut Store) -> Result<u64, String> {
        self.check_until(store, &mut on)?.ok_or_else(|| "cut".into())
    }

    /// Runs an online check, unless `go` cuts: `None`; yields how many copies it repaired.
    ///
    /// # Errors
    /// It fails or hangs.
    pub fn check_until(
        &mut self,
        store: &mut Store,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<Option<u64>, String> {
        Ok(self.checked_until(store, go)?.map(|report| report.repaired))
    }

    /// Runs an online check; yields what it tells.
    ///
    /// # Errors
    /// It fails or hangs.
    pub fn checked(&mut self, store: &mut Store) -> Result<CheckReport, String> {
        self.checked_until(store, &mut on)?.ok_or_else(|| "cut".into())
    }

    fn checked_until(
        &mut self,
        store: &mut Store,
        go: &mut dyn FnMut(&SimDevice) -> Go,
    ) -> Result<Option<CheckReport>, String> {
        let journal = store.journal.clone();
        let task: Task<_> = Box::pin(async move { journal.check().await });
        self.drive(store, task, go)?.transpose().map_err(|error| error.to_string())
    }

    /// Looks at the volume as `fsck` does, writes what that says, and yields the places in bytes that were written.
    ///
    /// # Errors
    /// There is no volume, or it fails or hangs.
    pub fn mend(&mut self) -> Result<Vec<u64>, String> {
        let disk = Disk::new(self.device.geometry());
        let of = disk.clone();
        let task: Task<Result<_, String>> = Box::pin(async move {
            let found = inspect(&of, |_, _| ()).await;
            let volume = found.volume.ok_or("there is no volume")?;
            let mut written = Vec::new();
            for fault in &volume.faults {
                for (offset, bytes) in volume.repair(&of, fault).await {
                    of.write(offset, bytes).await.map_err(|error| error.to_string())?;
                    written.push(offset);
                }
            }
            of.flush().await.map_err(|error| error.to_string())?;
            Ok(written)
        });
        drive((&mut self.device, &mut self.count), &disk, None, task, &mut on)?.ok_or("cut")?
    }
}

impl Store {
    /// The queue of its device.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Starts a commit.
    pub fn submit(&self, changes: &[Change<'_>], durability: Durability) -> Commit {
        let operation = |(key, value): &Change<'_>| Operation {
            key: (*key).into(),
            value: value.map(Into::into),
            precondition: Precondition::Any,
        };
        let operations = changes.iter().map(operation).collect();
        Box::pin(self.journal.commit(Batch { operations, durability, origin: Origin(1) }))
    }
}

/// Submits what waits and takes back what ended; `None` when `go` cut, else whether anything moved.
fn turn(
    (device, count): (&mut SimDevice, &mut Requests),
    disk: &Disk,
    go: &mut dyn FnMut(&SimDevice) -> Go,
) -> Option<bool> {
    let mut moved = false;
    while let Some(request) = disk.next_request() {
        if request.operation == Request::Flush && go(device) == Go::Cut {
            return None;
        }
        count.reads += u64::from(matches!(request.operation, Request::Read { .. }));
        count.writes += u64::from(matches!(request.operation, Request::Write { .. }));
        device.submit(request);
        moved = true;
    }
    while let Some(completion) = device.completion() {
        disk.complete(completion);
    }
    Some(moved)
}

fn drive<T>(
    (device, count): (&mut SimDevice, &mut Requests),
    disk: &Disk,
    mut run: Option<&mut Task<()>>,
    mut task: Task<T>,
    go: &mut dyn FnMut(&SimDevice) -> Go,
) -> Result<Option<T>, String> {
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(value) = poll(&mut task) {
            return Ok(Some(value));
        }
        if let Some(run) = &mut run {
            let _ = poll(run);
            // An answer comes before the cut that follows it.
            if let Poll::Ready(value) = poll(&mut task) {
                return Ok(Some(value));
            }
        }
        if turn((device, count), disk, go).is_none() {
            return Ok(None);
        }
    }
    Err("a task hangs".into())
}
