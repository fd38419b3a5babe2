//! Two terminals: one for the daemon, and a shell for what is typed in the other.
//!
//! A block of the README is a run of steps: `$ ` begins a command, `^C` is the key that stops the
//! daemon, and lines before either are what the daemon logged meanwhile. What follows a step is
//! what it shows; `…` stands for anything within a line, and versions are not compared.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::redact;

/// Long beyond what a loaded machine needs: only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What ends the output of a command.
const MARK: &str = "=== the command has ended ===";

/// What the README's `cargo` runs: the daemon and the program, built already.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
"run -q -p statefs-cli -- "*) shift 5; exec "$STATEFS" "$@" ;;
"run -p statefsd -- "*) shift 4; exec "$STATEFS" __daemon-of-the-demo "$@" ;;
esac
echo "the README asks for what no test runs: cargo $*"
exit 2
"#;

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A line that is typed into the second terminal, or starts the daemon in the first.
    Command(String),
    /// Ctrl-C in the first terminal.
    Interrupt,
    /// Nothing: the daemon logs.
    Look,
}

/// What is done, and what is shown then.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) input: Input,
    pub(crate) shown: String,
}

/// Takes a block apart.
pub(crate) fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        let input = match line.strip_prefix("$ ") {
            Some(command) => Input::Command(command.into()),
            None if line == "^C" => Input::Interrupt,
            None if steps.is_empty() => Input::Look,
            None => {
                let last = steps.last_mut().unwrap();
                last.shown.push_str(line);
                last.shown.push('\n');
                continue;
            }
        };
        let shown = if input == Input::Look { format!("{line}\n") } else { String::new() };
        steps.push(Step { input, shown });
    }
    steps
}

/// Tells whether `shown` is what the README says.
pub(crate) fn matches(expected: &str, shown: &str) -> bool {
    let (expected, shown) = (redact(expected), redact(shown));
    let (expected, shown) = (expected.trim_end().split('\n'), shown.trim_end().split('\n'));
    expected.clone().count() == shown.clone().count()
        && expected.zip(shown).all(|(expected, shown)| line_matches(expected, shown))
}

fn line_matches(expected: &str, shown: &str) -> bool {
    let Some((start, rest)) = expected.split_once('…') else {
        return expected == shown;
    };
    let Some(shown) = shown.strip_prefix(start) else {
        return false;
    };
    let ends = shown.char_indices().map(|(at, _)| at).chain([shown.len()]);
    ends.into_iter().any(|at| line_matches(rest, &shown[at..]))
}

/// Both terminals, standing in a folder.
pub(crate) struct Console {
    folder: PathBuf,
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    daemon: Option<Child>,
    /// Lines of the daemon's log that were looked at.
    lines_seen: usize,
}

impl Console {
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir(folder.join("bin")).unwrap();
        let cargo = folder.join("bin/cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, Permissions::from_mode(0o700)).unwrap();
        File::create(folder.join("daemon.log")).unwrap();
        let mut shell = command(folder, "bash");
        shell.arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        // As in a terminal: both streams in one place, and aliases count.
        input.write_all(b"exec 2>&1\nshopt -s expand_aliases\n").unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        Self { folder: folder.into(), shell, input, output, daemon: None, lines_seen: 0 }
    }

    /// Does a step, and yields what is shown.
    pub(crate) fn run(&mut self, step: &Step) -> String {
        let line_count = step.shown.lines().count();
        match &step.input {
            Input::Command(line) if line.contains("-p statefsd ") => {
                assert!(self.daemon.is_none(), "the first terminal is taken: {line}");
                let log = File::options().append(true).open(self.folder.join("daemon.log"));
                let mut daemon = command(&self.folder, "bash");
                daemon.args(["-c", &format!("exec {line}")]);
                // The daemon ends with this pipe.
                let daemon = daemon.stdin(Stdio::piped()).stderr(log.unwrap()).spawn();
                self.daemon = Some(daemon.unwrap());
                self.log(line_count)
            }
            Input::Command(line) => self.type_in(line),
            Input::Interrupt => {
                let mut daemon = self.daemon.take().expect("a daemon to stop");
                let stdin = daemon.stdin.take();
                let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
                kill_process(pid, Signal::INT).unwrap();
                assert!(daemon.wait().unwrap().success());
                drop(stdin);
                self.log(line_count)
            }
            Input::Look => self.log(line_count),
        }
    }

    fn type_in(&mut self, line: &str) -> String {
        // The mark leaves the command's code to the next one.
        let ends = format!("ended=$?; printf '\\n%s\\n' '{MARK}'; (exit $ended)");
        self.input.write_all(format!("{line}\n{ends}\n").as_bytes()).unwrap();
        let mut shown = String::new();
        loop {
            let mut line = String::new();
            let bytes = self.output.read_line(&mut line).unwrap();
            assert!(bytes > 0, "the shell has ended: {shown}");
            if line.trim_end() == MARK {
                return shown;
            }
            shown.push_str(&line);
        }
    }

    /// Yields what the daemon logged since the last look, once that is `line_count` lines.
    fn log(&mut self, line_count: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.join("daemon.log")).unwrap();
            let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let new: Vec<&str> = whole.skip(self.lines_seen).collect();
            if new.len() >= line_count {
                self.lines_seen += new.len();
                return new.concat();
            }
            assert!(Instant::now() < deadline, "{line_count} lines do not come: {new:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        for child in self.daemon.iter_mut().chain([&mut self.shell]) {
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}

/// Makes a call of `program` in `folder`, with our `cargo` before all others.
fn command(folder: &Path, program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut first = folder.join("bin").into_os_string();
    first.push(":");
    first.push(path);
    let mut command = Command::new(program);
    command.current_dir(folder).env("PATH", first).env_remove("STATEFS_SOCKET");
    command.env("STATEFS", env!("CARGO_BIN_EXE_statefs"));
    command
}

#[test]
fn steps_are_told_apart() {
    let steps = steps("logged\n$ one\nshown\nand more\n^C\nlast\n");
    let told: Vec<(&Input, &str)> =
        steps.iter().map(|step| (&step.input, step.shown.as_str())).collect();
    let one = Input::Command("one".into());
    assert_eq!(
        told,
        [(&Input::Look, "logged\n"), (&one, "shown\nand more\n"), (&Input::Interrupt, "last\n"),]
    );
}

#[test]
fn output_is_compared_but_for_what_differs() {
    assert!(matches("home\n", "home"));
    assert!(matches("", "\n"));
    assert!(matches("… b … d\nx\n", "a b c d\nx\n"));
    assert!(matches("put 00112233445566aa\n", "put ffeeddccbbaa9988\n"));
    for (expected, shown) in [
        ("home", "harbour"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("…b", "abc"),
        ("a … d", "a b c"),
        ("put 00112233445566aa", "put 0011"),
    ] {
        assert!(!matches(expected, shown), "{expected:?} and {shown:?}");
    }
}
