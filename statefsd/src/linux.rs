//! The Linux driver: an image file or block device below, Unix sockets above, one thread between.
//!
//! It owns everything that the core refuses to know: files, sockets, signals, time, entropy and
//! the log. Device I/O blocks on helper threads of `blockdev`; nothing else does.

mod activation;
mod dev;
mod device;
mod driver;
mod failure;
mod link;
mod listen;
mod log;
mod metrics;
mod notify;
mod options;
mod policy_file;
mod sandbox;

use std::ffi::OsString;
use std::process::ExitCode;
use std::string::ToString as _;
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};
use signal_hook::consts::SIGXFSZ;

use activation::Passed;
use driver::Driver;
use failure::Failure;
use notify::Notify;
use sandbox::Sandbox;

/// The program `statefsd`, from its arguments, the first of which is its name.
///
/// Ends 0 after a clean shutdown, 1 after a failure, 2 if it was called in a wrong way. It takes
/// over signals and the log of the process, so it is a process' only job.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let passed = Passed::from_env();
    let options = match options::parse(arguments, !passed.is_empty()) {
        Ok(options) => options,
        Err(error) => {
            // Help and version come this way too. A closed terminal is nothing to report to.
            let _unseen = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log::start(options.log_level());
    // What passes a limit on the size of files is then refused, and told; without this it ends the process without a word.
    let _ends_it_then = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let mut sandbox = Sandbox::default();
    sandbox.harden();
    let notify = Notify::from_env();
    let done = options.config().and_then(|config| {
        let listeners = passed.take()?;
        Driver::start(config, listeners, notify, sandbox, seed()?)?.run()
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::fail(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Yields the definition of the command line of `statefsd`, of which its man page is made.
#[must_use]
pub fn command() -> clap::Command {
    <options::Options as clap::CommandFactory>::command()
}

/// Draws the entropy from which the identities of all that is written grow.
fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let got = getrandom(rest, GetRandomFlags::empty());
        filled += got.map_err(|error| Failure::Entropy(error.into()))?;
    }
    Ok(seed)
}
