//! One QEMU with the guest in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io::Write as _, os::unix::net::UnixStream, thread};

use serde_json::{Value, json};
use statefs_client::Client;

use crate::{Accelerator, Failure, Folder, Qmp, Relay};

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// By which the guest ends the machine with a code.
pub(crate) const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

/// How to get QEMU.
pub(crate) const ADVICE: &str = "Debian and Ubuntu: `apt-get install qemu-system-x86`";

/// How to get the guest.
pub(crate) const BUILD: &str = "`cargo xtask test guest`";

/// How often a file of the machine is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Which machine QEMU plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `microvm`: virtio-mmio, no PCI, no firmware to wait for.
    Microvm,
    /// `q35`: virtio-pci.
    Q35,
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which machine.
    pub kind: Kind,
    /// What runs it.
    pub accelerator: Accelerator,
    /// Another processor than QEMU's usual one.
    pub processor: Option<&'static str>,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Its disk, as a block node of QEMU; the node is called `disk`.
    pub disk: Value,
    /// The policy, as TOML.
    pub policy: String,
    /// The names of its ports; an empty one stands for none.
    pub ports: Vec<String>,
    /// The program that is booted.
    pub guest: PathBuf,
    /// Words for it.
    pub words: String,
    /// Whether it has an entropy device.
    pub entropy: bool,
    /// Whether it starts again on a reset, where QEMU would else exit.
    pub resets: bool,
    /// How long it may run, and how long anything is waited for.
    pub limit: Duration,
}

impl Setup {
    /// A small machine with the image at `path` as its disk.
    #[must_use]
    pub fn new(path: &Path, policy: &str, ports: &[&str]) -> Self {
        Self {
            kind: Kind::Microvm,
            accelerator: Accelerator::here(),
            processor: None,
            memory_mib: 16,
            disk: file(path),
            policy: policy.into(),
            ports: ports.iter().map(|name| (*name).into()).collect(),
            guest: guest(),
            words: String::new(),
            entropy: true,
            resets: false,
            limit: Duration::from_secs(60),
        }
    }
}

/// Describes the file at `path` as QEMU's disk.
#[must_use]
pub fn file(path: &Path) -> Value {
    json!({"driver": "raw", "node-name": "disk", "file": {"driver": "file", "filename": path}})
}

/// A running machine. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    folder: Folder,
    relays: Vec<(String, Relay)>,
    started: Instant,
    limit: Duration,
    typing: Option<UnixStream>,
}

impl Machine {
    /// Starts a machine.
    ///
    /// # Errors
    /// QEMU or the guest is not there.
    pub fn start(setup: &Setup) -> Result<Self, Failure> {
        let folder = Folder::new()?;
        let guest = &setup.guest;
        if !guest.exists() {
            return Err(Failure::NoGuest { path: guest.clone() });
        }
        let policy = folder.join("policy.toml");
        fs::write(&policy, &setup.policy).map_err(Failure::io("the policy"))?;
        let mut command = command(setup, &folder, guest, &policy);
        let complaints = fs::File::create(folder.join("qemu.log"));
        command.stderr(complaints.map_err(Failure::io("QEMU's complaints"))?);
        let started = Instant::now();
        let qemu = command.spawn().map_err(|error| Failure::Qemu { error })?;
        watch(qemu.id(), setup.limit);
        let limit = setup.limit;
        let mut this = Self { qemu, folder, relays: Vec::new(), started, limit, typing: None };
        for name in &setup.ports {
            let port = this.folder.join(&format!("{name}.port"));
            this.wait("port", |_| port.exists().then_some(()))?;
            let relay = Relay::start(this.folder.join(&format!("{name}.sock")), port)?;
            this.relays.push((name.clone(), relay));
        }
        Ok(this)
    }

    /// Waits until the serial line has `text` for the `nth` time, counted from 1; yields the time since the
    /// start.
    ///
    /// # Errors
    /// It does not within the limit, or the machine ends.
    pub fn wait_for(&mut self, text: &str, nth: usize) -> Result<Duration, Failure> {
        let started = self.started;
        self.wait(text, |serial| (serial.matches(text).count() >= nth).then(|| started.elapsed()))
    }

