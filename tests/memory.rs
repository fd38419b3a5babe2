//! What the journal and the server take of the heap, which an allocator counts. A binary of its own: nothing else may allocate.

#![forbid(unsafe_code)]

use blockdev::{BlockDevice, MemoryDevice};
use journal::{
    Batch, Clock, Disk, Durability, FormatOptions, Journal, Opened, Operation, Options, Origin,
    Piece, Precondition, Random, format,
};
use policy::{Peer, Policy};
use statefs::directory::commit_results::Which;
use statefs::{directory, state_fs};
use statefsd::{Limits, Server};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use tests::drive::{Task, drive};
use vat::Vat;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held by each test: what the other allocates is none of its business.
static ALONE: Mutex<()> = Mutex::new(());

const KEYS: usize = 30_000;

/// A device with an empty volume.
fn formatted() -> (Disk, MemoryDevice) {
    let mut device = MemoryDevice::new(64 << 20);
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let formatted: Task<_> = Box::pin(async move {
        format(&of, &mut Random::from_seed([1; 32]), FormatOptions::default()).await.map(drop)
    });
    drive(&disk, &mut device, None, formatted).expect("a blank device takes a volume");
    (disk, device)
}

/// Gives each key a value of 100 bytes.
fn puts(keys: &[String]) -> Batch {
    let value: Rc<[u8]> = [7; 100].into();
    let operation = |key: &String| Operation {
        key: key.as_bytes().into(),
        value: Some(value.clone()),
        precondition: Precondition::Any,
    };
    let operations = keys.iter().map(operation).collect();
    Batch { operations, durability: Durability::Durable, origin: Origin(1) }
}

fn open(disk: &Disk, device: &mut MemoryDevice) -> Journal {
    let options = Options { cache_bytes: 0, replay_bytes: Some(1 << 30), ..Options::default() };
    let opened = Journal::open(disk.clone(), Random::from_seed([2; 32]), Clock::default(), options);
    let opened: Task<_> = Box::pin(opened);
    drive(disk, device, None, opened).expect("the volume opens")
}

/// Writes a value of 100 bytes for each key, in this order, and yields what opening the volume costs in memory, by key:
/// from its log, and from a checkpoint.
fn bytes_per_key(keys: &[String]) -> [f64; 2] {
    let (disk, mut device) = formatted();
    let journal = open(&disk, &mut device);
    let mut run: Task<()> = Box::pin(journal.run());
    for keys in keys.chunks(200) {
        let commit: Task<_> = Box::pin(journal.commit(puts(keys)));
        drive(&disk, &mut device, Some(&mut run), commit).expect("there is room");
    }
    drop((run, journal));
    let mut opened = || {
        let region = Region::new(ALLOCATOR);
        let journal = open(&disk, &mut device);
        let change = region.change();
        assert_eq!(journal.stats().keys, KEYS);
        // What a reallocation adds or takes is in both of these.
        let bytes = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        let mut run: Task<()> = Box::pin(journal.run());
        let checkpoint: Task<_> = Box::pin(async move { journal.checkpoint().await });
        drive(&disk, &mut device, Some(&mut run), checkpoint).expect("there is room");
        bytes / KEYS as f64
    };
    [opened(), opened()]
}

#[test]
fn a_key_of_41_bytes_takes_at_most_48() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut dense: Vec<_> = (0..KEYS).map(|n| format!("/state/bench/keys/{n:023}")).collect();
    rng.shuffle(&mut dense);
    let scattered: Vec<_> = (0..KEYS)
        .map(|_| format!("/state/objects/0123456789/{:015x}", rng.u64(..1 << 60)))
        .collect();
    for (name, keys, most) in [("dense", dense, 20.0), ("scattered", scattered, 32.0)] {
        assert!(keys.iter().all(|key| key.len() == 41));
        let [log, checkpoint] = bytes_per_key(&keys);
        println!("{name}: {log:.1} bytes from the log, {checkpoint:.1} from a checkpoint");
        assert!(log <= most && checkpoint <= most, "{name}: {log:.1}, {checkpoint:.1} > {most}");
    }
}

