//! Shrinking: what a planted fault breaks is found, cut down to a few steps, and told so that it can be repeated.

use journal::{Plant, Plants};
use tests::sim::plan::{Ack, Action, Change, Expect, How, Plan, Shape, Step};
use tests::sim::play::play;
use tests::sim::shrink::{as_test, keep, keep_word, shrink};
use tests::sim::{Failure, Setup, run};

/// Crashes within which a planted fault must be found.
const PLANT_CRASHES: u64 = 200_000;

/// Finds what `plant` breaks from `first_seed` on; what is left when it is shrunk has `steps_max` steps at most, fails
/// when it is repeated from its words, and holds without the plant.
fn must_be_found(plant: Plant, first_seed: u64, steps_max: usize) {
    let found = run(first_seed, PLANT_CRASHES, 1, |_| Setup::planted(plant), |_| ());
    let failure = found.expect_err("the simulator does not notice the planted fault");
    let whole = Plan::of_seed(failure.seed, Setup::planted(plant));
    let (least, broken) =
        shrink(&whole, Plants::one(plant), false).expect("the history fails again");
    let word = keep_word(&whole, &least);
    println!("{failure}\nshrunk to {word}: {}", broken.what);
    assert!(least.steps.len() <= steps_max, "{} steps are left", least.steps.len());
    let again = keep(&Plan { seed: least.seed, ..whole }, &word).expect("a word of our own");
    assert_eq!(again, least);
    assert_eq!(play(&again, Plants::one(plant)), Err(broken.clone()));
    assert!(play(&again, Plants::default()).is_ok(), "nothing but the plant is wrong");
    let told = as_test(&least, &Failure { broken, ..failure });
    assert!(least.steps.iter().all(|step| told.contains(&format!("id: {}", step.id))), "{told}");
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    must_be_found(Plant::AckBeforeFlush, 20_000, 4);
}

#[test]
fn counting_late_writes_as_flushed_is_found() {
    must_be_found(Plant::LateWrites, 20_000, 6);
}

#[test]
fn taking_a_later_group_as_proof_is_found() {
    must_be_found(Plant::LaterProves, 20_000, 6);
}

#[test]
fn a_fixed_order_of_superblocks_is_found() {
    must_be_found(Plant::SuperblockOrder, 60_139, 6);
}

#[test]
fn taking_a_torn_tail_for_what_was_written_over_it_is_found() {
    must_be_found(Plant::CheckTouchesTail, 20_000, 24);
}

/// A history in the form in which the simulator tells one: two changes of a key under two flushes of one block each,
/// with an engine that answers before the flush.
///
/// What was lost: the second value, which had been answered as durable. What reached the medium: the first group alone;
/// the second was in the cache when the power went. The engine holds because it answers when the flush has returned.
#[test]
fn an_answer_before_the_flush_is_lost() {
    let put = |bytes, expect| Some(Change { key: 7, bytes: Some(bytes), expect });
    let commit =
        |change| Action::Commit { changes: [change, None, None], ack: Ack::Durable, origin: 0 };
    let plan = Plan {
        seed: 0,
        shape: Shape {
            device_kib: 64,
            copies: 2,
            keys: 8,
            stall: 0,
            group_bytes_max: 1000,
            flush_bytes_max: 1,
            cache_bytes: 0,
            value_record_bytes_max: usize::MAX,
            replay_bytes: None,
        },
        steps: vec![
            Step { id: 0, turns: 8, action: commit(put(86, Expect::Any)) },
            Step { id: 1, turns: 2, action: commit(put(13, Expect::Current)) },
            Step {
                id: 2,
                turns: 0,
                action: Action::Crash { how: How::PowerCut, recovery: 0, harm: None },
            },
        ],
    };
    let chances = (0..64).map(|seed| Plan { seed, ..plan.clone() });
    let lost = |plan: &Plan| play(plan, Plants::one(Plant::AckBeforeFlush)).is_err();
    assert!(chances.clone().any(|plan| lost(&plan)), "the plant is not noticed");
    for plan in chances {
        play(&plan, Plants::default()).expect("nothing is lost");
    }
}
