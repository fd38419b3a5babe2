//! Devices that fail, volumes that do not open, and ends.

use blockdev::MemoryDevice;
use journal::FormatOptions;
use statefs::Durability;
use statefsd::{Closed, ConnectionId, Event, Limits, Mode};

use crate::rig::{Ask, Device, If, Rig, delete, get, health, list, look, open, put, sync, version};

#[test]
fn nothing_is_answered_before_the_volume_is_open() {
    let mut device = Device::formatted();
    device.holds = true;
    let mut rig = Rig::new(device, Limits::default());
    let client = rig.connect("keeper");
    let root = rig.root(client);
    let directory = open(&root, "/state");
    let written = put(&directory, "k", b"1", If::Any, Durability::Durable);
    let mut healthy = std::pin::pin!(health(&root));
    assert_eq!(rig.wait(healthy.as_mut()), None);
    assert!(rig.clients[client].received.is_empty());
    assert_eq!(rig.server.health().mode, Mode::Opening);
    rig.device.holds = false;
    assert_eq!(rig.wait(healthy).unwrap(), "Healthy 0 ");
    version(&rig.wait(written).unwrap());
    assert!(matches!(rig.events[1], Event::Opened { .. }), "{:?}", rig.events);
}

#[test]
fn a_driver_is_told_when_refused_input_is_wanted() {
    let mut device = Device::formatted();
    device.holds = true;
    let mut rig = Rig::new(device, Limits::default());
    let client = rig.connect("keeper");
    let id = rig.clients[client].id;
    rig.settle();
    assert!(!rig.server.wants_input(id));
    assert_eq!(rig.server.receive(id, b"x"), Ok(0));
    assert_eq!(rig.server.next_touched(), None);
    rig.device.holds = false;
    rig.settle();
    assert_eq!(rig.server.next_touched(), Some(id));
    assert_eq!(rig.server.next_touched(), None);
    assert!(rig.server.wants_input(id));
}

/// Looks at the one connection that a driver has to look at, if one poll more tells of it and no other poll is asked for.
fn is_touched_by_one_poll(rig: &mut Rig, id: ConnectionId) {
    assert!(rig.server.wants_poll(), "nothing else would tell of it");
    let turn = rig.server.poll(rig.now);
    assert!(!turn.again && !rig.server.wants_poll(), "it is asked for once");
    assert_eq!(rig.server.next_touched(), Some(id));
    assert_eq!(rig.server.next_touched(), None);
}

/// A client that reads after long takes at once what was ready, behind the poll: what lies behind it has to become ready too.
#[test]
fn answers_behind_those_that_were_taken_are_sent_without_another_event() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let (id, root) = (rig.clients[client].id, rig.root(client));
    rig.wait(health(&root)).unwrap();
    rig.clients[client].deaf = true;
    let first = health(&root);
    rig.settle();
    let ready = rig.server.output(id).len();
    assert!(ready > 0);
    let second = health(&root);
    rig.settle();
    assert_eq!(rig.server.output(id).len(), ready, "the second one waits behind it");
    while rig.server.next_touched().is_some() {}
    assert!(!rig.server.wants_poll());
    rig.take_output(client);
    assert!(rig.server.output(id).is_empty());
    is_touched_by_one_poll(&mut rig, id);
    rig.take_output(client);
    assert_eq!(rig.wait(first).unwrap(), "Healthy 0 ");
    assert_eq!(rig.wait(second).unwrap(), "Healthy 0 ");
}

/// The same of bytes that were refused while so much waited to be sent.
#[test]
fn refused_input_is_wanted_without_another_event_once_what_waited_was_taken() {
    let connection = vat::Limits { output_high_water_bytes: 1 << 14, ..vat::Limits::default() };
    let mut rig = Rig::new(Device::formatted(), Limits { connection, ..Limits::default() });
    let client = rig.connect("keeper");
    let (id, root) = (rig.clients[client].id, rig.root(client));
    rig.wait(health(&root)).unwrap();
    rig.clients[client].deaf = true;
    let described = root.describe_request().send();
    rig.settle();
    assert!(!rig.server.wants_input(id), "it is to read first");
    while rig.server.next_touched().is_some() {}
    assert!(!rig.server.wants_poll());
    rig.take_output(client);
    is_touched_by_one_poll(&mut rig, id);
    assert!(rig.server.wants_input(id));
    assert!(rig.wait(described.promise).unwrap().is_ok());
}

