//! Peers that break the protocol or the manners, many at a time, and a good client beside them.

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastrand::Rng;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use statefs_client::blocking::Directory;
use statefs_client::{Client, Error, Rights};
use statefsd::limits::{
    CONNECTIONS_KEPT, CONNECTIONS_MAX, CONNECTIONS_OF_SERVICE_MAX, MEMORY_BYTES_MAX,
};

use crate::machine::{Machine, PATIENCE};
use crate::openmetrics::read;
use crate::wire::reads;

/// Hostile connections at a time: a few less than one service may have.
const CROWD: usize = 90;

/// What the daemon may need besides what its connections hold.
const REST_BYTES: u64 = 24 << 20;

const POLICY: &str = "version = 1\n[service.any]\nchannel = \"any\"\n[service.crowd]\nchannel = \"crowd\"\n\
                      [[grant]]\nto = \"any\"\nprefix = \"/state\"\nrights = [\"get\", \"put\"]\n\
                      [[grant]]\nto = \"crowd\"\nprefix = \"/state\"\nrights = [\"get\", \"put\"]\n";

#[test]
fn frames_that_break_the_rules_end_their_connection_alone() {
    let mut victim = Victim::new();
    for (name, bytes) in broken_frames() {
        let mut stream = victim.connect();
        stream.write_all(&bytes).unwrap();
        let mut last_words = Vec::new();
        stream.read_to_end(&mut last_words).unwrap();
        assert!(!last_words.is_empty(), "{name}: it is told why");
        victim.serves();
    }
    // Deep, but no deeper than anybody looks.
    let mut stream = victim.connect();
    stream.write_all(&nested(100_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    victim.serves();
    victim.ends_small(REST_BYTES);
}

/// The end of a stream that came with its last bytes has no event of its own.
#[test]
fn a_peer_that_hangs_up_behind_its_bytes_is_let_go() {
    let mut victim = Victim::new();
    let mut stream = victim.connect();
    // It is watched, and all that was to tell of it was told.
    victim.serves();
    victim.machine.freeze();
    stream.write_all(&nested(3)[..20]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    victim.machine.signal(Signal::CONT);
    stream.read_to_end(&mut Vec::new()).unwrap();
    victim.serves();
}

/// A read ends behind bytes that came with descriptors, and what follows them has no event of its own.
#[test]
fn what_follows_descriptors_is_read() {
    let mut victim = Victim::new();
    let mut stream = victim.connect();
    // It is watched, and all that was to tell of it was told.
    victim.serves();
    victim.machine.freeze();
    let call = reads("/state", "large", 1);
    let (head, rest) = call.split_at(8);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [stream.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(&stream, &[IoSlice::new(head)], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(head.len()));
    (&stream).write_all(rest).unwrap();
    victim.machine.signal(Signal::CONT);
    stream.read_exact(&mut [0; 8]).unwrap();
    victim.serves();
}

/// A manager that hears nothing kills the daemon, and a collector that is told nothing raises an alarm.
#[test]
fn peers_that_never_pause_keep_neither_signs_of_life_nor_figures_back() {
    let mut machine = Machine::new(32 << 20, POLICY, &["any", "crowd"]);
    let (manager, metrics) = (machine.path("manager"), machine.path("metrics"));
    machine.option("--metrics", &format!("unix:{}", metrics.display()));
    machine.variable("NOTIFY_SOCKET", manager.to_str().unwrap());
    machine.variable("WATCHDOG_USEC", "20000");
    let manager = UnixDatagram::bind(&manager).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut victim = Victim::of(machine);
    let streams: Vec<UnixStream> = (0..4).map(|_| victim.connect()).collect();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for mut stream in streams {
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    stream.write_all(&finishes(2000)).unwrap();
                }
            });
        }
        // More than the kernel keeps from before.
        let mut signs = 0;
        while signs < 100 {
            let mut words = [0; 256];
            match manager.recv(&mut words) {
                Ok(bytes) => signs += u32::from(words[..bytes].starts_with(b"WATCHDOG=1")),
                Err(error) => {
                    ended.store(true, Ordering::Relaxed);
                    panic!("{signs} signs of life: {error}");
                }
            }
        }
        let mut told = String::new();
        UnixStream::connect(&metrics).unwrap().read_to_string(&mut told).unwrap();
        ended.store(true, Ordering::Relaxed);
        read(&told).unwrap();
    });
    victim.ends_small(REST_BYTES);
}

#[test]
fn random_bytes_and_spoiled_calls_do_no_harm() {
    let mut victim = Victim::new();
    let mut random = Rng::with_seed(5);
    let calls = reads("/state", "large", 20);
    for round in 0..300 {
        let mut bytes = calls.clone();
        match round % 3 {
            0 => random.fill(&mut bytes),
            1 => bytes.truncate(random.usize(..bytes.len())),
            _ => {
                for _ in 0..random.usize(1..20) {
                    let place = random.usize(..bytes.len());
                    bytes[place] = random.u8(..);
                }
            }
        }
        let mut stream = victim.connect();
        // The daemon may hang up in the middle.
        let _rest_unsent = stream.write_all(&bytes);
        if round % 10 == 0 {
            victim.serves();
        }
    }
    victim.serves();
    victim.ends_small(MEMORY_BYTES_MAX as u64 + REST_BYTES);
}

