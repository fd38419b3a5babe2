//! Builds and boots the bare machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::{Failure, debian, run, words};

/// Whether this host can build the machine: it is written for x86-64, and links as Linux programs do.
pub(crate) const BUILDS: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// How the machine is built. Alone: with other packages beside it, cargo would unify their features with its own, and
/// their std would come in.
pub(crate) const PACKAGE: [&str; 8] = [
    "--package",
    "guest",
    "--features",
    "bare",
    "--profile",
    "guest",
    "--config",
    "qemu/guest/image.toml",
];

/// Boots the machine for people; with `--selftest` once, to exit by its verdict; with `--measure` often, to print figures.
///
/// # Errors
/// It does not build or boot, QEMU is missing, the verdict is bad, or the options are not understood.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    let verb = match options {
        [] => "serve",
        ["--selftest"] => "selftest",
        ["--measure"] => "figures",
        _ => return Err(words::unclear("guest", options)),
    };
    fetch_qemu()?;
    run::to_its_end(&mut build(root))?;
    let mut harness = run::cargo(root, &["run", "--quiet", "--package", "harness"]);
    if verb == "figures" {
        // The host's own figures are those of a build as good as the machine's.
        harness.arg("--release");
    }
    harness.args(["--", verb]);
    if verb == "serve" {
        // It ends when somebody says so.
        harness.stdin(std::process::Stdio::inherit());
    }
    run::to_its_end(&mut harness)
}

/// Makes the call that builds the machine.
pub(crate) fn build(root: &Path) -> Command {
    let mut build = run::cargo(root, &[&["build"], &PACKAGE[..]].concat());
    for folder in crates() {
        // Cargo joins the lists of all its sources.
        build.args(["--config", &format!("build.rustflags=['--remap-path-prefix={folder}/=']")]);
    }
    build
}

/// Lists where cargo keeps the sources of other people's crates: what the machine says of a panic in one names the crate,
/// and takes the same room whoever builds it.
fn crates() -> Vec<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let folders = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let folders = folders.into_iter().flatten().flatten().map(|folder| folder.path());
    // What cannot stand between quotes stays as it is.
    folders
        .filter_map(|path| path.to_str().map(String::from))
        .filter(|path| !path.contains('\''))
        .collect()
}

/// Makes the call that builds the machine that can be told to write lines before their facts, which the suite must notice.
pub(crate) fn build_planted(root: &Path) -> Command {
    let mut build = build(root);
    build.args(["--features", "plants"]);
    build
}

/// Puts what [`build_planted`] made beside the place of the machine itself.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn put_planted_aside(root: &Path) -> Result<(), Failure> {
    let target = env::var_os("CARGO_TARGET_DIR");
    let folder = target.map_or_else(|| root.join("target"), PathBuf::from).join("guest");
    let copied = fs::copy(folder.join("guest"), folder.join("guest-planted"));
    copied.map(drop).map_err(|error| Failure::Io { what: "guest-planted".into(), error })
}

/// Sees that QEMU is there, and installs it where that takes no question.
///
/// # Errors
/// It is missing still; the failure says how to get it.
pub(crate) fn fetch_qemu() -> Result<(), Failure> {
    if debian::answer(QEMU, "--version").is_none() {
        debian::install(&["qemu-system-x86"]);
    }
    match debian::answer(QEMU, "--version") {
        Some(_) => Ok(()),
        None => Err(Failure::ToolMissing { program: QEMU, advice: ADVICE }),
    }
}

const QEMU: &str = "qemu-system-x86_64";
const ADVICE: &str = "Debian and Ubuntu: `apt-get install qemu-system-x86`";
