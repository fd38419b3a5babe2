//! No line on the serial line comes before what it tells: for each, the fact is kept away, and the line has to stay away too. A
//! machine that is told to write the line early must be noticed.

use std::fs;
use std::path::{Path, PathBuf};

use guest::{selftest, services};
use harness::{Machine, Setup, machine};
use serde_json::{Value, json};
use statefs_client::{Client, Rights};

use crate::{POLICY, Volume};

/// A line, and a run in which what it tells is not so; the run yields what the machine wrote.
struct Case {
    /// What it is called as a plant.
    name: &'static str,
    line: &'static str,
    run: fn(&Setup, &Path) -> String,
}

const CASES: &[Case] = &[
    Case { name: "up", line: "blk: virtio-blk up", run: disk_that_takes_no_writes },
    Case { name: "ready", line: "statefsd: ready", run: disk_without_a_volume },
    Case { name: "denied", line: "statefsd: access denied", run: nothing_is_denied },
    Case { name: selftest::PUT.name, line: selftest::PUT.line, run: nothing_is_flushed },
    Case { name: selftest::PERSIST.name, line: selftest::PERSIST.line, run: value_is_gone },
    Case { name: services::KEY.name, line: services::KEY.line, run: device_key_is_gone },
    Case { name: "loader", line: "SELFTEST: boot loader chooses", run: control_is_gone },
    Case { name: services::CONTROL.name, line: services::CONTROL.line, run: control_is_another },
    Case { name: services::DUMPS_FOUND.name, line: services::DUMPS_FOUND.line, run: dump_is_gone },
];

#[test]
fn no_mark_comes_before_its_fact() {
    for case in CASES {
        let serial = run(case, machine::guest(), "");
        assert!(!serial.contains(case.line), "{}: {serial}", case.name);
    }
}

#[test]
fn a_mark_that_comes_early_is_noticed() {
    for case in CASES {
        let serial = run(case, machine::planted(), &format!("plant={}", case.name));
        assert!(serial.contains(case.line), "{}: {serial}", case.name);
    }
}

fn run(case: &Case, guest: PathBuf, words: &str) -> String {
    let volume = Volume::of(crate::selftest::IMAGE_BYTES);
    // The port's service may reach what the services inside of the machine have.
    let grants = ["selftest", "keystore", "boot", "crash"].map(|folder| {
        format!("[[grant]]\nto = \"one\"\nprefix = \"/state/{folder}\"\nrights = {ALL}\n")
    });
    let policy = [POLICY, &grants.concat()].concat();
    let setup = Setup { guest, policy, words: words.into(), ..volume.setup() };
    (case.run)(&setup, &volume.path)
}

const ALL: &str = r#"["get", "list", "put", "delete"]"#;

fn refused(setup: &Setup, why: &str) -> String {
    let serial = Machine::start(setup).unwrap().end(machine::REFUSED).unwrap();
    assert!(serial.contains(&format!("statefsd: refused: {why}")), "{serial}");
    serial
}

fn disk_that_takes_no_writes(setup: &Setup, path: &Path) -> String {
    let file = json!({"driver": "file", "filename": path});
    let disk = json!({"driver": "raw", "node-name": "disk", "read-only": true, "file": file});
    refused(&Setup { disk, ..setup.clone() }, "blk: the device takes no writes")
}

fn disk_without_a_volume(setup: &Setup, path: &Path) -> String {
    fs::write(path, vec![0; 1 << 20]).unwrap();
    refused(setup, "volume: ")
}

fn nothing_is_denied(setup: &Setup, _: &Path) -> String {
    let mut machine = Machine::start(setup).unwrap();
    machine.ready().unwrap();
    let client = machine.client("one").unwrap();
    crate::all(&client).put("key", b"value").unwrap();
    assert!(crate::all(&client).get("key").unwrap().is_some());
    drop(client);
    machine.shut_down().unwrap()
}

/// Fails each flush in turn, until the one that a put waits for was among them.
fn nothing_is_flushed(setup: &Setup, path: &Path) -> String {
    let base = fs::read(path).unwrap();
    for nth in 1..30 {
        fs::write(path, &base).unwrap();
        let disk = failing(path, "flush_to_disk", nth);
        let words = format!("{} selftest", setup.words);
        let machine = Machine::start(&Setup { disk, words, ..setup.clone() }).unwrap();
        // It is refused, fails, or does not notice.
        let serial = machine.end_somehow().unwrap();
        if serial.contains("SELFTEST: failed (selftest: a put failed") {
            return serial;
        }
    }
    panic!("no flush is the one of a put");
}

/// Describes a disk that fails once, at the nth event of a kind.
fn failing(path: &Path, event: &str, nth: usize) -> Value {
    // QEMU takes no empty list, so there is one state that never comes.
    let states: Vec<Value> = (1..nth)
        .chain([1000])
        .map(|n| json!({"event": event, "state": n, "new_state": n + 1}))
        .collect();
    let rule = json!({"event": event, "state": nth, "iotype": "flush", "errno": 5, "once": true});
    let file = json!({"driver": "file", "filename": path});
    let inner = json!({
        "driver": "blkdebug", "image": file, "set-state": states, "inject-error": [rule],
    });
    json!({"driver": "raw", "node-name": "disk", "file": inner})
}

fn value_is_gone(setup: &Setup, _: &Path) -> String {
    between(setup, machine::FAILED, |client| delete(client, "/state/selftest", "value"))
}

fn device_key_is_gone(setup: &Setup, _: &Path) -> String {
    between(setup, machine::FAILED, |client| delete(client, "/state/keystore", "device.key"))
}

fn control_is_gone(setup: &Setup, _: &Path) -> String {
    between(setup, machine::REFUSED, |client| delete(client, "/state/boot", "control"))
}

/// A later control, which the loader takes as well as the first.
fn control_is_another(setup: &Setup, _: &Path) -> String {
    between(setup, machine::FAILED, |client| {
        client
            .run(updated::change(&updated::open(&client.calls()), |control| {
                control.prepare(updated::Slot::B)?.stage(updated::Slot::B, std::num::NonZeroU8::MIN)
            }))
            .unwrap();
    })
}

fn dump_is_gone(setup: &Setup, _: &Path) -> String {
    between(setup, machine::FAILED, |client| {
        let key = client
            .directory("/state/crash", Rights::GET | Rights::LIST)
            .list(statefs_client::ListOptions::default())
            .next()
            .unwrap()
            .unwrap()
            .key;
        delete(client, "/state/crash", &key);
    })
}

fn delete(client: &Client, prefix: &str, key: &str) {
    assert!(client.directory(prefix, Rights::DELETE).delete(key).unwrap());
}

/// Runs a self-test to its end, and changes what it left when its first server has ended its part.
fn between(setup: &Setup, code: i32, change: impl FnOnce(&Client)) -> String {
    let words = format!("{} selftest hold", setup.words);
    let mut machine = Machine::start(&Setup { words, ..setup.clone() }).unwrap();
    machine.wait_for("SELFTEST: held", 1).unwrap();
    change(&machine.client("one").unwrap());
    machine.type_in("r").unwrap();
    machine.end(code).unwrap()
}
