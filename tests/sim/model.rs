//! What the journal must hold: a map, and the commits since it was last known, in order.

use journal::{Precondition, Version};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Keys and values.
pub type Map = BTreeMap<Rc<[u8]>, Rc<[u8]>>;

/// One change: the new value, or none for a delete.
pub type Change = (Rc<[u8]>, Option<Rc<[u8]>>);

/// A commit that was taken.
struct Commit {
    changes: Vec<Change>,
    buffered: bool,
}

/// The model of one volume.
#[derive(Default)]
pub struct Model {
    base: Map,
    commits: Vec<Commit>,
    /// How many of `commits` must survive whatever happens.
    must: usize,
    /// Versions by value, which are unique, as far as they were told.
    versions: BTreeMap<Rc<[u8]>, Version>,
}

impl Model {
    /// Notes a commit that was taken and yields its number.
    pub fn commit(&mut self, changes: Vec<Change>, buffered: bool) -> usize {
        self.commits.push(Commit { changes, buffered });
        self.commits.len()
    }

    /// Notes that the first `count` commits were acknowledged as durable, or shown.
    pub fn must_survive(&mut self, count: usize) {
        self.must = self.must.max(count);
    }

    /// Yields how many commits were taken.
    pub fn taken(&self) -> usize {
        self.commits.len()
    }

    /// Notes the version that a value was given.
    pub fn learn(&mut self, value: &Rc<[u8]>, version: Version) -> Result<(), String> {
        let known = *self.versions.entry(value.clone()).or_insert(version);
        if known == version { Ok(()) } else { Err("a value changed its version".into()) }
    }

    /// Yields the version of a value, if it was told.
    pub fn version(&self, value: &[u8]) -> Option<Version> {
        self.versions.get(value).copied()
    }

    /// Yields what `key` has once everything taken is applied.
    pub fn pending(&self, key: &[u8]) -> Option<Rc<[u8]>> {
        let changes = self.commits.iter().rev().flat_map(|commit| commit.changes.iter().rev());
        let newest = changes.filter(|(k, _)| **k == *key).map(|(_, value)| value.clone()).next();
        newest.unwrap_or_else(|| self.base.get(key).cloned())
    }

    /// Tells whether a precondition holds, as far as the model knows versions.
    pub fn holds(&self, key: &[u8], precondition: Precondition) -> bool {
        let value = self.pending(key);
        match precondition {
            Precondition::Any => true,
            Precondition::Absent => value.is_none(),
            Precondition::Version(wanted) => {
                value.and_then(|value| self.version(&value)) == Some(wanted)
            }
        }
    }

    /// Yields how many commits must survive, as far as is known now.
    pub fn must(&self) -> usize {
        self.must
    }

    /// Checks what a read of `key` showed that began when `at_least` commits were known to survive.
    ///
    /// It must be what the key had then, or later: and a value of a commit that is not buffered, once
    /// shown, must survive.
    pub fn shown(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        at_least: usize,
    ) -> Result<(), String> {
        let mut allowed = Vec::new();
        let mut now = self.base.get(key).cloned();
        if at_least == 0 {
            allowed.push((0, now.clone()));
        }
        for (at, commit) in self.commits.iter().enumerate() {
            let changed = commit.changes.iter().rev().find(|(k, _)| **k == *key);
            if let Some((_, value)) = changed {
                now = value.clone();
            }
            if at + 1 == at_least || (at + 1 > at_least && changed.is_some()) {
                allowed.push((at + 1, now.clone()));
            }
        }
        let found = allowed.iter().filter(|(_, allowed)| allowed.as_deref() == value);
        let counts: Vec<usize> = found.map(|(count, _)| *count).collect();
        let Some(&least) = counts.first() else {
            let id = |value: &[u8]| value.first_chunk().map(|id| u64::from_le_bytes(*id));
            let allowed = allowed.iter().map(|(count, value)| (*count, value.as_deref().map(id)));
            return Err(format!(
                "a read of {} showed {:?}; the commits allow {:?}",
                String::from_utf8_lossy(key),
                value.map(id),
                allowed.collect::<Vec<_>>()
            ));
        };
        // Several commits may explain an absence; if one of them is buffered, it may yet vanish.
        if counts.iter().all(|&count| count > 0 && !self.commits[count - 1].buffered) {
            self.must_survive(least);
        }
        Ok(())
    }

    /// Checks the state that a recovery left: some prefix of the commits that contains everything that
    /// must survive. From here on it is what is known.
    pub fn settle(&mut self, state: &Map) -> Result<(), String> {
        self.prefix(state)?;
        self.base.clone_from(state);
        self.commits.clear();
        self.must = 0;
        Ok(())
    }

    /// Checks the state that a store shows after its device failed: it must survive, and what is not shown
    /// may yet be found by the next recovery.
    pub fn frozen(&mut self, state: &Map) -> Result<(), String> {
        self.must = self.prefix(state)?;
        Ok(())
    }

    /// Yields how many commits give `state`; at least those that must survive.
    fn prefix(&self, state: &Map) -> Result<usize, String> {
        let mut map = self.base.clone();
        for (at, commit) in self.commits.iter().enumerate() {
            if at >= self.must && map == *state {
                return Ok(at);
            }
            for (key, value) in &commit.changes {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        if map == *state {
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

fn difference(all: &Map, state: &Map) -> String {
    let name = |key: &Rc<[u8]>| String::from_utf8_lossy(key).into_owned();
    let id = |value: &Rc<[u8]>| value.first_chunk().map(|id| u64::from_le_bytes(*id));
    let mut lines = Vec::new();
    for key in all.keys().chain(state.keys().filter(|key| !all.contains_key(*key))) {
        let (expected, found) = (all.get(key), state.get(key));
        if expected != found {
            let (expected, found) = (expected.map(id), found.map(id));
            lines.push(format!("{} has {found:?}, all commits give {expected:?}", name(key)));
        }
    }
    lines.join("; ")
}
