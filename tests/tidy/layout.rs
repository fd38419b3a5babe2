//! Compares the tables of `FORMAT.md` with the constants of `journal/src/layout.rs`.
//!
//! In `FORMAT.md` a heading or a line of its own carries `<!-- layout: NAME -->`; up to the next
//! heading, rows `| offset | bytes | name | meaning |` are the fields of the structure NAME. A row
//! whose bytes are no number stands for a part of variable length and has no constant. In
//! `layout.rs` the structure is `pub mod NAME`, and each field a
//! `pub const FIELD: Range<usize> = 4..12;`, in numbers.

use std::collections::BTreeMap;
use std::ops::Range;

/// The fields of all structures, by `structure.field`.
type Fields = BTreeMap<String, Range<usize>>;

/// Lists where the two differ. Without the code there is nothing to compare.
pub fn offences(format: Option<&str>, code: Option<&str>) -> Vec<String> {
    let Some(code) = code else { return Vec::new() };
    let Some(format) = format else {
        return vec!["journal/src/layout.rs is there, but FORMAT.md, its source, is not".into()];
    };
    let mut offences = Vec::new();
    let written = format_fields(format, &mut offences);
    let coded = code_fields(code, &mut offences);
    if coded.is_empty() {
        offences.push("journal/src/layout.rs: no field is declared as a range in a module".into());
    }
    for (name, range) in &written {
        match coded.get(name) {
            Some(found) if found == range => {}
            Some(found) => offences.push(format!(
                "{name}: FORMAT.md says bytes {range:?}, journal/src/layout.rs says {found:?}"
            )),
            None => offences.push(format!("{name}: in FORMAT.md, not in journal/src/layout.rs")),
        }
    }
    for name in coded.keys().filter(|name| !written.contains_key(*name)) {
        offences.push(format!("{name}: in journal/src/layout.rs, not in FORMAT.md"));
    }
    offences
}

fn format_fields(format: &str, offences: &mut Vec<String>) -> Fields {
    let mut fields = Fields::new();
    let mut structure: Option<String> = None;
    for (index, line) in format.lines().enumerate() {
        if line.starts_with('#') {
            structure = None;
        }
        if let Some((_, rest)) = line.split_once("<!-- layout:") {
            structure = rest.split_once("-->").map(|(name, _)| fold(name));
        }
        let Some(structure) = &structure else {
            continue;
        };
        let Some(row) = line.trim().strip_prefix('|') else {
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [offset, bytes, name, ..] = cells[..] else {
            continue;
        };
        let (Some(offset), Some(bytes)) = (number(offset), number(bytes)) else {
            continue;
        };
        let name = format!("{structure}.{}", fold(name));
        if fields.insert(name.clone(), offset..offset + bytes).is_some() {
            offences.push(format!("FORMAT.md:{}: {name} is there twice", index + 1));
        }
    }
    fields
}

fn code_fields(code: &str, offences: &mut Vec<String>) -> Fields {
    let mut fields = Fields::new();
    let mut structure = String::new();
    for (index, line) in code.lines().enumerate() {
        let declaration = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(name) = declaration.strip_prefix("mod ") {
            structure = fold(name.trim_end_matches(['{', ' ', '}', ';']));
        }
        let Some((name, range)) = declaration
            .strip_prefix("const ")
            .and_then(|rest| rest.split_once(": Range<usize> = "))
        else {
            continue;
        };
        let ends = range.split(';').next().and_then(|range| range.split_once(".."));
        let (start, end) = ends.unwrap_or_default();
        let (Some(start), Some(end)) = (number(start), number(end)) else {
            offences.push(format!(
                "journal/src/layout.rs:{}: {name} is not written as a range of numbers",
                index + 1
            ));
            continue;
        };
        fields.insert(format!("{structure}.{}", fold(name)), start..end);
    }
    fields
}

/// Folds the spellings of a name: `Volume id`, `` `volume_id` `` and `VOLUME_ID` are one.
fn fold(name: &str) -> String {
    name.trim().trim_matches('`').trim().to_lowercase().replace([' ', '-'], "_")
}

fn number(text: &str) -> Option<usize> {
    let text = text.trim().trim_matches('`').replace(['_', ','], "");
    match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
const FORMAT: &str = "
## 3. Superblock <!-- layout: superblock -->
| offset | bytes | name | meaning |
|---|---|---|---|
| 0 | 8 | `magic` | the word |
| 0x8 | 4 | Volume id | which |
| 12 | rest | padding | zeros |
## 4. Prose
| 0 | 1 | not a field | of a structure |
";

#[test]
fn equal_tables_pass() {
    let code = "pub mod superblock {\n    pub const MAGIC: Range<usize> = 0..8;\n    pub const VOLUME_ID: Range<usize> = 8..12;\n    pub const BYTES: usize = 12;\n}\n";
    assert_eq!(offences(Some(FORMAT), Some(code)), [""; 0]);
}

#[test]
fn differences_are_found() {
    let code = "pub mod superblock {\n    pub const MAGIC: Range<usize> = 0..4;\n    pub const SEQUENCE: Range<usize> = 12..20;\n    pub const END: Range<usize> = A..B;\n}\n";
    assert_eq!(
        offences(Some(FORMAT), Some(code)),
        [
            "journal/src/layout.rs:4: END is not written as a range of numbers",
            "superblock.magic: FORMAT.md says bytes 0..8, journal/src/layout.rs says 0..4",
            "superblock.volume_id: in FORMAT.md, not in journal/src/layout.rs",
            "superblock.sequence: in journal/src/layout.rs, not in FORMAT.md",
        ]
    );
}

#[test]
fn code_without_its_format_is_found() {
    assert_eq!(offences(None, None), [""; 0]);
    assert_eq!(offences(Some(FORMAT), None), [""; 0]);
    assert_eq!(offences(None, Some("")).len(), 1);
    assert!(!offences(Some(""), Some("")).is_empty());
}
