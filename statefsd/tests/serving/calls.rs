//! What calls answer while all is well.

use std::pin::Pin;

use capnp::any_pointer;
use capnp::traits::HasTypeId as _;
use statefs::{Durability, directory};
use statefsd::Event;

use crate::rig::{Ask, If, Rig, delete, get, health, list, look, open, put, sync, version};
use crate::streams;

const DURABLE: Durability = Durability::Durable;
const BUFFERED: Durability = Durability::Buffered;
const STRICT: Durability = Durability::Strict;

#[test]
fn hello_tells_who_one_is_and_what_the_limits_are() {
    let mut rig = Rig::open();
    let client = rig.connect("net");
    let root = rig.root(client);
    let mut request = root.hello_request();
    request.get().set_protocol(7);
    request.get().set_client_name("shell\u{7} 1.0");
    let answer = rig.wait(request.send().promise).unwrap().unwrap();
    let hello = answer.get().unwrap();
    assert_eq!(hello.get_protocol(), statefs::PROTOCOL);
    assert_eq!(hello.get_service_name().unwrap(), "net");
    assert!(hello.get_software_version().unwrap().to_str().unwrap().starts_with("statefsd "));
    let limits = hello.get_limits().unwrap();
    assert_eq!((limits.get_key_bytes(), limits.get_value_bytes()), (255, 65_536));
    assert_eq!((limits.get_reply_bytes(), limits.get_list_entries()), (1 << 20, 1024));
    assert_eq!((limits.get_calls(), limits.get_connections()), (64, 128));
    let told = rig
        .events
        .iter()
        .any(|event| matches!(event, Event::Hello { client, .. } if client == "shell\\u{7} 1.0"));
    assert!(told, "{:?}", rig.events);

    let error = rig.wait(root.hello_request().send().promise).unwrap().err().unwrap();
    assert_eq!(error.extra, "INVALID_ARGUMENT: there is no protocol 0");
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
}

#[test]
fn a_stranger_may_say_hello_and_nothing_else() {
    let mut rig = Rig::open();
    let client = rig.connect("elsewhere");
    let root = rig.root(client);
    let mut request = root.hello_request();
    request.get().set_protocol(1);
    let answer = rig.wait(request.send().promise).unwrap().unwrap();
    assert_eq!(answer.get().unwrap().get_service_name().unwrap(), "");
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
    let directory = open(&root, "/state");
    assert_eq!(rig.wait(get(&directory, "a")).unwrap(), "ACCESS_DENIED");
    let denied = rig.events.iter().find_map(|event| match event {
        Event::Denied(denied) => Some(denied),
        _ => None,
    });
    let denied = denied.expect("denials are told");
    assert_eq!((&denied.service, denied.path.as_str()), (&None, "/state"));
    assert!(denied.reason.contains("\"elsewhere\" with uid 1000"), "{}", denied.reason);
}

#[test]
fn a_whole_conversation_fits_into_one_batch_of_bytes() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let written = put(&directory, "net/ssid", b"home", If::Any, DURABLE);
    let read = get(&directory, "net/ssid");
    rig.settle();
    version(&rig.wait(written).unwrap());
    assert_eq!(rig.wait(read).unwrap(), "home");
    assert_eq!(rig.wait(look(&directory, "net/ssid", true)).unwrap(), "4 bytes");
    assert_eq!(rig.wait(get(&directory, "net")).unwrap(), "absent");

    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state/net");
    assert_eq!(rig.wait(get(&directory, "ssid")).unwrap(), "home");
}

