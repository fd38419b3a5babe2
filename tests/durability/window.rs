//! The window in which damage to both copies of the last group is taken for a torn write, and what closes it.

use blockdev::{BlockDevice, MemoryDevice};
use journal::{
    Batch, Clock, Disk, Durability, FormatOptions, Got, Journal, Operation, Options, Origin,
    Outcome, Precondition, Random, format,
};
use std::rc::Rc;
use tests::drive::{Task, drive, poll};

const MARK: &[u8] = b"the value that both copies lose";

/// Puts one value, lets `ms` milliseconds go by, damages every copy of the value, and opens again.
///
/// Yields the losses that are reported and what a get answers.
fn lose_last_put(durability: Durability, ms: u64, seal: bool) -> (usize, Got) {
    let mut device = MemoryDevice::new(1 << 20);
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let made: Task<_> = Box::pin(async move {
        let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
        format(&of, &mut Random::from_seed([1; 32]), options).await.map(drop)
    });
    drive(&disk, &mut device, None, made).unwrap();
    let clock = Clock::default();
    let journal = open(&disk, &mut device, clock.clone());
    let mut run: Task<()> = Box::pin(journal.run());
    let operation = Operation {
        key: Rc::from(&b"/state/a"[..]),
        value: Some(Rc::from(MARK)),
        precondition: Precondition::Any,
    };
    let batch = Batch { operations: vec![operation], durability, origin: Origin(0) };
    let put = Box::pin(journal.commit(batch));
    let outcome = drive(&disk, &mut device, Some(&mut run), put).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)));
    clock.set(ms);
    if seal {
        let of = journal.clone();
        let sealed: Task<_> = Box::pin(async move { of.seal().await });
        drive(&disk, &mut device, Some(&mut run), sealed).unwrap();
    }
    for _ in 0..100 {
        let _ = poll(&mut run);
        tests::drive::turn(&disk, &mut device);
    }
    drop((run, journal));
    let places: Vec<usize> = places(device.bytes());
    assert_eq!(places.len(), 2, "two copies");
    for at in places {
        device.bytes_mut()[at] ^= 1;
    }
    let disk = Disk::new(device.geometry());
    let journal = open(&disk, &mut device, clock);
    let of = journal.clone();
    let get: Task<_> = Box::pin(async move { of.get(b"/state/a", Origin(0)).await });
    let got = drive(&disk, &mut device, None, get);
    (journal.report().lost.len(), got)
}

fn open(disk: &Disk, device: &mut MemoryDevice, clock: Clock) -> Journal {
    let opening: Task<_> = {
        let disk = disk.clone();
        Box::pin(Journal::open(disk, Random::from_seed([2; 32]), clock, Options::default()))
    };
    drive(disk, device, None, opening).unwrap()
}

fn places(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(MARK.len()).enumerate();
    windows.filter(|(_, window)| *window == MARK).map(|(at, _)| at).collect()
}

#[test]
fn the_last_group_before_silence_is_in_the_documented_window() {
    let (lost, got) = lose_last_put(Durability::Durable, 49, false);
    assert!(lost == 0 && got == Got::Absent, "two damaged copies of the last group look torn");
}

#[test]
fn a_watermark_after_idleness_closes_the_window() {
    let (lost, got) = lose_last_put(Durability::Durable, 50, false);
    assert!(lost == 1 && got == Got::DataLoss);
}

#[test]
fn a_clean_shutdown_closes_the_window() {
    let (lost, got) = lose_last_put(Durability::Durable, 0, true);
    assert!(lost == 1 && got == Got::DataLoss);
}

#[test]
fn a_strict_commit_has_no_window() {
    let (lost, got) = lose_last_put(Durability::Strict, 0, false);
    assert!(lost == 1 && got == Got::DataLoss);
}
