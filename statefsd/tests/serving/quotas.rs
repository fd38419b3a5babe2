//! What quotas let through, whoever writes and however fast.

use policy::{Policy, Prefix};
use statefs::{Durability, directory};
use statefsd::{Event, Used};

use crate::batches::{Batch, send};
use crate::rig::{If, Rig, delete, get, put, version};

const DURABLE: Durability = Durability::Durable;
const BUFFERED: Durability = Durability::Buffered;

/// The rig's policy, where what is below `/state/net` has a quota.
fn policy(quota: &str) -> Policy {
    let line = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let text = crate::rig::POLICY.replace(line, &format!("{line}quota = {{ {quota} }}\n"));
    assert!(text.contains("quota"));
    Policy::parse(&text).unwrap()
}

fn used(rig: &Rig) -> Used {
    rig.server.usage(&Prefix::parse("/state/net").unwrap()).unwrap().used
}

#[test]
fn haste_passes_no_quota() {
    for durability in [DURABLE, BUFFERED, Durability::Strict] {
        let mut rig = Rig::open();
        rig.server.set_policy(policy("keys = 4"));
        let (net, keeper) = (rig.connect("net"), rig.connect("keeper"));
        let (net, keeper) = (rig.directory(net, "/state/net"), rig.directory(keeper, "/state"));
        // Nothing becomes durable while all of them are asked for, by two services.
        rig.device.holds = true;
        let keys = ["1", "2", "3", "4", "5"];
        let operations = ["b1", "b2", "b3", "b4", "b5"].map(|key| (key, Some(&b"v"[..]), If::Any));
        let (two, three) = operations.split_at(2);
        let batch = |operations| send(&net, &Batch { operations, durability, token: b"" });
        let (first, second) = (batch(two), batch(three));
        let own = keys.map(|key| put(&net, &format!("n{key}"), b"v", If::Any, durability));
        let theirs =
            keys.map(|key| put(&keeper, &format!("net/k{key}"), b"v", If::Any, durability));
        let elsewhere = put(&keeper, "elsewhere", b"v", If::Any, durability);
        rig.settle();
        rig.device.holds = false;
        let mut taken = 0;
        for answer in own.into_iter().chain(theirs) {
            match rig.wait(answer).unwrap().as_str() {
                "QUOTA_EXCEEDED: a quota allows 4 keys" => {}
                other => taken += usize::from(version(other) > 0),
            }
        }
        assert_eq!(taken, 2, "{durability:?}");
        assert!(rig.wait(first).unwrap().starts_with("applied ["), "{durability:?}");
        // As a whole: two of its three keys would have had room.
        assert_eq!(rig.wait(second).unwrap(), "QUOTA_EXCEEDED: a quota allows 4 keys");
        version(&rig.wait(elsewhere).unwrap());
        assert_eq!(used(&rig).keys, 4);
    }
}

#[test]
fn a_refused_write_changes_nothing_and_a_delete_always_works() {
    let mut rig = Rig::open();
    rig.server.set_policy(policy("bytes = 60, value_max = 30"));
    let keeper = rig.connect("keeper");
    let directory = rig.directory(keeper, "/state/net");
    let put = |rig: &mut Rig, key: &str, bytes: usize| {
        rig.wait(put(&directory, key, &vec![b'v'; bytes], If::Any, DURABLE)).unwrap()
    };
    // A path has 12 bytes here.
    version(&put(&mut rig, "a", 30));
    assert_eq!(used(&rig), Used { bytes: 42, keys: 1 });
    let refused = "QUOTA_EXCEEDED: a quota allows 60 bytes of keys and values";
    assert_eq!(put(&mut rig, "b", 7), refused);
    assert_eq!(rig.wait(get(&directory, "b")).unwrap(), "absent");
    // The daemon's log tells who it was.
    let told = rig.events.iter().find_map(|event| match event {
        Event::OverQuota(denied) => Some(denied),
        _ => None,
    });
    let told = told.expect("it is told");
    assert_eq!((told.service.as_deref(), &*told.path), (Some("keeper"), "/state/net/b"));
    assert_eq!(told.reason, refused.strip_prefix("QUOTA_EXCEEDED: ").unwrap());
    assert_eq!(used(&rig), Used { bytes: 42, keys: 1 });
    version(&put(&mut rig, "b", 6));
    assert_eq!(put(&mut rig, "b", 31), "VALUE_TOO_LARGE: a quota allows values of 30 bytes");
    // Less than before always passes, as much as before too.
    version(&put(&mut rig, "b", 6));
    version(&put(&mut rig, "a", 29));
    assert_eq!(rig.wait(delete(&directory, "a", If::Any)).unwrap(), "deleted");
    version(&put(&mut rig, "c", 30));
    assert_eq!(used(&rig), Used { bytes: 60, keys: 2 });
}

