//! What a cut may leave, all of it, told apart as far as recovery can.
//!
//! Every unflushed block may be old, new or torn in several ways, each for itself. Recovery reads a block through tags
//! alone, so images in which the same headers and the same whole groups verify are one class, and one of each is
//! mounted. That this is so is checked: for a share of the classes another member is mounted, too.

use super::bench::BLOCK_BYTES;
use super::traces::in_frame;
use journal::layout::group;
use journal::{BlockIndex, Keys, SegmentIndex, Superblock, Tag, Verifier, VolumeGeometry, Zone};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

const SLOT: usize = 4096;
/// Blocks of a copy of the superblock.
const SLOT_BLOCKS: usize = SLOT / BLOCK_BYTES;
/// How many ways a block is left in: old, new, three prefixes (within a header, just it, and more), a suffix, a mixture.
const WAYS: usize = 7;

/// All ends of a cut.
pub struct Classes {
    runs: Vec<Run>,
}

/// A block that is written and not flushed: where, and what it shall be.
pub type Write<'a> = (usize, &'a [u8]);

/// Neighbouring unflushed blocks in one segment of one zone, or a copy of the superblock.
struct Run {
    at: usize,
    old: Vec<u8>,
    new: Vec<u8>,
    /// The number of the copy of the superblock.
    slot: Option<usize>,
    /// What [`Name`] has of the old bytes, and of the new ones.
    names: (u128, u128),
    classes: Vec<Class>,
}

/// Ways in which a run looks the same to recovery.
struct Class {
    member: Vec<u8>,
    name: u128,
    /// Another one, if there is any.
    other: Option<Vec<u8>>,
    members: u64,
}

/// What verifies in each block of a run: a header by its tag, and whether its group is whole.
type Sights = Vec<Option<(Tag, bool)>>;

/// What tells images of one volume apart: every byte of the zones, and of each copy of the superblock its tag, or
/// that it does not verify.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Name {
    zones: u128,
    slots: [u128; SUPERBLOCKS],
}

/// Copies of the superblock.
const SUPERBLOCKS: usize = 4;
/// What a copy that does not verify is called.
const TORN: u128 = 0;

/// Yields what the groups of a volume are checked with.
pub fn verifier(image: &[u8]) -> Option<Verifier> {
    let superblock = Superblock::decode(image.first_chunk()?).ok()?;
    let keys = Keys::derive(&superblock.key);
    Some(Verifier { volume: superblock.volume, keys, geometry: superblock.geometry })
}

impl Name {
    /// Names an image.
    pub fn of(image: &[u8]) -> Self {
        let zones = &image[2 * SLOT..image.len() - 2 * SLOT];
        let slot = |at: usize| slot_name(&image[at..at + SLOT]);
        let end = image.len();
        let slots = [slot(0), slot(SLOT), slot(end - 2 * SLOT), slot(end - SLOT)];
        Self { zones: zones_name(2 * SLOT, zones), slots }
    }

    /// Yields it in 16 bytes.
    pub fn digest(&self) -> u128 {
        digest(0, self)
    }

    /// Yields 16 bytes that are the same for images that differ in nothing but which copy of the superblock holds what.
    pub fn digest_of_set(&self) -> u128 {
        let mut set = *self;
        set.slots.sort_unstable();
        digest(3, set)
    }
}