#[test]
fn preconditions_hold_or_tell_what_is_there() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let mut put = |value: &[u8], precondition| {
        rig.wait(put(&directory, "k", value, precondition, DURABLE)).unwrap()
    };
    assert_eq!(put(b"x", If::Version(5)), "conflict absent");
    assert_eq!(put(b"x", If::Version(0)), "conflict absent");
    let first = version(&put(b"1", If::Absent));
    assert_eq!(put(b"x", If::Absent), format!("conflict {first}"));
    let second = version(&put(b"2", If::Version(first)));
    assert_ne!(first, second);
    assert_eq!(put(b"x", If::Version(first)), format!("conflict {second}"));
    let mut delete = |precondition| rig.wait(delete(&directory, "k", precondition)).unwrap();
    assert_eq!(delete(If::Absent), format!("conflict {second}"));
    assert_eq!(delete(If::Version(first)), format!("conflict {second}"));
    assert_eq!(delete(If::Version(second)), "deleted");
    assert_eq!(delete(If::Version(second)), "conflict absent");
    assert_eq!(delete(If::Any), "absent");
    assert_eq!(delete(If::Absent), "absent");
}

#[test]
fn a_precondition_needs_the_right_to_read() {
    let text = crate::rig::POLICY.replace(
        "prefix = \"/state/net\"\nrights = [\"list\"]",
        "prefix = \"/state/net\"\nrights = [\"put\", \"delete\"]",
    );
    let mut rig = Rig::open();
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let client = rig.connect("reader");
    let directory = rig.directory(client, "/state/net");
    version(&rig.wait(put(&directory, "k", b"1", If::Any, DURABLE)).unwrap());
    let denied = rig.wait(put(&directory, "k", b"1", If::Absent, DURABLE)).unwrap();
    assert_eq!(denied, "ACCESS_DENIED");
    assert_eq!(rig.wait(delete(&directory, "k", If::Version(1))).unwrap(), "ACCESS_DENIED");
    assert_eq!(rig.wait(delete(&directory, "k", If::Any)).unwrap(), "deleted");
}

#[test]
fn keys_and_values_are_refused_by_name() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    for (key, code) in [
        ("", "INVALID_KEY: "),
        ("/a", "INVALID_KEY: "),
        ("a//b", "INVALID_KEY: "),
        ("a/", "INVALID_KEY: "),
        ("a/../b", "INVALID_KEY: "),
        ("a\nb", "INVALID_KEY: "),
        (&"k".repeat(249), "KEY_TOO_LONG: "),
    ] {
        let answer = rig.wait(get(&directory, key)).unwrap();
        assert!(answer.starts_with(code), "{key:?}: {answer}");
    }
    let large = vec![0; 65_537];
    let answer = rig.wait(put(&directory, "k", &large, If::Any, DURABLE)).unwrap();
    assert_eq!(answer, "VALUE_TOO_LARGE: 65537 bytes, the limit is 65536");
    version(&rig.wait(put(&directory, "k", &large[1..], If::Any, DURABLE)).unwrap());
    let longest = "k".repeat(248);
    version(&rig.wait(put(&directory, &longest, b"", If::Any, DURABLE)).unwrap());
    assert_eq!(rig.wait(look(&directory, &longest, true)).unwrap(), "0 bytes");
    let root = rig.root(client);
    let elsewhere = open(&root, "/etc");
    assert!(rig.wait(get(&elsewhere, "k")).unwrap().starts_with("INVALID_KEY: "));
}

