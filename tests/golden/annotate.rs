//! Writes a message as hex, one word a line, each with its meaning by the schema.
//!
//! The walk decodes the encoding by itself instead of asking the library that wrote the message,
//! and refuses what it cannot account for: a word that nothing points to, one that two things
//! point to, a bit that belongs to no field.

use std::collections::BTreeSet;
use std::fmt::Write;

use capnp::schema_capnp::{field, type_};

use crate::schema::Schema;

/// Returns the annotated hex of `bytes`, whose root is the struct `id`, and notes in `seen` every
/// union and enum member that occurs.
pub fn annotate(schema: &Schema, id: u64, bytes: &[u8], seen: &mut BTreeSet<String>) -> String {
    assert_eq!(bytes.len() % 8, 0, "a message is made of words");
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let notes = vec![String::new(); words.len()];
    let mut walk = Walk { schema, words, notes, seen };
    walk.pointer(0, "root", &Kind::Struct(id));

    let mut text = String::new();
    for ((index, bytes), note) in bytes.chunks_exact(8).enumerate().zip(&walk.notes) {
        assert!(!note.is_empty(), "nothing points to the word at {:#x}", index * 8);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:02x}  {}  {note}", index * 8, hex.join(" ")).unwrap();
    }
    text
}

/// Reads the bytes back from the hex of [`annotate`]; lines that start with `#` are skipped.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let hex = lines.flat_map(|line| line.split_whitespace().skip(1).take(8));
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

struct Walk<'a> {
    schema: &'a Schema,
    words: Vec<u64>,
    notes: Vec<String>,
    seen: &'a mut BTreeSet<String>,
}

/// What a field holds, or what its pointer points to.
enum Kind {
    Nothing,
    Number { bits: usize, enumeration: Option<u64> },
    Struct(u64),
    StructList(u64),
    NumberList,
    TextList,
    Text,
    Data,
    Capability(u64),
}

