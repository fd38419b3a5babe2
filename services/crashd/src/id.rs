//! The name of a dump.

use core::fmt;
use core::str::FromStr;

/// Names a dump. Later dumps have greater names.
///
/// The text form, which is the key too, is `0000000000000007-9f3c01ab`: the sequence, and a number that
/// keeps two dumps apart that began at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    sequence: u64,
    nonce: u32,
}

/// The text names no dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdError;

impl Id {
    /// Yields the name of the dump that comes after `last`.
    pub(crate) fn after(last: Option<Self>, nonce: u32) -> Self {
        // Beyond any machine's life.
        let sequence = last.map_or(1, |last| last.sequence.saturating_add(1));
        Self { sequence, nonce }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:08x}", self.sequence, self.nonce)
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (sequence, nonce) = text.split_once('-').ok_or(IdError)?;
        // `from_str_radix` alone would take a sign, capitals, and other lengths: one dump, one name.
        let digits = |part: &str, count| {
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.len() == count && part.bytes().all(lower)
        };
        if !digits(sequence, 16) || !digits(nonce, 8) {
            return Err(IdError);
        }
        let sequence = u64::from_str_radix(sequence, 16).map_err(|_| IdError)?;
        let nonce = u32::from_str_radix(nonce, 16).map_err(|_| IdError)?;
        Ok(Self { sequence, nonce })
    }
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dump is named like 0000000000000007-9f3c01ab")
    }
}

impl core::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn names_are_read_back_and_rise() {
        let first = Id::after(None, u32::MAX);
        let second = Id::after(Some(first), 0);
        assert!(first < second && first.to_string() < second.to_string());
        assert_eq!(first.to_string(), "0000000000000001-ffffffff");
        for id in [first, second] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_text_is_no_name() {
        for text in [
            "",
            "-",
            "1-2",
            "0000000000000001",
            "0000000000000001-FFFFFFFF",
            "+000000000000001-00000000",
            "0000000000000001-00000000-",
            "000000000000000g-00000000",
        ] {
            assert_eq!(text.parse::<Id>(), Err(IdError), "{text:?}");
        }
    }
}
