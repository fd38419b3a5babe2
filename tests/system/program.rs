//! The daemon, as `statefsd` is: the same entry, with the checks of a debug build.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    statefsd::linux::main(std::env::args_os())
}
