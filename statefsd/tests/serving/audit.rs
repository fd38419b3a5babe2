//! Who did what to which key: recorded with each mutation, gathered of each refusal, and never a value.

use blockdev::{BlockDevice as _, MemoryDevice};
use journal::FormatOptions;
use policy::Policy;
use statefs::{AuditOutcome, AuditRing, Durability, admin, directory};
use statefsd::{Event, Limits, limits};

use crate::batches::{Batch, commit, send};
use crate::restrictions::restrict;
use crate::rig::{Ask, Device, If, POLICY, Rig, delete, get, list, put, version};
use crate::streams::{done, write, writer};

const DURABLE: Durability = Durability::Durable;

/// The rig's policy, where `reader` may read what was recorded.
fn policy() -> Policy {
    let grant = "[[grant]]\nto = \"reader\"\nprefix = \"/state\"\nrights = [\"admin.audit\"]\n";
    Policy::parse(&POLICY.replace("[[ceiling]]", &format!("{grant}[[ceiling]]"))).unwrap()
}

fn rig(limits: Limits) -> Rig {
    watched(Rig::new(Device::formatted(), limits))
}

fn watched(mut rig: Rig) -> Rig {
    rig.server.set_policy(policy());
    rig.server.set_wall_clock(0, 1_700_000_000_000);
    rig.settle();
    rig
}

fn auditor(rig: &mut Rig) -> admin::Client {
    let client = rig.connect("reader");
    rig.root(client).admin_request().send().pipeline.get_admin()
}

fn all(rig: &mut Rig) -> directory::Client {
    let keeper = rig.connect("keeper");
    rig.directory(keeper, "/state")
}

/// One page: its lines, `next` and `oldest`.
fn page(
    rig: &mut Rig,
    admin: &admin::Client,
    ring: AuditRing,
    after: u64,
    limit: u32,
) -> (Vec<String>, u64, u64) {
    let mut request = admin.audit_request();
    request.get().set_ring(ring);
    request.get().set_after(after);
    request.get().set_limit(limit);
    let answer = match rig.wait(request.send().promise).unwrap() {
        Ok(answer) => answer,
        Err(error) => return (vec![error.extra], 0, 0),
    };
    let page = answer.get().unwrap();
    let text = |text: Result<capnp::text::Reader<'_>, capnp::Error>| {
        text.unwrap().to_str().unwrap().to_owned()
    };
    let lines = page.get_records().unwrap().iter().map(|record| {
        let outcome = match record.get_outcome().unwrap() {
            AuditOutcome::Applied => "applied",
            AuditOutcome::Denied => "denied",
            AuditOutcome::Unknown => "unknown",
        };
        let (who, what) = (text(record.get_service()), text(record.get_operation()));
        let mut line = format!("{} {outcome} {who} {what}", record.get_sequence());
        line += &format!(" {} ({})", text(record.get_key()), text(record.get_rule()));
        if record.get_version() > 0 {
            line += &format!(" version {}", record.get_version());
        }
        if record.get_repeats() > 0 {
            line += &format!(" +{}", record.get_repeats());
        }
        line
    });
    (lines.collect(), page.get_next(), page.get_oldest())
}

fn mutations(rig: &mut Rig, admin: &admin::Client) -> Vec<String> {
    page(rig, admin, AuditRing::Mutations, 0, 0).0
}

fn denials(rig: &mut Rig, admin: &admin::Client) -> Vec<String> {
    page(rig, admin, AuditRing::Denials, 0, 0).0
}

/// Lets what was gathered go to the medium.
fn written(rig: &mut Rig) {
    for _ in 0..3 {
        rig.now += limits::AUDIT_WRITE_MS;
        rig.settle();
    }
}

