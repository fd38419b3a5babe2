//! Tasks of the project: `cargo xtask VERB`.

#![forbid(unsafe_code)]

mod bless;
mod debian;
mod demo;
mod fuzz;
mod guest;
mod needs;
mod polyglot;
mod projection;
mod run;
mod schema;
mod sim;
mod suite;
mod tally;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fmt, io};

use words::Wanted;

const HELP: &str = "\
Usage: cargo xtask VERB

  schema [--check]  compile the schemas anew; with --check only tell whether an image is stale
                    (exit 0 fresh, 1 stale or failed, 3 the program `capnp` is missing)
  test              everything that must hold before a change is merged: format, lints, tests,
                    schemas, other languages, bare machine, documentation, simulated crashes, faults
  test guest        the part of it that boots the bare machine in QEMU
  guest             build and boot the bare machine, and serve until Enter is pressed
  guest --selftest  boot it once, show its serial line, exit by its verdict
  guest --measure   figures of it: boot to ready, idle, memory, image, and durable puts beside those
                    of the host and the floors of both; wants a host with nothing else to do
  sim [OPTIONS]     crash the journal: [--crashes N] [--threads N] [--first-seed N] [--seed N] [--plant NAME];
                    with --served the whole server and its clients
  bench [ENGINE]... figures of speed, each beside the floor of the same device in the same run, and
                    beside StateFS fjall LMDB SQLite redb, which this alone compiles; takes five minutes and the time to build them
  bench cleaning    what lone puts wait for while the journal cleans and writes checkpoints beside them
  faults [PART]...  every single fault, pair of faults, request gone astray and cut of a small volume; parts: traces plants
                    flips blocks pairs repairs astray short; histories (an hour of one processor) only where it is named
  fuzz [TARGET]...  libFuzzer on the parsers: [--seconds N] on each (60), with what it has found before;
                    gets cargo-fuzz if there is none, and wants a C++ compiler; --briefly: five of them, as the suite does
  demo [OPTIONS]    build `statefs` and show the whole story
  polyglot          clients in Python and C++, made from the schema alone, against a real daemon
  bless             rewrite the golden files from what the code does now; review the diff
  help              this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words::judge(&arguments) {
        Wanted::Work => {}
        Wanted::Help(text) => {
            words::print(&text);
            return ExitCode::SUCCESS;
        }
        Wanted::Unclear(text) => {
            eprint!("xtask: {text}");
            return ExitCode::from(2);
        }
    }
    let done = match arguments.as_slice() {
        ["schema"] => schema::renew(root()),
        ["schema", "--check"] => schema::check(root()),
        ["test"] => suite::run(root()),
        ["test", "guest"] => suite::guest(root()),
        ["guest", options @ ..] => guest::run(root(), options),
        ["sim", options @ ..] => sim::run(root(), options),
        ["bench", "cleaning"] => bench(&["cleaning"], &[]),
        ["bench", engines @ ..] if !engines.contains(&"cleaning") => {
            bench(engines, &["--features", "peers"])
        }
        ["faults", parts @ ..] => sim::faults(root(), parts),
        ["fuzz", "--briefly"] => fuzz::briefly(root()),
        ["fuzz", options @ ..] => fuzz::run(root(), options),
        ["demo", options @ ..] => demo::run(root(), options),
        ["polyglot"] => polyglot::run(root()),
        ["bless"] => bless::run(root()),
        [verb, words @ ..] => Err(words::unclear(verb, words)),
        [] => Err(words::unclear("", &[])),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Shown) {
                eprintln!("xtask: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Measures on this machine, which should have nothing else to do.
fn bench(words: &[&str], features: &[&str]) -> Result<(), Failure> {
    const RUN: [&str; 4] = ["run", "--release", "-p", "bench"];
    run::to_its_end(run::cargo(root(), &RUN).args(features).arg("--").args(words))
}

/// Returns the root of the workspace.
fn root() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().expect("xtask is a folder of the workspace")
}

/// Why a task did not succeed.
#[derive(Debug)]
enum Failure {
    /// The words of a call are not understood; `help` tells those that are.
    Unclear { what: String, help: String },
    /// A program that the task needs is not installed; `advice` says how to get it.
    ToolMissing { program: &'static str, advice: &'static str },
    /// A program ran and failed; what it had to say is on stderr.
    Command { program: &'static str },
    /// A program of ours ran and ended with this code; what it had to say is on stderr.
    Exit { command: String, code: u8 },
    /// A step of the suite failed; `repeat` runs it alone.
    Step { name: &'static str, repeat: String, why: String },
    /// The suite failed and has said how; nothing may follow its last line.
    Shown,
    /// What clients in other languages did is not what they should have done.
    Polyglot { what: String },
    /// A file could not be read, written or run.
    Io { what: String, error: io::Error },
    /// A compiled schema cannot be read.
    Image { path: String, error: capnp::Error },
    /// The kernel gives no queue of its own for files in this folder.
    NoRing { folder: String },
    /// The kernel takes no files out of a program's reach.
    NoLandlock,
    /// A file cannot serve as a device.
    Device { path: String, error: blockdev::OpenError },
    /// Compiled schemas that do not belong to their sources.
    Stale { images: Vec<String> },
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Unclear { .. } => 2,
            Self::ToolMissing { .. } => 3,
            Self::Exit { code, .. } => *code,
            Self::Command { .. }
            | Self::Step { .. }
            | Self::Shown
            | Self::Polyglot { .. }
            | Self::Io { .. }
            | Self::Image { .. }
            | Self::NoRing { .. }
            | Self::NoLandlock
            | Self::Device { .. }
            | Self::Stale { .. } => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclear { what, help } => write!(f, "{what}\n\n{}", help.trim_end()),
            Self::ToolMissing { program, advice } => {
                write!(f, "the program `{program}` is not installed; {advice}")
            }
            Self::Command { program } => write!(f, "`{program}` failed"),
            Self::Exit { command, code } => write!(f, "`{command}` ended with code {code}"),
            Self::Step { name, repeat, why } => {
                write!(f, "step `{name}` failed: {why}\nrepeat it with: {repeat}")
            }
            Self::Shown => f.write_str("the suite failed"),
            Self::Polyglot { what } => write!(f, "clients in other languages: {what}"),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Image { path, error } => write!(f, "{path} is no compiled schema: {error}"),
            Self::NoRing { folder } => write!(
                f,
                "files in {folder} are served without io_uring, which tests need: the kernel allows it where \
                 `sysctl kernel.io_uring_disabled` says 0 and no filter of a container forbids it, on a file system \
                 with direct I/O, such as ext4 or XFS; name a folder on one with TMPDIR"
            ),
            Self::NoLandlock => f.write_str(
                "the kernel gives none; Linux does from 5.13 on, where it is built with CONFIG_SECURITY_LANDLOCK, `lsm=` of \
                 its command line does not leave it out, and no filter of a container forbids it",
            ),
            Self::Device { path, error } => write!(f, "{path}: {error}"),
            Self::Stale { images } => {
                write!(f, "stale: {}; run `cargo xtask schema`", images.join(", "))
            }
        }
    }
}
