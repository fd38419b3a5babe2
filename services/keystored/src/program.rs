//! The program `keystored`: what an init system runs once at boot, and other programs to sign.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use statefs_cli::{Exit, Failure, Output, Reach};
use statefs_client::Client;
use zeroize::Zeroizing;

use crate::{DeviceKey, Ensured, Entropy, Error, KEY, PREFIX, ensure, find, open, replace};

/// Keep this machine's device key in StateFS, and sign with it.
///
/// The secret never leaves: no verb prints it. Public keys and signatures are hexadecimal.
#[derive(Parser, Debug)]
#[command(name = "keystored", version, verbatim_doc_comment, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    reach: Reach,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print the public key; make the key first if there never was one
    ///
    /// A key that is damaged is not made anew: this fails with 6 until `replace`.
    #[command(verbatim_doc_comment)]
    Ensure,
    /// Print the public key
    Public,
    /// Print the signature of a file
    Sign {
        /// The file; `-` reads standard input
        path: PathBuf,
    },
    /// Make a new key in the place of a damaged one: the machine gets another identity
    Replace {
        /// Say so: what the old key signed or opened is lost with it
        #[arg(long, required = true)]
        give_up_the_old_key: bool,
    },
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failure, 2 usage, 3 no key was made yet, 4 the key is well and is not replaced,
5 denied, 6 the key is damaged, 7 unavailable, 8 no space, 9 indeterminate: run it again";

/// Runs the program with these arguments, the first being its name, and yields its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    statefs_cli::program("keystored", arguments, |cli: &Cli| &cli.reach, run)
}

fn run(cli: Cli, mut output: Output) -> Result<(), Failure> {
    harden()?;
    let client = Client::connect(cli.reach.socket())?;
    let keystore = open(&client.calls());
    let out = &mut output;
    match cli.verb {
        Verb::Ensure => {
            let entropy = entropy()?;
            let (key, ensured) = client.run(ensure(&keystore, &entropy)).map_err(failure)?;
            print_public(&key, Some(ensured), out)?;
        }
        Verb::Public => {
            let key = client.run(find(&keystore)).map_err(failure)?.ok_or_else(no_key)?;
            print_public(&key, None, out)?;
        }
        Verb::Sign { path } => {
            let message = read(&path)?;
            let key = client.run(find(&keystore)).map_err(failure)?.ok_or_else(no_key)?;
            let (public, signature) = (hex(&key.public()), hex(&key.sign(&message)));
            out.either(&json!({"public": public, "signature": signature}), &signature)?;
        }
        Verb::Replace { give_up_the_old_key: _ } => {
            let entropy = entropy()?;
            let key = client.run(replace(&keystore, &entropy)).map_err(failure)?;
            print_public(&key, Some(Ensured::Made), out)?;
        }
    }
    output.finish()
}

fn print_public(
    key: &DeviceKey,
    ensured: Option<Ensured>,
    output: &mut Output,
) -> Result<(), Failure> {
    let public = hex(&key.public());
    let object = match ensured {
        Some(ensured) => json!({"made": ensured == Ensured::Made, "public": public}),
        None => json!({"public": public}),
    };
    output.either(&object, &public)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Store(error) => Failure::from(error).about(record()),
        Error::Damaged(_) => Failure::new(error.code(), Exit::DataLoss, error).advise(
            "restore it from a backup with `statefs put`; `keystored replace` makes a new one, which \
             nobody knows yet",
        ),
        Error::NoEntropy => Failure::new(error.code(), Exit::Failure, error),
        Error::Intact => Failure::new(error.code(), Exit::Conflict, error),
    }
}

fn no_key() -> Failure {
    Failure::new("ABSENT", Exit::Absent, format!("there is no key {}", record()))
        .advise("`keystored ensure` makes it")
}

fn record() -> String {
    format!("{PREFIX}/{KEY}")
}

/// Keeps the key out of core dumps and of the reach of other processes of the same user, before there is one. That no dump
/// may have any bytes does not do: a kernel that pipes dumps to a program, such as `crashd`, does not ask for that bound.
fn harden() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| Failure::new("NOT_HARDENED", Exit::Failure, error))
}

/// Asks the kernel, which waits until it has collected enough.
fn entropy() -> Result<Entropy, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    let got = getrandom(&mut *bytes, GetRandomFlags::empty());
    if !matches!(got, Ok(32)) {
        return Err(failure(Error::NoEntropy));
    }
    Entropy::new(*bytes).map_err(failure)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| {
        Failure::new("INPUT", Exit::Failure, format!("{}: {error}", path.display()))
    };
    let source: &mut dyn io::Read = if path == "-" {
        &mut io::stdin().lock()
    } else {
        &mut File::open(path).map_err(failed)?
    };
    let mut message = vec![];
    source.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut message).map_err(failed)?;
    if message.len() as u64 > MESSAGE_BYTES_MAX {
        let most = format!("{}: more than {MESSAGE_BYTES_MAX} bytes", path.display());
        return Err(Failure::new("INPUT", Exit::Failure, most).advise("sign its digest"));
    }
    Ok(message)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a message that are signed: it is read twice, so all of it is held.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{dumpable_behavior, getrlimit};

    #[test]
    fn no_core_is_dumped_of_who_holds_a_key() {
        assert!(harden().is_ok());
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
