//! Standard output: data and nothing else.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value as Json;

use crate::failure::{Failure, escaped, printable};
use crate::program::Format;

/// Standard output, written in blocks; [`Output::finish`] tells whether all of it arrived.
pub struct Output {
    pub(crate) format: Format,
    terminal: bool,
    /// Whether a reader who is gone ends nothing.
    works_on: bool,
    stream: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout().lock();
        let (terminal, stream) = (stdout.is_terminal(), BufWriter::new(stdout));
        Self { format, terminal, works_on: false, stream }
    }

    /// Goes on also where the reader is gone, from here on: there is something to make or to judge, of which the output
    /// only tells. What a verb prints for its own sake ends with its reader.
    pub(crate) fn work_on(&mut self) {
        self.works_on = true;
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As every method here: the stream fails.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stream.write_all(bytes);
        self.judge(written)
    }

    /// Writes one line of text.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Yields a key as text shows it: as it is for programs, and without what steers a terminal on one.
    pub(crate) fn shown<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if self.terminal { printable(key).into() } else { key.into() }
    }

    /// Yields JSON as it is for programs, and on a terminal with escapes for what would steer that: they stand for the same.
    pub(crate) fn shown_json(&self, value: &Json) -> String {
        let text = value.to_string();
        if self.terminal { escaped(&text) } else { text }
    }

    /// Writes one object on a line of its own.
    pub fn json(&mut self, object: &Json) -> Result<(), Failure> {
        self.line(&self.shown_json(object))
    }

    /// Writes `object`, or `text` as a line, whichever was asked for.
    pub fn either(&mut self, object: &Json, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(object),
            Format::Text => self.line(text),
        }
    }

    /// Hands over what is still held back, and ends. A reader who is gone by then is no failure: all is done, and how it went
    /// the caller tells.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.work_on();
        self.flush()
    }

    /// Hands over what is still held back.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.stream.flush();
        self.judge(flushed)
    }

    fn judge(&self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if self.works_on && error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure::output(&error)),
        }
    }
}
