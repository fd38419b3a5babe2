//! Runs test runners and counts what they say they ran.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, Stdio};
use std::thread;

use crate::{Failure, run};

/// Tests that passed and failed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs a test runner, passes its output on as it comes, and adds to `tally` what its closing
/// lines say.
///
/// # Errors
/// The runner failed, or cannot be run.
pub(crate) fn count(command: &mut Command, tally: &mut Tally) -> Result<(), Failure> {
    let failure = |command: &Command, error| Failure::Io { what: run::shown(command), error };
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // The closing lines are read, so nothing may colour them. Set here, it is not shown to repeat.
    let child = piped.env("CARGO_TERM_COLOR", "never").spawn();
    command.env_remove("CARGO_TERM_COLOR");
    let mut child = child.map_err(|error| failure(command, error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (from_stdout, from_stderr) = thread::scope(|scope| {
        let stderr = scope.spawn(|| stderr.map(|pipe| pass_on(pipe, io::stderr())));
        let stdout = stdout.map(|pipe| pass_on(pipe, io::stdout()));
        (stdout, stderr.join().expect("passing lines on does not panic"))
    });
    for counted in [from_stdout, from_stderr].into_iter().flatten() {
        *tally += counted.map_err(|error| failure(command, error))?;
    }
    let status = child.wait().map_err(|error| failure(command, error))?;
    run::check(command, status)
}

/// Copies lines, whatever bytes they hold, and counts.
fn pass_on(from: impl Read, mut to: impl Write) -> io::Result<Tally> {
    let (mut from, mut line, mut tally) = (BufReader::new(from), Vec::new(), Tally::default());
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        tally += counts(&String::from_utf8_lossy(&line)).unwrap_or_default();
        line.clear();
    }
    to.flush()?;
    Ok(tally)
}

/// Reads a closing line: of nextest `Summary [ 1.2s] 9 tests run: 8 passed (1 slow), 1 failed, 2
/// skipped`, of the built-in harness `test result: ok. 8 passed; 1 failed; 0 ignored; …`. The latter
/// counts at the start of a line alone: nextest shows, indented, what the harness said of a failure.
fn counts(line: &str) -> Option<Tally> {
    let (separator, parts) = if let Some(rest) = line.strip_prefix("test result: ") {
        (';', rest.split_once(". ")?.1)
    } else {
        let rest = line.trim_start().strip_prefix("Summary [")?;
        (',', rest.split_once(" run: ")?.1)
    };
    let mut tally = Tally::default();
    for part in parts.split(separator) {
        let mut words = part.split_whitespace();
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        match (number, words.next()) {
            (Some(number), Some("passed")) => tally.passed += number,
            // How nextest calls the ways to fail.
            (Some(number), Some("failed" | "exec" | "timed")) => tally.failed += number,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(u64, u64)>) {
        let expected = expected.map(|(passed, failed)| Tally { passed, failed });
        assert_eq!(counts(line), expected, "{line}");
    }

    #[test]
    fn closing_lines_are_read() {
        check("     Summary [   2.6s] 92 tests run: 92 passed, 0 skipped\n", Some((92, 0)));
        check(
            "     Summary [   9.1s] 9 tests run: 5 passed (1 slow), 2 failed, 1 exec failed, 1 timed out, 3 skipped",
            Some((5, 4)),
        );
        check("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped", Some((1, 0)));
        check(
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            Some((3, 1)),
        );
        check("test result: ok. 0 passed; 0 failed; 0 ignored", Some((0, 0)));
    }

    const SHOWN: &str = "    test result: FAILED. 0 passed; 1 failed; 0 ignored";

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["", "test a ... ok", "running 3 tests", "12 passed, 0 failed", "Summary [x]", SHOWN]
        {
            check(line, None);
        }
    }

    #[test]
    fn lines_pass_through_unchanged() {
        let text = b"one\ntest result: ok. 4 passed; 0 failed;\n\xff no UTF-8, no end";
        let mut copy = Vec::new();
        assert_eq!(pass_on(&text[..], &mut copy).unwrap(), Tally { passed: 4, failed: 0 });
        assert_eq!(copy, text);
    }
}
