//! Values that would be known again anywhere, in a run in which all that can go wrong does; then
//! every word that the daemon said is searched for them.

use std::fmt::{Debug, Display};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use fastrand::Rng;
use rustix::process::Signal;
use statefs_client::blocking::Directory;
use statefs_client::{Batch, Client, Durability, Rights};

use crate::machine::Machine;
use crate::secrets::Secrets;
use crate::wire::{Wire, write};

/// Frames that carry a value and are spoiled.
const SPOILED: usize = 300;

const SEED: u64 = 0x5ec2e7;

const POLICY: &str = r#"version = 1
[service.canaryService]
channel = "one"
[service.other]
channel = "two"
[[grant]]
to = "canaryService"
prefix = "/state/one"
rights = ["get", "list", "put", "delete"]
quota = { keys = 40, value_max = 65000 }
[[grant]]
to = "other"
prefix = "/state/two"
rights = ["get", "put"]
[[grant]]
to = "other"
prefix = "/state"
rights = ["admin.audit"]
"#;

/// A part of a key that would be known again.
const KEY: &str = "kEy4Qz81Lm7Xw2";

/// What the run came to hold, and what was said in it.
struct Run {
    machine: Machine,
    random: Rng,
    secrets: Secrets,
    values: Vec<Vec<u8>>,
    /// Errors, as clients show them.
    said: String,
}

impl Run {
    fn new() -> Self {
        let mut machine = Machine::new(16 << 20, POLICY, &["one", "two"]);
        machine.option("--log-level", "trace");
        machine.option("--metrics", &format!("unix:{}", machine.path("metrics").display()));
        machine.start();
        let (random, secrets) = (Rng::with_seed(SEED), Secrets::default());
        Self { machine, random, secrets, values: Vec::new(), said: String::new() }
    }

    /// A new value: letters or bytes, not seen before.
    fn value(&mut self) -> Vec<u8> {
        let text = self.random.bool();
        let byte =
            |random: &mut Rng| if text { random.alphanumeric() as u8 } else { random.u8(..) };
        let value: Vec<u8> = (0..32).map(|_| byte(&mut self.random)).collect();
        self.secrets.add(&value);
        self.values.push(value.clone());
        value
    }

    /// Notes what an error says; there has to be one.
    #[track_caller]
    fn fails<T, E: Display + Debug>(&mut self, result: Result<T, E>) {
        let error = result.err().expect("it is refused");
        self.said += &format!("{error} {error:?} {error:#?}\n");
    }

    fn own(&self) -> (Client, Directory) {
        let client = self.machine.connect("one");
        let own = client.directory("/state/one", Rights::ALL);
        (client, own)
    }

    /// Writes that are taken, and read back.
    fn keep(&mut self) {
        let (_client, own) = self.own();
        for (number, durability) in
            [Durability::Durable, Durability::Buffered, Durability::Strict].into_iter().enumerate()
        {
            let (value, other) = (self.value(), self.value());
            let mut batch = Batch::new();
            batch.put(&format!("{KEY}/a{number}"), &value).put(&format!("b{number}"), &other);
            own.commit(batch.durability(durability)).unwrap();
            assert_eq!(own.get(&format!("b{number}")).unwrap().unwrap().data, other);
        }
        let long: Vec<u8> = (0..1500).flat_map(|_| self.value()).collect();
        own.put("long", &long).unwrap();
        assert_eq!(own.get("long").unwrap().unwrap().data, long);
        own.delete("long").unwrap();
        assert!(own.list(Default::default()).count() >= 6);
    }

    /// Writes that are refused, for every reason that there is.
    fn refuse(&mut self) {
        let (client, own) = self.own();
        let version = own.put("known", &self.value()).unwrap();
        own.put("known", &self.value()).unwrap();
        let value = self.value();
        self.fails(own.put_if_absent("known", &value));
        self.fails(own.put_if_version("known", &value, version));
        self.fails(own.put_if_version("unknown", &value, version));
        let mut batch = Batch::new();
        batch.put("fine", &value).put_if_absent("known", &value);
        self.fails(own.commit(&batch));
        let elsewhere = client.directory("/state/two", Rights::ALL);
        self.fails(elsewhere.put(KEY, &value));
        self.fails(
            self.machine.connect("two").directory("/state/one", Rights::ALL).put("x", &value),
        );
        for key in ["", "a//b", "..", "a\u{7}b", &"long/".repeat(80)] {
            self.fails(own.put(key, &value));
        }
        let repeated = value.repeat(2040);
        assert!((65_001..65_536).contains(&repeated.len()));
        self.fails(own.put("over-quota", &repeated));
        self.fails(own.put("over-limit", &value.repeat(3000)));
        for number in 0..50 {
            // Some of them are taken, until there are too many keys.
            if let Err(error) = own.put(&format!("many{number}"), &value) {
                self.said += &format!("{error} {error:?}\n");
            }
        }
        assert!(self.said.contains("a quota allows 40 keys"), "{}", self.said);
        // Straight over the wire, past the checks of the client.
        let mut wire = Wire::connect(self.machine.socket("one"));
        let directory = wire.directory("/state/one");
        for (key, value) in [("a//b", value.clone()), ("over", value.repeat(3000))] {
            let mut request = directory.put_request();
            request.get().set_key(key);
            request.get().set_value(&value);
            let answer = wire.wait(request.send().promise);
            self.fails(answer.map(drop));
        }
    }

