//! `statefs image import`.

mod nexus;

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use journal::FormatOptions;
use policy::Key;
use serde_json::json;

use super::facts::{key_json, key_text};
use super::fill::Fill;
use crate::args::{ImportArgs, Origin};
use crate::failure::{Exit, Failure, counted};
use crate::output::Output;

/// Least bytes of the new image: there the longest values fit.
const SIZE_MIN: u64 = 16 << 20;
/// Longest value that a volume takes in one record.
const VALUE_BYTES_MAX: usize = 65_536;

/// Reads the whole image. What has no end, or waits for somebody, is none.
fn read(src: &Path) -> Result<Vec<u8>, Failure> {
    let none = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new("DENIED", Exit::Denied, error),
        _ => Failure::new("NO_IMAGE", Exit::Failure, error).advise(""),
    };
    let found = fs::metadata(src).map_err(none)?;
    if !found.is_file() && !found.file_type().is_block_device() {
        let message = "it is neither a regular file nor a block device";
        return Err(Failure::new("NOT_STORAGE", Exit::Failure, message));
    }
    fs::read(src).map_err(none)
}

/// Imports the image that was named.
pub(crate) fn import(arguments: &ImportArgs, mut output: Output) -> Result<(), Failure> {
    let ImportArgs { from: Origin::Nexus, salvage, src, dst, size } = arguments;
    let image = read(src).map_err(|failure| failure.about(src.display()))?;
    output.work_on();
    let parsed = nexus::parse(&image);
    for damage in &parsed.damage {
        let nexus::Damage { offset, what, intact_behind } = damage;
        let object = json!({"intactBehind": intact_behind, "kind": "damage", "offset": offset,
            "what": what});
        let text = format!("{what}: byte {offset}; {intact_behind} intact records behind it");
        output.either(&object, &text)?;
    }
    let unusable = |key: &[u8], value: &[u8]| {
        let key = std::str::from_utf8(key).ok().filter(|key| Key::parse(key).is_ok());
        key.is_none() || value.len() > VALUE_BYTES_MAX
    };
    let (mut skipped, mut bytes, mut kinds) = (0_u64, 0, [0_u64; 3]);
    for (key, value) in &parsed.values {
        bytes += (key.len() + value.len() + 64) as u64;
        for (count, magic) in kinds.iter_mut().zip([b"NXEV", b"NXR1", b"NXEM"]) {
            *count += u64::from(value.starts_with(magic));
        }
        if unusable(key, value) {
            skipped += 1;
            let object = json!({"key": key_json(key), "kind": "unusable"});
            output.either(&object, &format!("no key or value of a volume: {}", key_text(key)))?;
        }
    }
    let faults = parsed.damage.len() as u64 + skipped;
    let written = faults == 0 || *salvage;
    if written {
        let size = size.unwrap_or((bytes * 4).next_multiple_of(4096).max(SIZE_MIN));
        let mut fill = Fill::create(dst, size, FormatOptions::default())?;
        for (key, value) in parsed.values.iter().filter(|(key, value)| !unusable(key, value)) {
            fill.put(key, value)?;
        }
        fill.finish()?;
    }
    let keys = if written { parsed.values.len() as u64 - skipped } else { 0 };
    let [envelopes, sealed, metadata] = kinds;
    let object = json!({"summary": {"damage": parsed.damage.len(), "encryptionRecords": metadata,
        "envelopes": envelopes, "generation": parsed.generation, "keys": keys,
        "openTransactions": parsed.open_transactions, "records": parsed.records,
        "recordsBehindEnd": parsed.records_behind_end, "sealed": sealed, "unusable": skipped, "written": written}});
    let mut text = format!(
        "{keys} keys imported of {} records; carried as bytes: {envelopes} envelopes, {sealed} \
         sealed values, {metadata} encryption records; {} transactions were never committed",
        parsed.records, parsed.open_transactions
    );
    if parsed.records_behind_end > 0 {
        let behind = counted(parsed.records_behind_end, "record");
        text.push_str(&format!("; left out: {behind} behind the end, stale or cut off by a blank"));
    }
    let told = output.either(&object, &text).and_then(|()| output.finish());
    told.map_err(
        |failure| if written { failure.once_done("the image was made") } else { failure },
    )?;
    if faults == 0 {
        return Ok(());
    }
    let done = if written {
        "what is intact was imported; values may be older than what was lost"
    } else {
        "nothing was written; --salvage imports what is intact"
    };
    let noun = if faults == 1 { "fault" } else { "faults" };
    let message = format!("{faults} {noun}; {done}");
    Err(Failure { advice: "", ..Failure::new("DATA_LOSS", Exit::DataLoss, message) }
        .about(src.display()))
}
