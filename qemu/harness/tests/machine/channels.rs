//! Who is at a port, and what is left there of who was before.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use guest::wire;
use harness::Setup;
use statefs_client::{Error, Rights};

use crate::{Volume, all, start};

#[test]
fn each_port_is_its_own_service() {
    let volume = Volume::new();
    let mut machine = volume.boot();
    let (one, two) = (machine.client("one").unwrap(), machine.client("two").unwrap());
    let stranger = machine.client("stranger").unwrap();
    assert_eq!(one.hello().unwrap().service.as_deref(), Some("one"));
    assert_eq!(two.hello().unwrap().service.as_deref(), Some("two"));
    assert_eq!(stranger.hello().unwrap().service, None);
    all(&one).put("shown/text", b"for both").unwrap();
    all(&one).put("hidden", b"for one").unwrap();
    let shown = two.directory("/state/one/shown", Rights::GET);
    assert_eq!(shown.get("text").unwrap().unwrap().data, b"for both");
    let hidden = two.directory("/state/one", Rights::GET);
    for (error, key) in [(hidden.get("hidden"), "there"), (hidden.get("absent"), "not there")] {
        assert_eq!(error.unwrap_err().code(), "ACCESS_DENIED", "{key}");
    }
    let all = stranger.directory("/state", Rights::GET);
    assert_eq!(all.get("one/hidden").unwrap_err().code(), "ACCESS_DENIED");
    machine.wait_for("access denied (path=/state/one/hidden sender=two)", 1).unwrap();
    machine.wait_for("access denied (path=/state sender=nobody)", 1).unwrap();
    let serial = machine.serial();
    assert!(!serial.contains("for one") && !serial.contains("for both"), "{serial}");
}

#[test]
fn a_client_that_comes_back_finds_a_clean_connection() {
    let volume = Volume::new();
    let machine = volume.boot();
    for round in 0..30_u8 {
        let client = machine.client("one").unwrap();
        let value = vec![wire::ESCAPE; 1000 + usize::from(round)];
        all(&client).put("key", &value).unwrap();
        assert_eq!(all(&client).get("key").unwrap().unwrap().data, value);
        // Goes away with calls on their way.
        let _unanswered = all(&client).calls().put("other", &[round; 5000]);
    }
}

/// Clients that die anywhere within a message, and within the marks around it, straight at the port.
#[test]
fn what_a_dead_client_left_behind_harms_nobody() {
    let volume = Volume::new();
    let machine = volume.boot();
    let mut old = Vec::new();
    wire::begin(b"0123456789abcdef", &mut old);
    // A message that promises 40,000 bytes.
    old.extend([0, 0, 0, 0, 0x88, 0x13, 0, 0]);
    old.extend([7; 300]);
    old.push(wire::ESCAPE);
    let port = machine.socket("one").with_extension("port");
    for cut in [1, 2, 5, 17, 18, 20, 26, 200, old.len()] {
        let mut stream = UnixStream::connect(&port).unwrap();
        stream.write_all(&old[..cut]).unwrap();
        drop(stream);
        let client = machine.client("one").unwrap();
        all(&client).put("key", &cut.to_le_bytes()).unwrap();
    }
}

#[test]
fn a_client_hears_that_the_server_is_gone() {
    let volume = Volume::new();
    let mut machine = volume.boot();
    let client = machine.client("one").unwrap();
    all(&client).put("key", b"value").unwrap();
    client.set_reconnects(false);
    machine.type_in("r").unwrap();
    machine.wait_for("statefsd: ready", 2).unwrap();
    let error = all(&client).get("key").unwrap_err();
    assert!(!matches!(error, Error::TimedOut { .. }), "{error}");
    // A client that may connect anew does.
    client.set_reconnects(true);
    assert_eq!(all(&client).get("key").unwrap().unwrap().data, b"value");
}

#[test]
fn bytes_of_no_message_end_one_connection_and_no_more() {
    let volume = Volume::new();
    let machine = volume.boot();
    let two = machine.client("two").unwrap();
    two.hello().unwrap();
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stream = UnixStream::connect(machine.socket("one")).unwrap();
        let noise: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
        // It may be cut off before it has sent all.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(two.hello().unwrap().service.as_deref(), Some("two"));
    let one = machine.client("one").unwrap();
    all(&one).put("key", b"value").unwrap();
}

/// Somebody sends without end and reads nothing: messages, beginnings, ends and halves of them.
#[test]
fn a_flood_at_one_port_takes_no_room_from_the_others() {
    let volume = Volume::new();
    let machine = volume.boot();
    let two = machine.client("two").unwrap();
    let own = two.directory("/state/two", Rights::GET | Rights::PUT);
    let port = machine.socket("one").with_extension("port");
    let mut begin = Vec::new();
    wire::begin(b"fedcba9876543210", &mut begin);
    let calls = [&begin[..], &[0, 0, 0, 0, 0xFF, 0xFF, 0, 0], &[7; 4000]].concat();
    let halves = [wire::ESCAPE, 1, b'f', wire::ESCAPE, wire::ESCAPE, 2].repeat(1000);
    let beginnings: Vec<u8> = (0..500_u32)
        .flat_map(|n| {
            let mut mark = Vec::new();
            wire::begin(format!("{n:016x}").as_bytes().first_chunk().unwrap(), &mut mark);
            mark
        })
        .collect();
    for flood in [calls, halves, beginnings, vec![wire::ESCAPE; 5000], vec![0; 5000]] {
        let mut stream = UnixStream::connect(&port).unwrap();
        // The machine takes no more once its answers are not read.
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        for n in 0..400_u32 {
            if stream.write_all(&flood).is_err() {
                break;
            }
            if n % 50 == 0 {
                own.put("key", &n.to_le_bytes()).unwrap();
            }
        }
        own.put("key", b"still served").unwrap();
        assert_eq!(own.get("key").unwrap().unwrap().data, b"still served");
    }
    let one = machine.client("one").unwrap();
    all(&one).put("key", b"value").unwrap();
}

/// A port without a name, or with one that is too long, is nobody's and silent; one that the policy does not know may greet.
#[test]
fn ports_with_odd_names_are_nobodys() {
    let volume = Volume::new();
    let long = "n".repeat(65);
    let ports = ["", &long, "\u{fc}ml\u{e4}ut", "one"].map(String::from).to_vec();
    let machine = start(&Setup { ports, ..volume.setup() });
    for name in ["", &long] {
        let port = machine.socket(name).with_extension("port");
        let port = if name.is_empty() { machine.socket("").with_file_name(".port") } else { port };
        let mut stream = UnixStream::connect(port).unwrap();
        let mut hello = Vec::new();
        wire::begin(b"0123456789abcdef", &mut hello);
        stream.write_all(&hello).unwrap();
        // Its bytes are in the machine before those of the others, and nobody answers them.
        let one = machine.client("one").unwrap();
        all(&one).put("key", b"value").unwrap();
        stream.set_nonblocking(true).unwrap();
        let answer = stream.read(&mut [0; 64]).unwrap_err();
        assert_eq!(answer.kind(), ErrorKind::WouldBlock);
    }
    let odd = machine.client("\u{fc}ml\u{e4}ut").unwrap();
    assert_eq!(odd.hello().unwrap().service, None);
    let refused = odd.directory("/state", Rights::GET).get("key").unwrap_err();
    assert_eq!(refused.code(), "ACCESS_DENIED");
}