#[test]
fn a_blank_device_is_told_by_health_and_refuses_the_rest() {
    let mut rig = Rig::new(Device::blank(), Limits::default());
    let client = rig.connect("keeper");
    let root = rig.root(client);
    let told = rig.wait(health(&root)).unwrap();
    assert!(told.starts_with("Failed 0 the device is blank"), "{told}");
    let directory = open(&root, "/state");
    let refused = rig.wait(get(&directory, "k")).unwrap();
    assert!(refused.starts_with("IO_ERROR: the device is blank"), "{refused}");
    let opened = rig.events.iter().any(|event| matches!(event, Event::OpenFailed { .. }));
    assert!(opened, "{:?}", rig.events);
    // Who may do nothing learns nothing either.
    let stranger = rig.connect("elsewhere");
    let root = rig.root(stranger);
    let directory = open(&root, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "ACCESS_DENIED");
}

#[test]
fn a_failed_flush_ends_writing_and_is_never_told_as_success() {
    let mut rig = Rig::open();
    let (client, other) = (rig.connect("keeper"), rig.connect("net"));
    let directory = rig.directory(client, "/state");
    version(&rig.wait(put(&directory, "net/k", b"safe", If::Any, Durability::Durable)).unwrap());
    let buffered = put(&directory, "net/b", b"maybe", If::Any, Durability::Buffered);
    version(&rig.wait(buffered).unwrap());
    rig.device.fails_flush = true;
    let before = (rig.device.flushes, rig.device.written_bytes);
    let written = put(&directory, "net/k", b"lost?", If::Any, Durability::Durable);
    assert_eq!(rig.wait(written).unwrap(), "indeterminate");
    assert_eq!(rig.device.flushes, before.0 + 1, "it is not tried again");
    assert!(rig.device.written_bytes > before.1);
    rig.device.fails_flush = false;
    let ended = (rig.device.flushes, rig.device.written_bytes);
    for _ in 0..2 {
        assert_eq!(rig.wait(sync(&directory)).unwrap(), "indeterminate");
    }
    let refused = put(&directory, "net/k", b"x", If::Any, Durability::Durable);
    let reason = "a flush of the device failed; open the store again";
    assert_eq!(rig.wait(refused).unwrap(), format!("READ_ONLY: {reason}"));
    assert_eq!(rig.wait(get(&directory, "net/k")).unwrap(), "safe");
    let root = rig.root(client);
    assert_eq!(rig.wait(health(&root)).unwrap(), format!("ReadOnly 0 {reason}"));
    let changes = rig.events.iter().filter(|event| matches!(event, Event::ModeChanged { .. }));
    assert_eq!(changes.count(), 1);
    let theirs = rig.directory(other, "/state/net");
    assert_eq!(rig.wait(sync(&theirs)).unwrap(), "durable", "it had written nothing");
    rig.now += 60_000;
    rig.settle();
    rig.server.shut_down();
    rig.settle();
    let asked = (rig.device.flushes, rig.device.written_bytes);
    assert_eq!(
        asked, ended,
        "nothing is flushed or written any more, whatever is asked, and not at the end"
    );
}

