//! What the notes of the two rings say (FORMAT.md section 12).

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use journal::{Journal, NOTE_BYTES_MAX, Note, NoteSeen, Ring, Version};
use policy::Key;

use super::{Record, cut, note, rule_at, take};
use crate::limits::BATCH_OPERATIONS_MAX;

/// First byte of each note.
const NOTE_VERSION: u8 = 1;

/// Longest name of a service.
const SERVICE_BYTES_MAX: usize = 64;

/// Most bytes that are kept of why a request was refused: names and a path, quoted.
const RULE_BYTES_MAX: usize = 512;

/// What a note of mutations takes besides its records, and what a record takes besides its key.
const HEADER_BYTES_MAX: usize = 1 + 8 + 2 + 1 + SERVICE_BYTES_MAX;
const RECORD_BYTES: usize = 1 + 4 + 1;

/// What the notes of a batch take of a group at most: three of the longest records fit into one.
pub(crate) const NOTES_BYTES_MAX: usize = BATCH_OPERATIONS_MAX * (RECORD_BYTES + Key::BYTES_MAX)
    + BATCH_OPERATIONS_MAX.div_ceil(3) * (HEADER_BYTES_MAX + 64);

/// The notes of a batch, as they are put together.
pub(super) struct Mutations<'a> {
    unix_millis: u64,
    service: &'a str,
    notes: Vec<Note>,
    count: usize,
    bytes: Vec<u8>,
    /// How many births the next operation is before the next note.
    back: u16,
}

impl<'a> Mutations<'a> {
    /// Begins the notes of `operations`, which `marks` keys of the daemon follow.
    pub(super) fn new(unix_millis: u64, operations: usize, marks: u16, service: &'a str) -> Self {
        let back = u16::try_from(operations).unwrap_or(u16::MAX).saturating_add(marks);
        let service = cut(service, SERVICE_BYTES_MAX);
        Self { unix_millis, service, notes: Vec::new(), count: 0, bytes: Vec::new(), back }
    }

    /// Adds a change of `key`, allowed by the grant at `line`.
    pub(super) fn push(&mut self, puts: bool, line: u32, key: &str) {
        if self.bytes.len() + RECORD_BYTES + key.len() > NOTE_BYTES_MAX {
            self.end();
        }
        if self.count == 0 {
            self.bytes.push(NOTE_VERSION);
            self.bytes.extend(self.unix_millis.to_le_bytes());
            self.bytes.extend(self.back.to_le_bytes());
            short(&mut self.bytes, self.service);
        }
        self.count += 1;
        self.back = self.back.saturating_sub(1);
        self.bytes.push(u8::from(puts));
        self.bytes.extend(line.to_le_bytes());
        short(&mut self.bytes, key);
    }

    pub(super) fn finish(mut self) -> Vec<Note> {
        self.end();
        self.notes
    }

    /// The next note is one more birth behind the operations.
    fn end(&mut self) {
        if self.count > 0 {
            let bytes = mem::take(&mut self.bytes);
            self.notes.push(note(Ring::Mutations, mem::take(&mut self.count), bytes));
            self.back = self.back.saturating_add(1);
        }
    }
}

/// Makes the notes of refusals, one of each.
pub(super) fn refusals(records: &[Record]) -> Vec<Note> {
    let of = |record: &Record| {
        let mut bytes = Vec::from([NOTE_VERSION]);
        bytes.extend(record.unix_millis.to_le_bytes());
        bytes.extend(record.repeats.to_le_bytes());
        short(&mut bytes, cut(&record.service, SERVICE_BYTES_MAX));
        short(&mut bytes, &record.operation);
        short(&mut bytes, &record.key);
        let rule = cut(&record.rule, RULE_BYTES_MAX);
        bytes.extend(u16::try_from(rule.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(rule.as_bytes());
        note(Ring::Denials, 1, bytes)
    };
    records.iter().map(of).collect()
}

/// Reads a note; what makes no sense is left out.
pub(super) fn records(
    journal: &Journal,
    ring: Ring,
    note: &NoteSeen,
    version: Version,
    bytes: &[u8],
) -> Vec<Record> {
    let mut reader = Reader(bytes);
    let records = match ring {
        Ring::Mutations => {
            reader.mutations(note.count, |back| journal.version_before(version, back).0)
        }
        Ring::Denials => reader.refusal(),
    };
    let first = note.last + 1 - u64::from(note.count);
    let numbered = (first..).zip(records.unwrap_or_default());
    numbered.map(|(sequence, record)| Record { sequence, ..record }).collect()
}

/// The rest of a note.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn mutations(&mut self, count: u16, version: impl Fn(u64) -> u64) -> Option<Vec<Record>> {
        self.version()?;
        let unix_millis = u64::from_le_bytes(self.array()?);
        let back = u64::from(u16::from_le_bytes(self.array()?));
        let service = self.short()?;
        let mut records = Vec::new();
        // Births are numbered without gaps: the changes, the daemon's marks, the notes.
        for number in 0..u64::from(count) {
            let [puts] = self.array()?;
            let rule = rule_at(u32::from_le_bytes(self.array()?));
            let key = self.short()?;
            records.push(Record {
                unix_millis,
                service: service.clone(),
                operation: String::from(if puts == 1 { "put" } else { "delete" }),
                key,
                rule,
                applied: true,
                version: if puts == 1 { version(back.saturating_sub(number)) } else { 0 },
                ..Record::default()
            });
        }
        self.0.is_empty().then_some(records)
    }

    fn refusal(&mut self) -> Option<Vec<Record>> {
        self.version()?;
        let unix_millis = u64::from_le_bytes(self.array()?);
        let repeats = u32::from_le_bytes(self.array()?);
        let (service, operation, key) = (self.short()?, self.short()?, self.short()?);
        let rule_bytes = u16::from_le_bytes(self.array()?);
        let rule = self.text(rule_bytes.into())?;
        let record =
            Record { unix_millis, repeats, service, operation, key, rule, ..Record::default() };
        self.0.is_empty().then(|| Vec::from([record]))
    }

    fn version(&mut self) -> Option<()> {
        (self.array()? == [NOTE_VERSION]).then_some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        take(&mut self.0, N)?.try_into().ok()
    }

    fn short(&mut self) -> Option<String> {
        let [bytes] = self.array()?;
        self.text(bytes.into())
    }

    fn text(&mut self, bytes: usize) -> Option<String> {
        Some(core::str::from_utf8(take(&mut self.0, bytes)?).ok()?.into())
    }
}

