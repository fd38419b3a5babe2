//! Several keys in one call: all or nothing, by one version of the policy.

use std::future::Future;

use blockdev::MemoryDevice;
use journal::FormatOptions;
use policy::Policy;
use statefs::{Durability, directory};
use statefsd::Limits;

use crate::rig::{Device, If, POLICY, Rig, current, delete, get, put, set, version};

const DURABLE: Durability = Durability::Durable;

/// One operation: a key, a value to put or nothing to delete, and what must hold.
type Operation<'a> = (&'a str, Option<&'a [u8]>, If);

pub(crate) struct Batch<'a> {
    pub(crate) operations: &'a [Operation<'a>],
    pub(crate) durability: Durability,
    pub(crate) token: &'a [u8],
}

/// Sends a batch: `applied`, with the versions, or how else it ended.
pub(crate) fn send(
    directory: &directory::Client,
    batch: &Batch<'_>,
) -> impl Future<Output = String> + use<> {
    let mut request = directory.commit_request();
    request.get().set_durability(batch.durability);
    request.get().set_token(batch.token);
    let count = u32::try_from(batch.operations.len()).unwrap();
    let mut operations = request.get().init_operations(count);
    for (index, (key, value, precondition)) in (0..count).zip(batch.operations) {
        let mut operation = operations.reborrow().get(index);
        operation.set_key(key);
        match value {
            Some(value) => operation.set_put(value),
            None => operation.set_delete(()),
        }
        set(operation.init_precondition(), *precondition);
    }
    let answer = request.send().promise;
    async move {
        use directory::commit_results::Which;
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            Which::Indeterminate(()) => "indeterminate".into(),
            Which::Applied(versions) => {
                let versions: Vec<u64> = versions.unwrap().iter().collect();
                format!("applied {versions:?}")
            }
            Which::Conflict(conflict) => {
                let conflict = conflict.unwrap();
                format!("at {}: {}", conflict.get_index(), current(conflict.get_current().unwrap()))
            }
            Which::DataLoss(index) => format!("at {index}: data loss"),
        }
    }
}

pub(crate) fn commit(
    directory: &directory::Client,
    operations: &[Operation<'_>],
) -> impl Future<Output = String> + use<> {
    send(directory, &Batch { operations, durability: DURABLE, token: b"" })
}

/// What `getMany` answers, one word for each key.
fn get_many(
    directory: &directory::Client,
    keys: &[&str],
    metadata_only: bool,
) -> impl Future<Output = Result<Vec<String>, String>> + use<> {
    let mut request = directory.get_many_request();
    request.get().set_metadata_only(metadata_only);
    let count = u32::try_from(keys.len()).unwrap();
    let mut list = request.get().init_keys(count);
    for (index, key) in (0..count).zip(keys) {
        list.set(index, key);
    }
    let answer = request.send().promise;
    async move {
        use directory::get_results::Which;
        let answer = answer.await.map_err(|error| error.extra)?;
        let entries = answer.get().unwrap().get_entries().unwrap();
        let entry = |entry: directory::get_results::Reader<'_>| match entry.which().unwrap() {
            Which::DataLoss(()) => "data loss".into(),
            Which::Absent(()) => "absent".into(),
            Which::Large(_) => "large".into(),
            Which::Value(value) => {
                let value = value.unwrap();
                let data = String::from_utf8_lossy(value.get_data().unwrap()).into_owned();
                if metadata_only { format!("{} bytes", value.get_bytes()) } else { data }
            }
        };
        Ok(entries.iter().map(entry).collect())
    }
}

#[test]
fn all_of_a_batch_happens_and_is_there_after_a_restart() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.wait(put(&directory, "old", b"1", If::Any, DURABLE));
    let answer = rig
        .wait(commit(
            &directory,
            &[
                ("a", Some(b"1"), If::Absent),
                ("old", None, If::Any),
                ("none", None, If::Any),
                ("b", Some(b""), If::Any),
            ],
        ))
        .unwrap();
    let versions = answer.strip_prefix("applied [").unwrap().trim_end_matches(']').split(", ");
    let versions: Vec<u64> = versions.map(|version| version.parse().unwrap()).collect();
    assert!(versions[0] != 0 && versions[3] != 0 && versions[0] != versions[3], "{answer}");
    assert_eq!(versions[1..3], [0, 0]);

    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let keys = ["a", "old", "none", "b", "a"];
    let told = rig.wait(get_many(&directory, &keys, false)).unwrap().unwrap();
    assert_eq!(told, ["1", "absent", "absent", "", "1"]);
    let sizes = rig.wait(get_many(&directory, &keys[..1], true)).unwrap().unwrap();
    assert_eq!(sizes, ["1 bytes"]);
    let again = rig.wait(put(&directory, "a", b"2", If::Version(versions[0]), DURABLE)).unwrap();
    version(&again);
}

