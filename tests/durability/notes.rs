//! What is noted of a change survives exactly when the change does, whatever is cut and whenever; and a ring that has
//! forgotten more than it holds, through checkpoints and cleaning, holds an unbroken run of the newest.

use blockdev::{BlockDevice, FateWeights, SimConfig, SimDevice};
use fastrand::Rng;
use journal::{
    Batch, Clock, CommitError, Disk, Durability, FormatOptions, Got, Journal, Note, Operation,
    Options, Origin, Outcome, Precondition, Random, Ring, format, inspect,
};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;
use tests::drive::{Task, drive, poll, read_whole, turn};

/// The smallest device with segments that notes are kept from, in round figures.
const DEVICE_BYTES: u64 = 8 << 20;
const KEYS: [&str; 4] = ["/state/a", "/state/b", "/state/c", "/state/d"];
const SEEDS: u64 = 60;
/// Mounts of one history, each ended by a cut.
const MOUNTS: u64 = 4;

/// Keys and values.
type Map = BTreeMap<&'static str, Vec<u8>>;

/// How a note is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// With its change.
    Together,
    /// In a commit of its own behind it, as must never be.
    Apart,
}

/// What was asked, and what it promises.
#[derive(Default)]
struct Model {
    /// The state behind each change that was applied.
    states: Vec<Map>,
    /// Changes that every later mount must show.
    promised: usize,
}

struct Mount {
    disk: Disk,
    journal: Journal,
    run: Task<()>,
    clock: Clock,
}

impl Mount {
    fn open(device: &mut SimDevice, seed: u64) -> Self {
        let (disk, clock) = (Disk::new(device.geometry()), Clock::default());
        let mut entropy = [3; 32];
        entropy[..8].copy_from_slice(&seed.to_le_bytes());
        let group_bytes_max = [200, 4000][usize::from(seed.is_multiple_of(3))];
        let options = Options { group_bytes_max, ..Options::default() };
        let opening =
            Journal::open(disk.clone(), Random::from_seed(entropy), clock.clone(), options);
        let journal = drive(&disk, device, None, Box::pin(opening)).unwrap();
        let run: Task<()> = Box::pin(journal.run());
        Self { disk, journal, run, clock }
    }

    fn drive<T: 'static>(
        &mut self,
        device: &mut SimDevice,
        task: impl Future<Output = T> + 'static,
    ) -> T {
        drive(&self.disk, device, Some(&mut self.run), Box::pin(task))
    }

    /// Reads what each note of a ring says: the number of a change.
    fn notes(&mut self, device: &mut SimDevice, ring: Ring) -> Vec<(u64, u64)> {
        let seen = self.journal.notes(ring, 0, usize::MAX);
        let mut told = Vec::new();
        for note in seen {
            let (of, journal) = (note.clone(), self.journal.clone());
            let got = self.drive(device, async move { journal.read_note(&of).await });
            let Got::Value { value, .. } = got else { panic!("a note cannot be read") };
            told.push((note.last, u64::from_le_bytes(value[..8].try_into().unwrap())));
        }
        told
    }

    fn state(&mut self, device: &mut SimDevice) -> Map {
        let mut map = Map::new();
        for key in KEYS {
            let journal = self.journal.clone();
            let get = async move { read_whole(&journal, key.as_bytes(), Origin(9)).await };
            match self.drive(device, get) {
                Got::Value { value, .. } => drop(map.insert(key, value.to_vec())),
                Got::Absent => {}
                _ => panic!("{key} is lost"),
            }
        }
        map
    }
}

fn formatted(seed: u64, fates: FateWeights) -> SimDevice {
    let mut device = SimDevice::new(SimConfig { fates, ..SimConfig::new(seed, DEVICE_BYTES) });
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let task: Task<_> = Box::pin(async move {
        let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
        format(&of, &mut Random::from_seed([1; 32]), options).await.map(drop)
    });
    drive(&disk, &mut device, None, task).unwrap();
    device
}

fn note(ring: Ring, number: usize) -> Note {
    let bytes = Rc::from(&(number as u64).to_le_bytes()[..]);
    Note { ring, count: 1, bytes }
}

/// Asks for one change, some of which come to nothing.
fn ask(
    mount: &mut Mount,
    device: &mut SimDevice,
    rng: &mut Rng,
    model: &mut Model,
    how: Written,
) -> Task<Result<Outcome, CommitError>> {
    let mut state = model.states.last().cloned().unwrap_or_default();
    let number = model.states.len() + 1;
    let durability = [Durability::Durable, Durability::Strict, Durability::Buffered];
    let durability = durability[rng.usize(..durability.len())];
    let key = KEYS[rng.usize(..KEYS.len())];
    let there = state.contains_key(key);
    let origin = Origin(1);
    let together = how == Written::Together;
    let told: Vec<Note> = together.then(|| note(Ring::Mutations, number)).into_iter().collect();
    let value: Option<Vec<u8>> = match rng.u8(..8) {
        0..=1 => None,
        7 => Some(vec![rng.u8(..); 150_000]),
        _ => Some(vec![rng.u8(..); rng.usize(..900)]),
    };
    let precondition = [Precondition::Any, Precondition::Any, Precondition::Absent][rng.usize(..3)];
    let refused = precondition == Precondition::Absent && there;
    // A strict delete is written also where nothing is there.
    let written = value.is_some() || there || durability == Durability::Strict;
    let changes = !refused && written;
    match &value {
        Some(value) => drop(state.insert(key, value.clone())),
        None => drop(state.remove(key)),
    }
    let end: Task<Result<Outcome, CommitError>> = match value {
        Some(value) if value.len() > 65_536 => {
            let mut upload = mount.journal.upload(origin).with_notes(told);
            let upload = mount.drive(device, async move {
                upload.append(&value).await.unwrap();
                upload
            });
            Box::pin(upload.commit(Rc::from(key.as_bytes()), precondition, durability))
        }
        value => {
            let value = value.map(Rc::from);
            let mut operations =
                vec![Operation { key: Rc::from(key.as_bytes()), value, precondition }];
            if rng.bool() && precondition == Precondition::Any && changes {
                let (key, value) = (Rc::from(&b"/state/beside"[..]), Some(Rc::from(&b"v"[..])));
                operations.push(Operation { key, value, precondition });
            }
            Box::pin(mount.journal.commit_noted(Batch { operations, durability, origin }, told))
        }
    };
    if changes {
        model.states.push(state);
        if how == Written::Apart {
            mount.journal.note(vec![note(Ring::Mutations, number)]).unwrap();
        }
    }
    end
}