#[test]
fn each_change_has_its_record_and_nothing_else_has() {
    let mut rig = rig(Limits::default());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    let first = rig.wait(put(&directory, "a", b"hunter2", If::Any, DURABLE)).unwrap();
    let gone = put(&directory, "a", b"hunter3", If::Absent, DURABLE);
    assert!(rig.wait(gone).unwrap().starts_with("conflict"));
    assert_eq!(rig.wait(delete(&directory, "none", If::Any)).unwrap(), "absent");
    assert_eq!(rig.wait(get(&directory, "a")).unwrap(), "hunter2");
    assert_eq!(rig.wait(delete(&directory, "a", If::Any)).unwrap(), "deleted");
    let operations: [(&str, Option<&[u8]>, If); 3] = [
        ("b", Some(b"hunter4"), If::Absent),
        ("none", None, If::Any),
        ("c", Some(b"hunter5"), If::Any),
    ];
    let with = |token| Batch { operations: &operations, durability: DURABLE, token };
    let both = rig.wait(send(&directory, &with(&[7; 16]))).unwrap();
    // Sent again it is the same batch, which was recorded.
    assert_eq!(rig.wait(send(&directory, &with(&[7; 16]))).unwrap(), both);
    let upload = writer(&directory, "large", If::Any, 0);
    for _ in 0..3 {
        assert_eq!(write(&mut rig, &upload, &[b'x'; 60_000]), "");
    }
    assert_eq!(mutations(&mut rig, &admin).len(), 5, "nothing of it is visible yet");
    let large = done(&mut rig, &upload);
    let both: Vec<&str> =
        both.trim_start_matches("applied [").trim_end_matches(']').split(", ").collect();
    assert_eq!(
        mutations(&mut rig, &admin),
        [
            format!("1 applied keeper put /state/a (grant at line 9) {first}"),
            "2 applied keeper delete /state/a (grant at line 9)".into(),
            format!("3 applied keeper put /state/b (grant at line 9) version {}", both[0]),
            "4 applied keeper delete /state/none (grant at line 9)".into(),
            format!("5 applied keeper put /state/c (grant at line 9) version {}", both[2]),
            format!("6 applied keeper put /state/large (grant at line 9) {large}"),
        ]
    );
    assert!(denials(&mut rig, &admin).is_empty());
    // Read in pages, from anywhere, also out of the middle of a batch.
    let two = page(&mut rig, &admin, AuditRing::Mutations, 3, 2);
    assert_eq!((two.0.len(), &two.0[0][..2], two.1, two.2), (2, "4 ", 5, 1));
    let last = page(&mut rig, &admin, AuditRing::Mutations, 5, 2);
    assert_eq!((last.0.len(), last.1), (1, 0));
    assert_eq!(page(&mut rig, &admin, AuditRing::Mutations, u64::MAX, 2), (vec![], 0, 1));
    // Nor are they keys of anybody, or lost with the process.
    let mut rig = watched(rig.restart());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    version(&rig.wait(put(&directory, "d", b"hunter6", If::Any, DURABLE)).unwrap());
    let told = mutations(&mut rig, &admin);
    assert!(told.len() == 7 && told[6].starts_with("7 applied keeper put /state/d "), "{told:?}");
    let keys = rig.wait(crate::rig::list(
        &directory,
        crate::rig::Ask { keys_only: true, ..Default::default() },
    ));
    assert_eq!(keys.unwrap(), ["b", "c", "d", "large"]);
    assert!(!format!("{told:?}").contains("hunter"));
}

