//! The program `crashd`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    crashd::program::main(std::env::args_os())
}
