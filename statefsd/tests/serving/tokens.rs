//! Batches that are sent again, where what was remembered of them is not all that there is to know.

use journal::Lost;
use statefs::Durability;
use statefsd::{Event, Limits};

use crate::admin::{self, administer, checkpoint, policy};
use crate::batches::{Batch, send, tokened};
use crate::faults::full_of_damage;
use crate::rig::{Ask, Device, If, Rig, delete, get, health, list, put, sync, version};

const DURABLE: Durability = Durability::Durable;

/// What was acknowledged as buffered can come to nothing while the store goes on; sent again, it must not pass for applied.
#[test]
fn a_buffered_batch_that_was_lost_is_written_when_it_is_sent_again() {
    let mut rig = full_of_damage();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let value = [b'v'; 1000];
    for number in 0_u128.. {
        let key = format!("one/{number}");
        let (operations, token) = ([(&*key, Some(&value[..]), If::Any)], number.to_le_bytes());
        let batch = |durability| Batch { operations: &operations, durability, token: &token };
        let first = rig.wait(send(&directory, &batch(Durability::Buffered))).unwrap();
        assert!(first.starts_with("applied ["), "{first}");
        if rig.wait(sync(&directory)).unwrap() == "durable" {
            continue;
        }
        assert_eq!(rig.wait(get(&directory, &key)).unwrap(), "absent");
        // Deletes always work, and make room.
        for number in 0..number {
            rig.wait(delete(&directory, &format!("one/{number}"), If::Any)).unwrap();
        }
        let again = rig.wait(send(&directory, &batch(DURABLE))).unwrap();
        let there = rig.wait(get(&directory, &key)).unwrap() != "absent";
        assert_eq!(again.starts_with("applied ["), there, "{again}");
        assert_ne!(again, first);
        return;
    }
}

/// The call that sent a batch first may wait for its peer to read. Who sends the batch again does not wait for that peer.
#[test]
fn a_batch_of_a_peer_that_reads_nothing_is_answered_elsewhere() {
    let connection = vat::Limits { output_high_water_bytes: 1 << 16, ..vat::Limits::default() };
    let mut rig = Rig::new(Device::formatted(), Limits { connection, ..Limits::default() });
    let (one, two) = (rig.connect("keeper"), rig.connect("keeper"));
    let root = rig.root(one);
    let (first, second) = (crate::rig::open(&root, "/state"), rig.directory(two, "/state"));
    for directory in [&first, &second] {
        assert_eq!(rig.wait(get(directory, "k")).unwrap(), "absent");
    }
    let operations = [("k", Some(&b"1"[..]), If::Absent)];
    rig.device.holds = true;
    let unread = send(&first, &tokened(&operations, DURABLE));
    let _rest: Vec<_> = (0..8).map(|_| root.describe_request().send()).collect();
    rig.clients[one].deaf = true;
    rig.settle();
    let again = send(&second, &tokened(&operations, DURABLE));
    rig.settle();
    rig.device.holds = false;
    let again = rig.wait(again).expect("it waits for nobody else");
    assert!(again.starts_with("applied ["), "{again}");
    rig.clients[one].deaf = false;
    assert_eq!(rig.wait(unread).unwrap(), again);
}

/// What tells whether a batch was written is not there for a while, as where a cable is loose; that is no reason to write it
/// twice.
#[test]
fn a_batch_of_which_the_device_tells_nothing_is_not_written_again() {
    let mut limits = Limits::default();
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(Device::formatted(), limits);
    let (one, two) = (rig.connect("keeper"), rig.connect("keeper"));
    let (first, second) = (rig.directory(one, "/state"), rig.directory(two, "/state"));
    assert_eq!(rig.wait(get(&first, "k")).unwrap(), "absent");
    let operations = [("k", Some(&b"1"[..]), If::Any)];
    rig.device.holds = true;
    let _lost = send(&first, &tokened(&operations, DURABLE));
    rig.settle();
    rig.server.close(rig.clients[one].id);
    rig.device.holds = false;
    rig.settle();
    assert_eq!(rig.wait(get(&second, "k")).unwrap(), "1");
    version(&rig.wait(put(&second, "k", b"2", If::Any, DURABLE)).unwrap());
    rig.device.fails_read = true;
    let again = rig.wait(send(&second, &tokened(&operations, DURABLE))).unwrap();
    assert!(again.starts_with("IO_ERROR: "), "{again}");
    rig.device.fails_read = false;
    let again = rig.wait(send(&second, &tokened(&operations, DURABLE))).unwrap();
    assert!(again.starts_with("applied ["), "{again}");
    assert_eq!(rig.wait(get(&second, "k")).unwrap(), "2");
}

const IN_DOUBT: &str = "at 4294967295: data loss";

/// Sends a batch that sets `k`, under a token that begins with a number.
fn set_k(rig: &mut Rig, client: usize, number: u64, value: &str) -> String {
    let directory = rig.directory(client, "/state");
    let operations = [("k", Some(value.as_bytes()), If::Any)];
    let token = token(number);
    let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
    rig.wait(send(&directory, &batch)).unwrap()
}

