//! A service at work: calls of every kind on keys of its own, each answer checked.

use std::path::Path;
use std::sync::mpsc::Sender;

use fastrand::Rng;
use statefs_client::blocking::Directory;
use statefs_client::{
    Call, Client, Durability, Error, Held as Listed, ListOptions, Precondition, Rights, Value,
    Version, WriteOptions,
};

use crate::account::{Account, End, Held};
use crate::machine::{Machine, PATIENCE};

/// Keys of one writer: few, so that they are overwritten often.
const KEYS: usize = 10;

/// Calls that are made before the first of them is waited for.
const CALLS_MAX: usize = 5;

/// Writes to keys of its own, and counts in one that it shares.
pub struct Writer {
    pub service: &'static str,
    prefix: String,
    random: Rng,
    account: Account,
    /// Writes so far, which the values name.
    writes: u64,
    /// Times that it counted one further, and of how many of those nobody knows.
    pub counted: u64,
    pub uncertain: u64,
}

/// A call on its way, and what it should answer.
enum Asked {
    Put { call: Call<Version>, step: usize, durable: bool },
    Conflict { call: Call<Version>, current: Option<Version> },
    Delete { call: Call<bool>, step: usize, durable: bool },
    DeleteNothing { call: Call<bool> },
    Get { call: Call<Option<Value>>, number: usize, asked_after: usize },
    Sync { call: Call<()>, covered: usize },
}

/// The daemon is gone.
struct Gone;

impl Writer {
    /// The `number`th of the service.
    pub fn new(service: &'static str, number: usize, seed: u64) -> Self {
        Self {
            service,
            prefix: format!("/state/{service}/{number}"),
            random: Rng::with_seed(seed),
            account: Account::new(KEYS),
            writes: 0,
            counted: 0,
            uncertain: 0,
        }
    }

