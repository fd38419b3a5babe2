//! A peer that keeps to the rules, with bad intent.
#![expect(
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails, and its numbers are small"
)]
use capnp_rpc::rpc_capnp::exception;
use vat::Limits;
use vat_interop::echo_capnp::echo;
use vat_interop::victim::*;

#[test]
fn the_call_after_the_last_is_refused_and_not_started() {
    let victim = Victim::default();
    let calls = Limits::default().calls as u32;
    for question in 1..=calls {
        victim.send(|m| call(m, question, ECHO_NEVER, 0)).unwrap();
    }
    assert_eq!(victim.replies(), []);
    assert_eq!(victim.vat.calls_in_flight(), calls as usize);
    for question in 100..110 {
        victim.send(|m| echo_call(m, question, 10)).unwrap();
        let replies = victim.replies();
        assert!(replies.len() == 1 && is_overloaded(&replies[0]), "{replies:?}");
    }
    assert_eq!(victim.counts.started.get(), 0);
    assert!(victim.vat.wants_input(), "it goes on reading");
    // One call less, and the next is served.
    victim.finish(1, true).unwrap();
    assert_eq!(victim.replies(), [Reply::Canceled(1)]);
    victim.send(|m| echo_call(m, 200, 10)).unwrap();
    assert_eq!(victim.replies(), [Reply::Results(200)]);
}

#[test]
fn a_flood_of_calls_is_bounded() {
    let victim = Victim::default();
    for question in 1..20_000 {
        victim.send(|m| call(m, question, ECHO_NEVER, 0)).unwrap();
        victim.replies();
    }
    let stats = victim.vat.stats();
    assert_eq!(stats.calls, Limits::default().calls);
    assert!(stats.answers <= Limits::default().answers, "{stats:?}");
}

/// Calls that are finished at once but kept alive by the next one still count.
#[test]
fn a_chain_of_finished_calls_is_bounded() {
    let victim = Victim::default();
    victim.send(|m| call(m, 1, ECHO_NEVER, 0)).unwrap();
    for question in 2..1000 {
        victim
            .send(|m| {
                let mut call = m.init_call();
                call.set_question_id(question);
                let mut promised = call.reborrow().init_target().init_promised_answer();
                promised.set_question_id(question - 1);
                promised.init_transform(1).get(0).set_get_pointer_field(0);
            })
            .unwrap();
        victim.finish(question - 1, true).unwrap();
    }
    let stats = victim.vat.stats();
    assert!(stats.calls <= Limits::default().calls && stats.answers <= 2, "{stats:?}");
    victim.finish(999, true).unwrap();
    victim.run();
}

/// Cancelled calls that waited for an unresolved answer leave nothing behind.
#[test]
fn cancelled_pipelined_calls_hold_nothing() {
    let victim = Victim::default();
    let pipelined = |question: u32, path: u16| {
        victim
            .send(|m| {
                let mut call = m.init_call();
                call.set_question_id(question);
                let mut promised = call.reborrow().init_target().init_promised_answer();
                promised.set_question_id(1);
                promised.init_transform(1).get(0).set_get_pointer_field(path);
                let content = call.init_params().get_content();
                content.init_as::<echo::echo_params::Builder<'_>>().init_data(10_000);
            })
            .unwrap();
    };
    victim.send(|m| call(m, 1, ECHO_NEVER, 0)).unwrap();
    // Keeps the promise alive that half of the others wait for.
    pipelined(3, 0);
    let held = victim.vat.stats().held_bytes;
    for path in 0..2000_u16 {
        pipelined(2, path % 2 * path);
        assert_eq!(victim.replies(), []);
        victim.finish(2, true).unwrap();
        assert_eq!(victim.replies(), [Reply::Canceled(2)]);
    }
    let stats = victim.vat.stats();
    assert_eq!((stats.calls, stats.answers, stats.held_bytes), (2, 2, held));
}

/// Calls that were queued start one by one, as output is taken, whatever arrives after them.
#[test]
fn queued_calls_do_not_start_all_at_once() {
    let victim = Victim::default();
    victim.send(|m| call(m, 1, ECHO_AGAIN, 3)).unwrap();
    for question in 2..42 {
        victim.send(|m| pipelined_blob(m, question, 1 << 20)).unwrap();
    }
    while victim.vat.poll(1) {}
    assert_eq!(victim.counts.started.get(), 1);
    // The answer is there: this one need not be queued. But it may not overtake the others either.
    victim.send(|m| pipelined_blob(m, 50, 1)).unwrap();
    assert_eq!(victim.counts.started.get(), 1);
    let mut order = Vec::new();
    while order.len() < 42 {
        order.extend(victim.replies());
        victim.run();
    }
    let expected: Vec<_> = (1..42).chain([50]).map(Reply::Results).collect();
    assert_eq!(order, expected);
}

