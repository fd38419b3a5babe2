//! Pages: what is in them, where they end, and what is left out without a trace.

use statefs::{Durability, directory};

use crate::rig::{Ask, If, Rig, delete, get, list, put, version};
use crate::streams::{done, write, writer};

fn fill(rig: &mut Rig, directory: &directory::Client, keys: &[&str]) {
    for key in keys {
        let value = key.as_bytes();
        version(&rig.wait(put(directory, key, value, If::Any, Durability::Buffered)).unwrap());
    }
}

#[test]
fn a_prefix_covers_whole_segments_in_the_order_of_bytes() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    fill(&mut rig, &all, &["a", "a-b", "a.c", "a/x", "a/y/z", "a0", "ab", "b"]);
    let keys = |ask| Ask { keys_only: true, ..ask };
    let whole = rig.wait(list(&all, keys(Ask::default()))).unwrap();
    assert_eq!(whole, ["a", "a-b", "a.c", "a/x", "a/y/z", "a0", "ab", "b"]);
    let part = rig.wait(list(&all, keys(Ask { prefix: "a", ..Ask::default() }))).unwrap();
    assert_eq!(part, ["a", "a/x", "a/y/z"]);
    let rest = Ask { prefix: "a", after: "a-b", ..Ask::default() };
    assert_eq!(rig.wait(list(&all, keys(rest))).unwrap(), ["a/x", "a/y/z"]);
    let none = Ask { prefix: "a", after: "a/z", ..Ask::default() };
    assert!(rig.wait(list(&all, keys(none))).unwrap().is_empty());
    // The path of a directory is no key of it.
    let below = rig.directory(client, "/state/a");
    assert_eq!(rig.wait(list(&below, Ask::default())).unwrap(), ["x=a/x", "y/z=a/y/z"]);
    let wrong = rig.wait(list(&all, Ask { after: "a/", ..Ask::default() })).unwrap();
    assert!(wrong[0].starts_with("INVALID_KEY: "), "{wrong:?}");
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let names: Vec<String> = (0..25).map(|number| format!("k/{number:02}")).collect();
    fill(&mut rig, &all, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let ask = Ask { after: &after, limit: 10, keys_only: true, ..Ask::default() };
        let mut page = rig.wait(list(&all, ask)).unwrap();
        pages += 1;
        let next = page.last().and_then(|line| line.strip_prefix("next ")).map(String::from);
        page.retain(|line| !line.starts_with("next "));
        found.extend(page);
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!((found, pages), (names, 3));
}

#[test]
fn a_page_ends_before_its_reply_is_too_large() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    for number in 0..20 {
        let key = format!("large/{number:02}");
        let value = vec![b'v'; 65_536];
        version(&rig.wait(put(&all, &key, &value, If::Any, Durability::Durable)).unwrap());
    }
    rig.clients[client].received.clear();
    let page = rig.wait(list(&all, Ask::default())).unwrap();
    assert_eq!(page.len(), 16, "15 values of 64 KiB and their keys fit into 1 MiB");
    assert_eq!(page[15], "next large/14");
    let reply_bytes = rig.clients[client].received.len();
    assert!(reply_bytes <= 1 << 20, "{reply_bytes}");
    let rest = rig.wait(list(&all, Ask { after: "large/14", ..Ask::default() })).unwrap();
    assert_eq!(rest.len(), 5);
}

#[test]
fn what_one_may_not_see_leaves_no_trace() {
    let mut rig = Rig::open();
    let keeper = rig.connect("keeper");
    let all = rig.directory(keeper, "/state");
    let keys = [
        "a-b",
        "a/x",
        "a-b/y",
        "boot/slot",
        "net",
        "net-x",
        "net/secret",
        "net/secret-not",
        "net/secret/psk",
        "net/secret/q",
        "net/t",
        "z",
    ];
    fill(&mut rig, &all, &keys);
    let names = |ask| Ask { keys_only: true, ..ask };
    let client = rig.connect("net");
    let mine = rig.directory(client, "/state");
    let seen = ["a-b", "a-b/y", "net", "net/secret-not", "net/t"];
    assert_eq!(rig.wait(list(&mine, names(Ask::default()))).unwrap(), seen);
    let page = rig.wait(list(&mine, names(Ask { limit: 3, ..Ask::default() }))).unwrap();
    assert_eq!(page, ["a-b", "a-b/y", "net", "next net"]);
    let page = Ask { limit: 2, after: "net", ..Ask::default() };
    assert_eq!(rig.wait(list(&mine, names(page))).unwrap(), ["net/secret-not", "net/t"]);
    let hidden = Ask { prefix: "net/secret", ..Ask::default() };
    assert_eq!(rig.wait(list(&mine, names(hidden))).unwrap(), ["ACCESS_DENIED"]);
    let other = Ask { prefix: "boot", ..Ask::default() };
    assert_eq!(rig.wait(list(&mine, names(other))).unwrap(), ["ACCESS_DENIED"]);
    // Who may list and not get sees names alone.
    let client = rig.connect("reader");
    let names_only = rig.directory(client, "/state/net");
    assert_eq!(rig.wait(list(&names_only, Ask::default())).unwrap(), ["ACCESS_DENIED"]);
    let seen = rig.wait(list(&names_only, names(Ask::default()))).unwrap();
    assert_eq!(seen, ["secret-not", "t"]);
}

#[test]
fn a_list_waits_for_the_own_writes_below_it() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    fill(&mut rig, &all, &["b/1"]);
    rig.device.holds = true;
    let written = put(&all, "a/1", b"new", If::Any, Durability::Durable);
    let mut waits = std::pin::pin!(list(&all, Ask { prefix: "a", ..Ask::default() }));
    assert_eq!(rig.wait(waits.as_mut()), None);
    rig.device.holds = false;
    assert_eq!(rig.wait(waits).unwrap(), ["1=new"].map(|line| format!("a/{line}")));
    version(&rig.wait(written).unwrap());
}

/// Keys that go while their page is read leave others behind it, which a page without a successor would hide.
#[test]
fn a_page_whose_keys_are_deleted_while_it_is_read_is_not_the_last() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    for key in ["a", "b"] {
        // Of several records: what was read of them first leads to nothing once the key is gone.
        let writer = writer(&all, key, If::Any, 0);
        for _ in 0..3 {
            assert_eq!(write(&mut rig, &writer, &[b'v'; 20_000]), "");
        }
        version(&done(&mut rig, &writer));
    }
    version(&rig.wait(put(&all, "c", b"c", If::Any, Durability::Durable)).unwrap());
    let mut rig = rig.restart();
    let (client, other) = (rig.connect("keeper"), rig.connect("keeper"));
    let (all, theirs) = (rig.directory(client, "/state"), rig.directory(other, "/state"));
    for directory in [&all, &theirs] {
        assert_eq!(rig.wait(get(directory, "none")).unwrap(), "absent");
    }
    rig.device.holds_reads = true;
    let page = list(&all, Ask { limit: 2, ..Ask::default() });
    rig.settle();
    for key in ["a", "b"] {
        assert_eq!(rig.wait(delete(&theirs, key, If::Any)).unwrap(), "deleted");
    }
    rig.device.holds_reads = false;
    assert_eq!(rig.wait(page).unwrap(), ["c=c"]);
}