/// Allocations of a lone durable put and of one in a batch: of the caller's batch, both copies' buffers and the index.
#[test]
fn a_durable_put_allocates_a_few_times() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (disk, mut device) = formatted();
    let journal = open(&disk, &mut device);
    let mut run: Task<()> = Box::pin(journal.run());
    let keys: Vec<_> = (0..64).map(|n| format!("/state/bench/keys/{n:023}")).collect();
    // Each key is there, and every queue as long as it gets.
    let mut allocations = |keys: &[String], commits: usize| {
        let region = Region::new(ALLOCATOR);
        for _ in 0..commits {
            let commit: Task<_> = Box::pin(journal.commit(puts(keys)));
            drive(&disk, &mut device, Some(&mut run), commit).expect("there is room");
        }
        let change = region.change();
        (change.allocations + change.reallocations) as f64 / (commits * keys.len()) as f64
    };
    allocations(&keys, 20);
    for (keys, most) in [(&keys[..1], 27.0), (&keys[..], 2.0)] {
        let each = allocations(keys, 100);
        println!("{} puts at once: {each:.1} allocations each", keys.len());
        assert!(each <= most, "{} puts at once: {each:.1} > {most}", keys.len());
    }
}

/// A large value passes through: whatever its length, what is held of it is what some calls bring, and its places in the index.
#[test]
fn a_large_value_is_never_held_whole() {
    const PART_BYTES: usize = 64 << 10;
    const PARTS: usize = 256;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (disk, mut device) = formatted();
    let journal = open(&disk, &mut device);
    let mut run: Task<()> = Box::pin(journal.run());
    let part: Rc<[u8]> = vec![7; PART_BYTES].into();
    let region = Region::new(ALLOCATOR);
    let mut most = 0;
    let mut look = || {
        let change = region.change();
        most = most.max(change.bytes_allocated.saturating_sub(change.bytes_deallocated));
    };
    let mut upload = journal.upload(Origin(1));
    for _ in 0..PARTS {
        let part = part.clone();
        let append: Task<_> = Box::pin(async move { upload.append(&part).await.map(|()| upload) });
        upload = drive(&disk, &mut device, Some(&mut run), append).expect("there is room");
        look();
    }
    let done: Task<_> = Box::pin(async move {
        upload.commit(Rc::from(&b"/state/large"[..]), Precondition::Any, Durability::Durable).await
    });
    drive(&disk, &mut device, Some(&mut run), done).expect("there is room");
    let of = journal.clone();
    let opened: Task<_> = Box::pin(async move { of.open_value(b"/state/large", Origin(1)).await });
    let Opened::Value(mut reader) = drive(&disk, &mut device, Some(&mut run), opened) else {
        panic!("it was written");
    };
    let mut read = 0;
    while read < reader.total_bytes() {
        let piece: Task<_> = Box::pin(async move {
            let piece = reader.read(read).await;
            (reader, piece)
        });
        let (again, piece) = drive(&disk, &mut device, Some(&mut run), piece);
        reader = again;
        let Piece::Bytes(bytes) = piece else { panic!("nothing is damaged") };
        look();
        read += bytes.len() as u64;
    }
    assert_eq!(read, (PARTS * PART_BYTES) as u64);
    println!("{most} bytes at once, of {read}");
    assert!(most < PARTS * PART_BYTES / 8, "{most} bytes at once, of {read}");
}

/// A server of a volume, and one client.
struct Pair {
    server: Server,
    device: MemoryDevice,
    client: Vat,
    id: statefsd::ConnectionId,
}

impl Pair {
    fn new() -> Self {
        let (_, device) = formatted();
        let policy = "
            version = 1
            service.keeper.channel = 'keeper'
            [[grant]]
            to = 'keeper'
            prefix = '/state'
            rights = ['get', 'put']
        ";
        let policy = Policy::parse(policy).expect("a sound policy");
        let mut limits = Limits::default();
        limits.journal.cache_bytes = 0;
        let mut server = Server::new(device.geometry(), policy, [3; 32], limits);
        let peer = Peer { channel: "keeper".into(), uid: None };
        let id = server.connect(peer).expect("the first one");
        let client = Vat::new(None, vat::Limits::default());
        let mut pair = Self { server, device, client, id };
        while !pair.server.wants_input(id) {
            pair.step();
        }
        pair
    }

