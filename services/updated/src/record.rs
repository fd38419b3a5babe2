//! The record of a control: 28 bytes, the same for the system and its boot loader.

use core::ops::Range;

use crate::control::{Control, Slot, Status};
use crate::error::Damage;

/// Bytes of the record.
pub const RECORD_BYTES: usize = CHECKSUM.end;

impl Control {
    /// Yields the record that is stored.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let mut write = |range: Range<usize>, bytes: &[u8]| {
            let part = record.get_mut(range).expect("the parts of a record lie in it");
            part.copy_from_slice(bytes);
        };
        write(MAGIC_AT, MAGIC);
        write(VERSION_AT, &VERSION.to_le_bytes());
        write(PRIMARY, &[code_of_slot(self.primary())]);
        write(GENERATION, &self.generation().to_le_bytes());
        write(STATUS_A, &code_of_status(self.status(Slot::A)));
        write(STATUS_B, &code_of_status(self.status(Slot::B)));
        let sum = sum(&record);
        let part = record.get_mut(CHECKSUM).expect("the parts of a record lie in it");
        part.copy_from_slice(&sum);
        record
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Damage`]: it is not one that [`Control::encode`] made.
    pub fn decode(record: &[u8]) -> Result<Self, Damage> {
        let Ok(record) = <&[u8; RECORD_BYTES]>::try_from(record) else {
            return Err(Damage::Length { bytes: record.len() as u64 });
        };
        if part(record, MAGIC_AT) != MAGIC {
            return Err(Damage::Magic);
        }
        if part(record, CHECKSUM) != sum(record) {
            return Err(Damage::Checksum);
        }
        let [low, high] = array(record, VERSION_AT);
        let version = u16::from_le_bytes([low, high]);
        if version != VERSION {
            return Err(Damage::Version { version });
        }
        let [primary] = array(record, PRIMARY);
        let slots = [status_of(array(record, STATUS_A)), status_of(array(record, STATUS_B))];
        let ([Some(a), Some(b)], Some(primary), [0]) =
            (slots, slot_of(primary), array(record, RESERVED))
        else {
            return Err(Damage::Meaning);
        };
        let generation = u64::from_le_bytes(array(record, GENERATION));
        Self::of_record(generation, primary, [a, b]).ok_or(Damage::Meaning)
    }
}

fn code_of_slot(slot: Slot) -> u8 {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

fn slot_of(code: u8) -> Option<Slot> {
    [Slot::A, Slot::B].into_iter().find(|slot| code_of_slot(*slot) == code)
}

fn code_of_status(status: Status) -> [u8; 4] {
    match status {
        Status::Empty => [1, 0, 0, 0],
        Status::Trying { left } => [2, left, 0, 0],
        Status::Good => [3, 0, 0, 0],
    }
}

fn status_of(code: [u8; 4]) -> Option<Status> {
    let [_, left, ..] = code;
    let all = [Status::Empty, Status::Trying { left }, Status::Good];
    all.into_iter().find(|status| code_of_status(*status) == code)
}

fn sum(record: &[u8; RECORD_BYTES]) -> [u8; 4] {
    crc32fast::hash(part(record, 0..CHECKSUM.start)).to_le_bytes()
}

fn part(record: &[u8; RECORD_BYTES], range: Range<usize>) -> &[u8] {
    record.get(range).unwrap_or_default()
}

fn array<const N: usize>(record: &[u8; RECORD_BYTES], range: Range<usize>) -> [u8; N] {
    part(record, range).try_into().expect("a part is as long as it is read for")
}

const MAGIC: &[u8; 4] = b"SFBC";
const VERSION: u16 = 1;
const MAGIC_AT: Range<usize> = 0..4;
const VERSION_AT: Range<usize> = 4..6;
const PRIMARY: Range<usize> = 6..7;
const RESERVED: Range<usize> = 7..8;
const GENERATION: Range<usize> = 8..16;
const STATUS_A: Range<usize> = 16..20;
const STATUS_B: Range<usize> = 20..24;
const CHECKSUM: Range<usize> = 24..28;

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU8;

    fn staged() -> Control {
        Control::first(Slot::A).stage(Slot::B, NonZeroU8::new(3).unwrap()).unwrap()
    }

    #[test]
    fn a_record_is_read_back() {
        for control in [Control::first(Slot::A), Control::first(Slot::B), staged()] {
            assert_eq!(Control::decode(&control.encode()), Ok(control));
        }
    }

    #[test]
    fn its_bytes_are_these() {
        let record = staged().encode();
        assert_eq!(record[..8], *b"SFBC\x01\x00\x01\x00");
        assert_eq!(record[8..16], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[16..24], [3, 0, 0, 0, 2, 3, 0, 0]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = staged().encode();
        for bit in 0..8 * RECORD_BYTES {
            let mut record = record;
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(Control::decode(&record).is_err(), "bit {bit}");
        }
        for bytes in 0..RECORD_BYTES {
            assert_eq!(
                Control::decode(&record[..bytes]),
                Err(Damage::Length { bytes: bytes as u64 })
            );
        }
    }

    #[test]
    fn a_record_that_nobody_wrote_is_refused_whatever_its_sum() {
        for (at, byte, damage) in [
            (0, b'X', Damage::Magic),
            (4, 2, Damage::Version { version: 2 }),
            (6, 2, Damage::Meaning),
            (7, 1, Damage::Meaning),
            (8, 0, Damage::Meaning),   // generation 0
            (16, 1, Damage::Meaning),  // no slot is good
            (16, 0, Damage::Meaning),  // no status
            (17, 1, Damage::Meaning),  // a good slot has no tries
            (21, 16, Damage::Meaning), // more tries than there may be
        ] {
            let mut record = staged().encode();
            record[at] = byte;
            let sum = sum(&record);
            record[CHECKSUM].copy_from_slice(&sum);
            assert_eq!(Control::decode(&record), Err(damage), "byte {at}");
        }
    }
}
