//! A folder with an image, a policy and sockets, and the daemon that serves them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use blockdev::{BlockDevice as _, FileDevice};
use journal::{Disk, FormatOptions, Random};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use statefs_client::{Client, Mode};
use tests::drive::drive;

/// The daemon of this package.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_statefsd-under-test");

/// Long beyond what a loaded machine needs: only something that hangs meets it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often something is asked that is waited for.
const PAUSE: Duration = Duration::from_millis(2);

/// Everything is removed, and the daemon killed, when it is dropped.
pub struct Machine {
    folder: PathBuf,
    channels: &'static [&'static str],
    options: Vec<String>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Machine {
    /// Formats an image of `bytes`; `channels` get a socket each.
    pub fn new(bytes: u64, policy: &str, channels: &'static [&'static str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("statefs-system-{}-{number}", process::id()));
        fs::create_dir(&folder).unwrap();
        let (options, variables) = (Vec::new(), Vec::new());
        let machine = Self { folder, channels, options, variables, child: None };
        machine.write_policy(policy);
        let mut device = FileDevice::create(machine.image(), bytes, || {}).unwrap();
        let disk = Disk::new(device.geometry());
        let formatting = {
            let disk = disk.clone();
            async move {
                let mut random = Random::from_seed([7; 32]);
                journal::format(&disk, &mut random, FormatOptions::default()).await
            }
        };
        drive(&disk, &mut device, None, Box::pin(formatting)).unwrap();
        machine
    }

    /// Replaces the policy file; the daemon notices when it is told to.
    pub fn write_policy(&self, text: &str) {
        fs::write(self.policy(), text).unwrap();
        fs::set_permissions(self.policy(), Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts the daemon with an option more from now on.
    pub fn option(&mut self, name: &str, value: &str) {
        self.options.extend([name.into(), value.into()]);
    }

    /// Starts the daemon with a variable more in its environment from now on.
    pub fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    /// Starts the daemon, and returns when it answers on every socket.
    pub fn start(&mut self) {
        self.spawn();
        for channel in self.channels {
            self.until("the daemon serves", |machine| {
                Client::connect(machine.socket(channel)).is_ok_and(|client| client.health().is_ok())
            });
        }
    }

    /// Starts the daemon, and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "a daemon runs already");
        let log = File::options().append(true).create(true).open(self.log()).unwrap();
        let mut command = self.command();
        for channel in self.channels {
            let path = self.socket(channel);
            command.arg("--socket").arg(format!("{channel}={}", path.display()));
        }
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    /// The program with the image and the policy, and no socket yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--image").arg(self.image()).arg("--policy").arg(self.policy());
        command.args(&self.options);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Waits for `done`; fails if the daemon ends instead.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "waiting until {what}: it ended, {ended:?}\n{}", self.said());
            assert!(Instant::now() < deadline, "waited too long until {what}\n{}", self.said());
            thread::sleep(PAUSE);
        }
    }

    /// Ends the daemon with SIGKILL: at once, at whatever it is doing.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the daemon to end; it must say that all is well.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status:?}\n{}", self.said());
    }

    /// Waits for the end of the daemon.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops every thread of the daemon; [`Signal::CONT`] wakes it.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    /// Gives the daemon no more than `bytes` of memory beyond what it has.
    pub fn starve(&self, bytes: u64) {
        let most = Some(self.memory("VmSize") + bytes);
        prlimit(Some(self.pid()), Resource::As, Rlimit { current: most, maximum: most }).unwrap();
    }

    /// Tells whether the daemon has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn connect(&self, channel: &str) -> Client {
        let client = Client::connect(self.socket(channel)).unwrap();
        client.set_timeout(Some(PATIENCE));
        client
    }

    /// Demands that the daemon lives, answers, and knows of no damage.
    pub fn check_health(&mut self) {
        let health = self.connect(self.channels[0]).health().unwrap();
        assert_eq!((health.mode, &*health.reason, health.loss_count), (Mode::Healthy, "", 0));
        assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none());
    }

    /// Bytes of memory that the daemon has, or with "VmHWM" had at most.
    pub fn memory(&self, field: &str) -> u64 {
        let pid = self.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
        kib << 10
    }

    pub fn socket(&self, channel: &str) -> PathBuf {
        self.folder.join(format!("{channel}.sock"))
    }

    pub fn image(&self) -> PathBuf {
        self.path("state.img")
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the daemons have logged.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    fn policy(&self) -> PathBuf {
        self.folder.join("policy.toml")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // What fails here is no failure of the daemon's.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}
