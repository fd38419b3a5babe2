//! What the tests need of the machine. Where it is missing some of them cannot fail, so it is demanded, or told, before they run.

use std::path::Path;
use std::{env, fs, process};

use blockdev::FileDevice;
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
};

use crate::{Failure, debian};

/// Demands what can be installed, and installs it where that takes no question; tells what only the kernel can give.
///
/// # Errors
/// Something is missing; the failure says how to get it.
pub(crate) fn check() -> Result<(), Failure> {
    for (program, package, advice) in DEMANDED {
        if debian::answer(program, "--version").is_none() {
            debian::install(&[package]);
        }
        if debian::answer(program, "--version").is_none() {
            return Err(Failure::ToolMissing { program, advice });
        }
    }
    if let Err(failure) = ring(&env::temp_dir()) {
        eprintln!("xtask: left out are the tests of a queue of the kernel's: {failure}");
    }
    if let Err(failure) = landlock() {
        eprintln!("xtask: left out are the tests of Landlock: {failure}");
    }
    if !gives_processes() {
        eprintln!(
            "xtask: left out is the test of peers of another PID namespace: `unshare` may not make one"
        );
    }
    Ok(())
}

/// Demands that the kernel serves a file in `folder` with a queue of its own, io_uring(7).
fn ring(folder: &Path) -> Result<(), Failure> {
    let path = folder.join(format!("statefs-xtask-ring-{}", process::id()));
    let device = FileDevice::create(&path, BYTES, || {});
    // It is not there where it could not be made.
    fs::remove_file(&path).unwrap_or_default();
    match device {
        Ok(device) if device.ready().is_some() => Ok(()),
        Ok(_) => Err(Failure::NoRing { folder: folder.display().to_string() }),
        Err(error) => Err(Failure::Device { path: path.display().to_string(), error }),
    }
}

/// Demands that the kernel can take files out of a program's reach, landlock(7). It is asked itself: the list of its
/// modules in `/sys/kernel/security` is often not mounted, and says nothing of a container's filter.
fn landlock() -> Result<(), Failure> {
    let demanded = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = demanded.handle_access(AccessFs::from_all(ABI::V1));
    files.and_then(Ruleset::create).map(drop).map_err(|_| Failure::NoLandlock)
}

/// Whether the kernel gives a program processes of its own, pid_namespaces(7): to root, or beside users of its own.
fn gives_processes() -> bool {
    let works = |users: &[&str]| {
        let mut tried = process::Command::new("unshare");
        tried.args(users).args(["--pid", "--fork", "true"]).stderr(process::Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    works(&[]) || works(&["--user", "--map-root-user"])
}

/// Enough for a device.
const BYTES: u64 = 64 << 10;

/// Programs that tests run, their packages, and how to get them.
const DEMANDED: [(&str, &str, &str); 2] = [
    (
        "systemd-analyze",
        "systemd",
        "Debian and Ubuntu: `apt-get install systemd` (a test asks it what it thinks of the units; it need not run)",
    ),
    (
        "python3",
        "python3",
        "Debian and Ubuntu: `apt-get install python3` (the reader that was written from FORMAT.md runs in it)",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        // The kernel's own tables take no files.
        let failure = ring(Path::new("/proc")).unwrap_err();
        assert!(failure.to_string().starts_with("/proc/statefs-xtask-ring-"), "{failure}");
    }
}
