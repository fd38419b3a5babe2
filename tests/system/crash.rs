//! The daemon is killed, or told to end, while services on several sockets work.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use fastrand::Rng;
use rustix::process::Signal;
use statefs_client::{Client, ListOptions, Rights};

use crate::account::End;
use crate::machine::{Machine, PATIENCE};
use crate::writer::{Writer, count};

/// Daemons killed at work, unless `SYSTEM_KILLS` asks for others, and on top of that every third one while it starts.
const KILLS: u64 = 60;

/// Daemons ended in the moment of an answer.
const SHARP_ROUNDS: u8 = 15;

/// Daemons that get no memory any more.
const STARVED: u64 = 8;

/// Daemons told to end.
const STOPS: u64 = 6;

/// Two connections each.
const SERVICES: [&str; 3] = ["keystored", "updated", "netd"];

#[test]
fn whatever_was_acknowledged_survives_kills_at_any_moment() {
    let mut load = Load::new("kills");
    let kills = env::var("SYSTEM_KILLS").ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let mut killed_early = 0;
    for round in 0..kills {
        if round % 3 == 2 {
            // During recovery, or before, or after.
            load.machine.spawn();
            thread::sleep(Duration::from_micros(load.random.u64(..40_000)));
            load.machine.kill();
            killed_early += 1;
        }
        load.machine.start();
        load.check(End::Killed);
        let answers = load.random.usize(..120);
        let pause = Duration::from_micros(load.random.u64(..4000));
        load.run(answers, pause, Machine::kill);
    }
    load.machine.start();
    load.check(End::Killed);
    load.machine.stop();
    println!("{kills} kills at work, {killed_early} at the start");
}

/// An allocation fails, wherever it comes first.
#[test]
fn whatever_was_acknowledged_survives_the_end_of_memory() {
    let mut load = Load::new("starved");
    for round in 0..STARVED {
        load.machine.start();
        load.check(End::Killed);
        let answers = load.random.usize(..120);
        let bytes = if round == 0 { 0 } else { load.random.u64(..4 << 20) };
        load.run(answers, Duration::ZERO, |machine| {
            machine.starve(bytes);
            let deadline = Instant::now() + PATIENCE;
            while !machine.has_ended() {
                assert!(Instant::now() < deadline, "it lives on\n{}", machine.said());
                fill_memory(machine);
            }
            let status = machine.wait();
            // The stack does not grow any more either.
            let by = status.signal().and_then(Signal::from_named_raw);
            println!("{bytes} bytes more: {by:?}");
            assert!(matches!(by, Some(Signal::ABORT | Signal::SEGV)), "{status:?}");
        });
    }
    load.machine.start();
    load.check(End::Killed);
    load.machine.stop();
    let failed = load.machine.said().matches("memory allocation of").count();
    assert!(failed > 0, "no allocation failed\n{}", load.machine.said());
}

/// Sends large writes that nobody has a right to, on many connections: each is read before it is refused.
fn fill_memory(machine: &Machine) {
    let clients: Vec<_> =
        (0..8).filter_map(|_| Client::connect(machine.socket("auditor")).ok()).collect();
    let value = vec![0; 64 << 10];
    let mut calls = Vec::new();
    for client in &clients {
        client.set_timeout(Some(PATIENCE));
        let all = client.directory("/state", Rights::GET);
        calls.extend((0..32).map(|_| (client, all.calls().put("k", &value))));
    }
    for (client, call) in calls {
        // Refused, or the daemon is gone.
        drop(client.wait(call));
    }
}

#[test]
fn a_termination_under_load_loses_nothing() {
    let mut load = Load::new("terminations");
    for _ in 0..STOPS {
        load.machine.start();
        load.check(End::Stopped);
        let answers = load.random.usize(20..200);
        let pause = Duration::from_micros(load.random.u64(..4000));
        load.run(answers, pause, |machine| {
            machine.signal(Signal::TERM);
            let status = machine.wait();
            assert!(status.success(), "{status:?}\n{}", machine.said());
        });
    }
    load.machine.start();
    load.check(End::Stopped);
    load.machine.stop();
}

