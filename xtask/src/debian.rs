//! Installs what a step needs where that takes no question: as root on a Debian.

use std::process::{Command, Stdio};

use crate::run;

/// Installs packages; elsewhere, and where it fails, the step that needs them finds them missing
/// and says how to get them.
pub(crate) fn install(packages: &[&str]) {
    if answer("apt-get", "--version").is_none() || answer("id", "-u").as_deref() != Some("0\n") {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        run::to_its_end(&mut command).is_ok()
    };
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if !apt(&install) && apt(&["update"]) {
        apt(&install);
    }
}

/// Yields what a program says, or nothing if it cannot be run or fails.
pub(crate) fn answer(program: &str, argument: &str) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