fn token(number: u64) -> [u8; 16] {
    (u128::from(number) << 64 | 0x7472_616d_6568_7473).to_le_bytes()
}

fn value_of_k(rig: &mut Rig, client: usize) -> String {
    let directory = rig.directory(client, "/state");
    rig.wait(get(&directory, "k")).unwrap()
}

/// Applies the batches 0, 1 and 2, and yields a server that opened the volume after the record of the first was lost: it alone,
/// or with all of its group.
fn first_of_three_is_lost(alone: bool) -> Rig {
    let mut rig = Rig::open();
    rig.server.set_policy(policy(admin::ALL));
    let client = rig.connect("keeper");
    for number in 0..3 {
        let answer = set_k(&mut rig, client, number, &format!("{number}"));
        assert!(answer.starts_with("applied ["), "{answer}");
    }
    if alone {
        let reader = rig.connect("reader");
        let root = administer(&rig.root(reader));
        assert_eq!(checkpoint(&mut rig, &root), "done");
    }
    assert_eq!(rig.device.damage(&token(0)), 2, "two copies");
    let mut rig = rig.restart();
    rig.settle();
    rig
}

/// Whether it was applied cannot be known: its client is told so, and decides.
#[test]
fn a_batch_whose_record_was_lost_is_not_applied_again_unasked() {
    let mut rig = first_of_three_is_lost(true);
    let client = rig.connect("keeper");
    is_told_before_it_is_applied(&mut rig, client);
    let root = rig.root(client);
    let told = rig.wait(health(&root)).unwrap();
    assert!(told.starts_with("Degraded 1 1 remembered batches with a token"), "{told}");
}

/// All that came before the loss may be out of date, what is remembered of batches too.
#[test]
fn a_batch_that_was_lost_with_its_group_is_not_applied_again_unasked() {
    let mut rig = first_of_three_is_lost(false);
    let client = rig.connect("keeper");
    is_told_before_it_is_applied(&mut rig, client);
    let root = rig.root(client);
    let told = rig.wait(health(&root)).unwrap();
    let lost = "Degraded 1 1 stretches of the journal with acknowledged writes were lost, which the log names";
    assert!(told.starts_with(lost), "{told}");
}

/// How much others write shows in an LSN, so health names what was lost to those alone who may see that.
#[test]
fn health_names_the_lsns_that_were_lost_to_who_may_see_them() {
    let mut rig = first_of_three_is_lost(false);
    let lost = rig.events.iter().find_map(|event| match event {
        Event::Opened { report, .. } => Some(report.lost.clone()),
        _ => None,
    });
    let [Lost { first, last }] = lost.unwrap()[..] else { panic!("one stretch") };
    let lsn =
        if first == last { format!("{}", first.0) } else { format!("{} to {}", first.0, last.0) };
    for (rights, sees) in [(admin::ALL, true), ("\"admin.check\", \"get\"", false)] {
        rig.server.set_policy(policy(rights));
        for (channel, sees) in [("reader", sees), ("keeper", false), ("elsewhere", false)] {
            let client = rig.connect(channel);
            let root = rig.root(client);
            let told = rig.wait(health(&root)).unwrap();
            let full = format!("Degraded 1 acknowledged writes with LSN {lsn} were lost, which");
            assert_eq!(told.starts_with(&full), sees, "{channel} {rights}: {told}");
            assert_eq!(told.contains("LSN"), sees, "{channel} {rights}: {told}");
            assert!(told.starts_with("Degraded 1 "), "{told}");
        }
    }
    assert!(!rig.server.health().reason.contains("LSN"), "a service manager shows it to all");
}

fn is_told_before_it_is_applied(rig: &mut Rig, client: usize) {
    assert_eq!(set_k(rig, client, 0, "0"), IN_DOUBT);
    assert_eq!(value_of_k(rig, client), "2", "nothing was applied");
    let answer = set_k(rig, client, 2, "2");
    assert!(answer.starts_with("applied ["), "it is remembered: {answer}");
    assert_eq!(value_of_k(rig, client), "2");
    let answer = set_k(rig, client, 0, "0");
    assert!(answer.starts_with("applied ["), "it was told: {answer}");
    assert_eq!(value_of_k(rig, client), "0");
    assert_eq!(set_k(rig, client, 0, "0"), answer, "it is remembered from now on");
}

/// What was not applied then may have been before: neither a start nor another connection makes it known.
#[test]
fn the_doubt_outlasts_a_start_and_does_not_take_an_answer_for_heard() {
    for alone in [true, false] {
        let mut rig = first_of_three_is_lost(alone);
        let client = rig.connect("keeper");
        assert_eq!(set_k(&mut rig, client, 0, "0"), IN_DOUBT);
        let mut rig = rig.restart();
        for (client, answer) in [("keeper", IN_DOUBT), ("keeper", IN_DOUBT), ("keeper", "applied")]
        {
            let client = rig.connect(client);
            let told = set_k(&mut rig, client, 0, "0");
            assert!(told.starts_with(answer), "{told}");
        }
        let client = rig.connect("keeper");
        assert_eq!(set_k(&mut rig, client, 7, "7"), IN_DOUBT);
        assert!(set_k(&mut rig, client, 7, "7").starts_with("applied ["));
        let mut rig = rig.restart();
        let client = rig.connect("keeper");
        let answer = set_k(&mut rig, client, 0, "0");
        assert!(answer.starts_with("applied ["), "{answer} {alone}");
        assert_eq!(value_of_k(&mut rig, client), "7", "it is remembered");
        assert_eq!(set_k(&mut rig, client, 8, "8"), IN_DOUBT, "whatever it is");
    }
}

