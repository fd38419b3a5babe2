//! Devices that fail a request, end too soon, hold something else, or hold two generations of the superblock; and values
//! that look like what the journal writes.

use super::bench::{Answer, BLOCK_BYTES, Bench, DEVICE_BYTES, Store, on};
use super::rich::{Map, Rich, keys};
use super::traces::Ended;
use blockdev::{Damage, Fate, Fault, FaultKind, Repeat, SimConfig, SimDevice};
use journal::inspect::{self, Fault as Fact};
use journal::{Mode, OpenError, Plants, ReadOnlyReason};

const SLOT: usize = 4096;

/// What failing devices did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failing {
    /// Runs of the script, each with another request failing.
    pub runs: u64,
    /// Mounts that were refused.
    pub refused: u64,
    /// Runs in which the store stopped writing.
    pub stopped: u64,
    /// Runs in which all went on.
    pub unharmed: u64,
}

/// Plays a short script again and again, each time with another read, write or flush failing, once and from there on,
/// until none is left to fail; then heals the device and mounts it. What fails leaves nothing, all, the start, the end,
/// any bytes or garbage of each block of what it should have written; and the medium has what the cache held of it, or has not.
///
/// # Errors
/// What was acknowledged is not there, something else is, or a store goes on after a failed write or flush, or tells another
/// reason.
pub fn fail_each(plants: Plants) -> Result<Failing, String> {
    let mut failing = Failing::default();
    let kinds = [
        FaultKind::ReadFails,
        FaultKind::WriteFails,
        FaultKind::FlushFails { shows: false },
        FaultKind::FlushFails { shows: true },
    ];
    for kind in kinds {
        for (leaves, repeat) in LEAVES.iter().flat_map(|leaves| REPEATS.map(|each| (leaves, each)))
        {
            for after in 0.. {
                let fault = Fault { kind, after, repeat };
                let said = |what| format!("{fault:?}, leaving {leaves:?}: {what}");
                if !run(plants, fault, *leaves, &mut failing).map_err(said)? {
                    break;
                }
            }
            // A read that fails leaves nothing of anything.
            if kind == FaultKind::ReadFails && repeat == Repeat::Always {
                break;
            }
        }
    }
    Ok(failing)
}

const REPEATS: [Repeat; 2] = [Repeat::Once, Repeat::Always];

/// What a request that fails leaves of each block, and what the cut after it leaves of each block of the cache.
const LEAVES: [(Fate, Fate); 11] = [
    (Fate::Old, Fate::Old),
    (Fate::New, Fate::Old),
    (Fate::New, Fate::New),
    (Fate::Prefix, Fate::Old),
    (Fate::Prefix, Fate::New),
    (Fate::Suffix, Fate::Old),
    (Fate::Suffix, Fate::New),
    (Fate::Mixed, Fate::Old),
    (Fate::Mixed, Fate::New),
    (Fate::Garbage, Fate::Old),
    (Fate::Garbage, Fate::New),
];

