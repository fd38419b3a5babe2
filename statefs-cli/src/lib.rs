//! The program `statefs`: a store's verbs over the daemon's socket, and tools for its image.
//!
//! It owns the command line: what is data and goes to standard output, what is said to people on
//! standard error, and the exit codes of [`Exit`]. Keys, permission and durability it leaves to the
//! daemon, the format to the journal.

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
mod rules;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Cli, Format, ImageVerb, Verb};
use clap::{CommandFactory as _, Parser as _};
pub use failure::Exit;
use failure::Failure;
use output::Output;

/// Runs the program with these arguments, the first being its name, and yields its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|verb| verb == demo::DAEMON_VERB) {
        // The verb becomes the name of the daemon that it runs.
        return demo::serve(arguments.into_iter().skip(1));
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version were asked for; the rest is a mistake. Neither can be told elsewhere
            // when the stream is gone.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            if exit == Exit::Usage && asks_for_json(&arguments) {
                let message = error.render().to_string();
                Failure::new("USAGE", exit, message.trim_end()).report(Format::Json);
            } else {
                error.print().unwrap_or_default();
            }
            return exit.into();
        }
    };
    let format = cli.output.unwrap_or(Format::Text);
    match run(cli, Output::new(format)) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            failure.report(format);
            failure.exit.into()
        }
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
        Verb::Image(ImageVerb::Inspect(arguments)) => image::inspect(&arguments, output),
        Verb::Image(ImageVerb::Salvage(arguments)) => image::salvage(&arguments, output),
        Verb::Image(ImageVerb::Import(arguments)) => image::import(&arguments, output),
        Verb::Policy(verb) => rules::run(&verb, output),
        Verb::Demo => demo::run(output),
        Verb::Completions { shell } => manual::completions(shell, output),
        Verb::Man { out } => manual::man(&out, output),
        Verb::Online(verb) => online::run(verb, cli.socket, output),
    }
}

/// Tells whether a command line that cannot be read asks for JSON all the same.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let asks = |pair: &[OsString]| {
        let [option, format] = pair else { return false };
        (option == "-o" || option == "--output") && format == "json"
    };
    arguments.windows(2).any(asks)
        || arguments.iter().any(|word| word == "-ojson" || word == "--output=json")
}
