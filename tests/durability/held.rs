//! Reads that a device answers late: what they yield is old by then, and nobody may be told it.

use crate::history::open;
use blockdev::{BlockDevice, Completion, Geometry, MemoryDevice, Operation, Request};
use fastrand::Rng;
use journal::{
    Batch, Clock, CommitError, Durability, Got, Journal, Operation as Change, Options, Origin,
    Outcome, Precondition,
};
use std::rc::Rc;
use tests::drive::{Task, drive, poll, turn};

/// A device that answers reads when it is told to, with what was there when they were asked for.
struct Held {
    inner: MemoryDevice,
    holds: bool,
    held: Vec<Completion>,
}

impl BlockDevice for Held {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, request: Request) {
        let read = matches!(request.operation, Operation::Read { .. });
        self.inner.submit(request);
        if read && self.holds {
            self.held.extend(self.inner.completion());
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        let held = if self.holds { None } else { self.held.pop() };
        held.or_else(|| self.inner.completion())
    }
}

const KEYS: u32 = 300;

fn key(number: u32) -> Rc<[u8]> {
    format!("/state/held/{number:04}").into_bytes().into()
}

fn put(journal: &Journal, number: u32, version: u32) -> Task<Result<Outcome, CommitError>> {
    let value = [version.to_le_bytes(), number.to_le_bytes()].concat().repeat(38);
    let value: Option<Rc<[u8]>> = Some(value.into());
    let operation = Change { key: key(number), value, precondition: Precondition::Any };
    let (operations, durability) = (vec![operation], Durability::Durable);
    Box::pin(journal.commit(Batch { operations, durability, origin: Origin(1) }))
}

/// Who holds what a scan has seen, as a page of a list does, asks for the values later: each is its key's, though others were written
/// meanwhile where it lay, and are kept in memory by that place.
#[test]
fn what_was_seen_is_never_the_value_of_another_key() {
    let mut device = MemoryDevice::new(512 << 10);
    let (disk, journal) = open(&mut device, Options::default(), Clock::default());
    let mut run: Task<()> = Box::pin(journal.run());
    let (mut rng, mut now) = (Rng::with_seed(5), vec![0_u32; KEYS as usize]);
    for number in 0..KEYS {
        let commit = put(&journal, number, 0);
        drive(&disk, &mut device, Some(&mut run), commit).expect("it has room");
    }
    for version in 1..10 {
        let before = now.clone();
        let mut seen = Vec::new();
        journal.scan(b"", |key, one| {
            seen.push((Rc::<[u8]>::from(key), one));
            true
        });
        for _ in 0..1000 {
            let number = rng.u32(..KEYS);
            now[number as usize] = version;
            let commit = put(&journal, number, version);
            drive(&disk, &mut device, Some(&mut run), commit).expect("garbage refuses none");
        }
        for (number, (of, seen)) in (0..).zip(seen) {
            assert_eq!(of, key(number));
            let journal = journal.clone();
            let value: Task<Got> = Box::pin(async move { journal.value(&of, &seen).await });
            let Got::Value { value, .. } = drive(&disk, &mut device, Some(&mut run), value) else {
                panic!("every key has a value");
            };
            let told = value.first_chunk::<8>().expect("values are longer");
            let told =
                [&told[..4], &told[4..]].map(|it| u32::from_le_bytes(it.try_into().unwrap()));
            let had = [before[number as usize], now[number as usize]];
            assert!(
                told[1] == number && had.contains(&told[0]),
                "key {number} had {had:?}: {told:?}"
            );
        }
    }
}

/// A read of a value begins, the value is written over, its segment is cleaned and written again, and only then the read
/// ends: the value is not what the cache may tell of the place from then on.
#[test]
fn a_late_read_is_not_kept_for_what_lies_there_now() {
    let mut device = Held { inner: MemoryDevice::new(512 << 10), holds: false, held: Vec::new() };
    // A cache that holds little, so that reads go to the device, and keeps what comes last.
    let options = Options { cache_bytes: 8 << 10, ..Options::default() };
    let (disk, journal) = open(&mut device, options, Clock::default());
    let mut run: Task<()> = Box::pin(journal.run());
    let (mut rng, mut now) = (Rng::with_seed(4), vec![0_u32; KEYS as usize]);
    for number in 0..KEYS {
        let commit = put(&journal, number, 0);
        drive(&disk, &mut device, Some(&mut run), commit).expect("it has room");
    }
    for version in 1..10 {
        let mut gets: Vec<(u32, Task<Got>)> = Vec::new();
        device.holds = true;
        for number in 0..20 {
            let journal = journal.clone();
            let key = key(number);
            let mut get: Task<Got> = Box::pin(async move { journal.get(&key, Origin(2)).await });
            if poll(&mut get).is_pending() {
                gets.push((number, get));
            }
        }
        // What cleaning reads is not held back.
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        device.holds = false;
        let late = std::mem::take(&mut device.held);
        for _ in 0..1000 {
            let number = rng.u32(..KEYS);
            now[number as usize] = version;
            let commit = put(&journal, number, version);
            drive(&disk, &mut device, Some(&mut run), commit).expect("garbage refuses none");
        }
        device.held = late;
        for (_, mut get) in gets {
            while poll(&mut get).is_pending() {
                turn(&disk, &mut device);
            }
        }
        for number in 0..KEYS {
            let (journal, key) = (journal.clone(), key(number));
            let get: Task<Got> = Box::pin(async move { journal.get(&key, Origin(3)).await });
            let Got::Value { value, .. } = drive(&disk, &mut device, Some(&mut run), get) else {
                panic!("every key has a value");
            };
            let told = u32::from_le_bytes(*value.first_chunk().expect("values are longer"));
            assert_eq!(
                told, now[number as usize],
                "key {number} has another's value, or an old one"
            );
        }
    }
}
