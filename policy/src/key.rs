//! Paths under `/state`, parsed once at the edge: whatever holds a [`Key`] or a [`Prefix`]
//! holds a well-formed one. Nothing is ever normalised; a path is right or refused.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::str::Utf8Error;

/// Names one value: a whole path below `/state`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(Box<str>);

impl Key {
    /// Longest key, in bytes of the whole path: a record keeps the length in one byte.
    pub const BYTES_MAX: usize = 255;

    /// Parses a whole path such as `/state/boot/slot`.
    ///
    /// # Errors
    /// [`KeyError`], with offsets from the beginning of `path`.
    pub fn parse(path: &str) -> Result<Self, KeyError> {
        check_bytes(path.len())?;
        let below = path
            .strip_prefix(ROOT_SLASH)
            .ok_or(KeyError::OutsideState)?;
        check_segments(below, ROOT_SLASH.len())?;
        Ok(Self(path.into()))
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Names a subtree: `/state` itself or a path below it, matched by whole segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Parses a whole path such as `/state` or `/state/boot`.
    ///
    /// # Errors
    /// [`KeyError`], with offsets from the beginning of `path`.
    pub fn parse(path: &str) -> Result<Self, KeyError> {
        if path == ROOT {
            Ok(Self::root())
        } else {
            Key::parse(path).map(Self::from)
        }
    }

    /// The whole namespace, `/state`.
    #[must_use]
    pub fn root() -> Self {
        Self(ROOT.into())
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if `key` is this path or lies below it: `/state/foo` covers `/state/foo` and
    /// `/state/foo/x`, never `/state/foobar`.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        self.covers_path(&key.0)
    }

    /// True if `other` is this subtree or a part of it.
    #[must_use]
    pub fn covers_prefix(&self, other: &Prefix) -> bool {
        self.covers_path(&other.0)
    }

    /// The key that `relative` names in this directory.
    ///
    /// # Errors
    /// [`KeyError`], with offsets from the beginning of `relative`; the length counted is that
    /// of the whole path.
    pub fn join(&self, relative: &str) -> Result<Key, KeyError> {
        check_bytes(
            self.0
                .len()
                .saturating_add(1)
                .saturating_add(relative.len()),
        )?;
        if relative.is_empty() {
            return Err(KeyError::Empty);
        }
        check_segments(relative, 0)?;
        let mut path = String::with_capacity(self.0.len() + 1 + relative.len());
        path.push_str(&self.0);
        path.push('/');
        path.push_str(relative);
        Ok(Key(path.into_boxed_str()))
    }

    /// The subtree that `relative` names in this directory; empty text names the directory.
    ///
    /// # Errors
    /// As [`Prefix::join`], but for [`KeyError::Empty`].
    pub fn join_prefix(&self, relative: &str) -> Result<Prefix, KeyError> {
        if relative.is_empty() {
            return Ok(self.clone());
        }
        self.join(relative).map(Self::from)
    }

    /// The name of `key` as seen from this directory, the inverse of [`Prefix::join`].
    ///
    /// `None` for a key outside, and for the key that has the directory's own path: no relative
    /// name reaches it.
    #[must_use]
    pub fn relative<'k>(&self, key: &'k Key) -> Option<&'k str> {
        key.0.strip_prefix(&*self.0)?.strip_prefix('/')
    }

    /// Whole-segment match against the text of a [`Key`] or a [`Prefix`].
    pub(crate) fn covers_path(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl From<Key> for Prefix {
    fn from(key: Key) -> Self {
        Self(key.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Prefix {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`Key`] and no [`Prefix`]. The text itself is never repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// The whole path would have `bytes` bytes, more than [`Key::BYTES_MAX`].
    TooLong {
        /// Length of the refused path.
        bytes: usize,
    },
    /// The bytes are not UTF-8.
    NotUtf8 {
        /// Bytes before the first wrong one.
        offset: usize,
    },
    /// A whole path does not begin with `/state/`.
    OutsideState,
    /// A relative key has no characters.
    Empty,
    /// Two slashes meet, or a relative path begins with one.
    EmptySegment {
        /// Bytes before the empty segment.
        offset: usize,
    },
    /// A segment is `.` or `..`.
    DotSegment {
        /// Bytes before the segment.
        offset: usize,
    },
    /// A character is a control character.
    ControlCharacter {
        /// Bytes before the character.
        offset: usize,
    },
    /// The path ends in a slash.
    TrailingSlash,
}

impl KeyError {
    /// The stable code of the schema.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "KEY_TOO_LONG",
            Self::NotUtf8 { .. }
            | Self::OutsideState
            | Self::Empty
            | Self::EmptySegment { .. }
            | Self::DotSegment { .. }
            | Self::ControlCharacter { .. }
            | Self::TrailingSlash => "INVALID_KEY",
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                let bytes_max = Key::BYTES_MAX;
                write!(
                    f,
                    "a path has at most {bytes_max} bytes in all, this one has {bytes}"
                )
            }
            Self::NotUtf8 { offset } => write!(f, "a path is UTF-8; byte {offset} is not"),
            Self::OutsideState => f.write_str("a path begins with /state/ and names what is below"),
            Self::Empty => f.write_str("a key has at least one segment"),
            Self::EmptySegment { offset } => {
                write!(
                    f,
                    "a segment has at least one character; the one at byte {offset} is empty"
                )
            }
            Self::DotSegment { offset } => {
                write!(f, "no segment is . or .., but the one at byte {offset}")
            }
            Self::ControlCharacter { offset } => {
                write!(f, "a path has no control character, but at byte {offset}")
            }
            Self::TrailingSlash => f.write_str("a path does not end in a slash"),
        }
    }
}

