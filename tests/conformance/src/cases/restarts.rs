//! What is left when the daemon ends, and what it is after that.

use statefs_client::{Durability, Error, ListOptions, Rights, WriteOptions};

use crate::host::{End, SERVICES};
use crate::stage::{Stage, all_keys, assert_denied};

pub(super) fn what_was_acknowledged_survives_a_kill(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let mut versions = Vec::new();
    for (key, durability) in [("durable", Durability::Durable), ("strict", Durability::Strict)] {
        port.wait(here.put(key, b"old")).unwrap();
        let options = WriteOptions { durability, ..WriteOptions::default() };
        versions.push((key, port.wait(here.put_with(key, key.as_bytes(), options)).unwrap()));
    }
    port.wait(here.put("deleted", b"v")).unwrap();
    assert_eq!(port.wait(here.delete("deleted")), Ok(true));
    // Killed in the moment of the last answer.
    versions.push(("last", port.wait(here.put("last", b"last")).unwrap()));
    drop((port, here));
    stage.restart(End::Kill);
    let (port, here) = stage.owner();
    for (key, version) in versions {
        let found = port.wait(here.get(key)).unwrap().unwrap();
        assert_eq!((found.version, found.data.as_slice()), (version, key.as_bytes()));
    }
    assert_eq!(all_keys(&port, &here, ListOptions::default()), ["durable", "last", "strict"]);
}

pub(super) fn what_was_synced_survives_a_kill(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    port.wait(here.put("gone", b"v")).unwrap();
    let buffered = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
    let puts: Vec<_> = (0..20).map(|key| here.put_buffered(&format!("{key:02}"), b"v")).collect();
    let deleted = here.delete_with("gone", buffered);
    for put in puts {
        port.wait(put).unwrap();
    }
    assert_eq!(port.wait(deleted), Ok(true));
    assert_eq!(port.wait(here.sync()), Ok(()));
    drop((port, here));
    stage.restart(End::Kill);
    let (port, here) = stage.owner();
    let keys: Vec<String> = (0..20).map(|key| format!("{key:02}")).collect();
    assert_eq!(all_keys(&port, &here, ListOptions::default()), keys);
}

pub(super) fn a_durable_write_keeps_the_buffered_ones_before_it(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    for key in ["a", "b", "c"] {
        port.wait(here.put_buffered(key, b"v")).unwrap();
    }
    port.wait(here.put("d", b"v")).unwrap();
    drop((port, here));
    stage.restart(End::Kill);
    let (port, here) = stage.owner();
    assert_eq!(all_keys(&port, &here, ListOptions::default()), ["a", "b", "c", "d"]);
}

pub(super) fn after_a_kill_a_prefix_of_the_buffered_writes_is_there(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    // More than a store holds back without writing, so that some of it is found.
    let names: Vec<String> = (0..100).map(|key| format!("{key:02}")).collect();
    for name in &names {
        port.wait(here.put_buffered(name, &[0x5a; 5000])).unwrap();
    }
    drop((port, here));
    stage.restart(End::Kill);
    let (port, here) = stage.owner();
    let found = all_keys(&port, &here, ListOptions::default());
    assert!(names.starts_with(&found), "not a prefix: {found:?}");
    for key in &found {
        assert_eq!(port.wait(here.get(key)).unwrap().unwrap().data, [0x5a; 5000]);
    }
}

pub(super) fn a_clean_end_loses_nothing(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    port.wait(here.put("durable", b"v")).unwrap();
    port.wait(here.put_buffered("buffered", b"v")).unwrap();
    drop((port, here));
    for _ in 0..3 {
        stage.restart(End::Clean);
        let (port, here) = stage.owner();
        assert_eq!(all_keys(&port, &here, ListOptions::default()), ["buffered", "durable"]);
    }
}

pub(super) fn versions_are_the_same_after_a_restart(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let mut first = port.wait(here.put("k", b"1")).unwrap();
    drop((port, here));
    let mut seen = vec![first];
    for end in [End::Clean, End::Kill, End::Kill, End::Clean] {
        stage.restart(end);
        let (port, here) = stage.owner();
        assert_eq!(port.wait(here.get("k")).unwrap().unwrap().version, first);
        let conflict = Error::Conflict { current: Some(first) };
        assert_eq!(port.wait(here.put_if_absent("k", b"x")), Err(conflict));
        first = port.wait(here.put_if_version("k", b"2", first)).unwrap();
        assert!(!seen.contains(&first), "{first:?} comes twice");
        seen.push(first);
    }
}

pub(super) fn everybody_is_known_again_after_a_restart(stage: &mut Stage<'_>) {
    for end in [End::Clean, End::Kill] {
        let before = SERVICES.iter().map(|service| stage.connect(service).hello());
        let before: Vec<_> = before.collect();
        stage.restart(end);
        for (service, hello) in SERVICES.iter().zip(before) {
            assert_eq!(stage.connect(service).hello(), hello);
        }
        let stranger = stage.connect("stranger");
        let all = stranger.directory("/state", Rights::ALL);
        assert_denied(stranger.wait(all.page(&ListOptions::default())));
    }
}
