//! A disk that fails: what was acknowledged stays, and what was not is never said to be.

use std::path::Path;

use harness::{Machine, Qmp, Setup, machine};
use serde_json::{Value, json};
use statefs_client::Mode;

use crate::{Volume, all, start};

/// The disk as a node over a file that can be exchanged for one with errors.
fn breakable(path: &Path) -> Value {
    let file = json!({"driver": "file", "node-name": "file", "filename": path});
    json!({"driver": "raw", "node-name": "disk", "file": file})
}

/// Puts errors of one kind of operation between the machine and its file.
fn hurt(qmp: &mut Qmp, kind: &str, once: bool) {
    let rule = json!({"event": "none", "iotype": kind, "errno": 5, "once": once});
    let node = json!({
        "driver": "blkdebug", "node-name": "errors", "image": "file", "inject-error": [rule],
    });
    qmp.call("blockdev-add", node).unwrap();
    reopen(qmp, "errors");
}

fn reopen(qmp: &mut Qmp, file: &str) {
    let disk = json!({"driver": "raw", "node-name": "disk", "file": file});
    qmp.call("blockdev-reopen", json!({"options": [disk]})).unwrap();
}

fn boot(volume: &Volume) -> Machine {
    start(&Setup { disk: breakable(&volume.path), ..volume.setup() })
}

#[test]
fn a_failed_write_ends_writing_until_the_server_starts_anew_and_a_failed_flush_the_machine() {
    for (kind, once) in [("write", false), ("write", true), ("flush", true)] {
        let volume = Volume::new();
        let mut machine = boot(&volume);
        let mut qmp = machine.qmp().unwrap();
        let client = machine.client("one").unwrap();
        all(&client).put("before", b"acknowledged").unwrap();
        hurt(&mut qmp, kind, once);
        let error = all(&client).put("during", b"unknown").unwrap_err();
        // The watermark of an idle server may have met the error first.
        assert!(["INDETERMINATE", "READ_ONLY"].contains(&error.code()), "{kind}: {error}");
        let error = all(&client).put("after", b"refused").unwrap_err();
        assert_eq!(error.code(), "READ_ONLY", "{kind}: {error}");
        assert_eq!(all(&client).get("before").unwrap().unwrap().data, b"acknowledged");
        assert_eq!(client.health().unwrap().mode, Mode::ReadOnly);
        machine.wait_for("statefsd: mode ReadOnly", 1).unwrap();
        drop(client);
        // The disk is well again, and still nothing may be written: what it has is not known.
        reopen(&mut qmp, "file");
        let client = machine.client("one").unwrap();
        assert_eq!(all(&client).put("after", b"refused").unwrap_err().code(), "READ_ONLY");
        drop(client);
        machine.type_in("r").unwrap();
        if kind == "flush" {
            // The next flush of the disk would succeed, whatever was lost: another server must not ask for it.
            let serial = machine.end(machine::REFUSED).unwrap();
            assert!(serial.contains("refused: volume: the device cannot be flushed"), "{serial}");
            machine = boot(&volume);
        } else {
            machine.wait_for("statefsd: ready", 2).unwrap();
        }
        let client = machine.client("one").unwrap();
        assert_eq!(all(&client).get("before").unwrap().unwrap().data, b"acknowledged");
        assert!(all(&client).get("after").unwrap().is_none());
        if let Some(during) = all(&client).get("during").unwrap() {
            assert_eq!(during.data, b"unknown");
        }
        all(&client).put("after", b"taken").unwrap();
    }
}

/// One copy of a group cannot be read: the other one serves.
#[test]
fn a_read_that_fails_once_is_answered_from_the_other_copy() {
    let volume = Volume::new();
    {
        let machine = boot(&volume);
        let client = machine.client("one").unwrap();
        for n in 0..10_u8 {
            all(&client).put(&format!("key/{n}"), &[n; 3000]).unwrap();
        }
    }
    // Each boot meets the error at another read: of superblocks, of the log, of values.
    for nth in 1..12 {
        let file = json!({"driver": "file", "filename": volume.path});
        // QEMU takes no empty list, so there is one state that never comes.
        let states: Vec<Value> = (1..nth)
            .chain([1000])
            .map(|n| json!({"event": "read_aio", "state": n, "new_state": n + 1}))
            .collect();
        let rule = json!({"event": "read_aio", "state": nth, "errno": 5, "once": true});
        let inner = json!({
            "driver": "blkdebug", "image": file, "set-state": states, "inject-error": [rule],
        });
        let disk = json!({"driver": "raw", "node-name": "disk", "file": inner});
        let machine = start(&Setup { disk, ..volume.setup() });
        let client = machine.client("one").unwrap();
        for n in 0..10_u8 {
            let found = all(&client).get(&format!("key/{n}")).unwrap();
            assert_eq!(found.unwrap().data, [n; 3000], "read {nth}, key {n}");
        }
    }
}
