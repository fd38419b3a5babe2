//! The program `statefs`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    statefs_cli::main(std::env::args_os())
}
