//! QEMU's control socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;

/// A connection to QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to a QEMU that listens at `path`.
    ///
    /// # Errors
    /// Nobody does, or it is no QEMU.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).map_err(Failure::io("QEMU's control socket"))?;
        stream.set_read_timeout(Some(patience)).map_err(Failure::io("QEMU's control socket"))?;
        let mut this = Self { lines: BufReader::new(stream) };
        this.line()?;
        this.call("qmp_capabilities", json!({}))?;
        Ok(this)
    }

    /// Runs a command and yields its answer.
    ///
    /// # Errors
    /// QEMU refuses it, or is gone.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let request = json!({"execute": command, "arguments": arguments});
        let sent = writeln!(self.lines.get_mut(), "{request}");
        sent.map_err(Failure::io("QEMU's control socket"))?;
        loop {
            let answer = self.line()?;
            if let Some(answer) = answer.get("return") {
                return Ok(answer.clone());
            }
            if answer.get("error").is_some() {
                return Err(Failure::Refused { what: format!("{request}: {answer}") });
            }
            // Else an event.
        }
    }

    fn line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(Failure::io("QEMU's control socket"))?;
        serde_json::from_str(&line)
            .map_err(|error| Failure::Refused { what: format!("to make sense: {error}: {line}") })
    }
}
