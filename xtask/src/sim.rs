//! Runs the simulator and the suite of faults, optimised.

use std::path::Path;
use std::process::Command;

use crate::{Failure, run};

/// Runs the simulator with `options`, which it explains itself.
///
/// # Errors
/// A promise was broken, or with a planted fault none was; the options are not understood (code 2).
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    run::to_its_end(&mut command(root, "sim", options))
}

/// Runs the suite of faults, or the `parts` of it that are named.
///
/// # Errors
/// A promise was broken; a part is not known (code 2).
pub(crate) fn faults(root: &Path, parts: &[&str]) -> Result<(), Failure> {
    run::to_its_end(&mut command(root, "faults", parts))
}

/// Makes the call of one of both programs.
pub(crate) fn command(root: &Path, program: &str, options: &[&str]) -> Command {
    let mut command = run::cargo(root, &["run", "--profile", "sim", "--package", "tests"]);
    // Most of the time goes into hashing, for which this machine may know better instructions than all machines do.
    if std::env::var_os("RUSTFLAGS").is_none() {
        command.env("RUSTFLAGS", "-C target-cpu=native");
    }
    // The other suites want the daemon; these programs are built without it.
    command.args(["--no-default-features", "--bin", program, "--"]).args(options);
    command
}
