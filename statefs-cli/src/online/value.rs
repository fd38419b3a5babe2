//! `statefs put` and `get`: values of any size, in one call or as a stream.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;
use statefs_client::blocking::{Directory, Reader};
use statefs_client::{
    Client, Durability, Error, Feature, Precondition, Rights, Value, Version, WriteOptions,
};

use super::progress::Progress;
use super::{NAME, Online, ROOT, absent, input_failed, of_key, relative};
use crate::args::PutArgs;
use crate::base64;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::program::Format;

/// Bytes of a value that are looked at before it is known whether it goes in one call.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// Bytes of a value that every daemon takes in one call, whatever its volume: no need to ask.
const SMALL_BYTES: usize = 4096;

/// Bytes of a stream that are passed on at a time: whole groups of base64.
const PART_BYTES: usize = 48 << 10;

/// Bytes of a value that are sent to a daemon without streams, to be refused in its words.
const REFUSED_BYTES_MAX: u64 = (1 << 20) + 1;

impl Online {
    pub(super) fn put(&self, arguments: PutArgs, output: &mut Output) -> Result<(), Failure> {
        let PutArgs { key, value, if_absent, if_version, buffered, strict } = arguments;
        let relative = relative(&key)?;
        let input = Input::open(value)?;
        let precondition = match if_version {
            Some(version) => Precondition::Version(version),
            None if if_absent => Precondition::Absent,
            None => Precondition::Any,
        };
        let durability = match (buffered, strict) {
            (true, _) => Durability::Buffered,
            (false, true) => Durability::Strict,
            (false, false) => Durability::Durable,
        };
        let options = WriteOptions { precondition, durability };
        // Refused beforehand rather than by the policy, so that the right is asked for only if used.
        let rights = match precondition {
            Precondition::Any => Rights::PUT,
            Precondition::Absent | Precondition::Version(_) => Rights::PUT | Rights::GET,
        };
        let client = self.client()?;
        let directory = client.directory(ROOT, rights);
        let version = store(&client, &directory, relative, input, options);
        let version = version.map_err(|failure| of_key(failure, &key))?.to_string();
        output.either(&json!({"key": key, "version": version}), &version)
    }

    pub(super) fn get(&self, key: &str, output: &mut Output) -> Result<(), Failure> {
        let relative = relative(key)?;
        let directory = self.directory(Rights::GET)?;
        match directory.get(relative) {
            Ok(Some(value)) => print_value(key, &value, output),
            Ok(None) => Err(absent(key)),
            Err(Error::Large(_)) => {
                let reader = directory.reader(relative);
                let reader = reader.map_err(|error| Failure::from(error).about(key))?;
                print_stream(key, reader.ok_or_else(|| absent(key))?, output)
                    .map_err(|failure| failure.about(key))
            }
            Err(error) => Err(of_key(error.into(), key)),
        }
    }
}

/// Writes a value in one call if the daemon takes it so, else as a stream.
fn store(
    client: &Client,
    directory: &Directory,
    key: &str,
    mut input: Input,
    options: WriteOptions,
) -> Result<Version, Failure> {
    if input.rest.is_some() || input.head.len() > SMALL_BYTES {
        let hello = client.hello_as(NAME)?;
        let one_call = hello.limits.value_bytes as usize;
        if input.rest.is_some() || input.head.len() > one_call {
            if hello.serves(Feature::Streams) {
                return stream(directory, key, input, options);
            }
            input.read_on()?;
        }
    }
    Ok(directory.put_with(key, &input.head, options)?)
}

fn stream(
    directory: &Directory,
    key: &str,
    input: Input,
    options: WriteOptions,
) -> Result<Version, Failure> {
    let Input { name, head, rest, bytes } = input;
    let bytes = if rest.is_some() { bytes } else { Some(head.len() as u64) };
    let mut writer = directory.writer(key, bytes, options);
    let mut progress = Progress::new(&format!("{ROOT}/{key}"), bytes);
    let mut source = head.chain(rest.unwrap_or_else(|| Box::new(io::empty())));
    let mut part = vec![0; PART_BYTES];
    loop {
        let count = match source.read(&mut part) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input_failed(&name, &error)),
        };
        writer.write_all(part.get(..count).unwrap_or_default()).map_err(stream_failed)?;
        progress.add(count as u64);
    }
    Ok(writer.finish()?)
}

