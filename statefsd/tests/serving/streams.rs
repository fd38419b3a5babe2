//! Values in parts: visible only whole, and bounded whatever a client does.

use std::future::Future;
use std::pin::Pin;

use statefs::{Durability, directory, reader, writer};
use statefsd::Limits;

use crate::bounds::get_many;
use crate::rig::{Ask, Device, If, Rig, current, get, health, list, look, put, set, version};

const DURABLE: Durability = Durability::Durable;

/// A writer as its client sees it.
pub(crate) fn writer(
    directory: &directory::Client,
    key: &str,
    demand: If,
    bytes: u64,
) -> writer::Client {
    let mut request = directory.writer_request();
    request.get().set_key(key);
    request.get().set_bytes(bytes);
    set(request.get().init_precondition(), demand);
    request.send().pipeline.get_writer()
}

/// Sends a chunk: nothing, or why it was refused.
pub(crate) fn write(rig: &mut Rig, writer: &writer::Client, chunk: &[u8]) -> String {
    let mut request = writer.write_request();
    request.get().set_chunk(chunk);
    rig.wait(request.send()).unwrap().err().map_or(String::new(), |error| error.extra)
}

pub(crate) fn done(rig: &mut Rig, writer: &writer::Client) -> String {
    use directory::put_results::Which;
    let answer = match rig.wait(writer.done_request().send().promise).unwrap() {
        Ok(answer) => answer,
        Err(error) => return error.extra,
    };
    match answer.get().unwrap().which().unwrap() {
        Which::Indeterminate(()) => "indeterminate".into(),
        Which::Version(version) => format!("version {version}"),
        Which::Conflict(now) => current(now.unwrap()),
        Which::DataLoss(()) => "data loss".into(),
    }
}

pub(crate) fn reader(directory: &directory::Client, key: &str) -> reader::Client {
    let mut request = directory.reader_request();
    request.get().set_key(key);
    request.send().pipeline.get_reader()
}

pub(crate) fn info(rig: &mut Rig, reader: &reader::Client) -> String {
    use reader::info_results::Which;
    let answer = match rig.wait(reader.info_request().send().promise).unwrap() {
        Ok(answer) => answer,
        Err(error) => return error.extra,
    };
    match answer.get().unwrap().which().unwrap() {
        Which::DataLoss(()) => "data loss".into(),
        Which::Absent(()) => "absent".into(),
        Which::Value(value) => format!("{} bytes", value.unwrap().get_bytes()),
    }
}

fn read(
    rig: &mut Rig,
    reader: &reader::Client,
    offset: u64,
    bytes: u32,
) -> Result<Vec<u8>, String> {
    use reader::read_results::Which;
    let mut request = reader.read_request();
    request.get().set_offset(offset);
    request.get().set_bytes(bytes);
    let answer = rig.wait(request.send().promise).unwrap().map_err(|error| error.extra)?;
    match answer.get().unwrap().which().unwrap() {
        Which::DataLoss(()) => Err("data loss".into()),
        Which::Absent(()) => Err("absent".into()),
        Which::Changed(()) => Err("changed".into()),
        Which::Data(data) => Ok(data.unwrap().to_vec()),
    }
}

fn read_all(rig: &mut Rig, reader: &reader::Client) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let part = read(rig, reader, all.len() as u64, 0).unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

/// Bytes that are the same nowhere near.
fn value(bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(bytes).collect()
}

fn write_all(rig: &mut Rig, writer: &writer::Client, value: &[u8]) {
    for chunk in value.chunks(60_000) {
        assert_eq!(write(rig, writer, chunk), "");
    }
}

