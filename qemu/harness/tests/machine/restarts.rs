//! Everything that was acknowledged is there after every kind of end.

use std::collections::BTreeMap;
use std::process::Command;

use harness::{Machine, Setup, image};
use serde_json::json;

use crate::{Volume, all, start};

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
    let mut dump = Command::new(env!("CARGO_BIN_EXE_harness"));
    let dumped = dump.args(["statefs", "image", "dump"]).arg(&volume.path).output().unwrap();
    let dumped = String::from_utf8(dumped.stdout).unwrap();
    assert!(dumped.contains(&digest), "{digest}: {dumped}");
    let state = image::read(&volume.path).unwrap();
    assert_eq!(state.digest, digest);
    assert_eq!(state.values.len(), 19);
    assert!(state.intact);
    // And again, by a machine that replays what the first one wrote.
    let mut machine = volume.boot();
    assert_eq!(machine.digest().unwrap(), digest);
}
