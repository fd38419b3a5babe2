//! The order of what one connection asks, and what others see of it.

use statefs_client::{Error, ListOptions};

use crate::stage::{Stage, assert_refused};

pub(super) fn calls_of_a_connection_happen_in_their_order(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    // All of it leaves before anything is waited for.
    let calls = (
        (here.get("k"), here.put("k", b"1"), here.get("k"), here.put_buffered("k", b"2")),
        (here.get("k"), here.delete("k"), here.get("k"), here.put("k", b"3")),
        (here.get_metadata("k"), here.page(&ListOptions::default())),
    );
    let ((none, first, one, second), (two, deleted, gone, third), (metadata, page)) = calls;
    assert_eq!(port.wait(none), Ok(None));
    let first = port.wait(first).unwrap();
    let one = port.wait(one).unwrap().unwrap();
    assert_eq!((one.version, one.data.as_slice()), (first, b"1".as_slice()));
    let second = port.wait(second).unwrap();
    let two = port.wait(two).unwrap().unwrap();
    assert_eq!((two.version, two.data.as_slice()), (second, b"2".as_slice()));
    assert_eq!(port.wait(deleted), Ok(true));
    assert_eq!(port.wait(gone), Ok(None));
    let third = port.wait(third).unwrap();
    assert_eq!(port.wait(metadata).unwrap().unwrap().version, third);
    let page = port.wait(page).unwrap();
    let found: Vec<_> = page.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(found, ["k"]);
}

pub(super) fn preconditions_see_what_is_under_way(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let (first, second) = (here.put_if_absent("k", b"1"), here.put_if_absent("k", b"2"));
    let (deleted, third) = (here.delete("k"), here.put_if_absent("k", b"3"));
    let first = port.wait(first).unwrap();
    assert_eq!(port.wait(second), Err(Error::Conflict { current: Some(first) }));
    assert_eq!(port.wait(deleted), Ok(true));
    let third = port.wait(third).unwrap();
    let found = port.wait(here.get("k")).unwrap().unwrap();
    assert_eq!((found.version, found.data.as_slice()), (third, b"3".as_slice()));
}

pub(super) fn an_acknowledged_write_is_seen_by_others(stage: &mut Stage<'_>) {
    let (one, mine) = stage.owner();
    let (other, theirs) = stage.connect_here("editor");
    let version = one.wait(mine.put("k", b"durable")).unwrap();
    assert_eq!(other.wait(theirs.get("k")).unwrap().unwrap().version, version);
    let version = one.wait(mine.put_buffered("k", b"buffered")).unwrap();
    assert_eq!(other.wait(theirs.get("k")).unwrap().unwrap().version, version);
    let version = other.wait(theirs.put_if_version("k", b"back", version)).unwrap();
    assert_eq!(one.wait(mine.get("k")).unwrap().unwrap().version, version);
    assert_eq!(one.wait(mine.delete("k")), Ok(true));
    assert_eq!(other.wait(theirs.get("k")), Ok(None));
}

pub(super) fn of_two_that_create_a_key_one_does(stage: &mut Stage<'_>) {
    let (one, mine) = stage.owner();
    let (other, theirs) = stage.connect_here("editor");
    for round in 0..8 {
        let key = format!("{round}");
        let (first, second) = (mine.put_if_absent(&key, b"1"), theirs.put_if_absent(&key, b"2"));
        let (first, second) = (one.wait(first), other.wait(second));
        let (value, version) = match (&first, &second) {
            (Ok(version), Err(Error::Conflict { current: Some(current) })) => {
                assert_eq!(version, current);
                (b"1", version)
            }
            (Err(Error::Conflict { current: Some(current) }), Ok(version)) => {
                assert_eq!(version, current);
                (b"2", version)
            }
            both => panic!("one of two, and the other learns of it: {both:?}"),
        };
        let found = one.wait(mine.get(&key)).unwrap().unwrap();
        assert_eq!((&found.version, found.data.as_slice()), (version, value.as_slice()));
    }
}

pub(super) fn an_acknowledged_write_outlives_its_connection(stage: &mut Stage<'_>) {
    for (key, buffered) in [("a", false), ("b", true)] {
        let (port, here) = stage.owner();
        let put = if buffered { here.put_buffered(key, b"v") } else { here.put(key, b"v") };
        let version = port.wait(put).unwrap();
        drop((port, here));
        let (port, here) = stage.owner();
        assert_eq!(port.wait(here.get(key)).unwrap().unwrap().version, version);
    }
}

pub(super) fn a_connection_goes_on_behind_a_refusal(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let (refused, put, get) = (here.put("a//b", b"v"), here.put("k", b"v"), here.get("k"));
    assert_refused(port.wait(refused), "INVALID_KEY");
    let version = port.wait(put).unwrap();
    assert_eq!(port.wait(get).unwrap().unwrap().version, version);
}
