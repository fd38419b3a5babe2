use alloc::collections::BTreeSet;
use alloc::vec;

use super::*;
use crate::conformance::{self, bytes_at, flush, read, run, wait, write};
use crate::{Counting, Event, RequestId, unprotected_writes};

const BYTES: u64 = 64 * 1024;
const UNIT: usize = 512;

fn device(seed: u64) -> SimDevice {
    SimDevice::new(SimConfig::new(seed, BYTES))
}

/// Sectors of 512 bytes over physical units of 4096.
fn coarse(seed: u64) -> SimDevice {
    let mut config = SimConfig::new(seed, BYTES);
    config.geometry.physical_bytes = 4096;
    SimDevice::new(config)
}

fn once(kind: FaultKind, after: u64) -> Fault {
    Fault { kind, after, repeat: Repeat::Once }
}

#[track_caller]
fn done(device: &mut SimDevice, request: Request) {
    assert_eq!(run(device, request).result, Ok(()));
}

#[track_caller]
fn fails(device: &mut SimDevice, request: Request) {
    assert_eq!(run(device, request).result, Err(FAILURE));
}

/// Says which fate made `seen` out of 0x00 bytes, by a write of 0xFF.
fn fate_of(seen: &[u8]) -> Fate {
    let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let whole = seen.iter().all(|byte| [0, 0xFF].contains(byte));
    match (whole, changes, seen[0]) {
        (true, 0, 0) => Fate::Old,
        (true, 0, _) => Fate::New,
        (true, 1, 0) => Fate::Suffix,
        (true, 1, _) => Fate::Prefix,
        (true, _, _) => Fate::Mixed,
        (false, ..) => Fate::Garbage,
    }
}

const FATES: [Fate; 6] =
    [Fate::Old, Fate::New, Fate::Prefix, Fate::Suffix, Fate::Mixed, Fate::Garbage];

#[test]
fn keeps_the_contract_at_once_and_in_any_order() {
    for immediate in [true, false] {
        for physical_bytes in [512, 4096] {
            for sector_bytes in [512, physical_bytes] {
                let mut config = SimConfig::new(1, BYTES);
                config.immediate = immediate;
                config.geometry.sector_bytes = sector_bytes;
                config.geometry.physical_bytes = physical_bytes;
                conformance::check(&mut SimDevice::new(config));
            }
        }
    }
}

#[test]
fn requests_end_in_many_orders_and_one_seed_gives_one() {
    let order = |seed| {
        let mut device = device(seed);
        for id in 0..4 {
            device.submit(flush(id));
        }
        let ids: Vec<u64> = (0..4).map(|_| wait(&mut device).id.0).collect();
        ids
    };
    let orders: BTreeSet<Vec<u64>> = (0..1000).map(order).collect();
    assert_eq!(orders.len(), 24);
    assert!((0..100).all(|seed| order(seed) == order(seed)));
}

#[test]
fn at_once_means_in_order() {
    let mut config = SimConfig::new(1, BYTES);
    config.immediate = true;
    let mut device = SimDevice::new(config);
    device.submit(write(1, 0, &[1; UNIT]));
    device.submit(read(2, 0, UNIT));
    assert_eq!(device.in_flight(), 2);
    assert_eq!(device.completion().unwrap().id.0, 1);
    assert_eq!(device.completion().unwrap().buffer[..], [1; UNIT]);
    // Even then, a power cut takes what was not flushed.
    device.power_cut_choosing(|_| Fate::Old);
    assert_eq!(bytes_at(&mut device, 0, UNIT), [0; UNIT]);
}

#[test]
fn what_a_flush_covers_survives_a_thousand_power_cuts() {
    for seed in 0..1000 {
        let mut device = device(seed);
        done(&mut device, write(1, 0, &[1; 4 * UNIT]));
        done(&mut device, write(2, UNIT as u64, &[2; UNIT]));
        done(&mut device, flush(3));
        // Neighbours that are not flushed, completed and in flight.
        done(&mut device, write(4, 4 * UNIT as u64, &[3; UNIT]));
        device.submit(write(5, 5 * UNIT as u64, &[4; UNIT]));
        device.submit(flush(6));
        device.power_cut();
        let seen = bytes_at(&mut device, 0, 4 * UNIT);
        assert_eq!(seen[..UNIT], [1; UNIT]);
        assert_eq!(seen[UNIT..2 * UNIT], [2; UNIT]);
        assert_eq!(seen[2 * UNIT..], [1; 2 * UNIT]);
        assert_eq!(device.durable(), device.visible());
    }
}

