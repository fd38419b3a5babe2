//! The ledger against a naive count, over random histories of a real journal in memory.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use blockdev::{BlockDevice as _, Completion, DeviceError, MemoryDevice, Operation as Asked};
use journal::{
    Clock, Disk, Durability, FormatOptions, Mode, Options, Origin, Precondition, Random, format,
};

use super::*;

const KEYS: [&str; 9] = [
    "/state/a",
    "/state/a/x",
    "/state/a/x/1",
    "/state/a/xy",
    "/state/ab",
    "/state/b",
    "/state/b/1",
    "/state/b/2",
    "/state/b/x/1",
];
const PREFIXES: [&str; 6] =
    ["/state", "/state/a", "/state/a/x", "/state/b", "/state/b/x", "/state/c"];

type Task<T> = Pin<Box<dyn Future<Output = T>>>;
/// What was accepted: each key with the bytes of its value.
type Held = BTreeMap<&'static str, u64>;

/// A journal over memory, moved by hand.
struct World {
    device: MemoryDevice,
    fails: bool,
    disk: Disk,
    journal: Journal,
    /// `None` once it has ended.
    task: Option<Task<()>>,
}

fn poll<T>(task: &mut Task<T>) -> Poll<T> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets requests out and completions in; flushes fail if `fails`.
fn turn(disk: &Disk, device: &mut MemoryDevice, fails: bool) {
    while let Some(request) = disk.next_request() {
        if fails && request.operation == Asked::Flush {
            let result = Err(DeviceError::Io { code: 5 });
            disk.complete(Completion { id: request.id, buffer: request.buffer, result });
        } else {
            device.submit(request);
        }
    }
    while let Some(completion) = device.completion() {
        disk.complete(completion);
    }
}

fn drive<T>(disk: &Disk, device: &mut MemoryDevice, mut task: Task<T>) -> T {
    for _ in 0..100_000 {
        if let Poll::Ready(end) = poll(&mut task) {
            return end;
        }
        turn(disk, device, false);
    }
    panic!("it does not end");
}

impl World {
    fn new() -> Self {
        let mut device = MemoryDevice::new(8 << 20);
        let disk = Disk::new(device.geometry());
        let formatted = {
            let disk = disk.clone();
            Box::pin(async move {
                let mut random = Random::from_seed([7; 32]);
                format(&disk, &mut random, FormatOptions::default()).await.map(drop)
            })
        };
        drive(&disk, &mut device, formatted).expect("a blank device");
        Self::open(device, 0)
    }

    fn open(mut device: MemoryDevice, mount: u8) -> Self {
        let disk = Disk::new(device.geometry());
        let random = Random::from_seed([mount; 32]);
        let opening = Journal::open(disk.clone(), random, Clock::default(), Options::default());
        let journal = drive(&disk, &mut device, Box::pin(opening)).expect("a sound volume");
        let task: Task<()> = Box::pin(journal.run());
        let task = Some(task);
        Self { device, fails: false, disk, journal, task }
    }

    /// Moves the volume on by some steps, or until nothing waits.
    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            if self.task.as_mut().is_some_and(|task| poll(task).is_ready()) {
                self.task = None;
            }
            turn(&self.disk, &mut self.device, self.fails);
        }
    }

    /// A value of so many bytes, all there but its end; `None` where the device gave out.
    fn upload(&mut self, bytes: u64, origin: Origin) -> Option<Upload> {
        let mut upload = self.journal.upload(origin);
        let bytes = vec![b'u'; usize::try_from(bytes).unwrap()];
        let mut appending: Task<_> = Box::pin(async move {
            let done = upload.append(&bytes).await;
            done.map(|()| upload)
        });
        for _ in 0..1000 {
            if let Poll::Ready(done) = poll(&mut appending) {
                return done.ok();
            }
            self.steps(1);
        }
        None
    }

    /// What the volume holds, key by key.
    fn held(&self) -> Held {
        let mut held = Held::new();
        self.journal.each_accepted(b"/state", |key, bytes| {
            let key = KEYS.into_iter().find(|known| known.as_bytes() == key);
            assert_eq!(held.insert(key.expect("a key of the test"), bytes), None);
        });
        held
    }
}

/// The naive count: every key compared with the prefix, segment by segment.
fn count(held: &Held, prefix: &str) -> Used {
    let mut used = Used::default();
    for (key, bytes) in held {
        let mut segments = key.split('/');
        if prefix.split('/').all(|segment| segments.next() == Some(segment)) {
            used.bytes += key.len() as u64 + bytes;
            used.keys += 1;
        }
    }
    used
}

