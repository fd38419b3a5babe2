//! How the program ends when it did not do what it was asked.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;
use statefs_client::{Error, ErrorCode};

use crate::program::Format;

/// The exit codes. They are part of the interface: scripts go by them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done, for a reason that has no code of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such key.
    Absent = 3,
    /// A precondition does not hold.
    Conflict = 4,
    /// The policy does not grant it, or the permissions of an image do not.
    Denied = 5,
    /// Something acknowledged cannot be read back.
    DataLoss = 6,
    /// The store cannot be reached, or cannot do it now.
    Unavailable = 7,
    /// A quota or the volume is used up.
    Full = 8,
    /// A write may have happened, or not.
    Indeterminate = 9,
    /// The command line of `image fsck` is wrong, or lacks `--yes`.
    FsckUsage = 16,
    /// Who was asked did not want the repair of `image fsck`.
    FsckCancelled = 32,
}

/// What `image fsck` ends with besides: the table of fsck(8), whose other numbers have other names here.
impl Exit {
    pub(crate) const REPAIRED: Self = Self::Failure;
    pub(crate) const DAMAGE_LEFT: Self = Self::Conflict;
    pub(crate) const CANNOT_RUN: Self = Self::Full;
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) advice: &'static str,
    pub(crate) exit: Exit,
}

impl Failure {
    /// Yields a failure with a stable code in upper case, and the advice that goes with the code.
    pub fn new(code: &'static str, exit: Exit, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), advice: advice(code), exit }
    }

    /// Names what the failure is about, in front of what went wrong.
    #[must_use]
    pub fn about(self, subject: impl fmt::Display) -> Self {
        let message = format!("{subject}: {}", self.message);
        Self { message, ..self }
    }

    /// Says what to do about it, instead of what is said of the code in general.
    #[must_use]
    pub fn advise(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// Standard output failed. Who closed it on purpose, as `head` does, is not told.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: "", message: String::new(), advice: "", exit: Exit::Ok };
        }
        Self::new("OUTPUT", Exit::Failure, format!("standard output: {error}"))
    }

    /// Whether standard output failed, and nothing else.
    pub(crate) fn is_of_output(&self) -> bool {
        matches!(self.code, "" | "OUTPUT")
    }

    /// Says what was done, and only not told: who sees that this failed would think that it was not.
    #[must_use]
    pub(crate) fn once_done(self, done: &str) -> Self {
        match self.code {
            "OUTPUT" => Self { message: format!("{done}, but not told: {}", self.message), ..self },
            _ => self,
        }
    }

    /// Tells it on standard error: for people, or as one JSON object.
    pub(crate) fn report(&self, program: &str, format: Format) {
        if self.code.is_empty() {
            return;
        }
        let Self { code, message, advice, exit } = self;
        let text = match format {
            Format::Json => {
                let exit = *exit as u8;
                let error =
                    json!({"code": code, "message": message, "advice": advice, "exit": exit});
                let error = error.to_string();
                let error = if io::stderr().is_terminal() { escaped(&error) } else { error };
                error + "\n"
            }
            Format::Text => {
                let mut text = format!("{program}: {code}: {}\n", lines(message));
                if !advice.is_empty() {
                    text.push_str(&format!("  {advice}\n"));
                }
                text
            }
        };
        // When even this stream is gone the exit code remains.
        io::stderr().write_all(text.as_bytes()).unwrap_or_default();
    }
}

/// Tells people something on standard error that is no failure. Where that stream is gone nothing is lost that the result depends on.
pub(crate) fn remark(text: &str) {
    io::stderr().write_all(format!("statefs: {text}\n").as_bytes()).unwrap_or_default();
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Refused { code, .. } => exit_of(*code),
            Error::Conflict { .. } | Error::BatchConflict { .. } | Error::Changed => Exit::Conflict,
            Error::DataLoss | Error::BatchDataLoss { .. } | Error::BatchInDoubt => Exit::DataLoss,
            Error::Indeterminate { .. } => Exit::Indeterminate,
            Error::Disconnected { .. } | Error::TimedOut { .. } | Error::Connect { .. } => {
                Exit::Unavailable
            }
            _ => Exit::Failure,
        };
        let failure = Self::new(error.code(), exit, &error);
        match error {
            // The daemon may well be there.
            Error::Connect { kind: io::ErrorKind::PermissionDenied, .. } => failure.advise(
                "ask whoever runs the daemon for a socket of yours, or for --socket-mode; in a \
                 folder on the way, too, the right to pass may be missing",
            ),
            Error::BatchInDoubt => failure.advise(
                "look at the keys: if they do not show the batch, run it again with its token; \
                 the second or third time it is applied",
            ),
            _ => failure,
        }
    }
}

fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::AccessDenied | ErrorCode::Revoked | ErrorCode::Expired => Exit::Denied,
        ErrorCode::QuotaExceeded | ErrorCode::NoSpace => Exit::Full,
        ErrorCode::ReadOnly | ErrorCode::Sealed | ErrorCode::IoError | ErrorCode::Overloaded => {
            Exit::Unavailable
        }
        _ => Exit::Failure,
    }
}

/// Says how many of something there are.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Replaces what could steer a terminal, or show a text as another: messages come from a peer.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if is_hidden(letter) { '\u{fffd}' } else { letter }).collect()
}

/// Writes the same letters of JSON on one line as escapes. They stand in its strings alone, so it means what it meant.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if !is_hidden(letter) {
            text.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