#[test]
fn a_large_value_is_visible_only_whole_and_survives() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let value = value(1_000_001);
    let writer = writer(&directory, "dump", If::Absent, value.len() as u64);
    write_all(&mut rig, &writer, &value);
    assert_eq!(rig.wait(get(&directory, "dump")).unwrap(), "absent");
    assert!(rig.wait(list(&directory, Ask::default())).unwrap().is_empty());
    version(&done(&mut rig, &writer));
    assert_eq!(rig.wait(get(&directory, "dump")).unwrap(), "large, 1000001 bytes");
    assert_eq!(rig.wait(look(&directory, "dump", true)).unwrap(), "1000001 bytes");
    assert_eq!(rig.wait(list(&directory, Ask::default())).unwrap(), ["dump large"]);

    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let reader = reader(&directory, "dump");
    assert_eq!(info(&mut rig, &reader), "1000001 bytes");
    assert!(read_all(&mut rig, &reader) == value);
    assert_eq!(read(&mut rig, &reader, 500_000, 10).unwrap(), value[500_000..500_010]);
    assert_eq!(read(&mut rig, &reader, 1_000_000, 0).unwrap(), value[1_000_000..]);
    for behind in [1_000_001, 1_000_002, u64::MAX] {
        assert!(read(&mut rig, &reader, behind, 0).unwrap().is_empty());
    }
}

/// A part is on its way from the device when the policy changes: who may not read any more is not told it.
#[test]
fn a_part_that_was_held_back_is_told_by_the_policy_of_the_moment() {
    for taken_away in [false, true] {
        let mut rig = Rig::open();
        let (keeper, net) = (rig.connect("keeper"), rig.connect("net"));
        let (all, own) = (rig.directory(keeper, "/state"), rig.directory(net, "/state/net"));
        let writer = writer(&all, "net/k", If::Any, 0);
        write_all(&mut rig, &writer, &value(200_000));
        version(&done(&mut rig, &writer));
        let reader = reader(&own, "k");
        assert_eq!(info(&mut rig, &reader), "200000 bytes");
        rig.device.holds = true;
        let mut request = reader.read_request();
        request.get().set_bytes(10);
        let held = request.send().promise;
        rig.settle();
        if taken_away {
            let rights = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]";
            let fewer = "prefix = \"/state/net\"\nrights = [\"list\", \"put\"]";
            let text = crate::rig::POLICY.replace(rights, fewer);
            rig.server.set_policy(policy::Policy::parse(&text).unwrap());
        }
        rig.device.holds = false;
        let told = rig.wait(held).unwrap().map(drop).map_err(|error| error.extra);
        let expected = if taken_away { Err("ACCESS_DENIED".into()) } else { Ok(()) };
        assert_eq!(told, expected);
    }
}

/// A client may stop waiting for a chunk, whether it runs or waits for those before it. What follows never goes on without it.
#[test]
fn a_chunk_that_nobody_waits_for_is_not_left_out() {
    let value = value(6 * 60_000);
    for dropped in 0..6 {
        let mut rig = Rig::open();
        let client = rig.connect("keeper");
        let directory = rig.directory(client, "/state");
        let writer = writer(&directory, "dump", If::Any, 0);
        assert_eq!(rig.wait(get(&directory, "dump")).unwrap(), "absent");
        rig.device.holds = true;
        let calls = value.chunks(60_000).map(|chunk| {
            let mut request = writer.write_request();
            request.get().set_chunk(chunk);
            request.send()
        });
        let mut calls: Vec<_> = calls.collect();
        rig.settle();
        drop(calls.remove(dropped));
        rig.settle();
        rig.device.holds = false;
        version(&done(&mut rig, &writer));
        assert!(read_all(&mut rig, &reader(&directory, "dump")) == value, "chunk {dropped}");
    }
}

#[test]
fn a_small_or_empty_value_may_come_in_parts_too() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let empty = writer(&directory, "empty", If::Any, 0);
    version(&done(&mut rig, &empty));
    let small = writer(&directory, "small", If::Any, 0);
    for part in [&b"one "[..], b"", b"two"] {
        assert_eq!(write(&mut rig, &small, part), "");
    }
    version(&done(&mut rig, &small));
    assert_eq!(rig.wait(get(&directory, "empty")).unwrap(), "");
    assert_eq!(rig.wait(get(&directory, "small")).unwrap(), "one two");
    let over = "INVALID_ARGUMENT: the writer is over: it was ended, or a call on it failed";
    assert_eq!(done(&mut rig, &small), over);
    assert_eq!(write(&mut rig, &small, b"three"), over);
    let reader = reader(&directory, "small");
    assert_eq!(read_all(&mut rig, &reader), b"one two");
}

