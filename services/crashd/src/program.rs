//! The program `crashd`: what a kernel pipes dumps into, and what people fetch them with.

use std::boxed::Box;
use std::cell::RefCell;
use std::ffi::OsString;
use std::format;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::string::{String, ToString as _};
use std::vec::Vec;

use clap::{Args, Parser, Subcommand};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use statefs_cli::{Exit, Failure, Output, Reach};
use statefs_client::Client;

use crate::{
    About, Dump, Error, Id, Keep, Listing, about, copy, list, open, prune, record, remove,
};

/// Keep the last crash dumps of this machine in StateFS.
///
/// A dump is kept whole or not at all. The oldest are given up once a new one is there.
#[derive(Parser, Debug)]
#[command(name = "crashd", version, verbatim_doc_comment, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    reach: Reach,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Take a dump in and print its name
    ///
    /// As a handler of cores: kernel.core_pattern = |/usr/bin/crashd record --program %e --time %t
    #[command(verbatim_doc_comment)]
    Record {
        /// The dump; `-` reads standard input
        #[arg(default_value = "-")]
        path: PathBuf,
        /// What crashed, as it called itself
        #[arg(long, value_name = "NAME", default_value = "", allow_hyphen_values = true)]
        program: OsString,
        /// When that was, in seconds since 1970
        #[arg(long, value_name = "SECONDS", default_value = "0")]
        time: u64,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// List the dumps, oldest first: name, bytes, time, what crashed
    List,
    /// Write a dump to standard output, its bytes and nothing else
    Read {
        /// Its name
        id: Id,
    },
    /// Give up lost dumps, then the oldest, until the rest is within bounds, and print their names
    Prune {
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Remove one dump
    Delete {
        /// Its name
        id: Id,
    },
}

#[derive(Args, Debug)]
struct KeepArgs {
    /// How many dumps are kept
    #[arg(long, value_name = "COUNT", default_value = "4")]
    keep: NonZeroUsize,
    /// How many bytes they may have together, such as 16777216 or 16M
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = bytes)]
    keep_bytes: u64,
}

impl KeepArgs {
    fn keep(&self) -> Keep {
        Keep { dumps: self.keep.get(), bytes: self.keep_bytes }
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failure, 2 usage, 3 no such dump, 5 denied, 6 a dump is lost, or may be,
7 unavailable, 8 no space, quota, or a dump larger than --keep-bytes, 9 indeterminate: `crashd list`
tells";

/// Runs the program with these arguments, the first being its name, and yields its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    statefs_cli::program("crashd", arguments, |cli: &Cli| &cli.reach, run)
}

fn run(cli: Cli, mut output: Output) -> Result<(), Failure> {
    let client = Client::connect(cli.reach.socket())?;
    let out = &mut output;
    match cli.verb {
        Verb::Record { path, program, time, keep } => {
            take_in(
                &client,
                &path,
                &About::new(&program.to_string_lossy(), time),
                keep.keep(),
                out,
            )?;
        }
        Verb::List => {
            // What was found is printed, whatever is lost.
            let lost = print_list(&client, out)?;
            output.finish()?;
            return lost.map_or(Ok(()), Err);
        }
        Verb::Read { id } => {
            let crash = open(&client.calls());
            let stopped = RefCell::new(None);
            let copied = client.run(copy(&crash, id, |part| {
                out.bytes(part).map_err(|failure| drop(stopped.replace(Some(failure))))
            }));
            if let Some(failure) = stopped.take() {
                return Err(failure);
            }
            copied.map_err(failure)?;
        }
        Verb::Prune { keep } => {
            let crash = open(&client.calls());
            let given_up = client.run(prune(&crash, keep.keep())).map_err(failure)?;
            for id in given_up {
                out.either(&json!({"id": id.to_string()}), &id.to_string())?;
            }
        }
        Verb::Delete { id } => {
            let crash = open(&client.calls());
            client.run(remove(&crash, id)).map_err(failure)?;
        }
    }
    output.finish()
}

fn take_in(
    client: &Client,
    path: &Path,
    about: &About,
    keep: Keep,
    output: &mut Output,
) -> Result<(), Failure> {
    let (mut source, bytes) = source(path)?;
    let mut nonce = [0; 4];
    getrandom(&mut nonce, GetRandomFlags::empty())
        .map_err(|error| Failure::new("NO_ENTROPY", Exit::Failure, error))?;
    let why = RefCell::new(String::new());
    let read = |buffer: &mut [u8]| loop {
        match source.read(buffer) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                why.replace(error.to_string());
                return Err(());
            }
        }
    };
    let store = client.calls();
    let nonce = u32::from_le_bytes(nonce);
    let recorded = client.run(record(&store, about, nonce, keep, bytes, read));
    let recorded = recorded.map_err(|error| match error {
        Error::Source => {
            let why = why.take();
            let failure = failure(Error::Source);
            if why.is_empty() { failure } else { failure.about(why) }.about(path.display())
        }
        error => failure(error),
    })?;
    let given_up: Vec<_> = recorded.given_up.iter().map(Id::to_string).collect();
    let id = recorded.id.to_string();
    output.either(&json!({"bytes": recorded.bytes, "givenUp": given_up, "id": id}), &id)
}

