//! The bytes of a simulated device: what is durable, what reads see, and the writes in between.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use fastrand::Rng;

use super::earlier::Earlier;
use super::fault::Damage;

/// What a power cut leaves of one physical unit of one write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// The bytes from before the write.
    Old,
    /// The bytes of the write.
    New,
    /// The start of the write's bytes, then old ones.
    Prefix,
    /// Old bytes, then the end of the write's.
    Suffix,
    /// Each byte old or new by chance.
    Mixed,
    /// Neither: the whole unit is random, also where the write covered only a part of it.
    Garbage,
}

/// How often each [`Fate`] is drawn, relative to the others. All zero means always old.
#[derive(Clone, Copy, Debug)]
pub struct FateWeights {
    /// For [`Fate::Old`].
    pub old: u8,
    /// For [`Fate::New`].
    pub new: u8,
    /// For [`Fate::Prefix`].
    pub prefix: u8,
    /// For [`Fate::Suffix`].
    pub suffix: u8,
    /// For [`Fate::Mixed`].
    pub mixed: u8,
    /// For [`Fate::Garbage`].
    pub garbage: u8,
}

/// Whole units thrice as often as each way to tear: most units of a real cut are whole.
impl Default for FateWeights {
    fn default() -> Self {
        Self { old: 3, new: 3, prefix: 1, suffix: 1, mixed: 1, garbage: 1 }
    }
}

impl FateWeights {
    pub(super) fn draw(&self, rng: &mut Rng) -> Fate {
        let weights = [
            (self.new, Fate::New),
            (self.prefix, Fate::Prefix),
            (self.suffix, Fate::Suffix),
            (self.mixed, Fate::Mixed),
            (self.garbage, Fate::Garbage),
            (self.old, Fate::Old),
        ];
        let total: u16 = weights.iter().map(|(weight, _)| u16::from(*weight)).sum();
        let mut left = rng.u16(..total.max(1));
        for (weight, fate) in weights {
            match left.checked_sub(u16::from(weight)) {
                Some(rest) => left = rest,
                None => return fate,
            }
        }
        Fate::Old
    }
}

/// One physical unit of one write that a power cut may lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Risk {
    /// Counts the units of one cut from 0, in the order in which they are decided.
    pub index: usize,
    /// Where the unit starts, in bytes from the start of the device.
    pub offset: u64,
    /// Whether the write had completed; otherwise it was in flight.
    pub completed: bool,
}

/// A write's place and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) offset: usize,
    pub(super) content: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Medium {
    durable: Vec<u8>,
    visible: Vec<u8>,
    /// Completed and not flushed, in the order of completion.
    cached: Vec<Cached>,
    /// The bytes of `cached`, one write behind the other: one allocation that is used again.
    content: Vec<u8>,
    writes_completed: u64,
    unit_bytes: usize,
    /// Whether reads may show bytes that neither the medium nor the cache holds.
    shows_lost: bool,
    /// What units of `durable` held before, if that is asked for.
    earlier: Option<Earlier>,
}

/// A write in the cache.
#[derive(Clone, Copy, Debug)]
struct Cached {
    offset: usize,
    bytes: usize,
    /// How many writes had completed before this one.
    order: u64,
}

impl Medium {
    pub(super) fn new(bytes: usize, unit_bytes: usize) -> Self {
        Self {
            durable: vec![0; bytes],
            visible: vec![0; bytes],
            cached: Vec::new(),
            content: Vec::new(),
            writes_completed: 0,
            unit_bytes,
            shows_lost: false,
            earlier: None,
        }
    }

    /// Remembers from now on what units held before they last changed.
    pub(super) fn remember(&mut self) {
        self.earlier = Some(Earlier::new(self.durable.len(), self.unit_bytes));
    }

    /// Yields where the units lie that changed, the last to change first; none if nothing is remembered.
    pub(super) fn differing(&self) -> Vec<usize> {
        self.earlier.as_ref().map_or(Vec::new(), |earlier| earlier.differing(&self.durable))
    }

    pub(super) fn restore(&mut self, image: &[u8]) {
        self.durable.copy_from_slice(image);
        self.visible.copy_from_slice(image);
        self.drop_cache();
        self.shows_lost = false;
        self.earlier.iter_mut().for_each(Earlier::forget);
    }

    /// Puts `content` into the cache, as far as the device goes.
    pub(super) fn write(&mut self, offset: usize, content: &[u8]) {
        let bytes = content.len().min(self.visible.len().saturating_sub(offset));
        if bytes == 0 {
            return;
        }
        let content = part(content, 0..bytes);
        put(&mut self.visible, offset, content);
        self.content.extend_from_slice(content);
        self.cached.push(Cached { offset, bytes, order: self.writes_completed });
        self.writes_completed += 1;
    }

