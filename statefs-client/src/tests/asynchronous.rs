//! Calls over two vats in one thread.

use super::server::{DAMAGED, UNCONFIRMED, serve};
use crate::{Call, Error, ErrorCode, ListOptions, Mode, Result, Rights, StateFs, WriteOptions};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use vat::{Limits, Vat};

struct World {
    ours: Vat,
    theirs: Vat,
    store: StateFs,
}

fn world() -> World {
    let ours = Vat::new(None, Limits::default());
    let store = StateFs::over(&ours);
    World { ours, theirs: serve(), store }
}

impl World {
    fn wait<T: 'static>(&self, call: Call<T>) -> Result<T> {
        let mut call = pin!(call);
        for _ in 0..100 {
            if let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return result;
            }
            for (from, to) in [(&self.ours, &self.theirs), (&self.theirs, &self.ours)] {
                while from.poll(16) {}
                to.receive(&from.take_output()).unwrap();
            }
        }
        panic!("no answer");
    }
}

/// Messages of one segment each, as small calls are.
fn message_count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(words) = bytes.get(4..8) {
        let words = u32::from_le_bytes(words.try_into().unwrap());
        bytes = &bytes[8 + 8 * words as usize..];
        count += 1;
    }
    count
}

#[test]
fn opening_and_the_first_call_share_a_round_trip() {
    let world = world();
    let directory = world.store.directory("/state/a", Rights::ALL);
    let call = directory.put("k", b"v");
    let sent = world.ours.take_output();
    assert_eq!(message_count(&sent), 3, "bootstrap, open and put");
    world.theirs.receive(&sent).unwrap();
    while world.theirs.poll(16) {}
    world.ours.receive(&world.theirs.take_output()).unwrap();
    assert!(world.wait(call).is_ok());
}

/// A part over a limit of our own end never leaves, and those behind it would be another value without it.
#[test]
fn a_part_that_was_never_sent_ends_the_value() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let writer = directory.writer("k", None, WriteOptions::default());
    let parts: Vec<_> = (0..50).map(|_| writer.write(&[7; 60_000])).collect();
    let parts: Vec<_> = parts.into_iter().map(|part| world.wait(part)).collect();
    let sent = parts.iter().take_while(|part| part.is_ok()).count();
    assert!((20..50).contains(&sent), "more than may wait to be sent: {sent}");
    let refused = parts[sent].clone().unwrap_err();
    assert_eq!(refused.code(), "OVERLOADED");
    assert_eq!(parts[49], Err(refused.clone()));
    assert_eq!(world.wait(writer.write(b"more")), Err(refused.clone()));
    assert_eq!(world.wait(writer.done()), Err(refused));
    assert_eq!(world.wait(directory.get("k")), Ok(None));
}

/// The server may leave out a part whose call is cancelled, and those behind it would be another value without it.
#[test]
fn a_part_that_was_given_up_ends_the_value() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let writer = directory.writer("k", None, WriteOptions::default());
    let (first, second, third) = (writer.write(b"1"), writer.write(b"2"), writer.write(b"3"));
    assert_eq!(world.wait(first), Ok(()));
    assert_eq!(world.wait(third), Ok(()));
    drop(second);
    assert_eq!(world.wait(writer.write(b"4")), Ok(()), "it had been answered");
    drop(writer.write(b"5"));
    let refused = world.wait(writer.write(b"6")).unwrap_err();
    assert_eq!(refused.code(), "INVALID_ARGUMENT", "{refused}");
    assert_eq!(world.wait(writer.done()), Err(refused));
    assert_eq!(world.wait(directory.get("k")), Ok(None));
}

#[test]
fn calls_are_done_in_the_order_in_which_they_were_made() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let absent = directory.get("k");
    let first = directory.put_if_absent("k", b"1");
    let second = directory.put_if_absent("k", b"2");
    let value = directory.get("k");
    assert_eq!(world.wait(absent), Ok(None));
    let version = world.wait(first).unwrap();
    assert_eq!(world.wait(second), Err(Error::Conflict { current: Some(version) }));
    let value = world.wait(value).unwrap().unwrap();
    assert_eq!((value.version, value.data, value.bytes), (version, b"1".to_vec(), 1));
}

#[test]
fn a_refused_directory_refuses_each_call_and_applies_none() {
    let world = world();
    let directory = world.store.directory("/state/denied", Rights::ALL);
    let calls = [directory.put("k", b"v"), directory.put("l", b"v")];
    for call in calls {
        let error = world.wait(call).unwrap_err();
        assert_eq!(error.refusal(), Some(ErrorCode::AccessDenied), "{error:?}");
    }
    assert_eq!(world.wait(directory.get("k")).unwrap_err().code(), "ACCESS_DENIED");
}