#[test]
fn a_precondition_that_does_not_hold_keeps_all_of_a_batch_from_happening() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let first = version(&rig.wait(put(&directory, "a", b"1", If::Any, DURABLE)).unwrap());
    let operations = |demand| [("b", Some(&b"2"[..]), If::Any), ("a", None, demand)];
    let mut commit = |demand| rig.wait(commit(&directory, &operations(demand))).unwrap();
    assert_eq!(commit(If::Absent), format!("at 1: conflict {first}"));
    assert_eq!(commit(If::Version(first + 1)), format!("at 1: conflict {first}"));
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "absent");
    let mut commit = |demand| rig.wait(self::commit(&directory, &operations(demand))).unwrap();
    assert!(commit(If::Version(first)).starts_with("applied ["));
    assert_eq!(commit(If::Version(first)), "at 1: conflict absent");
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "2");
}

#[test]
fn a_batch_that_makes_no_sense_is_refused_as_a_whole() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let mut refused =
        |operations: &[Operation<'_>]| rig.wait(commit(&directory, operations)).unwrap();
    assert_eq!(refused(&[]), "INVALID_ARGUMENT: a batch has one operation at least");
    let twice = [("a", Some(&b"1"[..]), If::Any), ("b", None, If::Any), ("a", None, If::Any)];
    assert_eq!(refused(&twice), "INVALID_ARGUMENT: a key occurs twice in the batch");
    let wrong = refused(&[("a", Some(b"1"), If::Any), ("b//c", None, If::Any)]);
    assert!(wrong.starts_with("INVALID_KEY: "), "{wrong}");
    let long = "x".repeat(300);
    let wrong = refused(&[("a", Some(b"1"), If::Any), (&long, None, If::Any)]);
    assert!(wrong.starts_with("KEY_TOO_LONG: "), "{wrong}");
    let wrong = refused(&[("a", Some(&[1; 65_537]), If::Any)]);
    assert_eq!(wrong, "VALUE_TOO_LARGE: 65537 bytes, the limit is 65536");
    let keys: Vec<String> = (0..129).map(|number| format!("k{number}")).collect();
    let many: Vec<Operation<'_>> = keys.iter().map(|key| (&**key, None, If::Any)).collect();
    assert_eq!(refused(&many), "BATCH_TOO_LARGE: 129 operations, the limit is 128");

    let mut request = directory.commit_request();
    request.get().init_operations(1).get(0).set_key("a");
    let error = rig.wait(request.send().promise).unwrap().err().unwrap();
    assert_eq!(error.extra, "INVALID_ARGUMENT: an operation is not set");
    let short = Batch {
        operations: &[("a", Some(b"1"), If::Any)],
        durability: DURABLE,
        token: b"fifteen bytes..",
    };
    let wrong = rig.wait(send(&directory, &short)).unwrap();
    assert_eq!(wrong, "INVALID_ARGUMENT: a token has 16 bytes");
    assert_eq!(rig.wait(get(&directory, "a")).unwrap(), "absent");
}

#[test]
fn a_batch_up_to_the_limit_that_hello_tells_is_taken_and_one_beyond_is_not() {
    check_limits(Rig::open(), 128);
}

/// The smallest volume has segments of 2 KiB.
#[test]
fn the_smallest_volume_takes_batches_too() {
    let mut device = Device::blank();
    device.memory = MemoryDevice::new(64 << 10);
    let options = FormatOptions { block_bytes: 512, ..FormatOptions::default() };
    let mut rig = Rig::new(device.format(options), Limits::default());
    rig.settle();
    check_limits(rig, 2);
}

