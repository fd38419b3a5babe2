//! Who holds a lock, as far as the kernel tells.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::string::String;
use std::{format, vec::Vec};

/// The process that took the lock on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process id, as seen from here.
    pub process: u32,
    /// Its short name, where it may be read; any process may choose its own.
    pub name: Option<String>,
}

impl Holder {
    /// Looks in `/proc/locks` for who has locked the file; `None` where that does not tell.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let process = process_of(&fs::read_to_string("/proc/locks").ok()?, &inode(metadata))?;
        let name = fs::read_to_string(format!("/proc/{process}/comm"))
            .ok()
            .map(|name| String::from(name.trim_end()));
        Some(Self { process, name })
    }

    /// Tells whether the process is there and has not ended.
    pub(super) fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process));
        stat.is_ok_and(|stat| !has_ended(&stat))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        match &self.name {
            Some(name) => write!(f, ", {}", name.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Yields the file as `/proc/locks` writes it. Source: `lock_get_status` in Linux's fs/locks.c.
fn inode(metadata: &Metadata) -> String {
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("{major:02x}:{minor:02x}:{}", metadata.ino())
}

/// Tells whether the line of `/proc/PID/stat` is of a process that has ended; its name, in parentheses, may hold anything.
fn has_ended(stat: &str) -> bool {
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['X', 'Z']))
}

/// Finds the holder of a flock(2) in a table of lines such as
/// `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1835 0 EOF`; a waiter's line has `->` behind its number.
fn process_of(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, process, place, ..] if *place == inode => {
                process.parse().ok().filter(|process| *process != 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:1835 0 EOF
2: FLOCK  ADVISORY  WRITE 22 fe:00:18350 0 EOF
3: FLOCK  ADVISORY  WRITE 33 fe:00:1835 0 EOF
3: -> FLOCK  ADVISORY  WRITE 44 fe:00:1835 0 EOF
4: FLOCK  ADVISORY  READ 0 fe:00:77 0 EOF
5: FLOCK
";

    #[track_caller]
    fn check(inode: &str, expected: Option<u32>) {
        assert_eq!(process_of(LOCKS, inode), expected);
    }

    #[test]
    fn finds_the_holder_and_neither_waiters_nor_others() {
        check("fe:00:1835", Some(33));
        check("fe:00:18350", Some(22));
        check("fe:00:77", None);
        check("fe:00:1", None);
    }

    #[test]
    fn a_process_that_waits_for_its_parent_has_ended() {
        assert!(has_ended("4711 (statefsd) Z 1 4711"));
        assert!(!has_ended("4711 (a) Z 1) S 1 4711"));
        let this = Holder { process: std::process::id(), name: None };
        assert!(this.is_running());
    }

    #[test]
    fn shows_a_hostile_name_escaped() {
        let holder = Holder { process: 7, name: Some("a\u{1b}[2J".to_string()) };
        assert_eq!(holder.to_string(), "process 7, a\\u{1b}[2J");
    }
}