#[test]
fn a_power_cut_leaves_an_unflushed_unit_in_every_way() {
    for completed in [true, false] {
        let mut fates = BTreeSet::new();
        let mut independent = BTreeSet::new();
        for seed in 0..1000 {
            let mut device = device(seed);
            device.submit(write(1, 0, &[0xFF; 2 * UNIT]));
            if completed {
                wait(&mut device);
            }
            device.power_cut();
            let seen = bytes_at(&mut device, 0, 2 * UNIT);
            fates.insert(fate_of(&seen[..UNIT]));
            independent.insert((fate_of(&seen[..UNIT]), fate_of(&seen[UNIT..])));
            // What was left stays, whatever it is.
            assert_eq!(bytes_at(&mut device, 0, 2 * UNIT), seen);
            device.power_cut();
            assert_eq!(bytes_at(&mut device, 0, 2 * UNIT), seen);
        }
        assert_eq!(fates, BTreeSet::from(FATES));
        assert_eq!(independent.len(), FATES.len() * FATES.len());
    }
}

#[test]
fn a_power_cut_may_leave_any_version_of_a_unit() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let mut device = device(seed);
        for version in 1..=3 {
            done(&mut device, write(1, 0, &[version; UNIT]));
        }
        device.power_cut();
        let left = bytes_at(&mut device, 0, UNIT);
        if left.iter().all(|byte| *byte == left[0]) {
            seen.insert(left[0]);
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_submitted() {
    let mut device = device(1);
    done(&mut device, write(1, 0, &[1; UNIT]));
    device.submit(flush(2));
    device.submit(write(3, UNIT as u64, &[2; UNIT]));
    while device.in_flight() > 0 {
        device.completion();
    }
    assert_eq!(device.risks().count(), 1);
    device.power_cut_choosing(|_| Fate::Old);
    assert_eq!(bytes_at(&mut device, 0, UNIT), [1; UNIT]);
    assert_eq!(bytes_at(&mut device, UNIT as u64, UNIT), [0; UNIT]);
}

#[test]
fn a_chosen_cut_is_asked_about_each_unit_and_obeyed() {
    let mut device = device(1);
    done(&mut device, write(1, 512, &[0xFF; 3 * UNIT]));
    device.submit(write(2, 8192, &[0xFF; 3 * UNIT]));
    let risks: Vec<Risk> = device.risks().collect();
    let offsets: Vec<u64> = risks.iter().map(|risk| risk.offset).collect();
    assert_eq!(offsets, [512, 1024, 1536, 8192, 8704, 9216]);
    assert!(risks.iter().all(|risk| risk.completed == (risk.index < 3)));
    let mut asked = Vec::new();
    device.power_cut_choosing(|risk| {
        asked.push(risk);
        FATES[risk.index]
    });
    assert_eq!(asked, risks);
    for (risk, fate) in risks.iter().zip(FATES) {
        assert_eq!(fate_of(&bytes_at(&mut device, risk.offset, UNIT)), fate);
    }
    assert_eq!(device.risks().count(), 0);
}

#[test]
fn a_write_of_part_of_a_unit_risks_all_of_it() {
    let mut device = coarse(1);
    done(&mut device, write(1, 0, &[0xFF; 8192]));
    done(&mut device, flush(2));
    done(&mut device, write(3, 512, &[0; UNIT]));
    let mut kept = device.clone();
    device.power_cut_choosing(|_| Fate::Garbage);
    let seen = bytes_at(&mut device, 0, 8192);
    assert_eq!(fate_of(&seen[..UNIT]), Fate::Garbage);
    assert_eq!(seen[4096..], [0xFF; 4096]);
    kept.power_cut_choosing(|_| Fate::New);
    let seen = bytes_at(&mut kept, 0, 4096);
    assert_eq!(seen[512..1024], [0; UNIT]);
    assert_eq!(seen[..512], [0xFF; UNIT]);
    assert_eq!(seen[1024..], [0xFF; 4096 - 1024]);
}

#[test]
fn equal_seeds_give_equal_images() {
    let image = |seed| {
        let mut device = device(seed);
        for id in 0..20 {
            device.submit(write(id, id * 512, &[0xFF; 1024]));
            device.completion();
        }
        device.power_cut();
        device.durable().to_vec()
    };
    assert_eq!(image(7), image(7));
    assert_ne!(image(7), image(8));
}

#[test]
fn a_process_death_keeps_the_cache_and_decides_about_the_rest() {
    let mut in_flight = BTreeSet::new();
    let mut flushed = BTreeSet::new();
    for seed in 0..200 {
        let mut device = device(seed);
        done(&mut device, write(1, 0, &[1; UNIT]));
        device.submit(write(2, 1024, &[0xFF; 2 * UNIT]));
        device.submit(flush(3));
        device.process_death();
        assert_eq!(device.in_flight(), 0);
        assert!((0..100).all(|_| device.completion().is_none()));
        assert_eq!(bytes_at(&mut device, 0, UNIT), [1; UNIT]);
        in_flight.insert(fate_of(&bytes_at(&mut device, 1024, 2 * UNIT)));
        // What is in the cache alone can still be lost.
        device.power_cut_choosing(|_| Fate::Old);
        flushed.insert(bytes_at(&mut device, 0, UNIT)[0]);
    }
    assert_eq!(in_flight, BTreeSet::from([Fate::Old, Fate::New, Fate::Prefix]));
    assert_eq!(flushed, BTreeSet::from([0, 1]));
}

#[test]
fn a_restored_image_is_durable() {
    let mut device = device(1);
    done(&mut device, write(1, 0, &[1; UNIT]));
    device.submit(write(2, 0, &[2; UNIT]));
    device.restore(&vec![9; 64 * 1024]);
    assert_eq!(device.in_flight(), 0);
    device.power_cut();
    assert_eq!(device.visible(), vec![9; 64 * 1024]);
}

#[test]
fn the_nth_request_of_a_kind_fails_once_or_for_good() {
    let kinds =
        [FaultKind::ReadFails, FaultKind::WriteFails, FaultKind::FlushFails { shows: true }];
    let request = |kind, id| match kind {
        FaultKind::ReadFails => read(id, 0, UNIT),
        FaultKind::WriteFails => write(id, 0, &[1; UNIT]),
        _ => flush(id),
    };
    for kind in kinds {
        for repeat in [Repeat::Once, Repeat::Always] {
            let mut device = device(1);
            let after = 2;
            device.inject(Fault { kind, after, repeat });
            let failed: Vec<bool> = (0..5)
                .map(|id| {
                    // Requests of other kinds do not count.
                    for other in kinds {
                        if other != kind {
                            done(&mut device, request(other, 100 + id));
                        }
                    }
                    run(&mut device, request(kind, id)).result == Err(FAILURE)
                })
                .collect();
            let always = repeat == Repeat::Always;
            assert_eq!(failed, [false, false, true, always, always]);
        }
    }
}

#[test]
fn a_healed_device_works() {
    let mut device = device(1);
    device.inject(Fault { kind: FaultKind::ReadFails, after: 0, repeat: Repeat::Always });
    device.make_unreadable(0, 512, Cure::Never);
    fails(&mut device, read(1, 0, UNIT));
    device.heal();
    done(&mut device, read(2, 0, UNIT));
}

#[test]
fn a_failed_write_leaves_any_mixture() {
    let mut fates = BTreeSet::new();
    for seed in 0..500 {
        let mut device = device(seed);
        device.inject(once(FaultKind::WriteFails, 0));
        fails(&mut device, write(1, 0, &[0xFF; 2 * UNIT]));
        let seen = bytes_at(&mut device, 0, 2 * UNIT);
        fates.insert((fate_of(&seen[..UNIT]), fate_of(&seen[UNIT..])));
        assert_eq!(bytes_at(&mut device, 0, 2 * UNIT), seen);
    }
    assert_eq!(fates.len(), FATES.len() * FATES.len());
}

#[test]
fn a_failed_flush_loses_writes_that_no_later_flush_saves() {
    for shows in [true, false] {
        let mut left = BTreeSet::new();
        for seed in 0..500 {
            let mut device = device(seed);
            done(&mut device, write(1, 0, &[0xFF; UNIT]));
            device.inject(once(FaultKind::FlushFails { shows }, 0));
            fails(&mut device, flush(2));
            let seen = bytes_at(&mut device, 0, UNIT);
            if shows {
                assert_eq!(seen, [0xFF; UNIT]);
            } else {
                assert_eq!(seen, device.durable()[..UNIT]);
            }
            done(&mut device, write(3, 4096, &[5; UNIT]));
            done(&mut device, flush(4));
            device.process_death();
            assert_eq!(bytes_at(&mut device, 0, UNIT), seen);
            device.power_cut();
            left.insert(fate_of(&bytes_at(&mut device, 0, UNIT)));
            assert_eq!(bytes_at(&mut device, 4096, UNIT), [5; UNIT]);
        }
        assert_eq!(left, BTreeSet::from(FATES));
    }
}

#[test]
fn a_lying_flush_is_made_good_by_the_next() {
    let mut device = device(1);
    device.inject(once(FaultKind::FlushLies, 0));
    done(&mut device, write(1, 0, &[1; UNIT]));
    done(&mut device, flush(2));
    let mut cut = device.clone();
    cut.power_cut_choosing(|_| Fate::Old);
    assert_eq!(bytes_at(&mut cut, 0, UNIT), [0; UNIT]);
    done(&mut device, flush(3));
    device.power_cut_choosing(|_| Fate::Old);
    assert_eq!(bytes_at(&mut device, 0, UNIT), [1; UNIT]);
}

#[test]
fn a_lost_write_changes_nothing() {
    let mut device = device(1);
    device.inject(once(FaultKind::WriteLost, 0));
    done(&mut device, write(1, 0, &[1; UNIT]));
    done(&mut device, flush(2));
    assert_eq!(bytes_at(&mut device, 0, UNIT), [0; UNIT]);
    device.inject(once(FaultKind::WriteLost, 0));
    device.submit(write(3, 0, &[1; UNIT]));
    assert_eq!(device.risks().count(), 0);
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let mut device = device(1);
    device.inject(once(FaultKind::WriteMisdirected { to: 4096 }, 0));
    done(&mut device, write(1, 0, &[1; UNIT]));
    assert_eq!(bytes_at(&mut device, 0, UNIT), [0; UNIT]);
    assert_eq!(bytes_at(&mut device, 4096, UNIT), [1; UNIT]);
    done(&mut device, flush(2));
    device.power_cut();
    assert_eq!(bytes_at(&mut device, 4096, UNIT), [1; UNIT]);
    // Over the end of the device, and far behind it.
    for to in [BYTES - 512, BYTES, u64::MAX] {
        device.inject(once(FaultKind::WriteMisdirected { to }, 0));
        device.inject(once(FaultKind::WriteMisdirected { to }, 1));
        done(&mut device, write(3, 0, &[2; 2 * UNIT]));
        device.submit(write(4, 0, &[2; 2 * UNIT]));
        device.power_cut_choosing(|_| Fate::New);
        assert_eq!(bytes_at(&mut device, 0, UNIT), [0; UNIT]);
        assert_eq!(bytes_at(&mut device, BYTES - 512, UNIT), [2; UNIT]);
    }
}

#[test]
fn a_misdirected_read_yields_other_bytes() {
    let mut device = device(1);
    done(&mut device, write(1, 4096, &[1; UNIT]));
    device.inject(once(FaultKind::ReadMisdirected { from: 4096 }, 0));
    assert_eq!(bytes_at(&mut device, 0, UNIT), [1; UNIT]);
    assert_eq!(bytes_at(&mut device, 0, UNIT), [0; UNIT]);
    device.inject(once(FaultKind::ReadMisdirected { from: u64::MAX }, 0));
    assert_eq!(bytes_at(&mut device, 4096, UNIT), [0; UNIT]);
}

#[test]
fn unreadable_sectors_fail_until_their_cure() {
    let mut device = device(1);
    for (cure, after_read, after_write) in
        [(Cure::FailedRead, true, true), (Cure::Write, false, true), (Cure::Never, false, false)]
    {
        device.make_unreadable(512, 512, cure);
        done(&mut device, read(1, 0, UNIT));
        fails(&mut device, read(2, 0, 4 * UNIT));
        let readable = run(&mut device, read(3, 512, UNIT)).result.is_ok();
        assert_eq!(readable, after_read);
        // A power cut heals nothing, and neither does a write beside it.
        device.power_cut();
        done(&mut device, write(4, 0, &[1; UNIT]));
        let readable = run(&mut device, read(5, 512, UNIT)).result.is_ok();
        assert_eq!(readable, after_read);
        done(&mut device, write(6, 512, &[1; UNIT]));
        let readable = run(&mut device, read(7, 512, UNIT)).result.is_ok();
        assert_eq!(readable, after_write);
    }
}

#[test]
fn damage_is_where_it_was_ordered() {
    let mut device = device(1);
    done(&mut device, write(1, 0, &[0x0F; 4 * UNIT]));
    done(&mut device, write(2, 8192, &[0x77; UNIT]));
    done(&mut device, flush(3));
    device.corrupt(0, 512, Damage::BitFlip { bit: 12 });
    device.corrupt(512, 512, Damage::Zero);
    device.corrupt(1024, 512, Damage::Random);
    device.corrupt(1536, 512, Damage::CopyFrom { offset: 8192 });
    // Beyond the end there is nothing to damage.
    device.corrupt(BYTES, 512, Damage::Random);
    device.corrupt(BYTES - 512, 4096, Damage::CopyFrom { offset: u64::MAX });
    device.power_cut();
    let seen = bytes_at(&mut device, 0, 4 * UNIT);
    let mut flipped = [0x0F; UNIT];
    flipped[1] = 0x1F;
    assert_eq!(seen[..512], flipped);
    assert_eq!(seen[512..1024], [0; UNIT]);
    assert_eq!(fate_of(&seen[1024..1536]), Fate::Garbage);
    assert_eq!(seen[1536..], [0x77; UNIT]);
    assert!(device.visible()[4 * UNIT..8192].iter().all(|&b| b == 0));
}

#[test]
fn what_the_log_calls_protected_survives() {
    let mut protected = 0;
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let mut device = Counting::new(device(seed));
        device.record();
        for id in 0..40 {
            // Each write has a unit of its own, so what is on it tells whether it was kept.
            device.submit(match rng.u8(..3) {
                0 => flush(id),
                _ => write(id, id * 512, &[0xFF; UNIT]),
            });
            for _ in 0..rng.u8(..4) {
                device.completion();
            }
        }
        let open = unprotected_writes(device.events());
        let writes: Vec<(u64, u64)> = device.events().iter().filter_map(written).collect();
        device.inner_mut().power_cut();
        for (id, offset) in writes {
            if !open.contains(&RequestId(id)) {
                protected += 1;
                assert_eq!(bytes_at(&mut device, offset, UNIT), [0xFF; UNIT]);
            }
        }
    }
    assert!(protected > 1000);
}