/// One history: changes, cuts and mounts; yields how many changes the last mount had.
fn history(seed: u64, how: Written) -> Result<usize, String> {
    let mut rng = Rng::with_seed(seed);
    let mut device = formatted(seed, FateWeights::default());
    let mut model = Model::default();
    for mount_number in 0..MOUNTS {
        let mut mount = Mount::open(&mut device, seed * 100 + mount_number);
        let notes = mount.notes(&mut device, Ring::Mutations);
        let survived = notes.len();
        let unbroken = (1..).zip(&notes).all(|(at, told)| *told == (at, at));
        if !unbroken || survived < model.promised || survived > model.states.len() {
            return Err(format!("{notes:?} after {} changes", model.states.len()));
        }
        model.states.truncate(survived);
        let expected = model.states.last().cloned().unwrap_or_default();
        if mount.state(&mut device) != expected {
            return Err(format!("the state is not that of {survived} notes"));
        }
        model.promised = survived;
        let mut waiting: Vec<(usize, Task<_>)> = Vec::new();
        for _ in 0..rng.usize(..40) {
            match rng.u8(..8) {
                0..=3 => {
                    let end = ask(&mut mount, &mut device, &mut rng, &mut model, how);
                    waiting.push((model.states.len(), end));
                }
                4 => mount.clock.set(mount.clock.now() + rng.u64(..60)),
                5 => mount.journal.note(vec![note(Ring::Denials, 0)]).unwrap(),
                6 => {
                    let sync = mount.journal.sync();
                    mount.drive(&mut device, sync).unwrap();
                    model.promised = model.states.len();
                }
                _ => {
                    for _ in 0..rng.usize(..6) {
                        let _ = poll(&mut mount.run);
                        turn(&mount.disk, &mut device);
                    }
                }
            }
            // A buffered change promises nothing; one that is asked about as durable does. Both are counted by
            // the sync above and, at the latest, by the next mount.
            waiting.retain_mut(|(_, task)| matches!(poll(task), Poll::Pending));
        }
        device.power_cut();
    }
    Ok(model.promised)
}

#[test]
fn a_note_survives_exactly_with_its_change() {
    let mut changes = 0;
    for seed in 0..SEEDS {
        match history(seed, Written::Together) {
            Ok(survived) => changes += survived,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(changes > SEEDS as usize * 10, "{changes}");
}

#[test]
fn a_note_that_is_written_apart_is_found() {
    let found = (0..10 * SEEDS).find_map(|seed| history(seed, Written::Apart).err());
    println!("found: {}", found.expect("a note that does not belong to its change goes unnoticed"));
}

/// Far more notes than the ring holds, values that make cleaning work, a cut in the middle of it all, and the tools
/// find nothing amiss.
#[test]
fn rings_keep_the_newest_through_checkpoints_and_cleaning() {
    let mut device = formatted(7, FateWeights::default());
    let mut mount = Mount::open(&mut device, 1);
    let mut rng = Rng::with_seed(7);
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..900 {
            number += 1;
            let value: Rc<[u8]> = Rc::from(vec![7; rng.usize(1000..20_000)]);
            let (key, precondition) = (format!("/state/{}", rng.u8(..60)), Precondition::Any);
            let operation =
                Operation { key: Rc::from(key.as_bytes()), value: Some(value), precondition };
            let (operations, origin) = (vec![operation], Origin(1));
            let batch = Batch { operations, durability: Durability::Durable, origin };
            let told = vec![note(Ring::Mutations, number)];
            let commit = mount.journal.commit_noted(batch, told);
            let outcome = mount.drive(&mut device, commit);
            assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
        }
        let stats = mount.journal.stats();
        assert!(stats.cleaned > 0 && stats.checkpoints > 1, "{stats:?}");
        assert_eq!(stats.keys, 60, "notes are no keys");
        let before = mount.notes(&mut device, Ring::Mutations);
        device.power_cut();
        let disk = Disk::new(device.geometry());
        let of = disk.clone();
        let looking: Task<_> = Box::pin(async move { inspect::inspect(&of, |_, _| {}).await });
        let found = drive(&disk, &mut device, None, looking).volume.unwrap();
        assert!(found.faults.is_empty(), "round {round}: {:?}", found.faults.len());
        mount = Mount::open(&mut device, 2 + round);
        let notes = mount.notes(&mut device, Ring::Mutations);
        assert_eq!(notes, before, "all of them were durable");
        let last = number as u64;
        assert!((400..=512).contains(&notes.len()), "{}", notes.len());
        let first = last + 1 - notes.len() as u64;
        assert!((first..).zip(&notes).all(|(at, told)| *told == (at, at)));
    }
}
