//! Looking after a store while it serves.

use std::collections::BTreeMap;
use std::future::Future;

use policy::Policy;
use statefs::{Durability, admin, state_fs};

use crate::rig::{If, Rig, get, put, version};

const DURABLE: Durability = Durability::Durable;

/// The rig's policy, where `reader` may also look after the store with these rights.
pub(crate) fn policy(rights: &str) -> Policy {
    let grant = format!("[[grant]]\nto = \"reader\"\nprefix = \"/state\"\nrights = [{rights}]\n");
    Policy::parse(&crate::rig::POLICY.replace("[[ceiling]]", &format!("{grant}[[ceiling]]")))
        .unwrap()
}

pub(crate) const ALL: &str =
    "\"admin.stats\", \"admin.check\", \"admin.checkpoint\", \"admin.policy\"";

/// A rig with some values in it, and who looks after it.
fn rig() -> (Rig, admin::Client) {
    let mut limits = statefsd::Limits::default();
    // What is read comes from the device.
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(crate::rig::Device::formatted(), limits);
    rig.settle();
    rig.server.set_policy(policy(ALL));
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    for number in 0..20 {
        let value = format!("the-marked-value-{number:02}-{}", "x".repeat(500));
        let written = put(&directory, &format!("k{number}"), value.as_bytes(), If::Any, DURABLE);
        version(&rig.wait(written).unwrap());
    }
    let reader = rig.connect("reader");
    let admin = administer(&rig.root(reader));
    (rig, admin)
}

pub(crate) fn administer(root: &state_fs::Client) -> admin::Client {
    root.admin_request().send().pipeline.get_admin()
}

fn stats(rig: &mut Rig, admin: &admin::Client) -> BTreeMap<String, u64> {
    let answer = rig.wait(admin.stats_request().send().promise).unwrap().unwrap();
    let counters = answer.get().unwrap().get_counters().unwrap();
    let named = counters
        .iter()
        .map(|counter| (counter.get_name().unwrap().to_string().unwrap(), counter.get_value()));
    named.collect()
}

/// That a value is too long for a quota has the code of one that is too long for everybody, which is not counted.
#[test]
fn all_that_quotas_refuse_is_counted() {
    let mut rig = Rig::open();
    let line = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let quota = format!("{line}quota = {{ keys = 1, value_max = 4 }}\n");
    let stats_too = "rights = [\"list\", \"admin.stats\"]";
    let text = crate::rig::POLICY.replacen(line, &quota, 1).replace(
        "prefix = \"/state/net\"\nrights = [\"list\"]",
        &format!("prefix = \"/state\"\n{stats_too}"),
    );
    rig.server.set_policy(Policy::parse(&text).unwrap());
    let (net, reader) = (rig.connect("net"), rig.connect("reader"));
    let (net, admin) = (rig.directory(net, "/state/net"), administer(&rig.root(reader)));
    for (key, value, code) in [
        ("a", &[b'v'; 4][..], "version "),
        ("b", b"v", "QUOTA_EXCEEDED: a quota allows 1 keys"),
        ("a", &[b'v'; 5], "VALUE_TOO_LARGE: a quota allows values of 4 bytes"),
        ("a", &[b'v'; 65_537], "VALUE_TOO_LARGE: 65537 bytes"),
    ] {
        let told = rig.wait(put(&net, key, value, If::Any, DURABLE)).unwrap();
        assert!(told.starts_with(code), "{told}");
    }
    let long = crate::streams::writer(&net, "a", If::Any, 5);
    let told = crate::streams::done(&mut rig, &long);
    assert_eq!(told, "VALUE_TOO_LARGE: a quota allows values of 4 bytes");
    assert_eq!(stats(&mut rig, &admin)["quota_rejections_total"], 3);
}

/// `groups repaired damaged`, or why there was no check.
fn check(admin: &admin::Client, rate: u64) -> impl Future<Output = String> + use<> {
    let mut request = admin.check_request();
    request.get().set_bytes_per_second(rate);
    let answer = request.send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        let report = answer.get().unwrap();
        assert!(report.get_bytes_read() > 0, "what the log lies in was read");
        format!("{} repaired, {} damaged", report.get_repaired(), report.get_damaged())
    }
}

pub(crate) fn checkpoint(rig: &mut Rig, admin: &admin::Client) -> String {
    let answer = rig.wait(admin.checkpoint_request().send().promise).unwrap();
    answer.err().map_or_else(|| "done".into(), |error| error.extra)
}

fn reload(admin: &admin::Client) -> impl Future<Output = String> + use<> {
    use admin::reload_policy_results::Which;
    let answer = admin.reload_policy_request().send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            Which::Refused(reason) => format!("refused: {}", reason.unwrap().to_str().unwrap()),
            Which::Loaded(()) => "loaded".into(),
        }
    }
}

