//! What the daemon gives up for good before it serves: privileges, files, system calls.
//!
//! The parser of a message is not trusted to be without faults. Whoever took the daemon over finds
//! neither a file but those that it serves, nor a program to start, nor a way to another machine.

mod files;
mod syscalls;

use core::fmt;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

pub(crate) use files::{Access, confine};
pub(crate) use syscalls::seal;

/// One thing that is given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Layer {
    /// Core dumps, which would hold values.
    Core,
    /// Being looked into by other processes of the same user.
    Dumpable,
    /// Gaining privileges through a program that has them.
    Privileges,
    /// Every file but those that are served (Landlock).
    Files,
    /// Every system call but those that serving takes (seccomp).
    Calls,
}

impl Layer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Core, Self::Dumpable, Self::Privileges, Self::Files, Self::Calls];

    /// The name in logs and metrics, stable.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Core => "core_limit",
            Self::Dumpable => "not_dumpable",
            Self::Privileges => "no_new_privileges",
            Self::Files => "landlock",
            Self::Calls => "seccomp",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which layers are in force, and why the others are not.
#[derive(Default, Debug)]
pub(crate) struct Sandbox {
    missing: Vec<(Layer, String)>,
    in_force: Vec<Layer>,
}

impl Sandbox {
    /// Notes how putting a layer in force went.
    pub(crate) fn note(&mut self, layer: Layer, result: Result<(), String>) {
        match result {
            Ok(()) => self.in_force.push(layer),
            Err(why) => self.missing.push((layer, why)),
        }
    }

    /// Keeps values out of core dumps and of the reach of other processes of the same user, and
    /// privileges out of reach. To be called before there is a second thread.
    pub(crate) fn harden(&mut self) {
        let told = |result: rustix::io::Result<()>| result.map_err(|error| std::format!("{error}"));
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        self.note(Layer::Core, told(setrlimit(Resource::Core, none)));
        let closed = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        self.note(Layer::Dumpable, told(closed));
        self.note(Layer::Privileges, told(rustix::thread::set_no_new_privs(true)));
    }

    /// The layers that could not be had, each with the reason.
    pub(crate) fn missing(&self) -> &[(Layer, String)] {
        &self.missing
    }

    pub(crate) fn is_in_force(&self, layer: Layer) -> bool {
        self.in_force.contains(&layer)
    }
}

/// The folder that a file is in, in which it can be replaced.
pub(crate) fn folder(path: &std::path::Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.into(),
        Some(_) | None => ".".into(),
    }
}

#[cfg(test)]
mod tests;
