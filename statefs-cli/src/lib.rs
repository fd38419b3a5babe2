//! The program `statefs`: a store's verbs over the daemon's socket, and tools for its image.
//!
//! It owns the command line: what is data and goes to standard output, what is said to people on
//! standard error, and the exit codes of [`Exit`]. Keys, permission and durability it leaves to the
//! daemon, the format to the journal.
//!
//! The programs of the services behave like it: [`program`] gives them its options, its output and
//! its failures.

#![forbid(unsafe_code)]

mod args;
mod base64;
mod confirm;
mod demo;
mod failure;
mod image;
mod manual;
mod online;
mod output;
mod program;
mod rules;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use args::{Cli, ImageVerb, Verb};
use clap::CommandFactory as _;
pub use failure::{Exit, Failure};
pub use output::Output;
pub use program::{Format, Reach, program};
use signal_hook::consts::SIGXFSZ;

/// Runs the program with these arguments, the first being its name, and yields its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|verb| verb == demo::DAEMON_VERB) {
        // The verb becomes the name of the daemon that it runs.
        return demo::serve(arguments.into_iter().skip(1));
    }
    // What passes a limit on the size of files is then refused, and told; without this it ends the process without a word.
    let _ends_it_then = signal_hook::flag::register(SIGXFSZ, Arc::default());
    program::program_with("statefs", arguments, usage, |cli: &Cli| &cli.reach, run)
}

/// Yields what a command line that is wrong ends with: for `image fsck` its own table has another number.
fn usage(arguments: &[OsString]) -> Exit {
    let found = command().ignore_errors(true).try_get_matches_from(arguments);
    let found = found.ok().and_then(|mut found| found.remove_subcommand());
    match found {
        Some((group, found)) if group == "image" && found.subcommand_name() == Some("fsck") => {
            Exit::FsckUsage
        }
        _ => Exit::Usage,
    }
}

/// Yields the definition of the command line, of which help, completions and man pages are made.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    match cli.verb {
        Verb::Image(ImageVerb::Format(arguments)) => image::format(&arguments, output),
        Verb::Image(ImageVerb::Dump { path }) => image::dump(&path, output),
        Verb::Image(ImageVerb::Fsck(arguments)) => image::fsck(&arguments, output),
        Verb::Image(ImageVerb::Undo(arguments)) => image::undo(&arguments, output),
        Verb::Image(ImageVerb::Inspect(arguments)) => image::inspect(&arguments, output),
        Verb::Image(ImageVerb::Salvage(arguments)) => image::salvage(&arguments, output),
        Verb::Image(ImageVerb::Import(arguments)) => image::import(&arguments, output),
        Verb::Policy(verb) => rules::run(&verb, output),
        Verb::Demo => demo::run(output),
        Verb::Completions { shell } => manual::completions(shell, output),
        Verb::Man { out } => manual::man(&out, output),
        Verb::Online(verb) => online::run(verb, cli.reach.socket(), output),
    }
}
