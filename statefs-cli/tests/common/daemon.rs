//! A real daemon for tests: the one that the demonstration runs, from this very program.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use statefs_client::Client;

/// Long beyond what a loaded machine needs: only a daemon that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A volume, a policy and, while it is started, a daemon on the default socket.
pub(crate) struct Daemon {
    folder: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Formats a volume of `size` in `folder` and starts a daemon with these grants to `tester`.
    pub(crate) fn start(folder: &Path, size: &str, grants: &str) -> Self {
        fs::create_dir(folder.join("statefs-dev")).unwrap();
        super::statefs(folder, &format!("image format state.img --size {size}")).exits(0);
        let uid = fs::metadata(folder).unwrap().uid();
        let policy = format!("version = 1\n[service.tester]\nuid = {uid}\n{grants}");
        let path = folder.join("policy.toml");
        fs::write(&path, policy).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut daemon = Self { folder: folder.into(), child: None };
        daemon.restart();
        daemon
    }

    /// Starts the daemon, and returns when it answers.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none());
        let mut child = Command::new(env!("CARGO_BIN_EXE_statefs"))
            .arg("__daemon-of-the-demo")
            .args(["--image", "state.img", "--policy", "policy.toml"])
            .args(["--socket", "statefs-dev/statefs.sock"])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stderr(fs::File::create(self.folder.join("daemon.log")).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let socket = self.folder.join("statefs-dev/statefs.sock");
        while Client::connect(&socket).and_then(|client| client.health()).is_err() {
            let log = || fs::read_to_string(self.folder.join("daemon.log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the daemon ended: {}", log());
            assert!(Instant::now() < deadline, "the daemon does not serve: {}", log());
            thread::sleep(Duration::from_millis(2));
        }
        self.child = Some(child);
    }

    /// Ends the daemon with SIGTERM, and demands that it ends well.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // Waiting would close the pipe, whose end ends the daemon abruptly.
        let stdin = child.stdin.take();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        drop(stdin);
    }
}

impl Daemon {
    /// Ends the daemon in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