/// What a script put.
#[derive(Default)]
struct Written {
    /// What was acknowledged last, of each key.
    map: Map,
    /// What no acknowledgement came for: it may be there or not.
    doubt: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Written {
    /// Puts one of four keys.
    fn put(&mut self, bench: &mut Bench, store: &mut Store, n: u8) -> Ended {
        let (key, value) = (vec![b'/', b'a' + n % 4], vec![n; 40]);
        self.doubt.push((key.clone(), value.clone()));
        bench.commit(store, &[(&key, Some(&value))])?;
        self.doubt.pop();
        self.map.insert(key, value);
        bench.idle(store)
    }

    /// Checks that each key has what was acknowledged, or what may be there instead.
    fn is_there(&self, bench: &mut Bench, store: &mut Store) -> Ended {
        for (key, value) in &self.map {
            let got = bench.get(store, key)?;
            let is = |value: &[u8]| got == Answer::Value(value.into());
            if !is(value) && !self.doubt.iter().any(|(of, other)| of == key && is(other)) {
                return Err(format!("{} has {got:?}", String::from_utf8_lossy(key)));
            }
        }
        Ok(())
    }
}

/// One run of the script; false when the fault was not reached.
fn run(
    plants: Plants,
    fault: Fault,
    (left, cut): (Fate, Fate),
    failing: &mut Failing,
) -> Result<bool, String> {
    let mut bench = Bench::failing(plants, left);
    let mut written = Written::default();
    // An old volume, so that the mount replays and the puts lead to a checkpoint.
    let mut store = bench.open()?;
    for n in 0..8_u8 {
        written.put(&mut bench, &mut store, n)?;
    }
    // A mount that reads next to nothing, on a device that takes writes all the same, is beyond one fault.
    let late = fault.kind == FaultKind::ReadFails && fault.repeat == Repeat::Always;
    if late {
        store = bench.open_whole()?;
    }
    bench.device.inject(fault);
    failing.runs += 1;
    if late {
        failing.unharmed += 1;
        return reads_fail(&mut bench, &mut store, &mut written, fault);
    }
    let struck = script(&mut bench, &mut written, fault, failing)?;
    bench.device.heal();
    bench.device.power_cut_choosing(|_| cut);
    let mut store = bench.open_whole()?;
    written.is_there(&mut bench, &mut store)?;
    Ok(struck)
}

/// Writes and reads while no read succeeds: what is read says so, and what is written is there afterwards.
fn reads_fail(
    bench: &mut Bench,
    store: &mut Store,
    written: &mut Written,
    fault: Fault,
) -> Result<bool, String> {
    for n in 8..14_u8 {
        if written.put(bench, store, n).is_err()
            && !matches!(store.journal.mode(), Mode::ReadOnly(_))
        {
            return Err(format!("put {n} fails and the store goes on"));
        }
        for (key, value) in &written.map {
            match bench.get(store, key)? {
                Answer::Value(got) if got[..] == value[..] => {}
                Answer::Unreadable => {}
                other => return Err(format!("{} has {other:?}", String::from_utf8_lossy(key))),
            }
        }
    }
    bench.device.heal();
    bench.device.power_cut_choosing(|_| Fate::Old);
    let mut store = bench.open_whole()?;
    written.is_there(bench, &mut store)?;
    Ok(fault.after < 30)
}

/// Mounts, writes and reads while the fault is armed; false when nothing came of it.
fn script(
    bench: &mut Bench,
    written: &mut Written,
    fault: Fault,
    failing: &mut Failing,
) -> Result<bool, String> {
    let Ok(mut store) = bench.try_open(&mut on)?.ok_or("cut")? else {
        failing.refused += 1;
        return Ok(true);
    };
    let report = store.journal.report().clone();
    let mut struck = report.superblocks_damaged + report.repaired > 0;
    for n in 8..20_u8 {
        let stopped = matches!(store.journal.mode(), Mode::ReadOnly(_));
        let done = written.put(bench, &mut store, n);
        if stopped && done.is_ok() {
            return Err(format!("put {n} is acknowledged by a store that had stopped"));
        }
        if done.is_err() {
            match (store.journal.mode(), fault.kind) {
                (Mode::ReadOnly(ReadOnlyReason::FlushFailed), FaultKind::FlushFails { .. })
                | (Mode::ReadOnly(ReadOnlyReason::WriteFailed), FaultKind::WriteFails) => {}
                (mode, _) => return Err(format!("put {n} fails and the store is {mode:?}")),
            }
            failing.stopped += 1;
            return Ok(true);
        }
        for (key, value) in &written.map {
            match bench.get(&mut store, key)? {
                Answer::Value(got) if got[..] == value[..] => {}
                // Never absent, never another value; and never lost, for the other copy is there, and so may this one be.
                other => return Err(format!("{} has {other:?}", String::from_utf8_lossy(key))),
            }
        }
    }
    struck |= store.journal.stats().damaged_reads > 0;
    struck |= matches!(store.journal.mode(), Mode::ReadOnly(_));
    failing.unharmed += 1;
    // Reads that a mount can do without leave no trace; so many requests of a kind the script never makes.
    Ok(struck || fault.after < 200 && fault.kind == FaultKind::ReadFails)
}

/// Cuts the device off at every block, and blanks or replaces it: refused with the reason, and not a byte is changed.
///
/// # Errors
/// Something is mounted, refused for another reason, or changed.
pub fn wrong_devices(rich: &Rich, plants: Plants) -> Result<u64, String> {
    let mut refused = 0;
    for blocks in 1..rich.blocks() {
        let image = rich.image.get(..blocks * BLOCK_BYTES).unwrap_or_default();
        let error = refuse(plants, image)?;
        // Of less than a copy of the superblock nothing is known.
        if blocks * BLOCK_BYTES >= SLOT && !matches!(error, OpenError::Shrunk { .. }) {
            return Err(format!("cut off at block {blocks}: {error}"));
        }
        refused += 1;
    }
    for (byte, blank) in [(0, true), (0x5a, false), (0xff, false)] {
        let error = refuse(plants, &vec![byte; rich.image.len()])?;
        if matches!(error, OpenError::Blank) != blank {
            return Err(format!("a device full of {byte:#x}: {error}"));
        }
        refused += 1;
    }
    let mut image = rich.image.clone();
    for slot in slots(&image) {
        if let Some(byte) = image.get_mut(slot + 100) {
            *byte ^= 1;
        }
    }
    match refuse(plants, &image)? {
        OpenError::NoSuperblock => Ok(refused + 1),
        error => Err(format!("without a superblock: {error}")),
    }
}

/// Where the copies of the superblock lie.
fn slots(image: &[u8]) -> [usize; 4] {
    let end = image.len();
    [0, SLOT, end - 2 * SLOT, end - SLOT]
}

/// Puts the volume on a device that goes on behind it, with anything there: it is what its superblock says, also where
/// copy 0 or copy 1 of that is damaged.
///
/// # Errors
/// Something is lost, or what lies behind the volume is changed.
pub fn grown(rich: &Rich, plants: Plants) -> Ended {
    let end = rich.image.len();
    for damaged in [None, Some(0), Some(SLOT)] {
        let mut image = rich.image.clone();
        image.resize(end + 3 * SLOT, 0xa5);
        if let Some(byte) = damaged.and_then(|slot| image.get_mut(slot + 100)) {
            *byte ^= 1;
        }
        let mut bench = Bench::blank(plants, image.len() as u64);
        bench.device.restore(&image);
        let mut store = bench.open_whole()?;
        for key in keys() {
            bench.expect(&mut store, &key, rich.map.get(&key).map(Vec::as_slice))?;
        }
        bench.put(&mut store, b"/more", b"written")?;
        bench.idle(&mut store)?;
        if bench.device.durable().get(end..) != image.get(end..) {
            return Err("what lies behind the volume is written over".into());
        }
    }
    Ok(())
}

/// Puts a volume of blocks of 512 bytes on a device of which only 4096 bytes are read at once: it is refused for that, not as
/// damaged.
///
/// # Errors
/// It is mounted, or refused for another reason.
pub fn larger_sectors(rich: &Rich, plants: Plants) -> Ended {
    let mut bench = Bench::coarse(plants);
    let mut config = SimConfig::new(1, DEVICE_BYTES);
    (config.geometry.sector_bytes, config.geometry.physical_bytes) = (4096, 4096);
    (config.immediate, config.stall) = (true, 0);
    bench.device = SimDevice::new(config);
    bench.device.restore(&rich.image);
    match bench.try_open(&mut on)?.ok_or("cut")? {
        Ok(_) => Err("it is mounted".into()),
        Err(OpenError::Geometry(_)) => Ok(()),
        Err(error) => Err(format!("refused for another reason: {error}")),
    }
}

fn refuse(plants: Plants, image: &[u8]) -> Result<OpenError, String> {
    let mut bench = Bench::blank(plants, image.len() as u64);
    bench.device.restore(image);
    match bench.try_open(&mut on)?.ok_or("cut")? {
        Ok(_) => Err("it is mounted".into()),
        Err(_) if bench.device.visible() != image => Err("it is changed".into()),
        Err(error) => Ok(error),
    }
}

/// Puts the superblock of an earlier moment back into every set of copies but all four: the newest counts, and an inspection tells
/// of each other one, and writes the newest over it.
///
/// # Errors
/// Something is lost, or not told.
pub fn two_generations(rich: &Rich, plants: Plants) -> Result<u64, String> {
    let places = slots(&rich.image);
    let mut mounted = 0;
    for older in &rich.older {
        for set in 0..15_u8 {
            let mut image = rich.image.clone();
            for (copy, place) in places.into_iter().enumerate() {
                let range = place..place + SLOT;
                if set >> copy & 1 == 1
                    && let (Some(into), Some(from)) =
                        (image.get_mut(range.clone()), older.get(range))
                {
                    into.copy_from_slice(from);
                }
            }
            let mut bench = Bench::blank(plants, DEVICE_BYTES);
            bench.seed = 1 << 20;
            bench.device.restore(&image);
            older_are_told(&bench, &rich.image)?;
            let mut store = bench.open_whole()?;
            for key in keys() {
                bench.expect(&mut store, &key, rich.map.get(&key).map(Vec::as_slice))?;
            }
            mounted += 1;
        }
    }
    Ok(mounted)
}

/// Checks that an inspection tells of the copies of the superblock that are not as in `image`, and of nothing else, and that a
/// repair makes them so.
fn older_are_told(bench: &Bench, image: &[u8]) -> Ended {
    let mut bench = bench.fork();
    let copy = |of: &[u8], place| of.get(place..place + SLOT).map(<[u8]>::to_vec);
    let differs = |place: &usize| copy(bench.device.durable(), *place) != copy(image, *place);
    let places: Vec<u64> =
        slots(image).into_iter().filter(differs).map(|place| place as u64).collect();
    let faults = bench.inspect()?.volume.ok_or("an inspection finds no volume")?.faults;
    let older = |fault: &&Fact| fault.kind == inspect::FaultKind::OlderSuperblock;
    let told: Vec<u64> = faults.iter().filter(older).filter_map(|fault| fault.offset).collect();
    if told != places || told.len() != faults.len() {
        return Err(format!("older copies are at {places:?}, and told are {faults:?}"));
    }
    match bench.mend()? == places && bench.device.durable() == image {
        true => Ok(()),
        false => Err(format!("a repair of {faults:?} leads elsewhere")),
    }
}

/// A client writes the journal's own groups as values, aligned as groups are, and everything before them is damaged in
/// both copies: none is taken for what it looks like.
///
/// # Errors
/// A key has a value that it does not have.
pub fn values_like_groups(plants: Plants) -> Ended {
    const DEVICE: u64 = 512 << 10;
    let mut bench = Bench::sized(plants, DEVICE);
    let mut store = bench.open()?;
    let old = bench.put(&mut store, b"/k", b"old")?;
    let group = copy_of(&bench, *old.first().ok_or("written")?, 512);
    let new = bench.put(&mut store, b"/k", b"new")?;
    let later = copy_of(&bench, *new.first().ok_or("written")?, 512);
    // Behind the header, the fixed part of the record and the key, up to the next block.
    let padding = 512 - 128 - 32 - 2;
    let value: Vec<u8> =
        vec![0; padding].into_iter().chain(group.clone()).chain(later).chain(group).collect();
    let carrier = bench.put(&mut store, b"/v", &value)?;
    bench.put(&mut store, b"/w", b"last")?;
    if copy_of(&bench, carrier.get(1).copied().ok_or("four blocks")?, 4) != b"SFG1" {
        return Err("the group in the value is not aligned".into());
    }
    let image = bench.device.durable().to_vec();
    let blocks = carrier.len() / 2;
    for spoiled in [&old[..], &new, &[carrier[0], carrier[blocks]]] {
        let mut bench = Bench::blank(plants, DEVICE);
        bench.seed = 1 << 20;
        bench.device.restore(&image);
        for place in spoiled {
            bench.device.corrupt(*place, 512, Damage::Random);
        }
        let mut store = bench.open()?;
        for (key, value) in [(b"/k", &b"new"[..]), (b"/v", &value), (b"/w", b"last")] {
            match bench.get(&mut store, key)? {
                Answer::Lost => {}
                Answer::Value(got) if got[..] == *value => {}
                other => return Err(format!("{} has {other:?}", String::from_utf8_lossy(key))),
            }
        }
    }
    Ok(())
}

fn copy_of(bench: &Bench, place: u64, bytes: usize) -> Vec<u8> {
    let at = usize::try_from(place).unwrap_or(usize::MAX);
    bench.device.durable().get(at..at + bytes).unwrap_or_default().to_vec()
}

/// A device that has grown, with both copies of the superblock at its start damaged, is refused and not changed: only those
/// tell where the other two lie. Given its former size again, it opens.
///
/// # Errors
/// Something else is mounted, or something is changed or lost.
pub fn grown_without_a_start(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    bench.put(&mut store, b"/a", b"1")?;
    let mut image = bench.device.durable().to_vec();
    for bad in [1, 0] {
        for byte in image.iter_mut().skip(bad * SLOT).take(SLOT) {
            *byte ^= 0x5a;
        }
        let mut grown = image.clone();
        grown.resize(2 * image.len(), 0);
        // One of the two is enough.
        match (bad, refuse(plants, &grown)) {
            (1, Err(_)) | (0, Ok(OpenError::NoSuperblock)) => {}
            (_, other) => return Err(format!("with copy {bad} damaged too: {other:?}")),
        }
        let mut former = Bench::blank(plants, DEVICE_BYTES);
        former.device.restore(&image);
        let mut store = former.open_whole()?;
        former.expect(&mut store, b"/a", Some(b"1"))?;
    }
    Ok(())
}