/// Opens a dump; its size is known only of a file.
fn source(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| {
        Failure::new("INPUT", Exit::Failure, format!("{}: {error}", path.display()))
    })?;
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

/// Prints the dumps; yields what to tell if that is not all of what was kept.
fn print_list(client: &Client, output: &mut Output) -> Result<Option<Failure>, Failure> {
    let crash = open(&client.calls());
    let mut lost = None;
    let Listing { dumps, intact } = client.run(list(&crash)).map_err(failure)?;
    for Dump { id, bytes } in dumps {
        let about = match client.run(about(&crash, id)) {
            Ok(about) => Some(about),
            // Somebody gave it up meanwhile.
            Err(Error::Absent(_)) => continue,
            Err(Error::Foreign(_)) => None,
            Err(Error::Store(statefs_client::Error::DataLoss)) => {
                lost = Some(id);
                None
            }
            Err(error) => return Err(failure(error)),
        };
        let (name, time) = about.as_ref().map_or(("", 0), |about| (about.name(), about.time()));
        let object = json!({
            "bytes": bytes,
            "dataLoss": lost == Some(id),
            "id": id.to_string(),
            "program": name,
            "time": time,
        });
        let size = bytes.map_or_else(|| "DATA_LOSS".into(), |bytes| bytes.to_string());
        output.either(&object, &format!("{id}  {size:>9}  {time:>10}  {name}"))?;
    }
    let loss =
        |message, advice| Some(Failure::new("DATA_LOSS", Exit::DataLoss, message).advise(advice));
    Ok(match lost {
        Some(id) => {
            let message = format!("{id}: the store cannot read it back");
            loss(message, "`statefs image salvage` may still find it; `crashd delete` removes it")
        }
        None if !intact => loss(
            "dumps may be missing from this list".into(),
            "it stays so until `statefs image salvage` has made a new volume of this one",
        ),
        None => None,
    })
}

fn failure(error: Error) -> Failure {
    let exit = match &error {
        Error::Store(_) | Error::Source | Error::Sink | Error::Foreign(_) => Exit::Failure,
        Error::TooLarge { .. } => Exit::Full,
        Error::Absent(_) => Exit::Absent,
    };
    match error {
        Error::Store(error) => Failure::from(error),
        Error::TooLarge { .. } => {
            Failure::new(error.code(), exit, error).advise("raise --keep-bytes, within the quota")
        }
        Error::Absent(_) => {
            Failure::new(error.code(), exit, error).advise("`crashd list` names the dumps")
        }
        error => Failure::new(error.code(), exit, error),
    }
}

/// Reads a number of bytes with a unit, K, M or G, of powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let wrong = || format!("{text} is no number of bytes, such as 16M");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}
