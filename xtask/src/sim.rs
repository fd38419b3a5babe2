//! Runs the simulator, optimised.

use std::path::Path;
use std::process::Command;

use crate::{Failure, run};

/// Runs the simulator with `options`, which it explains itself.
///
/// # Errors
/// A promise was broken, or with a planted fault none was; the options are not understood (code 2).
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    run::to_its_end(&mut command(root, options))
}

/// Makes the call that [`run`] makes.
pub(crate) fn command(root: &Path, options: &[&str]) -> Command {
    let mut command = run::cargo(root, &["run", "--release", "--package", "tests"]);
    // The other suites want the daemon; the simulator is built without it.
    command.args(["--no-default-features", "--bin", "sim", "--"]).args(options);
    command
}