/// What had begun when the device failed may be there or not; what waited behind it never was.
#[test]
fn a_failed_write_ends_writing_and_is_never_told_as_success() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let (root, directory) = (rig.root(client), rig.directory(client, "/state"));
    let durable = Durability::Durable;
    version(&rig.wait(put(&directory, "k", b"safe", If::Any, durable)).unwrap());
    rig.device.holds = true;
    let begun = put(&directory, "k", b"lost?", If::Any, durable);
    rig.settle();
    let behind = put(&directory, "b", b"never", If::Any, durable);
    rig.settle();
    rig.device.fails_write = true;
    rig.device.holds = false;
    let before = (rig.device.flushes, rig.device.written_bytes);
    assert_eq!(rig.wait(begun).unwrap(), "indeterminate");
    let reason = "a write to the device failed; open the store again";
    assert_eq!(rig.wait(behind).unwrap(), format!("READ_ONLY: {reason}"));
    // The device is well again, and what it holds is not known.
    rig.device.fails_write = false;
    let refused = put(&directory, "k", b"x", If::Any, durable);
    assert_eq!(rig.wait(refused).unwrap(), format!("READ_ONLY: {reason}"));
    assert_eq!(rig.wait(sync(&directory)).unwrap(), "durable", "nothing of it was buffered");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "safe");
    assert_eq!(rig.wait(health(&root)).unwrap(), format!("ReadOnly 0 {reason}"));
    let changed = rig.events.iter().filter_map(|event| match event {
        Event::ModeChanged { health } => Some((health.mode, &*health.reason)),
        _ => None,
    });
    assert_eq!(changed.collect::<Vec<_>>(), [(Mode::ReadOnly, reason)], "for the log");
    rig.now += 60_000;
    rig.settle();
    assert_eq!((rig.device.flushes, rig.device.written_bytes), before, "it is not tried again");
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let (root, directory) = (rig.root(client), rig.directory(client, "/state"));
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "safe", "no write had reached it");
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "absent");
    version(&rig.wait(put(&directory, "k", b"x", If::Any, durable)).unwrap());
}

/// What the device does not read may be there, so it is no loss; that it is so is told until the volume is opened anew.
#[test]
fn a_value_that_the_device_does_not_read_degrades_and_is_not_called_lost() {
    let mut limits = Limits::default();
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(Device::formatted(), limits);
    let client = rig.connect("keeper");
    let (root, directory) = (rig.root(client), rig.directory(client, "/state"));
    version(&rig.wait(put(&directory, "k", b"safe", If::Any, Durability::Durable)).unwrap());
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
    rig.device.fails_read = true;
    let unread = rig.wait(get(&directory, "k")).unwrap();
    assert!(unread.starts_with("IO_ERROR: "), "{unread}");
    rig.device.fails_read = false;
    for _ in 0..2 {
        let told = rig.wait(health(&root)).unwrap();
        let reason = "reads found damaged copies, or none that the device reads; check the device";
        assert!(told.starts_with("Degraded 0 ") && told.contains(reason), "{told}");
        assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "safe");
    }
    let degraded = rig.events.iter().any(
        |event| matches!(event, Event::ModeChanged { health } if health.mode == Mode::Degraded),
    );
    assert!(degraded, "{:?}", rig.events);
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let root = rig.root(client);
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
}

/// A volume of which half is damaged values. They hold their segments, so that cleaning gains less than
/// was counted on when writes were admitted.
pub(crate) fn full_of_damage() -> Rig {
    let mut device = Device::blank();
    device.memory = MemoryDevice::new(2 << 20);
    let mut limits = Limits::default();
    // What is moved comes from the device.
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(device.format(FormatOptions::default()), limits);
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let value = b"the-marked-value".repeat(100);
    let mut count = 0;
    loop {
        let key = format!("full/{count}");
        let written = put(&directory, &key, &value, If::Any, Durability::Durable);
        if rig.wait(written).unwrap().starts_with("NO_SPACE") {
            break;
        }
        count += 1;
    }
    let mut bytes = std::mem::replace(&mut rig.device.memory, MemoryDevice::new(0)).into_bytes();
    let marked = b"the-marked-value";
    let mut at = 0;
    while let Some(bytes) = bytes.get_mut(at..at + marked.len()) {
        if bytes == marked {
            bytes.fill(b'?');
        }
        at += 1;
    }
    rig.device.memory = MemoryDevice::from_bytes(bytes);
    for number in (0..count).step_by(2) {
        rig.wait(delete(&directory, &format!("full/{number}"), If::Any)).unwrap();
    }
    rig
}