#[test]
fn the_precondition_is_judged_at_the_end() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let first = writer(&directory, "k", If::Absent, 0);
    write_all(&mut rig, &first, &value(200_000));
    let known = version(&rig.wait(put(&directory, "k", b"1", If::Any, DURABLE)).unwrap());
    assert_eq!(done(&mut rig, &first), format!("conflict {known}"));
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
    let second = writer(&directory, "k", If::Version(known), 0);
    write_all(&mut rig, &second, &value(200_000));
    version(&done(&mut rig, &second));
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "large, 200000 bytes");
}

#[test]
fn a_reader_tells_that_its_value_is_gone() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let none = reader(&directory, "k");
    assert_eq!(info(&mut rig, &none), "absent");
    assert_eq!(read(&mut rig, &none, 0, 0), Err("absent".into()));
    for large in [false, true] {
        let writer = writer(&directory, "k", If::Any, 0);
        write_all(&mut rig, &writer, &value(if large { 300_000 } else { 3 }));
        version(&done(&mut rig, &writer));
        let reader = reader(&directory, "k");
        assert!(!read(&mut rig, &reader, 0, 0).unwrap().is_empty());
        version(&rig.wait(put(&directory, "k", b"other", If::Any, DURABLE)).unwrap());
        assert_eq!(read(&mut rig, &reader, 0, 0), Err("changed".into()));
        assert_eq!(read(&mut rig, &none, 0, 0), Err("absent".into()), "as it was");
    }
}

#[test]
fn what_is_abandoned_takes_no_room() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let chunk = value(60_000);
    // In all many times what the device holds.
    for round in 0..12 {
        let writer = writer(&directory, "dump", If::Any, 0);
        for _ in 0..40 {
            assert_eq!(write(&mut rig, &writer, &chunk), "", "round {round}");
        }
        drop(writer);
        rig.settle();
    }
    for round in 0..6 {
        let client = rig.connect("keeper");
        let directory = rig.directory(client, "/state");
        let writer = writer(&directory, "dump", If::Any, 0);
        for _ in 0..40 {
            assert_eq!(write(&mut rig, &writer, &chunk), "", "round {round}");
        }
        let id = rig.clients[client].id;
        rig.server.close(id);
        rig.clients.truncate(1);
        rig.settle();
    }
    assert_eq!(rig.wait(get(&directory, "dump")).unwrap(), "absent");
}

#[test]
fn a_value_that_does_not_fit_is_refused_and_leaves_the_room_it_took() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let large = writer(&directory, "dump", If::Any, 0);
    let chunk = value(60_000);
    let refused = (0..1000).find_map(|_| {
        let refused = write(&mut rig, &large, &chunk);
        (!refused.is_empty()).then_some(refused)
    });
    let refused = refused.expect("the device has 16 MiB");
    assert!(refused.starts_with("VALUE_TOO_LARGE: "), "{refused}");
    assert_eq!(done(&mut rig, &large), refused);
    drop(large);
    rig.settle();
    version(&rig.wait(put(&directory, "k", &chunk, If::Any, DURABLE)).unwrap());
    let far = writer(&directory, "dump", If::Any, u64::MAX);
    let refused = done(&mut rig, &far);
    assert!(refused.starts_with("VALUE_TOO_LARGE: "), "{refused}");
    let wide = writer(&directory, "dump", If::Any, 0);
    let refused = write(&mut rig, &wide, &[0; 65_537]);
    assert_eq!(refused, "VALUE_TOO_LARGE: 65537 bytes, the limit is 65536");
    assert_eq!(done(&mut rig, &wide), refused, "what follows fails like it");
}