    /// Works until the daemon is gone; tells of every answer.
    pub fn work(&mut self, socket: &Path, answers: &Sender<()>) {
        let client = match Client::connect(socket) {
            Ok(client) => client,
            Err(Error::Connect { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        client.set_timeout(Some(PATIENCE));
        let own = client.directory(&self.prefix, Rights::ALL);
        let shared = client.directory(&format!("/state/{}", self.service), Rights::ALL);
        loop {
            let count = self.random.usize(1..=CALLS_MAX);
            let asked: Vec<Asked> = (0..count).map(|_| self.ask(&own)).collect();
            let mut gone = false;
            for one in asked {
                // Answers of different kinds overtake each other, so some may have come.
                match self.take(&client, one) {
                    Ok(()) => answers.send(()).unwrap_or_default(),
                    Err(Gone) => gone = true,
                }
            }
            if gone || self.count(&client, &shared).is_err() {
                return;
            }
        }
    }

    /// Compares what the daemon has with what it must have.
    pub fn check(&mut self, machine: &Machine, end: End) {
        let client = machine.connect(self.service);
        let own = client.directory(&self.prefix, Rights::ALL);
        let mut found = vec![None; KEYS];
        let mut list = own.list(ListOptions::default());
        for entry in &mut list {
            let entry = entry.unwrap();
            let Listed::Value(value) = entry.held else { panic!("{} is damaged", entry.key) };
            let place = (0..KEYS).find(|number| key(*number) == entry.key);
            let place = place.unwrap_or_else(|| panic!("nobody wrote {}", entry.key));
            found[place] = Some(Held { data: value.data, version: Some(value.version) });
        }
        assert!(list.is_intact());
        for (number, found) in found.iter().enumerate() {
            let got = own.get(&key(number)).unwrap();
            let got = got.map(|value| Held { data: value.data, version: Some(value.version) });
            assert!(got == *found, "key {number}: a list and a get differ");
        }
        if let Err(differs) = self.account.settle(&found, end) {
            panic!("{}: {differs}", self.prefix);
        }
    }

    /// Makes one call.
    fn ask(&mut self, own: &Directory) -> Asked {
        let number = self.random.usize(..KEYS);
        let (own, key) = (&own.calls(), key(number));
        let held = self.account.held(number).cloned();
        let durable = self.random.u8(..3) > 0;
        match (self.random.u8(..12), held) {
            (0, _) => Asked::Sync { call: own.sync(), covered: self.account.answered() },
            (1 | 2, _) => {
                Asked::Get { call: own.get(&key), number, asked_after: self.account.asked() }
            }
            (3 | 4, Some(held)) => {
                // Its version is known once its write is answered.
                let only_if = held.version.filter(|_| durable).map(Precondition::Version);
                let options = options(only_if.unwrap_or_default(), durable);
                let call = own.delete_with(&key, options);
                Asked::Delete { call, step: self.account.ask(number, None), durable }
            }
            (3 | 4, None) => Asked::DeleteNothing {
                call: own.delete_with(&key, options(Precondition::Any, durable)),
            },
            (5 | 6, Some(Held { version: current, .. })) => {
                let call = own.put_if_absent(&key, b"never there");
                Asked::Conflict { call, current }
            }
            (5 | 6, None) => self.put(own, number, Precondition::Absent, durable),
            (7 | 8, Some(Held { version: Some(version), .. })) => {
                self.put(own, number, Precondition::Version(version), durable)
            }
            _ => self.put(own, number, Precondition::Any, durable),
        }
    }

    fn put(
        &mut self,
        own: &statefs_client::Directory,
        number: usize,
        only_if: Precondition,
        durable: bool,
    ) -> Asked {
        let data = self.value();
        let call = own.put_with(&key(number), &data, options(only_if, durable));
        Asked::Put { call, step: self.account.ask(number, Some(data)), durable }
    }

    /// Makes a value unlike all others, mostly short.
    fn value(&mut self) -> Vec<u8> {
        self.writes += 1;
        let length = match self.random.u8(..40) {
            0 => self.random.usize(..=65_536),
            1..=5 => self.random.usize(..9000),
            _ => self.random.usize(..200),
        };
        let name = format!("write {} to {} ", self.writes, self.prefix).into_bytes();
        let length = length.max(name.len());
        name.into_iter().cycle().take(length).collect()
    }

    /// Waits for an answer and checks it.
    fn take(&mut self, client: &Client, asked: Asked) -> Result<(), Gone> {
        match asked {
            Asked::Put { call, step, durable } => {
                let version = answer(client, client.wait(call))?;
                self.account.acknowledge(step, Some(version), durable);
            }
            Asked::Conflict { call, current } => match client.wait(call) {
                Err(Error::Conflict { current: told }) => {
                    assert!(told.is_some() && (current.is_none() || current == told));
                }
                other => {
                    let version = answer(client, other)?;
                    panic!("{version} was written though the key was there");
                }
            },
            Asked::Delete { call, step, durable } => {
                assert!(answer(client, client.wait(call))?, "there was something to delete");
                self.account.acknowledge(step, None, durable);
            }
            Asked::DeleteNothing { call } => {
                assert!(!answer(client, client.wait(call))?, "there was nothing to delete");
            }
            Asked::Get { call, number, asked_after } => {
                let got = answer(client, client.wait(call))?.map(|value| value.data);
                assert!(self.account.may_read(number, asked_after, got.as_deref()));
            }
            Asked::Sync { call, covered } => {
                answer(client, client.wait(call))?;
                self.account.synced(covered);
            }
        }
        Ok(())
    }

    /// Counts one further in the key that the service's writers share, unless another was faster.
    fn count(&mut self, client: &Client, shared: &Directory) -> Result<(), Gone> {
        let written = match answer(client, shared.get(COUNT))? {
            None => shared.put_if_absent(COUNT, b"1"),
            Some(value) => {
                let next = number(&value) + 1;
                shared.put_if_version(COUNT, next.to_string().as_bytes(), value.version)
            }
        };
        match written {
            Err(Error::Conflict { .. }) => Ok(()),
            // On a connection that was over it was not even begun.
            Err(Error::Disconnected { .. }) => Err(Gone),
            written => match answer(client, written) {
                Ok(_) => {
                    self.counted += 1;
                    Ok(())
                }
                Err(Gone) => {
                    self.uncertain += 1;
                    Err(Gone)
                }
            },
        }
    }
}

/// How far the writers of a service have counted.
pub fn count(machine: &Machine, service: &str) -> u64 {
    let client = machine.connect(service);
    let shared = client.directory(&format!("/state/{service}"), Rights::GET);
    shared.get(COUNT).unwrap().map_or(0, |value| number(&value))
}

/// Sorts answers from the end of the connection, which is the only failure that may come.
fn answer<T>(client: &Client, result: Result<T, Error>) -> Result<T, Gone> {
    match result {
        Ok(value) => Ok(value),
        Err(error @ (Error::Indeterminate { .. } | Error::Disconnected { .. })) => {
            // A daemon without memory ends connections before it ends, and those are made again.
            if !error.to_string().contains("no memory for a message") {
                // An answer `indeterminate`, or none for too long, leaves the connection as it was.
                let after = client.health();
                assert!(matches!(after, Err(Error::Disconnected { .. })), "{error}: {after:?}");
            }
            Err(Gone)
        }
        Err(error) => panic!("{}: {error}", error.code()),
    }
}

fn options(precondition: Precondition, durable: bool) -> WriteOptions {
    let durability = if durable { Durability::Durable } else { Durability::Buffered };
    WriteOptions { precondition, durability }
}

fn key(number: usize) -> String {
    format!("k/{number}")
}

fn number(value: &Value) -> u64 {
    std::str::from_utf8(&value.data).unwrap().parse().unwrap()
}

/// The key that a service's writers share.
const COUNT: &str = "count";
