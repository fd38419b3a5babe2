//! The whole suite: what a change must pass, one step after the other.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::tally::{Tally, count};
use crate::{Failure, debian, fuzz, guest, needs, polyglot, run, schema, sim};

/// Simulated crashes of the optimised run. The test suite takes the seeds from 0, this the seeds
/// from [`SIM_FIRST_SEED`], so the two never repeat each other.
const SIM_CRASHES: &str = "2000000";
const SIM_FIRST_SEED: &str = "1000000";
/// The same for the whole server, of which a crash takes twenty times as long.
const SERVED_CRASHES: &str = "20000";

/// Runs every step, stops at the first that fails, and ends with the line `N passed, M failed`:
/// the tests of all runners; a step that fails without a failed test counts as one.
///
/// # Errors
/// [`Failure::Step`] with the name of the step and the command that repeats it.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    all(root, |suite| suite.steps())
}

/// Runs the steps of the bare machine alone, and ends as [`run`] does.
///
/// # Errors
/// As [`run`].
pub(crate) fn guest(root: &Path) -> Result<(), Failure> {
    all(root, |suite| suite.guest())
}

fn all(
    root: &Path,
    steps: impl FnOnce(&mut Suite<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut suite = Suite { root, tally: Tally::default(), times: Vec::new() };
    let mut result = steps(&mut suite);
    suite.show_times();
    if let Err(failure) = &mut result {
        if suite.tally.failed == 0 {
            suite.tally.failed = 1;
        }
        eprintln!("xtask: {failure}");
    }
    println!("{} passed, {} failed", suite.tally.passed, suite.tally.failed);
    result.map_err(|_| Failure::Shown)
}

struct Suite<'a> {
    root: &'a Path,
    tally: Tally,
    times: Vec<(&'static str, Duration)>,
}

impl Suite<'_> {
    fn steps(&mut self) -> Result<(), Failure> {
        self.command("format", &["fmt", "--all", "--check"])?;
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        self.command("lints", &lints)?;
        self.step("what the tests need", "cargo xtask test".into(), |_, _| needs::check())?;
        self.tests()?;
        self.step("schemas", "cargo xtask schema --check".into(), |suite, _| {
            fetch_capnp();
            schema::check(suite.root)
        })?;
        self.step("polyglot", "cargo xtask polyglot".into(), |suite, _| polyglot::run(suite.root))?;
        self.guest()?;
        let mut doc = run::cargo(self.root, &["doc", "--workspace", "--no-deps", "--lib"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        self.step("documentation", run::shown(&doc), |_, _| run::to_its_end(&mut doc))?;
        let options = ["--crashes", SIM_CRASHES, "--first-seed", SIM_FIRST_SEED, "--judge", "1"];
        let mut crashes = sim::command(self.root, "sim", &options);
        self.step("simulator", run::shown(&crashes), |_, _| run::to_its_end(&mut crashes))?;
        let options = ["--served", "--crashes", SERVED_CRASHES, "--first-seed", SIM_FIRST_SEED];
        let mut served = sim::command(self.root, "sim", &options);
        self.step("served", run::shown(&served), |_, _| run::to_its_end(&mut served))?;
        let mut faults = sim::command(self.root, "faults", &[]);
        self.step("faults", run::shown(&faults), |_, _| run::to_its_end(&mut faults))?;
        self.step("fuzzing", "cargo xtask fuzz --briefly".into(), |suite, _| {
            fuzz::briefly(suite.root)
        })
    }

    /// Runs the suites with nextest where it is installed, which leaves the doctests to cargo.
    fn tests(&mut self) -> Result<(), Failure> {
        let nextest = run::cargo(self.root, &["nextest", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if nextest.is_ok_and(|status| status.success()) {
            self.counted("tests", &["nextest", "run", "--workspace", "--no-fail-fast"])?;
            self.counted("doctests", &["test", "--workspace", "--doc", "--no-fail-fast"])
        } else {
            self.counted("tests", &["test", "--workspace", "--no-fail-fast"])
        }
    }

    /// Builds the bare machine, which links only as long as nothing in the core needs std or libc, and boots it
    /// in QEMU.
    fn guest(&mut self) -> Result<(), Failure> {
        if !guest::BUILDS {
            eprintln!("\n=== bare machine: left out, it is built on x86-64 Linux alone");
            return Ok(());
        }
        let lints = [&["clippy"], &guest::PACKAGE[..], &["--", "-D", "warnings"]].concat();
        self.command("lints of the machine", &lints)?;
        let mut planted = guest::build_planted(self.root);
        self.step("machine with plants", run::shown(&planted), |suite, _| {
            run::to_its_end(&mut planted)?;
            guest::put_planted_aside(suite.root)
        })?;
        let mut build = guest::build(self.root);
        self.step("link of the machine", run::shown(&build), |_, _| run::to_its_end(&mut build))?;
        self.step("QEMU", "cargo xtask guest --selftest".into(), |_, _| guest::fetch_qemu())?;
        // Two machines at a time: each has a processor of its own.
        let tests = ["test", "--package", "harness", "--features", "machine", "--test", "machine"];
        self.counted("bare machine", &[&tests[..], &["--", "--test-threads", "2"]].concat())
    }

    fn command(&mut self, name: &'static str, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = run::cargo(self.root, arguments);
        self.step(name, run::shown(&command), |_, _| run::to_its_end(&mut command))
    }

    fn counted(&mut self, name: &'static str, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = run::cargo(self.root, arguments);
        self.step(name, run::shown(&command), |_, tally| count(&mut command, tally))
    }

    fn step(
        &mut self,
        name: &'static str,
        repeat: String,
        work: impl FnOnce(&Self, &mut Tally) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        eprintln!("\n=== {name}: {repeat}");
        let (start, mut tally) = (Instant::now(), self.tally);
        let result = work(self, &mut tally);
        self.tally = tally;
        self.times.push((name, start.elapsed()));
        result.map_err(|why| Failure::Step { name, repeat, why: why.to_string() })
    }

    fn show_times(&self) {
        eprintln!("\n=== times");
        for (name, time) in &self.times {
            eprintln!("{:7.1} s  {name}", time.as_secs_f64());
        }
        let all: Duration = self.times.iter().map(|(_, time)| *time).sum();
        eprintln!("{:7.1} s  in all", all.as_secs_f64());
    }
}

/// Gets the schema compiler where that takes no question. Elsewhere the check that follows fails and
/// says how to get it; it is never skipped.
fn fetch_capnp() {
    if debian::answer("capnp", "--version").is_none() {
        debian::install(&["capnproto"]);
    }
}