/// A page is on its way from the device when the policy changes: who may not audit any more is not told it.
#[test]
fn a_page_that_was_held_back_is_told_by_the_policy_of_the_moment() {
    for (taken_away, fails) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut rig = rig(Limits::default());
        let all = all(&mut rig);
        version(&rig.wait(put(&all, "k", b"1", If::Any, DURABLE)).unwrap());
        let admin = auditor(&mut rig);
        assert_eq!(mutations(&mut rig, &admin).len(), 1);
        rig.device.holds = true;
        let held = admin.audit_request().send().promise;
        rig.settle();
        if taken_away {
            rig.server.set_policy(Policy::parse(POLICY).unwrap());
        }
        (rig.device.holds, rig.device.fails_read) = (false, fails);
        let told = rig.wait(held).unwrap().map(drop).map_err(|error| error.extra);
        let told = told.map_err(|told| told.split(':').next().unwrap_or_default().to_owned());
        let expected = match (taken_away, fails) {
            (true, _) => Err("ACCESS_DENIED".into()),
            (false, true) => Err("IO_ERROR".into()),
            (false, false) => Ok(()),
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn refusals_are_recorded_with_what_they_lacked() {
    let mut rig = rig(Limits::default());
    let admin = auditor(&mut rig);
    let (net, elsewhere) = (rig.connect("net"), rig.connect("elsewhere"));
    let net = rig.directory(net, "/state/net");
    // The first is written at once, those that follow some seconds later together.
    for key in ["secret/psk", "secret/psk", "secret/psk", "secret/a", "secret/b", "secret/c"] {
        assert_eq!(rig.wait(get(&net, key)).unwrap(), "ACCESS_DENIED");
    }
    for key in ["secret/d", "secret/e"] {
        assert_eq!(rig.wait(get(&net, key)).unwrap(), "ACCESS_DENIED");
    }
    assert_eq!(rig.wait(delete(&net, "a", If::Any)).unwrap(), "ACCESS_DENIED");
    let stranger = rig.directory(elsewhere, "/state");
    assert_eq!(rig.wait(get(&stranger, "a")).unwrap(), "ACCESS_DENIED");
    written(&mut rig);
    let told = denials(&mut rig, &admin);
    let hidden = |number: u32, key: &str, more: &str| {
        let rule = "the ceiling at line 29 keeps [\"get\"] from \"net\"";
        format!("{number} denied net get /state/net/secret/{key} ({rule}){more}")
    };
    let lacks = "no grant to = \"net\", prefix = \"/state/net/a\", rights = [\"delete\"]";
    let nobody = "the policy names no service on channel \"elsewhere\" with uid 1000";
    assert_eq!(
        told,
        [
            hidden(1, "psk", ""),
            hidden(2, "psk", " +1"),
            hidden(3, "a", ""),
            hidden(4, "b", ""),
            hidden(5, "c", " +2"),
            format!("6 denied net delete /state/net/a ({lacks})"),
            format!("7 denied  get /state ({nobody})"),
        ]
    );
    // A quota refuses too.
    let quota = POLICY.replacen(
        "rights = [\"get\", \"list\", \"put\"]",
        "rights = [\"get\", \"list\", \"put\"]\nquota = { keys = 1 }",
        1,
    );
    let grant = "[[grant]]\nto = \"reader\"\nprefix = \"/state\"\nrights = [\"admin.audit\"]\n";
    let quota = quota.replace("[[ceiling]]", &format!("{grant}[[ceiling]]"));
    rig.server.set_policy(Policy::parse(&quota).unwrap());
    version(&rig.wait(put(&net, "a", b"1", If::Any, DURABLE)).unwrap());
    assert!(
        rig.wait(put(&net, "b", b"1", If::Any, DURABLE)).unwrap().starts_with("QUOTA_EXCEEDED")
    );
    written(&mut rig);
    assert_eq!(
        denials(&mut rig, &admin)[7],
        "8 denied net put /state/net/b (a quota allows 1 keys)"
    );
    // Who may not read them is refused, and recorded.
    let keeper = rig.connect("keeper");
    let request = rig.root(keeper).admin_request().send().promise;
    assert_eq!(rig.wait(request).unwrap().err().unwrap().extra, "ACCESS_DENIED");
    written(&mut rig);
    // That call does not say which right it is for.
    let lacks = "no grant to = \"keeper\", prefix = \"/state\", of a right that begins with admin.";
    assert_eq!(denials(&mut rig, &admin)[8], format!("9 denied keeper admin /state ({lacks})"));
    rig.server.set_policy(Policy::parse(POLICY).unwrap());
    assert_eq!(denials(&mut rig, &admin), ["ACCESS_DENIED"]);
}

/// However many requests are refused, and however different they are, a device is written a few times a minute.
#[test]
fn a_flood_of_refusals_does_not_wear_the_device() {
    let mut rig = rig(Limits::default());
    let admin = auditor(&mut rig);
    let net = rig.connect("net");
    let net = rig.directory(net, "/state/net");
    written(&mut rig);
    let before = rig.device.written_bytes;
    let (minutes, each_second) = (2, 50);
    for second in 0..60 * minutes {
        for number in 0..each_second {
            let key = format!("secret/{second}/{number}");
            assert_eq!(rig.wait(get(&net, &key)).unwrap(), "ACCESS_DENIED");
        }
        rig.now += 1000;
        rig.settle();
    }
    let bytes = rig.device.written_bytes - before;
    // In each interval one group of two blocks and the watermark behind it, in two copies.
    let intervals = 60_000 * minutes / limits::AUDIT_WRITE_MS + 1;
    assert!(bytes > 0 && bytes <= intervals * 2 * 3 * 4096, "{bytes} bytes");
    written(&mut rig);
    // Every one of them is told or counted.
    let (mut told, mut after) = (Vec::new(), 0);
    loop {
        let (lines, next, oldest) = page(&mut rig, &admin, AuditRing::Denials, after, 0);
        assert_eq!(oldest, 1, "the ring still holds all");
        told.extend(lines);
        if next == 0 {
            break;
        }
        after = next;
    }
    let counted = told
        .iter()
        .map(|line| 1 + line.rsplit_once(" +").map_or(0, |(_, more)| more.parse::<u64>().unwrap()));
    assert_eq!(counted.sum::<u64>(), 60 * minutes * each_second);
    assert!(told.len() as u64 <= (intervals + 1) * limits::AUDIT_REFUSALS_ALIKE_MAX as u64);
}

/// Is refused everything that there is to ask for, twenty times.
fn flood(rig: &mut Rig, loud: &directory::Client) {
    for number in 0..20 {
        let key = format!("boot/{number}");
        for refused in [
            rig.wait(get(loud, &key)).unwrap(),
            rig.wait(put(loud, &key, b"v", If::Any, DURABLE)).unwrap(),
            rig.wait(delete(loud, &key, If::Any)).unwrap(),
            rig.wait(list(loud, Ask { prefix: &key, ..Ask::default() })).unwrap().concat(),
        ] {
            assert_eq!(refused, "ACCESS_DENIED");
        }
    }
}

/// Who is refused everything that there is to ask for leaves room for what others are refused.
#[test]
fn a_flood_of_all_sorts_drowns_nobody_else() {
    let mut rig = rig(Limits::default());
    let admin = auditor(&mut rig);
    let (loud, quiet) = (rig.connect("net"), rig.connect("keeper"));
    let loud = rig.directory(loud, "/state");
    let root = rig.root(quiet);
    // The first refusal is written at once.
    assert_eq!(rig.wait(get(&loud, "boot/0")).unwrap(), "ACCESS_DENIED");
    flood(&mut rig, &loud);
    let refused = rig.wait(root.admin_request().send().promise).unwrap().err().unwrap();
    assert_eq!(refused.extra, "ACCESS_DENIED");
    written(&mut rig);
    let told = denials(&mut rig, &admin);
    assert!(told.iter().any(|line| line.contains(" denied keeper admin /state ")), "{told:#?}");
    let of_loud = told.iter().filter(|line| line.contains(" denied net ")).count();
    assert!(of_loud <= 1 + limits::AUDIT_REFUSALS_OF_SERVICE_MAX, "{told:#?}");
}

/// Two who are refused everything could have all the records. Who has one is counted on it, and who has none gets one of theirs.
#[test]
fn two_floods_of_all_sorts_drown_nobody_else_either() {
    let mut rig = rig(Limits::default());
    let admin = auditor(&mut rig);
    let (one, other) = (rig.connect("net"), rig.connect("reader"));
    let (one, other) = (rig.directory(one, "/state"), rig.directory(other, "/state"));
    let (stranger, keeper) = (rig.connect("elsewhere"), rig.connect("keeper"));
    let (stranger, keeper) = (rig.root(stranger), rig.root(keeper));
    let refuse = |rig: &mut Rig, key: &str| {
        let open = crate::rig::open(&stranger, &format!("/state/{key}"));
        assert_eq!(rig.wait(get(&open, "k")).unwrap(), "ACCESS_DENIED");
    };
    // The first refusal is written at once.
    assert_eq!(rig.wait(get(&one, "boot/0")).unwrap(), "ACCESS_DENIED");
    refuse(&mut rig, "a");
    flood(&mut rig, &one);
    flood(&mut rig, &other);
    refuse(&mut rig, "b");
    let refused = rig.wait(keeper.admin_request().send().promise).unwrap().err().unwrap();
    assert_eq!(refused.extra, "ACCESS_DENIED");
    written(&mut rig);
    let told = denials(&mut rig, &admin);
    let once = |which: &str, more: &str| {
        let mut those = told.iter().filter(|line| line.contains(which));
        let first = those.next().unwrap_or_else(|| panic!("no {which} in {told:#?}"));
        assert!(first.ends_with(more) && those.next().is_none(), "{told:#?}");
    };
    once(" denied  get /state/a ", ") +1");
    once(" denied keeper admin /state ", ")");
    let counted = told.iter().map(|line| {
        let more = line.rsplit_once(" +").map_or(0, |(_, more)| more.parse::<u64>().unwrap());
        (line.contains(" denied net "), line.contains(" denied reader "), 1 + more)
    });
    let counted: Vec<_> = counted.collect();
    let sum = |is: fn(&(bool, bool, u64)) -> bool| {
        counted.iter().filter(|it| is(it)).map(|(.., count)| count).sum::<u64>()
    };
    assert_eq!((sum(|it| it.0), sum(|it| it.1)), (81, 80), "each is counted on its own: {told:#?}");
}

#[test]
fn a_ring_forgets_its_oldest_and_its_numbers_go_on() {
    let mut rig = rig(Limits::default());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    let batch = |rig: &mut Rig, from: u32, count: u32| {
        let keys: Vec<String> = (from..from + count).map(|number| format!("k{number}")).collect();
        let operations: Vec<(&str, Option<&[u8]>, If)> =
            keys.iter().map(|key| (&**key, Some(&b"v"[..]), If::Any)).collect();
        let answer = rig.wait(commit(&directory, &operations)).unwrap();
        assert!(answer.starts_with("applied"), "{answer}");
    };
    for round in 0..80 {
        batch(&mut rig, round * 100, 100);
    }
    let (lines, next, oldest) = page(&mut rig, &admin, AuditRing::Mutations, 0, 0);
    // A batch takes about 2 KiB in notes of a ring of 64 KiB.
    assert!((4001..=6001).contains(&oldest), "{oldest}");
    assert_eq!((lines.len(), next), (1024, oldest + 1023));
    assert!(lines[0].starts_with(&format!("{oldest} applied keeper put /state/k{} ", oldest - 1)));
    assert_eq!(page(&mut rig, &admin, AuditRing::Mutations, 7999, 0).0.len(), 1);
    let mut rig = watched(rig.restart());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    assert_eq!(page(&mut rig, &admin, AuditRing::Mutations, 0, 1).2, oldest);
    version(&rig.wait(put(&directory, "k", b"v", If::Any, DURABLE)).unwrap());
    let (lines, _, _) = page(&mut rig, &admin, AuditRing::Mutations, 8000, 0);
    assert!(lines.len() == 1 && lines[0].starts_with("8001 applied keeper put /state/k "));
}

/// Room for the records is kept back at all times, so they take nothing of what a delete needs.
#[test]
fn on_a_full_volume_deletes_work_and_are_recorded() {
    let mut rig = rig(Limits::default());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    let mut keys = 0;
    let full = loop {
        let answer = put(&directory, &format!("k{keys}"), &[7; 40_000], If::Any, DURABLE);
        let answer = rig.wait(answer).unwrap();
        if !answer.starts_with("version") {
            break answer;
        }
        keys += 1;
    };
    assert!(full.starts_with("NO_SPACE: ") && keys > 50, "{full} after {keys}");
    // Fill what is left with as little as a key can be, then delete that: each record is longer than what goes.
    let mut small = 0;
    while rig
        .wait(put(&directory, &format!("s{small}"), b"", If::Any, DURABLE))
        .unwrap()
        .starts_with("version")
    {
        small += 1;
    }
    for number in 0..small {
        let answer = rig.wait(delete(&directory, &format!("s{number}"), If::Any)).unwrap();
        assert_eq!(answer, "deleted", "s{number}");
    }
    for number in 0..keys {
        let answer = rig.wait(delete(&directory, &format!("k{number}"), If::Any)).unwrap();
        assert_eq!(answer, "deleted", "k{number}");
    }
    let all = keys + small;
    let (mut last, mut after) = (String::new(), 0);
    loop {
        let (lines, next, _) = page(&mut rig, &admin, AuditRing::Mutations, after, 0);
        last = lines.last().cloned().unwrap_or(last);
        if next == 0 {
            break;
        }
        after = next;
    }
    let expected = format!("{} applied keeper delete /state/k{} ", 2 * all, keys - 1);
    assert!(last.starts_with(&expected), "{last}");
}

#[test]
fn what_was_gathered_is_written_when_the_server_ends() {
    let mut rig = rig(Limits::default());
    let net = rig.connect("net");
    let net = rig.directory(net, "/state/net");
    assert_eq!(rig.wait(get(&net, "secret/1")).unwrap(), "ACCESS_DENIED");
    written(&mut rig);
    assert_eq!(rig.wait(get(&net, "secret/2")).unwrap(), "ACCESS_DENIED");
    assert_eq!(rig.wait(get(&net, "secret/3")).unwrap(), "ACCESS_DENIED");
    rig.server.shut_down();
    rig.settle();
    assert!(rig.server.is_drained());
    let mut rig = watched(rig.restart());
    let admin = auditor(&mut rig);
    assert_eq!(denials(&mut rig, &admin).len(), 3);
}

/// Neither a check that takes years nor a client that reads none of its answers keeps a server from its end.
#[test]
fn what_was_gathered_is_written_at_the_end_whatever_call_has_none() {
    for deaf in [false, true] {
        let mut limits = Limits::default();
        // What is read comes from the device.
        limits.journal.cache_bytes = 0;
        let mut rig = rig(limits);
        rig.server.set_policy(crate::admin::policy("\"admin.audit\", \"admin.check\""));
        let (net, all) = (rig.connect("net"), all(&mut rig));
        let net = rig.directory(net, "/state/net");
        version(&rig.wait(put(&all, "large", &[7; 60_000], If::Any, DURABLE)).unwrap());
        assert_eq!(rig.wait(get(&net, "secret/1")).unwrap(), "ACCESS_DENIED");
        written(&mut rig);
        let client = rig.connect("keeper");
        let own = rig.directory(client, "/state");
        let mut check = auditor(&mut rig).check_request();
        check.get().set_bytes_per_second(1);
        rig.settle();
        let check = (!deaf).then(|| check.send().promise);
        rig.clients[client].deaf = deaf;
        let _gets: Vec<_> = (0..64).filter(|_| deaf).map(|_| get(&own, "large")).collect();
        rig.settle();
        assert_eq!(rig.wait(get(&net, "secret/2")).unwrap(), "ACCESS_DENIED");
        rig.server.shut_down();
        rig.settle();
        assert_eq!(rig.server.is_synced(), !deaf, "who may yet read is waited for");
        let begun = rig.now;
        while !rig.server.is_synced() {
            rig.now = rig.server.poll(rig.now).deadline.expect("it says when it goes on");
            assert!(rig.now <= begun + limits.stall_ms, "and for no longer than that");
            rig.settle();
        }
        assert_eq!(rig.server.is_over(rig.clients[client].id), deaf);
        if let Some(check) = check {
            let refused = rig.wait(check).unwrap().err().expect("it is not at its end");
            assert_eq!(refused.extra, "OVERLOADED: the server ends");
        }
        let mut rig = watched(rig.restart());
        let admin = auditor(&mut rig);
        assert_eq!(denials(&mut rig, &admin).len(), 2);
    }
}

#[test]
fn records_that_damage_took_are_missing_from_the_numbers() {
    let mut rig = rig(Limits::default());
    let directory = all(&mut rig);
    for key in ["one", "two-which-is-harmed", "three"] {
        version(&rig.wait(put(&directory, key, b"v", If::Any, DURABLE)).unwrap());
    }
    let mut rig = watched(rig.restart());
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    // The key is in its own record and in the one of the audit, in two copies.
    assert_eq!(rig.device.damage(b"two-which-is-harmed"), 4);
    let told = mutations(&mut rig, &admin);
    assert!(told[0].starts_with("1 ") && told[1].starts_with("3 ") && told.len() == 2, "{told:?}");
    assert_eq!(rig.wait(get(&directory, "two-which-is-harmed")).unwrap(), "data loss");
}

#[test]
fn a_number_that_damage_took_is_not_given_again() {
    let mut rig = rig(Limits::default());
    let directory = all(&mut rig);
    for key in ["one", "two", "three-which-is-harmed"] {
        version(&rig.wait(put(&directory, key, b"v", If::Any, Durability::Strict)).unwrap());
    }
    assert_eq!(rig.device.damage(b"three-which-is-harmed"), 4);
    for written in 1..3 {
        rig = watched(rig.restart());
        let (directory, admin) = (all(&mut rig), auditor(&mut rig));
        version(&rig.wait(put(&directory, "four", b"v", If::Any, DURABLE)).unwrap());
        let told = mutations(&mut rig, &admin);
        let numbers = told.iter().filter_map(|line| line.split(' ').next()?.parse().ok());
        let numbers: Vec<u64> = numbers.collect();
        assert!(numbers[..2] == [1, 2] && numbers[2] > 3, "{told:?}");
        assert!((numbers[2]..).take(written).eq(numbers[2..].iter().copied()), "{told:?}");
    }
}

#[test]
fn a_server_that_is_told_not_to_records_nothing_and_a_small_volume_has_no_records() {
    let mut rig = rig(Limits { audit: false, ..Limits::default() });
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    version(&rig.wait(put(&directory, "a", b"1", If::Any, DURABLE)).unwrap());
    let net = rig.connect("net");
    let net = rig.directory(net, "/state/net");
    assert_eq!(rig.wait(get(&net, "secret/psk")).unwrap(), "ACCESS_DENIED");
    written(&mut rig);
    assert!(mutations(&mut rig, &admin).is_empty() && denials(&mut rig, &admin).is_empty());
    let mut device = Device::blank();
    device.memory = MemoryDevice::new(1 << 20);
    let device = device.format(FormatOptions::default());
    assert_eq!(device.memory.geometry().device_bytes, 1 << 20);
    let mut rig = watched(Rig::new(device, Limits::default()));
    let (directory, admin) = (all(&mut rig), auditor(&mut rig));
    version(&rig.wait(put(&directory, "a", b"1", If::Any, DURABLE)).unwrap());
    let refused = "UNIMPLEMENTED: a volume this small keeps no audit records";
    assert_eq!(mutations(&mut rig, &admin), [refused]);
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Denied(_))));
}