/// A victim that has the object of question 1 write what question 2 brings, and whose peer has as many calls as it may.
fn full_of_calls_beside_a_stream(settled: bool) -> Victim {
    let victim = Victim::default();
    victim.vat.set_streams(|interface, method| (interface, method) == (ECHO, ECHO_WRITE));
    victim.send(|m| call(m, 1, ECHO_AGAIN, 3)).expect("it goes on");
    if settled {
        victim.run();
    }
    victim.send(|m| pipelined_write(m, 2, 3)).expect("it goes on");
    let mut question = 100;
    while victim.vat.calls_in_flight() < Limits::default().calls {
        victim.send(|m| call(m, question, ECHO_NEVER, 0)).expect("it goes on");
        question += 1;
    }
    victim
}

/// What is missing in a stream fails what follows, be the limit that it met one of the connection and not of the object. The
/// object may not even be known then.
#[test]
fn a_refused_streaming_call_fails_those_behind_it() {
    for settled in [true, false] {
        let victim = full_of_calls_beside_a_stream(settled);
        victim.replies();
        for question in 3..50 {
            victim.send(|m| pipelined_write(m, question, 3)).unwrap();
            let replies = victim.replies();
            assert!(replies.len() == 1 && is_overloaded(&replies[0]), "{replies:?}");
        }
        let tasks = victim.vat.stats().tasks;
        assert_eq!(tasks, Limits::default().calls + 1, "one tells the object");
        for question in 100..110 {
            victim.finish(question, true).unwrap();
        }
        victim.send(|m| pipelined_write(m, 50, 3)).unwrap();
        victim.send(|m| pipelined_done(m, 51)).unwrap();
        // Another object has nothing to do with it.
        victim.send(|m| call(m, 52, ECHO_DONE, 0)).unwrap();
        let mut replies = victim.replies();
        victim.run();
        replies.extend(victim.replies());
        let of = |question: u32| {
            replies.iter().find(|reply| {
                matches!(reply, Reply::Results(id) | Reply::Exception(id, ..) if *id == question)
            })
        };
        assert_eq!(of(2), Some(&Reply::Results(2)), "it was written before");
        assert!(of(50).is_some_and(is_overloaded), "{replies:?}");
        assert!(of(51).is_some_and(is_overloaded), "{replies:?}");
        assert_eq!(of(52), Some(&Reply::Results(52)));
        let stats = victim.vat.stats();
        assert_eq!(stats.tasks, stats.calls, "nothing is left to be told");
    }
}

#[test]
fn what_an_object_was_not_told_ends_with_the_connection() {
    for settled in [true, false] {
        let victim = full_of_calls_beside_a_stream(settled);
        victim.send(|m| pipelined_write(m, 3, 3)).unwrap();
        victim.vat.disconnect(capnp::Error::disconnected("gone".into()));
        let stats = victim.vat.stats();
        assert_eq!((stats.calls, stats.tasks, stats.held_bytes), (0, 0, 0));
    }
}

#[test]
fn hoarded_capabilities_end_the_connection() {
    let victim = Victim::default();
    let mut ended = None;
    for question in 1..200 {
        let result = victim.send(|m| call(m, question, ECHO_COUNTERS, 50));
        victim.run();
        if result.is_err() || victim.vat.over().is_some() {
            ended = Some(question);
            break;
        }
        assert!(victim.vat.stats().exports <= Limits::default().exports);
    }
    assert_eq!(ended, Some(21), "20 times 50 counters and the bootstrap object fit in 1,024");
    assert!(matches!(victim.replies().pop(), Some(Reply::Abort(reason))
        if reason.starts_with("OVERLOADED")));
    assert_eq!(victim.counts.live.get(), 0, "what it held was dropped");
}

#[test]
fn too_many_capabilities_in_one_reply_fail_that_call() {
    let victim = Victim::default();
    victim.send(|m| call(m, 1, ECHO_COUNTERS, 65)).unwrap();
    victim.run();
    assert!(matches!(&victim.replies()[..], [Reply::Exception(1, exception::Type::Failed, _)]));
    assert_eq!((victim.counts.live.get(), victim.vat.stats().exports), (0, 1));
}

#[test]
fn imports_are_bounded() {
    let limits = Limits { imports: 100, ..Limits::default() };
    let victim = Victim::with(limits);
    for question in 1..=10 {
        let first = question * 10;
        victim.send(|m| call_with_caps(m, question, first..first + 10)).unwrap();
    }
    // `never` drops its parameters only at its end.
    assert_eq!(victim.vat.stats().imports, 100);
    // Known ones may come again.
    victim.send(|m| call_with_caps(m, 20, 10..20)).unwrap();
    let reason = abort_reason(&victim, |m| call_with_caps(m, 21, 500..501));
    assert!(reason.starts_with("OVERLOADED"), "{reason}");
    let reason = abort_reason(&Victim::default(), |m| call_with_caps(m, 1, 0..65));
    assert_eq!(reason, "too many capabilities in one message");
}

