//! The device against one that keeps the specification, and against one that lies.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use virtio_drivers::transport::DeviceType;

use super::fake::{Deed, Device, FLUSH, Fake, Flat, INDIRECT, Lie, VERSION_1, play};
use super::{Fault, SetupError, TIMEOUT_MS, VirtioDevice};
use crate::conformance::{self, bytes_at, flush, read, run, write};
use crate::{BlockDevice as _, DeviceError};

type Virtio = VirtioDevice<Flat, Fake>;

fn open(fake: &Fake) -> Result<Virtio, SetupError> {
    VirtioDevice::new(fake.clone())
}

#[test]
fn keeps_what_every_device_promises() {
    for without in [0, INDIRECT, FLUSH, INDIRECT | FLUSH] {
        let fake = Fake::new();
        fake.0.borrow_mut().features &= !without;
        let mut device = open(&fake).unwrap();
        assert_eq!(device.geometry().physical_bytes, 4096);
        conformance::check(&mut device);
        assert_eq!(device.fault(), None);
        assert_eq!(device.flushes(), without & FLUSH == 0);
        assert_eq!(fake.0.borrow().deeds.contains(&Deed::Flush), device.flushes());
    }
}

#[test]
fn requests_are_in_flight_together_and_come_back_in_any_order() {
    let fake = Fake::new();
    fake.0.borrow_mut().lazy = true;
    let mut device = open(&fake).unwrap();
    let content = vec![7; 4 * 4096];
    device.submit(write(1, 0, &content));
    device.submit(write(2, 64 << 10, &content));
    for id in 3..200 {
        device.submit(read(id, 32 << 10, 512));
    }
    assert!(device.completion().is_none());
    let mut ids = Vec::new();
    for _ in 0..20 {
        fake.0.borrow_mut().work();
        while let Some(completion) = device.completion() {
            assert_eq!(completion.result, Ok(()));
            ids.push(completion.id.0);
        }
    }
    assert_eq!(fake.0.borrow().depth_max, super::QUEUE_SLOTS);
    assert_ne!(ids[0], 1, "the last in the queue was done first");
    ids.sort_unstable();
    assert_eq!(ids, (1..200).collect::<Vec<_>>());
    assert_eq!(fake.0.borrow().medium[64 << 10..][..content.len()], content);
}

#[test]
fn the_ring_goes_round_many_times() {
    let fake = Fake::new();
    let mut device = open(&fake).unwrap();
    for id in 0..70_000 {
        assert_eq!(run(&mut device, read(id, 0, 512)).result, Ok(()));
    }
}

#[test]
fn what_the_device_reports_is_an_error_of_that_request_alone() {
    for lie in [Lie::Status(1), Lie::Status(2), Lie::Status(0xFF), Lie::Length(512)] {
        let fake = Fake::new();
        let mut device = open(&fake).unwrap();
        fake.0.borrow_mut().lies = vec![lie];
        let completion = run(&mut device, read(1, 0, 1024));
        assert_eq!(completion.result, Err(DeviceError::Io { code: 0 }), "{lie:?}");
        assert_eq!(device.fault(), None);
        assert_eq!(run(&mut device, read(2, 0, 1024)).result, Ok(()));
    }
}

#[test]
fn a_device_that_contradicts_itself_is_condemned() {
    let lies = [
        (Lie::Id(63), Fault::UnknownRequest),
        (Lie::Id(64), Fault::UnknownRequest),
        (Lie::Id(u32::MAX), Fault::UnknownRequest),
        (Lie::Length(u32::MAX), Fault::WroteTooMuch),
        (Lie::Length(1026), Fault::WroteTooMuch),
        (Lie::Twice, Fault::UnknownRequest),
        (Lie::Ahead(1), Fault::UnknownRequest),
        (Lie::Ahead(100), Fault::UnknownRequest),
    ];
    for (lie, fault) in lies {
        let fake = Fake::new();
        let mut device = open(&fake).unwrap();
        fake.0.borrow_mut().lies = vec![lie];
        device.submit(read(1, 0, 1024));
        device.submit(read(2, 0, 1024));
        let completed = [1, 2].map(|_| conformance::wait(&mut device).id.0);
        assert_eq!(completed.iter().sum::<u64>(), 3, "{lie:?}");
        assert!(device.completion().is_none());
        assert_eq!(device.fault(), Some(fault), "{lie:?}");
        assert!(run(&mut device, flush(3)).result.is_err());
    }
}

/// A device that lost a write tells it once, and calls what it holds clean from then on.
#[test]
fn a_failed_flush_is_final() {
    let fake = Fake::new();
    let mut device = open(&fake).unwrap();
    assert_eq!(run(&mut device, flush(1)).result, Ok(()));
    fake.0.borrow_mut().lies = vec![Lie::Status(1)];
    for id in 2..5 {
        assert_eq!(run(&mut device, flush(id)).result, Err(DeviceError::Io { code: 0 }));
    }
    assert_eq!(run(&mut device, read(5, 0, 512)).result, Ok(()));
    // One that was out beside it, and ends with success, vouches for nothing either.
    fake.0.borrow_mut().lazy = true;
    let mut device = open(&fake).unwrap();
    device.submit(flush(1));
    device.submit(flush(2));
    fake.0.borrow_mut().lies = vec![Lie::Status(1)];
    fake.0.borrow_mut().work();
    for _ in 0..2 {
        let completion = device.completion().unwrap();
        assert_eq!(completion.result, Err(DeviceError::Io { code: 0 }));
    }
    assert_eq!(device.fault(), None);
}

