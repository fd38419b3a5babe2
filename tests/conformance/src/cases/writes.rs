//! Versions, preconditions, durabilities.

use std::collections::BTreeSet;

use statefs_client::{Durability, Error, Precondition, Rights, WriteOptions};

use crate::stage::Stage;

pub(super) fn a_version_is_new_with_every_write(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        for key in ["a", "b"] {
            let version = port.wait(here.put(key, b"the same")).unwrap();
            assert!(seen.insert(version.to_string()), "{version} comes twice");
        }
        assert_eq!(port.wait(here.delete("a")), Ok(true));
    }
}

pub(super) fn a_put_happens_only_if_its_precondition_holds(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let other = port.wait(here.put("other", b"v")).unwrap();
    let absent = Err(Error::Conflict { current: None });
    assert_eq!(port.wait(here.put_if_version("k", b"x", other)), absent);
    assert_eq!(port.wait(here.get("k")), Ok(None));
    let first = port.wait(here.put_if_absent("k", b"1")).unwrap();
    let conflict = Err(Error::Conflict { current: Some(first) });
    assert_eq!(port.wait(here.put_if_absent("k", b"x")), conflict);
    assert_eq!(port.wait(here.put_if_version("k", b"x", other)), conflict);
    assert_eq!(port.wait(here.get("k")).unwrap().unwrap().data, b"1");
    let second = port.wait(here.put_if_version("k", b"2", first)).unwrap();
    let conflict = Err(Error::Conflict { current: Some(second) });
    assert_eq!(port.wait(here.put_if_version("k", b"x", first)), conflict);
    let found = port.wait(here.get("k")).unwrap().unwrap();
    assert_eq!((found.version, found.data.as_slice()), (second, b"2".as_slice()));
}

pub(super) fn a_delete_happens_only_if_its_precondition_holds(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let first = port.wait(here.put("k", b"1")).unwrap();
    let second = port.wait(here.put("k", b"2")).unwrap();
    let only_absent =
        WriteOptions { precondition: Precondition::Absent, ..WriteOptions::default() };
    let conflict = Err(Error::Conflict { current: Some(second) });
    assert_eq!(port.wait(here.delete_if_version("k", first)), conflict);
    assert_eq!(port.wait(here.delete_with("k", only_absent)), conflict);
    assert_eq!(port.wait(here.get("k")).unwrap().unwrap().version, second);
    assert_eq!(port.wait(here.delete_if_version("k", second)), Ok(true));
    let absent = Err(Error::Conflict { current: None });
    assert_eq!(port.wait(here.delete_if_version("k", second)), absent);
    assert_eq!(port.wait(here.delete_with("k", only_absent)), Ok(false));
    assert_eq!(
        port.wait(here.put_if_version("k", b"x", second)),
        Err(Error::Conflict { current: None })
    );
}

pub(super) fn preconditions_hold_for_every_durability(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    for durability in [Durability::Durable, Durability::Buffered, Durability::Strict] {
        let options = |precondition| WriteOptions { precondition, durability };
        let absent = options(Precondition::Absent);
        let version = port.wait(here.put_with("k", b"v", absent)).unwrap();
        let conflict = Error::Conflict { current: Some(version) };
        assert_eq!(port.wait(here.put_with("k", b"x", absent)), Err(conflict));
        let found = port.wait(here.get("k")).unwrap().unwrap();
        assert_eq!((found.version, found.data.as_slice()), (version, b"v".as_slice()));
        let exactly = options(Precondition::Version(version));
        assert_eq!(port.wait(here.delete_with("k", exactly)), Ok(true));
        assert_eq!(port.wait(here.get("k")), Ok(None));
        assert_eq!(port.wait(here.delete_with("k", options(Precondition::Any))), Ok(false));
    }
}

pub(super) fn sync_needs_no_right_and_nothing_to_do(stage: &mut Stage<'_>) {
    let place = stage.place().to_owned();
    let port = stage.connect("owner");
    let powerless = port.directory(&place, Rights::NONE);
    assert_eq!(port.wait(powerless.sync()), Ok(()));
    let here = port.directory(&place, Rights::PUT);
    port.wait(here.put_buffered("k", b"v")).unwrap();
    // Whatever the connection wrote, through whichever directory.
    assert_eq!(port.wait(powerless.sync()), Ok(()));
    assert_eq!(port.wait(here.sync()), Ok(()));
}
