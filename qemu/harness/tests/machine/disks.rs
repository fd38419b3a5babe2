//! Disks that are full, another one, too short, or none of ours; machines that lack something.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use harness::{Accelerator, Machine, Setup, image, machine};
use statefs_client::{Client, Error};

use crate::{POLICY, Volume, all, start};

#[test]
fn a_full_disk_takes_deletes_and_then_puts_again() {
    let volume = Volume::new();
    let machine = volume.boot();
    let client = machine.client("one").unwrap();
    let value = vec![5; 60_000];
    let mut count = 0;
    let error = loop {
        match all(&client).put(&format!("key/{count:04}"), &value) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 1000, "a disk of 8 MiB takes no 60 MB");
    };
    assert_eq!(error.code(), "NO_SPACE", "{error}");
    assert!(count > 10, "{count}");
    for n in 0..count / 2 {
        assert!(all(&client).delete(&format!("key/{n:04}")).unwrap());
    }
    for n in 0..count / 4 {
        all(&client).put(&format!("new/{n:04}"), &value).unwrap();
    }
    for n in count / 2..count {
        assert_eq!(all(&client).get(&format!("key/{n:04}")).unwrap().unwrap().data, value);
    }
}

#[test]
fn a_swapped_disk_is_another_volume() {
    let (one, other) = (Volume::new(), Volume::new());
    {
        let machine = one.boot();
        all(&machine.client("one").unwrap()).put("key", b"of the first").unwrap();
    }
    {
        let machine = other.boot();
        assert!(all(&machine.client("one").unwrap()).get("key").unwrap().is_none());
    }
    let machine = one.boot();
    let found = all(&machine.client("one").unwrap()).get("key").unwrap();
    assert_eq!(found.unwrap().data, b"of the first");
}

/// Nothing is served, nothing is written, and the code says so.
#[test]
fn a_disk_without_its_whole_volume_is_refused_and_left_alone() {
    let volume = Volume::new();
    let image = fs::read(&volume.path).unwrap();
    let half = &image[..image.len() / 2];
    let (blank, noise) = (vec![0; image.len()], vec![0x5A; image.len()]);
    for (content, why) in
        [(half, "the volume takes 8388608 bytes"), (&blank[..], "blank"), (&noise[..], "")]
    {
        fs::write(&volume.path, content).unwrap();
        let serial = refused(&volume.setup());
        assert!(serial.contains("statefsd: refused: volume: "), "{serial}");
        assert!(serial.contains(why), "{serial}");
        assert_eq!(fs::read(&volume.path).unwrap(), content);
    }
}

#[test]
fn a_machine_that_lacks_something_refuses_to_serve() {
    let volume = Volume::new();
    // TCG's usual processor has no randomness of its own.
    let accelerator = Accelerator::Tcg;
    let serial = refused(&Setup { entropy: false, accelerator, ..volume.setup() });
    assert!(serial.contains("refused: there is no source of randomness"), "{serial}");
    let serial = refused(&Setup { policy: "version = 2".into(), ..volume.setup() });
    assert!(serial.contains("refused: policy: "), "{serial}");
    let serial = refused(&Setup { policy: "# ".repeat(40_000), ..volume.setup() });
    assert!(serial.contains("refused: the policy is too long"), "{serial}");
}

#[test]
fn the_randomness_of_a_processor_serves_where_no_device_has_any() {
    let volume = Volume::new();
    let setup = Setup {
        entropy: false,
        accelerator: Accelerator::Tcg,
        processor: Some("max"),
        ..volume.setup()
    };
    let machine = start(&setup);
    all(&machine.client("one").unwrap()).put("key", b"value").unwrap();
}

/// Boots a machine that ends with a refusal; yields its serial line.
fn refused(setup: &Setup) -> String {
    let serial = Machine::start(setup).unwrap().end(machine::REFUSED).unwrap();
    assert!(!serial.contains("ready"), "{serial}");
    serial
}

#[test]
fn an_image_goes_from_the_machine_to_linux_and_back() {
    let volume = Volume::new();
    {
        let machine = volume.boot();
        all(&machine.client("one").unwrap()).put("from", b"the machine").unwrap();
        machine.shut_down().unwrap();
    }
    let policy = volume.folder.join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    let socket = volume.folder.join("linux.sock");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["daemon", "--image"])
        .arg(&volume.path)
        .arg(format!("--socket=one={}", socket.display()))
        .arg("--policy")
        .arg(&policy)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    {
        let client = connect(&socket);
        let found = all(&client).get("from").unwrap();
        assert_eq!(found.unwrap().data, b"the machine");
        all(&client).put("to", b"the machine").unwrap();
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let state = image::read(&volume.path).unwrap();
    let mut machine = start(&volume.setup());
    assert_eq!(machine.digest().unwrap(), state.digest);
    let found = all(&machine.client("one").unwrap()).get("to").unwrap();
    assert_eq!(found.unwrap().data, b"the machine");
}

/// Connects to a daemon that has just been started.
fn connect(socket: &std::path::Path) -> Client {
    for _ in 0..1000 {
        match Client::connect(socket) {
            Ok(client) => return client,
            Err(Error::Connect { .. }) => thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the daemon does not come up")
}