/// The puts before it in the batch may be where no quota is, or replace what is there.
#[test]
fn a_refused_batch_is_told_with_the_key_that_passes_the_quota() {
    for (quota, refused, path) in [
        ("keys = 2", "QUOTA_EXCEEDED: a quota allows 2 keys", "/state/net/c"),
        (
            "bytes = 26",
            "QUOTA_EXCEEDED: a quota allows 26 bytes of keys and values",
            "/state/net/b",
        ),
        ("value_max = 2", "VALUE_TOO_LARGE: a quota allows values of 2 bytes", "/state/net/b"),
    ] {
        let mut rig = Rig::open();
        let keeper = rig.connect("keeper");
        let directory = rig.directory(keeper, "/state");
        for key in ["net/a", "net/b"] {
            version(&rig.wait(put(&directory, key, b"1", If::Any, DURABLE)).unwrap());
        }
        rig.server.set_policy(policy(quota));
        let operations: [(&str, Option<&[u8]>, If); 5] = [
            ("elsewhere", Some(b"1"), If::Any),
            ("net/none", None, If::Any),
            ("net/a", Some(b"2"), If::Any),
            ("net/b", Some(b"123"), If::Any),
            ("net/c", Some(b"1"), If::Any),
        ];
        let batch = Batch { operations: &operations, durability: DURABLE, token: b"" };
        assert_eq!(rig.wait(send(&directory, &batch)).unwrap(), refused);
        let told = rig.events.iter().find_map(|event| match event {
            Event::OverQuota(denied) => Some(&*denied.path),
            _ => None,
        });
        assert_eq!(told, Some(path), "{quota}");
    }
}

#[test]
fn a_policy_that_allows_less_lets_use_shrink_and_not_grow() {
    let mut rig = Rig::open();
    let keeper = rig.connect("keeper");
    let directory = rig.directory(keeper, "/state/net");
    for key in ["a", "b", "c"] {
        version(&rig.wait(put(&directory, key, b"12345678", If::Any, DURABLE)).unwrap());
    }
    rig.server.set_policy(policy("bytes = 50"));
    let refused = "QUOTA_EXCEEDED: a quota allows 50 bytes of keys and values";
    let check = |rig: &mut Rig| {
        assert_eq!(used(rig), Used { bytes: 60, keys: 3 });
        let keeper = rig.connect("keeper");
        let directory = rig.directory(keeper, "/state/net");
        let more = put(&directory, "a", b"123456789", If::Any, DURABLE);
        assert_eq!(rig.wait(more).unwrap(), refused);
        version(&rig.wait(put(&directory, "a", b"87654321", If::Any, DURABLE)).unwrap());
    };
    check(&mut rig);
    // What is charged is counted from what the volume holds.
    let mut rig = rig.restart();
    rig.server.set_policy(policy("bytes = 50"));
    rig.settle();
    check(&mut rig);
    let keeper = rig.connect("keeper");
    let directory = rig.directory(keeper, "/state/net");
    assert_eq!(rig.wait(delete(&directory, "a", If::Any)).unwrap(), "deleted");
    version(&rig.wait(put(&directory, "b", b"123456789", If::Any, DURABLE)).unwrap());
    assert_eq!(used(&rig), Used { bytes: 41, keys: 2 });
}

/// `bytes keys`, and `prefix bytes/max keys/max value` for each quota.
fn usage(rig: &mut Rig, directory: &directory::Client, prefix: &str) -> Vec<String> {
    let mut request = directory.usage_request();
    request.get().set_prefix(prefix);
    let answer = match rig.wait(request.send().promise).unwrap() {
        Ok(answer) => answer,
        Err(error) => return vec![error.extra],
    };
    let usage = answer.get().unwrap();
    let mut told = vec![format!("{} {}", usage.get_bytes(), usage.get_keys())];
    for quota in usage.get_quotas().unwrap() {
        let prefix = quota.get_prefix().unwrap().to_str().unwrap();
        let max = |max: u64| if max == u64::MAX { "-".into() } else { max.to_string() };
        told.push(format!(
            "{prefix} {}/{} {}/{} {}",
            quota.get_bytes_used(),
            max(quota.get_bytes_max()),
            quota.get_keys_used(),
            max(quota.get_keys_max()),
            max(quota.get_value_bytes_max()),
        ));
    }
    told
}

#[test]
fn usage_is_told_to_who_may_list_all_of_it() {
    let mut rig = Rig::open();
    rig.server.set_policy(policy("bytes = 1000, keys = 7"));
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    for (key, value) in [("net/a", "12345"), ("net/secret/b", ""), ("host", "h")] {
        version(&rig.wait(put(&all, key, value.as_bytes(), If::Any, DURABLE)).unwrap());
    }
    let (a, b, host) =
        ("/state/net/a".len() + 5, "/state/net/secret/b".len(), "/state/host".len() + 1);
    let quota = format!("/state/net {}/1000 2/7 -", a + b);
    assert_eq!(usage(&mut rig, &all, ""), [format!("{} 3", a + b + host), quota.clone()]);
    assert_eq!(usage(&mut rig, &all, "net/secret"), [format!("{b} 1"), quota]);
    assert_eq!(usage(&mut rig, &all, "host"), [format!("{host} 1")]);
    assert_eq!(usage(&mut rig, &all, "absent"), ["0 0"]);
    assert!(usage(&mut rig, &all, "a//b")[0].starts_with("INVALID_KEY: "));
    // Of the subtree of `net` a ceiling withholds a part.
    let net = rig.connect("net");
    let part = rig.directory(net, "/state/net");
    assert_eq!(usage(&mut rig, &part, ""), ["ACCESS_DENIED"]);
    assert_eq!(usage(&mut rig, &part, "secret"), ["ACCESS_DENIED"]);
    assert_eq!(usage(&mut rig, &part, "a").len(), 2);
}
