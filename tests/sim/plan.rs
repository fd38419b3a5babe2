//! A history as data: the volume, and what happens to it, step by step.
//!
//! A plan is made from a seed and played without looking at the seed again, so a plan with steps taken away is
//! a plan: that is what makes shrinking possible. Each step draws the device's choices from its own number, so
//! that what is left of a plan behaves much as it did in the whole.

mod wider;

use super::{Setup, Twist};
use fastrand::Rng;

/// Most changes of one commit.
pub const CHANGES_MAX: usize = 3;

/// What is played.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Decides what the device leaves to chance, together with the number of each step.
    pub seed: u64,
    /// The volume and its engine.
    pub shape: Shape,
    /// What happens, in order. A recovery, checked, ends every plan.
    pub steps: Vec<Step>,
}

/// The volume, its device, and how the engine is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// KiB of the device.
    pub device_kib: u16,
    /// Copies of each group.
    pub copies: u8,
    /// Keys that are written.
    pub keys: u8,
    /// How often, of 256, the device stalls.
    pub stall: u8,
    /// Most bytes of a group.
    pub group_bytes_max: usize,
    /// Most bytes under one flush.
    pub flush_bytes_max: usize,
    /// Bytes of values that are kept in memory.
    pub cache_bytes: usize,
    /// Longest value that one record holds.
    pub value_record_bytes_max: usize,
    /// Bound on replay.
    pub replay_bytes: Option<u64>,
}

/// One step: an action, then some turns of engine and device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its number in the plan as it was made; chance and values derive from it.
    pub id: u32,
    /// Turns behind the action, each with at most one completion.
    pub turns: u16,
    /// What is done.
    pub action: Action,
}

/// What a step does. Everything but [`Action::Crash`] and [`Action::Fail`] opens the volume first, if it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Commit a batch; nothing while a dozen are awaited.
    Commit {
        /// Its changes, in order.
        changes: [Option<Change>; CHANGES_MAX],
        /// When it is to be answered.
        ack: Ack,
        /// The client.
        origin: u8,
    },
    /// Begin a large value; it is committed or given up when all but its end is on its way. Nothing while two are.
    Upload {
        /// The key, the bytes of the value, and what is expected in the end.
        change: Change,
        /// Bytes of the first of two parts.
        cut: u16,
        /// It is given up.
        abandoned: bool,
        /// The client.
        origin: u8,
    },
    /// Wait for everything.
    Sync,
    /// Read a key.
    Get {
        /// The key.
        key: u8,
        /// The client.
        origin: u8,
    },
    /// Let the clock go on.
    Wait {
        /// Milliseconds.
        ms: u8,
    },
    /// Compare all copies and repair.
    Check,
    /// Write a checkpoint of everything accepted so far, unless one is on its way that was asked for.
    Checkpoint,
    /// A block of the running volume goes bad, unless another bad block is still about.
    Harm(Harm),
    /// Wait for everything, then delete this key or the next one that there is: it must be taken, however full the volume is.
    Delete {
        /// The key.
        key: u8,
    },
    /// Let a coming request fail; ends with the next crash.
    Fail {
        /// Which.
        what: Failing,
        /// How many of the kind are spared.
        after: u8,
        /// All from there on.
        always: bool,
    },
    /// Crash. If the volume is not open, a recovery is begun and crashes.
    Crash {
        /// How.
        how: How,
        /// Turns that a recovery gets.
        recovery: u16,
        /// What else happens.
        harm: Option<Harm>,
    },
}

/// One put or delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: u8,
    /// Bytes of the new value beside its number, or a delete.
    pub bytes: Option<u32>,
    /// The precondition.
    pub expect: Expect,
}

/// A precondition, in words that hold for any history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// None.
    Any,
    /// The key is absent.
    Absent,
    /// The key has the version that it has, if that was told.
    Current,
    /// The key has a version that it does not have.
    Wrong,
}

/// When a commit is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// At once.
    Buffered,
    /// When it is durable.
    Durable,
    /// When the medium says so itself.
    Strict,
}

/// A request that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failing {
    /// A write, left by chance as a power cut would leave it.
    Write,
    /// A flush; what it should have saved is gone.
    Flush,
    /// A flush; the cache shows what is gone until the power is cut.
    FlushShown,
}

