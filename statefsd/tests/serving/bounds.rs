//! What nobody can make the server hold.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use policy::{Peer, Policy};
use statefs::{Durability, directory};
use statefsd::{Closed, ConnectionId, Event, Limits, Turn};

use blockdev::MemoryDevice;
use journal::FormatOptions;

use crate::batches::commit;
use crate::rig::{Ask, Device, If, Rig, get, list, look, open, put, version};
use crate::streams::{done, writer};

fn peer() -> Peer {
    Peer { channel: "keeper".into(), uid: None }
}

#[test]
fn one_connection_too_many_is_refused_until_another_ends() {
    let limits = Limits { connections: 3, kept: 0, ..Limits::default() };
    let mut rig = Rig::new(Device::formatted(), limits);
    let ids: Vec<_> = (0..3).map(|_| rig.server.connect(peer()).unwrap()).collect();
    assert!(rig.server.connect(peer()).is_err());
    rig.settle();
    assert!(rig.events.iter().any(|event| matches!(event, Event::Refused { .. })));
    rig.server.close(ids[1]);
    assert!(rig.server.connect(peer()).is_ok());
    assert!(rig.server.connect(peer()).is_err());
}

/// Who is denied everything does not keep those out who are not, and fills no log by coming again.
#[test]
fn strangers_take_few_places_and_few_lines() {
    let mut rig = Rig::new(Device::formatted(), Limits { denials: 5, ..Limits::default() });
    let stranger = || Peer { channel: "elsewhere".into(), uid: Some(7) };
    let ids: Vec<_> = (0..500).filter_map(|_| rig.server.connect(stranger()).ok()).collect();
    assert_eq!(ids.len(), 16);
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "absent");
    rig.server.close(ids[0]);
    assert!(rig.server.connect(stranger()).is_ok());
    // Two segments more than there may be.
    for id in &ids[1..] {
        rig.server.receive(*id, &17_u32.to_le_bytes()).unwrap();
        rig.server.close(*id);
    }
    rig.settle();
    let refused = |event: &&Event| matches!(event, Event::Refused { .. });
    let broken = |event: &&Event| matches!(event, Event::Closed { why: Closed::Protocol(_), .. });
    let count = |rig: &Rig| {
        (rig.events.iter().filter(refused).count(), rig.events.iter().filter(broken).count())
    };
    assert_eq!(count(&rig), (5, 0));
    rig.now = 60_000;
    rig.settle();
    let skipped = rig.events.iter().find_map(|event| match event {
        Event::ConnectionsSkipped { count } => Some(*count),
        _ => None,
    });
    assert_eq!((count(&rig), skipped), ((5, 0), Some(500 - 16 - 5 + 15)));
}

#[test]
fn no_service_takes_the_places_of_the_others() {
    let mut rig = Rig::new(Device::formatted(), Limits::default());
    let mut connect = |channel: &str, count: usize| -> Vec<_> {
        let peer = Peer { channel: channel.into(), uid: Some(7) };
        (0..count).filter_map(|_| rig.server.connect(peer.clone()).ok()).collect()
    };
    let keepers = connect("keeper", 200);
    assert_eq!(keepers.len(), 96);
    let net = connect("net", 200);
    assert_eq!(net.len(), 16);
    assert_eq!(connect("reader", 200).len(), 1);
    assert_eq!(connect("elsewhere", 200).len(), 1);
    assert_eq!(connect("nowhere", 200).len(), 0, "who has no name counts as one service");
    rig.server.close(keepers[0]);
    rig.server.close(keepers[1]);
    rig.server.close(keepers[2]);
    let more = rig.connect("net");
    rig.server.close(rig.clients[more].id);
    rig.connect("keeper");
    assert!(rig.server.connect(peer()).is_err());
}