/// Nothing happens for an hour, and then a call: its record has the time of the call, not that of the last round.
#[test]
fn a_record_has_the_time_of_its_call() {
    let mut rig = rig(Limits::default());
    let (all, admin) = (all(&mut rig), auditor(&mut rig));
    rig.settle();
    let hour = 3_600_000;
    rig.now += hour;
    version(&rig.wait(put(&all, "k", b"1", If::Any, DURABLE)).unwrap());
    let answer = rig.wait(admin.audit_request().send().promise).unwrap().unwrap();
    let records = answer.get().unwrap().get_records().unwrap();
    assert_eq!(records.get(0).get_unix_millis(), 1_700_000_000_000 + hour);
}

/// It is written into the records and decides nothing: no order, no lifetime, no version.
#[test]
fn a_wall_clock_that_jumps_by_centuries_decides_nothing() {
    let mut rig = rig(Limits::default());
    let (all, admin) = (all(&mut rig), auditor(&mut rig));
    let (lent, _revoker) = restrict(&all, "", "gp", 1000);
    let mut versions = Vec::new();
    const YEARS_100: u64 = 3_155_760_000_000;
    for (n, wall) in [0, YEARS_100, u64::MAX, 1, 2 * YEARS_100].into_iter().enumerate() {
        rig.server.set_wall_clock(rig.now, wall);
        rig.settle();
        let value = [b'0' + u8::try_from(n).unwrap()];
        let new = version(&rig.wait(put(&lent, "k", &value, If::Any, DURABLE)).unwrap());
        assert!(!versions.contains(&new), "a version is told twice");
        versions.push(new);
        assert_eq!(rig.wait(get(&lent, "k")).unwrap().as_bytes(), value);
        assert_eq!(mutations(&mut rig, &admin).len(), n + 1);
        rig.now += 199;
        rig.settle();
    }
    rig.server.set_wall_clock(rig.now, 0);
    rig.now = 1000;
    rig.settle();
    assert!(rig.wait(get(&lent, "k")).unwrap().starts_with("EXPIRED: "));
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "4");
}