#[test]
fn each_method_needs_a_right_of_its_own() {
    for right in ["admin.stats", "admin.check", "admin.checkpoint", "admin.policy"] {
        let mut rig = Rig::open();
        rig.server.set_policy(policy(&format!("\"{right}\"")));
        let client = rig.connect("reader");
        let admin = administer(&rig.root(client));
        let answer = rig.wait(admin.stats_request().send().promise).unwrap().err();
        let told = [
            answer.map_or_else(|| "done".into(), |error| error.extra),
            rig.wait(check(&admin, 0)).unwrap(),
            checkpoint(&mut rig, &admin),
            rig.wait(reload(&admin)).unwrap(),
        ];
        let names = ["admin.stats", "admin.check", "admin.checkpoint", "admin.policy"];
        for (name, told) in names.iter().zip(told) {
            assert_eq!(told == "ACCESS_DENIED", *name != right, "{right} for {name}: {told}");
        }
        // What was granted then is asked for now.
        rig.server.set_policy(Policy::parse(crate::rig::POLICY).unwrap());
        assert_eq!(checkpoint(&mut rig, &admin), "ACCESS_DENIED");
    }
    let mut rig = Rig::open();
    for channel in ["keeper", "elsewhere"] {
        let client = rig.connect(channel);
        let request = rig.root(client).admin_request().send().promise;
        let error = rig.wait(request).unwrap().err().unwrap();
        assert_eq!(error.extra, "ACCESS_DENIED", "{channel}");
    }
}

#[test]
fn hello_tells_the_rights_of_administration_and_asking_is_no_refusal() {
    let mut rig = Rig::open();
    let channels = ["reader", "keeper", "elsewhere"];
    let roots = channels.map(|channel| {
        let client = rig.connect(channel);
        rig.root(client)
    });
    rig.server.set_policy(policy("\"admin.audit\", \"admin.stats\""));
    let told = |rig: &mut Rig, root: &state_fs::Client| {
        let mut request = root.hello_request();
        request.get().set_protocol(1);
        let answer = rig.wait(request.send().promise).unwrap().unwrap();
        let rights = answer.get().unwrap().get_admin_rights().unwrap();
        rights.iter().map(|right| right.unwrap().to_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut rig, &roots[0]), ["admin.stats", "admin.audit"]);
    assert_eq!(told(&mut rig, &roots[1]), [""; 0]);
    assert_eq!(told(&mut rig, &roots[2]), [""; 0]);
    rig.server.set_policy(Policy::parse(crate::rig::POLICY).unwrap());
    assert_eq!(told(&mut rig, &roots[0]), [""; 0], "it is of the policy of this moment");
    let denied = rig.events.iter().any(|event| matches!(event, statefsd::Event::Denied(_)));
    assert!(!denied, "{:?}", rig.events);
}