#[test]
fn a_quota_counts_what_comes_in_parts() {
    let mut rig = Rig::open();
    let line = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let text = crate::rig::POLICY.replace(line, &format!("{line}quota = {{ bytes = 100000 }}\n"));
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state/net");
    let told = writer(&directory, "k", If::Any, 100_001);
    let exceeded = "QUOTA_EXCEEDED: a quota allows 100000 bytes of keys and values";
    assert_eq!(done(&mut rig, &told), exceeded);
    let untold = writer(&directory, "k", If::Any, 0);
    assert_eq!(write(&mut rig, &untold, &value(60_000)), "");
    assert_eq!(write(&mut rig, &untold, &value(60_000)), exceeded);
    let fits = writer(&directory, "k", If::Any, 90_000);
    write_all(&mut rig, &fits, &value(90_000));
    version(&done(&mut rig, &fits));
    let refused = rig.wait(put(&directory, "l", &value(20_000), If::Any, DURABLE)).unwrap();
    assert_eq!(refused, exceeded);
    // Two that would each fit, and together do not.
    rig.wait(put(&directory, "k", b"", If::Any, DURABLE));
    let (one, two) = (writer(&directory, "a", If::Any, 0), writer(&directory, "b", If::Any, 0));
    write_all(&mut rig, &one, &value(70_000));
    assert_eq!(write(&mut rig, &two, &value(60_000)), exceeded);
    assert_eq!(done(&mut rig, &two), exceeded);
    version(&done(&mut rig, &one));
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "absent");
    // What is written in one piece does not wait for what may have no end: the end decides.
    rig.wait(put(&directory, "a", b"", If::Any, DURABLE));
    let three = writer(&directory, "b", If::Any, 0);
    write_all(&mut rig, &three, &value(70_000));
    version(&rig.wait(put(&directory, "a", &value(40_000), If::Any, DURABLE)).unwrap());
    assert_eq!(done(&mut rig, &three), exceeded);
}

/// What is uploaded takes room before it has an end, and nothing says that it ever gets one.
#[test]
fn what_is_on_its_way_in_many_parts_passes_no_quota_and_takes_no_room_from_others() {
    let mut rig = Rig::open();
    let line = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let text = crate::rig::POLICY.replace(line, &format!("{line}quota = {{ bytes = 1000000 }}\n"));
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let client = rig.connect("net");
    let directory = rig.directory(client, "/state/net");
    let (mut writers, mut kept) = (Vec::new(), 0);
    for number in 0..12 {
        let writer = writer(&directory, &format!("dump{number}"), If::Any, 0);
        let chunks = (0..15).take_while(|_| write(&mut rig, &writer, &value(60_000)).is_empty());
        // One that was refused gives up what came before.
        kept += if chunks.count() == 15 { 900_000 } else { 0 };
        writers.push(writer);
    }
    assert!(kept <= 1_000_000, "{kept} bytes are on their way");
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    version(&rig.wait(put(&all, "other", &value(60_000), If::Any, DURABLE)).unwrap());
    // What was given up counts no more, and neither does what has an end count twice.
    drop(writers);
    rig.settle();
    for round in 0..3 {
        let again = writer(&directory, "dump", If::Any, 0);
        for _ in 0..15 {
            assert_eq!(write(&mut rig, &again, &value(60_000)), "", "round {round}");
        }
        version(&done(&mut rig, &again));
    }
}

#[test]
fn a_right_that_is_taken_away_ends_a_stream_in_the_middle() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    rig.wait(put(&all, "k", b"1", If::Any, DURABLE));
    let mut request = all.restrict_request();
    request.get().init_rights().set_put(true);
    request.get().get_rights().unwrap().set_get(true);
    let pipeline = request.send().pipeline;
    let (narrow, revoker) = (pipeline.get_directory(), pipeline.get_revoker());
    let (one, two) = (writer(&narrow, "a", If::Any, 0), writer(&all, "b", If::Any, 0));
    let (out, other) = (reader(&narrow, "k"), reader(&all, "k"));
    for writer in [&one, &two] {
        assert_eq!(write(&mut rig, writer, b"part"), "");
    }
    for reader in [&out, &other] {
        assert_eq!(read(&mut rig, reader, 0, 0).unwrap(), b"1");
    }
    rig.wait(revoker.revoke_request().send().promise).unwrap().unwrap();
    let dead = "REVOKED: the capability was revoked";
    assert_eq!(done(&mut rig, &one), dead);
    assert_eq!(info(&mut rig, &out), dead);
    assert_eq!(read(&mut rig, &out, 0, 0), Err(dead.into()));
    assert_eq!(read(&mut rig, &other, 0, 0).unwrap(), b"1");
    let nothing = "rights = [\"list\"]";
    let text =
        crate::rig::POLICY.replace("rights = [\"get\", \"list\", \"put\", \"delete\"]", nothing);
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    assert_eq!(write(&mut rig, &two, b"part"), "ACCESS_DENIED");
    assert_eq!(read(&mut rig, &other, 0, 0), Err("ACCESS_DENIED".into()));
    let (none, nobody) = (writer(&all, "c", If::Any, 0), reader(&all, "k"));
    assert_eq!(done(&mut rig, &none), "ACCESS_DENIED");
    assert_eq!(info(&mut rig, &nobody), "ACCESS_DENIED");
}

