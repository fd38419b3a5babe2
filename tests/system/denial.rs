//! What a denied caller learns of a key: nothing, down to the bytes on its socket.

use std::fs::{self, File};
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;

use statefs::directory;
use statefs_client::{Error, Rights};

use crate::machine::Machine;
use crate::wire::Wire;

/// The thief may write in the vault, and so hold a directory of it, but not read.
const POLICY: &str = "version = 1\n\
    [service.owner]\nchannel = \"owner\"\n[service.thief]\nchannel = \"thief\"\n\
    [[grant]]\nto = \"owner\"\nprefix = \"/state\"\nrights = [\"get\", \"list\", \"put\", \"delete\"]\n\
    [[grant]]\nto = \"thief\"\nprefix = \"/state/vault\"\nrights = [\"put\"]\n";

/// One of each kind; their names are equally long.
const KEYS: [&str; 3] = ["present", "missing", "damaged"];

/// That it was answered, or the reason of the exception.
type Answer = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Asks something of a key in a directory.
type Ask = fn(&directory::Client, &str) -> Answer;

#[test]
fn a_denial_is_the_same_bytes_for_keys_that_are_there_absent_and_damaged() {
    let mut machine = Machine::new(8 << 20, POLICY, &["owner", "thief"]);
    damage(&mut machine);
    for (name, ask) in OPERATIONS {
        let heard = KEYS.map(|key| transcript(&machine, "thief", |vault| ask(vault, key)));
        for (answer, bytes) in &heard {
            assert_eq!(*answer, Err("ACCESS_DENIED".into()), "{name}");
            assert!(!bytes.is_empty());
        }
        assert!(heard[0].1 == heard[1].1, "{name}: present and missing differ");
        assert!(heard[0].1 == heard[2].1, "{name}: present and damaged differ");
    }
    // The comparison can tell: who may read hears three different things.
    let heard = KEYS.map(|key| transcript(&machine, "owner", |vault| get(vault, key)));
    assert!(heard.iter().all(|(answer, _)| answer.is_ok()));
    assert!(heard[0].1 != heard[1].1 && heard[0].1 != heard[2].1 && heard[1].1 != heard[2].1);
    machine.stop();
}

/// Writes the keys, and spoils one under a daemon that has not read it.
fn damage(machine: &mut Machine) {
    machine.start();
    let owner = machine.connect("owner");
    let vault = owner.directory("/state/vault", Rights::ALL);
    vault.put("present", b"a value that is well").unwrap();
    vault.put("damaged", MARKED).unwrap();
    machine.stop();
    machine.start();
    let image = fs::read(machine.image()).unwrap();
    let places = image.windows(MARKED.len()).enumerate().filter(|(_, bytes)| *bytes == MARKED);
    let places: Vec<u64> = places.map(|(place, _)| place.try_into().unwrap()).collect();
    assert_eq!(places.len(), 2, "two copies");
    let file = File::options().write(true).open(machine.image()).unwrap();
    for place in places {
        file.write_all_at(b"?", place).unwrap();
    }
    file.sync_all().unwrap();
    let owner = machine.connect("owner");
    let vault = owner.directory("/state/vault", Rights::ALL);
    assert_eq!(vault.get("damaged"), Err(Error::DataLoss));
    assert_eq!(vault.get("missing"), Ok(None));
    assert!(vault.get("present").unwrap().is_some());
}

/// Everything that a new connection hears when it asks one thing.
fn transcript(
    machine: &Machine,
    channel: &str,
    ask: impl FnOnce(&directory::Client) -> Answer,
) -> (Result<(), String>, Vec<u8>) {
    let mut wire = Wire::connect(machine.socket(channel));
    let vault = wire.directory("/state/vault");
    let answer = ask(&vault);
    let answer = wire.wait(answer);
    (answer, wire.heard())
}

const OPERATIONS: [(&str, Ask); 7] = [
    ("get", get),
    ("get of metadata", |vault, key| {
        let mut request = vault.get_request();
        request.get().set_key(key);
        request.get().set_metadata_only(true);
        answer(request.send().promise)
    }),
    ("put if absent", |vault, key| {
        let mut request = vault.put_request();
        request.get().set_key(key);
        request.get().init_precondition().set_absent(());
        answer(request.send().promise)
    }),
    ("put if a version", |vault, key| {
        let mut request = vault.put_request();
        request.get().set_key(key);
        request.get().init_precondition().set_version(1);
        answer(request.send().promise)
    }),
    ("delete", |vault, key| {
        let mut request = vault.delete_request();
        request.get().set_key(key);
        answer(request.send().promise)
    }),
    ("list", |vault, key| {
        let mut request = vault.list_request();
        request.get().set_prefix(key);
        answer(request.send().promise)
    }),
    ("list of keys", |vault, key| {
        let mut request = vault.list_request();
        request.get().set_prefix(key);
        request.get().set_keys_only(true);
        answer(request.send().promise)
    }),
];

fn get(vault: &directory::Client, key: &str) -> Answer {
    let mut request = vault.get_request();
    request.get().set_key(key);
    answer(request.send().promise)
}

fn answer<T>(promise: impl Future<Output = Result<T, capnp::Error>> + 'static) -> Answer {
    Box::pin(async { promise.await.map(drop).map_err(|error| error.extra) })
}

const MARKED: &[u8] = b"the value that goes bad";