#[test]
fn sizes_that_are_claimed_and_never_sent_take_no_memory() {
    let mut victim = Victim::new();
    // The largest message that is read, and the first part of it.
    let words = (vat::limits::FRAME_BYTES_MAX - 8) / 8;
    let claims = [[0; 4], u32::try_from(words).unwrap().to_le_bytes()].concat();
    assert!((CROWD * words * 8) as u64 > 4 * REST_BYTES, "what is claimed would show");
    let mut held = Vec::new();
    for number in 0..CROWD {
        let mut stream = victim.connect();
        stream.write_all(&claims).unwrap();
        // Half of them go on for a while, and wait in the middle of a word.
        let more = if number % 2 == 0 { 0 } else { 8001 };
        stream.write_all(&vec![1; more]).unwrap();
        held.push(stream);
        victim.serves();
    }
    for bytes in [1, 3, 4, 5, 8, 11] {
        // Half a table of segments, and less.
        let mut stream = victim.connect();
        let table = [[3, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0]].concat();
        stream.write_all(&table[..bytes]).unwrap();
        held.push(stream);
    }
    victim.serves();
    victim.ends_small(REST_BYTES);
}

#[test]
fn clients_that_never_read_are_held_back_and_others_served() {
    let mut victim = Victim::new();
    let calls = reads("/state", "large", 60);
    let mut held = Vec::new();
    for _ in 0..CROWD {
        let stream = victim.connect();
        stream.set_nonblocking(true).unwrap();
        held.push((stream, 0));
    }
    // Together they ask for 340 MiB, and may have 2 MiB each while there is memory for all.
    for _ in 0..20 {
        for (stream, sent) in &mut held {
            while *sent < calls.len() {
                match stream.write(&calls[*sent..]) {
                    Ok(count) => *sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // It stood still while memory was used up.
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                        break;
                    }
                }
            }
        }
        victim.serves();
    }
    // The budget, as much again in shares of it, and a result for each.
    let held_max = 2 * MEMORY_BYTES_MAX + CROWD * 65_536;
    // Who does not read must not keep a shutdown waiting.
    drop(held);
    victim.ends_small(held_max as u64 + REST_BYTES);
}

#[test]
fn connections_beyond_the_limit_are_refused_until_others_end() {
    let mut victim = Victim::new();
    let mut idle = Vec::new();
    // One is the good one, and the last are for services that have none.
    let others = CONNECTIONS_MAX - CONNECTIONS_KEPT - CONNECTIONS_OF_SERVICE_MAX - 1;
    for (channel, count, room) in
        [("crowd", 200, CONNECTIONS_OF_SERVICE_MAX), ("any", 50, others), ("crowd", 10, 0)]
    {
        let clients: Vec<Client> = (0..count).map(|_| victim.machine.connect(channel)).collect();
        victim.serves();
        let (mut served, mut refused) = (0, 0);
        for client in &clients {
            match client.health() {
                Ok(_) => served += 1,
                Err(Error::Disconnected { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((served, refused), (room, count - room), "{channel}");
        idle.push(clients);
    }
    victim.serves();
    drop(idle);
    victim
        .machine
        .until("there is room again", |machine| machine.connect("crowd").health().is_ok());
    victim.ends_small(REST_BYTES);
}

/// A daemon under attack, and a client that has been there before.
struct Victim {
    machine: Machine,
    all: Directory,
    count: u64,
}

impl Victim {
    fn new() -> Self {
        Self::of(Machine::new(32 << 20, POLICY, &["any", "crowd"]))
    }

    fn of(mut machine: Machine) -> Self {
        machine.start();
        let all = machine.connect("any").directory("/state", Rights::ALL);
        all.put("large", &vec![b'v'; 65_536]).unwrap();
        Self { machine, all, count: 0 }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.machine.socket("crowd")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Demands that the good client is served.
    fn serves(&mut self) {
        self.count += 1;
        let value = self.count.to_le_bytes();
        self.all.put("good", &value).unwrap();
        assert_eq!(self.all.get("good").unwrap().unwrap().data, value);
    }

    /// Demands that the daemon never had more memory than this, and ends it.
    fn ends_small(&mut self, bytes_max: u64) {
        let most = self.machine.memory("VmHWM");
        println!("at most {} MiB", most >> 20);
        assert!(most <= bytes_max, "{most} bytes, more than {bytes_max}");
        assert_eq!(self.all.get("large").unwrap().unwrap().bytes, 65_536);
        self.machine.check_health();
        self.machine.stop();
    }
}

fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let too_long = u32::try_from((vat::limits::FRAME_BYTES_MAX - 8) / 8 + 1).unwrap();
    vec![
        ("a length above the limit", words(&[0, too_long])),
        ("the greatest length", words(&[0, u32::MAX])),
        ("17 segments", words(&[16])),
        ("the greatest count of segments", words(&[u32::MAX])),
        ("lengths that overflow", words(&[3, u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0])),
        ("a far pointer to itself", words(&[0, 1, 2, 0])),
        ("a double far pointer to itself", words(&[0, 2, 6, 0, 6, 0])),
        ("a far pointer to no segment", words(&[0, 1, 2, 9])),
        ("two segments that point at each other", words(&[1, 1, 1, 0, 2, 1, 2, 0])),
    ]
}

/// So many messages that nothing comes of: each ends a question that was never asked.
fn finishes(count: usize) -> Vec<u8> {
    let (root, finish, target) = (0x0001_0001_0000_0000_u64, 4_u64, 0x0000_0001_0000_0000_u64);
    let message = [4 << 32, root, finish, target, 7].map(u64::to_le_bytes).concat();
    message.repeat(count)
}

/// A chain of structs, each a pointer to the next.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = [[0; 4], u32::try_from(depth + 1).unwrap().to_le_bytes()].concat();
    for _ in 0..depth {
        bytes.extend(0x0001_0000_0000_0000_u64.to_le_bytes());
    }
    bytes.extend([0; 8]);
    bytes
}
