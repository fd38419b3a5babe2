//! Two faults: what is lost is said to be lost, and nothing else is told of it.

use super::bench::{Bench, DEVICE_BYTES};
use super::rich::{Rich, keys};
use super::singles::{Single, honest};
use super::traces::Ended;
use blockdev::Cure;
use journal::Plants;

/// What pairs of faults did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairs {
    /// Faulty images that were mounted.
    pub images: u64,
    /// Images that were opened.
    pub opened: u64,
    /// Images that were refused, with a reason.
    pub refused: u64,
    /// Images in which at least one key answers that its value was lost.
    pub lost: u64,
    /// Images that `image fsck` calls clean: nothing that counts was hit, and a mount repairs nothing.
    pub clean: u64,
}

/// Makes both blocks of every `stride`th pair bad, the kinds of damage taking turns, and both copies of every place in
/// every way.
///
/// A damaged key is never wrong and never absent, and where something is lost, `image fsck` says so. The one exception is the model's residual: both copies of the last
/// group before silence are gone and nothing tells; `rich` ends with a mount, which vouches for all before, and one
/// group, whose two blocks are left out.
///
/// # Errors
/// A promise was broken.
pub fn pairs(rich: &Rich, plants: Plants, stride: usize) -> Result<Pairs, String> {
    let mut bench = Bench::blank(plants, DEVICE_BYTES);
    let (keys, mut pairs) = (keys(), Pairs::default());
    let blocks = rich.blocks();
    let all = (0..blocks).flat_map(|one| (one + 1..blocks).map(move |two| (one, two)));
    let between_copies = rich.last[1] - rich.last[0];
    for (n, (one, two)) in all.enumerate() {
        if rich.last == [one, two] {
            continue;
        }
        // Both copies of one place are what matters most: these are hit in every way, whatever the stride.
        let every = kinds(rich);
        let kinds = match (two - one == between_copies, n % stride) {
            (true, _) => 0..every,
            (false, 0) => n / stride % every..n / stride % every + 1,
            (false, _) => 0..0,
        };
        for kind in kinds {
            hit(&mut bench, rich, &keys, (one, two), kind, &mut pairs)
                .map_err(|what| format!("blocks {one} and {two}, kind {kind}: {what}"))?;
        }
    }
    Ok(pairs)
}

/// Kinds of damage to two blocks that do not depend on the blocks.
const KINDS: usize = 8;

/// Kinds of damage to two blocks: both as they were at each of the earlier moments, besides.
fn kinds(rich: &Rich) -> usize {
    KINDS + rich.older.len()
}

fn hit(
    bench: &mut Bench,
    rich: &Rich,
    keys: &[Vec<u8>],
    (one, two): (usize, usize),
    kind: usize,
    pairs: &mut Pairs,
) -> Ended {
    bench.device.heal();
    bench.device.restore(&rich.image);
    let blocks = rich.blocks();
    let before = |block: usize| Single::Copied(block, (block + blocks - 1) % blocks);
    let behind = |block: usize| Single::Copied(block, (block + 1) % blocks);
    let elsewhere = |block: usize| Single::Copied(block, (one * 7 + 3) % blocks);
    let faults = match kind {
        0 => [Single::Zero(one), Single::Zero(two)],
        1 => [Single::Random(one), Single::Random(two)],
        2 => [Single::Unreadable(one, Cure::Write), Single::Random(two)],
        3 => [Single::Unreadable(one, Cure::Write), Single::Unreadable(two, Cure::Write)],
        4 => [Single::Copied(one, two), Single::Zero(two)],
        5 => [before(one), before(two)],
        6 => [behind(one), behind(two)],
        7 => [elsewhere(one), elsewhere(two)],
        earlier => {
            let age = earlier - KINDS;
            let image = rich.older.get(age).ok_or("no image of that age")?;
            [Single::Stale(one, image, age + 1), Single::Stale(two, image, age + 1)]
        }
    };
    for fault in faults {
        fault.strike(&mut bench.device);
    }
    pairs.images += 1;
    // Before a mount repairs anything.
    let found = bench.inspect()?.volume;
    let clean = found.as_ref().is_some_and(|volume| volume.faults.is_empty());
    let told = found.is_none_or(|volume| volume.has_loss());
    pairs.clean += u64::from(clean);
    let struck = bench.device.durable().to_vec();
    let found = honest(bench, rich, keys)?;
    let (lost, repaired) =
        (found.map(|found| found.lost), found.is_some_and(|found| found.repaired));
    if clean && repaired {
        return Err("an inspection finds nothing that a mount repairs".into());
    }
    if lost.is_none() && bench.device.durable() != struck {
        return Err("a mount that is refused writes".into());
    }
    if told != lost.is_none_or(|lost| lost > 0) {
        return Err(format!("an inspection tells of a loss: {told}; keys that are lost: {lost:?}"));
    }
    let Some(lost) = lost else {
        pairs.refused += 1;
        return Ok(());
    };
    same_again(bench, rich, keys, lost)?;
    pairs.opened += 1;
    pairs.lost += u64::from(lost > 0);
    Ok(())
}

/// Mounts once more where something was lost: no more is, and no less.
///
/// # Errors
/// A key answers otherwise than at the mount before.
pub(super) fn same_again(bench: &mut Bench, rich: &Rich, keys: &[Vec<u8>], lost: usize) -> Ended {
    if lost == 0 {
        return Ok(());
    }
    let again = honest(bench, rich, keys)?.map(|again| again.lost);
    if again != Some(lost) {
        return Err(format!("{lost} keys are lost, and at the next mount {again:?}"));
    }
    Ok(())
}