    /// Puts a mixture of `content` and what reads saw into the cache: what a failed write leaves.
    pub(super) fn write_in_part(
        &mut self,
        offset: usize,
        content: &[u8],
        sector_bytes: usize,
        weights: FateWeights,
        rng: &mut Rng,
    ) {
        let mut mixture = part(&self.visible, offset..offset + content.len()).to_vec();
        let whole = Piece { offset: 0, content };
        for unit in units(whole, sector_bytes, mixture.len()) {
            let fate = weights.draw(rng);
            apply(&mut mixture, whole, unit, fate, rng);
        }
        self.write(offset, &mixture);
    }

    /// Makes the first `covers` completed writes durable.
    pub(super) fn flush(&mut self, covers: u64) {
        let count = self.cached.partition_point(|each| each.order < covers);
        let mut start = 0;
        for each in self.cached.drain(..count) {
            let content = part(&self.content, start..start + each.bytes);
            let range = each.offset..each.offset + each.bytes;
            let whole = whole_units(range, self.unit_bytes, self.visible.len());
            change(&mut self.durable, &mut self.earlier, whole, |durable| {
                put(durable, each.offset, content);
            });
            start += each.bytes;
        }
        self.content.drain(..start);
    }

    /// Fails a flush as Linux does: each unit of the cache is written or not, and all of it is
    /// forgotten, so that later flushes succeed without it. With `shows`, reads see it still.
    pub(super) fn lose_flush(&mut self, shows: bool, weights: FateWeights, rng: &mut Rng) {
        self.settle_cached(rng, &mut |_, rng| weights.draw(rng));
        if shows {
            self.shows_lost = true;
        } else {
            self.show_durable();
        }
        self.drop_cache();
    }

    /// Leaves the medium as a power cut does: `choose` decides about each unit of [`Medium::risks`].
    pub(super) fn settle<'a>(
        &mut self,
        in_flight: impl Iterator<Item = Piece<'a>>,
        rng: &mut Rng,
        choose: &mut impl FnMut(Risk) -> Fate,
    ) {
        let mut index = self.settle_cached(rng, &mut |risk, _| choose(risk));
        self.show_durable();
        self.drop_cache();
        for piece in in_flight {
            for unit in units(piece, self.unit_bytes, self.durable.len()) {
                let fate = choose(risk(index, unit.start, false));
                index += 1;
                change(&mut self.durable, &mut self.earlier, unit.clone(), |durable| {
                    apply(durable, piece, unit.clone(), fate, rng);
                });
                let left = part(&self.durable, unit.clone());
                put(&mut self.visible, unit.start, left);
            }
        }
    }

    pub(super) fn risks<'a>(
        &'a self,
        in_flight: impl Iterator<Item = Piece<'a>>,
    ) -> impl Iterator<Item = Risk> {
        let (unit_bytes, device_bytes) = (self.unit_bytes, self.durable.len());
        self.pieces()
            .map(|piece| (piece, true))
            .chain(in_flight.map(|piece| (piece, false)))
            .flat_map(move |(piece, completed)| {
                units(piece, unit_bytes, device_bytes).map(move |unit| (unit.start, completed))
            })
            .enumerate()
            .map(|(index, (start, completed))| risk(index, start, completed))
    }

    pub(super) fn corrupt(&mut self, range: Range<usize>, damage: Damage, rng: &mut Rng) {
        let mut bytes = part(&self.durable, range.clone()).to_vec();
        match damage {
            Damage::BitFlip { bit } => {
                let index = usize::try_from(bit / 8).unwrap_or(usize::MAX);
                if let Some(byte) = bytes.get_mut(index) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Zero => bytes.fill(0),
            Damage::Random => rng.fill(&mut bytes),
            Damage::CopyFrom { offset } => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = self.durable.get(from..).unwrap_or_default();
                for (byte, copied) in bytes.iter_mut().zip(rest) {
                    *byte = *copied;
                }
            }
            Damage::Earlier => {
                self.earlier.iter().for_each(|earlier| earlier.put_back(range.start, &mut bytes));
            }
        }
        put(&mut self.durable, range.start, &bytes);
        put(&mut self.visible, range.start, &bytes);
    }

    /// Fills `buffer` with what reads see, and with zeros behind the end of the device.
    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let seen = self.visible.get(offset..).unwrap_or_default();
        let bytes = seen.len().min(buffer.len());
        let (inside, behind) = buffer.split_at_mut(bytes);
        put(inside, 0, part(seen, 0..bytes));
        behind.fill(0);
    }

    pub(super) fn writes_completed(&self) -> u64 {
        self.writes_completed
    }

    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut start = 0;
        self.cached.iter().map(move |each| {
            let content = part(&self.content, start..start + each.bytes);
            start += each.bytes;
            Piece { offset: each.offset, content }
        })
    }

    /// Applies a fate to each unit in the cache and yields how many there were. The cache stays.
    fn settle_cached(
        &mut self,
        rng: &mut Rng,
        choose: &mut impl FnMut(Risk, &mut Rng) -> Fate,
    ) -> usize {
        let mut index = 0;
        let mut start = 0;
        for each in &self.cached {
            let piece = Piece {
                offset: each.offset,
                content: part(&self.content, start..start + each.bytes),
            };
            start += each.bytes;
            for unit in units(piece, self.unit_bytes, self.durable.len()) {
                let fate = choose(risk(index, unit.start, true), rng);
                index += 1;
                change(&mut self.durable, &mut self.earlier, unit.clone(), |durable| {
                    apply(durable, piece, unit, fate, rng);
                });
            }
        }
        index
    }

    /// Lets reads see the medium, by copying no more than may differ.
    fn show_durable(&mut self) {
        if self.shows_lost {
            self.visible.copy_from_slice(&self.durable);
            self.shows_lost = false;
            return;
        }
        for each in &self.cached {
            let piece = each.offset..each.offset + each.bytes;
            let whole = whole_units(piece, self.unit_bytes, self.durable.len());
            let left = part(&self.durable, whole.clone());
            put(&mut self.visible, whole.start, left);
        }
    }

    fn drop_cache(&mut self) {
        self.cached.clear();
        self.content.clear();
    }
}

