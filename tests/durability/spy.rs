//! A device that knows which commits a write carries, and the judgement over its log.

use blockdev::{
    BlockDevice, Completion, Counting, Event, Geometry, Operation, Request, RequestId,
    unprotected_writes,
};
use journal::layout::{group, record};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes at the start of a value that say which commit wrote it.
pub const MARK_BYTES: usize = 8;

/// Any device, whose writes are counted, logged and read.
pub struct Spy<D> {
    /// The device and its log.
    pub counting: Counting<D>,
    /// For each commit the writes that carry it, by id and offset.
    carried: BTreeMap<u64, Vec<(RequestId, u64)>>,
    /// What each noted acknowledgement promises: these commits are durable.
    promises: Vec<Vec<u64>>,
}

impl<D: BlockDevice> Spy<D> {
    /// Watches `device`.
    pub fn new(device: D) -> Self {
        Self { counting: Counting::new(device), carried: BTreeMap::new(), promises: Vec::new() }
    }

    /// Notes that an acknowledgement left which promises that `commits` are durable.
    pub fn acknowledged(&mut self, commits: Vec<u64>) {
        self.counting.note(self.promises.len() as u64);
        self.promises.push(commits);
    }

    /// Yields the groups that carry more than one commit.
    pub fn shared(&self) -> usize {
        let mut commits = BTreeMap::<RequestId, usize>::new();
        for (id, _) in self.carried.values().flatten() {
            *commits.entry(*id).or_default() += 1;
        }
        commits.values().filter(|count| **count > 1).count()
    }

    /// Holds every promise against the log up to where it was made.
    ///
    /// # Errors
    /// The first promise that was made too early.
    pub fn judge(&self, copies: usize) -> Result<(), String> {
        let events = self.counting.events();
        for (index, event) in events.iter().enumerate() {
            let Event::Noted(mark) = event else { continue };
            let before = &events[..index];
            let open: BTreeSet<RequestId> = unprotected_writes(before).into_iter().collect();
            for commit in &self.promises[usize::try_from(*mark).unwrap()] {
                self.judge_commit(*commit, copies, before, &open)
                    .map_err(|what| format!("commit {commit} was acknowledged, {what}"))?;
            }
        }
        Ok(())
    }

    fn judge_commit(
        &self,
        commit: u64,
        copies: usize,
        before: &[Event],
        open: &BTreeSet<RequestId>,
    ) -> Result<(), String> {
        let submitted = |id: RequestId| {
            before.iter().any(|event| matches!(event, Event::Submitted { id: of, .. } if *of == id))
        };
        let writes = self.carried.get(&commit).map(Vec::as_slice).unwrap_or_default();
        let writes: Vec<_> = writes.iter().filter(|(id, _)| submitted(*id)).collect();
        let places: BTreeSet<u64> = writes.iter().map(|(_, offset)| *offset).collect();
        if writes.len() != copies || places.len() != copies {
            return Err(format!("but {} of {copies} copies had been written", writes.len()));
        }
        match writes.iter().find(|(id, _)| open.contains(id)) {
            Some((id, offset)) => Err(format!("but no flush covered write {id:?} at {offset:#x}")),
            None => Ok(()),
        }
    }
}

impl<D: BlockDevice> BlockDevice for Spy<D> {
    fn geometry(&self) -> Geometry {
        self.counting.geometry()
    }

    fn submit(&mut self, request: Request) {
        if let Operation::Write { offset } = request.operation {
            for commit in commits_in(&request.buffer) {
                self.carried.entry(commit).or_default().push((request.id, offset));
            }
        }
        self.counting.submit(request);
    }

    fn completion(&mut self) -> Option<Completion> {
        self.counting.completion()
    }
}

/// Reads the marks of the values in a group; nothing else is written with a group's magic.
fn commits_in(bytes: &[u8]) -> BTreeSet<u64> {
    let mut commits = BTreeSet::new();
    if bytes[group::MAGIC] != group::MAGIC_VALUE {
        return commits;
    }
    let end = group::BYTES + number(&bytes[group::PAYLOAD_BYTES]);
    let mut at = group::BYTES;
    while at < end {
        let fixed = &bytes[at..at + record::BYTES];
        let value = at + record::BYTES + number(&fixed[record::KEY_BYTES]);
        let value_bytes = number(&fixed[record::VALUE_BYTES]);
        if value_bytes >= MARK_BYTES {
            let mark = bytes[value..value + MARK_BYTES].try_into().unwrap();
            commits.insert(u64::from_le_bytes(mark));
        }
        at = (value + value_bytes).next_multiple_of(record::ALIGNMENT);
    }
    commits
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}
