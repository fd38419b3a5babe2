//! libFuzzer on the parsers, with the address sanitizer, from a workspace of its own.
//!
//! The sanitizer is behind a switch that stable compilers hide; `RUSTC_BOOTSTRAP` shows it, so no other toolchain is needed.
//! `cargo xtask test` gives those that read a disk a minute each, beside the replay of the corpus and of seeded mutations, which
//! comes out the same every time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, debian, run};

/// Seconds for each target.
const SECONDS: &str = "60";
/// The targets that `cargo xtask test` runs: what reads a disk, or an image that somebody hands over.
const OF_DISKS: [&str; 5] = ["mount", "superblock", "checkpoint", "record", "import"];
/// The version of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";
/// Where it goes.
const TOOLS: &str = "target/tools";
/// Longest input in bytes: the least volume is made of far fewer edits.
const BYTES_MAX: &str = "8192";

/// Runs libFuzzer on the targets that `options` name, on all without a name.
///
/// # Errors
/// A target was broken, or the toolchain is not there; the options are not understood (code 2).
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    let known = targets(root)?;
    let (mut names, mut seconds) = (Vec::new(), SECONDS);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match (*word, words.as_slice().first()) {
            ("--seconds", Some(given)) if given.parse::<u32>().is_ok_and(|given| given > 0) => {
                seconds = given;
                words.next();
            }
            (word, _) if word.starts_with('-') => return Err(not_understood(word, &known)),
            (word, _) => names.push(word),
        }
    }
    if let Some(word) = names.iter().find(|name| known.iter().all(|known| known != *name)) {
        return Err(not_understood(word, &known));
    }
    fetch(root)?;
    for name in known.iter().filter(|name| names.is_empty() || names.contains(&name.as_str())) {
        one(root, name, seconds)?;
    }
    Ok(())
}

/// Gives each of the parsers of disks a minute, two at a time.
///
/// # Errors
/// A target was broken, or cannot be built.
pub(crate) fn briefly(root: &Path) -> Result<(), Failure> {
    fetch(root)?;
    let mut build = cargo_fuzz(root, "build");
    build.args(["--fuzz-dir", FOLDER]);
    run::to_its_end(&mut build)?;
    for pair in OF_DISKS.chunks(2) {
        let runs = pair.iter().map(|&name| {
            let command = prepared(root, name, SECONDS)?;
            eprintln!("{name}: {}", run::shown(&command));
            Ok(Run { name, command, log: log(root, name) })
        });
        beside_each_other(runs.collect::<Result<_, Failure>>()?)?;
    }
    Ok(())
}

/// A run that has others beside it, and the file where its words go.
struct Run<'a> {
    name: &'a str,
    command: Command,
    log: PathBuf,
}

/// Runs them beside each other, each to its end, also where one of them fails: what is left would take a processor from
/// what comes next, and to kill cargo-fuzz does not end its fuzzer.
///
/// # Errors
/// That of the first which failed.
fn beside_each_other(runs: Vec<Run<'_>>) -> Result<(), Failure> {
    let started: Vec<_> = runs
        .into_iter()
        .map(|mut run| -> Result<_, Failure> {
            let log = fs::File::create(&run.log).map_err(io(run.name))?;
            let child = run.command.stdout(Stdio::null()).stderr(log).spawn();
            Ok((child.map_err(io(run.name))?, run))
        })
        .collect();
    let ended = started.into_iter().map(|started| {
        let (mut child, Run { name, command, log }) = started?;
        let status = child.wait().map_err(io(name))?;
        let said = fs::read_to_string(log).map_err(io(name))?;
        run::check(&command, status).inspect_err(|_| eprintln!("{said}"))?;
        // What a run was worth: how often, how much of the code.
        let told = |line: &&str| line.starts_with("Done") || line.starts_with("stat::number");
        let covered = said.lines().rev().find(|line| line.contains(" cov: "));
        said.lines().filter(told).chain(covered).for_each(|line| eprintln!("{name}: {line}"));
        Ok(())
    });
    // A failure would end it before the others are waited for.
    let ended: Vec<Result<(), Failure>> = ended.collect();
    ended.into_iter().collect()
}

