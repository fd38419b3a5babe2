//! A machine with the real daemon, and the programs of the services run against it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::machine::Machine;
use crate::world::POLICY;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Said {
    /// Demands this exit code, and yields the standard output without its last line break.
    #[track_caller]
    pub fn exits(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        String::from_utf8(self.out).unwrap().trim_end().to_owned()
    }

    /// Demands success, and yields the one object that was printed.
    #[track_caller]
    pub fn json(self) -> Json {
        serde_json::from_str(&self.exits(0)).unwrap()
    }
}

/// A machine whose daemon serves every channel.
pub fn machine() -> Machine {
    machine_of(16 << 20)
}

/// A machine with a volume of so many bytes.
pub fn machine_of(bytes: u64) -> Machine {
    let mut machine = Machine::new(bytes, POLICY, CHANNELS);
    machine.start();
    machine
}

/// Runs a program with these words as the service of a channel, with `input` on standard input.
pub fn run(machine: &Machine, program: &str, channel: &str, words: &str, input: &[u8]) -> Said {
    let mut child = Command::new(program)
        .arg("--socket")
        .arg(machine.socket(channel))
        .args(words.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who ends before it has read all of its input may do so.
    child.stdin.take().unwrap().write_all(input).unwrap_or_default();
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().expect("it ends by itself");
    Said { code, out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

const CHANNELS: &[&str] = &["operator", "keystored", "updated", "crashd"];
