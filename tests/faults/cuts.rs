//! What a cut may leave, enumerated, and what a mount must make of it.

use super::bench::{Answer, Bench, Store, cut_after, fates};
use super::rich::Map;
use super::traces::{Ended, in_frame};
use blockdev::{Fate, SimDevice};
use journal::Plants;
use journal::inspect::FaultKind;
use std::cell::Cell;
use std::rc::Rc;

/// The commits of a history: the state after each, and how many were acknowledged.
#[derive(Clone, Default)]
pub struct Book {
    states: Vec<Map>,
    /// How many commits have been acknowledged.
    pub acknowledged: Rc<Cell<usize>>,
}

impl Book {
    /// Begins with what a volume holds.
    pub fn new(map: Map) -> Self {
        Self { states: vec![map], acknowledged: Rc::default() }
    }

    /// Notes a commit that was taken.
    pub fn take(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut map = self.newest().clone();
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        self.states.push(map);
    }

    /// Yields what all commits give.
    pub fn newest(&self) -> &Map {
        self.states.last().expect("a book begins with a state")
    }

    /// Tells whether a key ever had a value.
    pub fn had(&self, key: &[u8], value: &[u8]) -> bool {
        self.states.iter().any(|state| state.get(key).is_some_and(|had| had == value))
    }

    /// Yields the state after each commit, the one that was there before them first.
    pub fn states(&self) -> &[Map] {
        &self.states
    }

    /// Notes that everything taken is acknowledged.
    pub fn acknowledge_all(&self) {
        self.acknowledged.set(self.states.len() - 1);
    }

    /// Yields what a recovery may come to now: the prefixes of the commits that hold everything acknowledged.
    pub fn allowed(&self) -> &[Map] {
        self.states.get(self.acknowledged.get()..).unwrap_or_default()
    }

    /// Checks that `map` is a prefix of the commits that holds everything acknowledged.
    ///
    /// # Errors
    /// It is not.
    pub fn judge(&self, map: &Map) -> Result<(), String> {
        let least = self.acknowledged.get();
        if self.allowed().contains(map) {
            return Ok(());
        }
        let expected = self.states.get(least);
        let wrong = map.iter().filter(|(key, value)| {
            expected.is_none_or(|expected| expected.get(*key) != Some(*value))
        });
        let wrong: Vec<_> = wrong.map(|(key, _)| String::from_utf8_lossy(key)).collect();
        Err(format!(
            "no prefix of {} commits that holds the first {least}: {} keys, others {wrong:?}",
            self.states.len() - 1,
            map.len()
        ))
    }
}

/// Opens the volume, which must report no loss, and reads all `keys`.
///
/// # Errors
/// A loss is reported or found, the volume does not open, or an inspection takes what a cut left for older than that.
pub fn recover(bench: &mut Bench, keys: &[Vec<u8>]) -> Result<Map, String> {
    let found = bench.fork().inspect()?;
    // A copy that does not verify is told in any case: it may be torn or damaged.
    let whole = found.copies.iter().all(|copy| copy.found.is_ok());
    let faults = found.volume.iter().flat_map(|volume| &volume.faults);
    if let Some(fault) = faults.filter(|_| whole).find(|it| it.kind == FaultKind::OlderSuperblock) {
        return Err(format!("after a cut an inspection tells {fault:?}"));
    }
    let mut store = bench.open_whole()?;
    let report = store.journal.report();
    if report.replay_bytes > 0 && report.replayed_bytes > report.replay_bytes {
        return Err(format!("replay passes its bound: {report:?}"));
    }
    read(bench, &mut store, keys)
}

/// Reads all `keys`.
///
/// # Errors
/// One is lost.
pub fn read(bench: &mut Bench, store: &mut Store, keys: &[Vec<u8>]) -> Result<Map, String> {
    let mut map = Map::new();
    for key in keys {
        match bench.get(store, key)? {
            Answer::Value(value) => drop(map.insert(key.clone(), value.to_vec())),
            Answer::Absent => {}
            Answer::Lost | Answer::Unreadable => {
                return Err(format!("{} is lost", String::from_utf8_lossy(key)));
            }
        }
    }
    Ok(map)
}

/// What a cut does to one unit: a block of a group's copy, or a whole copy of the superblock.
const FATES: usize = 3;

/// The ends of a cut at one moment: each unit old, new or torn.
pub struct Ends {
    /// For each unit, the indexes of its risks.
    units: Vec<Vec<usize>>,
    risks: usize,
    cap: usize,
    random: u64,
    /// Not every combination is among them.
    pub sampled: bool,
}