fn check_limits(mut rig: Rig, least: u32) {
    let client = rig.connect("keeper");
    let mut request = rig.root(client).hello_request();
    request.get().set_protocol(1);
    let hello = rig.wait(request.send().promise).unwrap().unwrap();
    let limits = hello.get().unwrap().get_limits().unwrap();
    let (count, most) = (limits.get_batch_operations(), limits.get_batch_bytes());
    assert!(count >= least, "{count}");
    let (count, most) = (usize::try_from(count).unwrap(), usize::try_from(most).unwrap());
    let directory = rig.directory(client, "/state");
    let keys: Vec<String> = (0..count).map(|number| format!("k{number:03}")).collect();
    let key_bytes = "/state/k000".len();
    // As many operations as there may be, which costs most.
    let value = vec![7; most / count - key_bytes];
    let last = vec![7; value.len() + most % count];
    let mut batch: Vec<Operation<'_>> =
        keys.iter().map(|key| (&**key, Some(&value[..]), If::Any)).collect();
    batch[count - 1].1 = Some(&last);
    let applied = rig.wait(commit(&directory, &batch)).unwrap();
    assert!(applied.starts_with("applied ["), "{applied}");
    let more = vec![7; last.len() + 1];
    batch[count - 1].1 = Some(&more);
    let refused = rig.wait(commit(&directory, &batch)).unwrap();
    assert_eq!(refused, format!("BATCH_TOO_LARGE: {} bytes, the limit is {most}", most + 1));
}

#[test]
fn one_operation_that_is_not_granted_ends_the_whole_call() {
    let mut rig = Rig::open();
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    rig.wait(put(&all, "net/a", b"1", If::Any, DURABLE));
    let net = rig.connect("net");
    let directory = rig.directory(net, "/state");
    let put = |key| (key, Some(&b"2"[..]), If::Any);
    let mut commit =
        |operations: &[Operation<'_>]| rig.wait(commit(&directory, operations)).unwrap();
    assert!(commit(&[put("net/a"), put("net/b")]).starts_with("applied ["));
    assert_eq!(commit(&[put("net/c"), put("host")]), "ACCESS_DENIED");
    assert_eq!(commit(&[put("net/c"), put("net/secret/x")]), "ACCESS_DENIED");
    assert_eq!(commit(&[put("net/c"), ("net/a", None, If::Any)]), "ACCESS_DENIED");
    let many = |keys: &[&str]| get_many(&directory, keys, false);
    assert_eq!(rig.wait(many(&["net/a", "net/c"])).unwrap().unwrap(), ["2", "absent"]);
    let denied = rig.wait(many(&["net/a", "host"])).unwrap();
    assert_eq!(denied.unwrap_err(), "ACCESS_DENIED");
}

#[test]
fn a_batch_is_judged_by_one_policy() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.settle();
    // Its place among the writes is fixed under the first policy; the answer comes under the second.
    rig.device.holds = true;
    let answer = commit(&directory, &[("a", Some(b"1"), If::Any), ("b", Some(b"1"), If::Any)]);
    rig.settle();
    let nothing =
        POLICY.replace("rights = [\"get\", \"list\", \"put\", \"delete\"]", "rights = [\"list\"]");
    rig.server.set_policy(Policy::parse(&nothing).unwrap());
    let later = commit(&directory, &[("c", Some(b"1"), If::Any)]);
    rig.settle();
    rig.device.holds = false;
    assert!(rig.wait(answer).unwrap().starts_with("applied ["));
    assert_eq!(rig.wait(later).unwrap(), "ACCESS_DENIED");
    rig.server.set_policy(Policy::parse(POLICY).unwrap());
    let told = rig.wait(get_many(&directory, &["a", "b", "c"], false)).unwrap().unwrap();
    assert_eq!(told, ["1", "1", "absent"]);
}