#[test]
fn a_flood_of_streams_is_bounded() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let mut writers = Vec::new();
    for number in 0..8 {
        let writer = writer(&directory, &format!("k{number}"), If::Any, 0);
        assert_eq!(write(&mut rig, &writer, &value(60_000)), "");
        writers.push(writer);
    }
    let readers: Vec<_> = (0..8).map(|_| reader(&directory, "none")).collect();
    for reader in &readers {
        assert_eq!(info(&mut rig, reader), "absent");
    }
    let refused = "OVERLOADED: the connection holds 16 writers and readers, which is the limit";
    let more = writer(&directory, "more", If::Any, 0);
    assert_eq!(done(&mut rig, &more), refused);
    let more = reader(&directory, "more");
    assert_eq!(info(&mut rig, &more), refused);
    // Another connection has its own.
    let other = rig.connect("keeper");
    let elsewhere = rig.directory(other, "/state");
    let one = writer(&elsewhere, "one", If::Any, 0);
    version(&done(&mut rig, &one));
    drop((readers, more));
    rig.settle();
    let again = writer(&directory, "again", If::Any, 0);
    version(&done(&mut rig, &again));
}

/// A chunk over a limit of the connection never reaches the writer, and those behind it may find room again: without it they
/// would be another value.
#[test]
fn a_chunk_that_was_refused_ends_its_value_and_no_other() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let (one, other) =
        (writer(&directory, "one", If::Any, 0), writer(&directory, "other", If::Any, 0));
    assert_eq!(write(&mut rig, &one, b"first"), "");
    assert_eq!(write(&mut rig, &other, b"whole"), "");
    rig.device.holds = true;
    let puts: Vec<_> = (0..64)
        .map(|number| put(&directory, &format!("k{number}"), b"v", If::Any, DURABLE))
        .collect();
    rig.settle();
    let refused = write(&mut rig, &one, b"lost");
    assert!(refused.starts_with("OVERLOADED: "), "{refused}");
    rig.device.holds = false;
    for put in puts {
        version(&rig.wait(put).unwrap());
    }
    let next = write(&mut rig, &one, b"next");
    assert!(next.starts_with("OVERLOADED: "), "{next}");
    let end = done(&mut rig, &one);
    assert!(end.starts_with("OVERLOADED: "), "{end}");
    assert_eq!(rig.wait(get(&directory, "one")).unwrap(), "absent");
    version(&done(&mut rig, &other));
    assert_eq!(rig.wait(get(&directory, "other")).unwrap(), "whole");
}

#[test]
fn a_device_that_fails_in_the_middle_leaves_nothing_visible() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let writer = writer(&directory, "k", If::Any, 0);
    write_all(&mut rig, &writer, &value(200_000));
    rig.device.fails_flush = true;
    let refused = (0..10).find_map(|_| {
        let refused = write(&mut rig, &writer, &value(60_000));
        (!refused.is_empty()).then_some(refused)
    });
    let refused = refused.expect("a chunk waits for the one before");
    assert!(refused.starts_with("READ_ONLY: "), "{refused}");
    rig.device.fails_flush = false;
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "absent");
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "absent");
}