#[test]
fn every_connection_learns_once_that_its_buffered_writes_were_lost() {
    let mut rig = full_of_damage();
    let clients = ["one", "two", "three"].map(|name| {
        let client = rig.connect("keeper");
        (name, rig.directory(client, "/state"))
    });
    let [one, two, three] = &clients;
    // What the third one wrote is durable before any of it is lost.
    version(&rig.wait(put(&three.1, "three", b"x", If::Any, Durability::Buffered)).unwrap());
    assert_eq!(rig.wait(sync(&three.1)).unwrap(), "durable");
    let (mut taken, mut seen) = (0, Vec::new());
    for number in 0..2000 {
        for (name, directory) in [one, two] {
            let key = format!("{name}/{number}");
            let written = put(directory, &key, &[b'v'; 1000], If::Any, Durability::Buffered);
            let answer = rig.wait(written).unwrap();
            if answer.starts_with("version") {
                taken += 1;
                seen.push((name, directory, key));
            }
        }
        // Nobody asks for it, and it is written all the same.
        rig.now += 60;
        rig.settle();
        let lost = |rig: &mut Rig| {
            let (_, directory, key) = seen.last().unwrap();
            rig.wait(get(directory, key)).unwrap() == "absent"
        };
        if lost(&mut rig) {
            break;
        }
    }
    assert!(taken > 2, "some are durable");
    for (name, directory) in [one, two] {
        assert_eq!(rig.wait(sync(directory)).unwrap(), "indeterminate", "{name}");
    }
    let root = rig.connect("keeper");
    let root = rig.root(root);
    assert!(!rig.wait(health(&root)).unwrap().starts_with("ReadOnly"), "it goes on");
    for (name, directory) in &clients {
        assert_eq!(rig.wait(sync(directory)).unwrap(), "durable", "{name}");
    }
}

#[test]
fn a_sync_that_waits_while_they_are_lost_is_not_told_again() {
    let mut rig = full_of_damage();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    for number in 0.. {
        let key = format!("one/{number}");
        let written = put(&directory, &key, &[b'v'; 1000], If::Any, Durability::Buffered);
        version(&rig.wait(written).unwrap());
        if rig.wait(sync(&directory)).unwrap() == "indeterminate" {
            assert_eq!(rig.wait(get(&directory, &key)).unwrap(), "absent");
            break;
        }
    }
    assert_eq!(rig.wait(sync(&directory)).unwrap(), "durable");
}

#[test]
fn damage_that_a_read_found_is_judged_until_it_is_written_over() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let durable = Durability::Durable;
    for value in [&b"the-marked-value"[..], b"other"] {
        let key = if value == b"other" { "o" } else { "k" };
        version(&rig.wait(put(&directory, key, value, If::Any, durable)).unwrap());
    }
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let seen = rig.wait(put(&directory, "k", b"x", If::Absent, durable)).unwrap();
    let known = seen.strip_prefix("conflict ").unwrap().parse().unwrap();

    assert_eq!(rig.device.damage(b"the-marked-value"), 2, "two copies");
    assert_eq!(rig.wait(look(&directory, "k", true)).unwrap(), "16 bytes", "nobody has read it");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "data loss");
    assert_eq!(rig.wait(look(&directory, "k", true)).unwrap(), "data loss");
    let names = Ask { keys_only: true, ..Ask::default() };
    assert_eq!(rig.wait(list(&directory, names)).unwrap(), ["k lost", "o", "damaged"]);
    for precondition in [If::Absent, If::Version(known), If::Version(1)] {
        let written = rig.wait(put(&directory, "k", b"x", precondition, durable)).unwrap();
        assert_eq!(written, "data loss");
        assert_eq!(rig.wait(delete(&directory, "k", precondition)).unwrap(), "data loss");
    }
    let root = rig.root(client);
    assert!(rig.wait(health(&root)).unwrap().starts_with("Degraded 1 1 values cannot be read"));

    // What is judged by a write that is on its way is not judged by the damage.
    let written = put(&directory, "k", b"new", If::Any, durable);
    let refused = put(&directory, "k", b"x", If::Absent, durable);
    let now = version(&rig.wait(written).unwrap());
    assert_eq!(rig.wait(refused).unwrap(), format!("conflict {now}"));
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "new");
    version(&rig.wait(put(&directory, "k", b"newer", If::Version(now), durable)).unwrap());
    assert_eq!(rig.wait(list(&directory, names)).unwrap(), ["k", "o"]);
    assert!(rig.wait(health(&root)).unwrap().starts_with("Degraded 0 "));
}

