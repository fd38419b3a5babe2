//! A peer that breaks the rules.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails, and its numbers are small"
)]
use capnp::ErrorKind;
use capnp_rpc::rpc_capnp::{exception, message};
use std::rc::Rc;
use vat::{Limits, Stats, Vat};
use vat_interop::echo_capnp::echo;
use vat_interop::victim::*;

#[test]
fn claims_without_data_hold_no_memory() {
    let victim = Victim::default();
    let before = victim.vat.stats().input_bytes;
    let words = (Limits::default().frame_bytes as u32 - 8) / 8;
    victim.vat.receive(&[[0; 4], words.to_le_bytes()].concat()).unwrap();
    assert!(victim.vat.stats().input_bytes <= before + 512);
    for arrived in (1..).map(|n| n * 1000).take(200) {
        victim.vat.receive(&[0; 1000]).unwrap();
        assert!(victim.vat.stats().input_bytes <= 2 * (arrived + 8), "after {arrived} bytes");
    }
}

#[test]
fn broken_frames_end_the_connection() {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let too_long = (Limits::default().frame_bytes as u32 - 8) / 8 + 1;
    for (name, bytes) in [
        ("a length above the limit", words(&[0, too_long])),
        ("the greatest length", words(&[0, u32::MAX])),
        ("17 segments", words(&[16])),
        ("the greatest count of segments", words(&[u32::MAX])),
        ("lengths that overflow", words(&[3, u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0])),
        ("an empty message", words(&[0, 0])),
        ("a root that is a list", words(&[0, 1, 1, 2])),
        ("a root outside", words(&[0, 1, 0x7fff_fffc, 0x0001_0001])),
        ("a far pointer to itself", words(&[0, 1, 2, 0])),
        ("a double far pointer to itself", words(&[0, 2, 6, 0, 6, 0])),
        ("a far pointer to no segment", words(&[0, 1, 2, 9])),
    ] {
        let victim = Victim::default();
        assert!(victim.vat.receive(&bytes).is_err(), "{name}");
        let replies = victim.replies();
        assert!(matches!(&replies[..], [Reply::Abort(_)]), "{name}: {replies:?}");
        assert!(victim.vat.receive(&[]).is_err(), "{name}: it stays over");
        assert!(!victim.vat.wants_input(), "{name}");
        assert_eq!(victim.vat.stats(), Stats::default(), "{name}: nothing is held");
    }
}

#[test]
fn a_question_in_use_ends_the_connection() {
    let victim = Victim::default();
    victim.send(|m| call(m, 1, ECHO_NEVER, 0)).unwrap();
    let reason = abort_reason(&victim, |m| call(m, 1, ECHO_NEVER, 0));
    assert_eq!(reason, "the question is in use");
    assert_eq!(victim.counts.cancelled.get(), 1, "running calls are cancelled");
}