#[test]
fn a_denial_is_the_same_bytes_whatever_the_key_has() {
    let mut rig = Rig::open();
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    version(&rig.wait(put(&all, "net/there", b"secret", If::Any, DURABLE)).unwrap());
    version(&rig.wait(put(&all, "net/harmed", b"secret", If::Any, DURABLE)).unwrap());
    let mut rig = rig.restart();
    let medium = rig.device.memory.bytes_mut();
    let places = medium.windows(10).enumerate().filter(|(_, bytes)| bytes == b"net/harmed");
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert_eq!(places.len(), 4, "two copies of it, and of the record that it was written");
    rig.settle();
    for at in places {
        rig.device.memory.bytes_mut()[at] ^= 0x20;
    }
    let mut replies = Vec::new();
    for key in ["there", "gone", "harmed"] {
        let client = rig.connect("reader");
        let directory = rig.directory(client, "/state/net");
        assert_eq!(rig.wait(get(&directory, key)).unwrap(), "ACCESS_DENIED");
        let conditional = put(&directory, key, b"x", If::Absent, DURABLE);
        assert_eq!(rig.wait(conditional).unwrap(), "ACCESS_DENIED");
        assert_eq!(rig.wait(delete(&directory, key, If::Any)).unwrap(), "ACCESS_DENIED");
        replies.push(std::mem::take(&mut rig.clients[client].received));
    }
    assert!(!replies[0].is_empty());
    assert_eq!(replies[0], replies[1]);
    assert_eq!(replies[0], replies[2]);
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    assert_eq!(rig.wait(get(&all, "net/harmed")).unwrap(), "data loss");
    let root = rig.root(keeper);
    assert!(rig.wait(health(&root)).unwrap().starts_with("Degraded 1 1 values cannot be read"));
    let page = rig.wait(list(&all, Ask { prefix: "net", ..Ask::default() })).unwrap();
    assert_eq!(page, ["net/harmed lost", "net/there=secret", "damaged"]);
    version(&rig.wait(put(&all, "net/harmed", b"whole", If::Any, DURABLE)).unwrap());
    assert_eq!(rig.wait(get(&all, "net/harmed")).unwrap(), "whole");
}

#[test]
fn opening_takes_some_right_somewhere_below() {
    let mut rig = Rig::open();
    for (channel, prefix, opens) in [
        ("net", "/state", true),
        ("net", "/state/net/deep/er", true),
        ("net", "/state/boot", false),
        ("net", "/state/net/secret", false),
        ("reader", "/state/a-b", false),
        ("keeper", "/state/net/secret", true),
    ] {
        let client = rig.connect(channel);
        let root = rig.root(client);
        let mut request = root.open_request();
        request.get().set_prefix(prefix);
        request.get().init_rights().set_delete(true);
        let answer = rig.wait(request.send().promise).unwrap();
        match answer {
            Ok(answer) => assert!(opens && answer.get().unwrap().has_directory(), "{prefix}"),
            Err(error) => assert!(!opens && error.extra == "ACCESS_DENIED", "{prefix} {error}"),
        }
    }
}

#[test]
fn another_policy_counts_at_once_for_capabilities_that_are_held() {
    let mut rig = Rig::open();
    let client = rig.connect("net");
    let directory = rig.directory(client, "/state/net");
    version(&rig.wait(put(&directory, "k", b"1", If::Any, DURABLE)).unwrap());
    let text = crate::rig::POLICY.replace(r#"["get", "list", "put"]"#, r#"["get", "list"]"#);
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let denied = rig.wait(put(&directory, "k", b"2", If::Any, DURABLE)).unwrap();
    assert_eq!(denied, "ACCESS_DENIED");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
    // One that cannot be loaded changes nothing but health, until one can.
    let root = rig.root(client);
    rig.server.keep_policy("it cannot be read".into());
    let told = rig.wait(health(&root)).unwrap();
    assert!(told.starts_with("Degraded 0 the policy file cannot be loaded"), "{told}");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
    rig.server.set_policy(policy::Policy::deny_all());
    assert_eq!(rig.wait(health(&root)).unwrap(), "Healthy 0 ");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "ACCESS_DENIED");
}

