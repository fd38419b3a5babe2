//! `statefs commit`: a batch of changes from a file, of which all happen or none.
//!
//! Each line of the file is a JSON object; what each may hold is told by the verb's help.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use policy::Key;
use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value as Json, json};
use statefs_client::{Batch, Durability, Error, Precondition, Rights, Token, Version};

use super::{Online, input_failed, relative};
use crate::args::CommitArgs;
use crate::base64;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Bytes of a file that are read: more than any daemon takes, however the values are written.
const FILE_BYTES_MAX: u64 = 16 << 20;

impl Online {
    pub(super) fn commit(
        &self,
        arguments: &CommitArgs,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let CommitArgs { file, token, buffered, strict } = arguments;
        let name = if file == Path::new("-") {
            "standard input".into()
        } else {
            file.display().to_string()
        };
        let changes = parse(&name, &read(file, &name)?)?;
        let mut batch = Batch::new();
        batch.durability(match (buffered, strict) {
            (true, _) => Durability::Buffered,
            (false, true) => Durability::Strict,
            (false, false) => Durability::Durable,
        });
        if let Some(token) = token {
            batch.token(Token(token.0));
        }
        let mut rights = Rights::NONE;
        for change in &changes {
            change.push(&mut batch, &mut rights)?;
        }
        let versions = self.directory(rights)?.commit(&batch).map_err(|error| {
            let index = match &error {
                Error::BatchConflict { index, .. } | Error::BatchDataLoss { index } => Some(*index),
                _ => None,
            };
            let failure = Failure::from(error);
            match index.and_then(|index| changes.get(index)) {
                Some(Change { line, key, .. }) => failure.about(format!("{name}:{line}: {key}")),
                None => failure.about(&name),
            }
        })?;
        for (Change { key, .. }, version) in changes.iter().zip(versions) {
            match version.map(|version| version.to_string()) {
                Some(version) => {
                    let object = json!({"key": key, "version": version});
                    let text = format!("{version}  {}", output.shown(key));
                    output.either(&object, &text)?;
                }
                None => {
                    let object = json!({"deleted": true, "key": key});
                    let text = format!("{:<16}  {}", "deleted", output.shown(key));
                    output.either(&object, &text)?;
                }
            }
        }
        Ok(())
    }
}

/// One change, and the line that it stands on.
struct Change {
    line: usize,
    key: String,
    /// `None` deletes.
    value: Option<Vec<u8>>,
    precondition: Precondition,
}

impl Change {
    /// Adds it to a batch, and what it needs to the rights.
    fn push(&self, batch: &mut Batch, rights: &mut Rights) -> Result<(), Failure> {
        let key = relative(&self.key)?;
        if self.precondition != Precondition::Any {
            *rights |= Rights::GET;
        }
        match &self.value {
            Some(value) => {
                *rights |= Rights::PUT;
                batch.put_if(key, value, self.precondition);
            }
            None => {
                *rights |= Rights::DELETE;
                batch.delete_if(key, self.precondition);
            }
        }
        Ok(())
    }
}

/// Reads the whole file, or standard input.
fn read(file: &Path, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let mut take =
        |source: &mut dyn Read| source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = if file == Path::new("-") {
        let mut stdin = io::stdin().lock();
        if stdin.is_terminal() {
            let message = "no batch: name a file, or pipe it in";
            return Err(Failure::new("USAGE", Exit::Usage, message));
        }
        take(&mut stdin)
    } else {
        File::open(file).and_then(|mut file| take(&mut file))
    };
    read.map_err(|error| input_failed(name, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{name}: it has more than {FILE_BYTES_MAX} bytes");
        return Err(Failure::new("INPUT", Exit::Failure, message));
    }
    Ok(text)
}

/// Reads the changes, each from a line of its own; empty lines are none.
fn parse(name: &str, text: &str) -> Result<Vec<Change>, Failure> {
    let mut changes: Vec<Change> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        let fault = |what: String| {
            Failure::new("INVALID_BATCH", Exit::Failure, format!("{name}:{line}: {what}"))
        };
        let change = change(line, text).map_err(fault)?;
        // The daemon would refuse the batch, and not say for which of its operations.
        Key::parse(&change.key).map_err(|error| {
            let failure = Failure::new(error.code(), Exit::Failure, error);
            failure.about(format!("{name}:{line}: {}", change.key))
        })?;
        if let Some(first) = places.insert(change.key.clone(), line) {
            return Err(fault(format!("{} stands on line {first} already", change.key)));
        }
        changes.push(change);
    }
    if changes.is_empty() {
        let message = format!("{name}: there is no change in it");
        return Err(Failure::new("INVALID_BATCH", Exit::Failure, message));
    }
    Ok(changes)
}

/// Reads one line. What it says of a fault names no value.
fn change(line: usize, text: &str) -> Result<Change, String> {
    let mut fields = fields(text)?;
    let key = text_field(&mut fields, "key")?.ok_or("the field \"key\" is missing")?;
    relative(&key).map_err(|failure| failure.message)?;
    let plain = text_field(&mut fields, "text")?.map(String::into_bytes);
    let coded = match text_field(&mut fields, "value")? {
        Some(coded) => Some(base64::decode(&coded).ok_or("\"value\" is no base64")?),
        None => None,
    };
    let delete = true_field(&mut fields, "delete")?;
    let absent = true_field(&mut fields, "ifAbsent")?;
    let version = match text_field(&mut fields, "ifVersion")? {
        Some(version) => {
            Some(version.parse::<Version>().map_err(|error| format!("\"ifVersion\": {error}"))?)
        }
        None => None,
    };
    if let Some(unknown) = fields.keys().next() {
        return Err(format!(
            "the field {unknown:?} is none of key, text, value, delete, ifAbsent, ifVersion"
        ));
    }
    let value = match (plain, coded, delete) {
        (Some(value), None, false) | (None, Some(value), false) => Some(value),
        (None, None, true) => None,
        _ => return Err("it needs one of \"text\", \"value\" (base64) and \"delete\"".into()),
    };
    let precondition = match (absent, version) {
        (false, None) => Precondition::Any,
        (true, None) => Precondition::Absent,
        (false, Some(version)) => Precondition::Version(version),
        (true, Some(_)) => return Err("\"ifAbsent\" and \"ifVersion\" exclude each other".into()),
    };
    Ok(Change { line, key, value, precondition })
}

