//! What stands in front of a dump's bytes.

use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of the name of what crashed; the rest is cut off.
pub const NAME_BYTES_MAX: usize = 64;

/// What a dump is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    name: String,
    time: u64,
}

impl About {
    /// Takes the name of what crashed, and when that was, in seconds since 1970 by a clock that may be
    /// wrong; 0 where there is none.
    ///
    /// A name comes from who crashed: what is not printable is replaced, and only so much is kept.
    #[must_use]
    pub fn new(name: &str, time: u64) -> Self {
        let mut kept = String::new();
        for letter in name.chars() {
            let letter = if letter.is_control() { '\u{fffd}' } else { letter };
            if kept.len() + letter.len_utf8() > NAME_BYTES_MAX {
                break;
            }
            kept.push(letter);
        }
        Self { name: kept, time }
    }

    /// Yields the name of what crashed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Yields when that was, in seconds since 1970; 0 if nobody knows.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Yields the head.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut head = Vec::from(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend([u8::try_from(self.name.len()).unwrap_or(u8::MAX), 0]);
        head.extend(self.time.to_le_bytes());
        head.extend(self.name.as_bytes());
        head
    }

    /// Reads the head of a dump, and yields how long it is; `None` if it is none of this format.
    pub(crate) fn decode(dump: &[u8]) -> Option<(Self, usize)> {
        let (fixed, rest) = dump.split_first_chunk::<FIXED_BYTES>()?;
        let (magic, fixed) = fixed.split_first_chunk()?;
        let (version, fixed) = fixed.split_first_chunk()?;
        let (&[name_bytes, 0], time) = fixed.split_first_chunk()? else { return None };
        let time = u64::from_le_bytes(time.try_into().ok()?);
        let name_bytes = usize::from(name_bytes);
        let name = core::str::from_utf8(rest.get(..name_bytes)?).ok()?;
        let about = Self::new(name, time);
        let sound = magic == MAGIC && u16::from_le_bytes(*version) == VERSION && about.name == name;
        sound.then_some((about, FIXED_BYTES + name_bytes))
    }
}

/// The longest head.
pub(crate) const HEAD_BYTES_MAX: u32 = 80;
const _: () = assert!(FIXED_BYTES + NAME_BYTES_MAX == HEAD_BYTES_MAX as usize);

// Magic, format, bytes of the name, a zero, the time; then the name.
const MAGIC: &[u8; 4] = b"SFCD";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back() {
        let long = "\u{e9}".repeat(100);
        for name in ["", "init", &long, "a\nb\x1b[2J"] {
            let about = About::new(name, 1_700_000_000);
            let mut dump = about.encode();
            let bytes = dump.len();
            assert!(bytes <= HEAD_BYTES_MAX as usize);
            dump.extend(b"dump");
            assert_eq!(About::decode(&dump), Some((about.clone(), bytes)));
            assert!(!about.name().chars().any(char::is_control));
        }
        assert_eq!(About::new(&long, 0).name().len(), NAME_BYTES_MAX);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let head = About::new("init", 7).encode();
        for bytes in 0..head.len() {
            assert_eq!(About::decode(&head[..bytes]), None);
        }
        for (at, byte) in [(0, b'X'), (4, 2), (6, 200), (7, 1), (16, 0xff), (16, b'\n')] {
            let mut head = head.clone();
            head[at] = byte;
            assert_eq!(About::decode(&head), None, "byte {at}");
        }
    }
}
