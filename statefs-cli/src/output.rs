//! Standard output: data and nothing else.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value as Json;

use crate::failure::Failure;
use crate::program::Format;

/// Standard output, written in blocks; [`Output::finish`] tells whether all of it arrived.
pub struct Output {
    pub(crate) format: Format,
    stream: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, stream: BufWriter::new(io::stdout().lock()) }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As every method here: the stream fails.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Writes one line of text.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes one object on a line of its own.
    pub fn json(&mut self, object: &Json) -> Result<(), Failure> {
        self.line(&object.to_string())
    }

    /// Writes `object`, or `text` as a line, whichever was asked for.
    pub fn either(&mut self, object: &Json, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(object),
            Format::Text => self.line(text),
        }
    }

    /// Hands over what is still held back, and ends.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }

    /// Hands over what is still held back.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.stream.flush().map_err(|error| Failure::output(&error))
    }
}