/// Reads the fields of a line. None may occur twice: all but the last would be passed over, a precondition among them.
fn fields(text: &str) -> Result<Map<String, Json>, String> {
    let Pairs(pairs) = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => "no JSON object".into(),
        _ => {
            let (cause, column) = (cause(&error), error.column());
            format!("no JSON object of one line: {cause}, at column {column}")
        }
    })?;
    let mut fields = Map::new();
    for (name, value) in pairs {
        if fields.contains_key(&name) {
            return Err(format!("the field {name:?} occurs twice"));
        }
        fields.insert(name, value);
    }
    Ok(fields)
}

/// The fields of an object as they are written, where a map keeps the last of each name.
struct Pairs(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(OfPairs)
    }
}

struct OfPairs;

impl<'de> Visitor<'de> for OfPairs {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = from.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

fn text_field(fields: &mut Map<String, Json>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name:?} is no string")),
    }
}

fn true_field(fields: &mut Map<String, Json>, name: &str) -> Result<bool, String> {
    match fields.remove(name) {
        None => Ok(false),
        Some(Json::Bool(true)) => Ok(true),
        Some(_) => Err(format!("{name:?} is either true or left out")),
    }
}

fn cause(error: &serde_json::Error) -> &'static str {
    if error.is_eof() { "it ends too early" } else { "it is malformed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse("f", text).err().expect(text).message
    }

    #[test]
    fn changes_are_read() {
        let text = "{\"key\":\"/state/a\",\"text\":\"gr\\u00fcn\"}\n\n\
                    {\"key\":\"/state/b\",\"value\":\"AAH/\",\"ifAbsent\":true}\r\n\
                    {\"key\":\"/state/c\",\"delete\":true,\"ifVersion\":\"00000000000000aa\"}";
        let changes = parse("f", text).expect("sound");
        let told: Vec<_> = changes
            .iter()
            .map(|change| (change.line, &*change.key, change.value.as_deref(), change.precondition))
            .collect();
        let version = "00000000000000aa".parse().expect("a version");
        assert_eq!(
            told,
            [
                (1, "/state/a", Some("grün".as_bytes()), Precondition::Any),
                (3, "/state/b", Some(&[0, 1, 255][..]), Precondition::Absent),
                (4, "/state/c", None, Precondition::Version(version)),
            ]
        );
    }

    #[test]
    fn faults_name_their_line_and_no_value() {
        for (line, told) in [
            (
                "{\"key\":\"/state/a\",\"text\":\"secret\"",
                "f:2: no JSON object of one line: it ends",
            ),
            (
                "{\"key\":\"/state/a\" \"text\":\"secret\"}",
                "f:2: no JSON object of one line: it is",
            ),
            ("[1]", "f:2: no JSON object"),
            ("{\"text\":\"secret\"}", "f:2: the field \"key\" is missing"),
            ("{\"key\":7}", "f:2: \"key\" is no string"),
            ("{\"key\":\"a\",\"text\":\"secret\"}", "f:2: a: it does not lie below /state/"),
            ("{\"key\":\"/state/a\"}", "f:2: it needs one of"),
            ("{\"key\":\"/state/a\",\"text\":\"secret\",\"delete\":true}", "f:2: it needs one of"),
            ("{\"key\":\"/state/a\",\"text\":\"secret\",\"value\":\"\"}", "f:2: it needs one of"),
            ("{\"key\":\"/state/a\",\"value\":\"secret!\"}", "f:2: \"value\" is no base64"),
            ("{\"key\":\"/state/a\",\"delete\":false}", "f:2: \"delete\" is either true or left"),
            ("{\"key\":\"/state/a\",\"delete\":true,\"ifVersion\":\"1\"}", "f:2: \"ifVersion\": "),
            (
                "{\"key\":\"/state/a\",\"version\":\"1\",\"delete\":true}",
                "f:2: the field \"version\"",
            ),
            (
                "{\"key\":\"/state/a\",\"text\":\"secret\",\"key\":\"/state/b\"}",
                "f:2: the field \"key\" occurs twice",
            ),
            (
                "{\"key\":\"/state/a\",\"delete\":true,\"ifVersion\":\"00000000000000aa\",\
                 \"ifVersion\":\"00000000000000ab\"}",
                "f:2: the field \"ifVersion\" occurs twice",
            ),
            ("{\"key\":\"/state/first\",\"delete\":true}", "f:2: /state/first stands on line 1"),
            (
                "{\"key\":\"/state/a\",\"delete\":true,\"ifAbsent\":true,\
                 \"ifVersion\":\"00000000000000aa\"}",
                "f:2: \"ifAbsent\" and",
            ),
        ] {
            let fault = fault(&format!("{{\"key\":\"/state/first\",\"text\":\"1\"}}\n{line}"));
            assert!(fault.starts_with(told), "{line}: {fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
        assert_eq!(fault("\n \n"), "f: there is no change in it");
    }
}
