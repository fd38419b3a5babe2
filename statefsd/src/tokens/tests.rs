//! What is remembered of whom, and for how long.

use core::mem;

use super::*;

fn tokens() -> Tokens {
    Tokens(RefCell::new(Table { free: (0..SLOTS).rev().collect(), ..Table::default() }))
}

fn begin(tokens: &Tokens, service: &str, number: u64) -> Result<Begun, Error> {
    let token = u128::from(number).to_le_bytes();
    tokens.begin(service, ConnectionId(1), token, [0; 32])
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
        tokens.begin("quiet", ConnectionId(connection), token, [0; 32])
    };
    assert!(matches!(elsewhere(2, 100), Ok(Begun::InDoubt)), "it may not have heard");
    assert!(matches!(elsewhere(3, 100), Ok(Begun::New(_))), "it is not locked out");
    assert!(matches!(elsewhere(2, 101), Ok(Begun::InDoubt)));
    assert!(matches!(elsewhere(2, 101), Ok(Begun::New(_))));
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
