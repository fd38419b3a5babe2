//! The version of a value.

use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

/// Names the write that put a value there. Equal if and only if the write was the same; versions
/// have no order, and their numbers mean nothing.
///
/// The text form is 16 lower-case hexadecimal digits, there and back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(NonZeroU64);

/// The text is not 16 hexadecimal digits, or all of them are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionError;

impl Version {
    /// Takes the number from the wire; 0 is no version.
    pub(crate) fn from_wire(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(crate) fn to_wire(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        // `from_str_radix` alone would take a sign, and other lengths.
        let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.and_then(Self::from_wire).ok_or(VersionError)
    }
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version is 16 hexadecimal digits, not all of them 0")
    }
}

impl core::error::Error for VersionError {}

/// Digits of a 64-bit number in base 16.
const DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_is_read_back() {
        for number in [1, 0x9f3c_0000_0000_0001, u64::MAX] {
            let version = Version::from_wire(number).unwrap();
            assert_eq!(version.to_string().len(), DIGITS);
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        let upper: Version = "00000000000000AB".parse().unwrap();
        assert_eq!(upper.to_string(), "00000000000000ab");
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "1",
            "0000000000000000",
            "+000000000000001",
            "00000000000000001",
            "000000000000000g",
        ] {
            assert_eq!(text.parse::<Version>(), Err(VersionError), "{text:?}");
        }
    }
}
