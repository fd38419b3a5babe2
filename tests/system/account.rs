//! What one connection may expect of the keys that nobody else writes.

use std::collections::HashSet;

use statefs_client::Version;

/// What a key holds; `None` while the answer with the version is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub data: Vec<u8>,
    pub version: Option<Version>,
}

/// The writes of one connection in the order of its calls, and which of them must survive.
///
/// Whatever happens, what is found later is what the first so many writes made: no write survives
/// without those before it, and each is there as a whole or not at all.
pub struct Account {
    /// What the keys held when the connection began.
    base: Vec<Option<Held>>,
    steps: Vec<Step>,
    /// Steps that survive a kill.
    durable: usize,
    /// Steps that survive a clean end.
    answered: usize,
    /// Every version that was ever told: no two writes have the same.
    versions: HashSet<Version>,
}

struct Step {
    key: usize,
    to: Option<Held>,
}

/// How the daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// What was acknowledged as durable, or before a sync, survives.
    Killed,
    /// Whatever was acknowledged survives.
    Stopped,
}

impl Account {
    pub fn new(keys: usize) -> Self {
        let base = vec![None; keys];
        Self { base, steps: Vec::new(), durable: 0, answered: 0, versions: HashSet::new() }
    }

    /// What the key holds once all that was asked is done.
    pub fn held(&self, key: usize) -> Option<&Held> {
        let last = self.steps.iter().rfind(|step| step.key == key);
        last.map_or(self.base[key].as_ref(), |step| step.to.as_ref())
    }

    /// Writes that were asked.
    pub fn asked(&self) -> usize {
        self.steps.len()
    }

    /// Whether a read that was asked after so many writes may find `data`: it sees all of those,
    /// and perhaps one that was asked while it was on its way.
    pub fn may_read(&self, key: usize, asked_after: usize, data: Option<&[u8]>) -> bool {
        let (before, since) = self.steps.split_at(asked_after);
        let last = before.iter().rfind(|step| step.key == key);
        let first = last.map_or(&self.base[key], |step| &step.to);
        let later = since.iter().filter(|step| step.key == key).map(|step| &step.to);
        let of = |held: &Option<Held>| held.as_ref().map(|held| held.data.as_slice()) == data;
        of(first) || later.into_iter().any(of)
    }

    /// Notes that a write was asked, and yields its number. `None` removes.
    pub fn ask(&mut self, key: usize, data: Option<Vec<u8>>) -> usize {
        let to = data.map(|data| Held { data, version: None });
        self.steps.push(Step { key, to });
        self.steps.len() - 1
    }

    /// Notes that a write was acknowledged.
    pub fn acknowledge(&mut self, step: usize, version: Option<Version>, durable: bool) {
        if let Some(version) = version {
            assert!(self.versions.insert(version), "{version} was given out before");
            self.steps[step].to.as_mut().unwrap().version = Some(version);
        }
        self.answered = self.answered.max(step + 1);
        if durable {
            self.durable = self.durable.max(step + 1);
        }
    }

    /// Writes that were answered; what a sync that is asked now covers.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Notes that a sync came back.
    pub fn synced(&mut self, covered: usize) {
        self.durable = self.durable.max(covered);
    }

    /// Demands that `found` is what some writes left, from the first on, with all those among them
    /// that survive such an end; begins anew with it. Else tells what differs.
    pub fn settle(&mut self, found: &[Option<Held>], end: End) -> Result<(), String> {
        let least = match end {
            End::Killed => self.durable,
            End::Stopped => self.answered,
        };
        let mut state = self.base.clone();
        let count = self.steps.len();
        let mut differs = format!("{end:?} after {count} writes, of which {least} survive");
        for count in 0..=count {
            if let Some(step) = count.checked_sub(1).map(|last| &self.steps[last]) {
                state[step.key].clone_from(&step.to);
            }
            if count < least {
                continue;
            }
            match (0..state.len()).find(|key| !self.agrees(state[*key].as_ref(), &found[*key])) {
                None => {
                    self.begin(found);
                    return Ok(());
                }
                Some(key) => {
                    let (should, holds) = (outline(&state[key]), outline(&found[key]));
                    differs.push_str(&format!(
                        "\nafter {count}, key {key} should hold {should} and holds {holds}"
                    ));
                }
            }
        }
        Err(differs)
    }

    /// Whether a key that should hold `expected` may hold `found`.
    fn agrees(&self, expected: Option<&Held>, found: &Option<Held>) -> bool {
        let (Some(expected), Some(found)) = (expected, found) else {
            return expected.is_none() && found.is_none();
        };
        let version = match expected.version {
            Some(version) => found.version == Some(version),
            // A write that nobody confirmed has a version of its own.
            None => found.version.is_some_and(|version| !self.versions.contains(&version)),
        };
        version && expected.data == found.data
    }

    fn begin(&mut self, found: &[Option<Held>]) {
        self.base = found.to_vec();
        self.versions.extend(found.iter().flatten().filter_map(|held| held.version));
        self.steps.clear();
        self.durable = 0;
        self.answered = 0;
    }
}

/// The first bytes, which name the write, and the rest in short.
fn outline(held: &Option<Held>) -> String {
    let Some(Held { data, version }) = held else { return "nothing".into() };
    let first = String::from_utf8_lossy(&data[..data.len().min(40)]);
    format!("{first:?}, {} bytes, {version:?}", data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digit: char) -> Option<Version> {
        Some(digit.to_string().repeat(16).parse().unwrap())
    }

    fn held(data: &[u8], digit: char) -> Option<Held> {
        Some(Held { data: data.into(), version: version(digit) })
    }

    /// Two keys: `a` durable, then `b` buffered, then one that was not answered.
    fn holds(found: [Option<Held>; 2], end: End) -> bool {
        let mut account = Account::new(2);
        let first = account.ask(0, Some(b"a".into()));
        account.acknowledge(first, version('1'), true);
        let second = account.ask(1, Some(b"b".into()));
        account.acknowledge(second, version('2'), false);
        account.ask(0, Some(b"c".into()));
        account.settle(&found, end).is_ok()
    }

    #[test]
    fn a_loss_a_mixture_and_an_invention_are_found() {
        assert!(holds([held(b"a", '1'), None], End::Killed));
        assert!(holds([held(b"a", '1'), held(b"b", '2')], End::Killed));
        assert!(holds([held(b"c", '3'), held(b"b", '2')], End::Killed));
        assert!(holds([held(b"a", '1'), held(b"b", '2')], End::Stopped));
        assert!(!holds([None, None], End::Killed), "a durable write is lost");
        assert!(!holds([held(b"c", '3'), None], End::Killed), "one before it is not there");
        assert!(!holds([held(b"a", '3'), None], End::Killed), "another version");
        assert!(!holds([held(b"c", '2'), held(b"b", '2')], End::Killed), "a version again");
        assert!(!holds([held(b"ac", '1'), None], End::Killed), "neither old nor new");
        assert!(!holds([held(b"a", '1'), None], End::Stopped), "an acknowledged write is lost");
    }
}