    /// Waits until it is ready for the first time.
    ///
    /// # Errors
    /// As [`Machine::wait_for`].
    pub fn ready(&mut self) -> Result<Duration, Failure> {
        self.wait_for("statefsd: ready", 1)
    }

    /// What the machine has written.
    #[must_use]
    pub fn serial(&self) -> String {
        let bytes = fs::read(self.folder.join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the machine has written, and what QEMU complains of.
    fn last_words(&self) -> String {
        let complaints = fs::read(self.folder.join("qemu.log")).unwrap_or_default();
        self.serial() + &String::from_utf8_lossy(&complaints)
    }

    /// Types at the serial line.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn type_in(&mut self, text: &str) -> Result<(), Failure> {
        let mut stream = match self.typing.take() {
            Some(stream) => stream,
            None => UnixStream::connect(self.folder.join("serial.sock"))
                .map_err(Failure::io("the serial line"))?,
        };
        stream.write_all(text.as_bytes()).map_err(Failure::io("the serial line"))?;
        self.typing = Some(stream);
        Ok(())
    }

    /// Asks the machine for the digest of its state.
    ///
    /// # Errors
    /// It does not tell.
    pub fn digest(&mut self) -> Result<String, Failure> {
        let before = self.serial().matches(DIGEST).count();
        self.type_in("d")?;
        self.wait("digest", |serial| {
            let (at, _) = serial.match_indices(DIGEST).nth(before)?;
            let (line, _) = serial.get(at + DIGEST.len()..)?.split_once('\n')?;
            Some(line.trim().to_owned())
        })
    }

    /// Connects the shipped client to a port.
    ///
    /// # Errors
    /// There is no such port, or it does not answer.
    pub fn client(&self, port: &str) -> Result<Client, Failure> {
        let socket = self.socket(port);
        Client::connect(&socket).map_err(|error| Failure::Refused { what: error.to_string() })
    }

    /// Where clients of a port connect.
    #[must_use]
    pub fn socket(&self, port: &str) -> PathBuf {
        self.folder.join(&format!("{port}.sock"))
    }

    /// Connects to QEMU's control socket.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn qmp(&self) -> Result<Qmp, Failure> {
        Qmp::connect(&self.folder.join("qmp.sock"), self.limit)
    }

    /// Shuts the machine down in order and yields its serial line.
    ///
    /// # Errors
    /// It ends in another way.
    pub fn shut_down(mut self) -> Result<String, Failure> {
        self.type_in("q")?;
        self.end(DONE)
    }

    /// Waits for the machine's end with `code`, and yields its serial line.
    ///
    /// # Errors
    /// It ends in another way, or not.
    pub fn end(mut self, code: i32) -> Result<String, Failure> {
        match self.status()?.code() {
            Some(found) if found == code => Ok(self.serial()),
            code => Err(Failure::Exit { code, serial: self.last_words() }),
        }
    }

    /// Waits for the machine's end, whichever it is, and yields its serial line.
    ///
    /// # Errors
    /// It does not end.
    pub fn end_somehow(mut self) -> Result<String, Failure> {
        self.status().map(|_| self.serial())
    }

