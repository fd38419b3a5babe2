//! One history: clients that commit and sync at random, and every answer noted as it comes.

use blockdev::BlockDevice;
use fastrand::Rng;
use journal::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Journal, Operation, Options,
    Origin, Outcome, Plants, Precondition, Random, format,
};
use std::rc::Rc;
use std::task::Poll;
use tests::drive::{Task, drive, poll, turn};

use crate::spy::Spy;

/// Most answers that are awaited at once.
const WAITING_MAX: usize = 12;

/// What a history did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Commits acknowledged as durable.
    pub commits: u32,
    /// Syncs answered.
    pub syncs: u32,
    /// Writes of groups that carried several commits.
    pub shared: usize,
}

impl Tally {
    /// Adds another history's.
    pub fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.syncs += other.syncs;
        self.shared += other.shared;
    }
}

/// Makes a volume on `device`, opens it, and lets clients make `commits` commits.
///
/// # Errors
/// The first answer that came too early, or that should not have come at all.
pub fn run<D: BlockDevice>(
    device: D,
    seed: u64,
    plants: Plants,
    commits: u32,
) -> Result<Tally, String> {
    let mut rng = Rng::with_seed(seed);
    let options = Options {
        group_bytes_max: [100, 1000, 256 << 10][rng.usize(..3)],
        flush_bytes_max: [1, 2048, 2 << 20][rng.usize(..3)],
        plants,
        ..Options::default()
    };
    let mut spy = Spy::new(device);
    let clock = Clock::default();
    let (disk, journal) = open(&mut spy, options, clock.clone());
    spy.counting.record();
    let run: Task<()> = Box::pin(journal.run());
    let (waiting, left, tally) = (Vec::new(), commits, Tally::default());
    let mut history =
        History { rng, spy, disk, journal, run, clock, waiting, taken: Vec::new(), left, tally };
    history.work()?;
    history.spy.judge(COPIES)?;
    history.tally.shared = history.spy.shared();
    Ok(history.tally)
}

/// Makes a volume of two copies and opens it.
pub fn open<D: BlockDevice>(device: &mut D, options: Options, clock: Clock) -> (Disk, Journal) {
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let task: Task<_> = Box::pin(async move {
        let mut random = Random::from_seed([1; 32]);
        let options = FormatOptions { block_bytes: 4096, copies: 2, force: false };
        format(&of, &mut random, options).await
    });
    drive(&disk, device, None, task).unwrap();
    let task = Journal::open(disk.clone(), Random::from_seed([2; 32]), clock, options);
    let journal = drive(&disk, device, None, Box::pin(task)).unwrap();
    (disk, journal)
}

struct History<D> {
    rng: Rng,
    spy: Spy<D>,
    disk: Disk,
    journal: Journal,
    run: Task<()>,
    clock: Clock,
    waiting: Vec<Waiting>,
    /// The commits taken so far.
    taken: Vec<u64>,
    left: u32,
    tally: Tally,
}

struct Waiting {
    answer: Answer,
    /// What the answer promises to be durable.
    promise: Vec<u64>,
}

enum Answer {
    Commit(Task<Result<Outcome, CommitError>>),
    Sync(Task<Result<(), CommitError>>),
}

impl<D: BlockDevice> History<D> {
    fn work(&mut self) -> Result<(), String> {
        while self.left > 0 || !self.waiting.is_empty() {
            let may_ask = self.left > 0 && self.waiting.len() < WAITING_MAX;
            match self.rng.u8(..16) {
                0..=5 if may_ask => self.commit(),
                6 if may_ask => {
                    let answer = Answer::Sync(Box::pin(self.journal.sync()));
                    self.waiting.push(Waiting { answer, promise: self.taken.clone() });
                }
                7 => self.clock.set(self.clock.now() + self.rng.u64(..40)),
                _ => {
                    // An answer is noted before the device gets anything more, so that nothing that
                    // happens later can excuse it.
                    let _ = poll(&mut self.run);
                    self.answers()?;
                    turn(&self.disk, &mut self.spy);
                }
            }
            self.answers()?;
        }
        Ok(())
    }

    fn commit(&mut self) {
        self.left -= 1;
        let number = u64::from(self.left);
        let operations = (0..self.rng.usize(1..=3)).map(|_| self.operation(number)).collect();
        let buffered = self.rng.u8(..4) == 0;
        let durability = if buffered { Durability::Buffered } else { Durability::Durable };
        let batch = Batch { operations, durability, origin: Origin(self.rng.u64(..3)) };
        let answer = Answer::Commit(Box::pin(self.journal.commit(batch)));
        self.taken.push(number);
        let promise = if buffered { Vec::new() } else { vec![number] };
        self.waiting.push(Waiting { answer, promise });
    }

    fn operation(&mut self, number: u64) -> Operation {
        let key = format!("/state/{}", self.rng.u8(..20)).into_bytes();
        let mut value = number.to_le_bytes().to_vec();
        value.resize(value.len() + self.rng.usize(..2000), 7);
        Operation {
            key: Rc::from(key),
            value: Some(Rc::from(value)),
            precondition: Precondition::Any,
        }
    }

    fn answers(&mut self) -> Result<(), String> {
        let mut still = Vec::new();
        for mut one in std::mem::take(&mut self.waiting) {
            let answered = match &mut one.answer {
                Answer::Commit(task) => match poll(task) {
                    Poll::Ready(Ok(Outcome::Applied(_))) => {
                        self.tally.commits += u32::from(!one.promise.is_empty());
                        true
                    }
                    Poll::Ready(other) => return Err(format!("a commit ends in {other:?}")),
                    Poll::Pending => false,
                },
                Answer::Sync(task) => match poll(task) {
                    Poll::Ready(Ok(())) => {
                        self.tally.syncs += 1;
                        true
                    }
                    Poll::Ready(Err(error)) => return Err(format!("a sync ends in {error:?}")),
                    Poll::Pending => false,
                },
            };
            match answered {
                true => self.spy.acknowledged(one.promise),
                false => still.push(one),
            }
        }
        self.waiting = still;
        Ok(())
    }
}

const COPIES: usize = 2;