#[test]
fn unknown_ids_end_the_connection() {
    let to =
        |id: u32| move |m: message::Builder<'_>| m.init_call().init_target().set_imported_cap(id);
    // Every power of two, its neighbours, and many by chance: a mixture that gives no number twice.
    let edges = (0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    let others = (0..10_000_u32).map(|n| n.wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995);
    for id in edges.chain([u32::MAX]).chain(others).filter(|id| *id != 0) {
        let reason = abort_reason(&Victim::default(), to(id));
        assert_eq!(reason, "the target is not a current export", "{id}");
    }
    assert_eq!(
        abort_reason(&Victim::default(), |m| m.init_return().set_answer_id(3)),
        "a return to no question"
    );
    assert_eq!(
        abort_reason(&Victim::default(), |m| {
            let mut release = m.init_release();
            release.set_id(0);
            release.set_reference_count(2);
        }),
        "released more references than there are"
    );
    assert_eq!(
        abort_reason(&Victim::default(), |m| m.init_release().set_id(9)),
        "release of no export"
    );
    assert_eq!(
        abort_reason(&Victim::default(), |m| {
            m.init_disembargo().init_context().set_receiver_loopback(5);
        }),
        "an echo of no embargo"
    );
    assert_eq!(
        abort_reason(&Victim::default(), |m| {
            let mut disembargo = m.init_disembargo();
            disembargo.reborrow().init_target().set_imported_cap(0);
            disembargo.init_context().set_sender_loopback(5);
        }),
        "a disembargo whose target does not lead back"
    );
    // Some peers finish questions that need it no more.
    Victim::default().finish(77, true).unwrap();
}

#[test]
fn a_peer_that_aborts_is_not_answered() {
    let victim = Victim::default();
    victim.send(|m| call(m, 1, ECHO_NEVER, 0)).unwrap();
    let error = victim.send(|m| {
        let mut exception = m.init_abort();
        exception.set_reason("enough");
        exception.set_type(exception::Type::Overloaded);
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind, &error.extra[..]), (ErrorKind::Overloaded, "enough"));
    assert_eq!(victim.replies(), []);
    assert_eq!(victim.vat.stats(), Stats::default());
}

#[test]
fn what_is_not_implemented_is_said_so() {
    let victim = Victim::default();
    victim.send(|m| m.init_resolve().set_promise_id(1)).unwrap();
    victim.send(|m| m.init_provide().set_question_id(1)).unwrap();
    victim.send(|m| m.init_accept().set_question_id(1)).unwrap();
    victim.send(|m| m.init_join().set_question_id(1)).unwrap();
    victim
        .send(|m| {
            let mut call = m.init_call();
            call.reborrow().init_target().set_imported_cap(0);
            call.get_send_results_to().set_yourself(());
        })
        .unwrap();
    assert_eq!(victim.replies(), [const { Reply::Unimplemented }; 5]);
    // Its own answers are not answered.
    victim
        .send(|m| m.init_unimplemented().init_unimplemented().init_join().set_question_id(1))
        .unwrap();
    assert_eq!(victim.replies(), []);
}

/// A message of which each level holds the next.
fn nested(depth: usize) -> Vec<u8> {
    // One struct pointer per word, each to the next word: a chain of structs with one pointer.
    let mut words = vec![0x0001_0000_0000_0000_u64; depth];
    words.push(0);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&(words.len() as u32).to_le_bytes());
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes
}

/// Nests messages in `outermost`.
fn nest(outermost: message::Builder<'_>, depth: usize) {
    let mut inner = outermost;
    for _ in 0..depth {
        inner = inner.init_unimplemented();
    }
    inner.init_finish();
}

#[test]
fn deep_nesting_is_not_followed() {
    // Messages within messages, as deep as a frame allows.
    let victim = Victim::default();
    let _ = victim.vat.receive(&nested(150_000));
    // In what is echoed as unimplemented.
    victim.send(|m| nest(m.init_join().init_key_part().init_as(), 10_000)).unwrap();
    assert_eq!(victim.replies(), [Reply::Unimplemented]);
    // In what is copied, because the target of the call is the caller's own object.
    victim
        .send(|m| {
            let mut call = m.init_call();
            call.set_question_id(1);
            call.set_interface_id(ECHO);
            call.set_method_id(ECHO_BOUNCE);
            call.reborrow().init_target().set_imported_cap(0);
            write_callback(call.init_params(), 0);
        })
        .unwrap();
    for (question, depth) in [(2, 5), (3, 20), (4, 10_000)] {
        victim
            .send(|m| {
                let mut call = m.init_call();
                call.set_question_id(question);
                let mut promised = call.reborrow().init_target().init_promised_answer();
                promised.set_question_id(1);
                promised.init_transform(1).get(0).set_get_pointer_field(0);
                nest(call.init_params().get_content().init_as(), depth);
            })
            .unwrap();
    }
    victim.run();
    let replies = victim.replies();
    assert_eq!(replies[..2], [Reply::Results(1), Reply::Other], "{replies:?}");
    assert!(
        matches!(&replies[2..], [Reply::Exception(3, ..), Reply::Exception(4, ..)]),
        "{replies:?}"
    );
}