impl Classes {
    /// Looks at what a cut would leave of `writes`, `image` being durable and called `name`.
    ///
    /// # Errors
    /// A block was written twice since the last flush, which the engine never does.
    pub fn new(
        image: &[u8],
        name: &Name,
        mut writes: Vec<Write<'_>>,
        verifier: &Verifier,
    ) -> Result<Self, String> {
        writes.sort_unstable_by_key(|(at, _)| *at);
        if writes.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("a block is written twice between two flushes".into());
        }
        let unit = |at: usize| match in_frame(at as u64) {
            true => at / SLOT,
            false => SLOT + segment_at(&verifier.geometry, at).map_or(0, |(start, _, _)| start),
        };
        let mut runs: Vec<Run> = Vec::new();
        for run in writes
            .chunk_by(|(one, _), (two, _)| one + BLOCK_BYTES == *two && unit(*one) == unit(*two))
        {
            let (at, new) = (run[0].0, run.iter().flat_map(|(_, new)| *new).copied().collect());
            let run = match in_frame(at as u64) {
                true => superblock(image, name, at, new, runs.last())?,
                false => blocks(image, at, new, verifier),
            };
            runs.push(run);
        }
        Ok(Self { runs })
    }

    /// Yields how many classes there are.
    pub fn count(&self) -> usize {
        self.runs.iter().map(|run| run.classes.len()).product()
    }

    /// Yields how many images they hold.
    pub fn members(&self) -> u128 {
        let of =
            |run: &Run| run.classes.iter().map(|class| u128::from(class.members)).sum::<u128>();
        self.runs.iter().map(of).fold(1, u128::saturating_mul)
    }

    /// Names an image of class `n`, that which is durable being called `name`.
    pub fn name(&self, n: usize, mut name: Name) -> Name {
        self.chosen(n).for_each(|(run, class)| run.rename(&mut name, class.name));
        name
    }

    /// Makes the durable `image` the one of class `n` that is named so.
    pub fn leave(&self, n: usize, image: &mut [u8]) {
        for (run, class) in self.chosen(n) {
            image[run.at..run.at + run.old.len()].copy_from_slice(&class.member);
        }
    }

    /// Makes the durable `image` one of class `n` that is as unlike the other as there is.
    pub fn leave_other(&self, n: usize, image: &mut [u8]) {
        for (run, class) in self.chosen(n) {
            let member = class.other.as_ref().unwrap_or(&class.member);
            image[run.at..run.at + run.old.len()].copy_from_slice(member);
        }
    }

    /// Makes the image what was durable.
    pub fn undo(&self, image: &mut [u8]) {
        for run in &self.runs {
            image[run.at..run.at + run.old.len()].copy_from_slice(&run.old);
        }
    }

    /// Makes the durable `image` what the flush leaves, and `name` its name.
    pub fn flush(&self, image: &mut [u8], mut name: Name) -> Name {
        for run in &self.runs {
            image[run.at..run.at + run.new.len()].copy_from_slice(&run.new);
            run.rename(&mut name, run.names.1);
        }
        name
    }

    fn chosen(&self, n: usize) -> impl Iterator<Item = (&Run, &Class)> {
        let mut rest = n;
        self.runs.iter().map(move |run| {
            let class = &run.classes[rest % run.classes.len()];
            rest /= run.classes.len();
            (run, class)
        })
    }
}

impl Run {
    fn rename(&self, name: &mut Name, to: u128) {
        match self.slot {
            Some(slot) => name.slots[slot] = to,
            None => name.zones ^= self.names.0 ^ to,
        }
    }
}

