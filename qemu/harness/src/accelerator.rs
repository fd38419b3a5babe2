//! What runs the machine's instructions.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::machine::{self, QEMU};

/// What runs the machine's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// QEMU translates them; this works everywhere.
    Tcg,
    /// The processor does, with the help of Linux.
    Kvm,
}

impl Accelerator {
    /// Yields what is used here: what `STATEFS_ACCEL` says, else KVM where it works, else TCG. The first time it says on
    /// standard error which, and why.
    #[must_use]
    pub fn here() -> Self {
        static HERE: OnceLock<Accelerator> = OnceLock::new();
        *HERE.get_or_init(|| {
            let asked = env::var("STATEFS_ACCEL").ok();
            let (chosen, why) = choose(asked.as_deref(), || boots_with_kvm(Path::new(KVM)));
            eprintln!("harness: QEMU runs with {}: {why}", chosen.name());
            chosen
        })
    }

    /// Yields QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

fn choose(asked: Option<&str>, kvm: impl FnOnce() -> Result<(), String>) -> (Accelerator, String) {
    match asked {
        Some("tcg") => (Accelerator::Tcg, "STATEFS_ACCEL says so".into()),
        Some("kvm") => (Accelerator::Kvm, "STATEFS_ACCEL says so".into()),
        _ => match kvm() {
            Ok(()) => (Accelerator::Kvm, "it works here".into()),
            Err(why) => (Accelerator::Tcg, why),
        },
    }
}

/// Boots a machine without anything, which refuses to serve. That `/dev/kvm` can be opened says too little: some can, and
/// stop the machine at its first instructions.
fn boots_with_kvm(kvm: &Path) -> Result<(), String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(kvm);
    opened.map_err(|error| format!("{} cannot be opened: {error}", kvm.display()))?;
    let mut command = Command::new(QEMU);
    command.args(["-M", "microvm,acpi=off", "-accel", "kvm", "-m", "16", "-nodefaults"]);
    command.args(["-no-user-config", "-display", "none", "-no-reboot", "-kernel"]);
    command.arg(machine::guest()).args(["-device", machine::EXIT_DEVICE]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut qemu = command.spawn().map_err(|error| format!("{QEMU}: {error}"))?;
    let start = Instant::now();
    let ended = loop {
        match qemu.try_wait() {
            Ok(None) if start.elapsed() < PROBE => thread::sleep(Duration::from_millis(5)),
            Ok(status) => break status,
            Err(error) => return Err(format!("{QEMU}: {error}")),
        }
    };
    // Gone already is as good.
    let _ = qemu.kill();
    let _ = qemu.wait();
    match ended.and_then(|status| status.code()) {
        Some(machine::REFUSED) => Ok(()),
        _ => Err("a machine does not start with KVM".into()),
    }
}

const KVM: &str = "/dev/kvm";

/// How long a machine may take to refuse: it does so in a fraction of a second.
const PROBE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_used_where_it_works_and_what_is_asked_counts() {
        let works = || Ok(());
        let fails = || Err("it does not".into());
        assert_eq!(choose(None, works).0, Accelerator::Kvm);
        assert_eq!(choose(None, fails), (Accelerator::Tcg, "it does not".into()));
        assert_eq!(choose(Some("tcg"), works).0, Accelerator::Tcg);
        assert_eq!(choose(Some("kvm"), fails).0, Accelerator::Kvm);
    }

    #[test]
    fn a_host_without_kvm_says_so() {
        let why = boots_with_kvm(Path::new("/nowhere/kvm")).unwrap_err();
        assert!(why.starts_with("/nowhere/kvm cannot be opened"), "{why}");
    }
}