fn random_policy(random: &mut fastrand::Rng) -> Policy {
    let mut text = "version = 1\nservice.s.uid = 1\nservice.t.uid = 2\n".to_string();
    for (prefix, to) in PREFIXES.iter().flat_map(|prefix| [(prefix, "s"), (prefix, "t")]) {
        let mut parts = vec::Vec::new();
        for (part, most) in [("bytes", 700), ("keys", 6), ("value_max", 150)] {
            if random.u8(0..3) == 0 {
                parts.push(format!("{part} = {}", random.u64(1..=most)));
            }
        }
        if !parts.is_empty() {
            let quota = parts.join(", ");
            text.push_str(&format!(
                "[[grant]]\nto = '{to}'\nprefix = '{prefix}'\nrights = ['put']\nquota = {{ {quota} }}\n"
            ));
        }
    }
    Policy::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn random_batch(random: &mut fastrand::Rng) -> (Batch, vec::Vec<(&'static str, Option<u64>)>) {
    let mut changes = vec::Vec::new();
    let mut operations = vec::Vec::new();
    for _ in 0..random.usize(1..=3) {
        let key = KEYS[random.usize(..KEYS.len())];
        let bytes = (random.u8(0..4) > 0).then(|| random.u64(0..200));
        let value = bytes.map(|bytes| Rc::from(vec![b'v'; usize::try_from(bytes).unwrap()]));
        let precondition =
            if random.u8(0..6) == 0 { Precondition::Absent } else { Precondition::Any };
        operations.push(Operation { key: key.as_bytes().into(), value, precondition });
        changes.push((key, bytes));
    }
    let durability =
        [Durability::Durable, Durability::Buffered, Durability::Strict][random.usize(..3)];
    (Batch { operations, durability, origin: Origin(random.u64(..3)) }, changes)
}

/// Whether a batch would pass a quota, by counting all there would be.
fn passes(policy: &Policy, held: &Held, changes: &[(&'static str, Option<u64>)]) -> bool {
    let mut after = held.clone();
    for (key, bytes) in changes {
        match bytes {
            Some(bytes) => after.insert(key, *bytes),
            None => after.remove(key),
        };
    }
    policy.quotas().any(|(_, _, prefix, quota)| {
        let (old, new) = (count(held, prefix.as_str()), count(&after, prefix.as_str()));
        let over = |most: Option<u64>, old, new| most.is_some_and(|most| new > most && new > old);
        let too_long = changes.iter().any(|(key, bytes)| {
            let one = Held::from([(*key, 0)]);
            let over = bytes.zip(quota.value_bytes_max).is_some_and(|(bytes, most)| bytes > most);
            over && count(&one, prefix.as_str()).keys == 1
        });
        over(quota.bytes, old.bytes, new.bytes) || over(quota.keys, old.keys, new.keys) || too_long
    })
}

/// What the random histories came across, so that none passes by meeting nothing.
#[derive(Default, Debug)]
struct Tally {
    taken: u32,
    uploads: u32,
    refused: u32,
    conflicts: u32,
    drops: u32,
    crashes: u32,
    loads: u32,
}

fn history(seed: u64, tally: &mut Tally) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut world, mut ledger) = (World::new(), Ledger::default());
    let mut policy = random_policy(&mut random);
    ledger.load(&policy, Some(&world.journal));
    let mut held = Held::new();
    for step in 0..60_u8 {
        match random.u8(0..20) {
            0 => {
                policy = random_policy(&mut random);
                ledger.load(&policy, Some(&world.journal));
                tally.loads += 1;
            }
            1 | 2 => {
                // What had not reached the device is gone; what had, may be there or not.
                world = World::open(world.device, step + 1);
                ledger = Ledger::default();
                ledger.load(&policy, Some(&world.journal));
                tally.crashes += 1;
            }
            3 => world.fails = random.u8(0..4) == 0,
            4..9 => world.steps(random.usize(1..30)),
            9 | 10 => {
                // Some in one piece, some in several.
                let most = [200, 150_000][random.usize(..2)];
                let (key, bytes) = (KEYS[random.usize(..KEYS.len())], random.u64(0..most));
                let Some(upload) = world.upload(bytes, Origin(7)) else { continue };
                let (any, durable) = (Precondition::Any, Durability::Durable);
                let refused = passes(&policy, &world.held(), &[(key, Some(bytes))]);
                let early =
                    ledger.admits(&world.journal, key.as_bytes(), bytes, None, true).is_err();
                assert_eq!(early, refused, "{seed}/{step}: as it is told before");
                let finished = ledger.finish(&world.journal, upload, key.as_bytes(), any, durable);
                assert_eq!(finished.is_err(), refused, "{seed}/{step}: {key} {bytes}");
                tally.uploads += u32::from(!refused);
            }
            _ => {
                let (batch, changes) = random_batch(&mut random);
                let refused = passes(&policy, &held, &changes);
                match ledger.commit(&world.journal, batch, Vec::new()) {
                    Err(exceeded) => {
                        assert!(refused, "{seed}/{step}: {exceeded:?}");
                        tally.refused += 1;
                    }
                    Ok(commit) => {
                        assert!(!refused, "{seed}/{step}: {changes:?} passes a quota");
                        drop(commit);
                        let now = world.held();
                        tally.taken += u32::from(now != held);
                        tally.conflicts += u32::from(now == held);
                    }
                }
            }
        }
        if matches!(world.journal.mode(), Mode::ReadOnly(_)) {
            tally.drops += 1;
        }
        held = world.held();
        let told = ledger.usage(&world.journal, &Prefix::root());
        assert_eq!(told.used, count(&held, "/state"), "{seed}/{step}");
        for account in &told.accounts {
            let prefix = account.prefix.as_str();
            assert_eq!(account.used, count(&held, prefix), "{seed}/{step} {prefix}");
            let alone = ledger.usage(&world.journal, &account.prefix);
            assert_eq!(alone.used, account.used, "{seed}/{step} {prefix}");
            assert!(alone.accounts.contains(account));
        }
    }
}

#[test]
fn the_ledger_equals_a_naive_count_over_random_histories() {
    let mut tally = Tally::default();
    for seed in 0..200 {
        history(seed, &mut tally);
    }
    let Tally { taken, uploads, refused, conflicts, drops, crashes, loads } = tally;
    assert!(
        [taken, uploads, refused, conflicts, drops, crashes, loads].iter().all(|n| *n > 100),
        "{tally:?}"
    );
}

#[test]
fn a_path_lies_in_every_subtree_above_it() {
    let check = |key: &str, expected: &[&str]| {
        assert_eq!(paths(key.as_bytes()).collect::<vec::Vec<_>>(), expected);
    };
    check("/state/a/bc", &["/state", "/state/a", "/state/a/bc"]);
    check("/state", &["/state"]);
    assert_eq!(
        paths(b"/state/\xff").count(),
        1,
        "no text, no subtree: the empty path has no quota"
    );
}
