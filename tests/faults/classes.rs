//! What a cut may leave, all of it, told apart as far as recovery can.
//!
//! Every unflushed block may be old, new or torn in several ways, each for itself. Recovery reads a block through tags
//! alone, so images in which the same headers and the same whole groups verify are one class, and one of each is
//! mounted. That this is so is checked: for a share of the classes another member is mounted, too.

use super::bench::BLOCK_BYTES;
use super::traces::in_frame;
use blockdev::SimDevice;
use journal::{BlockIndex, Keys, SegmentIndex, Superblock, Tag, Verifier, VolumeGeometry, Zone};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

const SLOT: usize = 4096;
/// Blocks of a copy of the superblock.
const SLOT_BLOCKS: usize = SLOT / BLOCK_BYTES;
/// How many ways a block is left in: old, new, two prefixes (within a header and behind it), a suffix, a mixture.
const WAYS: usize = 6;

/// All ends of a cut.
pub struct Classes {
    /// What is durable.
    image: Vec<u8>,
    hash: u64,
    runs: Vec<Run>,
}

/// Neighbouring unflushed blocks in one segment of one zone, or a copy of the superblock.
struct Run {
    at: usize,
    bytes: usize,
    classes: Vec<Class>,
}

/// Ways in which a run looks the same to recovery.
struct Class {
    member: Vec<u8>,
    /// Another one, if there is any.
    other: Option<Vec<u8>>,
    members: u64,
}

/// What verifies in each block of a run: a header by its tag, and whether its group is whole.
type Sights = Vec<Option<(Tag, bool)>>;

/// An image of a cut.
pub struct Image {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Equal for equal bytes.
    pub hash: u64,
}

/// Yields what the groups of a volume are checked with.
pub fn verifier(image: &[u8]) -> Option<Verifier> {
    let superblock = Superblock::decode(image.first_chunk()?).ok()?;
    let keys = Keys::derive(&superblock.key);
    Some(Verifier { volume: superblock.volume, keys, geometry: superblock.geometry })
}

impl Classes {
    /// Looks at what a cut of `device` would leave.
    ///
    /// # Errors
    /// A block was written twice since the last flush, which the engine never does.
    pub fn new(device: &SimDevice, verifier: &Verifier) -> Result<Self, String> {
        let image = device.durable().to_vec();
        let mut blocks: Vec<usize> =
            device.risks().map(|risk| usize::try_from(risk.offset).unwrap_or(0)).collect();
        blocks.sort_unstable();
        if blocks.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a block is written twice between two flushes".into());
        }
        let unit = |at: usize| match in_frame(at as u64) {
            true => at / SLOT,
            false => SLOT + segment_at(&verifier.geometry, at).map_or(0, |(start, _, _)| start),
        };
        let mut runs = Vec::new();
        for run in blocks.chunk_by(|one, two| one + BLOCK_BYTES == *two && unit(*one) == unit(*two))
        {
            let (at, bytes) = (run[0], run.len() * BLOCK_BYTES);
            let new = device.visible().get(at..at + bytes).unwrap_or_default();
            let classes = match in_frame(at as u64) {
                true => slot(&image[at..at + bytes], new)?,
                false => groups(&image, at, new, verifier),
            };
            runs.push(Run { at, bytes, classes });
        }
        Ok(Self { hash: hash(0, &image), image, runs })
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

    /// Yields an image of class `n`: the same for every cut where it is the same; or one as unlike it as there is.
    pub fn image(&self, n: usize, other: bool) -> Image {
        let (mut rest, mut bytes, mut of) = (n, self.image.clone(), self.hash);
        for run in &self.runs {
            let class = &run.classes[rest % run.classes.len()];
            rest /= run.classes.len();
            let member = class.other.as_ref().filter(|_| other).unwrap_or(&class.member);
            of ^= hash(run.at, &bytes[run.at..run.at + run.bytes]) ^ hash(run.at, member);
            bytes[run.at..run.at + run.bytes].copy_from_slice(member);
        }
        Image { bytes, hash: of }
    }
}

/// Sums blocks, so that those that change can be taken out and put in.
fn hash(at: usize, bytes: &[u8]) -> u64 {
    let of = |(n, block): (usize, &[u8])| {
        let mut hasher = DefaultHasher::new();
        (at / BLOCK_BYTES + n, block).hash(&mut hasher);
        hasher.finish()
    };
    bytes.chunks(BLOCK_BYTES).enumerate().map(of).fold(0, |sum, one| sum ^ one)
}

/// The ends of a copy of the superblock: as it was, as it shall be, and every mixture, which its tag tells from both.
fn slot(old: &[u8], new: &[u8]) -> Result<Vec<Class>, String> {
    if old.len() != SLOT {
        return Err("a copy of the superblock is written in part".into());
    }
    let pairs = old.chunks(BLOCK_BYTES).zip(new.chunks(BLOCK_BYTES));
    let alike = pairs.filter(|(old, new)| old == new).count();
    let each = 5_u64.pow(u32::try_from(SLOT_BLOCKS).unwrap_or(0));
    let same = 5_u64.pow(u32::try_from(alike).unwrap_or(0));
    let class = |member: &[u8], members| Class { member: member.to_vec(), other: None, members };
    if alike == SLOT_BLOCKS {
        return Ok(vec![class(old, each)]);
    }
    let mixed = |turn: usize| {
        let mut turns = turn;
        let pairs = old.iter().zip(new).map(|(old, new)| {
            turns += usize::from(old != new);
            if turns.is_multiple_of(2) { *old } else { *new }
        });
        pairs.collect::<Vec<u8>>()
    };
    let torn = Class { member: mixed(0), other: Some(mixed(1)), members: each - 2 * same };
    Ok(vec![class(old, same), torn, class(new, same)])
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
                let class = Class { member: member.to_vec(), other: None, members: 1 };
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
