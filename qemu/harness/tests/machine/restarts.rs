//! Everything that was acknowledged is there after every kind of end.

use std::collections::BTreeMap;

use harness::{Machine, Setup, image, machine};
use serde_json::json;

use crate::{Volume, all, start};

/// The marks of the self-test come in the order of what they tell, and the last only when the server was dropped
/// and another one found what the first had acknowledged.
#[test]
fn the_machine_tests_itself() {
    let volume = Volume::new();
    for kind in [harness::Kind::Microvm, harness::Kind::Q35] {
        let setup = Setup { kind, words: "selftest".into(), ..volume.setup() };
        let serial = Machine::start(&setup).unwrap().end(machine::DONE).unwrap();
        let mut rest = serial.as_str();
        for mark in [
            "blk: virtio-blk up (ss=512 nsec=16384)",
            "statefsd: ready",
            "SELFTEST: statefs put ok",
            "statefsd: access denied (path=/state/selftest-denied sender=selftest)",
            "statefsd: restarting",
            "SELFTEST: boot loader chooses slot B ok",
            "statefsd: ready",
            " persist ok",
            " persist ok",
            " persist ok",
            "SELFTEST: ok",
            "statefsd: down",
        ] {
            let (_, behind) = rest.split_once(mark).unwrap_or_else(|| panic!("{mark}: {serial}"));
            rest = behind;
        }
        // The programs run side by side, so these come in any order.
        for what in ["statefs", "device key", "bootctl"] {
            assert!(serial.contains(&format!("SELFTEST: {what} persist ok")), "{serial}");
        }
    }
    let state = image::read(&volume.path).unwrap();
    let keys: Vec<_> = state.values.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["/state/boot/control", "/state/keystore/device.key", "/state/selftest/value"]
    );
}

/// The README shows what the machine writes; `…` is what differs from run to run.
#[test]
fn the_transcript_in_the_readme_is_one() {
    let volume = Volume::new();
    image::make(&volume.path, 16 << 20).unwrap();
    let setup = Setup { words: "selftest".into(), ..volume.setup() };
    let serial = Machine::start(&setup).unwrap().end(machine::DONE).unwrap();
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, shown) = readme.split_once("```text\nblk: ").unwrap();
    let shown = format!("blk: {}", shown.split_once("```").unwrap().0);
    let (mut lines, mut shown): (Vec<_>, Vec<_>) =
        (serial.lines().collect(), shown.lines().collect());
    assert_eq!(lines.len(), shown.len(), "{serial}");
    // Programs run side by side, so some lines change places.
    lines.sort_unstable();
    shown.sort_unstable();
    for (line, shown) in lines.into_iter().zip(shown) {
        let mut rest = line.trim();
        for (number, part) in shown.split('…').enumerate() {
            let at = rest.find(part).filter(|at| number > 0 || *at == 0);
            let at = at.unwrap_or_else(|| panic!("{line:?} is not {shown:?}"));
            rest = &rest[at + part.len()..];
        }
        assert!(rest.is_empty() || shown.ends_with('…'), "{line:?} is not {shown:?}");
    }
}

/// What the program takes of a machine's memory before its first byte of data.
#[test]
fn the_program_stays_small() {
    let bytes = std::fs::metadata(machine::guest()).unwrap().len();
    assert!(bytes < 5 << 18, "{bytes} bytes");
}

#[test]
fn a_self_test_without_its_grant_fails_and_says_so() {
    let volume = Volume::new();
    let policy = "version = 1\n[service.selftest]\nchannel = \"selftest\"\n".into();
    let setup = Setup { words: "selftest".into(), policy, ..volume.setup() };
    let serial = Machine::start(&setup).unwrap().end(machine::FAILED).unwrap();
    assert!(serial.contains("SELFTEST: failed (selftest: a put failed"), "{serial}");
    assert!(!serial.contains(" ok"), "{serial}");
}

#[test]
fn what_was_acknowledged_outlives_restart_reset_and_kill() {
    let volume = Volume::new();
    let mut machine = start(&Setup { resets: true, ..volume.setup() });
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..6_usize {
        {
            let client = machine.client("one").unwrap();
            let directory = all(&client);
            for (key, value) in &expected {
                let found = directory.get(key).unwrap().map(|value| value.data);
                assert_eq!(found.as_ref(), Some(value), "round {round}: {key}");
            }
            for n in 0..5 {
                let (key, value) = (format!("key/{n}"), format!("{round}.{n}").into_bytes());
                directory.put(&key, &value).unwrap();
                expected.insert(key, value);
            }
        }
        let starts = starts(&machine) + 1;
        match round % 3 {
            0 => {
                machine.type_in("r").unwrap();
                machine.wait_for("statefsd: ready", starts).unwrap();
            }
            1 => {
                machine.qmp().unwrap().call("system_reset", json!({})).unwrap();
                machine.wait_for("statefsd: ready", starts).unwrap();
            }
            _ => {
                machine.kill().unwrap();
                machine = start(&Setup { resets: true, ..volume.setup() });
            }
        }
    }
    let client = machine.client("one").unwrap();
    for (key, value) in &expected {
        assert_eq!(all(&client).get(key).unwrap().map(|value| value.data).as_ref(), Some(value));
    }
}

/// How many servers have begun on this machine: each tells of the volume that it opened.
fn starts(machine: &Machine) -> usize {
    let serial = machine.serial();
    serial.matches("blk: virtio-blk up").count() + serial.matches("statefsd: restarting").count()
}

/// The machine, the tools and the daemon of the host see one state.
#[test]
fn the_digest_is_that_of_the_image_on_the_host() {
    let volume = Volume::new();
    let mut machine = volume.boot();
    {
        let client = machine.client("one").unwrap();
        for n in 0..20 {
            all(&client).put(&format!("key/{n}"), &vec![n; usize::from(n) * 100]).unwrap();
        }
        all(&client).delete("key/3").unwrap();
    }
    let digest = machine.digest().unwrap();
    machine.shut_down().unwrap();
    let state = image::read(&volume.path).unwrap();
    assert_eq!(state.digest, digest);
    assert_eq!(state.values.len(), 19);
    assert!(state.intact);
    // And again, by a machine that replays what the first one wrote.
    let mut machine = volume.boot();
    assert_eq!(machine.digest().unwrap(), digest);
}
