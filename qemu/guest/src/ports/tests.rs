//! The driver against a console that keeps the specification, and against one that lies.

use std::vec;

use blockdev::virtio::fake::{Fake, Flat, VERSION_1};
use virtio_drivers::transport::DeviceType;

use super::*;

/// A console with its driver, and what became of its ports.
struct Rig {
    fake: Fake,
    ports: Ports<Flat, Fake>,
}

impl Rig {
    fn new(count: u32) -> Self {
        let fake = fake(count);
        let ports = Ports::new(fake.clone()).unwrap();
        Self { fake, ports }
    }

    /// Lets the device say something of a port; tells whether it had room for it.
    fn tell(&self, id: u32, event: u16, value: u16, rest: &[u8]) -> bool {
        let head = [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        self.fill(EVENTS, &[&head, rest].concat())
    }

    /// Lets the device fill a buffer of a queue; tells whether it had one.
    fn fill(&self, queue: u16, bytes: &[u8]) -> bool {
        let mut device = self.fake.0.borrow_mut();
        let Some(chain) = device.next(queue) else { return false };
        let count = chain.fill(bytes);
        device.push(queue, chain.head.into(), count);
        true
    }

    fn events(&mut self) -> Result<Vec<(usize, Event)>> {
        let mut events = Vec::new();
        self.ports.events(|index, event| events.push((index, event)))?;
        Ok(events)
    }
}

fn fake(count: u32) -> Fake {
    let configuration = [[0; 4], count.to_le_bytes(), [0; 4]].concat();
    Fake::of(DeviceType::Console, configuration, Vec::new())
}

fn named(name: &str) -> Event {
    Event::Named(name.into())
}

#[test]
fn bytes_go_both_ways_through_a_port_that_was_added_and_named() {
    let mut rig = Rig::new(3);
    assert!(rig.tell(1, PORT_ADDED, 1, b""));
    assert!(rig.tell(1, PORT_NAME, 1, b"one\0"));
    assert_eq!(rig.events().unwrap(), [(0, named("one"))]);
    assert!(rig.fill(4, b"hello"));
    let mut got = Vec::new();
    assert!(rig.ports.receive(0, |bytes| got.extend_from_slice(bytes)).unwrap());
    assert_eq!(got, b"hello");
    assert!(rig.ports.has_room(0).unwrap());
    rig.ports.send(0, b"and back").unwrap();
    assert_eq!(rig.fake.0.borrow_mut().next(5).unwrap().read(), b"and back");
    // The other port was never added, so it has no buffers.
    assert!(!rig.fill(6, b"early"));
}

#[test]
fn a_console_that_cannot_be_used_is_refused() {
    for spoil in [MULTIPORT, VERSION_1] {
        let fake = fake(3);
        fake.0.borrow_mut().features &= !spoil;
        assert!(Ports::<Flat, Fake>::new(fake).is_err());
    }
    let short = Fake::of(DeviceType::Console, vec![0; 4], Vec::new());
    assert!(Ports::<Flat, Fake>::new(short).is_err());
    for (count, served) in [(0, 0), (1, 0), (2, 1), (17, 16), (31, 16), (u32::MAX, 16)] {
        assert_eq!(Rig::new(count).ports.count(), served, "{count} ports");
    }
}

/// Or the machine would never come to its end.
#[test]
fn a_console_that_does_not_stop_is_not_waited_for() {
    let fake = fake(3);
    let ports = Ports::<Flat, Fake>::new(fake.clone()).unwrap();
    fake.0.borrow_mut().resets = false;
    drop(ports);
    assert!(Ports::<Flat, Fake>::new(fake.clone()).is_err());
}

/// Who is at a port is fixed once, by a name that is one.
#[test]
fn odd_names_name_nobody_and_a_name_never_changes() {
    let mut rig = Rig::new(4);
    let long = [b'a'; NAME_BYTES_MAX + 1];
    for name in [&b""[..], b"\0", b"\0one", &long, &[b'a'; 120], b"\xff\xfe", b"on\xc3"] {
        assert!(rig.tell(1, PORT_NAME, 1, name));
        assert_eq!(rig.events().unwrap(), [], "{name:?}");
    }
    for (name, taken) in [(&b"one"[..], true), (b"two", false), (b"", false)] {
        assert!(rig.tell(1, PORT_NAME, 1, name));
        let expected = if taken { vec![(0, named("one"))] } else { vec![] };
        assert_eq!(rig.events().unwrap(), expected, "{name:?}");
    }
    // Two ports that the owner gave one name to are one service; the longest name is one.
    assert!(rig.tell(2, PORT_NAME, 1, b"one"));
    assert!(rig.tell(3, PORT_NAME, 1, &long[1..]));
    let events = rig.events().unwrap();
    assert_eq!(events[0], (1, named("one")));
    assert!(matches!(&events[1], (2, Event::Named(name)) if name.len() == NAME_BYTES_MAX));
}

#[test]
fn messages_that_are_cut_off_or_of_nothing_change_nothing() {
    let mut rig = Rig::new(3);
    for bytes in 0..8 {
        assert!(rig.fill(EVENTS, &[1; 8][..bytes]));
    }
    for id in [0, 3, 16, u32::MAX] {
        for event in [PORT_ADDED, PORT_NAME, PORT_OPEN] {
            rig.tell(id, event, 1, b"one");
        }
    }
    for event in (0..20).filter(|event| ![PORT_ADDED, PORT_NAME, PORT_OPEN].contains(event)) {
        assert!(rig.tell(1, event, 1, b"one"));
        assert_eq!(rig.events().unwrap(), []);
    }
    assert!(!rig.fill(4, b"nothing added a port"));
}

/// However fast clients come and go, each look tells of a port at most that nobody is there, and there is room again.
#[test]
fn a_storm_of_openings_is_one_change_at_most() {
    let mut rig = Rig::new(3);
    rig.tell(1, PORT_ADDED, 1, b"");
    rig.tell(1, PORT_NAME, 1, b"one");
    rig.events().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut open = false;
    for _ in 0..500 {
        let before = open;
        let mut told = 0;
        loop {
            let now = random.bool();
            if !rig.tell(1, PORT_OPEN, now.into(), b"") {
                break;
            }
            (open, told) = (now, told + 1);
        }
        assert_eq!(told, CONTROL_SLOTS, "all places are there again");
        let expected = if before && !open { vec![(0, Event::Closed)] } else { vec![] };
        assert_eq!(rig.events().unwrap(), expected);
    }
    // To add a port a second time costs nothing.
    for _ in 0..100 {
        rig.tell(1, PORT_ADDED, 1, b"");
        rig.events().unwrap();
    }
    assert_eq!((0..).take_while(|_| rig.fill(4, b"x")).count(), INCOMING_COUNT);
}

/// Whatever a device puts into its rings: the driver goes on or says that it does not, and hands out no more than a buffer.
#[test]
fn random_lies_are_errors_at_worst() {
    let mut refused = 0;
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::new(random.u32(0..6));
        let lying = random.bool();
        for _ in 0..random.usize(1..80) {
            let id = if random.bool() { 1 } else { random.u32(..6) };
            let bytes: Vec<u8> = (0..random.usize(..160)).map(|_| random.u8(..)).collect();
            let queue = random.u16(..14);
            match random.u8(..10) {
                0..4 => drop(rig.tell(id, random.u16(..9), random.u16(..2), b"name")),
                4..7 => drop(rig.fill(queue, &bytes)),
                // Truth of an outgoing queue, and else a lie.
                7 => drop(rig.fill(queue | 1, b"")),
                _ if lying => {
                    let id = if random.bool() { random.u32(..40) } else { random.u32(..) };
                    rig.fake.0.borrow_mut().push(queue, id, random.u32(..));
                }
                _ => {}
            }
            if turn(&mut rig, &bytes).is_err() {
                assert!(lying, "seed {seed}: the truth is refused");
                refused += 1;
                break;
            }
        }
    }
    assert!(refused > 500, "{refused} lies were noticed");
}

/// What a node does with its ports in a turn.
fn turn(rig: &mut Rig, bytes: &[u8]) -> Result {
    let events = rig.events()?;
    assert!(events.len() <= CONTROL_SLOTS + PORTS_MAX as usize);
    for index in 0..rig.ports.count() + 1 {
        rig.ports.receive(index, |bytes| assert!(bytes.len() <= INCOMING_BYTES))?;
        if rig.ports.has_room(index)? {
            rig.ports.send(index, bytes)?;
        }
    }
    Ok(())
}
