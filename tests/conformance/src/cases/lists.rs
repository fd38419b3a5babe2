//! What a list shows, and in which order.

use statefs_client::{Directory, Held, ListOptions, Rights};

use crate::stage::{Port, Stage, all_keys, assert_refused};

pub(super) fn a_prefix_covers_whole_segments_in_the_order_of_bytes(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    fill(&port, &here, &["b", "ab", "a0", "a/y/z", "a/x", "a.c", "a-b", "a", "\u{e9}", "Z"]);
    let all = ["Z", "a", "a-b", "a.c", "a/x", "a/y/z", "a0", "ab", "b", "\u{e9}"];
    assert_eq!(keys(&port, &here, "", ""), all);
    assert_eq!(keys(&port, &here, "a", ""), ["a", "a/x", "a/y/z"]);
    assert_eq!(keys(&port, &here, "a/y", ""), ["a/y/z"]);
    assert_eq!(keys(&port, &here, "a/y/z", ""), ["a/y/z"]);
    assert!(keys(&port, &here, "a/y/z/none", "").is_empty());
    // `after` need not be there, and need not lie in the prefix.
    assert_eq!(keys(&port, &here, "a", "a-b"), ["a/x", "a/y/z"]);
    assert_eq!(keys(&port, &here, "a", "0"), ["a", "a/x", "a/y/z"]);
    assert_eq!(keys(&port, &here, "", "a/y/z"), ["a0", "ab", "b", "\u{e9}"]);
    assert!(keys(&port, &here, "a", "a/z").is_empty());
    for (prefix, after) in [("a/", ""), ("/a", ""), ("a//b", ""), ("", "a/"), ("", "..")] {
        let options = options(prefix, after, 0);
        assert_refused(port.wait(here.page(&options)), "INVALID_KEY");
    }
}

pub(super) fn pages_follow_each_other_without_gap_or_repeat(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let names: Vec<String> = (0..25).map(|number| format!("k/{number:02}")).collect();
    fill(&port, &here, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for limit in [1, 2, 7, 24, 25, 26] {
        let mut found = Vec::new();
        let mut options = options("k", "", limit);
        loop {
            let page = port.wait(here.page(&options)).unwrap();
            assert!(page.entries.len() <= limit as usize && page.intact);
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            let Some(next) = page.next else { break };
            assert_eq!(found.last(), Some(&next), "the last key of the page");
            assert!(next > options.after, "a cursor that stands still");
            options.after = next;
        }
        assert_eq!(found, names, "limit {limit}");
    }
    // A key that is written between two pages shows up in its place.
    let page = port.wait(here.page(&options("k", "", 10))).unwrap();
    fill(&port, &here, &["k/10x", "k/05x"]);
    let rest = keys(&port, &here, "k", &page.next.unwrap());
    assert_eq!(&rest[..2], ["k/10", "k/10x"]);
    assert_eq!(rest.len(), 16);
}

pub(super) fn an_entry_has_the_value_or_with_keys_only_its_size(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let version = port.wait(here.put("k", b"value")).unwrap();
    for keys_only in [false, true] {
        let options = ListOptions { keys_only, ..ListOptions::default() };
        let page = port.wait(here.page(&options)).unwrap();
        assert_eq!((page.entries.len(), page.next, page.intact), (1, None, true));
        let Held::Value(value) = &page.entries[0].held else {
            panic!("a value that is well: {:?}", page.entries);
        };
        assert_eq!((value.version, value.bytes), (version, 5));
        assert_eq!(value.data, if keys_only { b"".as_slice() } else { b"value" });
    }
    assert_eq!(port.wait(here.delete("k")), Ok(true));
    assert!(port.wait(here.page(&ListOptions::default())).unwrap().entries.is_empty());
}

pub(super) fn a_key_of_a_list_is_relative_to_the_directory(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    fill(&port, &here, &["a", "a/x", "a/y/z", "b"]);
    let below = port.directory(&format!("{}/a", stage.place()), Rights::LIST);
    // The path of the directory itself is no key of it.
    assert_eq!(keys(&port, &below, "", ""), ["x", "y/z"]);
    assert_eq!(keys(&port, &below, "y", ""), ["y/z"]);
    assert_eq!(keys(&port, &below, "", "x"), ["y/z"]);
}

fn options(prefix: &str, after: &str, limit: u32) -> ListOptions {
    ListOptions { prefix: prefix.into(), after: after.into(), limit, keys_only: true }
}

fn keys(port: &Port, directory: &Directory, prefix: &str, after: &str) -> Vec<String> {
    all_keys(port, directory, options(prefix, after, 0))
}

fn fill(port: &Port, directory: &Directory, keys: &[&str]) {
    for key in keys {
        port.wait(directory.put_buffered(key, key.as_bytes())).unwrap();
    }
}