#[test]
fn the_last_places_are_for_services_that_have_none() {
    use std::fmt::Write as _;

    let mut policy = String::from("version = 1\n");
    for number in 0..20 {
        writeln!(policy, "service.s{number}.channel = 's{number}'").unwrap();
    }
    for (connections, kept) in [(128, 16), (8, 2), (8, 0), (1, 0)] {
        let limits = Limits { connections, kept, ..Limits::default() };
        let mut rig = Rig::new(Device::formatted(), limits);
        rig.server.set_policy(Policy::parse(&policy).unwrap());
        let mut connect = |number: usize| {
            let peer = Peer { channel: format!("s{number}"), uid: Some(7) };
            rig.server.connect(peer).ok()
        };
        let greedy = (0..300).filter(|count| connect(count % 2).is_some()).count();
        assert_eq!(greedy, connections - kept);
        assert_eq!((2..20).filter(|number| connect(*number).is_some()).count(), kept);
        assert!((2..20).all(|number| connect(number).is_none()));
    }
}

/// Connections of a user who had the name before keep it, and are denied everything. They are none of the service's, whose own
/// would else be refused for as long as they stay.
#[test]
fn who_had_a_name_before_takes_no_places_of_who_has_it_now() {
    let mut rig = Rig::new(Device::formatted(), Limits::default());
    let peer = |uid| Peer { channel: "state".into(), uid: Some(uid) };
    let named = |uid| {
        let text = format!("version = 1\nservice.other.uid = 9\nservice.keeper.uid = {uid}");
        Policy::parse(&text).unwrap()
    };
    let connect = |rig: &mut Rig, uid: u32| rig.server.connect(peer(uid)).ok();
    rig.server.set_policy(named(1));
    assert_eq!((0..200).filter(|_| connect(&mut rig, 1).is_some()).count(), 96);
    assert_eq!((0..200).filter(|_| connect(&mut rig, 9).is_some()).count(), 16);
    rig.server.set_policy(named(2));
    assert!(connect(&mut rig, 2).is_some(), "a place was kept for it");
    assert!(connect(&mut rig, 1).is_none(), "who has no name any more is one of those without");
    rig.server.set_policy(named(1));
    assert!(connect(&mut rig, 1).is_none(), "it has as many as it may");
}

/// An open server on a device with room for more than the queue takes.
fn roomy() -> Rig {
    let mut device = Device::blank();
    device.memory = MemoryDevice::new(64 << 20);
    let mut rig = Rig::new(device.format(FormatOptions::default()), Limits::default());
    rig.settle();
    rig
}

/// Has another service put nearly 1 MiB on a device that holds everything back, and lets that go on.
fn others_get_in(rig: &mut Rig) {
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    let value = vec![b'k'; 60_000];
    let durable = Durability::Durable;
    let keys = (0..16).map(|number| format!("k{number}"));
    let puts: Vec<_> = keys.map(|key| put(&all, &key, &value, If::Any, durable)).collect();
    rig.settle();
    rig.device.holds = false;
    for put in puts {
        version(&rig.wait(put).unwrap());
    }
}

/// What is queued counts as its service's until it is written, though nobody waits for it any more.
#[test]
fn calls_that_are_given_up_fill_no_more_than_half_of_the_queue() {
    for durability in [Durability::Durable, Durability::Buffered] {
        let mut rig = roomy();
        let client = rig.connect("net");
        let net = rig.directory(client, "/state/net");
        assert_eq!(rig.wait(get(&net, "k")).unwrap(), "absent");
        rig.device.holds = true;
        let value = vec![b'v'; 60_000];
        let mut refused = 0;
        for _ in 0..120 {
            let answer = rig.wait(put(&net, "k", &value, If::Any, durability));
            refused += usize::from(answer.is_some_and(|it| it.starts_with("OVERLOADED: ")));
        }
        rig.server.close(rig.clients[client].id);
        let client = rig.connect("net");
        let net = rig.directory(client, "/state/net");
        let again = rig.wait(put(&net, "k", &value, If::Any, durability));
        others_get_in(&mut rig);
        assert!(again.is_some_and(|it| it.starts_with("OVERLOADED: ")), "its part is full");
        assert!((20..100).contains(&refused), "{refused} were refused");
        version(&rig.wait(put(&net, "k", &value, If::Any, durability)).unwrap());
    }
}

