//! What is remembered of whom, and for how long.

use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::session::ConnectionId;

use super::*;

fn tokens() -> Tokens {
    let free = (0..SLOTS).rev().collect();
    Tokens(Rc::new(RefCell::new(Table { free, ..Table::default() })))
}

/// Whatever is sent, what was answered before has left.
fn sending(connection: u64) -> Sending {
    static POLLS: AtomicU64 = AtomicU64::new(1);
    let polls = POLLS.fetch_add(1, Ordering::Relaxed);
    Sending { connection: ConnectionId(connection), arrived: polls, polls }
}

fn begin(tokens: &Tokens, service: &str, number: u64) -> Result<Begun, Error> {
    let token = u128::from(number).to_le_bytes();
    tokens.begin(service, sending(1), token, [0; 32])
}

/// Has a batch begin and end; tells whether it was new.
fn send(tokens: &Tokens, service: &str, number: u64) -> bool {
    match begin(tokens, service, number) {
        Ok(Begun::New(ticket)) => {
            tokens.settle(&ticket, &Ok(Written::Applied(Vec::new())), None);
            true
        }
        Ok(Begun::Known(_)) => false,
        Ok(Begun::InDoubt) => panic!("it is in doubt"),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn no_service_makes_the_batches_of_others_forgotten() {
    let tokens = tokens();
    (0..300).for_each(|number| assert!(send(&tokens, "quiet", number)));
    (0..5000).for_each(|number| assert!(send(&tokens, "loud", number)));
    assert!((0..300).all(|number| !send(&tokens, "quiet", number)));
    assert!((5000 - 980..5000).all(|number| !send(&tokens, "loud", number)));
    assert!(send(&tokens, "loud", 0), "it is forgotten");
    // Each has its share, and the oldest of it goes first.
    (300..2000).for_each(|number| assert!(send(&tokens, "quiet", number)));
    assert!((2000 - 640..2000).all(|number| !send(&tokens, "quiet", number)));
    assert!((5000 - 638..5000).all(|number| !send(&tokens, "loud", number)));
}

/// Has a batch be sent until it is taken for a new one; tells whether it was told before.
fn insist(tokens: &Tokens, service: &str, number: u64) -> bool {
    match begin(tokens, service, number) {
        Ok(Begun::New(ticket)) => {
            tokens.settle(&ticket, &Ok(Written::Applied(Vec::new())), None);
            false
        }
        Ok(Begun::InDoubt) => {
            assert!(send(tokens, service, number), "once on a connection");
            true
        }
        Ok(Begun::Known(_)) => panic!("it is remembered"),
        Err(error) => panic!("{error:?}"),
    }
}

fn slot_of(tokens: &Tokens, service: &str, number: u64) -> u16 {
    let name = (String::from(service), u128::from(number).to_le_bytes());
    tokens.0.borrow().known[&name].slot
}

#[test]
fn what_cannot_be_read_counts_until_so_many_newer_batches_were_applied() {
    let tokens = tokens();
    (0..3000).for_each(|number| assert!(send(&tokens, "all", number)));
    // As a start finds it.
    let lost = tokens.0.borrow_mut().forget_one().unwrap();
    tokens.0.borrow_mut().doubt = Doubt::new(Vec::from([lost]), None, 1279);
    for number in 3000..4024 {
        assert!(insist(&tokens, "all", number), "{number}");
        assert_ne!(slot_of(&tokens, "all", number), lost);
        assert!(!send(&tokens, "all", number - 1023), "it is remembered");
    }
    assert_eq!(tokens.unread(), 0);
    assert!(!insist(&tokens, "all", 4024));
    assert_eq!(slot_of(&tokens, "all", 4024), lost);
}

#[test]
fn after_a_loss_of_groups_all_slots_are_in_doubt_and_new_batches_have_room() {
    let tokens = tokens();
    let free = mem::take(&mut tokens.0.borrow_mut().free);
    // A server before this one has applied 300 since the loss.
    tokens.0.borrow_mut().doubt = Doubt::new(Vec::new(), Some(free), 300);
    for number in 0..724 {
        assert!(insist(&tokens, "all", number), "{number}");
    }
    assert!((0..724).all(|number| !send(&tokens, "all", number)), "none made another forgotten");
    assert!(!insist(&tokens, "all", 724));
}

#[test]
fn who_was_told_is_remembered_of_every_service_and_asked_again_elsewhere_once() {
    let tokens = tokens();
    let lost = tokens.0.borrow_mut().free.pop().unwrap();
    tokens.0.borrow_mut().doubt = Doubt::new(Vec::from([lost]), None, 0);
    let told = |service, number| matches!(begin(&tokens, service, number), Ok(Begun::InDoubt));
    assert!((0..300).all(|number| told("quiet", number)));
    assert!((0..5000).all(|number| told("loud", number)));
    assert!((0..100).all(|number| send(&tokens, "quiet", number)));
    assert!(send(&tokens, "loud", 4999) && told("loud", 0), "that it was told is forgotten");
    let elsewhere = |connection, number: u64| {
        let token = u128::from(number).to_le_bytes();
        tokens.begin("quiet", sending(connection), token, [0; 32])
    };
    assert!(matches!(elsewhere(2, 100), Ok(Begun::InDoubt)), "it may not have heard");
    assert!(matches!(elsewhere(3, 100), Ok(Begun::New(_))), "it is not locked out");
    assert!(matches!(elsewhere(2, 101), Ok(Begun::InDoubt)));
    assert!(matches!(elsewhere(2, 101), Ok(Begun::New(_))));
}

/// Has a slot hold a batch that was applied in another volume, as a start reads it.
fn carry_over(tokens: &Tokens, slot: u16, service: &str, number: u64) {
    let (token, puts) = (u128::from(number).to_le_bytes(), [1; PUTS_BYTES]);
    let (saved, age, digest, count) = (false, number, [0; 32], 1);
    let record = Record { saved, age, token, digest, count, puts, service }.encode();
    let key = slot_key(slot);
    let carried = carried_over(key.as_bytes(), &record).unwrap();
    assert_eq!((record[0], carried[0], &carried[1..]), (1, 2, &record[1..]));
    assert_eq!(carried_over(key.as_bytes(), &carried).as_ref(), Some(&carried), "saved twice");
    let record = Record::decode(&carried).unwrap();
    assert!(record.saved);
    let table = &mut *tokens.0.borrow_mut();
    table.free.retain(|free| *free != slot);
    table.remember(slot, &record, State::Saved);
}

#[test]
fn only_what_is_remembered_of_batches_is_carried_over_otherwise() {
    let record = |service: &str| {
        let (saved, age, token, digest) = (false, 7, [3; 16], [0; 32]);
        Record { saved, age, token, digest, count: 1, puts: [1; PUTS_BYTES], service }.encode()
    };
    assert!(carried_over(b"token/0000", &record("")).is_some());
    assert!(carried_over(b"token/1279", &record("keeper")).is_some());
    for key in ["/state/token/0000", "token/", "token/k", "token0000", "0000", ""] {
        assert_eq!(carried_over(key.as_bytes(), &record("keeper")), None, "{key}");
    }
    let (mut other, whole) = (record("keeper"), record(""));
    other[0] = 3;
    assert_eq!(carried_over(b"token/0000", &other), None);
    assert_eq!(carried_over(b"token/0000", &whole[..whole.len() - 1]), None);
    assert_eq!(carried_over(b"token/0000", b""), None);
}

#[test]
fn a_batch_of_another_volume_is_told_of_and_then_taken_for_new_and_no_other_is() {
    let tokens = tokens();
    (0..400).for_each(|number| carry_over(&tokens, u16::try_from(number).unwrap(), "all", number));
    assert!(send(&tokens, "all", 400) && send(&tokens, "other", 1), "they are not in doubt");
    let refused = tokens.begin("all", sending(1), 1_u128.to_le_bytes(), [1; 32]);
    assert!(matches!(refused, Err(Error::Argument(_))), "it is remembered what it was");
    let elsewhere = |connection, number: u64| {
        let token = u128::from(number).to_le_bytes();
        tokens.begin("all", sending(connection), token, [0; 32])
    };
    assert!(matches!(elsewhere(2, 7), Ok(Begun::InDoubt)));
    assert!(matches!(elsewhere(3, 7), Ok(Begun::InDoubt)), "it may not have heard");
    for number in [7, 0, 399] {
        assert_eq!(insist(&tokens, "all", number), number != 7);
        assert_eq!(u64::from(slot_of(&tokens, "all", number)), number, "its record is replaced");
        assert!(!send(&tokens, "all", number), "it is an ordinary one");
    }
    // It ages with all others, and goes with its age.
    (401..1279).for_each(|number| assert!(send(&tokens, "all", number)));
    assert!(matches!(begin(&tokens, "all", 1), Ok(Begun::InDoubt)));
    (1279..1379).for_each(|number| assert!(send(&tokens, "all", number)));
    assert!(send(&tokens, "all", 2), "it is forgotten");
    assert_eq!(tokens.unread(), 0);
}

/// A token is not lost of which a batch that was told comes to nothing, nor of which the service has too much under way.
#[test]
fn who_was_told_of_a_batch_of_another_volume_stays_so() {
    let tokens = tokens();
    carry_over(&tokens, 9, "all", 0);
    assert!(matches!(begin(&tokens, "all", 0), Ok(Begun::InDoubt)));
    let all: Vec<_> = (1..=256).map(|number| begin(&tokens, "all", number)).collect();
    assert!(matches!(begin(&tokens, "all", 0), Err(Error::Overloaded)));
    drop(all);
    assert_eq!(slot_of(&tokens, "all", 0), 9);
    let Ok(Begun::New(ticket)) = begin(&tokens, "all", 0) else { panic!("it was told") };
    tokens.settle(&ticket, &Ok(Written::Conflict { at: 0, current: None }), None);
    drop(ticket);
    assert!(send(&tokens, "all", 0), "it was told");
    // What was lost beside it is over, and leaves it as it is.
    carry_over(&tokens, 1270, "quiet", 3000);
    assert!(matches!(begin(&tokens, "quiet", 3000), Ok(Begun::InDoubt)));
    let lost = tokens.0.borrow_mut().free.pop().unwrap();
    tokens.0.borrow_mut().doubt.add(lost);
    (1000..1000 + 1024).for_each(|number| assert!(insist(&tokens, "all", number)));
    assert!(!insist(&tokens, "all", 3000));
    assert!(send(&tokens, "quiet", 3000), "it was told");
}

/// The slot of a batch was given to another one that came to nothing, and the batch has a new one.
#[test]
fn of_two_records_of_a_batch_the_newer_counts() {
    for turned in [false, true] {
        let tokens = tokens();
        tokens.0.borrow_mut().free.retain(|free| *free > 1);
        let record = |age| Record {
            saved: false,
            age,
            token: [0; 16],
            digest: [0; 32],
            count: 1,
            puts: [1; PUTS_BYTES],
            service: "all",
        };
        let (old, new) = if turned { (1, 0) } else { (0, 1) };
        let mut found = [(old, record(5)), (new, record(6))];
        found.sort_by_key(|(slot, _)| *slot);
        for (slot, record) in &found {
            tokens.0.borrow_mut().remember(*slot, record, State::Saved);
        }
        assert_eq!(slot_of(&tokens, "all", 0), new);
        assert_eq!(tokens.0.borrow_mut().take_slot(), Some(old));
        assert_eq!(tokens.0.borrow().services["all"].ages.len(), 1);
    }
}

#[test]
fn no_service_has_all_slots_under_way() {
    let tokens = tokens();
    let begin = |service: &str, number| begin(&tokens, service, number);
    let mut loud: Vec<_> = (0..2000).map_while(|number| begin("loud", number).ok()).collect();
    assert_eq!(loud.len(), UNDER_WAY_OF_SERVICE_MAX);
    assert!(matches!(begin("loud", 2000), Err(Error::Overloaded)));
    assert!(send(&tokens, "quiet", 0));
    loud.pop();
    assert!(begin("loud", 2000).is_ok());
}

/// Whoever was refused may give the call up before it is answered. What may be on the medium keeps its slot, and nothing else does.
#[test]
fn what_was_refused_and_given_up_has_no_slot_and_keeps_nobody_waiting() {
    let tokens = tokens();
    assert!(send(&tokens, "all", 0));
    for number in 1..5000 {
        let Ok(Begun::New(ticket)) = begin(&tokens, "all", number) else { panic!("it is new") };
        let Ok(Begun::Known(again)) = begin(&tokens, "all", number) else { panic!("under way") };
        ticket.refused.set(true);
        assert!(again.end.is_pending());
        drop(ticket);
        assert!(!again.end.is_pending(), "it is judged anew");
    }
    assert_eq!(tokens.0.borrow().free.len(), usize::from(SLOTS) - 1);
    assert!(!send(&tokens, "all", 0), "it is remembered");
    drop(begin(&tokens, "all", 1));
    assert!(!send(&tokens, "all", 1), "it may have been applied");
}