fn is_hidden(letter: char) -> bool {
    letter.is_control() || is_format(letter)
}

/// Whether a letter has no shape of its own and changes how others are shown: marks of direction, joiners and blanks of
/// no width, separators of lines, tags. Of Unicode 16, the categories Cf without the signs that are seen, Zl and Zp.
fn is_format(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}'
            | '\u{61c}'
            | '\u{70f}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Replaces the same, but for the ends of lines: what follows one is indented, so that a peer cannot
/// feign a message of this program.
fn lines(text: &str) -> String {
    let lines = text.split('\n').map(|line| printable(line.trim_start()));
    lines.collect::<Vec<_>>().join("\n  ")
}

/// Says what to do about a code; empty where the message does.
fn advice(code: &str) -> &'static str {
    match code {
        "ACCESS_DENIED" => {
            "`statefs whoami` tells under which name the policy knows you; the daemon's log names \
             the grant that is missing"
        }
        "INVALID_KEY" => {
            "a key is a path below /state, such as /state/net/wifi, without empty segments, `.`, \
             `..`, control characters or a slash at the end"
        }
        "KEY_TOO_LONG" => "`statefs stat` tells the limits",
        "VALUE_TOO_LARGE" => "`statefs stat` tells the limits, `statefs usage` those of quotas",
        "QUOTA_EXCEEDED" => "delete something, which still works, or raise the quota in the policy",
        "NO_SPACE" => {
            "delete something; space comes back by itself. Where deletes are refused too, data was lost before, as \
             `statefs health` tells: `statefs image salvage` into a new volume ends it"
        }
        "READ_ONLY" => {
            "`statefs health` tells why, and the daemon's log what the system said of the device; a \
             restart of the daemon opens the store anew"
        }
        "SEALED" => "give the daemon the volume's key",
        "IO_ERROR" => "`statefs health` tells how the store fares; check the device and its log",
        "OVERLOADED" => "nothing was applied; try again",
        "UNIMPLEMENTED" => {
            "`statefs stat` names what the daemon serves, on the volume that it has; one of another \
             release may serve more"
        }
        "CONFLICT" => "somebody else wrote it; read it again, then decide",
        "CHANGED" => "what was printed is a part of what it was; get it again",
        "BATCH_TOO_LARGE" => "`statefs stat` tells the limits; split what need not be together",
        "DATA_LOSS" => "put the key anew from a backup; `statefs list` names the damaged keys",
        "DAMAGE_LEFT" => {
            "`statefs image salvage` saves all that verifies into a new image; then put the rest \
             anew from a backup"
        }
        "REPAIRABLE" => "--repair writes the good copies over the bad ones, and keeps an undo file",
        "REPAIRED_IN_PART" => {
            "look at the device and its log; then run it again, or `statefs image undo` with that file"
        }
        "CHANGED_SINCE" => {
            "of several undo files the newest comes first; --force writes over these blocks, too"
        }
        "UNDONE_IN_PART" => "run it again: it goes on with what is left",
        "OTHER_VOLUME" => {
            "nothing was changed; name the undo file that the repair of this one named"
        }
        "UNDO_FILE" => "nothing was changed; name the file that `fsck --repair` named",
        "INDETERMINATE" => "read the key to learn which, and put it again if it must hold",
        "DISCONNECTED" => {
            "the daemon ended, or has as many connections as it takes, and its log tells which; or \
             it is the socket of another program"
        }
        "TIMED_OUT" => "the daemon or its device hangs; its log tells more",
        "NO_DAEMON" => "start the daemon, or name another socket with --socket or $STATEFS_SOCKET",
        "INVALID_POLICY" => {
            "the daemon keeps the policy that it has; one that starts with this one denies everything"
        }
        "POLICY_FILE" => "name a policy file that this user can read",
        "NOT_STORAGE" => "name the image of a volume, or its block device",
        "EXISTS" => "name another place, or move away what is there",
        "DENIED" => "ask its owner, or be a user who may",
        "NO_IMAGE" => "`statefs image format PATH --size 64M` makes one",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_schema_has_its_exit() {
        let exits = ErrorCode::ALL.map(|code| exit_of(code) as u8);
        assert_eq!(exits, [5, 1, 1, 1, 1, 8, 8, 7, 7, 7, 5, 5, 7, 1, 1]);
    }

    #[test]
    fn a_write_that_lost_its_connection_is_indeterminate_and_a_read_unavailable() {
        let exit = |error: Error| Failure::from(error).exit;
        assert_eq!(exit(Error::Indeterminate { cause: String::new() }), Exit::Indeterminate);
        assert_eq!(exit(Error::Disconnected { cause: String::new() }), Exit::Unavailable);
        assert_eq!(exit(Error::Conflict { current: None }), Exit::Conflict);
        assert_eq!(exit(Error::DataLoss), Exit::DataLoss);
        assert_eq!(exit(Error::BatchInDoubt), Exit::DataLoss);
    }

    #[test]
    fn a_peer_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(printable("gpj\u{202e}.\u{2066}\u{200b}"), "gpj\u{fffd}.\u{fffd}\u{fffd}");
        assert_eq!(printable("grün 钥匙 مفتاح"), "grün 钥匙 مفتاح");
        assert_eq!(escaped("\"gpj\u{202e}.\u{9b}\u{e0041}\""), r#""gpj\u202e.\u009b\udb40\udc41""#);
        assert_eq!(lines("faults:\n  a\r\nstatefs: b"), "faults:\n  a\u{fffd}\n  statefs: b");
    }
}