#[test]
fn uploads_fill_no_more_than_half_of_the_queue() {
    let mut rig = roomy();
    let chunk = vec![b'c'; 60_000];
    let mut writers = Vec::new();
    for number in 0..8 {
        let client = rig.connect("net");
        let net = rig.directory(client, "/state/net");
        let name = |upload| format!("{number}-{upload}");
        writers.extend((0..16).map(|upload| writer(&net, &name(upload), If::Any, 120_000)));
    }
    rig.settle();
    rig.device.holds = true;
    let write = |writer: &statefs::writer::Client| {
        let mut request = writer.write_request();
        request.get().set_chunk(&chunk);
        request.send()
    };
    let calls: Vec<_> = writers.iter().chain(&writers).map(write).collect();
    rig.settle();
    others_get_in(&mut rig);
    for call in calls {
        rig.wait(call).unwrap().unwrap();
    }
    for writer in writers {
        version(&done(&mut rig, &writer));
    }
}

#[test]
fn a_flood_of_denials_leaves_a_bounded_trace() {
    let limits = Limits { denials: 5, events: 20, ..Limits::default() };
    let mut rig = Rig::new(Device::formatted(), limits);
    let client = rig.connect("net");
    let directory = rig.directory(client, "/state/net");
    for number in 0..200 {
        let key = format!("secret/{number}");
        assert_eq!(rig.wait(get(&directory, &key)).unwrap(), "ACCESS_DENIED");
    }
    let denied = rig.events.iter().filter(|event| matches!(event, Event::Denied(_)));
    assert_eq!(denied.count(), 5);
    rig.now = 60_000;
    rig.settle();
    let skipped = rig.events.iter().find_map(|event| match event {
        Event::DenialsSkipped { count } => Some(*count),
        _ => None,
    });
    assert_eq!(skipped, Some(195));
}

#[test]
fn events_that_nobody_takes_are_counted() {
    let limits = Limits { events: 4, ..Limits::default() };
    let mut rig = Rig::new(Device::formatted(), limits);
    for _ in 0..50 {
        let id = rig.server.connect(peer()).unwrap();
        rig.server.close(id);
    }
    rig.settle();
    let lost = rig.events.iter().find_map(|event| match event {
        Event::EventsLost { count } => Some(*count),
        _ => None,
    });
    assert_eq!((rig.events.len(), lost), (6, Some(96)), "the volume opened after the flood");
}

/// A client that asks for large values and reads nothing is held at its limits, and others are
/// served.
#[test]
fn a_reader_that_does_not_read_is_held_back() {
    let mut rig = Rig::open();
    let writer = rig.connect("keeper");
    let all = rig.directory(writer, "/state");
    let value = vec![b'v'; 65_536];
    version(&rig.wait(put(&all, "net/large", &value, If::Any, Durability::Durable)).unwrap());
    let client = rig.connect("net");
    let theirs = rig.directory(client, "/state/net");
    assert_eq!(rig.wait(get(&theirs, "none")).unwrap(), "absent");
    let id = rig.clients[client].id;
    let mut largest = 0;
    let mut taken = 0;
    let mut pending = Vec::new();
    for _ in 0..1000 {
        pending.push(get(&theirs, "large"));
        let bytes = rig.clients[client].vat.take_output();
        taken += rig.server.receive(id, &bytes).unwrap();
        rig.server.poll(0);
        largest = largest.max(rig.server.output(id).len());
    }
    assert!(largest > 65_536, "some were answered");
    assert!(largest <= 4 << 20, "{largest}");
    assert!(taken < 64 * 1000, "the server stopped reading after {taken} bytes");
    assert!(!rig.server.wants_input(id));
    assert_eq!(rig.wait(get(&all, "net/none")).unwrap(), "absent");
}

/// A capability too many ends the connection, also where the answer that held it had to wait: else nobody would look at
/// it again, and its place among the connections would be taken for good.
#[test]
fn who_hoards_capabilities_is_ended_whenever_the_last_one_is_made() {
    for waits in [false, true] {
        let connection = vat::Limits { exports: 3, ..vat::Limits::default() };
        let mut rig = Rig::new(Device::formatted(), Limits { connection, ..Limits::default() });
        let client = rig.connect("keeper");
        let root = rig.root(client);
        let (one, two) = (open(&root, "/state"), open(&root, "/state/net"));
        assert_eq!(rig.wait(get(&one, "k")).unwrap(), "absent");
        assert_eq!(rig.wait(get(&two, "k")).unwrap(), "absent");
        let id = rig.clients[client].id;
        assert!(!rig.server.is_over(id));
        rig.device.holds = waits;
        let _put = put(&one, "k", b"v", If::Any, Durability::Durable);
        // Waits for the caller's own write of the key.
        let mut request = one.reader_request();
        request.get().set_key("k");
        let _reader = request.send();
        rig.settle();
        rig.device.holds = false;
        rig.settle();
        rig.step();
        assert!(rig.clients[client].over, "the client is told");
        assert!(rig.server.is_over(id), "and the driver closes it");
        rig.server.close(id);
        rig.settle();
        let protocol =
            |event: &&Event| matches!(event, Event::Closed { why: Closed::Protocol(_), .. });
        assert_eq!(rig.events.iter().filter(protocol).count(), 1);
    }
}

