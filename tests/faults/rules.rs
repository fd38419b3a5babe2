//! What the engine does beside the log: moves, watermarks, the check; each with the rule that a plant switches off.

use super::bench::{Answer, BLOCK_BYTES, Bench, DEVICE_BYTES, Go, Store, fates, on};
use super::rich::{Age, rich};
use super::singles::Single;
use super::traces::{A, B, C, Ended, damage, expect_lost, expect_report};
use crate::drive::Task;
use blockdev::Fate::{New, Old};
use blockdev::{Cure, SimDevice};
use journal::{Durability, Outcome, Plants};
use std::rc::Rc;

/// A value in doubt that cleaning moves stays in doubt, at whatever moment the store is opened again.
pub fn a_move_keeps_doubt(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, B, b"old")?;
    let places = bench.put(&mut store, A, b"1")?;
    bench.put(&mut store, C, b"2")?;
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[B])?;
    let mut moved = 0;
    for n in 0..200_u8 {
        bench.put(&mut store, C, &[n; 400])?;
        bench.idle(&mut store)?;
        let moves = store.journal.stats().moves;
        if moves > moved {
            moved = moves;
            let mut again = bench.fork();
            let mut store = again.open()?;
            expect_lost(&mut again, &mut store, &[B])?;
        }
    }
    if moved == 0 { Err("nothing is moved".into()) } else { Ok(()) }
}

/// A strict commit is vouched for when it is answered: damage to both of its copies is told.
pub fn strict_is_vouched_for(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut places = Vec::new();
    let mut go = |device: &SimDevice| {
        if places.is_empty() {
            places = device.risks().map(|risk| risk.offset).collect();
        }
        Go::On
    };
    let commit = store.submit(&[(A, Some(b"1"))], Durability::Strict);
    match bench.drive(&mut store, commit, &mut go)? {
        Some(Ok(Outcome::Applied(_))) => {}
        other => return Err(format!("a commit ended with {other:?}")),
    }
    damage(&mut bench, &places);
    let mut store = bench.open()?;
    expect_report(&store)?;
    expect_lost(&mut bench, &mut store, &[A])
}

/// A check repairs nothing of a torn tail, though its numbers were given out again and are durable by now.
pub fn a_check_leaves_a_torn_tail(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    bench.leave_in_flight(&mut store, &[(A, b"2"), (B, b"3")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, Old]));
    let mut store = bench.open_whole()?;
    bench.commit(&mut store, &[(A, Some(b"4")), (B, Some(b"5")), (C, Some(b"6"))])?;
    match bench.check(&mut store)? {
        0 => bench.expect(&mut store, B, Some(b"5")),
        repaired => Err(format!("{repaired} copies of a torn tail are repaired")),
    }
}

/// The same where the checkpoint knows the use that the tail is in, and does not tell where it was cut.
pub fn a_check_leaves_the_tail_of_a_known_use(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    checkpoint(&mut bench, &mut store)?;
    bench.put(&mut store, A, b"2")?;
    bench.leave_in_flight(&mut store, &[(A, b"3"), (B, b"4")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, Old]));
    let mut store = bench.open_whole()?;
    bench.commit(&mut store, &[(A, Some(b"5")), (B, Some(b"6")), (C, Some(b"7"))])?;
    match bench.check(&mut store)? {
        0 => bench.expect(&mut store, B, Some(b"6")),
        repaired => Err(format!("{repaired} copies of a torn tail are repaired")),
    }
}

