//! The program `keystored`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    keystored::program::main(std::env::args_os())
}
