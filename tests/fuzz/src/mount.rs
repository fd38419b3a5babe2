//! Mounting any image: it opens or is refused, tells no value that nobody wrote, and goes on working.

use crate::image::{Base, mutated};
use blockdev::{BlockDevice, SimDevice};
use journal::inspect::inspect;
use journal::{
    Digest, Disk, Durability, Journal, OpenError, Options, Outcome, Plants, Shown, digest,
};
use std::collections::BTreeMap;
use std::task::Poll;
use tests::drive::{Task, poll};
use tests::faults::bench::Bench;

/// Mounts the image that the bytes ask for.
///
/// # Panics
/// When it tells a value that was never written, or tells one thing before it is mounted and another after.
pub fn run(bytes: &[u8]) {
    let mutated = mutated(bytes);
    let base = (!mutated.forged).then_some(mutated.base);
    // A refusal is an answer.
    let _ = mount(&mutated.image, base);
}

/// Looks at `image`, mounts it, uses it and mounts it again; where it is damaged and not forged, it was `base`.
///
/// # Errors
/// The mount is refused.
///
/// # Panics
/// As [`run`].
pub fn mount(image: &[u8], base: Option<&Base>) -> Result<(), OpenError> {
    let mut bench = Bench::blank(Plants::default(), image.len() as u64);
    // The history drew from the first seeds, and no mount may draw the epochs of another.
    bench.seed = 1 << 20;
    bench.device.restore(image);
    let facts = look(&mut bench.device);
    let before = read_only(&mut bench.device);
    let opened = bench.try_open(&mut tests::faults::bench::on).expect("a mount ends");
    let mut store = opened.expect("nothing cuts it off")?;
    let whole = store.journal.report().lost.is_empty();
    if let Ok((digest, values)) = &before {
        check(values, base);
        let (again, _) = contents(&mut bench.device, &store.journal, store.disk());
        // What is forged may point to where a mount writes.
        assert!(base.is_none() || *digest == again, "a mount changes nothing of what is told");
    }
    if base.is_some() && !whole {
        assert!(facts, "what a mount calls lost, an inspection finds");
    }
    let put = store.submit(&[(b"/put", Some(b"a value"))], Durability::Durable);
    let put = bench.drive(&mut store, put, &mut tests::faults::bench::on);
    let put = matches!(put.expect("a commit ends"), Some(Ok(Outcome::Applied(_))));
    bench.idle(&mut store).expect("it comes to rest");
    drop(store);
    let opened = bench.try_open(&mut tests::faults::bench::on).expect("a mount ends");
    let mut store = opened.expect("nothing cuts it off")?;
    if put {
        bench
            .expect(&mut store, b"/put", Some(b"a value"))
            .expect("what was acknowledged is there");
    }
    Ok(())
}

/// What a volume holds: `None` for a value that is lost.
type Values = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn contents(device: &mut SimDevice, journal: &Journal, disk: &Disk) -> (Digest, Values) {
    let journal = journal.clone();
    let task: Task<(Digest, Values)> = Box::pin(async move {
        let mut values = Values::new();
        let digest = digest(&journal, |key, _, shown| match shown {
            Shown::Value(value) => drop(values.insert(key.to_vec(), Some(value.to_vec()))),
            Shown::Part { at: 0, bytes } => drop(values.insert(key.to_vec(), Some(bytes.to_vec()))),
            Shown::Part { bytes, .. } => {
                if let Some(Some(value)) = values.get_mut(key) {
                    value.extend_from_slice(bytes);
                }
            }
            Shown::Lost => drop(values.insert(key.to_vec(), None)),
        });
        let digest = digest.await;
        (digest, values)
    });
    drive(disk, device, task)
}

fn read_only(device: &mut SimDevice) -> Result<(Digest, Values), OpenError> {
    let disk = Disk::new(device.geometry());
    let opening = Journal::open_read_only(disk.clone(), Options::default());
    let journal = drive(&disk, device, Box::pin(opening))?;
    Ok(contents(device, &journal, &disk))
}

/// Inspects the image; tells whether anything that was acknowledged is lost.
fn look(device: &mut SimDevice) -> bool {
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let task: Task<bool> = Box::pin(async move {
        let found = inspect(&of, |_, _| {}).await;
        found.volume.is_some_and(|volume| volume.has_loss())
    });
    drive(&disk, device, task)
}

/// Without the volume's key nobody makes a value that verifies.
fn check(values: &Values, base: Option<&Base>) {
    let Some(base) = base else { return };
    for (key, value) in values {
        let ever = base.ever.get(key).expect("no key that was never written");
        assert!(
            value.as_ref().is_none_or(|value| ever.contains(value)),
            "a value that nobody wrote"
        );
    }
}

/// Drives `task` to its end; nothing that an image says may ask for more at once than a journal reads of its own accord.
fn drive<T>(disk: &Disk, device: &mut SimDevice, mut task: Task<T>) -> T {
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(value) = poll(&mut task) {
            return value;
        }
        while let Some(request) = disk.next_request() {
            assert!(request.buffer.len() <= REQUEST_BYTES_MAX, "{} bytes", request.buffer.len());
            device.submit(request);
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
    panic!("it hangs");
}

/// Far beyond the requests that a small volume takes.
const TURNS_MAX: u32 = 1 << 20;
/// What a segment holds at most, and so a group, whatever a volume says of itself.
const REQUEST_BYTES_MAX: usize = 16 << 20;
