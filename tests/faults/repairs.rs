//! Volumes with several faults, and what `image fsck --repair` makes of them: what it said, and nothing else.

use super::bench::{Answer, BLOCK_BYTES, Bench, DEVICE_BYTES, on};
use super::rich::{Rich, keys};
use super::singles::Single;
use super::traces::Ended;
use blockdev::Cure;
use fastrand::Rng;
use journal::Plants;
use journal::inspect::{Fault, FaultKind, Inspection, VolumeFacts};

/// Most places that are struck before a mount, and as many behind it; some of them in both copies.
const FAULTS_MAX: usize = 6;

/// What repairs did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repairs {
    /// Faulty images that were looked at.
    pub images: u64,
    /// Images in which something was repaired.
    pub repaired: u64,
    /// Blocks that were written.
    pub blocks: u64,
    /// Images of which a mount tells a loss, before a repair and after it.
    pub lost: u64,
    /// Images that a mount refuses, before a repair and after it.
    pub refused: u64,
    /// Images that were called clean.
    pub clean: u64,
}

/// What a mount answers for each key; `None` where it refuses.
type Answers = Option<Vec<Answer>>;

/// For each seed strikes the volume at up to `FAULTS_MAX` places, at times twice with a mount and a put between, and repairs it.
///
/// The repair writes what was announced and not a byte else; a second look finds nothing more to repair, and of what cannot be
/// repaired the same as before; every key answers as it would have without the repair; and a loss is told exactly where a mount
/// finds one. Where more faults meet than are promised to be survived, all this holds still.
///
/// # Errors
/// One of these is not so.
pub fn repairs(
    rich: &Rich,
    plants: Plants,
    seeds: impl Iterator<Item = u64>,
) -> Result<Repairs, String> {
    let (keys, mut repairs) = (keys(), Repairs::default());
    let mut bench = Bench::blank(plants, DEVICE_BYTES);
    for seed in seeds {
        strike_and_repair(&mut bench, rich, &keys, seed, &mut repairs)
            .map_err(|what| format!("seed {seed}: {what}"))?;
    }
    Ok(repairs)
}

fn strike_and_repair(
    bench: &mut Bench,
    rich: &Rich,
    keys: &[Vec<u8>],
    seed: u64,
    repairs: &mut Repairs,
) -> Ended {
    let mut rng = Rng::with_seed(seed);
    bench.device.heal();
    bench.device.reseed(seed);
    // Half of the time as it was earlier: blocks from another time may then be later ones.
    let age = rng.usize(..rich.older.len() * 2);
    bench.device.restore(rich.older.get(age).unwrap_or(&rich.image));
    if rng.u8(..3) == 0 {
        strike(bench, rich, &mut rng);
        // What cannot be read comes with the faults that follow.
        bench.device.heal();
        if let Ok(mut store) = bench.try_open(&mut on)?.ok_or("cut")? {
            // It may be refused where there was a loss, and then nothing is written.
            let _ = bench.put(&mut store, b"/c", b"between the faults");
            bench.idle(&mut store)?;
        }
    }
    let never = strike(bench, rich, &mut rng);
    let found = bench.fork().inspect()?;
    let without = answers(&mut bench.fork(), keys)?;
    repairs.images += 1;
    let Some(volume) = &found.volume else {
        if without.is_some() {
            return Err("a mount opens what an inspection finds no volume in".into());
        }
        repairs.refused += 1;
        return Ok(());
    };
    told_as_mounted(volume, without.as_deref(), repairs)?;
    let before = bench.device.durable().to_vec();
    let written = bench.mend()?;
    is_as_announced(volume, &before, bench.device.durable(), &written)?;
    repairs.repaired += u64::from(!written.is_empty());
    repairs.blocks += written.len() as u64;
    nothing_is_left(volume, &bench.fork().inspect()?, &never)?;
    let with = answers(&mut bench.fork(), keys)?;
    if with == without {
        return Ok(());
    }
    Err(format!("answers were {without:?}, and are {with:?} after a repair"))
}

/// Strikes with one fault or more, where something lies more often than elsewhere; yields the blocks that no write makes readable.
fn strike(bench: &mut Bench, rich: &Rich, rng: &mut Rng) -> Vec<u64> {
    let (count, mut never) = (rng.usize(1..=FAULTS_MAX), Vec::new());
    for _ in 0..count {
        let block = somewhere(bench.device.durable(), rng);
        // Now and then both copies of a place.
        let between = rich.last[1] - rich.last[0];
        let mirror = block + between;
        let both = rng.u8(..3) == 0 && mirror < rich.blocks();
        for block in [Some(block), both.then_some(mirror)].into_iter().flatten() {
            let from = rng.usize(..rich.blocks());
            let single = match rng.u8(..7) {
                0 => Single::Flip((block * BLOCK_BYTES * 8 + rng.usize(..BLOCK_BYTES * 8)) as u64),
                1 => Single::Zero(block),
                2 => Single::Random(block),
                3 => Single::Unreadable(block, Cure::Write),
                4 => {
                    never.push((block * BLOCK_BYTES) as u64);
                    Single::Unreadable(block, Cure::Never)
                }
                5 => Single::Copied(block, from),
                _ => {
                    let age = rng.usize(..rich.older.len());
                    Single::Stale(block, &rich.older[age], age + 1)
                }
            };
            single.strike(&mut bench.device);
        }
    }
    never
}