/// A pass over all keys for a call of a hundred bytes: a buffer full of them must not keep the others waiting for all.
#[test]
fn each_connection_counts_its_keys_once_before_the_others_have_their_turn() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "absent");
    let calls = (0..40).map(|_| Some(all.usage_request().send().promise));
    let mut calls: Vec<_> = calls.collect();
    let (mut steps, mut answered) = (0, 0);
    while answered < calls.len() {
        rig.step();
        steps += 1;
        for call in &mut calls {
            let mut context = Context::from_waker(Waker::noop());
            if call.as_mut().is_some_and(|call| Pin::new(call).poll(&mut context).is_ready()) {
                *call = None;
                answered += 1;
            }
        }
        assert!(answered <= 2 * steps, "{answered} after {steps} turns");
        assert!(steps < 100, "it goes on");
    }
}

/// Nor do several connections of one service, which has as many as it likes.
#[test]
fn each_service_counts_its_keys_once_before_the_others_have_their_turn() {
    let mut rig = Rig::open();
    let client = rig.connect("net");
    let theirs = rig.directory(client, "/state/a-b");
    assert_eq!(rig.wait(look(&theirs, "k", true)).unwrap(), "absent");
    let all: Vec<_> = (0..10)
        .map(|_| {
            let client = rig.connect("keeper");
            rig.directory(client, "/state")
        })
        .collect();
    for one in &all {
        assert_eq!(rig.wait(get(one, "k")).unwrap(), "absent");
    }
    let calls = all.iter().flat_map(|all| (0..4).map(|_| Some(all.usage_request().send().promise)));
    let mut calls: Vec<_> = calls.collect();
    let (mut steps, mut answered) = (0, 0);
    let mut other = std::pin::pin!(theirs.usage_request().send().promise);
    while answered < calls.len() {
        rig.step();
        steps += 1;
        let mut context = Context::from_waker(Waker::noop());
        for call in &mut calls {
            if call.as_mut().is_some_and(|call| Pin::new(call).poll(&mut context).is_ready()) {
                *call = None;
                answered += 1;
            }
        }
        if steps == 3 {
            assert!(other.as_mut().poll(&mut context).is_ready(), "it need not wait for them");
        }
        assert!(answered <= 2 * steps, "{answered} after {steps} turns");
        assert!(steps < 100, "it goes on");
    }
}

/// Who reads nothing holds its own calls back for as long as it likes. They are not answered by a policy of before.
#[test]
fn a_call_that_was_held_back_tells_nothing_that_was_taken_away_meanwhile() {
    type Held = Box<dyn Fn(&directory::Client) -> Pin<Box<dyn Future<Output = String>>>>;
    let list = |keys_only| -> Held {
        Box::new(move |net| {
            let lines = list(net, Ask { keys_only, ..Ask::default() });
            Box::pin(async move { lines.await.join(" ") })
        })
    };
    let calls: [Held; 5] = [
        Box::new(|net| Box::pin(get(net, "k"))),
        Box::new(|net| Box::pin(look(net, "k", true))),
        Box::new(|net| Box::pin(get_many(net, "k"))),
        list(false),
        list(true),
    ];
    for (number, call) in calls.iter().enumerate() {
        let connection = vat::Limits { output_high_water_bytes: 1 << 16, ..vat::Limits::default() };
        let mut rig = Rig::new(Device::formatted(), Limits { connection, ..Limits::default() });
        let (keeper, client) = (rig.connect("keeper"), rig.connect("net"));
        let all = rig.directory(keeper, "/state");
        let root = rig.root(client);
        let net = open(&root, "/state/net");
        assert_eq!(rig.wait(get(&net, "none")).unwrap(), "absent");
        // The call waits for a read before it, that one for a write, and then both for the client to read the rest.
        rig.device.holds = true;
        let _put = put(&net, "own", b"1", If::Any, Durability::Durable);
        let _before = get_many(&net, "own");
        let held = call(&net);
        let _rest: Vec<_> = (0..8).map(|_| root.describe_request().send()).collect();
        rig.clients[client].deaf = true;
        rig.settle();
        rig.device.holds = false;
        rig.settle();
        assert!(!rig.server.wants_input(rig.clients[client].id), "it is held back");
        let text = crate::rig::POLICY.replace(
            "to = \"net\"\nprefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]",
            "to = \"net\"\nprefix = \"/state/net\"\nrights = [\"put\"]",
        );
        rig.server.set_policy(policy::Policy::parse(&text).unwrap());
        let secret = put(&all, "net/k", b"not for net", If::Any, Durability::Durable);
        version(&rig.wait(secret).unwrap());
        rig.clients[client].deaf = false;
        assert_eq!(rig.wait(held).unwrap(), "ACCESS_DENIED", "call {number}");
    }
}

