//! Work of several calls, driven by hand.

use super::server::serve;
use crate::{Directory, Error, Result, Rights, StateFs, drive};
use alloc::string::ToString;
use alloc::vec::Vec;
use vat::{Limits, Vat};

/// Counts up what a key holds, twice.
async fn count_twice(directory: Directory) -> Result<Vec<u8>> {
    let first = directory.put_if_absent("count", b"1").await?;
    directory.put_if_version("count", b"2", first).await?;
    let value = directory.get("count").await?;
    value.map(|value| value.data).ok_or(Error::DataLoss)
}

#[test]
fn work_goes_on_from_answer_to_answer() {
    let (ours, theirs) = (Vat::new(None, Limits::default()), serve());
    let directory = StateFs::over(&ours).directory("/state", Rights::ALL);
    let mut turns = 0;
    let counted = drive(&ours, count_twice(directory), |vat| {
        turns += 1;
        theirs.receive(&vat.take_output()).unwrap();
        while theirs.poll(16) {}
        vat.receive(&theirs.take_output()).map_err(|error| error.to_string())
    });
    assert_eq!(counted, Ok(b"2".to_vec()));
    assert_eq!(turns, 3, "one turn for each answer that it waits for");
}

#[test]
fn work_learns_the_end_of_its_connection_from_its_call() {
    let vat = Vat::new(None, Limits::default());
    let directory = StateFs::over(&vat).directory("/state", Rights::ALL);
    let cut = |_: &Vat| Err("cut".into());
    let error = drive(&vat, count_twice(directory.clone()), cut).unwrap_err();
    assert_eq!(error, Error::Indeterminate { cause: "cut".into() });
    let error = drive(&vat, directory.get("k"), cut).unwrap_err();
    assert_eq!(error.code(), "DISCONNECTED");
}

#[test]
fn work_that_waits_for_no_call_ends_with_the_connection() {
    let vat = Vat::new(None, Limits::default());
    let stuck = core::future::pending::<Result<()>>();
    let error = drive(&vat, stuck, |_| Err("cut".into())).unwrap_err();
    assert_eq!(error, Error::Indeterminate { cause: "cut".into() });
}