/// With so much on its way at the moment of an answer, an answer that came too early shows.
#[test]
fn an_answer_is_true_at_the_moment_it_comes() {
    let mut machine = Machine::new(64 << 20, &policy(), CHANNELS);
    for round in 0..SHARP_ROUNDS {
        machine.start();
        let client = machine.connect("netd");
        let own = client.directory("/state/netd", Rights::ALL);
        let value = vec![round; 48 << 10];
        let calls: Vec<_> =
            (0..16).map(|key| own.calls().put_buffered(&format!("k/{key}"), &value)).collect();
        let mut versions: Vec<_> =
            calls.into_iter().map(|call| client.wait(call).unwrap()).collect();
        match round % 3 {
            0 => {
                own.sync().unwrap();
                machine.kill();
            }
            1 => {
                // Durable itself, and so is what this connection wrote before it.
                versions[0] = own.put("k/0", &value).unwrap();
                machine.kill();
            }
            _ => machine.stop(),
        }
        machine.start();
        let client = machine.connect("netd");
        let own = client.directory("/state/netd", Rights::ALL);
        for (key, version) in versions.iter().enumerate() {
            let found = own.get(&format!("k/{key}")).unwrap().unwrap();
            assert_eq!(found.version, *version, "round {round}, key {key}");
            assert!(found.data == value, "round {round}, key {key}");
        }
        machine.check_health();
        machine.stop();
    }
}

/// A machine and the services at work on it.
struct Load {
    machine: Machine,
    writers: Vec<Writer>,
    /// How far each service had counted.
    counts: BTreeMap<&'static str, u64>,
    random: Rng,
}

impl Load {
    fn new(name: &str) -> Self {
        let seed = env::var("SYSTEM_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
        println!("SYSTEM_SEED={seed} ({name})");
        let mut random = Rng::with_seed(seed);
        let mut writers = Vec::new();
        for service in SERVICES {
            for number in 0..2 {
                writers.push(Writer::new(service, number, random.u64(..)));
            }
        }
        let machine = Machine::new(64 << 20, &policy(), CHANNELS);
        Self { machine, writers, counts: BTreeMap::new(), random }
    }

    /// Lets the services work until so many calls are answered, and a pause longer; then `end` ends
    /// the daemon under them.
    fn run(&mut self, answers: usize, pause: Duration, end: impl FnOnce(&mut Machine)) {
        let machine = &mut self.machine;
        let (answer, answered) = mpsc::channel();
        let all = thread::scope(|scope| {
            for writer in &mut self.writers {
                let (socket, answer) = (machine.socket(writer.service), answer.clone());
                scope.spawn(move || writer.work(&socket, &answer));
            }
            drop(answer);
            let all = (0..answers).all(|_| answered.recv_timeout(PATIENCE).is_ok());
            thread::sleep(pause);
            end(machine);
            all
        });
        assert!(all, "the services stood still\n{}", self.machine.said());
    }

    /// Compares all that the daemon has with what it must have.
    fn check(&mut self, end: End) {
        self.machine.check_health();
        for writer in &mut self.writers {
            writer.check(&self.machine, end);
        }
        for service in SERVICES {
            let found = count(&self.machine, service);
            let writers = self.writers.iter_mut().filter(|writer| writer.service == service);
            let (mut counted, mut uncertain) = (0, 0);
            for writer in writers {
                counted += std::mem::take(&mut writer.counted);
                uncertain += std::mem::take(&mut writer.uncertain);
            }
            let least = self.counts.get(service).unwrap_or(&0) + counted;
            assert!((least..=least + uncertain).contains(&found), "{service}: {found}, {least}");
            self.counts.insert(service, found);
        }
        self.check_nothing_else();
    }

    /// Demands that there is no key but those of the services, and that all can be read.
    fn check_nothing_else(&self) {
        let client = self.machine.connect("auditor");
        let all = client.directory("/state", Rights::GET | Rights::LIST);
        let mut list = all.list(ListOptions { limit: 7, ..ListOptions::default() });
        for entry in &mut list {
            let entry = entry.unwrap();
            let mut parts = entry.key.split('/');
            assert!(SERVICES.contains(&parts.next().unwrap()), "nobody wrote {}", entry.key);
            assert!(matches!(parts.next(), Some("0" | "1" | "count")), "{}", entry.key);
        }
        assert!(list.is_intact());
    }
}

fn policy() -> String {
    let mut text = String::from("version = 1\n[service.auditor]\nchannel = \"auditor\"\n");
    for service in SERVICES {
        text.push_str(&format!("[service.{service}]\nchannel = \"{service}\"\n"));
    }
    text.push_str(
        "[[grant]]\nto = \"auditor\"\nprefix = \"/state\"\nrights = [\"get\", \"list\"]\n",
    );
    for service in SERVICES {
        text.push_str(&format!(
            "[[grant]]\nto = \"{service}\"\nprefix = \"/state/{service}\"\n\
             rights = [\"get\", \"list\", \"put\", \"delete\"]\n"
        ));
    }
    text
}

const CHANNELS: &[&str] = &["auditor", "keystored", "updated", "netd"];
