//! What the policy grants, what it does not, and what a denied caller learns.

use statefs_client::{Call, Directory, Held, ListOptions, Precondition, Rights, WriteOptions};

use crate::stage::{Stage, all_keys, assert_denied};

pub(super) fn a_stranger_is_denied_everything(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    port.wait(here.put("k", b"v")).unwrap();
    for prefix in ["/state", stage.place().to_owned().as_str(), "/state/elsewhere"] {
        let stranger = stage.connect("stranger");
        let directory = stranger.directory(prefix, Rights::ALL);
        for (name, ask) in ASKS {
            let denied = stranger.wait(ask(&directory, "k"));
            assert!(denied.is_err(), "{prefix}: {name}");
            assert_denied(denied);
        }
        // Even this needs a directory, and there is none.
        assert_denied(stranger.wait(directory.sync()));
    }
}

pub(super) fn each_may_what_is_granted_and_no_more(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    owner.wait(all.put("k", b"v")).unwrap();
    let (editor, here) = stage.connect_here("editor");
    assert_eq!(editor.wait(here.get("k")).unwrap().unwrap().data, b"v");
    editor.wait(here.put("l", b"w")).unwrap();
    assert_eq!(all_keys(&editor, &here, ListOptions::default()), ["k", "l"]);
    assert_denied(editor.wait(here.delete("k")));

    let (writer, here) = stage.connect_here("writer");
    writer.wait(here.put("k", b"x")).unwrap();
    assert_eq!(writer.wait(here.delete("l")), Ok(true));
    assert_denied(writer.wait(here.get("k")));
    assert_denied(writer.wait(here.get_metadata("k")));
    assert_denied(writer.wait(here.page(&ListOptions::default())));

    let (lister, here) = stage.connect_here("lister");
    assert_eq!(all_keys(&lister, &here, ListOptions::default()), ["k"]);
    assert_denied(lister.wait(here.get("k")));
    assert_denied(lister.wait(here.put("k", b"y")));
    assert_denied(lister.wait(here.delete("k")));

    // None of them may anything elsewhere.
    for port in [&editor, &writer, &lister] {
        assert_denied(port.wait(port.directory("/state/elsewhere", Rights::ALL).put("k", b"v")));
    }
    assert_eq!(owner.wait(all.get("k")).unwrap().unwrap().data, b"x");
}

pub(super) fn a_directory_is_good_for_the_rights_it_was_opened_with(stage: &mut Stage<'_>) {
    let (port, all) = stage.owner();
    port.wait(all.put("k", b"v")).unwrap();
    let place = stage.place();
    let with = |rights| port.directory(place, rights);
    for (right, allowed) in [
        (Rights::NONE, &[][..]),
        (Rights::GET, &["get", "metadata"]),
        (Rights::LIST, &["names"]),
        (Rights::PUT, &["put"]),
        (Rights::DELETE, &["delete"]),
        (Rights::GET | Rights::LIST, &["get", "metadata", "names", "list"]),
        (Rights::GET | Rights::PUT, &["get", "metadata", "put", "create"]),
    ] {
        let directory = with(right);
        for (name, ask) in ASKS {
            let answer = port.wait(ask(&directory, "k"));
            if !allowed.contains(name) {
                assert!(answer.is_err(), "{right:?}: {name}");
                assert_denied(answer);
            } else if *name != "create" {
                assert_eq!(answer, Ok(()), "{right:?}: {name}");
            }
            if *name == "delete" {
                port.wait(all.put("k", b"v")).unwrap();
            }
        }
    }
    // The rights are those of the directory, not of the connection.
    assert_denied(port.wait(with(Rights::GET).put("k", b"x")));
    port.wait(with(Rights::PUT).put("k", b"x")).unwrap();
}

pub(super) fn a_precondition_takes_the_right_to_read(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    let version = owner.wait(all.put("k", b"v")).unwrap();
    let (writer, here) = stage.connect_here("writer");
    for precondition in [Precondition::Absent, Precondition::Version(version)] {
        let options = WriteOptions { precondition, ..WriteOptions::default() };
        for key in ["k", "none"] {
            assert_denied(writer.wait(here.put_with(key, b"x", options)));
            assert_denied(writer.wait(here.delete_with(key, options)));
        }
    }
    assert_eq!(owner.wait(all.get("k")).unwrap().unwrap().version, version);
    writer.wait(here.put("k", b"x")).unwrap();
    assert_eq!(writer.wait(here.delete("k")), Ok(true));
}

