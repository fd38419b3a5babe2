//! The real daemon in a process of its own, and one blocking client on its socket.

use crate::{Result, Sample};
use statefs_client::{Client, Rights};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// First argument of the process that is the daemon.
const DAEMON: &str = "--be-the-daemon";
const PATIENCE: Duration = Duration::from_secs(30);

/// Becomes the daemon if this process was started for that.
pub(crate) fn daemon_child() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    (arguments.next()? == DAEMON)
        .then(|| statefsd::linux::main([program].into_iter().chain(arguments)))
}

/// A daemon with a volume of its own.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let state = folder.join("served");
        let _ = std::fs::remove_dir_all(&state);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(DAEMON).arg("--dev").arg(&state);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let daemon = Self { child, socket: state.join("statefs.sock") };
        let begun = Instant::now();
        while Client::connect(&daemon.socket).and_then(|client| client.health()).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("the daemon does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    pub(crate) fn puts(&self, count: usize) -> Result<Sample> {
        let client = Client::connect(&self.socket)?;
        let directory = client.directory("/state/bench", Rights::PUT | Rights::GET);
        let start = Instant::now();
        let mut times = Vec::new();
        for n in 0..count {
            let begun = Instant::now();
            directory.put(&format!("key/{:04}", n % 64), &[7; 100])?;
            times.push(begun.elapsed());
        }
        Ok(Sample::new(times, start.elapsed()))
    }

    pub(crate) fn gets(&self, count: usize) -> Result<Sample> {
        let client = Client::connect(&self.socket)?;
        let directory = client.directory("/state/bench", Rights::GET);
        let start = Instant::now();
        let mut times = Vec::new();
        for n in 0..count {
            let begun = Instant::now();
            directory.get(&format!("key/{:04}", n % 64))?;
            times.push(begun.elapsed());
        }
        Ok(Sample::new(times, start.elapsed()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
