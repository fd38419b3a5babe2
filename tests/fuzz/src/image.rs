//! Volumes to mutate, and the language of mutations: few bytes of input reach every place of an image.

use crate::seal::Sealer;
use journal::{Plants, Superblock};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tests::faults::rich::{Age, Rich, rich};

/// Bytes of a slot.
pub const SLOT: usize = 4096;
/// Most edits of one input.
const EDITS_MAX: usize = 64;

/// A volume with a history.
pub struct Base {
    /// Its bytes.
    pub image: Vec<u8>,
    /// Every value that a key ever had.
    pub ever: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Its superblock.
    pub superblock: Superblock,
    /// Its keys.
    pub sealer: Sealer,
}

impl Base {
    /// A few commits and two mounts: all of it lies in the log.
    pub fn young() -> &'static Self {
        static BASE: OnceLock<Base> = OnceLock::new();
        BASE.get_or_init(|| Self::new(Age::Young))
    }

    /// Many commits: a checkpoint, and values in segments that were cleaned.
    pub fn old() -> &'static Self {
        static BASE: OnceLock<Base> = OnceLock::new();
        BASE.get_or_init(|| Self::new(Age::Old))
    }

    fn new(age: Age) -> Self {
        let Rich { image, ever, .. } = rich(Plants::default(), age).expect("the history is sound");
        let copy = image.first_chunk().expect("a volume begins with a superblock");
        let superblock = Superblock::decode(copy).expect("it is sound");
        let sealer = Sealer::new(&superblock.key, superblock.geometry);
        Self { image, ever, superblock, sealer }
    }
}

/// An image that an input asks for.
pub struct Mutated {
    /// Its bytes.
    pub image: Vec<u8>,
    /// What it was.
    pub base: &'static Base,
    /// Its tags were made right again: it may say anything.
    pub forged: bool,
}

/// Reads the first byte as the choice of a volume and of sealing, the rest as edits of it.
pub fn mutated(bytes: &[u8]) -> Mutated {
    let mut words = Words(bytes);
    let choice = words.byte();
    let base = if choice & 1 == 0 { Base::old() } else { Base::young() };
    let forged = choice & 2 != 0;
    let mut image = base.image.clone();
    for _ in 0..EDITS_MAX {
        if words.0.is_empty() {
            break;
        }
        edit(&mut image, base, &mut words);
    }
    if forged {
        base.sealer.seal(&mut image);
    }
    Mutated { image, base, forged }
}

/// Applies the next edit: to one place, or to a place and its mirror.
fn edit(image: &mut [u8], base: &Base, words: &mut Words<'_>) {
    let kind = words.byte();
    let place = usize::from(words.short());
    let mirror = mirror(base, place, kind & 0x80 != 0);
    let content: Vec<u8> = match kind & 7 {
        // Another byte, a number, a run of the input, zeros, or what another block holds.
        0 => vec![image.get(place).copied().unwrap_or(0) ^ words.byte().max(1)],
        1 => near_an_edge(words.byte()).to_le_bytes().to_vec(),
        2 => u32::try_from(near_an_edge(words.byte()) & 0xffff_ffff)
            .unwrap_or(0)
            .to_le_bytes()
            .to_vec(),
        3 => {
            let bytes = usize::from(words.byte());
            words.take(bytes).to_vec()
        }
        4 => vec![0; 512],
        5 => vec![0; SLOT],
        6 => {
            let from = usize::from(words.short()) / 512 * 512;
            image.get(from..from + 512).unwrap_or_default().to_vec()
        }
        _ => words.take(8).to_vec(),
    };
    let align = if matches!(kind & 7, 4 | 6) { 512 } else { 1 };
    for place in mirror.into_iter().flatten() {
        let start = place / align * align;
        for (into, byte) in image.iter_mut().skip(start).zip(&content) {
            *into = *byte;
        }
    }
}

/// Yields the place, and the other places that hold the same when all is well.
fn mirror(base: &Base, place: usize, all: bool) -> [Option<usize>; 4] {
    let end = base.image.len();
    if !all {
        return [Some(place), None, None, None];
    }
    if place < 2 * SLOT || place >= end - 2 * SLOT {
        let at = place % SLOT;
        return [0, SLOT, end - 2 * SLOT, end - SLOT].map(|slot| Some(slot + at));
    }
    let zone = (end / SLOT - 4) / 2 * SLOT;
    let other = if place < 2 * SLOT + zone { place + zone } else { place - zone };
    [Some(place), Some(other), None, None]
}

/// Numbers at which counting goes wrong.
fn near_an_edge(choice: u8) -> u64 {
    let near = u64::from(choice & 7);
    match choice >> 3 {
        0..=3 => u64::from(choice),
        4 => (1 << 16) - 4 + near,
        5 => (1 << 31) - 4 + near,
        6 => (1 << 32) - 4 + near,
        7 => (1 << 62) - 4 + near,
        8 => u64::MAX - near,
        bits => (1 << bits.min(31)) - 1 + near,
    }
}

/// The input, word by word; zeros where it ends.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        let [low, high] = [self.byte(), self.byte()];
        u16::from_le_bytes([low, high])
    }
}