#[test]
fn a_read_waits_for_the_own_write_and_nobody_sees_what_may_vanish() {
    let mut rig = Rig::open();
    let (writer, other) = (rig.connect("keeper"), rig.connect("net"));
    let (mine, theirs) = (rig.directory(writer, "/state"), rig.directory(other, "/state"));
    version(&rig.wait(put(&mine, "net/k", b"old", If::Any, DURABLE)).unwrap());
    rig.device.holds = true;
    let written = put(&mine, "net/k", b"new", If::Any, DURABLE);
    let (read, looked) = (get(&mine, "net/k"), get(&mine, "net/other"));
    let mut read = std::pin::pin!(read);
    assert_eq!(rig.wait(read.as_mut()), None, "the write is not decided");
    assert_eq!(rig.wait(looked).unwrap(), "absent", "another key waits for nothing");
    assert_eq!(rig.wait(get(&theirs, "net/k")).unwrap(), "old");
    rig.device.holds = false;
    assert_eq!(rig.wait(read).unwrap(), "new");
    version(&rig.wait(written).unwrap());
    assert_eq!(rig.wait(get(&theirs, "net/k")).unwrap(), "new");
}

#[test]
fn a_read_between_two_own_writes_shows_the_first() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let mine = rig.directory(client, "/state");
    // Pipelined, so that both writes may share a group and become durable together.
    let first = put(&mine, "k", b"first", If::Any, DURABLE);
    let between = get(&mine, "k");
    let second = put(&mine, "k", b"second", If::Any, DURABLE);
    assert_eq!(rig.wait(between).unwrap(), "first");
    version(&rig.wait(first).unwrap());
    version(&rig.wait(second).unwrap());
    assert_eq!(rig.wait(get(&mine, "k")).unwrap(), "second");
}

/// A read may wait for room that others take; what is written behind it waits for it, and what reads behind that too.
#[test]
fn reads_that_wait_for_room_show_what_was_written_before_them_alone() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let mine = rig.directory(client, "/state");
    for (later, expected) in
        [("put", "6 bytes"), ("delete", "absent"), ("commit", "absent"), ("writer", "0 bytes")]
    {
        version(&rig.wait(put(&mine, "k", b"first", If::Any, DURABLE)).unwrap());
        rig.device.holds = true;
        let before = put(&mine, "x", b"1", If::Any, DURABLE);
        let _list = list(&mine, Ask::default());
        let read = get(&mine, "k");
        let written: Pin<Box<dyn Future<Output = String>>> = match later {
            "put" => Box::pin(put(&mine, "k", b"second", If::Any, DURABLE)),
            "delete" => Box::pin(delete(&mine, "k", If::Any)),
            "commit" => Box::pin(crate::batches::commit(&mine, &[("k", None, If::Any)])),
            _ => {
                let done = streams::writer(&mine, "k", If::Any, 0).done_request().send();
                Box::pin(
                    async move { done.promise.await.err().map_or("done".into(), |it| it.extra) },
                )
            }
        };
        // The place of a writer's end is when it is answered.
        let behind = (later != "writer").then(|| streams::reader(&mine, "k"));
        rig.settle();
        rig.device.holds = false;
        assert_eq!(rig.wait(read).unwrap(), "first", "{later}");
        version(&rig.wait(before).unwrap());
        let written = rig.wait(written).expect("it waits no longer");
        assert!(
            ["version ", "deleted", "applied ", "done"].iter().any(|it| written.starts_with(it)),
            "{written}"
        );
        let behind = behind.unwrap_or_else(|| streams::reader(&mine, "k"));
        assert_eq!(streams::info(&mut rig, &behind), expected, "{later}");
    }
}

/// The end of a writer may have to wait, too. What is sent behind it is no part of the value, and takes nothing from it.
#[test]
fn what_comes_behind_the_end_of_a_writer_leaves_the_value_as_it_is() {
    for late in [&b"late"[..], &[0; 65_537]] {
        let mut rig = Rig::open();
        let client = rig.connect("keeper");
        let mine = rig.directory(client, "/state");
        let writer = streams::writer(&mine, "k", If::Any, 0);
        assert_eq!(streams::write(&mut rig, &writer, b"whole"), "");
        rig.device.holds = true;
        let _put = put(&mine, "x", b"1", If::Any, DURABLE);
        let _list = list(&mine, Ask::default());
        let _read = get(&mine, "k");
        let done = writer.done_request().send().promise;
        let mut request = writer.write_request();
        request.get().set_chunk(late);
        let late = request.send();
        rig.settle();
        rig.device.holds = false;
        let refused = rig.wait(late).unwrap().unwrap_err().extra;
        assert!(refused.starts_with("INVALID_ARGUMENT: the writer is over"), "{refused}");
        let done = rig.wait(done).unwrap().map(drop).map_err(|error| error.extra);
        assert_eq!(done, Ok(()));
        assert_eq!(rig.wait(get(&mine, "k")).unwrap(), "whole");
    }
}

