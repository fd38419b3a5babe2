//! Text of strangers, made fit for a log line and for a policy file.

use core::fmt::{self, Write as _};

/// Displays `self.0` as a TOML basic string: quoted, on one line, with nothing that could
/// move a terminal's cursor or reorder what it shows.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for (count, character) in self.0.chars().enumerate() {
            if count == CHARS_MAX {
                f.write_str("…")?;
                break;
            }
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                _ if is_plain(character) => f.write_char(character)?,
                _ if u32::from(character) <= 0xffff => {
                    write!(f, "\\u{:04X}", u32::from(character))?;
                }
                _ => write!(f, "\\U{:08X}", u32::from(character))?,
            }
        }
        f.write_char('"')
    }
}

/// True for what the standard library would print as it is in a debug string.
fn is_plain(character: char) -> bool {
    character == '\'' || character.escape_debug().len() == 1
}

/// Longest text shown, in characters: a whole path fits (255 bytes), a flood does not.
const CHARS_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String};

    fn check(text: &str, expected: &str) {
        assert_eq!(format!("{}", Quoted(text)), expected);
    }

    #[test]
    fn quotes_what_a_log_must_not_print() {
        check("/state/net", r#""/state/net""#);
        check("it's", r#""it's""#);
        check("a\"b\\c", r#""a\"b\\c""#);
        check("two\nlines\u{1b}[2J", r#""two\u000Alines\u001B[2J""#);
        check("right\u{202e}left", r#""right\u202Eleft""#);
        check("\u{e0001}", r#""\U000E0001""#);
        check("zürich", r#""zürich""#);
    }

    #[test]
    fn cuts_a_flood() {
        let shown = format!("{}", Quoted(&String::from("x").repeat(10_000)));
        assert_eq!(shown.chars().count(), CHARS_MAX + 3);
    }

    #[cfg(feature = "parse")]
    #[test]
    fn reads_back_as_toml() {
        for text in [
            "plain",
            "q\"\\'",
            "\u{202e}\u{e0001}\n\u{7f}",
            "zürich/\u{301}",
        ] {
            let line = format!("x = {}", Quoted(text));
            let table = toml::de::DeTable::parse(&line).expect("valid TOML");
            assert_eq!(
                table.get_ref().get("x").and_then(|x| x.get_ref().as_str()),
                Some(text)
            );
        }
    }
}