/// Each of two policies grants one of two keys. Whoever mixed them would let both be written.
#[test]
fn a_batch_that_no_policy_grants_is_refused_however_fast_they_change() {
    let mut rig = Rig::open();
    let client = rig.connect("net");
    let directory = rig.directory(client, "/state");
    rig.settle();
    let policies = ["one", "two"].map(|key| {
        let text = format!(
            "version = 1\nservice.net.channel = 'net'\n[[grant]]\nto = 'net'\n\
             prefix = '/state/{key}'\nrights = ['get', 'put']\nquota = {{ keys = 1 }}\n"
        );
        Policy::parse(&text).unwrap()
    });
    let mut answers = Vec::new();
    let mut alone = Vec::new();
    for round in 0..600 {
        if round % 3 == 0 {
            let both = [("one", Some(&b"1"[..]), If::Any), ("two", Some(&b"1"[..]), If::Any)];
            answers.push(commit(&directory, &both));
            alone.push(commit(&directory, &both[..1]));
        }
        rig.server.set_policy(policies[round % 2].clone());
        rig.step();
    }
    for answer in answers {
        assert_eq!(rig.wait(answer).unwrap(), "ACCESS_DENIED");
    }
    let alone: Vec<_> = alone.into_iter().map(|answer| rig.wait(answer).unwrap()).collect();
    let granted = alone.iter().filter(|answer| answer.starts_with("applied")).count();
    let refused = alone.iter().filter(|answer| *answer == "ACCESS_DENIED").count();
    assert!(granted > 20 && refused > 20, "both policies were met: {granted} {refused}");
    assert_eq!(granted + refused, alone.len());
}

#[test]
fn a_reply_holds_as_many_of_the_keys_as_fit() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let value = vec![b'x'; 60_000];
    for number in 0..20 {
        let written = put(&directory, &format!("k{number:02}"), &value, If::Any, DURABLE);
        version(&rig.wait(written).unwrap());
    }
    let keys: Vec<String> = (0..20).map(|number| format!("k{number:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let told = rig.wait(get_many(&directory, &keys, false)).unwrap().unwrap();
    assert_eq!(told.len(), (1 << 20) / 60_056, "as many as a reply of 1 MiB takes");
    let rest = rig.wait(get_many(&directory, &keys[told.len()..], false)).unwrap().unwrap();
    assert_eq!(told.len() + rest.len(), 20);
    assert_eq!(rig.wait(get_many(&directory, &keys, true)).unwrap().unwrap().len(), 20);
    assert!(rig.wait(get_many(&directory, &[], false)).unwrap().unwrap().is_empty());
    // Keys behind the limit are not even looked at.
    let mut far = vec!["k00"; 1024];
    far.push("no//key");
    assert_eq!(rig.wait(get_many(&directory, &far, true)).unwrap().unwrap().len(), 1024);
    far.rotate_right(1);
    let refused = rig.wait(get_many(&directory, &far, true)).unwrap().unwrap_err();
    assert!(refused.starts_with("INVALID_KEY: "), "{refused}");
}

#[test]
fn a_read_of_several_keys_waits_for_the_writes_before_it() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let batch = commit(&directory, &[("a", Some(b"1"), If::Any), ("b", Some(b"2"), If::Any)]);
    let read = get_many(&directory, &["b", "a"], false);
    let gone = delete(&directory, "a", If::Any);
    rig.settle();
    assert_eq!(rig.wait(read).unwrap().unwrap(), ["2", "1"]);
    assert!(rig.wait(batch).unwrap().starts_with("applied ["));
    assert_eq!(rig.wait(gone).unwrap(), "deleted");
}

#[test]
fn a_batch_over_a_failed_flush_is_indeterminate_and_then_refused() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.settle();
    rig.device.fails_flush = true;
    let operations = [("a", Some(&b"1"[..]), If::Any), ("b", None, If::Any)];
    assert_eq!(rig.wait(commit(&directory, &operations)).unwrap(), "indeterminate");
    let refused = rig.wait(commit(&directory, &operations)).unwrap();
    assert!(refused.starts_with("READ_ONLY: "), "{refused}");
}

#[test]
fn a_damaged_key_is_told_with_its_place_in_the_batch() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.wait(put(&directory, "k", b"the value to lose", If::Any, DURABLE));
    rig.wait(put(&directory, "other", b"1", If::Any, DURABLE));
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.settle();
    assert_eq!(rig.device.damage(b"the value to lose"), 2, "two copies");
    let told = rig.wait(get_many(&directory, &["k"], false)).unwrap().unwrap();
    assert_eq!(told, ["data loss"]);
    let demand = [("new", Some(&b"1"[..]), If::Any), ("k", Some(&b"2"[..]), If::Absent)];
    assert_eq!(rig.wait(commit(&directory, &demand)).unwrap(), "at 1: data loss");
    let any = [("new", Some(&b"1"[..]), If::Any), ("k", Some(&b"2"[..]), If::Any)];
    assert!(rig.wait(commit(&directory, &any)).unwrap().starts_with("applied ["));
    let told = rig.wait(get_many(&directory, &["k", "new"], false)).unwrap().unwrap();
    assert_eq!(told, ["2", "1"]);
}