#[test]
fn silence_ends_the_device_even_if_it_does_not_stop() {
    for resets in [true, false] {
        let fake = Fake::new();
        let mut device = open(&fake).unwrap();
        fake.0.borrow_mut().lies = vec![Lie::Silence];
        device.tick(1000);
        device.submit(write(1, 0, &[1; 4096]));
        for now in (1000..1000 + TIMEOUT_MS).step_by(1000) {
            device.tick(now);
        }
        device.tick(999 + TIMEOUT_MS);
        assert!(device.completion().is_none());
        fake.0.borrow_mut().resets = resets;
        device.tick(1000 + TIMEOUT_MS);
        let completion = device.completion().unwrap();
        assert_eq!(completion.result, Err(DeviceError::Io { code: 0 }));
        assert_eq!(completion.buffer.len(), 4096);
        assert_eq!(device.fault(), Some(Fault::Silent));
    }
}

/// As where a hypervisor was stopped and goes on: the clock has jumped, and what was done is told only then.
#[test]
fn time_in_which_nobody_looked_condemns_nobody() {
    let fake = Fake::new();
    fake.0.borrow_mut().lazy = true;
    let mut device = open(&fake).unwrap();
    device.tick(0);
    device.submit(write(1, 0, &[1; 4096]));
    device.tick(TIMEOUT_MS + 10_000);
    fake.0.borrow_mut().work();
    device.tick(TIMEOUT_MS + 10_001);
    assert_eq!(device.completion().unwrap().result, Ok(()));
    assert_eq!(device.fault(), None);
}

#[test]
fn a_device_that_does_not_stop_is_not_waited_for() {
    let fake = Fake::new();
    let device = open(&fake).unwrap();
    fake.0.borrow_mut().resets = false;
    drop(device);
    assert_eq!(open(&fake).err(), Some(SetupError::Stuck));
    // One that stops takes its transport with it.
    fake.0.borrow_mut().resets = true;
    let holders = Rc::strong_count(&fake.0);
    drop(open(&fake).unwrap());
    fake.0.borrow_mut().queue_size = 32;
    assert_eq!(open(&fake).err(), Some(SetupError::Queue));
    assert_eq!(Rc::strong_count(&fake.0), holders);
}

#[test]
fn a_device_that_cannot_be_used_is_refused() {
    check(|device| device.kind = DeviceType::Network, SetupError::NotBlock);
    check(|device| device.resets = false, SetupError::Queue);
    check(|device| device.features &= !VERSION_1, SetupError::Legacy);
    check(|device| device.features |= 1 << 5, SetupError::ReadOnly);
    check(|device| device.queue_size = 32, SetupError::Queue);
    check(|device| device.restless = true, SetupError::Configuration);
    check(|device| device.configuration.truncate(24), SetupError::Configuration);
    let shape = |sector_bytes, physical_exponent, capacity| SetupError::Shape {
        sector_bytes,
        physical_exponent,
        alignment_offset: 0,
        capacity,
    };
    check(|device| device.configuration[24] = 255, shape(512, 255, 256));
    check(|device| device.configuration[24] = 31, shape(512, 31, 256));
    check(|device| device.configuration[20..24].fill(0), shape(0, 3, 256));
    check(|device| device.configuration[20..24].fill(255), shape(u32::MAX, 3, 256));
    check(|device| device.configuration[..8].fill(255), shape(512, 3, u64::MAX));
    let mut shifted = shape(512, 3, 256);
    if let SetupError::Shape { alignment_offset, .. } = &mut shifted {
        *alignment_offset = 9;
    }
    check(|device| device.configuration[25] = 9, shifted);
}

#[test]
fn a_physical_sector_that_begins_where_the_device_does_is_taken() {
    for (exponent, offset) in [(3, 0), (3, 8), (0, 7)] {
        let fake = Fake::new();
        fake.0.borrow_mut().configuration[24..26].copy_from_slice(&[exponent, offset]);
        assert_eq!(open(&fake).unwrap().geometry().physical_bytes, 512 << exponent);
    }
}

fn check(spoil: impl FnOnce(&mut Device), error: SetupError) {
    let fake = Fake::new();
    spoil(&mut fake.0.borrow_mut());
    let found = open(&fake).err();
    // A fresh device has nothing to reset, so one that never does is found by what follows.
    if error != SetupError::Queue || fake.0.borrow().resets {
        assert_eq!(found, Some(error));
    }
}

#[test]
fn features_that_are_refused_after_all_are_an_error() {
    let fake = Fake::new();
    fake.0.borrow_mut().agrees = false;
    assert!(matches!(open(&fake), Err(SetupError::Features { .. })));
}

/// Whatever a device answers: nothing panics, every request ends once, with a buffer of its length,
/// and what is reported as done, was. Some of these devices cannot even be stopped.
#[test]
fn random_lies_never_break_a_promise() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let script: Vec<u8> = (0..random.usize(1..600))
            // Lies are the low numbers: one in four.
            .map(|_| if random.u8(..4) == 0 { random.u8(..10) } else { random.u8(..) })
            .collect();
        play(&script, random.u8(..) > 32);
    }
}

#[test]
fn a_write_that_was_reported_done_is_on_the_medium() {
    let fake = Fake::new();
    let mut device = open(&fake).unwrap();
    assert_eq!(run(&mut device, write(1, 512, &[9; 1024])).result, Ok(()));
    assert_eq!(fake.0.borrow().medium[512..1536], [9; 1024]);
    assert_eq!(bytes_at(&mut device, 512, 1024), [9; 1024]);
}