impl Ends {
    /// Looks at what a cut of `device` would decide about; `cap` bounds the combinations.
    pub fn new(device: &SimDevice, cap: usize) -> Self {
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut slot = None;
        let mut risks = 0;
        for risk in device.risks() {
            risks += 1;
            let here = in_frame(risk.offset).then_some(risk.offset / 4096);
            match units.last_mut().filter(|_| here.is_some() && here == slot) {
                Some(unit) => unit.push(risk.index),
                None => units.push(vec![risk.index]),
            }
            slot = here;
        }
        let all = u32::try_from(units.len()).ok().and_then(|n| FATES.checked_pow(n));
        let sampled = all.is_none_or(|all| all > cap);
        Self { units, risks, cap, random: 1, sampled }
    }

    /// Yields the number of ends.
    pub fn count(&self) -> usize {
        if self.sampled {
            self.cap
        } else {
            FATES.pow(u32::try_from(self.units.len()).unwrap_or(0))
        }
    }

    /// Yields the fate of each risk at end `n`.
    ///
    /// Sampled: first everything old, everything new, then each unit alone old or torn among new ones, then each alone
    /// new, then by chance.
    pub fn end(&mut self, n: usize) -> Vec<Fate> {
        let mut fates = vec![Fate::Old; self.risks];
        let count = self.units.len();
        let mut rest = n;
        for (at, unit) in self.units.iter().enumerate() {
            let digit = match (self.sampled, n) {
                (false, _) => {
                    let digit = rest % FATES;
                    rest /= FATES;
                    digit
                }
                (true, 0) => 0,
                (true, 1) => 1,
                (true, _) if n < 2 + 2 * count && (n - 2) / 2 == at => (n % 2) * 2,
                (true, _) if n < 2 + 2 * count => 1,
                (true, _) if n < 2 + 3 * count => usize::from(n - 2 - 2 * count == at),
                (true, _) => {
                    self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1_442_695;
                    (self.random >> 33) as usize % FATES
                }
            };
            for (place, index) in unit.iter().enumerate() {
                if let Some(fate) = fates.get_mut(*index) {
                    *fate = match digit {
                        0 => Fate::Old,
                        2 if place == 0 => Fate::Garbage,
                        _ => Fate::New,
                    };
                }
            }
        }
        fates
    }
}

/// Cuts in a row.
const CUTS: usize = 300;

/// Cuts three hundred mounts in a row, each at another flush and with another end: each next one comes to the same, and after
/// the last everything is there, room to write among it.
///
/// # Errors
/// A mount refuses, or something is lost.
pub fn in_a_row(plants: Plants) -> Ended {
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut map = Map::new();
    for n in 0..6_u8 {
        let (key, value) = (vec![b'/', b'a' + n], vec![n; 30]);
        bench.put(&mut store, &key, &value)?;
        map.insert(key, value);
    }
    bench.idle(&mut store)?;
    let puts: [(&[u8], &[u8]); 2] = [(b"/y", b"in flight"), (b"/z", b"and behind it")];
    let places = bench.leave_in_flight(&mut store, &puts)?;
    if places.len() != 4 {
        return Err(format!("two groups of a block, not {places:?}"));
    }
    bench.device.power_cut_choosing(fates(&[Fate::New, Fate::Old, Fate::Old, Fate::New]));
    map.insert(b"/y".to_vec(), b"in flight".to_vec());
    map.insert(b"/z".to_vec(), b"and behind it".to_vec());
    let keys: Vec<Vec<u8>> = map.keys().cloned().collect();
    let whole = |bench: &mut Bench, cut: usize| match recover(bench, &keys)? == map {
        true => Ok(()),
        false => Err(format!("cut {cut}: not all is there")),
    };
    let mut random = 7_u64;
    let mut choose = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (random >> 33) as usize % below
    };
    let mut cut = 0;
    while cut < CUTS {
        let spared = u32::try_from(choose(4)).unwrap_or(0);
        if bench.open_until(&mut cut_after(spared))?.is_some() {
            // With nothing to repair a mount has three flushes, and is at its end before the fourth.
            continue;
        }
        let mut ends = Ends::new(&bench.device, 81);
        match choose(3) {
            0 => bench.device.power_cut_choosing(|_| Fate::Garbage),
            _ => {
                let end = ends.end(choose(ends.count()));
                bench.device.power_cut_choosing(fates(&end));
            }
        }
        cut += 1;
        // On the side, so that the row goes on.
        whole(&mut bench.fork(), cut)?;
    }
    whole(&mut bench, CUTS)?;
    let mut store = bench.open_whole()?;
    bench.put(&mut store, b"/x", b"written behind them")?;
    whole(&mut bench, CUTS)
}