/// A block of one copy that holds what it held before its use, a group of a torn tail, costs nothing: not at a check, not at
/// a read, which repairs what it meets, and not at an `fsck`.
pub fn a_stale_tail_is_not_taken_for_the_newer(plants: Plants) -> Ended {
    for known in [true, false] {
        let (bench, stale) = stale_tail(plants, known)?;
        let mut checked = bench.fork();
        let mut store = checked.open_whole()?;
        stale.strike(&mut checked.device);
        checked.check(&mut store)?;
        newest(&mut checked)?;

        let mut read = bench.fork();
        let mut store = read.open_whole()?;
        stale.strike(&mut read.device);
        read.expect(&mut store, B, Some(b"6"))?;
        read.idle(&mut store)?;
        newest(&mut read)?;

        let mut mended = bench.fork();
        stale.strike(&mut mended.device);
        mended.mend()?;
        newest(&mut mended)?;
        if !mended.mend()?.is_empty() {
            return Err("an fsck leaves something to do".into());
        }
    }
    Ok(())
}

/// Makes a volume in which a group lies where the torn tail of an earlier use had one, and yields the fault that puts that
/// back in copy A; `known` says whether a checkpoint knows the earlier use.
fn stale_tail(plants: Plants, known: bool) -> Result<(Bench, Stale), String> {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    if known {
        checkpoint(&mut bench, &mut store)?;
    }
    bench.put(&mut store, A, b"2")?;
    let places = bench.leave_in_flight(&mut store, &[(A, b"3"), (B, b"4")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, Old]));
    let older = bench.device.durable().to_vec();
    let mut store = bench.open_whole()?;
    bench.put(&mut store, A, b"5")?;
    if bench.put(&mut store, B, b"6")?.first() != places.get(2) {
        return Err("it lies elsewhere".into());
    }
    let place = places.get(2).and_then(|place| usize::try_from(*place).ok());
    Ok((bench, Stale { block: place.ok_or("two groups are written")? / BLOCK_BYTES, older }))
}

struct Stale {
    block: usize,
    older: Vec<u8>,
}

impl Stale {
    fn strike(&self, device: &mut SimDevice) {
        Single::Stale(self.block, &self.older, 1).strike(device);
    }
}

fn newest(bench: &mut Bench) -> Ended {
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"5"))?;
    bench.expect(&mut store, B, Some(b"6"))
}

/// Where nothing counts behind a checkpoint, mount after mount goes on where it cut the log, over what a torn tail left there.
pub fn a_mount_goes_on_where_a_checkpoint_cut(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    checkpoint(&mut bench, &mut store)?;
    let torn = bench.leave_in_flight(&mut store, &[(A, b"2"), (B, b"3")])?;
    bench.device.power_cut_choosing(fates(&[Old, Old, New, Old]));
    for _ in 0..300 {
        bench.open_whole()?;
    }
    let mut other = bench.fork();
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, A, Some(b"1"))?;
    let mut places = bench.put(&mut store, B, b"4")?;
    places.extend(bench.put(&mut store, C, b"5")?);
    if places != torn {
        return Err(format!("the log goes on at {places:?}, and was cut at {torn:?}"));
    }
    let mut store = bench.open_whole()?;
    for (key, value) in [(A, b"1"), (B, b"4"), (C, b"5")] {
        bench.expect(&mut store, key, Some(value))?;
    }
    // One group, so that the torn one stays, and its number is durable by now.
    let mut store = other.open_whole()?;
    other.commit(&mut store, &[(A, Some(b"4")), (B, Some(b"5")), (C, Some(b"6"))])?;
    match other.check(&mut store)? {
        0 => other.expect(&mut store, B, Some(b"5")),
        repaired => Err(format!("{repaired} copies of a torn tail are repaired")),
    }
}

fn checkpoint(bench: &mut Bench, store: &mut Store) -> Ended {
    let journal = store.journal.clone();
    let task: Task<_> = Box::pin(async move { journal.checkpoint().await });
    match bench.drive(store, task, &mut on)? {
        Some(Ok(())) => Ok(()),
        other => Err(format!("a checkpoint ended with {other:?}")),
    }
}