impl Clone for Medium {
    fn clone(&self) -> Self {
        Self {
            durable: self.durable.clone(),
            visible: self.visible.clone(),
            cached: self.cached.clone(),
            content: self.content.clone(),
            earlier: self.earlier.clone(),
            ..*self
        }
    }

    /// Copies into the memory that is there.
    fn clone_from(&mut self, source: &Self) {
        let Self { durable, visible, cached, content, earlier, .. } = self;
        durable.clone_from(&source.durable);
        visible.clone_from(&source.visible);
        cached.clone_from(&source.cached);
        content.clone_from(&source.content);
        earlier.clone_from(&source.earlier);
        let Self { writes_completed, unit_bytes, shows_lost, .. } = *source;
        (self.writes_completed, self.unit_bytes, self.shows_lost) =
            (writes_completed, unit_bytes, shows_lost);
    }
}

/// Changes whole units of the medium, and remembers what they held if that is asked for.
fn change(
    medium: &mut [u8],
    earlier: &mut Option<Earlier>,
    units: Range<usize>,
    with: impl FnOnce(&mut [u8]),
) {
    match earlier {
        Some(earlier) => earlier.watch(medium, units, with),
        None => with(medium),
    }
}

fn risk(index: usize, start: usize, completed: bool) -> Risk {
    Risk { index, offset: start as u64, completed }
}

/// Widens `range` to whole units of the device.
fn whole_units(range: Range<usize>, unit_bytes: usize, device_bytes: usize) -> Range<usize> {
    let end = range.end.min(device_bytes).next_multiple_of(unit_bytes);
    range.start / unit_bytes * unit_bytes..end.min(device_bytes)
}

/// Yields the units that `piece` touches.
fn units(
    piece: Piece<'_>,
    unit_bytes: usize,
    device_bytes: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let range = match piece.content.len() {
        0 => 0..0,
        bytes => {
            whole_units(piece.offset..piece.offset.saturating_add(bytes), unit_bytes, device_bytes)
        }
    };
    let end = range.end;
    range.step_by(unit_bytes).map(move |start| start..(start + unit_bytes).min(end))
}

/// Gives `unit` of `medium` the `fate` that the part of `piece` within it has drawn.
fn apply(medium: &mut [u8], piece: Piece<'_>, unit: Range<usize>, fate: Fate, rng: &mut Rng) {
    let start = unit.start.max(piece.offset);
    let end = unit.end.min(piece.offset + piece.content.len());
    let new = part(piece.content, start - piece.offset..end - piece.offset);
    match fate {
        Fate::Old => {}
        Fate::New => put(medium, start, new),
        Fate::Prefix => {
            let torn = rng.usize(1..new.len().max(2));
            put(medium, start, part(new, 0..torn.min(new.len())));
        }
        Fate::Suffix => {
            let torn = rng.usize(1..new.len().max(2)).min(new.len());
            put(medium, start + torn, part(new, torn..new.len()));
        }
        Fate::Mixed => {
            let old = medium.get_mut(start..end).unwrap_or_default();
            let mut chances = 0;
            for (index, (old, new)) in old.iter_mut().zip(new).enumerate() {
                if index % 64 == 0 {
                    chances = rng.u64(..);
                }
                if chances & 1 == 1 {
                    *old = *new;
                }
                chances >>= 1;
            }
        }
        Fate::Garbage => rng.fill(medium.get_mut(unit).unwrap_or_default()),
    }
}

/// Yields the bytes at `range`, which every caller has brought within the device or the cache.
fn part(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes
        .get(range)
        .expect("a request's range was checked against the device when it was submitted")
}

/// Copies `content` to `offset`, which likewise is within the device.
fn put(bytes: &mut [u8], offset: usize, content: &[u8]) {
    bytes
        .get_mut(offset..offset + content.len())
        .expect("a request's range was checked against the device when it was submitted")
        .copy_from_slice(content);
}