impl core::error::Error for KeyError {}

impl From<Utf8Error> for KeyError {
    fn from(error: Utf8Error) -> Self {
        Self::NotUtf8 {
            offset: error.valid_up_to(),
        }
    }
}

/// Refuses by length first, so that a hostile text costs nothing more.
fn check_bytes(bytes: usize) -> Result<(), KeyError> {
    if bytes > Key::BYTES_MAX {
        Err(KeyError::TooLong { bytes })
    } else {
        Ok(())
    }
}

/// Checks a path without its leading slash; `base` is added to every offset.
fn check_segments(path: &str, base: usize) -> Result<(), KeyError> {
    let control = path
        .char_indices()
        .find(|(_, character)| character.is_control());
    if let Some((offset, _)) = control {
        return Err(KeyError::ControlCharacter {
            offset: base + offset,
        });
    }
    let mut offset = base;
    for segment in path.split('/') {
        let is_last = offset + segment.len() == base + path.len();
        match segment {
            "" if is_last => return Err(KeyError::TrailingSlash),
            "" => return Err(KeyError::EmptySegment { offset }),
            "." | ".." => return Err(KeyError::DotSegment { offset }),
            _ => offset += segment.len() + 1,
        }
    }
    Ok(())
}

/// The namespace of all keys.
const ROOT: &str = "/state";
/// What every key begins with.
const ROOT_SLASH: &str = "/state/";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};

    fn check(path: &str, expected: Result<(), KeyError>) {
        assert_eq!(
            Key::parse(path).map(|key| assert_eq!(key.as_str(), path)),
            expected,
            "{path:?}"
        );
    }

    #[test]
    fn parses_or_refuses_and_never_normalises() {
        check("/state/a", Ok(()));
        check("/state/a/b.c/..d/…", Ok(()));
        check("/state/\u{202e}", Ok(()));
        check("", Err(KeyError::OutsideState));
        check("/", Err(KeyError::OutsideState));
        check("/state", Err(KeyError::OutsideState));
        check("/stateful/a", Err(KeyError::OutsideState));
        check("state/a", Err(KeyError::OutsideState));
        check("/State/a", Err(KeyError::OutsideState));
        check("//state/a", Err(KeyError::OutsideState));
        check("/state/", Err(KeyError::TrailingSlash));
        check("/state/a/", Err(KeyError::TrailingSlash));
        check("/state//a", Err(KeyError::EmptySegment { offset: 7 }));
        check("/state/a//b", Err(KeyError::EmptySegment { offset: 9 }));
        check("/state/a//", Err(KeyError::EmptySegment { offset: 9 }));
        check("/state/.", Err(KeyError::DotSegment { offset: 7 }));
        check("/state/a/../b", Err(KeyError::DotSegment { offset: 9 }));
        check("/state/a\0", Err(KeyError::ControlCharacter { offset: 8 }));
        check(
            "/state/é\u{85}",
            Err(KeyError::ControlCharacter { offset: 9 }),
        );
        check(
            "/state/a\u{7f}b",
            Err(KeyError::ControlCharacter { offset: 8 }),
        );
    }

    #[test]
    fn limits_the_whole_path() {
        let longest = format!("/state/{}", "x".repeat(Key::BYTES_MAX - 7));
        check(&longest, Ok(()));
        check(
            &format!("{longest}x"),
            Err(KeyError::TooLong { bytes: 256 }),
        );
        let directory = Prefix::parse("/state/a").expect("a prefix");
        assert_eq!(
            directory
                .join(&"x".repeat(246))
                .map(|key| key.as_str().len()),
            Ok(255)
        );
        assert_eq!(
            directory.join(&"x".repeat(247)),
            Err(KeyError::TooLong { bytes: 256 })
        );
        let flood = "/".repeat(1 << 20);
        assert_eq!(
            Key::parse(&flood),
            Err(KeyError::TooLong { bytes: 1 << 20 })
        );
    }

    #[test]
    fn matches_whole_segments() {
        let table = [
            ("/state", "/state/foo", true),
            ("/state/foo", "/state/foo", true),
            ("/state/foo", "/state/foo/bar", true),
            ("/state/foo", "/state/foobar", false),
            ("/state/foo", "/state/fo", false),
            ("/state/foo/bar", "/state/foo", false),
        ];
        for (prefix, key, expected) in table {
            let (prefix, key) = (Prefix::parse(prefix).unwrap(), Key::parse(key).unwrap());
            assert_eq!(prefix.covers(&key), expected, "{prefix} {key}");
            assert_eq!(prefix.covers_prefix(&key.into()), expected);
        }
        assert!(
            !Prefix::parse("/state/foo")
                .unwrap()
                .covers_prefix(&Prefix::root())
        );
        assert!(Prefix::root().covers_prefix(&Prefix::root()));
    }

    #[test]
    fn joins_and_answers_relative_names() {
        let directory = Prefix::parse("/state/net").unwrap();
        let key = directory.join("wifi/ssid").unwrap();
        assert_eq!(key.as_str(), "/state/net/wifi/ssid");
        assert_eq!(directory.relative(&key), Some("wifi/ssid"));
        assert_eq!(Prefix::root().relative(&key), Some("net/wifi/ssid"));
        assert_eq!(directory.relative(&Key::parse("/state/net").unwrap()), None);
        assert_eq!(
            directory.relative(&Key::parse("/state/network").unwrap()),
            None
        );
        assert_eq!(directory.join_prefix("").as_ref(), Ok(&directory));
        assert_eq!(
            directory.join_prefix("wifi").unwrap().as_str(),
            "/state/net/wifi"
        );
        for (relative, error) in [
            ("", KeyError::Empty),
            ("/wifi", KeyError::EmptySegment { offset: 0 }),
            ("..", KeyError::DotSegment { offset: 0 }),
            ("wifi/../../keystore", KeyError::DotSegment { offset: 5 }),
            ("wifi/", KeyError::TrailingSlash),
            ("/", KeyError::EmptySegment { offset: 0 }),
            ("wi\nfi", KeyError::ControlCharacter { offset: 2 }),
        ] {
            assert_eq!(directory.join(relative), Err(error), "{relative:?}");
        }
    }

    #[test]
    fn errors_have_stable_words() {
        let damaged: Vec<u8> = [b'a', 0xff].into_iter().collect();
        let utf8 = core::str::from_utf8(&damaged).unwrap_err();
        let told: Vec<_> = [
            KeyError::TooLong { bytes: 300 },
            utf8.into(),
            KeyError::OutsideState,
            KeyError::Empty,
            KeyError::EmptySegment { offset: 7 },
            KeyError::DotSegment { offset: 7 },
            KeyError::ControlCharacter { offset: 7 },
            KeyError::TrailingSlash,
        ]
        .iter()
        .map(|error| format!("{}: {error}", error.code()))
        .collect();
        let golden = [
            "KEY_TOO_LONG: a path has at most 255 bytes in all, this one has 300",
            "INVALID_KEY: a path is UTF-8; byte 1 is not",
            "INVALID_KEY: a path begins with /state/ and names what is below",
            "INVALID_KEY: a key has at least one segment",
            "INVALID_KEY: a segment has at least one character; the one at byte 7 is empty",
            "INVALID_KEY: no segment is . or .., but the one at byte 7",
            "INVALID_KEY: a path has no control character, but at byte 7",
            "INVALID_KEY: a path does not end in a slash",
        ];
        assert_eq!(told, golden);
    }
}