/// A loss at the end of one use and another at the start of the next: what was written behind both is in no doubt, neither for
/// a mount nor for who looks.
pub fn two_losses_in_a_row(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, A, b"1")?;
    let mut places = bench.put(&mut store, B, b"2")?;
    let mut store = bench.open()?;
    places.extend(bench.put(&mut store, C, b"3")?);
    bench.put(&mut store, b"/d", b"4")?;
    bench.put(&mut store, b"/e", b"5")?;
    damage(&mut bench, &places);
    let found = bench.inspect()?.volume.ok_or("no volume")?;
    if found.history.lost.len() != 2 {
        return Err(format!("what is lost is {:?}", found.history.lost));
    }
    let doubted: Vec<_> =
        found.keys_from(b"").filter(|(_, fact)| fact.in_doubt()).map(|(key, _)| key).collect();
    if doubted != [Rc::from(A)] {
        return Err(format!("who looks doubts {doubted:?}"));
    }
    let mut store = bench.open()?;
    bench.expect(&mut store, b"/d", Some(b"4"))?;
    bench.expect(&mut store, b"/e", Some(b"5"))?;
    expect_lost(&mut bench, &mut store, &[A, B, C])
}

/// The last group before a mount is read in neither copy there, and can be read again at the next one: what was written
/// between the two named the group before it, and counts all the same, as does the one that is back.
pub fn a_loss_that_heals_takes_nothing_along(plants: Plants) -> Ended {
    for behind in [&[C][..], &[C, b"/d"]] {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        bench.put(&mut store, A, b"1")?;
        let places = bench.put(&mut store, B, b"2")?;
        bench.open_whole()?;
        for place in places {
            bench.device.make_unreadable(place, 512, Cure::Never);
        }
        let mut store = bench.open()?;
        expect_report(&store)?;
        expect_lost(&mut bench, &mut store, &[B])?;
        for key in behind {
            bench.put(&mut store, key, b"3")?;
        }
        bench.device.power_cut_choosing(|_| Old);
        bench.device.heal();
        let mut store = bench.open_whole()?;
        for (key, value) in
            [(A, b"1"), (B, b"2")].into_iter().chain(behind.iter().map(|key| (*key, b"3")))
        {
            bench.expect(&mut store, key, Some(value))?;
        }
    }
    Ok(())
}

/// While the last group before a mount is read in neither copy cleaning moves values, each with the doubt that it is in then: once
/// that group is back nothing is in doubt.
pub fn a_loss_that_heals_leaves_no_doubt(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut healed = 0;
    for n in 0..200_u8 {
        bench.put(&mut store, KEPT[usize::from(n) % KEPT.len()], &[n; 300])?;
        bench.put(&mut store, C, &[n; 400])?;
        bench.idle(&mut store)?;
        let mut again = bench.fork();
        let mut store = again.open_whole()?;
        let places = again.put(&mut store, B, b"2")?;
        again.open_whole()?;
        for place in places {
            again.device.make_unreadable(place, 512, Cure::Never);
        }
        let mut store = again.open()?;
        expect_report(&store)?;
        for m in 0..8 {
            again.put(&mut store, C, &[m; 400])?;
            again.idle(&mut store)?;
            let stats = store.journal.stats();
            // A checkpoint tells the loss on for good.
            if stats.checkpoints > 0 {
                break;
            }
            if stats.moves > 0 {
                healed += 1;
                let kept = KEPT.iter().take(usize::from(n) + 1);
                nothing_is_in_doubt(&mut again.fork(), kept)?;
            }
        }
    }
    if healed == 0 { Err("nothing is moved while something is lost".into()) } else { Ok(()) }
}

/// The blocks that were not read are read again, and so is every key.
fn nothing_is_in_doubt<'a>(bench: &mut Bench, kept: impl Iterator<Item = &'a &'a [u8]>) -> Ended {
    bench.device.power_cut_choosing(|_| Old);
    bench.device.heal();
    let mut store = bench.open_whole()?;
    bench.expect(&mut store, B, Some(b"2"))?;
    for key in kept {
        let got = bench.get(&mut store, key)?;
        if !matches!(got, Answer::Value(_)) {
            return Err(format!("nothing is lost, and a value that was moved has {got:?}"));
        }
    }
    Ok(())
}