const TOKEN: &[u8] = b"sixteen bytes...";

pub(crate) fn tokened<'a>(operations: &'a [Operation<'a>], durability: Durability) -> Batch<'a> {
    Batch { operations, durability, token: TOKEN }
}

#[test]
fn a_token_is_answered_again_and_applies_nothing_twice() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.wait(put(&directory, "old", b"1", If::Any, DURABLE));
    let operations =
        [("a", Some(&b"1"[..]), If::Absent), ("old", None, If::Any), ("b", Some(b"2"), If::Any)];
    let first = rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
    assert!(first.starts_with("applied ["), "{first}");
    version(&rig.wait(put(&directory, "a", b"later", If::Any, DURABLE)).unwrap());
    let again = rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
    assert_eq!(again, first);
    assert_eq!(rig.wait(get(&directory, "a")).unwrap(), "later");
    // Nobody sees where that is remembered.
    let seen = rig.wait(crate::rig::list(&directory, crate::rig::Ask::default())).unwrap();
    assert_eq!(seen, ["a=later", "b=2"]);
    let other = [("a", Some(&b"other"[..]), If::Any)];
    let refused = rig.wait(send(&directory, &tokened(&other, DURABLE))).unwrap();
    assert_eq!(refused, "INVALID_ARGUMENT: the token was used for other operations");
    // A token is its service's own.
    let net = rig.connect("net");
    let theirs = rig.directory(net, "/state");
    let own = [("net/x", Some(&b"1"[..]), If::Any)];
    let answer = rig.wait(send(&theirs, &tokened(&own, DURABLE))).unwrap();
    assert!(answer.starts_with("applied ["), "{answer}");

    // The same after a restart, through a directory of another prefix.
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let again = rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
    assert_eq!(again, first, "the versions too");
    assert_eq!(rig.wait(get(&directory, "a")).unwrap(), "later");
    let refused = rig.wait(send(&directory, &tokened(&other, DURABLE))).unwrap();
    assert_eq!(refused, "INVALID_ARGUMENT: the token was used for other operations");
}

#[test]
fn a_batch_with_a_token_that_applied_nothing_is_judged_anew() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let known = version(&rig.wait(put(&directory, "k", b"1", If::Any, DURABLE)).unwrap());
    let operations = [("k", Some(&b"2"[..]), If::Absent)];
    let mut send = || rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
    assert_eq!(send(), format!("at 0: conflict {known}"));
    assert_eq!(send(), format!("at 0: conflict {known}"));
    rig.wait(delete(&directory, "k", If::Any));
    let mut send = || rig.wait(self::send(&directory, &tokened(&operations, DURABLE))).unwrap();
    let first = send();
    assert!(first.starts_with("applied ["), "{first}");
    assert_eq!(send(), first);
}

#[test]
fn a_token_is_known_while_its_batch_is_under_way_and_after_its_connection_is_gone() {
    for goes in [false, true] {
        let mut rig = Rig::open();
        let (one, two) = (rig.connect("keeper"), rig.connect("keeper"));
        let (first, second) = (rig.directory(one, "/state"), rig.directory(two, "/state"));
        rig.settle();
        rig.device.holds = true;
        let operations = [("k", Some(&b"1"[..]), If::Absent)];
        let answer = send(&first, &tokened(&operations, DURABLE));
        rig.settle();
        if goes {
            let id = rig.clients[one].id;
            rig.server.close(id);
        }
        let again = send(&second, &tokened(&operations, DURABLE));
        rig.settle();
        rig.device.holds = false;
        let again = rig.wait(again).unwrap();
        assert!(again.starts_with("applied ["), "{again}");
        if !goes {
            assert_eq!(rig.wait(answer).unwrap(), again);
        }
        assert_eq!(rig.wait(get(&second, "k")).unwrap(), "1");
    }
}

