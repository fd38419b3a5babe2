//! The image file is cut off under the daemon: what lay behind its new end is not there to be read, and writes make it longer again.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use statefs_client::blocking::Directory;
use statefs_client::{Client, Error, ErrorCode, Mode, Rights};

use crate::machine::{Machine, PATIENCE};

const IMAGE_BYTES: u64 = 8 << 20;

/// Keys of a round.
const KEYS: u8 = 20;

/// Where the file is cut off: in zone B, in zone A behind what is used, within it, behind two copies of the superblock, and at its start.
const ENDS: [u64; 5] = [5 << 20, 1 << 20, 40 << 10, 8 << 10, 0];

const POLICY: &str = "version = 1\n[service.one]\nchannel = \"one\"\n[[grant]]\nto = \"one\"\n\
                      prefix = \"/state\"\nrights = [\"get\", \"put\"]\n";

#[test]
fn an_image_that_is_cut_off_under_the_daemon_is_never_answered_wrong() {
    for end in ENDS {
        for stops in [true, false] {
            println!("cut off at {end}, stopped: {stops}");
            goes_on(end, stops);
        }
    }
}

/// Cuts the file off, writes on, and starts anew: what was acknowledged since is there, and no key is wrong or absent.
fn goes_on(end: u64, stops: bool) {
    let (mut machine, mut written) = cut_off(end);
    let client = machine.connect("one");
    let own = client.directory("/state", Rights::GET | Rights::PUT);
    let found = check(&own, &written);
    assert!(found.lost.is_empty(), "what cannot be read is not lost: {found:?}");
    let has_copy = end > 512 << 10;
    assert_eq!(found.unreadable == 0, has_copy, "{found:?}");

    let since = |n| format!("{}/{n}", if n % 2 == 0 { "old" } else { "new" });
    for n in 0..KEYS {
        own.put(&since(n), &value(n, 1)).unwrap();
        written.insert(since(n), value(n, 1));
    }
    let is_whole = |lost: &[String]| (0..KEYS).all(|n| !lost.contains(&since(n)));
    let found = check(&own, &written);
    assert!(is_whole(&found.lost) && found.lost.is_empty() == has_copy, "{found:?}");
    let mode = if has_copy { Mode::Healthy } else { Mode::Degraded };
    assert_eq!(client.health().unwrap().mode, mode);

    if stops {
        machine.stop();
    } else {
        machine.kill();
    }
    // It opens, for with a segment that the log went on in the last copies of the superblock were written, too.
    machine.start();
    let client = machine.connect("one");
    let own = client.directory("/state", Rights::GET | Rights::PUT);
    let found = check(&own, &written);
    assert!(is_whole(&found.lost) && found.lost.is_empty() == has_copy, "{found:?}");
    assert_eq!((found.unreadable, client.health().unwrap().mode), (0, mode));
    machine.stop();
}

#[test]
fn an_image_that_was_cut_off_and_not_written_since_is_refused() {
    for end in ENDS {
        let (mut machine, _) = cut_off(end);
        machine.kill();
        machine.spawn();
        let deadline = Instant::now() + PATIENCE;
        while !machine.has_ended() {
            let served = Client::connect(machine.socket("one")).and_then(|client| client.health());
            assert!(served.is_err(), "cut off at {end} it is served: {served:?}");
            assert!(Instant::now() < deadline, "{}", machine.said());
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(machine.wait().code(), Some(1));
        let sizes = format!("the volume takes {IMAGE_BYTES} bytes and the device has {end}");
        assert!(machine.said().contains(&sizes) || end < 8 << 10, "{}", machine.said());
        assert_eq!(File::open(machine.image()).unwrap().metadata().unwrap().len(), end);
    }
}

/// Writes keys, starts the daemon anew, so that it holds no values, and cuts the image off under it.
fn cut_off(end: u64) -> (Machine, BTreeMap<String, Vec<u8>>) {
    let mut machine = Machine::new(IMAGE_BYTES, POLICY, &["one"]);
    machine.start();
    let mut written = BTreeMap::new();
    let own = machine.connect("one").directory("/state", Rights::PUT);
    for n in 0..KEYS {
        own.put(&format!("old/{n}"), &value(n, 0)).unwrap();
        written.insert(format!("old/{n}"), value(n, 0));
    }
    machine.stop();
    machine.start();
    File::options().write(true).open(machine.image()).unwrap().set_len(end).unwrap();
    (machine, written)
}

/// A value of its own for each key and round, of more than a block.
fn value(n: u8, round: u8) -> Vec<u8> {
    [n, round].into_iter().cycle().take(6000).collect()
}

/// Keys that did not answer their values.
#[derive(Default, Debug)]
struct Found {
    lost: Vec<String>,
    unreadable: u64,
}

/// Asks for each key: it has its value, or is told as lost or not readable; it is never absent.
fn check(own: &Directory, written: &BTreeMap<String, Vec<u8>>) -> Found {
    let mut found = Found::default();
    for (key, value) in written {
        match own.get(key) {
            Ok(Some(got)) => assert!(got.data == *value, "{key} has another value"),
            Err(Error::DataLoss) => found.lost.push(key.clone()),
            Err(Error::Refused { code: ErrorCode::IoError, .. }) => found.unreadable += 1,
            other => panic!("{key}: {other:?}"),
        }
    }
    found
}