#[test]
fn versions_guard_writes() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let first = world.wait(directory.put("k", b"1")).unwrap();
    let second = world.wait(directory.put_if_version("k", b"2", first)).unwrap();
    assert_ne!(first, second);
    let conflict = Err(Error::Conflict { current: Some(second) });
    assert_eq!(world.wait(directory.put_if_version("k", b"3", first)), conflict);
    assert!(world.wait(directory.delete_if_version("k", first)).is_err());
    assert_eq!(world.wait(directory.delete_if_version("k", second)), Ok(true));
    assert_eq!(world.wait(directory.delete("k")), Ok(false));
    let gone = world.wait(directory.put_if_version("k", b"3", first));
    assert_eq!(gone, Err(Error::Conflict { current: None }));
}

#[test]
fn outcomes_that_are_neither_value_nor_absence() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    assert_eq!(world.wait(directory.get(DAMAGED)), Err(Error::DataLoss));
    assert_eq!(world.wait(directory.get_metadata(DAMAGED)), Err(Error::DataLoss));
    let error = world.wait(directory.put(UNCONFIRMED, b"v")).unwrap_err();
    assert_eq!(error.code(), "INDETERMINATE");
    assert_eq!(world.wait(directory.sync()), Ok(()));
}

#[test]
fn pages_follow_each_other() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        world.wait(directory.put(key, b"1234")).unwrap();
    }
    let mut options = ListOptions { keys_only: true, ..ListOptions::default() };
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = world.wait(directory.page(&options)).unwrap();
        assert!(page.intact);
        seen.extend(page.entries.into_iter().map(|entry| entry.key));
        match page.next {
            Some(next) => options.after = next,
            None => break,
        }
    }
    assert_eq!(seen, keys);
}

#[test]
fn what_no_frame_could_hold_is_not_sent() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    world.wait(directory.sync()).unwrap();
    drop(world.ours.take_output());
    let long = "k".repeat(5000);
    for (call, code) in [
        (directory.put("k", &alloc::vec![0; (1 << 20) + 1]), ErrorCode::ValueTooLarge),
        (directory.put(&long, b"v"), ErrorCode::KeyTooLong),
    ] {
        assert!(!call.writes());
        assert_eq!(world.wait(call).unwrap_err().refusal(), Some(code));
    }
    assert_eq!(world.wait(directory.get(&long)).unwrap_err().code(), "KEY_TOO_LONG");
    assert_eq!(world.wait(directory.delete(&long)).unwrap_err().code(), "KEY_TOO_LONG");
    // The largest that is sent arrives.
    assert!(world.wait(directory.put("k", &alloc::vec![0; 1 << 20])).is_ok());
}

#[test]
fn a_write_whose_connection_ends_is_indeterminate_and_a_read_is_not() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    let (put, delete) = (directory.put("k", b"v"), directory.delete("k"));
    let (get, sync) = (directory.get("k"), directory.sync());
    world.ours.disconnect(capnp::Error::disconnected("cut".to_string()));
    assert_eq!(world.wait(put).unwrap_err().code(), "INDETERMINATE");
    assert_eq!(world.wait(delete).unwrap_err().code(), "INDETERMINATE");
    assert_eq!(world.wait(sync).unwrap_err().code(), "INDETERMINATE");
    assert_eq!(world.wait(get), Err(Error::Disconnected { cause: "cut".into() }));
}

/// A server that can say no more ends the connection with a code of its own: it tells why, not that nothing was applied.
#[test]
fn a_connection_that_ends_with_a_code_leaves_writes_open() {
    let world = world();
    let directory = world.store.directory("/state", Rights::ALL);
    world.wait(directory.sync()).unwrap();
    let put = directory.put("k", b"v");
    world.theirs.receive(&world.ours.take_output()).unwrap();
    while world.theirs.poll(16) {}
    // It was applied, and the answer is lost.
    drop(world.theirs.take_output());
    let get = directory.get("k");
    drop(world.ours.take_output());
    world.theirs.abort(capnp::Error::overloaded("OVERLOADED: too many capabilities".to_string()));
    world.ours.receive(&world.theirs.take_output()).unwrap_err();
    assert_eq!(world.wait(put).unwrap_err().code(), "INDETERMINATE");
    assert_eq!(world.wait(get).unwrap_err().code(), "DISCONNECTED");
}

#[test]
fn what_the_server_tells_of_itself() {
    let world = world();
    let hello = world.wait(world.store.hello("tester")).unwrap();
    assert_eq!((hello.protocol, hello.limits.calls), (1, 64));
    assert_eq!((hello.service.as_deref(), hello.software.as_str()), (Some("tester"), "mini 1"));
    assert_eq!(world.wait(world.store.hello("")).unwrap().service, None);
    let health = world.wait(world.store.health()).unwrap();
    assert_eq!((health.mode, health.loss_count), (Mode::Degraded, 1));
    assert!(health.mode.serves());
}