    /// Messages that carry a value and break the rules, and that are cut off.
    fn spoil(&mut self) {
        let value = self.value();
        let sound = write("/state/one", KEY, &value);
        assert!(sound.windows(value.len()).any(|window| window == value));
        for round in 0..SPOILED {
            let mut bytes = sound.clone();
            if round % 4 == 0 {
                bytes.truncate(self.random.usize(..bytes.len()));
            } else {
                for _ in 0..self.random.usize(1..6) {
                    let place = self.random.usize(..bytes.len());
                    bytes[place] = self.random.u8(..);
                }
            }
            let mut stream = UnixStream::connect(self.machine.socket("one")).unwrap();
            // The daemon may hang up in the middle.
            let _rest_unsent = stream.write_all(&bytes);
            let _gone = stream.shutdown(Shutdown::Write);
            if round % 10 == 0 {
                let mut last_words = Vec::new();
                let _cut = stream.read_to_end(&mut last_words);
                self.said += &String::from_utf8_lossy(&last_words);
            }
        }
        assert!(self.machine.connect("one").health().is_ok());
    }

    /// Damages a value in both copies while the daemon is down.
    fn damage(&mut self) {
        let value = self.value();
        self.own().1.put("known", &value).unwrap();
        self.machine.stop();
        let mut image = fs::read(self.machine.image()).unwrap();
        let copies: Vec<_> =
            (0..image.len() - value.len()).filter(|at| image[*at..].starts_with(&value)).collect();
        assert_eq!(copies.len(), 2, "both copies");
        for at in copies {
            image[at] ^= 1;
        }
        fs::write(self.machine.image(), image).unwrap();
        self.machine.start();
        let (client, own) = self.own();
        self.fails(own.get("known"));
        self.said += &format!("{:?}\n", client.health().unwrap());
        self.said += &format!("{:?}\n", own.page(&Default::default()).map(|page| page.next));
    }

    /// What was recorded of changes and refusals, as the command line tells it.
    fn audited(&self) -> String {
        let mut text = String::new();
        for arguments in [&["audit"][..], &["audit", "--denials"]] {
            for format in ["text", "json"] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_statefs-under-test"));
                command.args(arguments).args(["-o", format, "--socket"]);
                let output = command.arg(self.machine.socket("two")).output().unwrap();
                assert!(output.status.success() && output.stdout.len() > 1000, "{output:?}");
                text += &String::from_utf8(output.stdout).unwrap();
                text += &String::from_utf8(output.stderr).unwrap();
            }
        }
        text
    }

    /// What is told to those who watch the machine.
    fn figures(&self) -> String {
        let mut text = String::new();
        let mut stream = UnixStream::connect(self.machine.path("metrics")).unwrap();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("# EOF\n"));
        text
    }
}

#[test]
fn no_value_is_in_a_log_an_error_a_metric_an_audit_record_or_a_core() {
    let mut run = Run::new();
    run.keep();
    run.refuse();
    run.spoil();
    run.damage();
    run.machine.write_policy("version = 1\nnonsense = 1\n");
    run.machine.signal(Signal::HUP);
    run.machine
        .until("the fault is told", |machine| machine.said().contains("the policy in force stays"));
    let audited = run.audited();
    for name in [KEY, "canaryService", "/state/two", "a quota allows 40 keys"] {
        assert!(audited.contains(name), "{name} in {audited}");
    }
    let figures = run.figures();
    for name in [KEY, "canaryService", "/state", "known"] {
        assert!(!figures.contains(name), "{name} in {figures}");
    }
    // As a broken invariant would end it.
    run.machine.signal(Signal::ABORT);
    let status = run.machine.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let log = run.machine.said();
    assert!(log.contains(KEY), "denials name their key, so the log is the right one");
    for (name, said) in
        [("log", &log), ("errors", &run.said), ("metrics", &figures), ("audit", &audited)]
    {
        assert!(said.len() > 1000, "{name}: {said}");
        assert_eq!(run.secrets.find(said.as_bytes()), None, "in the {name}");
    }
    let core = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    let folder = run.machine.path("");
    assert!(!fs::read_dir(folder).unwrap().any(|entry| core(&entry.unwrap())));
    // The values are where they belong, and are found there: the search is not blind.
    let image = fs::read(run.machine.image()).unwrap();
    assert!(run.secrets.find(&image).is_some());
}

/// A client's name goes to the log as it is, so a value in its place is a leak that must be found.
#[test]
fn a_planted_leak_is_found() {
    let mut run = Run::new();
    let value = std::iter::repeat_with(|| run.value())
        .find(|value| value.is_ascii())
        .expect("every second one is of letters");
    let client = run.machine.connect("one");
    client.hello_as(std::str::from_utf8(&value).unwrap()).unwrap();
    run.machine.stop();
    let found = run.secrets.find(run.machine.said().as_bytes());
    assert!(found.is_some_and(|found| found.contains("hello")), "{}", run.machine.said());
}
