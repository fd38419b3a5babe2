//! A volume that is given large values alone.

use fastrand::Rng;
use journal::{CommitError, Durability, Options, Origin, Outcome, Precondition};
use std::rc::Rc;
use tests::drive::Task;

use crate::rig::{Rig, name};

/// Values that are written over at random, and how often.
const VALUES: u32 = 12;
const UPLOADS: u32 = 6000;

fn upload(rig: &mut Rig, key: u32, bytes: usize) -> Result<Outcome, CommitError> {
    let mut upload = rig.journal.upload(Origin(1));
    let (key, value): (Rc<[u8]>, _) = (name(key).into(), vec![7; bytes]);
    let task: Task<_> = Box::pin(async move {
        upload.append(&value).await?;
        upload.commit(key, Precondition::Any, Durability::Durable).await
    });
    rig.drive(task)
}

/// Cleaning that gains nothing ends after a while, until something is written again. What is uploaded did not count as written, so
/// that cleaning ended for good where nothing else was.
#[test]
fn cleaning_goes_on_for_large_values_alone() {
    let mut rig = Rig::new((2500 << 11) + 16_384, 4096, 2, Options::default());
    let mut rng = Rng::with_seed(3);
    for number in 0..UPLOADS {
        let key = if number < VALUES { number } else { rng.u32(..VALUES) };
        let done = upload(&mut rig, key, rng.usize(70_000..110_000));
        let cleaned = rig.journal.stats().cleaned;
        assert!(matches!(done, Ok(Outcome::Applied(_))), "{number}: {done:?}, {cleaned} cleaned");
    }
    let stats = rig.journal.stats();
    println!("{} segments cleaned of {}", stats.cleaned, stats.geometry.segment_count());
    assert!(stats.cleaned > 32 * u64::from(stats.geometry.segment_count()));
}