/// A name that the policy of the moment does not give is none: it stands for what the caller may do.
#[test]
fn hello_tells_the_name_that_the_policy_gives_now() {
    let (mut rig, _) = rig();
    let client = rig.connect("net");
    let root = rig.root(client);
    let name = |rig: &mut Rig| {
        let mut request = root.hello_request();
        request.get().set_protocol(1);
        let answer = rig.wait(request.send().promise).unwrap().unwrap();
        answer.get().unwrap().get_service_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(name(&mut rig), "net");
    for (text, told) in [
        ("version = 1\nservice.other.channel = 'net'\n", ""),
        ("version = 1\nservice.net.channel = 'elsewhere'\n", ""),
        ("version = 1\nservice.net.channel = 'net'\n", "net"),
    ] {
        rig.server.set_policy(Policy::parse(text).unwrap());
        assert_eq!(name(&mut rig), told, "{text}");
    }
}

#[test]
fn figures_are_those_of_the_server() {
    let (mut rig, admin) = rig();
    let told = stats(&mut rig, &admin);
    assert_eq!(told["keys"], 20);
    assert_eq!(told["connections"], 2);
    assert_eq!(told["mode{mode=\"healthy\"}"], 1);
    assert_eq!(told["mode{mode=\"read_only\"}"], 0);
    assert_eq!(told["requests_total{method=\"Directory.put\",outcome=\"ok\"}"], 20);
    let again = stats(&mut rig, &admin);
    assert_eq!(again["requests_total{method=\"Admin.stats\",outcome=\"ok\"}"], 1);
}

#[test]
fn a_check_repairs_what_one_copy_has_and_counts_what_none_has() {
    let (mut rig, admin) = rig();
    assert_eq!(rig.wait(check(&admin, 0)).unwrap(), "0 repaired, 0 damaged");
    assert_eq!(rig.device.damage_first(b"the-marked-value-07"), 1);
    assert_eq!(rig.wait(check(&admin, 0)).unwrap(), "1 repaired, 0 damaged");
    assert_eq!(rig.device.damage(b"the-marked-value-07"), 2, "it was repaired");
    assert_eq!(rig.device.damage(b"the-marked-value-11"), 2);
    // Two values, and the records of who wrote them.
    assert_eq!(rig.wait(check(&admin, 0)).unwrap(), "0 repaired, 4 damaged");
    // A value that is written over is no loss any more; a record stays one.
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    version(&rig.wait(put(&directory, "k7", b"new", If::Any, DURABLE)).unwrap());
    assert_eq!(rig.wait(check(&admin, 0)).unwrap(), "0 repaired, 3 damaged");
    assert_eq!(rig.wait(get(&directory, "k11")).unwrap(), "data loss");
    assert_eq!(rig.wait(get(&directory, "k12")).unwrap()[..19], *"the-marked-value-12");
}

#[test]
fn a_check_keeps_to_its_rate_and_another_one_joins_it() {
    let (mut rig, admin) = rig();
    checkpoint(&mut rig, &admin);
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    for number in 0..40 {
        let written = put(&directory, &format!("l{number}"), &[7; 60_000], If::Any, DURABLE);
        version(&rig.wait(written).unwrap());
    }
    let mut slow = std::pin::pin!(check(&admin, 1000));
    assert_eq!(rig.wait(slow.as_mut()), None, "it waits for its time");
    // Past the watermark, nothing else has a time.
    rig.now += 1000;
    assert_eq!(rig.wait(slow.as_mut()), None);
    let due = rig.server.poll(rig.now).deadline.expect("it says when it goes on");
    assert!(due > rig.now + 1000, "a segment takes longer than that at this rate");
    rig.now = due;
    assert_eq!(rig.wait(slow.as_mut()), None, "another segment");
    version(&rig.wait(put(&directory, "k", b"1", If::Any, DURABLE)).unwrap());
    let fast = check(&admin, 0);
    assert_eq!(rig.wait(fast).unwrap(), "0 repaired, 0 damaged");
    assert_eq!(rig.wait(slow).unwrap(), "0 repaired, 0 damaged");
}

#[test]
fn a_check_reports_by_the_policy_of_the_moment() {
    let (mut rig, admin) = rig();
    rig.device.holds_reads = true;
    let mut held = std::pin::pin!(check(&admin, 0));
    assert_eq!(rig.wait(held.as_mut()), None);
    rig.server.set_policy(policy("\"admin.stats\""));
    rig.device.holds_reads = false;
    assert_eq!(rig.wait(held).unwrap(), "ACCESS_DENIED");
}

#[test]
fn a_checkpoint_is_made_now_and_only_if_there_is_something_new() {
    let (mut rig, admin) = rig();
    let before = stats(&mut rig, &admin)["checkpoints_total"];
    assert_eq!(checkpoint(&mut rig, &admin), "done");
    assert_eq!(checkpoint(&mut rig, &admin), "done");
    assert_eq!(stats(&mut rig, &admin)["checkpoints_total"], before + 1);
    let mut rig = rig.restart();
    rig.settle();
    let report = rig.events.iter().find_map(|event| match event {
        statefsd::Event::Opened { report, .. } => Some(report),
        _ => None,
    });
    assert_eq!(report.unwrap().replayed_bytes, 0);
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    assert_eq!(rig.wait(get(&directory, "k12")).unwrap()[..19], *"the-marked-value-12");
}

#[test]
fn a_store_that_takes_no_writes_says_so() {
    let (mut rig, admin) = rig();
    rig.device.fails_flush = true;
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let written = put(&directory, "k", b"1", If::Any, DURABLE);
    assert_eq!(rig.wait(written).unwrap(), "indeterminate");
    let told = rig.wait(check(&admin, 0)).unwrap();
    assert!(told.starts_with("READ_ONLY: "), "{told}");
    assert!(checkpoint(&mut rig, &admin).starts_with("READ_ONLY: "));
    assert_eq!(stats(&mut rig, &admin)["mode{mode=\"read_only\"}"], 1);
}

#[test]
fn the_policy_is_read_anew_by_who_has_it() {
    let (mut rig, admin) = rig();
    let told = rig.wait(reload(&admin)).unwrap();
    assert_eq!(told, "refused: this server has its policy built in");
    rig.server.offer_policies();
    assert!(!rig.server.wants_policy());
    let (first, second) = (reload(&admin), reload(&admin));
    rig.settle();
    assert!(rig.server.wants_policy());
    assert!(!rig.server.wants_policy(), "told once");
    rig.server.keep_policy("policy.toml:3:1: no such thing".into());
    for answer in [first, second] {
        let told = rig.wait(answer).unwrap();
        assert_eq!(told, "refused: policy.toml:3:1: no such thing");
    }
    let last = reload(&admin);
    rig.settle();
    assert!(rig.server.wants_policy());
    rig.server.set_policy(Policy::parse(crate::rig::POLICY).unwrap());
    assert_eq!(rig.wait(last).unwrap(), "loaded", "though the right is gone with it");
    assert_eq!(rig.wait(reload(&admin)).unwrap(), "ACCESS_DENIED");
}