#[test]
fn a_refused_call_gives_its_capabilities_back() {
    let victim = Victim::with(Limits { calls: 0, ..Limits::default() });
    victim.send(|m| call_with_caps(m, 1, 5..7)).unwrap();
    let replies = victim.replies();
    assert_eq!(replies[..2], [Reply::Release(5, 1), Reply::Release(6, 1)]);
    assert!(is_overloaded(&replies[2]));
}

/// Answers kept for pipelining count as held, until the peer has to finish some.
#[test]
fn unfinished_answers_are_bounded() {
    let victim = Victim::with(Limits { answers: 100, ..Limits::default() });
    for question in 1..1000 {
        victim.send(|m| call(m, question, ECHO_MAKE_COUNTER, 0)).unwrap();
    }
    let replies = victim.replies();
    assert_eq!(replies.iter().filter(|reply| is_overloaded(reply)).count(), 899);
    assert_eq!(victim.vat.stats().answers, 100);
    assert!(victim.vat.stats().held_bytes > 0);
    for question in 1..1000 {
        victim.finish(question, true).unwrap();
    }
    assert_eq!((victim.vat.stats().answers, victim.vat.stats().held_bytes), (0, 0));
    assert_eq!(victim.counts.live.get(), 0);
}

#[test]
fn a_peer_that_never_reads_stops_the_server() {
    let victim = Victim::default();
    let limits = Limits::default();
    for question in 1..5000 {
        victim.send(|m| echo_call(m, question, 64 * 1024)).unwrap();
        victim.run();
    }
    let pending = victim.vat.pending_output();
    assert!(pending >= limits.output_high_water_bytes);
    // The rest is refusals, of which a driver that asks `wants_input` would see few.
    let refused = 5000 * 200;
    assert!(pending <= limits.in_flight_bytes + 65 * 1024 + refused, "{pending}");
    assert!(!victim.vat.wants_input());
    assert!(u64::from(victim.counts.started.get()) * 64 * 1024 <= limits.in_flight_bytes as u64);
}

/// A driver whose memory runs out cuts a connection down, and never up beyond its limits.
#[test]
fn what_calls_may_hold_can_be_cut_down() {
    let victim = Victim::default();
    victim.vat.set_in_flight_bytes_max(100_000);
    for question in 1..=3 {
        victim.send(|m| echo_call(m, question, 64 * 1024)).unwrap();
    }
    let replies = victim.replies();
    assert_eq!(replies[0], Reply::Results(1));
    assert!(replies[1..].iter().all(is_overloaded), "{replies:?}");
    victim.vat.set_in_flight_bytes_max(usize::MAX);
    for question in 10..100 {
        victim.send(|m| echo_call(m, question, 64 * 1024)).unwrap();
    }
    assert!(victim.vat.pending_output() <= Limits::default().in_flight_bytes + 65 * 1024);
    assert!(victim.replies().iter().any(is_overloaded));
}

/// Handlers that wait and then write much do not run while nobody reads what others wrote.
#[test]
fn waiting_handlers_do_not_fill_memory_either() {
    let victim = Victim::default();
    let limits = Limits::default();
    let megabyte = 1024 * 1024;
    for question in 1..=50 {
        victim.send(|m| call(m, question, ECHO_BLOB, megabyte | 2 << 32)).unwrap();
    }
    assert_eq!(victim.vat.pending_output(), 0);
    victim.run();
    let pending = victim.vat.pending_output();
    assert!(pending <= limits.output_high_water_bytes + megabyte as usize + 1024, "{pending}");
    assert!(!victim.vat.wants_poll() && !victim.vat.wants_input());
    // Whoever reads gets all of it.
    let mut results = 0;
    while results < 50 {
        let replies = victim.replies();
        assert!(!replies.is_empty());
        results += replies.len();
        victim.run();
    }
    assert_eq!(victim.vat.calls_in_flight(), 0);
}

#[test]
fn a_reply_too_large_for_a_frame_is_an_error_of_its_call() {
    let victim = Victim::default();
    let bytes = Limits::default().frame_bytes as u64;
    victim.send(|m| call(m, 1, ECHO_BLOB, bytes)).unwrap();
    assert!(matches!(&victim.replies()[..], [Reply::Exception(1, exception::Type::Failed, _)]));
    victim.send(|m| echo_call(m, 2, 10)).unwrap();
    assert_eq!(victim.replies(), [Reply::Results(2)]);
}

/// Questions to a peer that never answers are bounded, and fail at once beyond that.
#[test]
fn questions_to_a_silent_peer_are_bounded() {
    let victim = Victim::with(Limits { questions: 10, ..Limits::default() });
    for question in 1..=30_u32 {
        victim
            .send(|m| {
                let mut call = m.init_call();
                call.set_question_id(question);
                call.set_interface_id(ECHO);
                call.set_method_id(ECHO_CALL_ME);
                call.reborrow().init_target().set_imported_cap(0);
                write_callback(call.init_params(), 1);
            })
            .unwrap();
    }
    victim.run();
    assert_eq!(victim.vat.stats().questions, 10);
    let refused = victim.replies().iter().filter(|reply| is_overloaded(reply)).count();
    assert_eq!(refused, 20);
}