fn written(event: &Event) -> Option<(u64, u64)> {
    match event {
        Event::Submitted { id, operation: Operation::Write { offset }, .. } => {
            Some((id.0, *offset))
        }
        _ => None,
    }
}

#[test]
fn a_unit_that_loses_its_last_write_holds_what_it_held_before() {
    let mut device = device(1);
    device.remember();
    let unit = |n: u64| n * UNIT as u64;
    for (round, content) in (0..).zip([1, 2, 2, 3]) {
        // The second unit changes in the first round alone, the third never.
        done(&mut device, write(10 * round, 0, &[content; UNIT]));
        done(&mut device, write(10 * round + 1, unit(1), &[1; UNIT]));
        done(&mut device, flush(10 * round + 2));
    }
    assert_eq!(device.changed(), [0, unit(1)]);
    // What no flush covers is not touched, and none of it is said to have changed.
    done(&mut device, write(90, unit(1), &[9; UNIT]));
    assert_eq!(device.changed(), [0]);
    assert!(device.is_settled(0, UNIT) && !device.is_settled(0, UNIT + 1));
    device.power_cut_choosing(|_| Fate::Old);
    device.corrupt(0, 3 * UNIT, Damage::Earlier);
    let held = |n: usize| device.durable()[n * UNIT..(n + 1) * UNIT].to_vec();
    assert_eq!([held(0), held(1), held(2)], [vec![2; UNIT], vec![0; UNIT], vec![0; UNIT]]);
    assert_eq!(device.visible(), device.durable());
    assert_eq!(device.changed(), [] as [u64; 0]);
    // What a cut leaves of a write is a change, too.
    done(&mut device, write(91, 0, &[5; UNIT]));
    device.power_cut_choosing(|_| Fate::Prefix);
    device.corrupt(0, UNIT, Damage::Earlier);
    assert_eq!(device.durable()[..UNIT], [2; UNIT]);
    device.restore(&vec![7; device.durable().len()]);
    device.corrupt(0, UNIT, Damage::Earlier);
    assert_eq!(device.durable()[..UNIT], [7; UNIT]);
}

/// In the memory of another device, which was used and is unlike it.
#[test]
fn a_fork_in_used_memory_is_like_a_new_one() {
    let mut source = device(3);
    source.remember();
    done(&mut source, write(1, 0, &[1; 2 * UNIT]));
    done(&mut source, flush(2));
    done(&mut source, write(3, 512, &[2; 3 * UNIT]));
    source.submit(write(4, 4096, &[3; UNIT]));
    source.inject(once(FaultKind::FlushFails { shows: true }, 0));
    let mut used = coarse(4);
    done(&mut used, write(1, 8192, &[4; 8 * UNIT]));
    used.make_unreadable(0, UNIT, Cure::Never);
    used.clone_from(&source);
    let mut new = source.clone();
    let debug = |device: &SimDevice| alloc::format!("{device:?}");
    assert!(debug(&used) == debug(&source) && debug(&new) == debug(&source));
    for fork in [&mut used, &mut new] {
        fork.power_cut();
    }
    assert!(debug(&used) == debug(&new) && debug(&used) != debug(&source));
}