    fn directory(&self, prefix: &str) -> directory::Client {
        let root: state_fs::Client = self.client.bootstrap();
        let mut open = root.open_request();
        open.get().set_prefix(prefix);
        let mut rights = open.get().init_rights();
        rights.set_get(true);
        rights.set_put(true);
        open.send().pipeline.get_directory()
    }

    /// Lets the server take `bytes` and do what it can without the device.
    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.server.receive(self.id, bytes).expect("it goes on");
            assert!(taken > 0, "it wants input");
            bytes = bytes.get(taken..).unwrap_or_default();
            self.server.poll(0);
        }
    }

    /// Lets the server take all that the client sends at once, and yields how many bytes that is, and how many it holds then.
    fn receive_all(&mut self) -> (usize, usize) {
        let bytes = self.client.take_output();
        assert!(bytes.len() < 2 << 20, "they are let in at the same time");
        let region = Region::new(ALLOCATOR);
        self.receive(&bytes);
        let change = region.change();
        let held = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        println!("{held} bytes are held for {} bytes of calls", bytes.len());
        (bytes.len(), held)
    }

    /// Moves everything often enough for all that the tests ask.
    fn settle(&mut self) {
        for _ in 0..300 {
            self.step();
        }
    }

    fn step(&mut self) {
        let bytes = self.client.take_output();
        self.receive(&bytes);
        self.server.poll(0);
        while let Some(request) = self.server.next_request() {
            self.device.submit(request);
        }
        while let Some(completion) = self.device.completion() {
            self.server.complete(completion);
        }
        let output = self.server.output(self.id).to_vec();
        self.server.sent(self.id, output.len());
        self.client.receive(&output).expect("it goes on");
        while self.client.poll(100) {}
    }
}

/// Each call may ask for many keys with few bytes, and waits while another one is answered: what it asks for is not spread out
/// before it has its turn, for nobody counts that.
#[test]
fn calls_that_wait_hold_little_more_than_their_messages() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = Pair::new();
    let directory = pair.directory(&format!("/state/{}", "d".repeat(240)));
    let mut put = directory.put_request();
    put.get().set_key("k");
    put.get().set_value(&[7; 100]);
    let _put = put.send();
    pair.settle();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let mut request = directory.get_many_request();
            let mut keys = request.get().init_keys(1024);
            keys.set(0, "k");
            (1..1024).for_each(|at| keys.set(at, format!("{at}")));
            request.send()
        })
        .collect();
    let (bytes, held) = pair.receive_all();
    assert!(held < 2 * bytes + (1 << 20), "{held} bytes for {bytes} bytes of calls");
    pair.settle();
    for call in calls {
        let answer = answered(call.promise);
        let entries = answer.get().expect("results").get_entries().expect("entries");
        assert_eq!(entries.len(), 1024);
    }
}

/// A batch with a token that is sent again waits for the first one, and holds no copy of what it brings meanwhile.
#[test]
fn batches_that_wait_for_the_first_hold_little_more_than_their_messages() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = Pair::new();
    let directory = pair.directory("/state");
    pair.settle();
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let mut request = directory.commit_request();
            request.get().set_token(&[7; 16]);
            let mut operations = request.get().init_operations(8);
            for at in 0..8 {
                let mut put = operations.reborrow().get(at);
                put.set_key(format!("k{at}"));
                put.set_put(&[7; 6000]);
            }
            request.send()
        })
        .collect();
    let (bytes, held) = pair.receive_all();
    assert!(held < bytes + bytes / 2, "{held} bytes for {bytes} bytes of calls");
    pair.settle();
    let versions = calls.into_iter().map(|call| {
        let answer = answered(call.promise);
        let Ok(Which::Applied(versions)) = answer.get().expect("results").which() else {
            panic!("it is applied");
        };
        versions.expect("a list").iter().collect::<Vec<_>>()
    });
    let versions: Vec<_> = versions.collect();
    assert!(versions.iter().all(|of| of.len() == 8 && of == &versions[0]), "{versions:?}");
}

/// Yields what a call was answered.
fn answered<T>(promise: impl Future<Output = Result<T, capnp::Error>>) -> T {
    let promise = std::pin::pin!(promise);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match promise.poll(&mut context) {
        std::task::Poll::Ready(answer) => answer.expect("it is no error"),
        std::task::Poll::Pending => panic!("all are answered in the end"),
    }
}
