//! What requests cost the device, exactly: no tolerance, so that one write more is seen.

use blockdev::{BlockDevice, Counting, Counts, FileDevice, MemoryDevice};
use journal::{
    Batch, Clock, CommitError, Disk, Durability, Journal, Note, Operation, Options, Origin,
    Outcome, Precondition, Random, Ring, Stats,
};
use std::rc::Rc;
use tests::drive::{Task, drive};

use crate::TempFile;
use crate::history::open;

const DEVICE_BYTES: u64 = 4 << 20;
const BLOCK_BYTES: u64 = 4096;

/// Two copies of one block, one flush, nothing read.
const ONE_PUT: Counts =
    Counts { reads: 0, writes: 2, flushes: 1, bytes_read: 0, bytes_written: 2 * BLOCK_BYTES };

#[test]
fn a_put_of_100_bytes_costs_two_blocks_and_one_flush() {
    check_single_puts(MemoryDevice::new(usize::try_from(DEVICE_BYTES).unwrap()));
}

#[test]
fn a_put_costs_no_more_on_a_file() {
    let file = TempFile::new("cost");
    check_single_puts(FileDevice::create(&file.0, DEVICE_BYTES, || {}).unwrap());
}

/// What is noted of a put lies in the put's own block, and costs nothing more.
#[test]
fn a_put_with_its_note_costs_no_more() {
    let mut store = Store::new(MemoryDevice::new(16 << 20));
    assert!(store.journal.keeps_notes());
    for client in 0..20 {
        let note = Note { ring: Ring::Mutations, count: 1, bytes: Rc::from(&[7; 60][..]) };
        let commit = store.journal.commit_noted(put(client, 100, Durability::Durable), vec![note]);
        store.drive(Box::pin(commit)).unwrap();
        assert_eq!(store.take_counts(), ONE_PUT, "put {client}");
    }
    assert_eq!(store.journal.notes(Ring::Mutations, 0, 99).len(), 20);
}

/// Commits that wait together share a group, its two writes and its flush.
#[test]
fn puts_that_wait_together_cost_as_much_as_one() {
    let mut store = Store::new(MemoryDevice::new(usize::try_from(DEVICE_BYTES).unwrap()));
    let commits: Vec<_> =
        (0..8).map(|client| store.journal.commit(put(client, 100, Durability::Durable))).collect();
    let task: Task<Vec<_>> = Box::pin(async move {
        let mut outcomes = Vec::new();
        for commit in commits {
            outcomes.push(commit.await);
        }
        outcomes
    });
    let outcomes = store.drive(task);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Applied(_)))));
    assert_eq!(store.take_counts(), ONE_PUT);
}

/// Buffered puts cost nothing until somebody syncs, and then as much as one.
#[test]
fn buffered_puts_cost_nothing_until_the_sync() {
    let mut store = Store::new(MemoryDevice::new(usize::try_from(DEVICE_BYTES).unwrap()));
    for client in 0..8 {
        store.put(put(client, 100, Durability::Buffered)).unwrap();
    }
    assert_eq!(store.take_counts(), Counts::default());
    let sync = Box::pin(store.journal.sync());
    store.drive(sync).unwrap();
    assert_eq!(store.take_counts(), ONE_PUT);
    let sync = Box::pin(store.journal.sync());
    store.drive(sync).unwrap();
    assert_eq!(store.take_counts(), Counts::default(), "nothing is left to make durable");
}

#[test]
fn a_value_of_64_kib_costs_its_blocks_twice_and_one_flush() {
    // Large enough for segments that take such a value.
    let mut store = Store::new(MemoryDevice::new(16 << 20));
    store.put(put(0, 65_536, Durability::Durable)).unwrap();
    let bytes_written = 2 * 17 * BLOCK_BYTES;
    assert_eq!(store.take_counts(), Counts { bytes_written, ..ONE_PUT });
}

