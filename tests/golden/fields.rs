//! Writes a structure of the disk as hex, one field a line, each with its name and meaning.
//!
//! Where a field stands comes from `journal::layout`, what it means from `FORMAT.md`, word for word.

use std::fmt::Write;
use std::ops::Range;

use journal::layout::{chunk_key, group, manifest, note_key, record, superblock, use_entry};

/// A field: its name in `FORMAT.md`, its place, and how its bytes are read.
pub struct Field(&'static str, Range<usize>, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Opaque,
    /// The superblock's list of uses.
    Uses,
}

use Kind::{Number, Opaque, Text, Uses};

pub const SUPERBLOCK: &[Field] = &[
    Field("magic", superblock::MAGIC, Text),
    Field("version", superblock::VERSION, Number),
    Field("flags", superblock::FLAGS, Number),
    Field("block_bytes", superblock::BLOCK_BYTES, Number),
    Field("volume", superblock::VOLUME, Opaque),
    Field("sequence", superblock::SEQUENCE, Number),
    Field("mount", superblock::MOUNT, Number),
    Field("mount_id", superblock::MOUNT_ID, Opaque),
    Field("key", superblock::KEY, Opaque),
    Field("volume_bytes", superblock::VOLUME_BYTES, Number),
    Field("segment_blocks", superblock::SEGMENT_BLOCKS, Number),
    Field("segment_count", superblock::SEGMENT_COUNT, Number),
    Field("copies", superblock::COPIES, Number),
    Field("reserved_a", superblock::RESERVED_A, Opaque),
    Field("durable_lsn", superblock::DURABLE_LSN, Number),
    Field("base_lsn", superblock::BASE_LSN, Number),
    Field("base_tag", superblock::BASE_TAG, Opaque),
    Field("replay_bytes", superblock::REPLAY_BYTES, Number),
    Field("rollback", superblock::ROLLBACK, Number),
    Field("checkpoint_uses", superblock::CHECKPOINT_USES, Number),
    Field("use_count", superblock::USE_COUNT, Number),
    Field("reserved_b", superblock::RESERVED_B, Opaque),
    Field("uses", superblock::USES, Uses),
    Field("reserved_c", superblock::RESERVED_C, Opaque),
    Field("tag", superblock::TAG, Opaque),
];

pub const USE_ENTRY: &[Field] = &[
    Field("segment", use_entry::SEGMENT, Number),
    Field("start", use_entry::START, Number),
    Field("end", use_entry::END, Number),
    Field("epoch", use_entry::EPOCH, Opaque),
];

pub const GROUP: &[Field] = &[
    Field("magic", group::MAGIC, Text),
    Field("version", group::VERSION, Number),
    Field("flags", group::FLAGS, Number),
    Field("volume", group::VOLUME, Opaque),
    Field("epoch", group::EPOCH, Opaque),
    Field("segment", group::SEGMENT, Number),
    Field("block", group::BLOCK, Number),
    Field("first_lsn", group::FIRST_LSN, Number),
    Field("last_lsn", group::LAST_LSN, Number),
    Field("payload_bytes", group::PAYLOAD_BYTES, Number),
    Field("record_count", group::RECORD_COUNT, Number),
    Field("previous", group::PREVIOUS, Opaque),
    Field("durable_lsn", group::DURABLE_LSN, Number),
    Field("payload_tag", group::PAYLOAD_TAG, Opaque),
    Field("header_tag", group::HEADER_TAG, Opaque),
];

pub const RECORD: &[Field] = &[
    Field("crc", record::CRC, Opaque),
    Field("kind", record::KIND, Number),
    Field("flags", record::FLAGS, Number),
    Field("key_bytes", record::KEY_BYTES, Number),
    Field("value_bytes", record::VALUE_BYTES, Number),
    Field("reserved", record::RESERVED, Opaque),
    Field("lsn", record::LSN, Number),
    Field("birth", record::BIRTH, Number),
];

pub const CHUNK_KEY: &[Field] = &[
    Field("internal", chunk_key::INTERNAL, Number),
    Field("upload", chunk_key::UPLOAD, Opaque),
    Field("number", chunk_key::NUMBER, Opaque),
];

pub const NOTE_KEY: &[Field] = &[
    Field("internal", note_key::INTERNAL, Number),
    Field("ring", note_key::RING, Number),
    Field("last", note_key::LAST, Opaque),
    Field("count", note_key::COUNT, Opaque),
];

pub const MANIFEST: &[Field] = &[
    Field("upload", manifest::UPLOAD, Number),
    Field("total_bytes", manifest::TOTAL_BYTES, Number),
    Field("chunk_bytes", manifest::CHUNK_BYTES, Number),
    Field("chunk_count", manifest::CHUNK_COUNT, Number),
    Field("digest", manifest::DIGEST, Opaque),
];

/// The structures by their names in `FORMAT.md`.
pub const STRUCTURES: &[(&str, &[Field], usize)] = &[
    ("superblock", SUPERBLOCK, superblock::BYTES),
    ("use_entry", USE_ENTRY, use_entry::BYTES),
    ("group", GROUP, group::BYTES),
    ("record", RECORD, record::BYTES),
    ("chunk_key", CHUNK_KEY, chunk_key::BYTES),
    ("note_key", NOTE_KEY, note_key::BYTES),
    ("manifest", MANIFEST, manifest::BYTES),
];

