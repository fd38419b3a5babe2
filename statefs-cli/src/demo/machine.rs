//! The machine of the demonstration: a temporary directory, a volume, a policy and a daemon.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use journal::FormatOptions;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use statefs_client::Client;

use crate::failure::{Exit, Failure};

/// The hidden verb under which the demonstration starts this program as its daemon.
pub(crate) const DAEMON_VERB: &str = "__daemon-of-the-demo";

/// The code of a demonstration that the user left.
pub(super) const INTERRUPTED: &str = "INTERRUPTED";

/// How long the daemon may take to serve or to end: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a call of the demonstration is waited for.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the volume: room for the story, and made in a moment.
const VOLUME_BYTES: u64 = 32 << 20;

/// Bytes of the daemon's log that are shown when something fails.
const LOG_BYTES_SHOWN: usize = 2000;

/// Everything is removed, and the daemon stopped, when it is dropped.
pub(super) struct Machine {
    folder: PathBuf,
    image: PathBuf,
    daemon: Option<Child>,
    interrupted: Arc<AtomicBool>,
}

impl Machine {
    /// Makes the directory, the volume and the policy.
    pub(super) fn new() -> Result<Self, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let registered = signal_hook::flag::register(signal, interrupted.clone());
            registered.map_err(|error| failed("registering for signals", &error))?;
        }
        let folder = make_folder()?;
        let image = folder.join("state.img");
        let machine = Self { folder, image, daemon: None, interrupted };
        crate::image::make(&machine.image, Some(VOLUME_BYTES), FormatOptions::default())?;
        let metadata = fs::metadata(&machine.folder);
        let uid = metadata.map_err(|error| failed("asking for the user", &error))?.uid();
        // Whatever the user's mask, nobody else may write it, or the daemon refuses it.
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(machine.folder.join("policy.toml"))
            .and_then(|mut file| file.write_all(policy(uid).as_bytes()))
            .map_err(|error| failed("writing the policy", &error))?;
        Ok(machine)
    }

    /// Checks that the volume cannot be formatted by mistake.
    pub(super) fn check_format_refuses(&self) -> Result<(), Failure> {
        match crate::image::make(&self.image, None, FormatOptions::default()) {
            Err(failure) if failure.code == "NOT_BLANK" => Ok(()),
            Err(failure) => Err(failure),
            Ok(_) => Err(demo_failure("a volume was formatted without being asked twice".into())),
        }
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// Starts the daemon, and returns when it answers on both sockets.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        self.daemon = Some(self.spawn().map_err(|error| failed("starting the daemon", &error))?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check_interrupt()?;
            let answers =
                |channel: &&str| self.connect(channel).is_ok_and(|client| client.health().is_ok());
            if CHANNELS.iter().all(answers) {
                return Ok(());
            }
            if let Some(ended) = self.ended()? {
                return Err(demo_failure(format!("the daemon ended before it served: {ended}")));
            }
            if Instant::now() > deadline {
                return Err(demo_failure(format!("the daemon does not serve after {PATIENCE:?}")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Ends the daemon with SIGTERM; it must say that all is well.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        kill_process(self.daemon_pid()?, Signal::TERM)
            .map_err(|error| failed("signalling the daemon", &error.into()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                self.daemon = None;
                let message = format!("the daemon ended with {status} after SIGTERM");
                return if status.success() { Ok(()) } else { Err(demo_failure(message)) };
            }
            if Instant::now() > deadline {
                return Err(demo_failure(format!("SIGTERM has no effect after {PATIENCE:?}")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes note of the end of a daemon that was killed.
    pub(super) fn reap(&mut self) -> Result<(), Failure> {
        match self.daemon.take() {
            Some(mut daemon) => {
                daemon.wait().map_err(|error| failed("waiting for the daemon", &error))?;
                Ok(())
            }
            None => Err(demo_failure("no daemon runs".into())),
        }
    }

    /// Connects to the socket of a channel.
    pub(super) fn connect(&self, channel: &str) -> Result<Client, Failure> {
        let client = Client::connect(self.socket(channel))?;
        client.set_timeout(Some(CALL_TIMEOUT));
        Ok(client)
    }

    pub(super) fn daemon_pid(&self) -> Result<Pid, Failure> {
        let id = self.daemon.as_ref().and_then(|daemon| i32::try_from(daemon.id()).ok());
        id.and_then(Pid::from_raw).ok_or_else(|| demo_failure("no daemon runs".into()))
    }

    /// Fails if the user wants to leave.
    pub(super) fn check_interrupt(&self) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::new(INTERRUPTED, Exit::Failure, "stopped; nothing is left"));
        }
        Ok(())
    }

    /// Yields the end of the daemon's log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.folder.join("daemon.log")).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_BYTES_SHOWN);
        String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned()
    }

    fn socket(&self, channel: &str) -> PathBuf {
        self.folder.join(format!("{channel}.sock"))
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = File::options().append(true).create(true).open(self.folder.join("daemon.log"))?;
        let mut command = Command::new(env::current_exe()?);
        command.arg(DAEMON_VERB).arg("--image").arg(&self.image);
        for channel in CHANNELS {
            let mut socket = OsString::from(format!("{channel}="));
            socket.push(self.socket(channel));
            command.arg("--socket").arg(socket);
        }
        command.arg("--policy").arg(self.folder.join("policy.toml"));
        // Ctrl-C is for this program, which then ends the daemon in its own way.
        command.process_group(0);
        // The pipe's end tells the daemon when this program is gone, however it went.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        command.spawn()
    }

    fn ended(&mut self) -> Result<Option<process::ExitStatus>, Failure> {
        match self.daemon.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => Ok(status),
            Some(Err(error)) => Err(failed("asking for the daemon", &error)),
            None => Err(demo_failure("no daemon runs".into())),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What fails here cannot be mended, and what is told is the failure that led here.
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap_or_default();
            daemon.wait().map(drop).unwrap_or_default();
        }
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

/// Runs the daemon with these arguments, the first being a name, until its parent is gone.
pub(crate) fn serve(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    thread::spawn(|| {
        let mut nothing = Vec::new();
        io::stdin().read_to_end(&mut nothing).map(drop).unwrap_or_default();
        // As abrupt as a power cut, which the store survives; the folder is about to go too.
        process::exit(1);
    });
    statefsd::linux::main(arguments)
}

/// Makes a directory that nobody else may enter.
fn make_folder() -> Result<PathBuf, Failure> {
    const ATTEMPTS: u32 = 100;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..ATTEMPTS {
        let name = format!("statefs-demo-{}-{attempt}", process::id());
        let folder = env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => last = error,
        }
        if last.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    Err(failed("making a temporary directory", &last))
}

fn policy(uid: u32) -> String {
    format!(
        "version = 1\n\n\
         [service.keystored]\nchannel = \"keystored\"\nuid = {uid}\n\n\
         [service.updated]\nchannel = \"updated\"\nuid = {uid}\n\n\
         [[grant]]\nto = \"keystored\"\nprefix = \"/state/keystore\"\n\
         rights = [\"get\", \"list\", \"put\", \"delete\"]\n\n\
         [[grant]]\nto = \"updated\"\nprefix = \"/state/boot\"\n\
         rights = [\"get\", \"list\", \"put\", \"delete\"]\n\n\
         [[ceiling]]\nprefix = \"/state/keystore\"\nonly = [\"keystored\"]\n\n\
         [[assert]]\nservice = \"updated\"\nop = \"get\"\nkey = \"/state/keystore/device.key\"\n\
         expect = \"deny\"\n"
    )
}

fn failed(action: &str, error: &io::Error) -> Failure {
    demo_failure(format!("{action} failed: {error}"))
}

fn demo_failure(message: String) -> Failure {
    Failure::new("DEMO", Exit::Failure, message)
}

/// One service each, and one socket.
const CHANNELS: [&str; 2] = ["keystored", "updated"];