/// Yields 16 bytes for what can be hashed.
pub fn digest(salt: u8, of: impl Hash) -> u128 {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        (which, salt).hash(&mut hasher);
        of.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Sums blocks, so that those that change can be taken out and put in.
fn zones_name(at: usize, bytes: &[u8]) -> u128 {
    let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
    blocks.fold(0, |sum, (n, block)| sum ^ digest(1, (at / BLOCK_BYTES + n, block)))
}

/// Names the bytes of a copy of the superblock by their tag, if that is right.
fn slot_name(bytes: &[u8]) -> u128 {
    let verifies = bytes.first_chunk().is_some_and(|bytes| Superblock::decode(bytes).is_ok());
    let tag = bytes.last_chunk().filter(|_| verifies);
    tag.map_or(TORN, |tag| u128::from_le_bytes(*tag))
}

fn superblock(
    image: &[u8],
    name: &Name,
    at: usize,
    new: Vec<u8>,
    before: Option<&Run>,
) -> Result<Run, String> {
    let old = image[at..at + new.len()].to_vec();
    if old.len() != SLOT {
        return Err("a copy of the superblock is written in part".into());
    }
    let slot =
        if at < image.len() / 2 { at / SLOT } else { SUPERBLOCKS - (image.len() - at) / SLOT };
    // Most often two copies become the same, and to check a tag takes long.
    let same = before.filter(|run| run.slot.is_some() && run.new == new);
    let names = (name.slots[slot], same.map_or_else(|| slot_name(&new), |run| run.names.1));
    let classes = slot_classes(&old, &new, names);
    Ok(Run { at, old, new, slot: Some(slot), names, classes })
}

fn blocks(image: &[u8], at: usize, new: Vec<u8>, verifier: &Verifier) -> Run {
    let old = image[at..at + new.len()].to_vec();
    let classes = groups(image, at, &new, verifier);
    let names = (zones_name(at, &old), zones_name(at, &new));
    Run { at, old, new, slot: None, names, classes }
}

/// The ends of a copy of the superblock: as it was, as it shall be, and every mixture, which its tag tells from both.
fn slot_classes(old: &[u8], new: &[u8], names: (u128, u128)) -> Vec<Class> {
    let pairs = old.chunks(BLOCK_BYTES).zip(new.chunks(BLOCK_BYTES));
    let alike = pairs.filter(|(old, new)| old == new).count();
    let each = 5_u64.pow(u32::try_from(SLOT_BLOCKS).unwrap_or(0));
    let same = 5_u64.pow(u32::try_from(alike).unwrap_or(0));
    let class = |member: &[u8], name, members| {
        let member = member.to_vec();
        Class { member, name, other: None, members }
    };
    if alike == SLOT_BLOCKS {
        return vec![class(old, names.0, each)];
    }
    let (other, members) = (Some(mixed(1, old, new)), each - 2 * same);
    let torn = Class { member: mixed(0, old, new), name: TORN, other, members };
    vec![class(old, names.0, same), torn, class(new, names.1, same)]
}

/// Takes every other of the bytes that differ from the old ones, from the first or the second on.
fn mixed(first: usize, old: &[u8], new: &[u8]) -> Vec<u8> {
    const WORD: usize = 16;
    let (mut mixed, mut turns) = (old.to_vec(), first);
    for (into, new) in mixed.chunks_mut(WORD).zip(new.chunks(WORD)) {
        if into == new {
            continue;
        }
        for (into, new) in into.iter_mut().zip(new) {
            turns += usize::from(into != new);
            if !turns.is_multiple_of(2) {
                *into = *new;
            }
        }
    }
    mixed
}

/// The ends of blocks of groups, by what verifies in them.
fn groups(image: &[u8], at: usize, new: &[u8], verifier: &Verifier) -> Vec<Class> {
    let geometry = &verifier.geometry;
    let (start, segment, end) = segment_at(geometry, at).expect("it is in a zone");
    let first = (at - start) / BLOCK_BYTES;
    let mut bytes = image[at..end].to_vec();
    let old = bytes[..new.len()].to_vec();
    let blocks = new.len() / BLOCK_BYTES;
    let mut found: Vec<(Sights, Class)> = Vec::new();
    for way in 0..WAYS.pow(u32::try_from(blocks).unwrap_or(0)) {
        let mut rest = way;
        for block in 0..blocks {
            let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
            leave(rest % WAYS, &old[range.clone()], &new[range.clone()], &mut bytes[range]);
            rest /= WAYS;
        }
        let sights = (0..blocks).map(|block| {
            let bytes = &bytes[block * BLOCK_BYTES..];
            let place = BlockIndex(u32::try_from(first + block).unwrap_or(u32::MAX));
            let header = verifier.header(segment, place, bytes)?;
            Some((header.tag, verifier.records(&header, bytes).is_some()))
        });
        let (sights, member): (Vec<_>, _) = (sights.collect(), &bytes[..new.len()]);
        match found.iter_mut().find(|(known, _)| *known == sights) {
            Some((_, class)) => {
                class.members += 1;
                class.other = Some(member.to_vec());
            }
            None => {
                let (member, name) = (member.to_vec(), zones_name(at, member));
                let class = Class { member, name, other: None, members: 1 };
                found.push((sights, class));
            }
        }
    }
    found.into_iter().map(|(_, class)| class).collect()
}

/// Leaves a block in one of its ways.
fn leave(way: usize, old: &[u8], new: &[u8], into: &mut [u8]) {
    for (at, byte) in into.iter_mut().enumerate() {
        let is_new = match way {
            0 => false,
            1 => true,
            2 => at < 64,
            3 => at < 256,
            4 => at >= 64,
            5 => at < group::BYTES,
            _ => ((at * 0x9e37) >> 4) & 1 == 1,
        };
        *byte = if is_new { new[at] } else { old[at] };
    }
}

/// Yields start, number and end of the segment that a place lies in.
fn segment_at(geometry: &VolumeGeometry, at: usize) -> Option<(usize, SegmentIndex, usize)> {
    for zone in [Zone::A, Zone::B] {
        let place = geometry.block_offset(zone, SegmentIndex(0), BlockIndex(0));
        let start = usize::try_from(place).ok()?;
        let number = at.checked_sub(start)? / geometry.segment_bytes();
        let segment = SegmentIndex(u32::try_from(number).ok()?);
        if segment.0 < geometry.segment_count() {
            let start = start + number * geometry.segment_bytes();
            return Some((start, segment, start + geometry.segment_bytes()));
        }
    }
    None
}
