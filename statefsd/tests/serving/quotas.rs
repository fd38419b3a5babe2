//! What quotas let through, whoever writes and however fast.

use policy::{Policy, Prefix};
use statefs::Durability;
use statefsd::Used;

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
        rig.server.set_policy(policy("keys = 3"));
        let (net, keeper) = (rig.connect("net"), rig.connect("keeper"));
        let (net, keeper) = (rig.directory(net, "/state/net"), rig.directory(keeper, "/state"));
        // Nothing becomes durable while all of them are asked for, by two services.
        rig.device.holds = true;
        let keys = ["1", "2", "3", "4", "5"];
        let own = keys.map(|key| put(&net, &format!("n{key}"), b"v", If::Any, durability));
        let theirs =
            keys.map(|key| put(&keeper, &format!("net/k{key}"), b"v", If::Any, durability));
        let elsewhere = put(&keeper, "elsewhere", b"v", If::Any, durability);
        rig.settle();
        rig.device.holds = false;
        let mut taken = 0;
        for answer in own.into_iter().chain(theirs) {
            match rig.wait(answer).unwrap().as_str() {
                "QUOTA_EXCEEDED: a quota allows 3 keys" => {}
                other => taken += usize::from(version(other) > 0),
            }
        }
        assert_eq!(taken, 3, "{durability:?}");
        version(&rig.wait(elsewhere).unwrap());
        assert_eq!(used(&rig).keys, 3);
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
    assert_eq!(used(&rig), Used { bytes: 42, keys: 1 });
    version(&put(&mut rig, "b", 6));
    assert_eq!(put(&mut rig, "b", 31), "QUOTA_EXCEEDED: a quota allows values of 30 bytes");
    // Less than before always passes, as much as before too.
    version(&put(&mut rig, "b", 6));
    version(&put(&mut rig, "a", 29));
    assert_eq!(rig.wait(delete(&directory, "a", If::Any)).unwrap(), "deleted");
    version(&put(&mut rig, "c", 30));
    assert_eq!(used(&rig), Used { bytes: 60, keys: 2 });
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
