//! A volume of any shape that is opened again and again.

use blockdev::{BlockDevice, MemoryDevice};
use journal::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Journal, Operation, Options,
    Origin, Outcome, Precondition, Random, format,
};
use std::rc::Rc;
use std::task::Poll;
use tests::drive::{Task, drive, poll};

/// Yields the key of a number.
pub fn name(number: u32) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

/// A volume in memory, and the mount at hand.
pub struct Rig {
    device: MemoryDevice,
    disk: Disk,
    pub journal: Journal,
    run: Task<()>,
    options: Options,
    mounts: u8,
}

impl Rig {
    /// Formats a device of so many bytes and opens it.
    pub fn new(device_bytes: u64, block_bytes: u32, copies: u8, options: Options) -> Self {
        let mut device = MemoryDevice::new(usize::try_from(device_bytes).unwrap());
        let disk = Disk::new(device.geometry());
        let of = disk.clone();
        let made: Task<_> = Box::pin(async move {
            let options = FormatOptions { block_bytes, copies, force: false };
            format(&of, &mut Random::from_seed([1; 32]), options).await.map(drop)
        });
        drive(&disk, &mut device, None, made).unwrap();
        let (disk, journal) = open(&mut device, options, 2);
        let run = Box::pin(journal.run());
        Self { device, disk, journal, run, options, mounts: 2 }
    }

    /// Opens it again without a word to the mount at hand.
    pub fn reopen(&mut self) {
        self.mounts = self.mounts.wrapping_add(1);
        self.run = Box::pin(async {});
        (self.disk, self.journal) = open(&mut self.device, self.options, self.mounts);
        self.run = Box::pin(self.journal.run());
    }

    /// Drives a task to its end.
    pub fn drive<T: 'static>(&mut self, task: impl Future<Output = T> + 'static) -> T {
        drive(&self.disk, &mut self.device, Some(&mut self.run), Box::pin(task))
    }

    /// Puts or deletes keys in one commit.
    pub fn commit(
        &mut self,
        changes: &[(&[u8], Option<&[u8]>)],
        durability: Durability,
    ) -> Result<Outcome, CommitError> {
        let task = self.asked(changes, durability);
        self.drive(task)
    }

    /// Takes a commit and drives nothing.
    pub fn asked(
        &mut self,
        changes: &[(&[u8], Option<&[u8]>)],
        durability: Durability,
    ) -> Task<Result<Outcome, CommitError>> {
        let operation = |(key, value): &(&[u8], Option<&[u8]>)| Operation {
            key: Rc::from(*key),
            value: value.map(Rc::from),
            precondition: Precondition::Any,
        };
        let operations = changes.iter().map(operation).collect();
        let mut task: Task<_> =
            Box::pin(self.journal.commit(Batch { operations, durability, origin: Origin(1) }));
        if let Poll::Ready(done) = poll(&mut task) {
            return Box::pin(async move { done });
        }
        task
    }
}

fn open(device: &mut MemoryDevice, options: Options, seed: u8) -> (Disk, Journal) {
    let (disk, clock) = (Disk::new(device.geometry()), Clock::default());
    let task = Journal::open(disk.clone(), Random::from_seed([seed; 32]), clock, options);
    let journal = drive(&disk, device, None, Box::pin(task)).unwrap();
    (disk, journal)
}