#[test]
fn bytes_that_are_no_messages_end_their_connection_alone() {
    let mut rig = Rig::open();
    let (bad, good) = (rig.connect("net"), rig.connect("keeper"));
    rig.settle();
    let id = rig.clients[bad].id;
    rig.clients[bad].outbox = vec![0xff; 64];
    rig.settle();
    assert!(rig.server.is_over(id) && !rig.server.wants_input(id));
    assert!(rig.clients[bad].over, "the client was told");
    assert_eq!(rig.server.next_touched(), Some(id));
    rig.server.close(id);
    rig.settle();
    let closed = rig.events.iter().any(|event| {
        matches!(event, Event::Closed { connection, why: Closed::Protocol(_) } if *connection == id)
    });
    assert!(closed, "{:?}", rig.events);
    let directory = rig.directory(good, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "absent");
}

#[test]
fn a_shutdown_answers_what_runs_and_makes_durable_what_was_buffered() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let buffered = put(&directory, "b", b"soon", If::Any, Durability::Buffered);
    version(&rig.wait(buffered).unwrap());
    rig.device.holds = true;
    let mut written = std::pin::pin!(put(&directory, "k", b"1", If::Any, Durability::Durable));
    assert_eq!(rig.wait(written.as_mut()), None);
    rig.server.shut_down();
    let mut late = std::pin::pin!(get(&directory, "b"));
    assert_eq!(rig.wait(late.as_mut()), None, "nothing more is let in");
    assert!(rig.server.connect(policy::Peer { channel: "net".into(), uid: None }).is_err());
    assert!(!rig.server.is_drained() && !rig.server.is_synced());
    // However slow the device is, who reads its answers gets them.
    rig.now += 60_000;
    rig.settle();
    assert!(!rig.server.is_drained() && !rig.server.is_synced());
    rig.device.holds = false;
    version(&rig.wait(written).unwrap());
    assert_eq!(rig.wait(late), None);
    assert!(rig.server.is_drained());
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "soon");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
}

#[test]
fn a_write_outlives_the_connection_that_began_it() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.device.holds = true;
    let mut written = std::pin::pin!(put(&directory, "k", b"1", If::Any, Durability::Durable));
    assert_eq!(rig.wait(written.as_mut()), None);
    let id = rig.clients[client].id;
    rig.server.close(id);
    rig.device.holds = false;
    rig.settle();
    let other = rig.connect("keeper");
    let directory = rig.directory(other, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
}

/// The device answers nothing, and who reads goes away and comes again: what was read for it takes no more and more memory.
#[test]
fn reads_that_are_given_up_hold_bounded_memory() {
    let mut rig = Rig::new(Device::formatted(), Limits::default());
    let client = rig.connect("net");
    let net = rig.directory(client, "/state/net");
    let value = [b'v'; 60_000];
    version(&rig.wait(put(&net, "k", &value, If::Any, Durability::Durable)).unwrap());
    let mut rig = rig.restart();
    rig.settle();
    rig.device.holds = true;
    for _ in 0..40 {
        let client = rig.connect("net");
        let net = rig.directory(client, "/state/net");
        for _ in 0..10 {
            let given_up = Box::pin(get(&net, "k"));
            rig.settle();
            drop(given_up);
            rig.settle();
        }
        rig.server.close(rig.clients[client].id);
    }
    let held = rig.device.held_bytes();
    assert!((value.len()..2_000_000).contains(&held), "{held} bytes wait for nobody");
    let client = rig.connect("keeper");
    let keeper = rig.directory(client, "/state");
    let read = Box::pin(get(&keeper, "net/k"));
    rig.settle();
    rig.device.holds = false;
    assert_eq!(rig.wait(read).unwrap().len(), value.len());
}
