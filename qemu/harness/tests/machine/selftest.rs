//! The machine's test of itself: what it shows, what it leaves, and that it can fail.

use std::collections::BTreeMap;

use guest::services::{CRASHED, DUMPS_KEPT, Dump};
use harness::{Kind, Machine, Setup, image, machine};
use serde_json::json;

use crate::{POLICY, Volume};

/// A volume with room for the crash dumps of the test.
pub(crate) const IMAGE_BYTES: usize = 64 << 20;

fn setup(volume: &Volume) -> Setup {
    Setup { words: "selftest".into(), ..volume.setup() }
}

/// The marks of the self-test come in the order of what they tell, and the last only when the server was dropped
/// and another one found what the first had acknowledged.
#[test]
fn the_machine_tests_itself() {
    let volume = Volume::of(IMAGE_BYTES);
    for kind in [Kind::Microvm, Kind::Q35] {
        let setup = Setup { kind, ..setup(&volume) };
        let serial = Machine::start(&setup).unwrap().end(machine::DONE).unwrap();
        let mut rest = serial.as_str();
        for mark in [
            "blk: virtio-blk up (ss=512 nsec=131072)",
            "statefsd: ready",
            "SELFTEST: statefs put ok",
            "statefsd: access denied (path=/state/selftest-denied sender=selftest)",
            "statefsd: restarting",
            "SELFTEST: boot loader chooses slot B ok",
            "statefsd: ready",
            " persist ok",
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
        for what in ["statefs", "device key", "bootctl", "crash dumps"] {
            assert!(serial.contains(&format!("SELFTEST: {what} persist ok")), "{serial}");
        }
    }
    let values = image::read(&volume.path).unwrap().values;
    let (dumps, others): (Vec<_>, Vec<_>) = values.keys().partition(|key| key.starts_with(DUMPS));
    assert_eq!(others, [CONTROL, KEY, "/state/selftest/value"]);
    assert_eq!(dumps.len(), DUMPS_KEPT);
}

/// The README shows what the machine writes; `…` is what differs from run to run.
#[test]
fn the_transcript_in_the_readme_is_one() {
    let volume = Volume::of(IMAGE_BYTES);
    let serial = Machine::start(&setup(&volume)).unwrap().end(machine::DONE).unwrap();
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

/// What is loaded of the program into a machine's memory. 1 MiB was the bound; it takes 58 KB more since services have shares, uploads are
/// charged as they come, answers are by the policy of the moment, damage is known by its version, and devices that do not stop are let go.
#[test]
fn the_program_stays_small() {
    let bytes = std::fs::metadata(machine::guest()).unwrap().len();
    assert!(bytes < 1088 << 10, "{bytes} bytes");
}

/// Each works under the name of its own channel alone: without what is granted to that name it can nothing.
#[test]
fn a_self_test_without_a_grant_fails_and_says_whose() {
    let volume = Volume::of(IMAGE_BYTES);
    for (service, prefix) in [
        ("selftest", "/state/selftest"),
        ("keystored", "/state/keystore"),
        ("updated", "/state/boot"),
        ("crashd", "/state/crash"),
    ] {
        let grant = format!("to = \"{service}\"\nprefix = \"{prefix}\"");
        assert!(POLICY.contains(&grant), "{grant}");
        // Somebody else has it now.
        let policy = POLICY.replace(&grant, &format!("to = \"one\"\nprefix = \"{prefix}\""));
        let setup = Setup { policy, ..setup(&volume) };
        let serial = Machine::start(&setup).unwrap().end(machine::FAILED).unwrap();
        let failed = format!("SELFTEST: failed ({service}: ");
        assert!(serial.contains(&failed), "{serial}");
        let denied = format!("access denied (path={prefix}");
        let mut denied = serial.lines().filter(|line| line.contains(&denied));
        assert!(denied.any(|line| line.contains(&format!("sender={service})"))), "{serial}");
        assert!(!serial.contains("SELFTEST: ok"), "{serial}");
    }
}

/// A reset and a kill meet the services at work; each time they find theirs again, whole.
#[test]
fn the_services_keep_theirs_through_every_kind_of_end() {
    let volume = Volume::of(IMAGE_BYTES);
    let mut setup = setup(&volume);
    Machine::start(&setup).unwrap().end(machine::DONE).unwrap();
    let made = image::read(&volume.path).unwrap().values;
    setup.resets = true;
    let mut machine = Machine::start(&setup).unwrap();
    machine.ready().unwrap();
    machine.qmp().unwrap().call("system_reset", json!({})).unwrap();
    machine.wait_for("blk: virtio-blk up", 2).unwrap();
    machine.kill().unwrap();
    check_services(&made, &volume);
    let serial = Machine::start(&setup).unwrap().end(machine::DONE).unwrap();
    assert!(serial.contains("SELFTEST: ok"), "{serial}");
    check_services(&made, &volume);
}

/// The key and the control are those that were made, and each dump is what its head says.
#[track_caller]
fn check_services(made: &BTreeMap<String, Option<Vec<u8>>>, volume: &Volume) {
    let state = image::read(&volume.path).unwrap();
    assert!(state.intact);
    for key in [KEY, CONTROL] {
        assert!(made.contains_key(key) && state.values.get(key) == made.get(key), "{key}");
    }
    let dumps: Vec<_> = state.values.iter().filter(|(key, _)| key.starts_with(DUMPS)).collect();
    // One that was new is there beside those that were to be given up for it.
    assert!((DUMPS_KEPT..=DUMPS_KEPT + 1).contains(&dumps.len()), "{}", dumps.len());
    for (key, value) in dumps {
        let value = value.as_deref().unwrap_or_else(|| panic!("{key} is lost"));
        let (time, rest) = value.get(8..).unwrap().split_first_chunk().unwrap();
        let body = rest.strip_prefix(CRASHED.as_bytes()).unwrap();
        let mut dump = Dump::new(u64::from_le_bytes(*time));
        assert!(dump.continues(body) && dump.is_over(), "{key}");
    }
}

const KEY: &str = "/state/keystore/device.key";
const CONTROL: &str = "/state/boot/control";
const DUMPS: &str = "/state/crash/";
