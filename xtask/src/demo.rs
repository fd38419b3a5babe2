//! Shows the product.

use std::path::Path;

use crate::{Failure, run};

/// Builds the program `statefs` and runs its demonstration.
///
/// # Errors
/// It does not build, or what it shows is not so.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), Failure> {
    // Not quiet: the first time, building takes longer than the demonstration.
    let mut command = run::cargo(root, &["run", "--package", "statefs-cli"]);
    run::to_its_end(command.args(["--bin", "statefs", "--", "demo"]).args(options))
}
