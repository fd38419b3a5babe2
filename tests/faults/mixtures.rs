//! Devices that are of two times at once, as when a part of an image is put back: never an older value, and never the lack
//! of one, for what was acknowledged.

use super::bench::{BLOCK_BYTES, Bench, DEVICE_BYTES};
use super::pairs::same_again;
use super::rich::{Rich, keys};
use super::singles::honest;
use fastrand::Rng;
use journal::Plants;
use std::ops::Range;

/// Blocks of one copy of the superblock.
const SLOT_BLOCKS: usize = 4096 / BLOCK_BYTES;

/// What mixtures of two times did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mixtures {
    /// Images that were mounted.
    pub images: u64,
    /// Images that were opened.
    pub opened: u64,
    /// Images that were refused, with a reason.
    pub refused: u64,
    /// Images that were opened, and in which at least one key answers that its value was lost.
    pub lost: u64,
    /// Images that were opened, and in which every key has its value.
    pub whole: u64,
}

/// Mixes blocks of an earlier moment into the volume, once for each seed: few of them or most, by chance or in a row,
/// in both copies alike or in each by itself.
///
/// One copy of the superblock stays, as the volume put back to an earlier state as a whole is just that state; and so do
/// the blocks of the last group, which no later one vouches for.
///
/// # Errors
/// A key has a value that it had before, or is absent, or a loss is not told by an inspection.
pub fn mixtures(rich: &Rich, plants: Plants, seeds: Range<u64>) -> Result<Mixtures, String> {
    let mut bench = Bench::blank(plants, DEVICE_BYTES);
    let (keys, mut found) = (keys(), Mixtures::default());
    for seed in seeds {
        mix(&mut bench, rich, &keys, seed, &mut found)
            .map_err(|what| format!("mixture {seed}: {what}"))?;
    }
    Ok(found)
}

fn mix(
    bench: &mut Bench,
    rich: &Rich,
    keys: &[Vec<u8>],
    seed: u64,
    found: &mut Mixtures,
) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let image = mixture(rich, &mut rng)?;
    bench.device.heal();
    bench.device.restore(&image);
    let told = bench.inspect()?.volume.is_none_or(|volume| volume.has_loss());
    found.images += 1;
    let lost = honest(bench, rich, keys)?.map(|honest| honest.lost);
    if told != lost.is_none_or(|lost| lost > 0) {
        return Err(format!("an inspection tells of a loss: {told}; keys that are lost: {lost:?}"));
    }
    match lost {
        None if bench.device.durable() != image => {
            return Err("a mount that is refused writes".into());
        }
        None => found.refused += 1,
        Some(0) => found.whole += 1,
        Some(lost) => {
            found.lost += 1;
            same_again(bench, rich, keys, lost)?;
        }
    }
    found.opened += u64::from(lost.is_some());
    Ok(())
}

fn mixture(rich: &Rich, rng: &mut Rng) -> Result<Vec<u8>, String> {
    let older = rng.choice(&rich.older).ok_or("no earlier image")?;
    let [first, second] = rich.last;
    let between_copies = second - first;
    let kept = rng.usize(..4);
    let goes_back = chosen(rich.blocks(), rng);
    let alike = rng.bool();
    let mut image = rich.image.clone();
    let slots = 2 * SLOT_BLOCKS..rich.blocks() - 2 * SLOT_BLOCKS;
    for (block, (into, from)) in
        image.chunks_mut(BLOCK_BYTES).zip(older.chunks(BLOCK_BYTES)).enumerate()
    {
        let is_kept = match block {
            _ if slots.contains(&block) => rich.last.contains(&block),
            _ if block < slots.start => block / SLOT_BLOCKS == kept,
            _ => 2 + (block - slots.end) / SLOT_BLOCKS == kept,
        };
        // In zone B as in zone A.
        let chosen = match alike && block >= slots.start + between_copies && slots.contains(&block)
        {
            true => block - between_copies,
            false => block,
        };
        if !is_kept && goes_back.get(chosen) == Some(&true) {
            into.copy_from_slice(from);
        }
    }
    Ok(image)
}

/// Chooses blocks: each by chance, or all of a row.
fn chosen(blocks: usize, rng: &mut Rng) -> Vec<bool> {
    if rng.bool() {
        let start = rng.usize(..blocks);
        let row = start..start + rng.usize(1..blocks);
        return (0..blocks).map(|block| row.contains(&block)).collect();
    }
    let share = *rng.choice(&[2, 10, 50, 90, 98]).unwrap_or(&50);
    (0..blocks).map(|_| rng.u32(..100) < share).collect()
}
