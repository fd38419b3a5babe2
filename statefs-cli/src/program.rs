//! How a program of the project behaves, whatever it is for.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// How results and errors are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// One object, or one per line where there are many.
    Json,
}

/// The options of every program: which daemon, and how to write.
#[derive(Args, Debug)]
pub struct Reach {
    /// The daemon's socket [default: $STATEFS_SOCKET, else ./statefs-dev/statefs.sock]
    #[arg(long, global = true, value_name = "PATH", display_order = 100)]
    socket: Option<PathBuf>,

    /// How to write results and errors: `text`, or `json`, one object or one per line
    #[arg(short, long, global = true, value_name = "FORMAT", display_order = 101)]
    #[arg(hide_possible_values = true)]
    output: Option<Format>,
}

impl Reach {
    /// Yields the path of the daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let named = env::var_os("STATEFS_SOCKET").filter(|named| !named.is_empty());
        let default = || named.map_or_else(|| SOCKET_DEFAULT.into(), PathBuf::from);
        self.socket.clone().unwrap_or_else(default)
    }

    fn format(&self) -> Format {
        self.output.unwrap_or(Format::Text)
    }
}

/// Runs the program `name` with these arguments, the first being its name, and yields its exit code.
///
/// `reach` finds the options in the command line, `run` does what it asks for. A failure is told on
/// standard error, and its exit code is the one of `statefs`.
pub fn program<C: Parser>(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
    reach: impl FnOnce(&C) -> &Reach,
    run: impl FnOnce(C, Output) -> Result<(), Failure>,
) -> ExitCode {
    program_with(name, arguments, |_| Exit::Usage, reach, run)
}

/// The same, where `usage` tells from a command line that is wrong what it ends with.
pub(crate) fn program_with<C: Parser>(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
    usage: impl FnOnce(&[OsString]) -> Exit,
    reach: impl FnOnce(&C) -> &Reach,
    run: impl FnOnce(C, Output) -> Result<(), Failure>,
) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = match C::try_parse_from(&arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help and version were asked for; the rest is a mistake. Neither can be told elsewhere
            // when the stream is gone.
            let exit = if error.use_stderr() { usage(&arguments) } else { Exit::Ok };
            if exit != Exit::Ok && asks_for_json(&arguments) {
                let message = error.render().to_string();
                Failure::new("USAGE", exit, message.trim_end()).report(name, Format::Json);
            } else {
                error.print().unwrap_or_default();
            }
            return exit.into();
        }
    };
    let format = reach(&command).format();
    match run(command, Output::new(format)) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            failure.report(name, format);
            failure.exit.into()
        }
    }
}

/// Tells whether a command line that cannot be read asks for JSON all the same.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let asks = |pair: &[OsString]| {
        let [option, format] = pair else { return false };
        (option == "-o" || option == "--output") && format == "json"
    };
    arguments.windows(2).any(asks)
        || arguments
            .iter()
            .any(|word| ["-ojson", "-o=json", "--output=json"].iter().any(|it| word == it))
}

/// Where the socket is when nothing says otherwise: where `statefsd --dev` puts it.
const SOCKET_DEFAULT: &str = "./statefs-dev/statefs.sock";