/// Appends a text behind its length, which fits into one byte.
fn short(bytes: &mut Vec<u8>, text: &str) {
    let text = cut(text, u8::MAX.into());
    bytes.push(u8::try_from(text.len()).unwrap_or_default());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn refusal(key: &str, rule: &str) -> Record {
        Record {
            unix_millis: 7,
            service: "reader".into(),
            operation: "get".into(),
            key: key.into(),
            rule: rule.into(),
            repeats: 3,
            ..Record::default()
        }
    }

    fn hex(note: &Note) -> String {
        note.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn notes_are_read_as_they_are_written_and_never_in_part() {
        let long = format!("/state/{}", "k".repeat(248));
        let told = [refusal("/state/a", "no grant"), refusal(&long, "")];
        let notes = refusals(&told);
        for (note, told) in notes.iter().zip(&told) {
            assert_eq!(Reader(&note.bytes).refusal().as_deref(), Some(core::slice::from_ref(told)));
            for length in 0..note.bytes.len() {
                assert!(Reader(&note.bytes[..length]).refusal().is_none());
            }
        }
        let mut notes = Mutations::new(9, 2, 1, "keeper");
        notes.push(true, 18, "/state/a");
        notes.push(false, 300, &long);
        let note = &notes.finish()[0];
        // The note has birth 1000; the mark has 999.
        let read = Reader(&note.bytes).mutations(2, |back| 1000 - back).unwrap();
        assert_eq!((read[0].version, read[1].version), (997, 0));
        assert_eq!((&*read[1].key, &*read[1].rule), (&*long, "grant at line 300"));
        assert_eq!((read[0].unix_millis, &*read[0].service), (9, "keeper"));
        for length in 0..note.bytes.len() {
            assert!(Reader(&note.bytes[..length]).mutations(2, |_| 1).is_none());
        }
        assert!(Reader(&note.bytes).mutations(1, |_| 1).is_none());
        assert!(Reader(&note.bytes).mutations(u16::MAX, |_| 1).is_none());
    }

    /// What lies on a medium is read by every later version.
    #[test]
    fn the_bytes_never_drift() {
        let mut notes = Mutations::new(0x0102, 2, 1, "net");
        notes.push(true, 18, "/state/a");
        notes.push(false, 7, "/state/b");
        let mutations = "0102010000000000000300036e6574\
                         0112000000082f73746174652f610007000000082f73746174652f62";
        assert_eq!(notes.finish().iter().map(hex).collect::<String>(), mutations);
        let denial = "01070000000000000003000000067265616465720367657408\
                      2f73746174652f6108006e6f206772616e74";
        assert_eq!(hex(&refusals(&[refusal("/state/a", "no grant")])[0]), denial);
    }

    #[test]
    fn a_long_batch_has_several_notes_and_they_are_as_long_as_is_said() {
        let service = "s".repeat(100);
        let mut notes = Mutations::new(9, BATCH_OPERATIONS_MAX, 1, &service);
        for _ in 0..BATCH_OPERATIONS_MAX {
            notes.push(true, u32::MAX, &"k".repeat(Key::BYTES_MAX));
        }
        let notes = notes.finish();
        assert!(notes.iter().map(Note::record_bytes).sum::<usize>() <= NOTES_BYTES_MAX);
        assert!(notes.iter().all(|note| note.bytes.len() <= NOTE_BYTES_MAX));
        // Operations have births from 1 on, then comes the mark.
        let mut versions = Vec::new();
        for (note, birth) in notes.iter().zip(BATCH_OPERATIONS_MAX as u64 + 2..) {
            let read = Reader(&note.bytes).mutations(note.count, |back| birth - back).unwrap();
            versions.extend(read.into_iter().map(|record| record.version));
        }
        assert!(versions.into_iter().eq(1..=BATCH_OPERATIONS_MAX as u64));
        let rule = "\u{fc}".repeat(600);
        let notes = refusals(&[refusal(&"k".repeat(Key::BYTES_MAX), &rule)]);
        let read = Reader(&notes[0].bytes).refusal().unwrap();
        assert_eq!(read[0].rule.len(), RULE_BYTES_MAX);
        assert!(notes[0].bytes.len() <= NOTE_BYTES_MAX);
    }
}
