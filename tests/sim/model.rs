//! What the journal must hold: a number for the value of each key, and the commits since it was last known, in order.

use super::plan::CHANGES_MAX;
use journal::{Precondition, Version};
use std::rc::Rc;

/// The number of a value; no other value of the history has it. [`ABSENT`] is none.
pub type ValueId = u32;

/// No value.
pub const ABSENT: ValueId = 0;

/// One change: a key and its new value, or [`ABSENT`] for a delete.
pub type Changed = (u8, ValueId);

/// A commit that was taken.
#[derive(Clone, Copy)]
struct Commit {
    changes: [Option<Changed>; CHANGES_MAX],
    buffered: bool,
}

impl Commit {
    /// Yields what the commit leaves `key` with, if it touches it.
    fn of(&self, key: u8) -> Option<ValueId> {
        self.changes.iter().rev().flatten().find(|(of, _)| *of == key).map(|(_, value)| *value)
    }
}

/// A value that was written: its key, its bytes, and its version once that was told.
#[derive(Clone, Copy)]
struct Written {
    key: u8,
    bytes: u32,
    version: Option<Version>,
}

/// The model of one volume.
pub struct Model {
    base: Vec<ValueId>,
    /// What each key has once everything taken is applied.
    latest: Vec<ValueId>,
    commits: Vec<Commit>,
    /// How many of `commits` must survive whatever happens.
    must: usize,
    /// By number; `None` where no such value was written.
    values: Vec<Option<Written>>,
    /// Where values are made.
    making: Vec<u8>,
}

impl Model {
    /// Makes the model of an empty volume.
    pub fn new(keys: u8) -> Self {
        let empty = vec![ABSENT; keys.into()];
        let latest = empty.clone();
        let (commits, values, making) = (Vec::new(), Vec::new(), Vec::new());
        Self { base: empty, latest, commits, must: 0, values, making }
    }

    /// Yields the bytes of a new value: its number, then what follows from the number.
    pub fn write(&mut self, id: ValueId, key: u8, bytes: u32) -> Rc<[u8]> {
        let at = id as usize;
        if self.values.len() <= at {
            self.values.resize(at + 1, None);
        }
        self.values[at] = Some(Written { key, bytes, version: None });
        let value = &mut self.making;
        value.resize(NUMBER_BYTES + bytes as usize, 0);
        value[..NUMBER_BYTES].copy_from_slice(&id.to_le_bytes());
        let (words, rest) = value[NUMBER_BYTES..].as_chunks_mut();
        for (word, at) in words.iter_mut().zip(0..) {
            *word = filler(id, at);
        }
        rest.copy_from_slice(&filler(id, words.len() as u32)[..rest.len()]);
        value.as_slice().into()
    }

    /// Yields the number of a value that `key` shows.
    ///
    /// # Errors
    /// The bytes were never written to that key.
    pub fn read(&self, key: u8, value: &[u8]) -> Result<ValueId, String> {
        let number = value.split_first_chunk::<NUMBER_BYTES>();
        let (id, rest) =
            number.map_or((ABSENT, value), |(id, rest)| (u32::from_le_bytes(*id), rest));
        let written = self.values.get(id as usize).copied().flatten();
        let same = written.is_some_and(|written| {
            written.key == key && written.bytes as usize == rest.len() && is_filled(id, rest)
        });
        if same {
            Ok(id)
        } else {
            Err(format!("key {key} shows bytes that were never written to it"))
        }
    }

    /// Yields the bytes of a value beside its number; 0 of none.
    pub fn bytes(&self, value: ValueId) -> u64 {
        let written = self.values.get(value as usize).and_then(Option::as_ref);
        written.map_or(0, |written| written.bytes.into())
    }

    /// Notes a commit that was taken and yields its number.
    pub fn commit(&mut self, changes: [Option<Changed>; CHANGES_MAX], buffered: bool) -> usize {
        for (key, value) in changes.iter().flatten() {
            self.latest[usize::from(*key)] = *value;
        }
        self.commits.push(Commit { changes, buffered });
        self.commits.len()
    }

    /// Notes that commit `count` was refused after all: it applies nothing.
    pub fn refused(&mut self, count: usize) {
        if let Some(commit) = count.checked_sub(1).and_then(|at| self.commits.get_mut(at)) {
            commit.changes = [None; CHANGES_MAX];
        }
        self.latest.copy_from_slice(&self.base);
        for (key, value) in self.commits.iter().flat_map(|commit| commit.changes).flatten() {
            self.latest[usize::from(key)] = value;
        }
    }

    /// Notes that the first `count` commits were acknowledged as durable, or shown.
    pub fn must_survive(&mut self, count: usize) {
        self.must = self.must.max(count);
    }

    /// Yields how many commits were taken.
    pub fn taken(&self) -> usize {
        self.commits.len()
    }

    /// Yields how many commits must survive, as far as is known now.
    pub fn must(&self) -> usize {
        self.must
    }

    /// Notes the version that a value was given.
    pub fn learn(&mut self, value: ValueId, version: Version) -> Result<(), String> {
        let written = self.values.get_mut(value as usize).and_then(Option::as_mut);
        let written = written.ok_or("a version is told of a value that was never written")?;
        let known = *written.version.get_or_insert(version);
        if known == version { Ok(()) } else { Err("a value changed its version".into()) }
    }

    /// Checks the version of a value, if it was told, and notes nothing.
    pub fn compare(&self, value: ValueId, version: Version) -> Result<(), String> {
        let written = self.values.get(value as usize).and_then(Option::as_ref);
        match written.and_then(|written| written.version) {
            Some(known) if known != version => Err("a value changed its version".into()),
            _ => Ok(()),
        }
    }