/// How the machine goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The device loses its cache, in part.
    PowerCut,
    /// The device keeps its cache. Behind a failed flush whose losses are shown the power is cut all the same.
    ProcessDeath,
}

/// What happens to one place of the medium, in one copy, unless another bad one is still about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Harm {
    /// The block, counted from the start of the device; where it [goes back](HarmKind::goes_back), from the one that changed
    /// last.
    pub block: u16,
    /// What happens to it.
    pub kind: HarmKind,
}

/// How a block goes bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HarmKind {
    /// One bit changes.
    Bit(u16),
    /// Zeros.
    Zeros,
    /// Random bytes.
    Garbage,
    /// The bytes of another block.
    CopyOf(u16),
    /// It cannot be read until it is written.
    Unreadable,
    /// It holds what it held before it last changed: that write was lost.
    Stale,
    /// The same of so many blocks in a row, as far as they are of the same copy.
    LostWrites(u8),
    /// The write that changed it last went to this block of the same copy instead, counted from the copy's start.
    Astray(u16),
}

impl HarmKind {
    /// Tells whether a block comes to hold what it held earlier, which the device must remember.
    pub fn goes_back(self) -> bool {
        matches!(self, Self::Stale | Self::LostWrites(_) | Self::Astray(_))
    }
}

impl Action {
    /// Yields what the action does to the medium.
    pub fn harm(&self) -> Option<Harm> {
        match self {
            Self::Harm(harm) | Self::Crash { harm: Some(harm), .. } => Some(*harm),
            _ => None,
        }
    }
}

impl Plan {
    /// Makes the plan of a seed.
    pub fn of_seed(seed: u64, setup: Setup) -> Self {
        let mut rng = Rng::with_seed(seed);
        let sizes = if setup.heavy { [96, 128, 192] } else { [64, 80, 128] };
        let shape = Shape {
            device_kib: sizes[rng.usize(..3)],
            copies: setup.copies,
            keys: if setup.heavy { HEAVY_KEYS } else { LIGHT_KEYS },
            stall: [0, 64, 200][rng.usize(..3)],
            group_bytes_max: [100, 1000, 256 << 10][rng.usize(..3)],
            flush_bytes_max: [1, 2048, 2 << 20][rng.usize(..3)],
            cache_bytes: [0, 4 << 20][rng.usize(..2)],
            // Half of the histories cut values, the shortest of which lie in one record still.
            value_record_bytes_max: [usize::MAX, usize::MAX, 80, 300]
                [Rng::with_seed(!seed).usize(..4)],
            replay_bytes: [None, Some(4096), Some(12_288)][rng.usize(..3)],
        };
        let blocks = shape.device_kib * 2;
        let keys = shape.keys;
        let mut making = Making { rng, setup, blocks, keys, steps: Vec::new() };
        let shape = making.twist(shape);
        match setup.twist {
            Twist::Uploads => making.uploads(&shape),
            Twist::Brim => making.brim(),
            Twist::Large => making.large(),
            Twist::None | Twist::Lapses => making.rounds(),
        }
        Self { seed, shape, steps: making.steps }
    }

    /// Tells whether the device must remember what blocks held earlier.
    pub fn goes_back(&self) -> bool {
        let mut harms = self.steps.iter().filter_map(|step| step.action.harm());
        harms.any(|harm| harm.kind.goes_back())
    }
}

const LIGHT_KEYS: u8 = 8;
/// Keys of a history that fills its volume.
pub const HEAVY_KEYS: u8 = 60;

struct Making {
    rng: Rng,
    setup: Setup,
    blocks: u16,
    keys: u8,
    steps: Vec<Step>,
}

impl Making {
    fn rounds(&mut self) {
        if self.setup.heavy {
            self.fill();
        }
        let lapses = self.setup.twist == Twist::Lapses;
        // Rounds with checks take long.
        for _ in 0..self.rng.u32(4..if lapses { 14 } else { 24 }) {
            self.round();
            if lapses && self.setup.damage && self.rng.bool() {
                self.tail();
            }
        }
    }

    fn step(&mut self, action: Action) {
        let turns = match self.rng.u8(..8) {
            0..=3 => 0,
            4 | 5 => 1,
            6 => 2,
            _ => self.rng.u16(1..=4),
        };
        // Cleaning takes its time.
        let turns = if self.setup.heavy { 3 * turns } else { turns };
        self.push(action, turns);
    }