#[test]
fn a_long_transform_ends_the_connection() {
    let reason = abort_reason(&Victim::default(), |m| {
        let target = m.init_call().init_target();
        target.init_promised_answer().init_transform(10_000);
    });
    assert_eq!(reason, "the transform of a promised answer is too long");
}

/// A call on the caller's own object, whose content is a list of 4 KiB that `frame` wrote `count`
/// times, but that all point to the first.
fn aliased(question: u32, count: u32) -> Vec<u8> {
    const BYTES: u32 = 4096;
    let mut message = capnp::message::Builder::new(
        capnp::message::HeapAllocator::new().first_segment_words(BYTES),
    );
    let root: message::Builder<'_> = message.init_root();
    let mut call = root.init_call();
    call.set_question_id(question);
    let mut promised = call.reborrow().init_target().init_promised_answer();
    promised.set_question_id(1);
    promised.init_transform(1).get(0).set_get_pointer_field(0);
    let content = call.init_params().get_content();
    let mut list: capnp::data_list::Builder<'_> = content.initn_as(count);
    list.set(0, &[1; BYTES as usize]);
    let mut bytes = Vec::new();
    capnp::serialize::write_message(&mut bytes, &message).unwrap();
    assert_eq!(bytes[..4], [0; 4], "one segment");
    // The first element: a pointer to a list of bytes of this length.
    let tag = (BYTES << 3 | 2).to_le_bytes();
    let first = bytes.chunks(8).position(|word| word[4..] == tag).unwrap() * 8;
    let pointer = u32::from_le_bytes(bytes[first..first + 4].try_into().unwrap());
    for index in 1..count {
        let at = first + 8 * index as usize;
        // Offsets count from the pointer: each next one is one word nearer.
        bytes[at..at + 4].copy_from_slice(&(pointer - 4 * index).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&tag);
    }
    bytes
}

#[test]
fn aliased_data_is_copied_only_up_to_the_traversal_limit() {
    let victim = Victim::default();
    victim
        .send(|m| {
            let mut call = m.init_call();
            call.set_question_id(1);
            call.set_interface_id(ECHO);
            call.set_method_id(ECHO_BOUNCE);
            call.reborrow().init_target().set_imported_cap(0);
            write_callback(call.init_params(), 0);
        })
        .unwrap();
    victim.run();
    assert_eq!(victim.replies(), [Reply::Results(1)]);
    // 200 KiB pass; 4 MiB are more than twice a frame; 2 MiB may be read, but not sent.
    victim.vat.receive(&aliased(2, 50)).unwrap();
    victim.run();
    assert_eq!(victim.replies(), [Reply::Other]);
    for (question, count) in [(3, 1000), (4, 500)] {
        victim.vat.receive(&aliased(question, count)).unwrap();
        victim.run();
        assert!(matches!(&victim.replies()[..], [Reply::Exception(..)]), "{count}");
    }
}

#[test]
fn the_end_of_the_transport_fails_our_calls_as_disconnected() {
    let vat = Vat::new(None, Limits::default());
    let echo: echo::Client = vat.bootstrap();
    let failed = Rc::new(std::cell::Cell::new(None));
    let seen = failed.clone();
    vat.spawn(async move {
        seen.set(echo.live_request().send().promise.await.err().map(|error| error.kind));
        let late = echo.live_request().send().promise.await.err().unwrap();
        assert_eq!(late.kind, ErrorKind::Disconnected);
    })
    .unwrap();
    while vat.poll(10) {}
    vat.disconnect(capnp::Error::failed("the socket was closed".into()));
    while vat.poll(10) {}
    assert_eq!(failed.take(), Some(ErrorKind::Disconnected));
    assert_eq!(vat.stats().tasks, 0);
    assert!(vat.bootstrap::<echo::Client>().live_request().send().promise.now_or_never_is_err());
}

trait NowOrNever {
    fn now_or_never_is_err(self) -> bool;
}

impl<T> NowOrNever for capnp::capability::Promise<T, capnp::Error> {
    fn now_or_never_is_err(self) -> bool {
        matches!(futures::FutureExt::now_or_never(self), Some(Err(_)))
    }
}