/// Hex of a structure or of a whole group, line by line.
pub struct Hex<'a> {
    bytes: &'a [u8],
    text: String,
}

impl<'a> Hex<'a> {
    /// Shows a copy of the superblock.
    pub fn superblock(bytes: &'a [u8]) -> String {
        let mut hex = Self { bytes, text: String::new() };
        hex.structure("superblock", 0, "");
        hex.text
    }

    /// Shows a group: header, records, padding.
    pub fn group(bytes: &'a [u8]) -> String {
        let mut hex = Self { bytes, text: String::new() };
        hex.structure("group", 0, "");
        let end = group::BYTES + number(&bytes[group::PAYLOAD_BYTES]) as usize;
        let mut at = group::BYTES;
        while at < end {
            at = hex.record(at);
        }
        assert_eq!(at, end, "the records end where the header says");
        hex.line(end..bytes.len(), "padding | 0");
        hex.text
    }

    fn record(&mut self, at: usize) -> usize {
        self.structure("record", at, "record ");
        let fixed = &self.bytes[at..at + record::BYTES];
        let key_end = at + record::BYTES + number(&fixed[record::KEY_BYTES]) as usize;
        let value_end = key_end + number(&fixed[record::VALUE_BYTES]) as usize;
        let end = value_end.next_multiple_of(record::ALIGNMENT);
        match fixed[record::KIND] {
            [4] => self.structure("note_key", at + record::BYTES, "record key "),
            [7] => self.structure("chunk_key", at + record::BYTES, "record key "),
            _ => self.line(at + record::BYTES..key_end, "record key"),
        }
        match fixed[record::FLAGS] {
            [flags] if flags & record::FLAG_MANIFEST != 0 => {
                self.structure("manifest", key_end, "manifest ");
            }
            _ => self.line(key_end..value_end, "record value"),
        }
        self.line(value_end..end, "record padding | 0");
        end
    }

    fn structure(&mut self, name: &str, at: usize, prefix: &str) {
        let (_, fields, _) = STRUCTURES.iter().find(|found| found.0 == name).unwrap();
        for Field(field, place, kind) in *fields {
            let range = at + place.start..at + place.end;
            let bytes = &self.bytes[range.clone()];
            let value = match kind {
                Text => format!(" = {}", str::from_utf8(bytes).unwrap()),
                Number => format!(" = {}", number(bytes)),
                Opaque => String::new(),
                Uses => {
                    self.uses(range);
                    continue;
                }
            };
            let meaning = meaning(name, field);
            let bar = if meaning.is_empty() { "" } else { " | " };
            self.line(range, &format!("{prefix}{field}{value}{bar}{meaning}"));
        }
    }

    fn uses(&mut self, range: Range<usize>) {
        let entries = number(&self.bytes[superblock::USE_COUNT]) as usize;
        for index in 0..entries {
            let at = range.start + index * use_entry::BYTES;
            self.structure("use_entry", at, &format!("use {index} "));
        }
        self.line(range.start + entries * use_entry::BYTES..range.end, "unused entries | 0");
    }

    /// Writes the bytes of one field, 16 on a line; a long run of zeros as one word.
    fn line(&mut self, range: Range<usize>, note: &str) {
        let (bytes, mut note, mut at) = (&self.bytes[range.clone()], note, range.start);
        if bytes.len() > 16 && bytes.iter().all(|&byte| byte == 0) {
            writeln!(self.text, "{at:04x}  00*{}  {note}", bytes.len()).unwrap();
            return;
        }
        for part in bytes.chunks(16) {
            let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let hex = hex.join(" ");
            writeln!(self.text, "{at:04x}  {hex}  {note}").unwrap();
            (note, at) = ("...", at + part.len());
        }
    }
}

/// Reads the bytes back from the hex of [`Hex`]; other lines are skipped.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let hex = line.split("  ").nth(1).unwrap();
        if let Some(count) = hex.strip_prefix("00*") {
            bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0);
        } else {
            bytes.extend(hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
    }
    bytes
}

/// Yields what `FORMAT.md` says of a field.
fn meaning(structure: &str, field: &str) -> &'static str {
    let (_, table) = FORMAT.split_once(&format!("<!-- layout: {structure} -->")).unwrap();
    let rows = table.trim_start().lines().take_while(|line| line.starts_with('|'));
    let mut cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim));
    let row = cells.find_map(|mut row| (row.nth(2) == Some(field)).then_some(row));
    let mut row = row.unwrap_or_else(|| panic!("FORMAT.md does not know {structure}.{field}"));
    row.next().unwrap_or_default()
}

fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

const FORMAT: &str = include_str!("../../FORMAT.md");

#[test]
fn every_byte_of_a_structure_has_a_field() {
    for (name, fields, bytes) in STRUCTURES {
        let mut end = 0;
        for Field(field, place, _) in *fields {
            assert_eq!(place.start, end, "{name}.{field} begins where the one before it ends");
            end = place.end;
        }
        assert_eq!(end, *bytes, "{name}");
    }
}