    fn push(&mut self, action: Action, turns: u16) {
        let id = u32::try_from(self.steps.len()).expect("a plan is short");
        self.steps.push(Step { id, turns, action });
    }

    /// Writes most keys of a heavy history, so that its volume is full from the start.
    fn fill(&mut self) {
        for _ in 0..80 {
            let commit = self.commit();
            self.push(commit, 6);
        }
    }

    /// Some work, then a crash, and perhaps crashes of the recovery.
    fn round(&mut self) {
        let setup = self.setup;
        if setup.damage && self.rng.u8(..4) == 0 {
            self.step(Action::Check);
        }
        if setup.failures && self.rng.bool() {
            if self.rng.bool() {
                // Opens the volume, so that the failure spares the recovery.
                self.step(Action::Sync);
            }
            let what = [Failing::Write, Failing::Flush, Failing::FlushShown][self.rng.usize(..3)];
            let (after, always) = (self.rng.u8(..12), self.rng.bool());
            self.step(Action::Fail { what, after, always });
        }
        let long = self.rng.u8(..8) == 0;
        for _ in 0..self.rng.u16(..if long { 240 } else { 36 }) {
            let action = self.work();
            self.step(action);
            if setup.twist == Twist::Lapses {
                self.lapse();
            }
        }
        self.crash();
        while self.rng.u8(..3) == 0 {
            self.crash();
        }
    }

    fn work(&mut self) -> Action {
        let origin = self.rng.u8(..3);
        match self.rng.u8(..9) {
            0..=4 => self.commit(),
            5 => Action::Sync,
            6 | 7 => Action::Get { key: self.key(), origin },
            _ if self.rng.u8(..4) == 0 => self.upload(origin),
            _ => Action::Wait { ms: self.rng.u8(..40) },
        }
    }

    fn commit(&mut self) -> Action {
        let count = self.rng.usize(1..=CHANGES_MAX);
        let mut changes = [None; CHANGES_MAX];
        for change in changes.iter_mut().take(count) {
            *change = Some(self.change());
        }
        let ack = match self.rng.u8(..20) {
            0..=4 => Ack::Buffered,
            5..=7 => Ack::Strict,
            _ => Ack::Durable,
        };
        Action::Commit { changes, ack, origin: self.rng.u8(..3) }
    }

    fn upload(&mut self, origin: u8) -> Action {
        let bytes = self.rng.u16(900..if self.setup.heavy { 9000 } else { 2600 });
        let change = Change { bytes: Some(bytes.into()), ..self.change() };
        let (cut, abandoned) = (self.rng.u16(1..bytes), self.rng.u8(..4) == 0);
        Action::Upload { change, cut, abandoned, origin }
    }

    fn change(&mut self) -> Change {
        let heavy = self.setup.heavy;
        let rng = &mut self.rng;
        let most = if heavy { 400 } else { 120 };
        let put = rng.u8(..if heavy { 8 } else { 4 }) > 0;
        let bytes = if rng.u8(..8) == 0 { rng.u16(..900) } else { rng.u16(..most) };
        let expect = match rng.u8(..6) {
            0 => Expect::Absent,
            1 | 2 => Expect::Current,
            3 => Expect::Wrong,
            _ => Expect::Any,
        };
        Change { key: self.key(), bytes: put.then_some(bytes.into()), expect }
    }

    fn key(&mut self) -> u8 {
        self.rng.u8(..self.keys)
    }

    fn crash(&mut self) {
        let (setup, rng) = (self.setup, &mut self.rng);
        let how = if rng.u8(..4) == 0 { How::ProcessDeath } else { How::PowerCut };
        let recovery = rng.u16(..60);
        let harmed = setup.damage && rng.bool();
        let (block, from) = (rng.u16(..self.blocks), rng.u16(..self.blocks));
        let kind = match rng.u8(..5) {
            0 => HarmKind::Bit(rng.u16(..4096)),
            1 => HarmKind::Zeros,
            2 => HarmKind::Garbage,
            3 => HarmKind::Unreadable,
            _ => HarmKind::CopyOf(from),
        };
        let harm = Harm { block, kind };
        let harm = if setup.twist == Twist::Lapses { self.gone_back(harm) } else { harm };
        self.push(Action::Crash { how, recovery, harm: harmed.then_some(harm) }, 0);
    }
}
