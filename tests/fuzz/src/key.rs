//! Keys and prefixes: what parses is itself again, below `/state`, and within its limit.

use policy::{Key, Prefix};

/// Parses the bytes as a key, as a prefix, and as a key relative to one.
///
/// # Panics
/// When a key is accepted that breaks a rule of keys.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let root = Prefix::parse("/state").expect("the root is a prefix");
    if let Ok(key) = Key::parse(text) {
        assert_eq!(key.as_str(), text);
        assert!(sound(text) && root.covers(&key));
        assert_eq!(Key::parse(key.as_str()).as_ref(), Ok(&key));
        let relative = root.relative(&key).expect("the root covers every key");
        assert_eq!(root.join(relative).as_ref(), Ok(&key));
    }
    if let Ok(prefix) = Prefix::parse(text) {
        assert!(root.covers_prefix(&prefix) && prefix.covers_prefix(&prefix));
    }
    // As a client gives it: relative to the prefix of its capability.
    let (head, tail) = text.split_once('\n').unwrap_or(("/state/net", text));
    if let Ok(prefix) = Prefix::parse(head) {
        match prefix.join(tail) {
            Ok(key) => assert!(prefix.covers(&key) && sound(key.as_str())),
            Err(error) => drop(error.to_string()),
        }
        if let Ok(below) = prefix.join_prefix(tail) {
            assert!(prefix.covers_prefix(&below));
        }
    }
}

/// The rules of keys, told in another way than the parser tells them.
fn sound(key: &str) -> bool {
    key.len() <= 255
        && key
            .strip_prefix("/state/")
            .is_some_and(|rest| rest.split('/').all(|segment| !["", ".", ".."].contains(&segment)))
        && !key.chars().any(char::is_control)
}
