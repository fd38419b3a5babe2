//! Two clones of one image that go on by themselves: they share a volume and its key, and what one writes counts for nothing in
//! the other.

use super::bench::{BLOCK_BYTES, Bench, DEVICE_BYTES};
use super::pairs::same_again;
use super::rich::{Age, Rich, keys, rich};
use super::singles::{Single, Target, honest};
use journal::Plants;

/// Blocks of the copies of the superblock at either end, which are no strangers to each other: of these the newest counts.
const SLOTS_BLOCKS: usize = 2 * 4096 / BLOCK_BYTES;

/// What blocks of a clone did to the other one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clones {
    /// Places that differ between the two.
    pub places: u64,
    /// Places that were mounted with the other's bytes in one copy.
    pub single: u64,
    /// Places that were mounted with the other's bytes in both copies.
    pub both: u64,
    /// Of these, those with which something is told as lost, or the volume is refused.
    pub lost: u64,
}

/// Lets two clones go on with other writes to the same keys, then puts each block of the one into the other: in one copy, where it
/// changes nothing, and in both, where it is no more than a loss.
///
/// # Errors
/// A key has a value of the other clone, or is absent, or is lost to one copy.
pub fn clones(plants: Plants, age: Age) -> Result<Clones, String> {
    let mut ours = rich(plants, age)?;
    let theirs = gone_on(&mut rich(plants, age)?, plants, 1 << 33)?;
    ours.image = gone_on(&mut ours, plants, 1 << 34)?;
    let between_copies = ours.last[1] - ours.last[0];
    let zone = SLOTS_BLOCKS..SLOTS_BLOCKS + between_copies;
    let (keys, mut found) = (keys(), Clones::default());
    let (mut target, mut bench) = (Target::new(&ours, plants), Bench::blank(plants, DEVICE_BYTES));
    for block in zone {
        let copies = [block, block + between_copies];
        let differ = |block: &usize| {
            let bytes = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
            ours.image.get(bytes.clone()) != theirs.get(bytes)
        };
        found.places += u64::from(copies.iter().any(differ));
        for copy in copies {
            target.hit(&Single::Stale(copy, &theirs, 0), true)?;
            found.single += 1;
        }
        bench.device.heal();
        bench.device.restore(&ours.image);
        for copy in copies {
            Single::Stale(copy, &theirs, 0).strike(&mut bench.device);
        }
        let told = bench.inspect()?.volume.is_none_or(|volume| volume.has_loss());
        let at = |what: String| format!("the other's block {block} in both copies: {what}");
        let lost = honest(&mut bench, &ours, &keys).map_err(at)?.map(|honest| honest.lost);
        if told != lost.is_none_or(|lost| lost > 0) {
            return Err(at(format!("an inspection tells of a loss: {told}; lost: {lost:?}")));
        }
        if let Some(lost) = lost {
            same_again(&mut bench, &ours, &keys, lost).map_err(at)?;
        }
        found.both += 1;
        found.lost += u64::from(told);
    }
    Ok(found)
}

/// Goes on with the volume, with the entropy that follows from `seed`, and yields its image; a mount at the end vouches for all
/// of it.
fn gone_on(rich: &mut Rich, plants: Plants, seed: u64) -> Result<Vec<u8>, String> {
    let mut bench = Bench::blank(plants, DEVICE_BYTES);
    bench.seed = seed;
    bench.device.restore(&rich.image);
    let mut store = bench.open_whole()?;
    for (n, key) in (0..18_u64).zip([b"/a", b"/c", b"/i", b"/h", b"/b"].into_iter().cycle()) {
        let value = (seed + n).to_le_bytes();
        bench.put(&mut store, key, &value)?;
        rich.map.insert(key.to_vec(), value.to_vec());
    }
    bench.idle(&mut store)?;
    let mut store = bench.open_whole()?;
    bench.idle(&mut store)?;
    Ok(bench.device.durable().to_vec())
}