impl Walk<'_> {
    fn pointer(&mut self, at: usize, name: &str, kind: &Kind) {
        let word = self.words[at];
        if word == 0 {
            return self.note(at, format!("{name}: null"));
        }
        let target = at.wrapping_add_signed(1 + (word as u32 as i32 >> 2) as isize);
        let (low, high) = ((word >> 32) as u16 as usize, (word >> 48) as usize);
        match (word & 3, kind) {
            (0, Kind::Struct(id)) => {
                let title = self.schema.name(*id);
                self.note(at, format!("{name}: {title}, {low} data words, {high} pointers"));
                self.structure(target, *id, low, high);
            }
            (1, kind) => self.list(at, target, name, kind),
            (3, Kind::Capability(id)) => {
                assert_eq!(word as u32, 3, "a capability pointer is all zeros but for its kind");
                let title = self.schema.name(*id);
                self.note(at, format!("{name}: capability {}, {title}", word >> 32));
            }
            (found, _) => panic!("{name}: a pointer of kind {found} is not expected here"),
        }
    }

    fn list(&mut self, at: usize, target: usize, name: &str, kind: &Kind) {
        let element = self.words[at] >> 32 & 7;
        let count = (self.words[at] >> 35) as usize;
        match (element, kind) {
            (2, Kind::Text) => {
                self.note(at, format!("{name}: text, {count} bytes with the final zero"));
                self.blob(target, count, name);
            }
            (2, Kind::Data) => {
                self.note(at, format!("{name}: data, {count} bytes"));
                self.blob(target, count, name);
            }
            (7, Kind::StructList(id)) => {
                let title = self.schema.name(*id);
                self.note(at, format!("{name}: list of {title}, {count} words"));
                let tag = self.words[target];
                assert_eq!(tag & 3, 0, "the tag of a list looks like a struct pointer");
                let elements = (tag as u32 >> 2) as usize;
                let (data, pointers) = ((tag >> 32) as u16 as usize, (tag >> 48) as usize);
                assert_eq!(elements * (data + pointers), count, "the tag and the list agree");
                self.note(
                    target,
                    format!("{elements} elements of {data} data words, {pointers} pointers"),
                );
                // Canonical order: all elements, then what they point to, element by element.
                for index in 0..elements {
                    let start = target + 1 + index * (data + pointers);
                    self.structure(start, *id, data, pointers);
                }
            }
            (5, Kind::NumberList) => {
                self.note(at, format!("{name}: list of {count} numbers of 64 bits"));
                for index in 0..count {
                    let value = self.words[target + index];
                    let value = self.value(64, None, value);
                    self.note(target + index, format!("  [{index}] = {value}"));
                }
            }
            (6, Kind::TextList) => {
                self.note(at, format!("{name}: list of {count} texts"));
                for index in 0..count {
                    self.pointer(target + index, &format!("[{index}]"), &Kind::Text);
                }
            }
            (found, _) => panic!("{name}: a list of elements {found} is not expected here"),
        }
    }

    fn blob(&mut self, target: usize, bytes: usize, name: &str) {
        for word in 0..bytes.div_ceil(8) {
            let mut text = String::new();
            for (index, byte) in self.words[target + word].to_le_bytes().into_iter().enumerate() {
                if word * 8 + index >= bytes {
                    assert_eq!(byte, 0, "{name} is padded with zeros");
                } else if byte.is_ascii_graphic() || byte == b' ' {
                    text.push(byte.into());
                } else {
                    write!(text, "\\x{byte:02x}").unwrap();
                }
            }
            self.note(target + word, format!("  {text}"));
        }
    }

    /// Walks a struct whose data section begins at the word `start`.
    fn structure(&mut self, start: usize, id: u64, data: usize, pointers: usize) {
        let mut fields = Vec::new();
        self.fields(start, id, data, &mut fields);
        let mut known = vec![0; data];
        for field in &fields {
            // A section that is shorter than the schema's leaves out zeros.
            if let Place::Data { bit, bits } = field.place
                && bit / 64 < data
            {
                known[bit / 64] |= u64::MAX >> (64 - bits) << (bit % 64);
                self.note(start + bit / 64, field.text.clone());
            }
        }
        for (word, known) in known.into_iter().enumerate() {
            let at = start + word;
            assert_eq!(self.words[at] & !known, 0, "bits of no field at {:#x}", at * 8);
            if known == 0 {
                self.note(at, "not used by the member that is set".into());
            }
        }
        for field in &fields {
            if let Place::Pointer { index, kind } = &field.place
                && *index < pointers
            {
                self.pointer(start + data + index, &field.text, kind);
            }
        }
        for index in start + data..start + data + pointers {
            if self.notes[index].is_empty() {
                assert_eq!(self.words[index], 0, "a pointer of no field at {:#x}", index * 8);
                self.note(index, "not used by the member that is set".into());
            }
        }
    }

    /// Collects the fields of a struct that mean something: of a union, the member that is set.
    fn fields(&mut self, start: usize, id: u64, data: usize, fields: &mut Vec<Field>) {
        let body = self.schema.structure(id);
        let read = |words: &[u64], bit: usize, bits: usize| {
            if bit / 64 < data {
                words[start + bit / 64] >> (bit % 64) & u64::MAX >> (64 - bits)
            } else {
                0
            }
        };
        let bit = body.get_discriminant_offset() as usize * 16;
        let set = u16::try_from(read(&self.words, bit, 16)).unwrap();
        for field in body.get_fields().unwrap() {
            let name = field.get_name().unwrap().to_string().unwrap();
            if field.get_discriminant_value() != NO_UNION {
                if field.get_discriminant_value() != set {
                    continue;
                }
                self.seen.insert(format!("{}.{name}", self.schema.name(id)));
                let text = format!("{name} is set ({set})");
                fields.push(Field { text, place: Place::Data { bit, bits: 16 } });
            }
            let slot = match field.which() {
                Ok(field::Slot(slot)) => slot,
                Ok(field::Group(group)) => {
                    self.fields(start, group.get_type_id(), data, fields);
                    continue;
                }
                Err(unknown) => panic!("{unknown}"),
            };
            let offset = slot.get_offset() as usize;
            match kind_of(slot.get_type().unwrap()) {
                Kind::Nothing => {}
                Kind::Number { bits, enumeration } => {
                    let bit = offset * bits;
                    let value = read(&self.words, bit, bits);
                    let text = format!("{name} = {}", self.value(bits, enumeration, value));
                    fields.push(Field { text, place: Place::Data { bit, bits } });
                }
                kind => {
                    let place = Place::Pointer { index: offset, kind };
                    fields.push(Field { text: name, place });
                }
            }
        }
    }

    fn value(&mut self, bits: usize, enumeration: Option<u64>, value: u64) -> String {
        match (bits, enumeration) {
            (_, Some(id)) => {
                let member = self.schema.enumerant(id, value.try_into().unwrap()).unwrap();
                self.seen.insert(format!("{}.{member}", self.schema.name(id)));
                format!("{member} ({value})")
            }
            (1, None) => (value == 1).to_string(),
            _ if value > u32::MAX.into() => format!("{value:#018x}"),
            _ => value.to_string(),
        }
    }

    /// Says of a word what it means; a word may hold several fields.
    fn note(&mut self, at: usize, text: String) {
        let note = &mut self.notes[at];
        if !note.is_empty() {
            note.push_str(", ");
        }
        note.push_str(&text);
    }
}

/// A field of a struct: for data its name and value, for a pointer its name.
struct Field {
    text: String,
    place: Place,
}

enum Place {
    Data { bit: usize, bits: usize },
    Pointer { index: usize, kind: Kind },
}

fn kind_of(kind: type_::Reader<'_>) -> Kind {
    let number = |bits| Kind::Number { bits, enumeration: None };
    match kind.which().unwrap() {
        type_::Void(()) => Kind::Nothing,
        type_::Bool(()) => number(1),
        type_::Uint8(()) => number(8),
        type_::Uint16(()) => number(16),
        type_::Uint32(()) => number(32),
        type_::Uint64(()) => number(64),
        type_::Enum(kind) => Kind::Number { bits: 16, enumeration: Some(kind.get_type_id()) },
        type_::Text(()) => Kind::Text,
        type_::Data(()) => Kind::Data,
        type_::Struct(kind) => Kind::Struct(kind.get_type_id()),
        type_::Interface(kind) => Kind::Capability(kind.get_type_id()),
        type_::List(list) => match kind_of(list.get_element_type().unwrap()) {
            Kind::Struct(id) => Kind::StructList(id),
            Kind::Number { bits: 64, .. } => Kind::NumberList,
            Kind::Text => Kind::TextList,
            _ => panic!("teach the walk this kind of list"),
        },
        _ => panic!("teach the walk this type"),
    }
}

/// The discriminant of a field that is in no union.
const NO_UNION: u16 = 0xffff;