/// Whose patience ended while the volume was opened sends a batch again before anything was answered: it has heard nothing yet.
#[test]
fn a_batch_that_is_sent_again_before_the_answer_has_left_is_told_once_more() {
    for alone in [true, false] {
        let mut rig = first_of_three_is_lost(alone);
        let client = rig.connect("keeper");
        let directory = rig.directory(client, "/state");
        let (operations, token) = ([("k", Some(&b"0"[..]), If::Any)], token(0));
        let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
        let answers = [(); 3].map(|()| send(&directory, &batch));
        for answer in answers {
            assert_eq!(rig.wait(answer).unwrap(), IN_DOUBT);
        }
        assert_eq!(value_of_k(&mut rig, client), "2", "nothing was applied");
        assert!(set_k(&mut rig, client, 0, "0").starts_with("applied ["), "it was told");
    }
}

/// The same where both wait behind reads, and the first is told before the other's turn comes.
#[test]
fn a_batch_that_was_sent_again_while_the_first_one_waited_is_told_once_more() {
    let mut rig = first_of_three_is_lost(true);
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let (operations, token) = ([("k", Some(&b"0"[..]), If::Any)], token(0));
    let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
    rig.device.holds = true;
    let before = put(&directory, "x", b"1", If::Any, DURABLE);
    let _list = list(&directory, Ask::default());
    let first = send(&directory, &batch);
    let _between = list(&directory, Ask::default());
    let second = send(&directory, &batch);
    rig.settle();
    rig.device.holds = false;
    assert_eq!(rig.wait(first).unwrap(), IN_DOUBT);
    assert_eq!(rig.wait(second).unwrap(), IN_DOUBT);
    version(&rig.wait(before).unwrap());
    assert_eq!(value_of_k(&mut rig, client), "2", "nothing was applied");
    assert!(set_k(&mut rig, client, 0, "0").starts_with("applied ["), "it was told");
}

/// Nobody waited for it, and before anybody asked its record was lost.
#[test]
fn a_batch_that_was_never_answered_and_lost_is_not_applied_again_unasked() {
    let mut limits = Limits::default();
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(Device::formatted(), limits);
    let (one, two) = (rig.connect("keeper"), rig.connect("keeper"));
    assert_eq!(value_of_k(&mut rig, one), "absent");
    let operations = [("k", Some(&b"1"[..]), If::Any)];
    rig.device.holds = true;
    let directory = rig.directory(one, "/state");
    let token = token(0);
    let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
    let _lost = send(&directory, &batch);
    rig.settle();
    rig.server.close(rig.clients[one].id);
    rig.device.holds = false;
    rig.settle();
    let directory = rig.directory(two, "/state");
    version(&rig.wait(put(&directory, "k", b"2", If::Any, DURABLE)).unwrap());
    assert_eq!(rig.device.damage(&token), 2, "two copies");
    assert_eq!(set_k(&mut rig, two, 0, "1"), IN_DOUBT);
    assert_eq!(value_of_k(&mut rig, two), "2", "nothing was applied");
    assert_eq!(set_k(&mut rig, two, 1, "1"), IN_DOUBT, "nor is it known of others");
    assert!(set_k(&mut rig, two, 0, "1").starts_with("applied ["));
    assert_eq!(value_of_k(&mut rig, two), "1");
}

/// Who may not write learns nothing of what is remembered.
#[test]
fn who_is_denied_is_not_told_of_a_doubt() {
    let mut rig = first_of_three_is_lost(true);
    let client = rig.connect("reader");
    for _ in 0..3 {
        let answer = set_k(&mut rig, client, 0, "0");
        assert!(answer.starts_with("ACCESS_DENIED"), "{answer}");
    }
}

/// A batch that was refused and waits for the write that it lost against is given up: it takes nothing of the memory of those
/// that were applied, however often.
#[test]
fn batches_that_were_refused_and_given_up_make_no_applied_one_forgotten() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let applied = set_k(&mut rig, client, 0, "0");
    assert!(applied.starts_with("applied ["), "{applied}");
    rig.device.holds = true;
    let mut before = std::pin::pin!(put(&directory, "way", b"1", If::Any, DURABLE));
    assert_eq!(rig.wait(before.as_mut()), None);
    for number in 1..=1300 {
        let (operations, token) = ([("way", Some(&b"2"[..]), If::Absent)], token(number));
        let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
        assert_eq!(rig.wait(send(&directory, &batch)), None, "it is judged by what is on its way");
    }
    rig.device.holds = false;
    version(&rig.wait(before).unwrap());
    assert_eq!(set_k(&mut rig, client, 0, "0"), applied, "it is remembered");
}