/// Plays where the policy has a ceiling: all below here is the owner's alone.
pub(super) fn what_is_hidden_leaves_no_trace(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    owner.wait(all.put("k", b"v")).unwrap();
    let (parent, hidden) = stage.place().rsplit_once('/').unwrap();
    let (parent, hidden) = (parent.to_owned(), hidden.to_owned());
    let beside = owner.directory(&parent, Rights::ALL);
    let beside_keys = ["-not", ".x", "0", "s"].map(|end| format!("{hidden}{end}"));
    for key in &beside_keys {
        owner.wait(beside.put(key, b"v")).unwrap();
    }
    let below_hidden = |key: &str| key == hidden || key.starts_with(&format!("{hidden}/"));
    for service in ["editor", "lister"] {
        let port = stage.connect(service);
        let around = port.directory(&parent, Rights::ALL);
        let seen = all_keys(&port, &around, ListOptions::default());
        assert!(!seen.iter().any(|key| below_hidden(key)), "{seen:?}");
        for key in &beside_keys {
            assert!(seen.contains(key), "{key} of {seen:?}");
        }
        // Neither does a page that begins right before it.
        let (after, limit) = (format!("{hidden}.x"), 1);
        let options = ListOptions { after, limit, keys_only: true, ..ListOptions::default() };
        let page = port.wait(around.page(&options)).unwrap();
        assert_eq!(page.entries[0].key, beside_keys[2]);
        assert_denied(port.wait(around.page(&below(&hidden, true))));
        assert_denied(port.wait(around.get(&format!("{hidden}/k"))));
        let inside = port.directory(stage.place(), Rights::ALL);
        assert_denied(port.wait(inside.get("k")));
    }
    for key in &beside_keys {
        assert_eq!(owner.wait(beside.delete(key)), Ok(true));
    }
}

pub(super) fn names_are_not_values(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    let version = owner.wait(all.put("k", b"v")).unwrap();
    let (lister, here) = stage.connect_here("lister");
    let names = ListOptions { keys_only: true, ..ListOptions::default() };
    let page = lister.wait(here.page(&names)).unwrap();
    let Held::Value(value) = &page.entries[0].held else {
        panic!("a value that is well: {page:?}");
    };
    assert_eq!((value.version, value.bytes, value.data.len()), (version, 1, 0));
    assert_denied(lister.wait(here.page(&ListOptions::default())));
}

pub(super) fn a_denial_is_the_same_bytes_whether_the_key_is_there(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    owner.wait(all.put("present", b"v")).unwrap();
    for (service, denied) in [
        ("lister", &["get", "metadata", "put", "create", "delete", "list"][..]),
        ("writer", &["get", "metadata", "create", "names", "list"]),
        ("stranger", &["get", "metadata", "put", "create", "delete", "names", "list"]),
    ] {
        for (name, ask) in ASKS.iter().filter(|(name, _)| denied.contains(name)) {
            // Both names are equally long, and each is asked on a new connection.
            let heard = ["present", "missing"].map(|key| {
                let (port, here) = stage.connect_here(service);
                assert_denied(port.wait(ask(&here, key)));
                port.heard()
            });
            assert!(!heard[0].is_empty());
            assert_eq!(heard[0], heard[1], "{service}: {name}");
        }
    }
    drop((owner, all));
    // The comparison can tell: who may read hears two different things.
    let heard = ["present", "missing"].map(|key| {
        let (port, here) = stage.owner();
        port.wait(here.get(key)).unwrap();
        port.heard()
    });
    assert_ne!(heard[0], heard[1]);
}

pub(super) fn what_was_denied_has_changed_nothing(stage: &mut Stage<'_>) {
    let (owner, all) = stage.owner();
    let version = owner.wait(all.put("k", b"v")).unwrap();
    for service in ["lister", "stranger"] {
        let (port, here) = stage.connect_here(service);
        for key in ["k", "new"] {
            assert_denied(port.wait(here.put(key, b"x")));
            assert_denied(port.wait(here.put_buffered(key, b"x")));
            assert_denied(port.wait(here.put_if_absent(key, b"x")));
            assert_denied(port.wait(here.delete(key)));
        }
    }
    assert_eq!(owner.wait(all.get("k")).unwrap().unwrap().version, version);
    assert_eq!(owner.wait(all.get("new")), Ok(None));
    assert_eq!(all_keys(&owner, &all, ListOptions::default()), ["k"]);
}

/// Asks something of a key.
type Ask = fn(&Directory, &str) -> Answer;

/// That it was answered.
type Answer = std::pin::Pin<Box<dyn Future<Output = statefs_client::Result<()>>>>;

/// Each way to ask of a key.
const ASKS: &[(&str, Ask)] = &[
    ("get", |directory, key| answer(directory.get(key))),
    ("metadata", |directory, key| answer(directory.get_metadata(key))),
    ("put", |directory, key| answer(directory.put(key, b"v"))),
    ("create", |directory, key| answer(directory.put_if_absent(key, b"v"))),
    ("delete", |directory, key| answer(directory.delete(key))),
    ("names", |directory, key| answer(directory.page(&below(key, true)))),
    ("list", |directory, key| answer(directory.page(&below(key, false)))),
];

fn below(prefix: &str, keys_only: bool) -> ListOptions {
    ListOptions { prefix: prefix.into(), keys_only, ..ListOptions::default() }
}

fn answer<T: 'static>(call: Call<T>) -> Answer {
    Box::pin(async { call.await.map(drop) })
}