    /// Forgets the version of a value that was lost, as it may be, and is written anew.
    pub fn forget_version(&mut self, value: ValueId) {
        if let Some(written) = self.values.get_mut(value as usize).and_then(Option::as_mut) {
            written.version = None;
        }
    }

    /// Yields the value of `key` that is known to have this version.
    pub fn of_version(&self, key: u8, version: Version) -> Option<ValueId> {
        let known = |one: &Option<Written>| {
            one.is_some_and(|one| one.key == key && one.version == Some(version))
        };
        let at = self.values.iter().position(known)?;
        ValueId::try_from(at).ok()
    }

    /// Yields the version of what `key` has once everything taken is applied, if it was told.
    pub fn version(&self, key: u8) -> Option<Version> {
        self.values.get(self.pending(key) as usize)?.as_ref()?.version
    }

    /// Yields what `key` has once everything taken is applied.
    pub fn pending(&self, key: u8) -> ValueId {
        self.latest[usize::from(key)]
    }

    /// Tells whether a precondition holds, as far as the model knows versions.
    pub fn holds(&self, key: u8, precondition: Precondition) -> bool {
        match precondition {
            Precondition::Any => true,
            Precondition::Absent => self.pending(key) == ABSENT,
            Precondition::Version(wanted) => self.version(key) == Some(wanted),
        }
    }

    /// Checks what a read of `key` showed that began when `at_least` commits were known to survive.
    ///
    /// It must be what the key had then, or later: and a value of a commit that is not buffered, once
    /// shown, must survive.
    pub fn shown(&mut self, key: u8, value: ValueId, at_least: usize) -> Result<(), String> {
        let mut now = self.base[usize::from(key)];
        // The commit that gave the key what it has, and whether it may yet vanish.
        let (mut by, mut vanishes) = (0, true);
        // The first commit that explains what is shown, and whether all that do are safe to rely on.
        let mut least = (at_least == 0 && now == value).then_some(0);
        let mut sure = least.is_none();
        for (at, commit) in self.commits.iter().enumerate() {
            let changed = commit.of(key);
            if let Some(value) = changed {
                (now, by, vanishes) = (value, at + 1, commit.buffered);
            }
            let allowed = at + 1 == at_least || (at + 1 > at_least && changed.is_some());
            if allowed && now == value {
                least = least.or(Some(by));
                sure &= !vanishes;
            }
        }
        let Some(least) = least else {
            return Err(format!(
                "a read of key {key} showed value {value}; the {} commits from {at_least} on allow none such",
                self.commits.len()
            ));
        };
        // Several commits may explain an absence; if one of them is buffered, it may yet vanish.
        if sure {
            self.must_survive(least);
        }
        Ok(())
    }

    /// Checks the state that a recovery left: some prefix of the commits that contains everything that
    /// must survive. From here on it is what is known.
    pub fn settle(&mut self, state: &[ValueId]) -> Result<(), String> {
        self.prefix(state)?;
        self.base.copy_from_slice(state);
        self.latest.copy_from_slice(state);
        self.commits.clear();
        self.must = 0;
        Ok(())
    }

    /// Checks the state that a store shows after its device failed: it must survive, and what is not shown
    /// may yet be found by the next recovery.
    pub fn frozen(&mut self, state: &[ValueId]) -> Result<(), String> {
        self.must = self.prefix(state)?;
        Ok(())
    }

    /// Checks that a recovery might leave `state`, and notes nothing.
    pub fn allows(&self, state: &[ValueId]) -> Result<(), String> {
        self.prefix(state).map(drop)
    }

    /// Yields how many commits give `state`; at least those that must survive.
    fn prefix(&self, state: &[ValueId]) -> Result<usize, String> {
        let mut map = self.base.clone();
        let mut different = map.iter().zip(state).filter(|(left, right)| left != right).count();
        for (at, commit) in self.commits.iter().enumerate() {
            if at >= self.must && different == 0 {
                return Ok(at);
            }
            for &(key, value) in commit.changes.iter().flatten() {
                let (had, found) = (&mut map[usize::from(key)], state[usize::from(key)]);
                different -= usize::from(*had != found);
                different += usize::from(value != found);
                *had = value;
            }
        }
        if different == 0 {
            return Ok(self.commits.len());
        }
        Err(format!(
            "the state is no prefix of the {} commits that holds the first {}: {}",
            self.commits.len(),
            self.must,
            difference(&map, state)
        ))
    }
}

/// Bytes of a value's number.
const NUMBER_BYTES: usize = 4;

const WORD_BYTES: usize = 8;

/// Yields a word of a value: no two words of a history are alike, so that none can stand in another's place.
fn filler(id: ValueId, at: u32) -> [u8; WORD_BYTES] {
    (u64::from(id) << 32 | u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

/// Tells whether `bytes` are those of a value behind its number.
fn is_filled(id: ValueId, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    words.iter().zip(0..).all(|(word, at)| *word == filler(id, at))
        && filler(id, words.len() as u32).starts_with(rest)
}

fn difference(all: &[ValueId], state: &[ValueId]) -> String {
    let differ = all.iter().zip(state).enumerate().filter(|(_, (all, found))| all != found);
    let lines: Vec<_> = differ
        .map(|(key, (all, found))| format!("key {key} has value {found}, all commits give {all}"))
        .collect();
    lines.join("; ")
}
