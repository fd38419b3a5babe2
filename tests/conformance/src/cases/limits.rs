//! The limits that a host names, at their border.

use statefs_client::{Directory, ListOptions, Rights};

use crate::stage::{Port, Stage, all_keys, assert_refused};

pub(super) fn the_longest_key_is_taken_and_one_byte_more_is_not(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let limit = port.hello().limits.key_bytes as usize;
    // The whole path counts.
    let longest = "k".repeat(limit - stage.place().len() - "/".len());
    port.wait(here.put(&longest, b"v")).unwrap();
    assert_eq!(port.wait(here.get(&longest)).unwrap().unwrap().data, b"v");
    let listed = all_keys(&port, &here, ListOptions::default());
    assert_eq!(listed, [longest.as_str()]);
    assert_eq!(port.wait(here.delete(&longest)), Ok(true));

    let longer = format!("{longest}k");
    assert_refused(port.wait(here.put(&longer, b"v")), "KEY_TOO_LONG");
    assert_refused(port.wait(here.get(&longer)), "KEY_TOO_LONG");
    assert_refused(port.wait(here.delete(&longer)), "KEY_TOO_LONG");
    let of = |prefix: &str, after: &str| {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        port.wait(here.page(&ListOptions { prefix, after, ..ListOptions::default() }))
    };
    assert!(of(&longest, &longest).unwrap().entries.is_empty());
    assert_refused(of(&longer, ""), "KEY_TOO_LONG");
    assert_refused(of("", &longer), "KEY_TOO_LONG");
    let deep = port.directory(&format!("{}/{longer}", stage.place()), Rights::ALL);
    assert_refused(port.wait(deep.get("k")), "KEY_TOO_LONG");
    // Letters may take several bytes; bytes are what counts.
    let wide = "\u{e9}".repeat(longest.len() / 2 + 1);
    assert_refused(port.wait(here.put(&wide, b"v")), "KEY_TOO_LONG");
}

pub(super) fn the_largest_value_is_taken_and_one_byte_more_is_not(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let limit = port.hello().limits.value_bytes as usize;
    let value: Vec<u8> = (0..=limit).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let largest = &value[..limit];
    let version = port.wait(here.put("k", largest)).unwrap();
    assert!(port.wait(here.get("k")).unwrap().unwrap().data == largest, "it is read back");
    assert_refused(port.wait(here.put("k", &value)), "VALUE_TOO_LARGE");
    assert_refused(port.wait(here.put("other", &value)), "VALUE_TOO_LARGE");
    let metadata = port.wait(here.get_metadata("k")).unwrap().unwrap();
    assert_eq!((metadata.version, metadata.bytes), (version, limit as u64), "nothing was written");
    assert_eq!(port.wait(here.get("other")), Ok(None));
}

pub(super) fn as_many_calls_as_the_limit_says_are_under_way(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let most = port.hello().limits.calls;
    let puts: Vec<_> = (0..most).map(|at| here.put(&format!("{at:04}"), b"v")).collect();
    for put in puts {
        port.wait(put).unwrap();
    }
    assert_eq!(all_keys(&port, &here, ListOptions::default()).len(), most as usize);
}

pub(super) fn a_page_holds_as_many_entries_as_the_limit_says(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let most = port.hello().limits.list_entries;
    fill(&port, &here, most + 3, b"");
    for (limit, expected) in [(1, 1), (7, 7), (most, most), (most + 1, most), (0, most)] {
        let page = port.wait(here.page(&names(limit, ""))).unwrap();
        assert_eq!(page.entries.len(), expected as usize, "limit {limit}");
        let last = format!("{:05}", expected - 1);
        assert_eq!(page.next.as_deref(), Some(last.as_str()), "limit {limit}");
    }
    let rest = port.wait(here.page(&names(0, &format!("{:05}", most - 1)))).unwrap();
    assert_eq!((rest.entries.len(), rest.next), (3, None));
}

pub(super) fn a_page_ends_before_its_reply_is_too_large(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let limits = port.hello().limits;
    let count = limits.reply_bytes / limits.value_bytes + 2;
    let value = vec![0x5a; limits.value_bytes as usize];
    fill(&port, &here, count, &value);
    let (mut found, mut pages, mut options) = (0, 0, ListOptions::default());
    loop {
        let before = port.heard().len();
        let page = port.wait(here.page(&options)).unwrap();
        let reply_bytes = port.heard().len() - before;
        assert!(reply_bytes <= limits.reply_bytes as usize, "{reply_bytes}");
        for entry in page.entries {
            assert_eq!(entry.key, format!("{found:05}"));
            found += 1;
        }
        pages += 1;
        let Some(next) = page.next else { break };
        assert!(next > options.after, "a cursor that stands still");
        options.after = next;
    }
    assert!(found == count && pages >= 2, "{found} entries in {pages} pages");
    // Without values they are few.
    assert_eq!(port.wait(here.page(&names(0, ""))).unwrap().next, None);
}

fn names(limit: u32, after: &str) -> ListOptions {
    ListOptions { limit, after: after.into(), keys_only: true, ..ListOptions::default() }
}

/// Puts that many keys, a few at a time.
fn fill(port: &Port, here: &Directory, count: u32, value: &[u8]) {
    let limits = port.hello().limits;
    let room = limits.bytes_in_flight as usize / (value.len() + 1024);
    let at_once = room.clamp(1, limits.calls as usize);
    let mut names = (0..count).map(|at| format!("{at:05}"));
    loop {
        let puts: Vec<_> =
            names.by_ref().take(at_once).map(|name| here.put_buffered(&name, value)).collect();
        if puts.is_empty() {
            return;
        }
        for put in puts {
            port.wait(put).unwrap();
        }
    }
}
