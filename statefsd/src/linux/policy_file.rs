//! Reading the policy file, from nobody but root or the user that the daemon runs as.

use core::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::string::{String, ToString as _};

use policy::Policy;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::failure::Failure;

/// Bytes that are read at most; the policy's own limit is smaller.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Permissions that let others than the owner write.
const WRITABLE: u32 = 0o022;

/// Reads a policy.
///
/// Who can write the file is master of the store, so it must belong to root or to the daemon's own
/// user, nobody else may have the permission to write it, and it is no symbolic link, whose target
/// could be another one tomorrow. All of this is asked of the open file, not of its name.
///
/// # Errors
/// The file cannot be read or trusted, or every fault in it, with its place.
pub(crate) fn load(path: &Path) -> Result<Policy, Failure> {
    let unreadable = |error| Failure::PolicyFile { path: path.into(), error };
    let wrong = |what: &str| unreadable(Error::new(ErrorKind::InvalidInput, what.to_string()));
    // A pipe is not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(wrong("it is a symbolic link; name the file itself")),
        Err(error) => return Err(unreadable(error.into())),
    };
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(wrong("it is no regular file"));
    }
    if let Some(mistrust) = mistrust(facts.uid(), facts.mode()) {
        return Err(Failure::PolicyTrust { path: path.into(), mistrust });
    }
    let mut text = String::new();
    file.take(READ_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Policy::parse(&text).map_err(|errors| {
        let file = path.display().to_string();
        let faults = errors.iter().map(|error| error.in_file(&file).to_string()).collect();
        Failure::Policy { faults }
    })
}

/// Why a file is not to be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistrust {
    /// It belongs to a user who is neither root nor the daemon's.
    Owner { uid: u32 },
    /// Group or others may write it.
    Writable { mode: u32 },
}

impl fmt::Display for Mistrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { uid } => write!(
                f,
                "it belongs to uid {uid}, and who owns it could grant anything; give it to root or \
                 to the daemon's user"
            ),
            Self::Writable { mode } => write!(
                f,
                "its permissions are {mode:04o}, and who may write it could grant anything; \
                 chmod go-w it"
            ),
        }
    }
}

fn mistrust(uid: u32, mode: u32) -> Option<Mistrust> {
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Some(Mistrust::Owner { uid });
    }
    (mode & WRITABLE != 0).then_some(Mistrust::Writable { mode: mode & 0o7777 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::{env, format, process};

    #[test]
    fn only_a_file_that_nobody_else_can_write_is_a_policy() {
        let folder = env::temp_dir().join(format!("statefsd-policy-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("policy.toml");
        fs::write(&path, "version = 1\n").unwrap();
        let load_as = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            load(&path).map(drop).map_err(|failure| failure.to_string())
        };
        for mode in [0o600, 0o644, 0o444, 0o755] {
            assert_eq!(load_as(mode), Ok(()), "{mode:o}");
        }
        for mode in [0o620, 0o602, 0o666, 0o777] {
            let told = load_as(mode).expect_err("others may write it");
            assert!(told.contains(&format!("{mode:04o}")), "{told}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // To give a file away takes privileges; where they lack, the rule is asked by itself.
        match chown(&path, Some(12_345), None) {
            Ok(()) => {
                let told = load(&path).expect_err("it belongs to somebody else").to_string();
                assert!(told.contains("12345"), "{told}");
            }
            Err(_) => assert_eq!(mistrust(12_345, 0o600), Some(Mistrust::Owner { uid: 12_345 })),
        }
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("no regular file"));
        fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("no regular file"), "not waited for");
        fs::remove_dir_all(&folder).unwrap();
    }
}
