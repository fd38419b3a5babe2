//! Keys, and what they hold.

use statefs_client::Rights;

use crate::stage::{Stage, assert_refused};

pub(super) fn what_was_put_is_what_is_read(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [b"".as_slice(), b"v", b"\0\0\0\0\0\0\0\0\0", &every_byte, &[0x5a; 5000], b"w"] {
        let version = port.wait(here.put("k", value)).unwrap();
        let found = port.wait(here.get("k")).unwrap().unwrap();
        assert_eq!((found.version, found.data.as_slice()), (version, value));
        assert_eq!(found.bytes, value.len() as u64);
        let metadata = port.wait(here.get_metadata("k")).unwrap().unwrap();
        assert_eq!((metadata.version, metadata.bytes), (version, value.len() as u64));
    }
}

pub(super) fn what_is_not_there_is_absent(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    assert_eq!(port.wait(here.get("k")), Ok(None));
    assert_eq!(port.wait(here.get_metadata("k")), Ok(None));
    assert_eq!(port.wait(here.delete("k")), Ok(false));
    port.wait(here.put("k", b"v")).unwrap();
    assert_eq!(port.wait(here.delete("k")), Ok(true));
    assert_eq!(port.wait(here.get("k")), Ok(None));
    assert_eq!(port.wait(here.delete("k")), Ok(false));
}

pub(super) fn keys_beneath_a_key_are_keys_of_their_own(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    for key in ["a", "a/b", "a/b/c", "ab"] {
        port.wait(here.put(key, key.as_bytes())).unwrap();
    }
    assert_eq!(port.wait(here.delete("a/b")), Ok(true));
    assert_eq!(port.wait(here.get("a/b")), Ok(None));
    for key in ["a", "a/b/c", "ab"] {
        assert_eq!(port.wait(here.get(key)).unwrap().unwrap().data, key.as_bytes());
    }
    assert_eq!(port.wait(here.get("a/b/c/d")), Ok(None));
}

pub(super) fn a_key_is_the_same_through_every_directory(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let version = port.wait(here.put("a/b", b"v")).unwrap();
    let place = stage.place();
    let whole = place.strip_prefix("/state/").unwrap();
    for (prefix, key) in [
        (format!("{place}/a"), "b".to_owned()),
        ("/state".to_owned(), format!("{whole}/a/b")),
        (place.to_owned(), "a/b".to_owned()),
    ] {
        let directory = port.directory(&prefix, Rights::GET);
        let found = port.wait(directory.get(&key)).unwrap().unwrap();
        assert_eq!(found.version, version, "{prefix} {key}");
    }
    // The path of a directory is no key of it.
    assert_refused(port.wait(port.directory(place, Rights::GET).get("")), "INVALID_KEY");
}

pub(super) fn a_key_that_breaks_a_rule_is_refused(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    for key in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\nb", "a\0", "\u{85}"] {
        assert_refused(port.wait(here.get(key)), "INVALID_KEY");
        assert_refused(port.wait(here.put(key, b"v")), "INVALID_KEY");
        assert_refused(port.wait(here.delete(key)), "INVALID_KEY");
    }
    for prefix in ["", "/", "/etc", "state", "/state/", "/state//a", "/state/..", "/stated"] {
        let directory = port.directory(prefix, Rights::ALL);
        assert_refused(port.wait(directory.get("k")), "INVALID_KEY");
        assert_refused(port.wait(directory.put("k", b"v")), "INVALID_KEY");
    }
}

pub(super) fn a_strange_key_that_breaks_none_is_taken(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    // The last two look alike and are two keys: nothing is normalised.
    let keys = ["...", "a..b", ".hidden", " ", "a b", "\\", "*", "K", "k", "\u{e9}", "e\u{301}"];
    for key in keys {
        port.wait(here.put_if_absent(key, key.as_bytes())).unwrap();
    }
    for key in keys {
        assert_eq!(port.wait(here.get(key)).unwrap().unwrap().data, key.as_bytes());
    }
}
