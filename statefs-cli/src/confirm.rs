//! Asking before something is destroyed: on a terminal, and never where nobody would answer.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::{Exit, Failure};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 256;

/// Asks `question`, unless the command line said `--yes`.
///
/// # Errors
/// The answer is not yes; or there is no terminal to ask on, so that a script ends instead of
/// waiting, and learns the name of the option that it lacks.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = format!("{question} There is no terminal to ask on; --yes says yes");
        return Err(Failure::new("NOT_CONFIRMED", Exit::Usage, message));
    }
    // Should the terminal be gone, so is the answer.
    io::stderr().write_all(format!("{question} [y/N] ").as_bytes()).unwrap_or_default();
    let mut answer = String::new();
    let read = io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new("NOT_CONFIRMED", Exit::Failure, "nothing was changed"))
}