pub(crate) fn get_many(net: &directory::Client, key: &str) -> impl Future<Output = String> + use<> {
    let mut request = net.get_many_request();
    request.get().init_keys(1).set(0, key);
    let answer = request.send().promise;
    async move {
        match answer.await {
            Ok(answer) => format!("{} entries", answer.get().unwrap().get_entries().unwrap().len()),
            Err(error) => error.extra,
        }
    }
}

/// A server of which two connections fill the memory with half messages, and a third one.
fn full_memory() -> (Rig, Vec<ConnectionId>, usize) {
    let limits = Limits { memory_bytes: 1 << 20, connections: 16, kept: 0, ..Limits::default() };
    let mut rig = Rig::new(Device::formatted(), limits);
    rig.settle();
    // The table of one segment of 1 MiB, and the first part of it.
    let mut half = Vec::new();
    half.extend(0_u32.to_le_bytes());
    half.extend(131_072_u32.to_le_bytes());
    half.resize(48 << 10, 0);
    let ids: Vec<_> = (0..2).map(|_| rig.server.connect(peer()).unwrap()).collect();
    let small = rig.connect("keeper");
    let mut fed = 0;
    for _ in 0..20 {
        for id in &ids {
            fed += rig.server.receive(*id, &half).unwrap();
        }
        half[..8].fill(0);
    }
    rig.settle();
    assert!(fed < 20 * 2 * half.len(), "input stopped after {fed} bytes");
    (rig, ids, small)
}

/// Who holds less is served, up to its share.
#[test]
fn a_call_beyond_a_share_of_a_full_memory_is_overloaded() {
    let (mut rig, _, small) = full_memory();
    let directory = rig.directory(small, "/state");
    rig.device.holds = true;
    let value = vec![b'v'; 40_000];
    let first = put(&directory, "k", &value, If::Any, Durability::Durable);
    rig.settle();
    let second = put(&directory, "l", &value, If::Any, Durability::Durable);
    let told = rig.wait(second).expect("it waits for nothing");
    assert!(told.starts_with("OVERLOADED: "), "{told}");
    rig.device.holds = false;
    version(&rig.wait(first).unwrap());
}

/// Who holds more than a share and stands still is ended.
#[test]
fn a_full_memory_ends_who_stands_still_with_most_of_it() {
    let (mut rig, ids, small) = full_memory();
    let root = rig.root(small);
    let directory = open(&root, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "absent", "a small one is served");
    let due = rig.server.poll(0).deadline.expect("the memory is used up");
    rig.now = due;
    rig.settle();
    for id in &ids {
        assert!(rig.server.is_over(*id));
        rig.server.close(*id);
    }
    rig.settle();
    let memory = rig
        .events
        .iter()
        .filter(|event| matches!(event, Event::Closed { why: Closed::Memory, .. }));
    assert_eq!(memory.count(), 2);
}

