//! Rewrites the golden files.

use std::path::Path;
use std::process::Command;

use crate::Failure;

/// Runs the golden tests in the mode that takes what the code does for right.
///
/// # Errors
/// Cargo cannot be run, or a test fails for another reason than its golden file.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "--package", "tests", "--test", "golden"])
        .env("INSTA_UPDATE", "always")
        .current_dir(root)
        .status()
        .map_err(|error| Failure::Io { what: "cargo".into(), error })?;
    if status.success() { Ok(()) } else { Err(Failure::Command { program: "cargo test" }) }
}
