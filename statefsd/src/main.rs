//! The program `statefsd`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    statefsd::linux::main(std::env::args_os())
}
