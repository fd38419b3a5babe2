//! How far a long value has come, on a terminal and nowhere else.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Values that are there at once are not worth a line.
const SHOWN_BYTES_MIN: u64 = 1 << 20;

/// Time between two lines: often enough for an eye.
const INTERVAL: Duration = Duration::from_millis(100);

/// One line of a terminal, written over as bytes go by and wiped at the end.
pub(super) struct Progress {
    key: String,
    bytes: Option<u64>,
    done: u64,
    /// When the next line is due; `None` if nobody watches.
    due: Option<Instant>,
    /// Letters of the longest line that was written.
    width: usize,
}

impl Progress {
    /// Begins with nothing done of `bytes`, if that is known.
    pub(super) fn new(key: &str, bytes: Option<u64>) -> Self {
        let watched =
            io::stderr().is_terminal() && bytes.is_none_or(|bytes| bytes >= SHOWN_BYTES_MIN);
        let due = watched.then(Instant::now);
        Self { key: crate::failure::printable(key), bytes, done: 0, due, width: 0 }
    }

    /// Says that so many bytes more went by.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done < SHOWN_BYTES_MIN {
            return;
        }
        if let Some(due) = &mut self.due
            && Instant::now() >= *due
        {
            *due = Instant::now() + INTERVAL;
            let line = line(&self.key, self.done, self.bytes);
            self.width = self.width.max(line.chars().count());
            write(&format!("\r{line}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.width > 0 {
            write(&format!("\r{:width$}\r", "", width = self.width));
        }
    }
}

fn line(key: &str, done: u64, bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{key}: {} of {} MiB", mebibytes(done), mebibytes(bytes)),
        None => format!("{key}: {} MiB", mebibytes(done)),
    }
}

/// Writes a size with one place behind the point, rounded down.
pub(super) fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn write(text: &str) {
    // Should the terminal be gone, nobody watches any more.
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_is_done() {
        assert_eq!(line("/state/a", 3 << 19, Some(64 << 20)), "/state/a: 1.5 of 64.0 MiB");
        assert_eq!(line("/state/a", (2 << 20) - 1, None), "/state/a: 1.9 MiB");
    }
}
