//! Records: one mutation each, checked by a CRC of their own (FORMAT.md section 5).

use crate::field::{self, put, u8_at, u16_at, u32_at, u64_at};
use crate::geometry::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::layout::record as at;
use crate::types::{Birth, Epoch, Lsn, Place};

/// What a record does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Gives the key a value.
    Put,
    /// Takes the key away.
    Delete,
    /// Puts the key's value, unchanged, into another place.
    Move,
    /// Gives an internal key a note.
    Note,
    /// Gives an internal key a part of a large value.
    Chunk,
}

/// A record as it lies on the medium.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it does.
    pub kind: Kind,
    /// Its number in the log.
    pub lsn: Lsn,
    /// The write that made the value.
    pub birth: Birth,
    /// The key, 1 to 255 bytes.
    pub key: &'a [u8],
    /// The value; empty in a delete.
    pub value: &'a [u8],
    /// In a move: the value was in doubt when it was moved, and still is.
    pub in_doubt: bool,
    /// In a put or a move: the value is a manifest.
    pub manifest: bool,
}

/// Why bytes are not the record that was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// A length leaves the bytes at hand or the format's limits.
    Length,
    /// The CRC is wrong.
    Checksum,
    /// A kind or reserved field that this version does not know.
    Unknown,
}

/// Yields the bytes that a record takes, padding included.
pub fn record_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    (at::BYTES + key_bytes + value_bytes).next_multiple_of(at::ALIGNMENT)
}

impl<'a> Record<'a> {
    /// Yields the bytes that this record takes, padding included.
    pub fn bytes(&self) -> usize {
        record_bytes(self.key.len(), self.value.len())
    }

    /// Writes the record into `bytes`, which start where the record will lie.
    ///
    /// # Panics
    /// When `bytes` are fewer than [`Record::bytes`] or a length passes the format's limits.
    pub fn encode(&self, epoch: Epoch, place: Place, bytes: &mut [u8]) {
        assert!((1..=KEY_BYTES_MAX).contains(&self.key.len()), "keys are checked before");
        assert!(self.value.len() <= VALUE_BYTES_MAX, "values are checked before");
        let end = at::BYTES + self.key.len() + self.value.len();
        let key_bytes = u16::try_from(self.key.len()).expect("just checked");
        let value_bytes = u32::try_from(self.value.len()).expect("just checked");
        let kind = match self.kind {
            Kind::Put => 1,
            Kind::Delete => 2,
            Kind::Move => 3,
            Kind::Note => 4,
            Kind::Chunk => 7,
        };
        let in_doubt = if self.in_doubt { at::FLAG_IN_DOUBT } else { 0 };
        let manifest = if self.manifest { at::FLAG_MANIFEST } else { 0 };
        put(bytes, at::KIND, &[kind]);
        put(bytes, at::FLAGS, &[in_doubt | manifest]);
        put(bytes, at::KEY_BYTES, &key_bytes.to_le_bytes());
        put(bytes, at::VALUE_BYTES, &value_bytes.to_le_bytes());
        put(bytes, at::LSN, &self.lsn.0.to_le_bytes());
        put(bytes, at::BIRTH, &self.birth.0.to_le_bytes());
        put(bytes, at::BYTES..at::BYTES + self.key.len(), self.key);
        put(bytes, at::BYTES + self.key.len()..end, self.value);
        let crc = checksum(epoch, place, bytes.get(at::CRC.end..end).unwrap_or_default());
        put(bytes, at::CRC, &crc.to_le_bytes());
    }

    /// Reads the record at the start of `bytes`.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is allocated, and no length is trusted before it is checked.
    pub fn decode(epoch: Epoch, place: Place, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let fixed = bytes.get(..at::BYTES).ok_or(RecordError::Length)?;
        let key_bytes = usize::from(u16_at(fixed, at::KEY_BYTES));
        let value_bytes = u32_at(fixed, at::VALUE_BYTES) as usize;
        if !(1..=KEY_BYTES_MAX).contains(&key_bytes) || value_bytes > VALUE_BYTES_MAX {
            return Err(RecordError::Length);
        }
        let end = at::BYTES + key_bytes + value_bytes;
        let covered = bytes.get(at::CRC.end..end).ok_or(RecordError::Length)?;
        if u32_at(fixed, at::CRC) != checksum(epoch, place, covered) {
            return Err(RecordError::Checksum);
        }
        let kind = match u8_at(fixed, at::KIND) {
            1 => Kind::Put,
            2 if value_bytes == 0 => Kind::Delete,
            3 => Kind::Move,
            4 => Kind::Note,
            7 => Kind::Chunk,
            _ => return Err(RecordError::Unknown),
        };
        let flags = u8_at(fixed, at::FLAGS);
        let (in_doubt, manifest) = (at::FLAG_IN_DOUBT, at::FLAG_MANIFEST);
        let allowed = match kind {
            Kind::Put => manifest,
            Kind::Move => in_doubt | manifest,
            Kind::Delete | Kind::Note | Kind::Chunk => 0,
        };
        if flags & !allowed != 0 || !field::is_zero(fixed, at::RESERVED) {
            return Err(RecordError::Unknown);
        }
        let (key, value) = bytes
            .get(at::BYTES..end)
            .and_then(|body| body.split_at_checked(key_bytes))
            .ok_or(RecordError::Length)?;
        let lsn = Lsn(u64_at(fixed, at::LSN));
        let birth = Birth(u64_at(fixed, at::BIRTH));
        let (in_doubt, manifest) = (flags & in_doubt != 0, flags & manifest != 0);
        Ok(Self { kind, lsn, birth, key, value, in_doubt, manifest })
    }
}

fn checksum(epoch: Epoch, place: Place, covered: &[u8]) -> u32 {
    let mut there = [0; 24];
    put(&mut there, 0..16, &epoch.0);
    put(&mut there, 16..20, &place.segment.0.to_le_bytes());
    put(&mut there, 20..24, &place.offset.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&there);
    hasher.update(covered);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SegmentIndex;

    const EPOCH: Epoch = Epoch([3; 16]);
    const PLACE: Place = Place { segment: SegmentIndex(2), offset: 640 };

    fn sample() -> ([u8; 64], Record<'static>) {
        let record = Record {
            kind: Kind::Put,
            lsn: Lsn(9),
            birth: Birth(9),
            key: b"/k",
            value: b"value",
            in_doubt: false,
            manifest: false,
        };
        let mut bytes = [0; 64];
        record.encode(EPOCH, PLACE, &mut bytes);
        (bytes, record)
    }

    #[test]
    fn decodes_what_it_encodes_at_its_place_alone() {
        let (bytes, record) = sample();
        assert!(Record::decode(EPOCH, PLACE, &bytes) == Ok(record));
        let elsewhere = Place { offset: 648, ..PLACE };
        assert_eq!(Record::decode(EPOCH, elsewhere, &bytes).err(), Some(RecordError::Checksum));
        let later = Epoch([4; 16]);
        assert_eq!(Record::decode(later, PLACE, &bytes).err(), Some(RecordError::Checksum));
    }

    #[test]
    fn every_flipped_bit_and_every_short_read_is_noticed() {
        let (bytes, record) = sample();
        let used = at::BYTES + record.key.len() + record.value.len();
        for bit in 0..used * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(EPOCH, PLACE, &bad).is_err(), "bit {bit}");
        }
        for length in 0..used {
            assert_eq!(
                Record::decode(EPOCH, PLACE, &bytes[..length]).err(),
                Some(RecordError::Length)
            );
        }
    }
}