#[test]
fn a_read_behind_an_own_buffered_write_shows_it_and_not_what_comes_later() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let mine = rig.directory(client, "/state");
    let durable = put(&mine, "k", b"first", If::Any, DURABLE);
    let buffered = put(&mine, "k", b"second", If::Any, BUFFERED);
    let between = get(&mine, "k");
    // May become durable together with the first.
    let deleted = delete(&mine, "k", If::Any);
    assert_eq!(rig.wait(between).unwrap(), "second");
    version(&rig.wait(durable).unwrap());
    version(&rig.wait(buffered).unwrap());
    assert_eq!(rig.wait(deleted).unwrap(), "deleted");
    assert_eq!(rig.wait(get(&mine, "k")).unwrap(), "absent");
}

#[test]
fn buffered_writes_are_seen_at_once_and_sync_is_their_barrier() {
    let mut rig = Rig::open();
    let (writer, other) = (rig.connect("keeper"), rig.connect("net"));
    let (mine, theirs) = (rig.directory(writer, "/state"), rig.directory(other, "/state"));
    assert_eq!(rig.wait(sync(&mine)).unwrap(), "durable", "nothing to wait for");
    rig.device.holds = true;
    version(&rig.wait(put(&mine, "net/k", b"soon", If::Any, BUFFERED)).unwrap());
    assert_eq!(rig.wait(get(&theirs, "net/k")).unwrap(), "soon");
    assert_eq!(rig.wait(sync(&theirs)).unwrap(), "durable", "of its own writes: none");
    let mut synced = std::pin::pin!(sync(&mine));
    assert_eq!(rig.wait(synced.as_mut()), None);
    rig.device.holds = false;
    assert_eq!(rig.wait(synced).unwrap(), "durable");
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "net/k")).unwrap(), "soon");
}

#[test]
fn a_strict_write_is_answered_after_a_second_flush() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    version(&rig.wait(put(&directory, "k", b"kept", If::Any, STRICT)).unwrap());
    assert_eq!(rig.server.poll(rig.now).deadline, None, "no watermark is owed any more");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "kept");
}

#[test]
fn buffered_writes_become_durable_by_themselves() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    version(&rig.wait(put(&directory, "k", b"soon", If::Any, BUFFERED)).unwrap());
    let deadline = rig.server.poll(rig.now).deadline.expect("something is due");
    assert!((1..=1000).contains(&deadline), "{deadline}");
    rig.now = deadline;
    rig.settle();
    // Then a watermark, and nothing more.
    let watermark = rig.server.poll(rig.now).deadline.expect("a watermark is due");
    assert!(watermark > deadline, "{watermark}");
    rig.now = watermark;
    rig.settle();
    assert_eq!(rig.server.poll(rig.now).deadline, None);
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "soon");
}

/// A client of a newer schema has to learn that nothing happened.
#[test]
fn a_method_that_nobody_knows_is_answered_with_its_code() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    for (interface, method) in [(directory::Client::TYPE_ID, 99), (7, 0)] {
        let call: capnp::capability::Request<any_pointer::Owned, any_pointer::Owned> =
            all.client.new_call(interface, method, None);
        let error = rig.wait(call.send().promise).unwrap().err().unwrap();
        assert_eq!(error.kind, capnp::ErrorKind::Unimplemented);
        assert_eq!(error.extra, "UNIMPLEMENTED: this server has no such method");
    }
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "absent");
}
