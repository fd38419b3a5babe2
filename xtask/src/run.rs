//! Runs other programs from the root of the workspace, never with the caller's input.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::Failure;

/// Makes a call of cargo in `root`.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root).stdin(Stdio::null());
    command
}

/// Runs `command` to its end, its output going where ours goes.
///
/// # Errors
/// [`Failure::Exit`] with the program's own code, [`Failure::Io`] when it cannot be run.
pub(crate) fn to_its_end(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| Failure::Io { what: shown(command), error })?;
    check(command, status)
}

/// Turns a status that is not success into a failure.
pub(crate) fn check(command: &Command, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    // Without a code a signal ended it.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::Exit { command: shown(command), code })
}

/// Yields `command` as somebody would type it at the root.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let mut words = Vec::new();
    // One without a value is taken away, which is not what is to be repeated.
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        words.push(format!("{}='{}'", name.to_string_lossy(), value.to_string_lossy()));
    }
    words.push(program.to_string_lossy().into_owned());
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let mut command = cargo(crate::root(), &["doc", "--lib"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --lib");
    }

    #[test]
    fn a_program_keeps_its_exit_code() {
        let Err(failure) = to_its_end(&mut cargo(crate::root(), &["no-such-verb", "--quiet"]))
        else {
            panic!("cargo knows no such verb");
        };
        assert_eq!(failure.exit_code(), 101);
    }
}