/// Taking a byte of a megabyte now and then is no reading: who does so would use the memory up for ever, and everybody is told
/// the schema, also who is denied all else.
#[test]
fn who_takes_a_byte_now_and_then_stands_still() {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let mut rig = Rig::new(Device::formatted(), limits);
    rig.settle();
    let mut slow = Vec::new();
    for _ in 0..16 {
        let client = rig.connect("elsewhere");
        let root = rig.root(client);
        rig.settle();
        rig.clients[client].deaf = true;
        let asked: Vec<_> = (0..40).map(|_| root.describe_request().send()).collect();
        slow.push((rig.clients[client].id, asked));
    }
    rig.settle();
    assert!(rig.server.poll(rig.now).deadline.is_some(), "the memory is used up");
    for _ in 0..4 {
        rig.now += 1000;
        slow.iter().for_each(|(id, _)| rig.server.sent(*id, 1));
        rig.step();
    }
    let over = slow.iter().filter(|(id, _)| rig.server.is_over(*id));
    let over: Vec<_> = over.map(|(id, _)| *id).collect();
    assert!(!over.is_empty());
    over.into_iter().for_each(|id| rig.server.close(id));
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let value = vec![b'v'; 50_000];
    let keys: Vec<String> = (0..2).map(|number| format!("k{number}")).collect();
    let operations: Vec<_> = keys.iter().map(|key| (&**key, Some(&*value), If::Any)).collect();
    let told = rig.wait(commit(&all, &operations)).expect("it is read");
    assert!(told.starts_with("applied ["), "{told}");
}

/// While the device takes its time there is nothing to do, and a driver that is told to poll at once does nothing else.
#[test]
fn a_slow_device_is_not_waited_for_by_asking_again_and_again() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let durabilities = [Durability::Durable, Durability::Buffered, Durability::Strict];
    for (index, first) in durabilities.into_iter().enumerate() {
        for second in durabilities {
            let before = put(&all, "k", b"1", If::Any, Durability::Durable);
            version(&rig.wait(before).unwrap());
            rig.device.holds = true;
            let mut answers = Vec::new();
            for (key, durability) in [("a", first), ("b", second)] {
                answers.push(put(&all, key, b"2", If::Any, durability));
                rig.settle();
                rig.now += 60_000;
                rig.settle();
                let Turn { again, deadline } = rig.server.poll(rig.now);
                let idle = !again && deadline.is_none_or(|at| at > rig.now);
                assert!(idle, "{index} {key} {durability:?}: {again}, {deadline:?} at {}", rig.now);
            }
            rig.device.holds = false;
            for answer in answers {
                version(&rig.wait(answer).unwrap());
            }
        }
    }
}

/// Those who read nothing share the memory: results beyond it are not made, and who reads is
/// served.
#[test]
fn results_that_nobody_reads_use_up_the_memory_of_all_and_no_more() {
    let limits = Limits { memory_bytes: 2 << 20, connections: 16, kept: 0, ..Limits::default() };
    let share = limits.memory_bytes / limits.connections;
    let mut rig = Rig::new(Device::formatted(), limits);
    let writer = rig.connect("keeper");
    let all = rig.directory(writer, "/state");
    let value = vec![b'v'; 65_536];
    version(&rig.wait(put(&all, "net/large", &value, If::Any, Durability::Durable)).unwrap());
    let mut greedy = Vec::new();
    for _ in 0..12 {
        let client = rig.connect("net");
        let theirs = rig.directory(client, "/state/net");
        assert_eq!(rig.wait(get(&theirs, "none")).unwrap(), "absent");
        greedy.push((client, theirs));
    }
    let mut pending = Vec::new();
    let mut held = Vec::new();
    for (client, theirs) in &greedy {
        pending.extend((0..30).map(|_| get(theirs, "large")));
        let bytes = rig.clients[*client].vat.take_output();
        let id = rig.clients[*client].id;
        rig.server.receive(id, &bytes).unwrap();
        rig.server.poll(0);
        held.push(rig.server.output(id).len());
    }
    let fair = share + 2 * value.len();
    assert!(held[0] > fair, "there was memory for the first: {held:?}");
    assert!(held[2..].iter().all(|held| *held <= fair), "and a share for the last: {held:?}");
    assert_eq!(rig.wait(get(&all, "net/none")).unwrap(), "absent");
    assert_eq!(rig.wait(get(&all, "net/large")).unwrap().len(), value.len());
}