/// Keys whose values stay while another is written over.
const KEPT: [&[u8]; 6] = [b"/k0", b"/k1", b"/k2", b"/k3", b"/k4", b"/k5"];

/// The first group of the next use is gone in both copies: what lies behind it there is served by every mount, not by the first
/// alone.
pub fn a_loss_at_a_start_stays_as_it_is(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut last = bench.put(&mut store, A, b"1")?;
    let begun = loop {
        let places = bench.put(&mut store, A, b"1")?;
        let [one, other] = [&last, &places].map(|places| places.first().copied().unwrap_or(0));
        if other != one + 512 {
            break places;
        }
        last = places;
    };
    bench.put(&mut store, B, b"2")?;
    bench.put(&mut store, C, b"3")?;
    damage(&mut bench, &begun);
    for _ in 0..3 {
        let mut store = bench.open()?;
        expect_report(&store)?;
        bench.expect(&mut store, B, Some(b"2"))?;
        bench.expect(&mut store, C, Some(b"3"))?;
    }
    Ok(())
}

/// Of a value one copy is damaged and the device does not read the other: that may yet be read, and is not called lost.
pub fn a_copy_that_is_not_read(plants: Plants) -> Ended {
    for bad in [0, 1] {
        let mut bench = Bench::new(plants);
        let mut store = bench.open()?;
        let places = bench.put(&mut store, A, b"1")?;
        let [one, other] = [bad, 1 - bad].map(|copy| places.get(copy).copied());
        damage(&mut bench, one.as_slice());
        bench.device.make_unreadable(other.ok_or("two copies")?, 512, Cure::Never);
        let got = bench.get(&mut store, A)?;
        if got != Answer::Unreadable {
            return Err(format!("the value may be there yet, and the key has {got:?}"));
        }
        bench.device.heal();
        bench.expect(&mut store, A, Some(b"1"))?;
    }
    Ok(())
}

/// One image holds one state, whoever mounts it: two mounts of other epochs come to one digest, and so does each mount behind
/// them; with a group that is gone in both copies, too, and another digest once anything else is written.
pub fn one_image_has_one_digest(plants: Plants) -> Ended {
    let mut gap = Bench::new(plants);
    let mut store = gap.open()?;
    gap.put(&mut store, A, b"1")?;
    let places = gap.put(&mut store, B, b"2")?;
    gap.put(&mut store, C, b"3")?;
    damage(&mut gap, &places);
    let mut benches = vec![gap];
    for age in [Age::Young, Age::Old, Age::Settled] {
        let rich = rich(plants, age)?;
        for harmed in [false, true] {
            let mut bench = Bench::blank(plants, DEVICE_BYTES);
            bench.device.restore(&rich.image);
            // The last group, which is torn then.
            let places = rich.last.map(|block| (block * BLOCK_BYTES) as u64);
            damage(&mut bench, places.get(..2 * usize::from(harmed)).unwrap_or_default());
            benches.push(bench);
        }
    }
    for (at, bench) in benches.iter().enumerate() {
        let mut digests = Vec::new();
        for seed in [1 << 20, 1 << 21] {
            let mut bench = bench.fork();
            bench.seed = seed;
            for _ in 0..3 {
                let mut store = bench.open()?;
                digests.push(bench.digest(&mut store)?);
            }
        }
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("image {at} has the digests {digests:?}"));
        }
        let mut bench = bench.fork();
        let mut store = bench.open()?;
        bench.put(&mut store, C, b"another")?;
        if digests.contains(&bench.digest(&mut store)?) {
            return Err(format!("image {at} has one digest with two states"));
        }
    }
    Ok(())
}
