//! libFuzzer on the parsers, from a workspace of its own and with a nightly toolchain.
//!
//! `cargo xtask test` leaves it out: it replays the corpus and seeded mutations on any toolchain, and comes out the
//! same every time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Failure, run};

/// Seconds for each target.
const SECONDS: &str = "60";
/// Longest input in bytes: the least volume is made of far fewer edits.
const BYTES_MAX: &str = "8192";

/// Runs libFuzzer on the targets that `options` name, on all without a name.
///
/// # Errors
/// A target was broken, or the toolchain is not there; the options are not understood (code 2).
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    let (mut names, mut seconds) = (Vec::new(), SECONDS);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match (*word, words.as_slice().first()) {
            ("--seconds", Some(given)) if given.parse::<u32>().is_ok_and(|given| given > 0) => {
                seconds = given;
                words.next();
            }
            (word, _) if word.starts_with('-') => return Err(not_understood(word)),
            (word, _) => names.push(word),
        }
    }
    let known = targets(root)?;
    if let Some(word) = names.iter().find(|name| known.iter().all(|known| known != *name)) {
        return Err(not_understood(word));
    }
    let version = cargo(root, &["fuzz", "--version"]).stdout(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        let advice = "it comes with `cargo install cargo-fuzz`, its toolchain with `rustup toolchain install nightly`";
        return Err(Failure::ToolMissing { program: "cargo +nightly fuzz", advice });
    }
    for name in known.iter().filter(|name| names.is_empty() || names.contains(&name.as_str())) {
        one(root, name, seconds)?;
    }
    Ok(())
}

/// Runs one target on what is checked in and on what it has found before, which stays out of the repository.
fn one(root: &Path, name: &str, seconds: &str) -> Result<(), Failure> {
    let (found, kept) = (format!("{FOLDER}/corpus/{name}"), format!("tests/fuzz/corpus/{name}"));
    fs::create_dir_all(root.join(&found))
        .map_err(|error| Failure::Io { what: found.clone(), error })?;
    let mut command = cargo(root, &["fuzz", "run", "--fuzz-dir", FOLDER, name, &found, &kept]);
    command.args(["--", "-timeout=20", "-print_final_stats=1"]);
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={BYTES_MAX}")]);
    if name == "virtio" {
        // What virtio-drivers lists of requests in flight is lost when a device is given up: some KiB, once for each device.
        command.arg("-detect_leaks=0").env("ASAN_OPTIONS", "detect_leaks=0");
    }
    eprintln!("\n=== {name}: {}", run::shown(&command));
    run::to_its_end(&mut command)
}

/// Lists the targets: the programs of the workspace.
fn targets(root: &Path) -> Result<Vec<String>, Failure> {
    let folder = format!("{FOLDER}/targets");
    let entries = fs::read_dir(root.join(&folder))
        .map_err(|error| Failure::Io { what: folder.clone(), error })?;
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".rs").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Makes a call of the nightly toolchain's cargo, which only rustup's own `cargo` finds.
fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments).current_dir(root).stdin(Stdio::null());
    command
}

fn not_understood(word: &str) -> Failure {
    eprintln!("xtask: `{word}` is no target and no option; see cargo xtask help");
    Failure::Exit { command: "cargo xtask fuzz".into(), code: 2 }
}

const FOLDER: &str = "tests/fuzz/libfuzzer";
