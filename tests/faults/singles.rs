//! One fault in one block, of every kind, in every place: nothing acknowledged is lost.

use super::bench::{Answer, BLOCK_BYTES, Bench, DEVICE_BYTES};
use super::rich::{Rich, keys};
use blockdev::{Cure, Damage, SimDevice};
use journal::layout::group;
use journal::{Mode, Plants};
use std::fmt;

/// What single faults did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Singles {
    /// Faulty images that were mounted.
    pub images: u64,
    /// Copies of groups that a mount repaired.
    pub repaired: u64,
    /// Superblock copies that a mount found damaged.
    pub superblocks: u64,
    /// Copies that no log leads to, which an online check repaired.
    pub checked: u64,
    /// Images whose fault hit nothing that counts.
    pub harmless: u64,
}

impl Singles {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.images += other.images;
        self.repaired += other.repaired;
        self.superblocks += other.superblocks;
        self.checked += other.checked;
        self.harmless += other.harmless;
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub enum Single<'a> {
    /// A bit of the device is flipped.
    Flip(u64),
    /// A block is zeros.
    Zero(usize),
    /// A block is random.
    Random(usize),
    /// A block cannot be read.
    Unreadable(usize, Cure),
    /// A block holds what it held earlier.
    Stale(usize, &'a [u8], usize),
    /// A block holds what another holds.
    Copied(usize, usize),
}

/// The place of a fault alone: the bytes of an older image say nothing.
struct Named<'a>(&'a Single<'a>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Single::Stale(block, _, age) => write!(f, "block {block} as it was {age} images ago"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Single<'_> {
    pub(super) fn strike(&self, device: &mut SimDevice) {
        let at = |block: usize| (block * BLOCK_BYTES) as u64;
        match *self {
            Self::Flip(bit) => device.corrupt(bit / 8, 1, Damage::BitFlip { bit: bit % 8 }),
            Self::Zero(block) => device.corrupt(at(block), BLOCK_BYTES, Damage::Zero),
            Self::Random(block) => device.corrupt(at(block), BLOCK_BYTES, Damage::Random),
            Self::Unreadable(block, cure) => device.make_unreadable(at(block), BLOCK_BYTES, cure),
            Self::Stale(block, image, _) => {
                let mut older = device.durable().to_vec();
                let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
                if let (Some(into), Some(from)) = (older.get_mut(range.clone()), image.get(range)) {
                    into.copy_from_slice(from);
                }
                device.restore(&older);
            }
            Self::Copied(block, from) => {
                device.corrupt(at(block), BLOCK_BYTES, Damage::CopyFrom { offset: at(from) });
            }
        }
    }

    /// Tells whether a mount or a check can make the place good for ever.
    fn lasts(&self) -> bool {
        matches!(self, Self::Unreadable(_, Cure::Never))
    }
}

/// A volume that is hit again and again.
pub struct Target<'a> {
    bench: Bench,
    rich: &'a Rich,
    keys: Vec<Vec<u8>>,
    /// What happened so far.
    pub singles: Singles,
}

impl<'a> Target<'a> {
    /// Makes a target of the volume.
    pub fn new(rich: &'a Rich, plants: Plants) -> Self {
        let bench = Bench::blank(plants, DEVICE_BYTES);
        Self { bench, rich, keys: keys(), singles: Singles::default() }
    }

    /// Hits the volume and checks what is left of it; `thorough` lets a check, a put and a second mount follow.
    ///
    /// # Errors
    /// A promise was broken.
    pub fn hit(&mut self, single: &Single<'_>, thorough: bool) -> Result<(), String> {
        self.try_hit(single, thorough).map_err(|what| format!("{}: {what}", Named(single)))
    }

    fn try_hit(&mut self, single: &Single<'_>, thorough: bool) -> Result<(), String> {
        self.bench.device.heal();
        self.bench.device.restore(&self.rich.image);
        single.strike(&mut self.bench.device);
        // On a device of its own: some blocks can be read again once a read has failed.
        let told = thorough.then(|| self.bench.fork().inspect()).transpose()?;
        let (repaired, superblocks) = self.mount()?;
        if let Some(told) = told {
            let volume = told.volume.ok_or("an inspection finds no volume")?;
            if volume.has_loss() || (repaired + superblocks > 0 && volume.faults.is_empty()) {
                return Err(format!("an inspection tells {:?}", volume.faults));
            }
        }
        self.singles.images += 1;
        self.singles.repaired += repaired;
        self.singles.superblocks += superblocks;
        self.singles.harmless += u64::from(repaired + superblocks == 0);
        if repaired + superblocks > 1 {
            return Err(format!("one fault, {repaired} repairs, {superblocks} superblocks"));
        }
        if repaired == 1 && matches!(single, Single::Flip(_) | Single::Zero(_)) {
            self.is_whole()?;
        }
        if !thorough {
            return Ok(());
        }
        let mut store = self.bench.open_whole()?;
        let checked = self.bench.check(&mut store)?;
        self.singles.checked += checked;
        if checked > 0 && matches!(single, Single::Flip(_) | Single::Zero(_)) {
            self.is_whole()?;
        }
        // A key that the history never writes: the volume stays writable, and what is written now is there afterwards.
        let (key, value) = (b"/written", b"behind the fault");
        self.bench.put(&mut store, key, value)?;
        self.bench.idle(&mut store)?;
        let again = self.mount()?;
        if again != (0, 0) && !single.lasts() {
            return Err(format!("another mount finds {again:?} to repair"));
        }
        let mut store = self.bench.open_whole()?;
        self.bench.expect(&mut store, key, Some(value))
    }

