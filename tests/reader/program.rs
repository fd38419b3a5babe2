//! The program `statefs`, as it is, for the suites that compare it with something.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    statefs_cli::main(std::env::args_os())
}
