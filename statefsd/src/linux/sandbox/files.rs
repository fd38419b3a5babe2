//! Files out of reach: Landlock, which every thread that is started later inherits.

use std::format;
use std::path::PathBuf;
use std::string::{String, ToString as _};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// What is left of the files of the machine.
pub(crate) enum Access {
    /// Read and written: an image, or a device with its ioctls.
    Image(PathBuf),
    /// What is in the folder is read.
    Read(PathBuf),
    /// What is in the folder is made, replaced and removed: sockets and files.
    Replace(PathBuf),
}

impl Access {
    fn rule(self) -> (PathBuf, BitFlags<AccessFs>) {
        match self {
            Self::Image(path) => {
                (path, AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)
            }
            Self::Read(path) => (path, AccessFs::ReadFile.into()),
            Self::Replace(path) => {
                let files = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
                (path, files | AccessFs::Truncate | AccessFs::MakeSock)
            }
        }
    }
}

/// Rights beyond those of this version of Landlock are not asked about; older kernels know fewer
/// of them, of which files alone are indispensable.
const KNOWN: ABI = ABI::V7;

/// Takes every file but those of `accesses` away from this thread and those that it will start,
/// and with it networks and other processes' abstract sockets, as far as the kernel knows how.
///
/// # Errors
/// The kernel has no Landlock, or one of the paths is not there; in words for the log.
pub(crate) fn confine(accesses: impl IntoIterator<Item = Access>) -> Result<(), String> {
    let told = |error: RulesetError| error.to_string();
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .map_err(told)?;
    for access in accesses {
        let (path, rights) = access.rule();
        let file = PathFd::new(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        ruleset = ruleset
            .add_rule(PathBeneath::new(file, rights))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let status = ruleset.restrict_self().map_err(told)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => {
            tracing::info!("this kernel's Landlock knows files, and not all else that it is asked");
            Ok(())
        }
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or has it off".into()),
    }
}