/// Takes the error of a call out of that of a stream.
fn stream_failed(error: io::Error) -> Failure {
    match error.downcast::<Error>() {
        Ok(error) => error.into(),
        Err(error) => Failure::new("PROTOCOL", Exit::Failure, error),
    }
}

fn print_value(key: &str, value: &Value, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Text => output.bytes(&value.data),
        Format::Json => output.json(&json!({
            "bytes": value.bytes,
            "key": key,
            "value": base64::encode(&value.data),
            "version": value.version.to_string(),
        })),
    }
}

/// Prints a value part by part, in the form of [`print_value`], without holding all of it.
fn print_stream(key: &str, mut reader: Reader, output: &mut Output) -> Result<(), Failure> {
    let metadata = reader.metadata();
    let json = output.format == Format::Json;
    if json {
        let key = output.shown_json(&json!(key));
        output.bytes(
            format!("{{\"bytes\":{},\"key\":{key},\"value\":\"", metadata.bytes).as_bytes(),
        )?;
    }
    let mut progress = Progress::new(key, Some(metadata.bytes));
    let mut part = Vec::with_capacity(PART_BYTES);
    loop {
        part.clear();
        let taken = reader.by_ref().take(PART_BYTES as u64).read_to_end(&mut part);
        taken.map_err(stream_failed)?;
        if part.is_empty() {
            break;
        }
        match json {
            true => output.bytes(base64::encode(&part).as_bytes())?,
            false => output.bytes(&part)?,
        }
        progress.add(part.len() as u64);
    }
    if json {
        output.bytes(format!("\",\"version\":\"{}\"}}\n", metadata.version).as_bytes())?;
    }
    Ok(())
}

/// A value on its way in: its beginning, and what follows if it is longer.
struct Input {
    name: String,
    head: Vec<u8>,
    rest: Option<Box<dyn Read>>,
    /// How long it is in all, as far as that is known.
    bytes: Option<u64>,
}

impl Input {
    fn open(argument: Option<OsString>) -> Result<Self, Failure> {
        let argument = argument.unwrap_or_else(|| "-".into());
        if argument == "-" {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                let message = "no value: name one, or pipe it in";
                return Err(Failure::new("USAGE", Exit::Usage, message));
            }
            return Self::read("standard input".into(), Box::new(stdin), None);
        }
        let Some(path) = argument.as_bytes().strip_prefix(b"@") else {
            let head = argument.into_encoded_bytes();
            return Ok(Self { name: "the value".into(), head, rest: None, bytes: None });
        };
        let path = Path::new(OsStr::from_bytes(path));
        if path.as_os_str().is_empty() {
            let message = "no file is named behind @; a value that is an @ comes through `-`";
            return Err(Failure::new("USAGE", Exit::Usage, message));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| input_failed(&name, &error))?;
        let metadata = file.metadata().map_err(|error| input_failed(&name, &error))?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Self::read(name, Box::new(file), bytes)
    }

    fn read(name: String, mut source: Box<dyn Read>, bytes: Option<u64>) -> Result<Self, Failure> {
        let mut head = Vec::new();
        let read = source.by_ref().take(HEAD_BYTES_MAX + 1).read_to_end(&mut head);
        read.map_err(|error| input_failed(&name, &error))?;
        let rest = (head.len() as u64 > HEAD_BYTES_MAX).then_some(source);
        Ok(Self { name, head, rest, bytes })
    }

    /// Reads as much more as it takes to be refused.
    fn read_on(&mut self) -> Result<(), Failure> {
        let Self { name, head, rest, .. } = self;
        if let Some(rest) = rest {
            let read = rest.take(REFUSED_BYTES_MAX).read_to_end(head);
            read.map_err(|error| input_failed(name, &error))?;
        }
        Ok(())
    }
}