/// Yields a block, three times of four one that holds something.
fn somewhere(image: &[u8], rng: &mut Rng) -> usize {
    let blocks = image.len() / BLOCK_BYTES;
    let holds = |block: &usize| image[block * BLOCK_BYTES..][..BLOCK_BYTES].iter().any(|&b| b != 0);
    let used: Vec<usize> = (0..blocks).filter(holds).collect();
    match rng.u8(..4) {
        0 => rng.usize(..blocks),
        _ => *rng.choice(&used).unwrap_or(&0),
    }
}

/// Mounts and asks every key.
fn answers(bench: &mut Bench, keys: &[Vec<u8>]) -> Result<Answers, String> {
    let Ok(mut store) = bench.try_open(&mut on)?.ok_or("cut")? else {
        return Ok(None);
    };
    keys.iter().map(|key| bench.get(&mut store, key)).collect::<Result<_, _>>().map(Some)
}

/// Checks that a loss is told exactly where a mount refuses or answers one.
fn told_as_mounted(
    volume: &VolumeFacts,
    answers: Option<&[Answer]>,
    repairs: &mut Repairs,
) -> Ended {
    let gone = |answer: &Answer| matches!(answer, Answer::Lost | Answer::Unreadable);
    let lost = answers.is_none_or(|answers| answers.iter().any(gone));
    repairs.refused += u64::from(answers.is_none());
    repairs.lost += u64::from(answers.is_some() && lost);
    repairs.clean += u64::from(volume.faults.is_empty());
    if volume.has_loss() == lost {
        return Ok(());
    }
    Err(format!("faults {:?}; answers {answers:?}", volume.faults))
}

/// Checks that only blocks were changed that a fault names, and that what was written is there.
fn is_as_announced(volume: &VolumeFacts, before: &[u8], after: &[u8], written: &[u64]) -> Ended {
    let mended = volume.faults.iter().filter(|fault| fault.repair.is_some());
    let announced: Vec<u64> = mended.flat_map(|fault| fault.differs.iter().copied()).collect();
    if written.iter().any(|offset| !announced.contains(offset)) {
        return Err(format!("announced {announced:?}, written {written:?}"));
    }
    let changed = |block: &usize| {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        before[range.clone()] != after[range]
    };
    for block in (0..before.len() / BLOCK_BYTES).filter(changed) {
        let at = (block * BLOCK_BYTES) as u64;
        // A copy of the superblock is written as a whole.
        let slot = at / 4096 * 4096;
        let is_slot = slot < 8192 || slot >= before.len() as u64 - 8192;
        if !written.contains(if is_slot { &slot } else { &at }) {
            return Err(format!("block {block} was changed and not announced"));
        }
    }
    Ok(())
}

/// Checks that a second look finds what could not be repaired, and nothing to repair but where blocks can `never` be read.
fn nothing_is_left(before: &VolumeFacts, after: &Inspection, never: &[u64]) -> Ended {
    let after = after.volume.as_ref().ok_or("after a repair there is no volume")?;
    let rest = |fault: &&Fault| fault.repair.is_none();
    let kinds = |volume: &VolumeFacts| -> Vec<FaultKind> {
        volume.faults.iter().filter(rest).map(|fault| fault.kind).collect()
    };
    let stays = |fault: &Fault| {
        let within =
            |at: u64| never.iter().any(|block| (at..at + slot_or_block(fault)).contains(block));
        fault.differs.iter().all(|&at| within(at))
    };
    let mut more = after.faults.iter().filter(|fault| fault.repair.is_some());
    if let Some(fault) = more.find(|fault| !stays(fault)) {
        return Err(format!("it would repair more: {fault:?}"));
    }
    if kinds(before) == kinds(after) {
        return Ok(());
    }
    Err(format!("left are {:?}, of {:#?}", kinds(after), before.faults))
}

/// Bytes of what a place among those that differ stands for.
fn slot_or_block(fault: &Fault) -> u64 {
    if fault.copy.is_some() { 4096 } else { BLOCK_BYTES as u64 }
}
