//! What is made of the definitions of the command lines: completions of shells, and man pages.

use std::io;
use std::path::Path;

use clap::{Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The sections of the manual: programs of users, and of the system.
const USER: &str = "1";
const SYSTEM: &str = "8";

/// What stands in the foot of each page.
const SOURCE: &str = concat!("StateFS ", env!("CARGO_PKG_VERSION"));

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell, mut output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command(), "statefs", &mut script);
    let script = String::from_utf8_lossy(&script);
    let shell = shell.to_possible_value();
    let shell = shell.as_ref().map(|value| value.get_name());
    output.either(&json!({"script": script, "shell": shell}), script.trim_end())?;
    output.finish()
}

/// Writes a page for each verb and for both programs into `folder`, and prints their paths.
pub(crate) fn man(folder: &Path, mut output: Output) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new("OUTPUT", Exit::Failure, error).about(folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut pages = Vec::new();
    for (command, section) in [(crate::command(), USER), (statefsd::linux::command(), SYSTEM)] {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        collect(&command, section, &mut pages);
    }
    for page in pages {
        let path = page.generate_to(folder).map_err(failed)?.to_string_lossy().into_owned();
        output.either(&json!({"page": path}), &path)?;
    }
    output.finish()
}

fn collect(command: &Command, section: &'static str, pages: &mut Vec<Man>) {
    // A date would make each build another page.
    let page = Man::new(command.clone()).section(section).source(SOURCE).manual("StateFS").date("");
    pages.push(page);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect(verb, section, pages);
    }
}