/// What a reader meets is known like what a read meets: no conditional write goes through over it, until a write has made it good.
#[test]
fn damage_that_a_reader_meets_is_known() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let first = version(&rig.wait(put(&all, "net/harmed", b"1", If::Any, DURABLE)).unwrap());
    let mut rig = rig.restart();
    rig.settle();
    let medium = rig.device.memory.bytes_mut();
    let places = medium.windows(10).enumerate().filter(|(_, bytes)| bytes == b"net/harmed");
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    for at in places {
        rig.device.memory.bytes_mut()[at] ^= 0x20;
    }
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let out = reader(&all, "net/harmed");
    assert_eq!(read(&mut rig, &out, 0, 0), Err("data loss".into()));
    assert_eq!(rig.wait(look(&all, "net/harmed", true)).unwrap(), "data loss");
    let conditional = put(&all, "net/harmed", b"2", If::Version(first), DURABLE);
    assert_eq!(rig.wait(conditional).unwrap(), "data loss");
    let root = rig.root(client);
    assert!(rig.wait(health(&root)).unwrap().starts_with("Degraded 1 1 values cannot be read"));
    let second = version(&rig.wait(put(&all, "net/harmed", b"2", If::Any, DURABLE)).unwrap());
    let conditional = put(&all, "net/harmed", b"3", If::Version(second), DURABLE);
    version(&rig.wait(conditional).unwrap());
    assert!(rig.wait(health(&root)).unwrap().starts_with("Degraded 0 "));
}

/// A chunk that is denied ends the value, and what was kept for it under a quota is given back, though the writer is still held.
#[test]
fn a_writer_that_is_denied_keeps_nothing() {
    let mut rig = Rig::open();
    let line = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let text = crate::rig::POLICY.replace(line, &format!("{line}quota = {{ bytes = 100000 }}\n"));
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state/net");
    let mut request = all.restrict_request();
    request.get().init_rights().set_put(true);
    let pipeline = request.send().pipeline;
    let (narrow, revoker) = (pipeline.get_directory(), pipeline.get_revoker());
    let one = writer(&narrow, "a", If::Any, 0);
    assert_eq!(write(&mut rig, &one, &value(60_000)), "");
    rig.wait(revoker.revoke_request().send().promise).unwrap().unwrap();
    assert_eq!(write(&mut rig, &one, b"part"), "REVOKED: the capability was revoked");
    let two = writer(&all, "b", If::Any, 60_000);
    write_all(&mut rig, &two, &value(60_000));
    version(&done(&mut rig, &two));
}

/// The device fails to read what was asked for, and the policy changes before: who may not read any more is not told that the key is there.
#[test]
fn a_read_that_fails_is_told_by_the_policy_of_the_moment() {
    type Call = fn(&directory::Client, &reader::Client) -> Pin<Box<dyn Future<Output = String>>>;
    let calls: [Call; 5] = [
        |own, _| Box::pin(get(own, "k")),
        |own, _| Box::pin(get_many(own, "k")),
        |own, _| {
            let lines = list(own, Ask::default());
            Box::pin(async move { lines.await.concat() })
        },
        |own, _| {
            let mut request = own.reader_request();
            request.get().set_key("large");
            let answer = request.send().promise;
            Box::pin(
                async move { answer.await.map_or_else(|error| error.extra, |_| "open".into()) },
            )
        },
        |_, reader| {
            let answer = reader.read_request().send().promise;
            Box::pin(
                async move { answer.await.map_or_else(|error| error.extra, |_| "read".into()) },
            )
        },
    ];
    for (number, call) in calls.iter().enumerate() {
        for (taken_away, expected) in [(false, "IO_ERROR"), (true, "ACCESS_DENIED")] {
            let mut limits = Limits::default();
            // What is read comes from the device.
            limits.journal.cache_bytes = 0;
            let mut rig = Rig::new(Device::formatted(), limits);
            let client = rig.connect("net");
            let own = rig.directory(client, "/state/net");
            version(&rig.wait(put(&own, "k", b"1", If::Any, DURABLE)).unwrap());
            let writer = writer(&own, "large", If::Any, 0);
            write_all(&mut rig, &writer, &value(200_000));
            version(&done(&mut rig, &writer));
            let reader = reader(&own, "large");
            assert_eq!(info(&mut rig, &reader), "200000 bytes");
            rig.device.holds_reads = true;
            let held = call(&own, &reader);
            rig.settle();
            if taken_away {
                let text = crate::rig::POLICY.replace("[\"get\", \"list\", \"put\"]", "[\"put\"]");
                rig.server.set_policy(policy::Policy::parse(&text).unwrap());
            }
            (rig.device.holds_reads, rig.device.fails_read) = (false, true);
            let told = rig.wait(held).unwrap();
            assert!(told.starts_with(expected), "call {number}: {told}, not {expected}");
        }
    }
}
