//! The program as a process, a folder for it, a client, and what a service manager hears.

use std::fs;
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::task::{Context, Poll, Waker};

use rustix::process::{Pid, Signal, kill_process};
use statefs::{directory, state_fs};
use vat::Vat;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_statefsd");

/// A folder of one test alone, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("statefsd-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        // The program takes no policy that others may write.
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A running daemon; killed if the test fails first.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// `None` once the test hung up on it.
    pub(crate) log: Option<BufReader<ChildStderr>>,
    /// What of it was read.
    pub(crate) seen: String,
}

impl Daemon {
    /// Starts the program and waits until it says that it is ready.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take().map(BufReader::new);
        let mut daemon = Self { child, log, seen: String::new() };
        daemon.wait_for(" ready ");
        daemon
    }

    pub(crate) fn dev(folder: &Folder) -> Self {
        Self::start(Command::new(PROGRAM).args(["--log-level", "debug", "--dev"]).arg(&folder.0))
    }

    pub(crate) fn wait_for(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let bytes = self.log.as_mut().unwrap().read_line(&mut line).unwrap();
            self.seen.push_str(&line);
            assert!(bytes > 0, "the daemon ended:\n{}", self.seen);
            if line.contains(words) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it, and yields its exit code and the rest of its log.
    pub(crate) fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let mut log = String::new();
        if let Some(rest) = &mut self.log {
            rest.read_to_string(&mut log).unwrap();
        }
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// A client that waits for its answers.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) vat: Vat,
}

impl Client {
    pub(crate) fn connect(socket: impl AsRef<Path>) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        Self { stream, vat: Vat::new(None, vat::Limits::default()) }
    }

    pub(crate) fn wait<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            self.vat.poll(1000);
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return answer;
            }
            let output = self.vat.take_output();
            // A daemon that has gone is noticed by the read.
            let _gone = self.stream.write_all(&output);
            let mut buffer = [0; 4096];
            let bytes = self.stream.read(&mut buffer).unwrap_or(0);
            if bytes == 0 {
                let gone = capnp::Error::disconnected("the daemon has gone".into());
                self.vat.disconnect(gone);
            } else {
                self.vat.receive(&buffer[..bytes]).unwrap();
            }
        }
    }

    pub(crate) fn directory(&self) -> directory::Client {
        let root: state_fs::Client = self.vat.bootstrap();
        let mut request = root.open_request();
        request.get().set_prefix("/state");
        request.get().init_rights().set_get(true);
        request.get().get_rights().unwrap().set_put(true);
        request.send().pipeline.get_directory()
    }

    pub(crate) fn put(&mut self, key: &str, value: &[u8], buffered: bool) -> Result<u64, String> {
        let mut request = self.directory().put_request();
        request.get().set_key(key);
        request.get().set_value(value);
        if buffered {
            request.get().set_durability(statefs::Durability::Buffered);
        }
        let answer = self.wait(request.send().promise).map_err(|error| error.extra)?;
        match answer.get().unwrap().which().unwrap() {
            directory::put_results::Version(version) => Ok(version),
            _ => Err("no version".into()),
        }
    }

    /// The mode and why.
    pub(crate) fn health(&mut self) -> String {
        let root: state_fs::Client = self.vat.bootstrap();
        let answer = self.wait(root.health_request().send().promise).unwrap();
        let health = answer.get().unwrap();
        let reason = health.get_reason().unwrap().to_str().unwrap();
        format!("{:?}: {reason}", health.get_mode().unwrap())
    }

    pub(crate) fn get(&mut self, key: &str) -> Result<Vec<u8>, String> {
        let mut request = self.directory().get_request();
        request.get().set_key(key);
        let answer = self.wait(request.send().promise).map_err(|error| error.extra)?;
        match answer.get().unwrap().which().unwrap() {
            directory::get_results::Value(value) => Ok(value.unwrap().get_data().unwrap().into()),
            directory::get_results::Absent(()) => Err("absent".into()),
            directory::get_results::Large(_) => Err("large".into()),
            directory::get_results::DataLoss(()) => Err("data loss".into()),
        }
    }
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// What a run that has to fail with `code` says.
#[track_caller]
pub(crate) fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    said
}

/// What a service manager hears, line by line.
pub(crate) fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let bytes = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..bytes].to_vec()).unwrap()
}
