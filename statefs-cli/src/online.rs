//! The verbs that reach a daemon.

mod admin;
mod commit;
mod figures;
mod progress;
mod stat;
mod usage;
mod value;

use std::io;
use std::path::PathBuf;

use policy::Prefix;
use serde_json::json;
use statefs_client::blocking::Directory;
use statefs_client::{Client, Entry, Held, ListOptions, Rights};

use crate::args::OnlineVerb;
use crate::base64;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::program::Format;

/// Every key lies below it. Verbs open it whole: the policy decides on each key all the same, and a
/// caller with any grant may open it.
const ROOT: &str = "/state";

/// What this program calls itself to the daemon.
const NAME: &str = concat!("statefs ", env!("CARGO_PKG_VERSION"));

/// Runs a verb against the daemon.
pub(crate) fn run(verb: OnlineVerb, socket: PathBuf, mut output: Output) -> Result<(), Failure> {
    let online = Online { socket };
    let out = &mut output;
    match verb {
        OnlineVerb::Put(arguments) => {
            let told = online.put(arguments, out).and_then(|()| output.finish());
            return told.map_err(|failure| failure.once_done("the value was written"));
        }
        OnlineVerb::Get { key } => online.get(&key, out)?,
        OnlineVerb::Delete { key } => {
            let told = online.delete(&key, out).and_then(|()| output.finish());
            return told.map_err(|failure| failure.once_done("the key was deleted"));
        }
        OnlineVerb::List { prefix, keys_only } => {
            // What was found is printed, whatever is missing.
            let listed = online.list(&prefix, keys_only, out);
            output.finish()?;
            return listed;
        }
        OnlineVerb::Sync => online.sync(out)?,
        OnlineVerb::Health => {
            let told = online.health(out);
            output.finish()?;
            return told;
        }
        OnlineVerb::Whoami => online.whoami(out)?,
        OnlineVerb::Stat { key: Some(key) } => online.stat_key(&key, out)?,
        OnlineVerb::Stat { key: None } => online.stat(out)?,
        OnlineVerb::Commit(arguments) => {
            let told = online.commit(&arguments, out).and_then(|()| output.finish());
            return told.map_err(|failure| failure.once_done("all changes were made"));
        }
        OnlineVerb::Usage { prefix } => online.usage(&prefix, out)?,
        OnlineVerb::Audit(arguments) => {
            let told = online.audit(&arguments, out);
            output.finish()?;
            return told;
        }
        OnlineVerb::Admin(verb) => {
            let told = online.admin(&verb, out);
            output.finish()?;
            return told;
        }
    }
    output.finish()
}

struct Online {
    socket: PathBuf,
}

impl Online {
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket)?)
    }

    fn directory(&self, rights: Rights) -> Result<Directory, Failure> {
        Ok(self.client()?.directory(ROOT, rights))
    }

    fn delete(&self, key: &str, output: &mut Output) -> Result<(), Failure> {
        let relative = relative(key)?;
        let deleted = self.directory(Rights::DELETE)?.delete(relative);
        if !deleted.map_err(|error| of_key(error.into(), key))? {
            return Err(absent(key));
        }
        match output.format {
            Format::Json => output.json(&json!({"deleted": true, "key": key})),
            Format::Text => Ok(()),
        }
    }

    fn list(&self, prefix: &str, keys_only: bool, output: &mut Output) -> Result<(), Failure> {
        let relative = beneath(prefix)?;
        // Text shows no values, so it asks for none.
        let values = output.format == Format::Json && !keys_only;
        let rights = if values { Rights::LIST | Rights::GET } else { Rights::LIST };
        let options = ListOptions {
            prefix: relative.to_owned(),
            keys_only: !values,
            ..ListOptions::default()
        };
        let directory = self.directory(rights)?;
        let mut list = directory.list(options);
        let mut damaged_count = 0u64;
        for entry in list.by_ref() {
            let entry = entry.map_err(|error| of_key(error.into(), prefix))?;
            damaged_count += u64::from(entry.held == Held::DataLoss);
            print_entry(&entry, keys_only, values, output)?;
        }
        if list.is_intact() {
            return Ok(());
        }
        let loss = match damaged_count {
            0 => format!("{prefix}: keys may be missing from this list"),
            1 => format!("{prefix}: 1 key is damaged, and others may be missing"),
            count => format!("{prefix}: {count} keys are damaged, and others may be missing"),
        };
        Err(Failure::new("DATA_LOSS", Exit::DataLoss, loss))
    }

    fn sync(&self, output: &mut Output) -> Result<(), Failure> {
        self.directory(Rights::NONE)?.sync()?;
        match output.format {
            Format::Json => output.json(&json!({"durable": true})),
            Format::Text => Ok(()),
        }
    }
}