/// Runs one target.
fn one(root: &Path, name: &str, seconds: &str) -> Result<(), Failure> {
    let mut command = prepared(root, name, seconds)?;
    eprintln!("\n=== {name}: {}", run::shown(&command));
    run::to_its_end(&mut command)
}

/// Makes a run of one target on what is checked in and on what it has found before, which stays out of the repository.
fn prepared(root: &Path, name: &str, seconds: &str) -> Result<Command, Failure> {
    let (found, kept) = (format!("{FOLDER}/corpus/{name}"), format!("tests/fuzz/corpus/{name}"));
    fs::create_dir_all(root.join(&found)).map_err(io(&found))?;
    let mut command = cargo_fuzz(root, "run");
    command.args(["--fuzz-dir", FOLDER, name, &found, &kept]);
    command.args(["--", "-timeout=20", "-print_final_stats=1"]);
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={BYTES_MAX}")]);
    if name == "virtio" {
        // What virtio-drivers lists of requests in flight is lost when a device is given up: some KiB, once for each device.
        command.arg("-detect_leaks=0").env("ASAN_OPTIONS", "detect_leaks=0");
    }
    Ok(command)
}

/// Where the words of a run go that has others beside it.
fn log(root: &Path, name: &str) -> PathBuf {
    root.join(FOLDER).join("corpus").join(format!("{name}.log"))
}

/// Lists the targets: the programs of the workspace.
fn targets(root: &Path) -> Result<Vec<String>, Failure> {
    let folder = format!("{FOLDER}/targets");
    let entries = fs::read_dir(root.join(&folder)).map_err(io(&folder))?;
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".rs").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Gets cargo-fuzz and a C++ compiler, where they are not there.
fn fetch(root: &Path) -> Result<(), Failure> {
    if debian::answer("c++", "--version").is_none() {
        debian::install(&["g++"]);
    }
    if debian::answer("c++", "--version").is_none() {
        let advice = "libFuzzer is C++: install g++ or clang, such that there is a `c++`";
        return Err(Failure::ToolMissing { program: "c++", advice });
    }
    if program(root).exists() {
        return Ok(());
    }
    let mut install =
        run::cargo(root, &["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]);
    run::to_its_end(install.args(["--root", TOOLS]))
}

fn program(root: &Path) -> PathBuf {
    root.join(TOOLS).join("bin/cargo-fuzz")
}

/// Makes a call of cargo-fuzz, which is told its own name as cargo would.
fn cargo_fuzz(root: &Path, verb: &str) -> Command {
    let mut command = Command::new(program(root));
    command.args(["fuzz", verb]).current_dir(root).stdin(Stdio::null()).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> Failure {
    let what = what.to_owned();
    |error| Failure::Io { what, error }
}

fn not_understood(word: &str, targets: &[String]) -> Failure {
    let what = format!("fuzz: `{word}` is no target and no option");
    let help = format!("targets: {}\noptions: --seconds N, N from 1\n", targets.join(" "));
    Failure::Unclear { what, help }
}

const FOLDER: &str = "tests/fuzz/libfuzzer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_fails_leaves_none_behind() {
        let folder =
            std::env::temp_dir().join(format!("statefs-xtask-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let run = |name, script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(&folder);
            Run { name, command, log: folder.join(name) }
        };
        let no_log = Run { log: folder.join("none/log"), ..run("third", "true") };
        let slow = "sleep 0.5; echo Done >&2; touch ended";
        let ended = beside_each_other(vec![run("first", "exit 7"), run("second", slow), no_log]);
        assert_eq!(ended.unwrap_err().exit_code(), 7);
        assert!(folder.join("ended").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
