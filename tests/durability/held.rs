//! Reads that a device answers late: what they yield is old by then, and nobody may be told it.

use crate::history::open;
use blockdev::{BlockDevice, Completion, Geometry, MemoryDevice, Operation, Request};
use fastrand::Rng;
use journal::{
    Batch, Clock, Durability, Got, Journal, Operation as Change, Options, Origin, Precondition,
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
    let put = |journal: &Journal, number: u32, version: u32| -> Task<_> {
        let value: Option<Rc<[u8]>> = Some(version.to_le_bytes().repeat(75).into());
        let operation = Change { key: key(number), value, precondition: Precondition::Any };
        let (operations, durability) = (vec![operation], Durability::Durable);
        Box::pin(journal.commit(Batch { operations, durability, origin: Origin(1) }))
    };
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