fn print_entry(
    entry: &Entry,
    keys_only: bool,
    values: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let key = format!("{ROOT}/{}", entry.key);
    let (value, json) = (&entry.held, output.format == Format::Json);
    match value {
        Held::DataLoss if json => output.json(&json!({"dataLoss": true, "key": key})),
        Held::Value(value) if json => {
            let version = value.version.to_string();
            let mut object = json!({"bytes": value.bytes, "key": key, "version": version});
            if let (true, Some(fields)) = (values, object.as_object_mut()) {
                fields.insert("value".into(), base64::encode(&value.data).into());
            }
            output.json(&object)
        }
        Held::Large(value) if json => {
            let version = value.version.to_string();
            let bytes = value.bytes;
            output.json(&json!({"bytes": bytes, "key": key, "large": true, "version": version}))
        }
        value => {
            let key = output.shown(&key);
            output.line(&match value {
                _ if keys_only => key.into_owned(),
                Held::DataLoss => format!("{:<16}  {:>8}  {key}", "DATA_LOSS", "-"),
                Held::Value(value) => format!("{}  {:>8}  {key}", value.version, value.bytes),
                Held::Large(value) => format!("{}  {:>8}  {key}", value.version, value.bytes),
            })
        }
    }
}

/// Names the key that a failure is about. The daemon counts bytes of a key from its directory on, and people those of the
/// key that they see.
fn of_key(failure: Failure, key: &str) -> Failure {
    let failure = match Prefix::parse(key) {
        Err(wrong) if wrong.code() == failure.code => {
            Failure { message: wrong.to_string(), ..failure }
        }
        _ => failure,
    };
    failure.about(key)
}

/// Takes the root off a whole key.
fn relative(key: &str) -> Result<&str, Failure> {
    let relative = key.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/'));
    relative.ok_or_else(|| {
        let shown = if key.is_empty() { "an empty key" } else { key };
        Failure::new(
            "INVALID_KEY",
            Exit::Failure,
            format!("{shown}: it does not lie below {ROOT}/"),
        )
    })
}

/// Takes the root off a key that stands for what lies beneath it, too; the root alone is everything.
fn beneath(prefix: &str) -> Result<&str, Failure> {
    if prefix == ROOT {
        return Ok("");
    }
    let relative = relative(prefix)?;
    // To the daemon nothing is everything, and it never sees the slash.
    if relative.is_empty() {
        let message = format!("{prefix}: a path does not end in a slash");
        return Err(Failure::new("INVALID_KEY", Exit::Failure, message));
    }
    Ok(relative)
}

fn absent(key: &str) -> Failure {
    Failure::new("ABSENT", Exit::Absent, format!("there is no key {key}"))
}

fn input_failed(name: &str, error: &io::Error) -> Failure {
    use io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    let failure = Failure::new("INPUT", Exit::Failure, format!("{name}: {error}"));
    match error.kind() {
        NotFound | PermissionDenied | IsADirectory => {
            failure.advise("name a file that can be read, or `-` for standard input")
        }
        _ => failure,
    }
}