    /// Mounts and reads everything; yields repairs and damaged superblock copies.
    fn mount(&mut self) -> Result<(u64, u64), String> {
        let mut store = self.bench.open_whole()?;
        let report = store.journal.report();
        let found = (report.repaired as u64, report.superblocks_damaged as u64);
        if report.replayed_bytes > report.replay_bytes && report.replay_bytes > 0 {
            return Err(format!("replay passes its bound: {report:?}"));
        }
        if store.journal.mode() != Mode::Healthy {
            return Err(format!("the mode is {:?}", store.journal.mode()));
        }
        for key in &self.keys {
            let expected = self.rich.map.get(key).map(Vec::as_slice);
            self.bench.expect(&mut store, key, expected)?;
        }
        Ok(found)
    }

    /// Checks that a repair left the zones as they were before the fault.
    fn is_whole(&self) -> Result<(), String> {
        let zones = 2 * 4096..self.rich.image.len() - 2 * 4096;
        let (left, expected) = (self.bench.device.durable(), &self.rich.image);
        if left.get(zones.clone()) == expected.get(zones) {
            return Ok(());
        }
        Err("the repair did not bring the bytes back".into())
    }
}

/// Flips every `stride`th bit from `first` on.
///
/// # Errors
/// A promise was broken.
pub fn flips(rich: &Rich, plants: Plants, first: u64, stride: usize) -> Result<Singles, String> {
    let mut target = Target::new(rich, plants);
    let bits = rich.image.len() as u64 * 8;
    for (n, bit) in (first..bits).step_by(stride).enumerate() {
        target.hit(&Single::Flip(bit), n % 61 == 0)?;
    }
    Ok(target.singles)
}

/// Flips every bit of the header of the last group, in copy A.
///
/// # Errors
/// A promise was broken.
pub fn header_flips(rich: &Rich, plants: Plants) -> Result<Singles, String> {
    let mut target = Target::new(rich, plants);
    let [first, _] = rich.last;
    let start = (first * BLOCK_BYTES) as u64 * 8;
    for bit in start..start + group::BYTES as u64 * 8 {
        target.hit(&Single::Flip(bit), false)?;
    }
    Ok(target.singles)
}

/// Damages every block in every way; copies from every `stride`th other block.
///
/// # Errors
/// A promise was broken.
pub fn blocks(rich: &Rich, plants: Plants, stride: usize) -> Result<Singles, String> {
    let mut target = Target::new(rich, plants);
    for block in 0..rich.blocks() {
        target.hit(&Single::Zero(block), true)?;
        target.hit(&Single::Random(block), true)?;
        for cure in [Cure::FailedRead, Cure::Write, Cure::Never] {
            target.hit(&Single::Unreadable(block, cure), true)?;
        }
        for (age, image) in rich.older.iter().enumerate() {
            target.hit(&Single::Stale(block, image, age + 1), true)?;
        }
        for from in (block % stride..rich.blocks()).step_by(stride) {
            target.hit(&Single::Copied(block, from), from % 16 == 0)?;
        }
    }
    Ok(target.singles)
}

/// What became of a damaged volume.
#[derive(Clone, Copy, Debug)]
pub struct Honest {
    /// Keys that are lost, or cannot be read.
    pub lost: usize,
    /// The mount found something to repair.
    pub repaired: bool,
}

/// Asks every key of a damaged volume, and yields what became of it; `None` where it is refused.
///
/// # Errors
/// A key has a wrong value, or is called absent and is not.
pub fn honest(bench: &mut Bench, rich: &Rich, keys: &[Vec<u8>]) -> Result<Option<Honest>, String> {
    let Ok(mut store) = bench.try_open(&mut super::bench::on)?.ok_or("cut")? else {
        return Ok(None);
    };
    let mut lost = 0;
    for key in keys {
        let expected = rich.map.get(key).map(|value| Answer::Value(value.as_slice().into()));
        let expected = expected.unwrap_or(Answer::Absent);
        let got = bench.get(&mut store, key)?;
        let gone = matches!(got, Answer::Lost | Answer::Unreadable);
        lost += usize::from(gone);
        if got != expected && !gone {
            let name = String::from_utf8_lossy(key);
            return Err(format!("{name} has {got:?}, not {expected:?} and not lost"));
        }
    }
    let report = store.journal.report();
    Ok(Some(Honest { lost, repaired: report.repaired + report.superblocks_damaged > 0 }))
}