/// Each copy of the log is read when a volume is opened, and nothing a second time to be applied.
#[test]
fn opening_reads_the_log_once() {
    let mut store = Store::new(MemoryDevice::new(64 << 20));
    for client in 0..250 {
        store.put(put(client, 8000, Durability::Durable)).unwrap();
    }
    let Stats { geometry, log_bytes, keys, .. } = store.journal.stats();
    let Store { mut device, disk, .. } = store;
    device.take_counts();
    let random = Random::from_seed([3; 32]);
    let open = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let journal = drive(&disk, &mut device, None, Box::pin(open)).unwrap();
    assert_eq!(journal.stats().keys, keys);
    assert!(log_bytes > 2_000_000);
    // Segments to their end, one that is listed ahead, a block of each for evidence, and the superblock.
    let segment = geometry.segment_bytes() as u64;
    let copy = log_bytes.next_multiple_of(segment) + segment;
    let heads = u64::from(geometry.segment_count()) * BLOCK_BYTES;
    let read = device.take_counts().bytes_read;
    assert!(read <= 2 * (copy + heads) + 4 * BLOCK_BYTES, "{read} bytes, of {copy} in a copy");
}

/// Behind a checkpoint a mount reads the index and the end of the log, however much was written before.
#[test]
fn opening_with_a_checkpoint_reads_by_keys_and_not_by_log() {
    let read = |rounds: u64| {
        let mut store = Store::new(MemoryDevice::new(16 << 20));
        for _ in 0..rounds {
            for client in 0..50 {
                store.put(put(client, 100, Durability::Durable)).unwrap();
            }
        }
        let journal = store.journal.clone();
        store.drive(Box::pin(async move { journal.checkpoint().await })).unwrap();
        let geometry = store.journal.stats().geometry;
        let Store { mut device, disk, .. } = store;
        device.take_counts();
        let random = Random::from_seed([3; 32]);
        let open = Journal::open(disk.clone(), random, Clock::default(), Options::default());
        let journal = drive(&disk, &mut device, None, Box::pin(open)).unwrap();
        let report = journal.report();
        assert!(report.checkpoint_bytes > 0 && report.replayed_bytes == 0, "{report:?}");
        (device.take_counts().bytes_read, geometry.segment_bytes() as u64)
    };
    let ((few, segment), (many, _)) = (read(2), read(60));
    // The last segment of the log, at whatever length, and one that is listed ahead, in both copies.
    assert!(many.abs_diff(few) <= 4 * segment, "{few} bytes, and {many} after 30 times the writes");
    assert!(many < 60 * 50 * 2 * BLOCK_BYTES / 4, "{many} bytes of all that was written");
}

fn check_single_puts<D: BlockDevice>(device: D) {
    let mut store = Store::new(device);
    for client in 0..20 {
        store.put(put(client, 100, Durability::Durable)).unwrap();
        assert_eq!(store.take_counts(), ONE_PUT, "put {client}");
    }
}

/// An open volume whose device counts since it was opened.
struct Store<D> {
    device: Counting<D>,
    disk: Disk,
    journal: Journal,
    run: Task<()>,
}

impl<D: BlockDevice> Store<D> {
    fn new(device: D) -> Self {
        let mut device = Counting::new(device);
        let (disk, journal) = open(&mut device, Options::default(), Clock::default());
        let run: Task<()> = Box::pin(journal.run());
        device.take_counts();
        Self { device, disk, journal, run }
    }

    fn put(&mut self, batch: Batch) -> Result<Outcome, CommitError> {
        let commit = Box::pin(self.journal.commit(batch));
        self.drive(commit)
    }

    fn drive<T>(&mut self, task: Task<T>) -> T {
        drive(&self.disk, &mut self.device, Some(&mut self.run), task)
    }

    /// Lets everything run that was started, and yields what it all cost.
    fn take_counts(&mut self) -> Counts {
        assert!(self.disk.next_request().is_none(), "an answer comes after all that it needs");
        self.device.take_counts()
    }
}

fn put(client: u64, value_bytes: usize, durability: Durability) -> Batch {
    let key = format!("/state/client/{client}").into_bytes();
    let operation = Operation {
        key: Rc::from(key),
        value: Some(Rc::from(vec![7; value_bytes])),
        precondition: Precondition::Any,
    };
    Batch { operations: vec![operation], durability, origin: Origin(client) }
}
