//! Several keys in one call.

use statefs_client::{Batch, Error, Feature, Held, Token};

use crate::host::End;
use crate::stage::{Stage, assert_refused};

pub(super) fn all_of_a_batch_happens_or_nothing(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let old = port.wait(here.put("old", b"1")).unwrap();
    let mut batch = Batch::new();
    batch.put("a", b"1").put_if_absent("b", b"2").delete_if_version("old", old).delete("none");
    let versions = port.wait(here.commit(&batch)).unwrap();
    let found = port.wait(here.get_many(&["a", "b", "old", "none"])).unwrap();
    for (at, data) in [(0, b"1"), (1, b"2")] {
        let Some(Held::Value(value)) = &found[at] else { panic!("{found:?}") };
        assert_eq!((Some(value.version), &*value.data), (versions[at], &data[..]));
    }
    assert_eq!((&versions[2..], &found[2..]), (&[None, None][..], &[None, None][..]));

    let mut again = Batch::new();
    again.put("c", b"3").put_if_absent("b", b"x");
    let conflict = Error::BatchConflict { index: 1, current: versions[1] };
    assert_eq!(port.wait(here.commit(&again)), Err(conflict));
    assert_eq!(port.wait(here.get("c")), Ok(None));
    let mut twice = Batch::new();
    twice.put("c", b"3").delete("c");
    assert_refused(port.wait(here.commit(&twice)), "INVALID_ARGUMENT");
    assert_refused(port.wait(here.commit(&Batch::new())), "INVALID_ARGUMENT");
}

pub(super) fn a_batch_up_to_the_limits_is_taken(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let limits = port.hello().limits;
    let mut batch = Batch::new();
    for number in 0..limits.batch_operations {
        batch.put(&format!("{number:04}"), b"v");
    }
    let versions = port.wait(here.commit(&batch)).unwrap();
    assert_eq!(versions.len(), usize::try_from(limits.batch_operations).unwrap());
    batch.put("one more", b"v");
    assert_refused(port.wait(here.commit(&batch)), "BATCH_TOO_LARGE");
}

pub(super) fn a_token_is_answered_again(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    assert!(port.hello().serves(Feature::Tokens));
    // The case may be put to the same volume again.
    let marker = port.wait(here.put("marker", b"")).unwrap().to_string();
    let token = Token(<[u8; 16]>::try_from(marker.as_bytes()).expect("16 hex digits"));
    let mut batch = Batch::new();
    batch.put("k", b"1").delete("marker").put("l", b"2").token(token);
    let first = port.wait(here.commit(&batch)).unwrap();
    let later = port.wait(here.put("k", b"later")).unwrap();
    assert_eq!(port.wait(here.commit(&batch)), Ok(first.clone()));
    drop((port, here));
    for end in [End::Kill, End::Clean] {
        stage.restart(end);
        let (port, here) = stage.owner();
        assert_eq!(port.wait(here.commit(&batch)), Ok(first.clone()), "{end:?}");
        assert_eq!(port.wait(here.get("k")).unwrap().unwrap().version, later);
        let mut other = Batch::new();
        other.put("k", b"other").token(token);
        assert_refused(port.wait(here.commit(&other)), "INVALID_ARGUMENT");
    }
}