    fn status(&mut self) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + self.limit;
        loop {
            let status = self.qemu.try_wait().map_err(|error| Failure::Qemu { error })?;
            if let Some(status) = status {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::Late { what: "end".into(), serial: self.serial() });
            }
            thread::sleep(LOOK);
        }
    }

    /// Kills QEMU, as `kill -9` does.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.qemu.kill().map_err(|error| Failure::Qemu { error })?;
        self.qemu.wait().map_err(|error| Failure::Qemu { error }).map(drop)
    }

    /// Process id of QEMU.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.qemu.id()
    }

    fn wait<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.limit;
        loop {
            let serial = self.serial();
            if let Some(found) = look(&serial) {
                return Ok(found);
            }
            let ended = self.qemu.try_wait().map_err(|error| Failure::Qemu { error })?;
            if let Some(status) = ended {
                // It may have written a last line.
                let (serial, code) = (self.last_words(), status.code());
                return look(&serial).ok_or(Failure::Exit { code, serial });
            }
            if Instant::now() > deadline {
                return Err(Failure::Late { what: what.into(), serial });
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What QEMU exits with when the guest is done.
pub const DONE: i32 = 33;
/// What QEMU exits with when the guest's self-test failed.
pub const FAILED: i32 = 3;
/// What QEMU exits with when the guest refuses to serve.
pub const REFUSED: i32 = 9;

const DIGEST: &str = "statefsd: digest ";

/// Where the guest is: `STATEFS_GUEST`, or where cargo puts it.
#[must_use]
pub fn guest() -> PathBuf {
    if let Some(path) = env::var_os("STATEFS_GUEST") {
        return path.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    target.unwrap_or_else(|| root.join("target")).join("guest/guest")
}

/// Where the guest with plants is, which `cargo xtask test guest` builds beside it.
#[must_use]
pub fn planted() -> PathBuf {
    guest().with_file_name("guest-planted")
}

fn command(setup: &Setup, folder: &Folder, guest: &Path, policy: &Path) -> Command {
    let mut command = Command::new(QEMU);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (machine, bus) = match setup.kind {
        Kind::Microvm => ("microvm,acpi=off", "device"),
        Kind::Q35 => ("q35", "pci"),
    };
    let at = |name: &str| folder.join(name).display().to_string();
    command.args(["-M", machine, "-accel", setup.accelerator.name()]);
    command.args(["-m", &setup.memory_mib.to_string()]);
    if let Some(processor) = setup.processor {
        command.args(["-cpu", processor]);
    }
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    if !setup.resets {
        command.arg("-no-reboot");
    }
    command.args(["-device", EXIT_DEVICE]);
    if setup.kind == Kind::Microvm {
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
    }
    let log = format!("logfile={},logappend=off", at("serial.log"));
    let serial = format!("socket,id=serial,path={},server=on,wait=off,{log}", at("serial.sock"));
    command.args(["-chardev", &serial, "-serial", "chardev:serial"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp.sock"))]);
    command.arg("-kernel").arg(guest).arg("-initrd").arg(policy);
    command.args(["-append", &setup.words]);
    command.args(["-blockdev", &setup.disk.to_string()]);
    let disk = format!("virtio-blk-{bus},drive=disk,werror=report,rerror=report");
    command.args(["-device", &disk]);
    if setup.entropy {
        command.args(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
        command.args(["-device", &format!("virtio-rng-{bus},rng=entropy")]);
    }
    let ports = setup.ports.len() + 1;
    command.args(["-device", &format!("virtio-serial-{bus},max_ports={ports}")]);
    for (number, name) in setup.ports.iter().enumerate() {
        let path = at(&format!("{name}.port"));
        let socket = format!("socket,id=port{number},path={path},server=on,wait=off");
        command.args(["-chardev", &socket]);
        let name = if name.is_empty() { String::new() } else { format!(",name={name}") };
        command.args(["-device", &format!("virtserialport,chardev=port{number}{name}")]);
    }
    command
}

/// Ends a machine that runs for longer than it may, whatever becomes of us: by QEMU's own id, and only while
/// that is a QEMU of ours.
fn watch(id: u32, limit: Duration) {
    let script = format!(
        "i=0; while [ $i -lt {} ] && [ -d /proc/{id} ]; do sleep 1; i=$((i+1)); done; \
         grep -q qemu-system /proc/{id}/comm 2>/dev/null && kill -9 {id}",
        limit.as_secs() + 30
    );
    let mut watch = Command::new("sh");
    watch.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Without it the machine still ends with us.
    if let Ok(mut watch) = watch.spawn() {
        thread::spawn(move || watch.wait());
    }
}