#[test]
fn a_buffered_batch_is_made_durable_for_who_asks_for_that_again() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let operations = [("k", Some(&b"1"[..]), If::Any)];
    rig.settle();
    rig.device.holds = true;
    let buffered = rig.wait(send(&directory, &tokened(&operations, Durability::Buffered))).unwrap();
    assert!(buffered.starts_with("applied ["), "{buffered}");
    let mut durable = std::pin::pin!(send(&directory, &tokened(&operations, DURABLE)));
    assert_eq!(rig.wait(durable.as_mut()), None, "it waits for the device");
    rig.device.holds = false;
    assert_eq!(rig.wait(durable).unwrap(), buffered);
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "k")).unwrap(), "1");
}

#[test]
fn an_indeterminate_batch_stays_so_until_the_server_restarts() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    rig.settle();
    rig.device.fails_flush = true;
    let operations = [("k", Some(&b"1"[..]), If::Any)];
    for _ in 0..2 {
        let answer = rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
        assert_eq!(answer, "indeterminate");
    }
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let decided = rig.wait(send(&directory, &tokened(&operations, DURABLE))).unwrap();
    assert!(decided.starts_with("applied ["), "{decided}");
}

#[test]
fn the_last_1024_tokens_are_known_and_older_ones_take_no_room() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let token = |number: u32| {
        let mut token = [7; 16];
        token[..4].copy_from_slice(&number.to_le_bytes());
        token
    };
    let send = |rig: &mut Rig, directory: &directory::Client, number: u32| {
        let operations = [("k", Some(&b"v"[..]), If::Any)];
        let token = token(number);
        let batch = Batch { operations: &operations, durability: DURABLE, token: &token };
        rig.wait(send(directory, &batch)).unwrap()
    };
    let first = send(&mut rig, &directory, 0);
    let answers: Vec<String> = (1..1400).map(|number| send(&mut rig, &directory, number)).collect();
    let last = |number: u32| &answers[number as usize - 1];
    let mut rig = rig.restart();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    for number in [1399, 1000, 1400 - 1024] {
        assert_eq!(&send(&mut rig, &directory, number), last(number));
    }
    assert_ne!(send(&mut rig, &directory, 0), first, "it is forgotten");
}

/// A batch that waits for the one before it with the same token is written only then, which may be long after it was let in.
#[test]
fn a_batch_that_was_held_back_is_not_written_by_a_right_of_before() {
    let connection = vat::Limits { output_high_water_bytes: 1 << 16, ..vat::Limits::default() };
    let mut rig = Rig::new(Device::formatted(), Limits { connection, ..Limits::default() });
    let (keeper, client) = (rig.connect("keeper"), rig.connect("net"));
    let all = rig.directory(keeper, "/state");
    let root = rig.root(client);
    let net = crate::rig::open(&root, "/state/net");
    assert_eq!(rig.wait(get(&net, "k")).unwrap(), "absent");
    rig.device.holds = true;
    let _put = put(&net, "k", b"1", If::Any, DURABLE);
    let operations = [("k", Some(&b"2"[..]), If::Absent)];
    let batch = Batch { operations: &operations, durability: DURABLE, token: &[7; 16] };
    let (first, second) = (send(&net, &batch), send(&net, &batch));
    let _rest: Vec<_> = (0..8).map(|_| root.describe_request().send()).collect();
    rig.clients[client].deaf = true;
    rig.settle();
    rig.device.holds = false;
    rig.settle();
    assert!(!rig.server.wants_input(rig.clients[client].id), "it is held back");
    let text = POLICY.replace("rights = [\"get\", \"list\", \"put\"]", "rights = [\"get\"]");
    rig.server.set_policy(Policy::parse(&text).unwrap());
    assert_eq!(rig.wait(delete(&all, "net/k", If::Any)).unwrap(), "deleted");
    rig.clients[client].deaf = false;
    assert!(rig.wait(first).unwrap().starts_with("at 0: conflict "));
    let second = rig.wait(second).unwrap();
    assert_eq!(rig.wait(get(&all, "net/k")).unwrap(), "absent", "{second}");
    assert_eq!(second, "ACCESS_DENIED");
    assert_eq!(rig.wait(send(&net, &batch)).unwrap(), "ACCESS_DENIED");
}
