//! What the clients of a played history ask and are answered.

use super::super::model::{ABSENT, Changed, ValueId};
use super::super::plan::{Ack, CHANGES_MAX, Change, Expect};
use super::{Open, Player, TURNS_MAX, Uploading, Waiting};
use crate::drive::{Task, poll};
use journal::{
    Applied, Batch, CommitError, Durability, Got, Journal, Operation, Origin, Outcome,
    Precondition, Upload,
};
use std::rc::Rc;
use std::task::Poll;

impl Player {
    pub(super) fn key(&self, key: u8) -> Rc<[u8]> {
        self.keys[usize::from(key)].clone()
    }

    pub(super) fn commit(
        &mut self,
        journal: &Journal,
        step: u32,
        changes: [Option<Change>; CHANGES_MAX],
        ack: Ack,
        origin: u8,
    ) -> Result<Option<Waiting>, String> {
        let mut operations = Vec::with_capacity(CHANGES_MAX);
        let mut changed = [None; CHANGES_MAX];
        let (mut values, mut cut) = ([ABSENT; CHANGES_MAX], 0);
        let first = step * CHANGES_MAX as u32 + 1;
        for ((id, change), at) in (first..).zip(changes.into_iter().flatten()).zip(0..) {
            let (operation, one) = self.operation(id, change);
            let bytes = operation.value.as_ref().map_or(0, |value| value.len());
            cut += u64::from(bytes > self.shape.value_record_bytes_max);
            operations.push(operation);
            (changed[at], values[at]) = (Some(one), one.1);
        }
        let holds = |o: &Operation, (key, _): Changed| self.model.holds(key, o.precondition);
        let all_hold =
            operations.iter().zip(changed.into_iter().flatten()).all(|(o, c)| holds(o, c));
        let absent = |&(key, value): &Changed| value == ABSENT && self.model.pending(key) == ABSENT;
        let taken = all_hold && !changed.iter().flatten().all(absent);
        let durability = match ack {
            Ack::Buffered => Durability::Buffered,
            Ack::Durable => Durability::Durable,
            Ack::Strict => Durability::Strict,
        };
        let buffered = ack == Ack::Buffered;
        let batch = Batch { operations, durability, origin: Origin(origin.into()) };
        let count = taken.then_some(changed);
        self.counts.values_cut += if taken { cut } else { 0 };
        self.sent(Box::pin(journal.commit(batch)), count, values, buffered)
    }

    /// Notes a commit whose place in the order is fixed, and the changes if the model takes it.
    fn sent(
        &mut self,
        mut task: Task<Result<Outcome, CommitError>>,
        taken: Option<[Option<Changed>; CHANGES_MAX]>,
        values: [ValueId; CHANGES_MAX],
        buffered: bool,
    ) -> Result<Option<Waiting>, String> {
        let first = poll(&mut task);
        use CommitError::{BatchBytes, NoSpace, Overloaded, ReadOnly, ValueBytes};
        if let Poll::Ready(Err(
            NoSpace | Overloaded | ReadOnly(_) | BatchBytes { .. } | ValueBytes { .. },
        )) = first
        {
            self.refused(matches!(first, Poll::Ready(Err(NoSpace | Overloaded))));
            return Ok(None);
        }
        let count = taken.map(|changed| self.model.commit(changed, buffered));
        self.counts.commits += u64::from(count.is_some());
        let mut waiting = Waiting { task, count, values, buffered };
        match first {
            Poll::Ready(answer) => self.answered(&mut waiting, answer).map(|()| None),
            Poll::Pending => Ok(Some(waiting)),
        }
    }

    fn refused(&mut self, for_want_of_room: bool) {
        self.full |= for_want_of_room;
        self.counts.commits_refused_full += u64::from(for_want_of_room);
    }

    pub(super) fn upload(
        &mut self,
        mut upload: Upload,
        step: u32,
        change: Change,
        cut: u16,
        abandoned: bool,
    ) -> Uploading {
        let id = step * CHANGES_MAX as u32 + 1;
        let value = self.model.write(id, change.key, change.bytes.unwrap_or_default());
        let task = Box::pin(async move {
            let (first, rest) = value.split_at(value.len().min(cut.into()));
            upload.append(first).await?;
            upload.append(rest).await?;
            Ok(upload)
        });
        Uploading { task, id, change, abandoned }
    }

    /// Ends a large value of which all but the end is on its way, or gives it up.
    fn end_upload(&mut self, open: &mut Open) -> Result<(), String> {
        let Some(Poll::Ready(upload)) = open.uploads.first_mut().map(|one| poll(&mut one.task))
        else {
            return Ok(());
        };
        let Uploading { id, change, abandoned, .. } = open.uploads.remove(0);
        let bytes = u64::from(change.bytes.unwrap_or_default());
        let upload = match upload {
            Ok(upload) => upload,
            Err(CommitError::NoSpace) => {
                self.refused(true);
                return self.must_be_full(open, bytes);
            }
            Err(_) if self.armed => return Ok(()),
            Err(error) => return Err(format!("an upload fails: {error}")),
        };
        self.counts.uploads += 1;
        if abandoned {
            return Ok(());
        }
        let precondition = self.precondition(change.key, change.expect);
        let taken = self.model.holds(change.key, precondition);
        let taken = taken.then_some([Some((change.key, id)), None, None]);
        let task = Box::pin(upload.commit(self.key(change.key), precondition, Durability::Durable));
        let refused = self.counts.commits_refused_full;
        let waiting = self.sent(task, taken, [id, ABSENT, ABSENT], false)?;
        open.commits.extend(waiting);
        if self.counts.commits_refused_full > refused {
            self.must_be_full(open, bytes)
        } else {
            Ok(())
        }
    }

    /// Checks that it is no wonder that a large value of so many bytes was refused.
    fn must_be_full(&self, open: &Open, bytes: u64) -> Result<(), String> {
        // Cut finer than the volume would cut them, values take more than the figure below tells.
        let finer = self.shape.value_record_bytes_max < usize::MAX;
        if !self.uploads_alone || self.armed || finer {
            return Ok(());
        }
        let latest = (0..self.shape.keys).map(|key| self.model.pending(key));
        let waiting = open.commits.iter().flat_map(|one| one.values);
        let begun = open.uploads.iter().map(|one| one.id);
        let all: u64 = latest.chain(waiting).chain(begun).map(|id| self.model.bytes(id)).sum();
        // The longest value that an empty volume takes is told; as many shorter ones take more, but not twice as much.
        match open.journal.large_bytes_max() / 2 {
            most if all + bytes <= most => {
                Err(format!("no room for {bytes} bytes beside {all}, where {most} are no matter"))
            }
            _ => Ok(()),
        }
    }

    /// Waits for everything, then deletes `key` or the next one that there is, which must be taken.
    pub(super) fn delete(&mut self, open: &mut Open, step: u32, key: u8) -> Result<(), String> {
        self.uploads_alone = false;
        open.syncs.push((Box::pin(open.journal.sync()), self.model.taken()));
        let waits = |open: &Open| {
            !(open.syncs.is_empty() && open.commits.is_empty() && open.uploads.is_empty())
        };
        for _ in 0..TURNS_MAX {
            if self.armed || open.stopped || !waits(open) {
                break;
            }
            self.turns(open, 1)?;
        }
        let mut keys = (key..self.shape.keys).chain(0..key);
        let there = keys.find(|key| self.model.pending(*key) != ABSENT);
        let Some(key) = there.filter(|_| !self.armed && !open.stopped) else { return Ok(()) };
        if waits(open) {
            return Err("what was asked for has no end".into());
        }
        let (left, refused) = (open.journal.stats().free_bytes, self.counts.commits_refused_full);
        let change = Change { key, bytes: None, expect: Expect::Any };
        let waiting =
            self.commit(&open.journal, step, [Some(change), None, None], Ack::Durable, 0)?;
        open.commits.extend(waiting);
        self.counts.deletes_of_full_volumes += u64::from(left == 0);
        if self.counts.commits_refused_full > refused {
            return Err(format!("a delete is refused where {left} bytes are left for puts"));
        }
        Ok(())
    }

    fn operation(&mut self, id: ValueId, change: Change) -> (Operation, Changed) {
        let Change { key, bytes, expect } = change;
        let precondition = self.precondition(key, expect);
        let value = bytes.map(|bytes| self.model.write(id, key, bytes));
        let changed = (key, if value.is_some() { id } else { ABSENT });
        (Operation { key: self.key(key), value, precondition }, changed)
    }

    fn precondition(&self, key: u8, expect: Expect) -> Precondition {
        match (expect, self.model.version(key)) {
            (Expect::Absent, _) => Precondition::Absent,
            (Expect::Current, Some(version)) => Precondition::Version(version),
            (Expect::Wrong, Some(version)) => {
                Precondition::Version(journal::Version(version.0 ^ 1))
            }
            (Expect::Any | Expect::Current | Expect::Wrong, _) => Precondition::Any,
        }
    }

    /// Takes the answers that have come.
    pub(super) fn answers(&mut self, open: &mut Open) -> Result<(), String> {
        let mut result = self.end_upload(open);
        open.commits.retain_mut(|one| match poll(&mut one.task) {
            Poll::Ready(answer) if result.is_ok() => {
                result = self.answered(one, answer);
                false
            }
            Poll::Ready(_) => false,
            Poll::Pending => true,
        });
        open.syncs.retain_mut(|(task, taken)| match poll(task) {
            Poll::Ready(answer) => {
                self.counts.syncs += 1;
                match answer {
                    Ok(()) => self.model.must_survive(*taken),
                    Err(error) if !self.armed => result = Err(format!("sync: {error}")),
                    Err(_) => {}
                }
                false
            }
            Poll::Pending => true,
        });
        open.gets.retain_mut(|(task, key, must)| match poll(task) {
            Poll::Ready(got) => {
                let shown = self.got(*key, &got, *must);
                result = result.clone().and(shown);
                false
            }
            Poll::Pending => true,
        });
        if let Some((task, taken)) = &mut open.checkpoint
            && let Poll::Ready(answer) = poll(task)
        {
            match answer {
                Ok(()) => {
                    self.counts.checkpoints_asked += 1;
                    self.model.must_survive(*taken);
                }
                Err(CommitError::NoSpace) => {}
                // What is written may go bad before it is read back.
                Err(CommitError::NotReadBack) if self.counts.blocks_damaged_running > 0 => {}
                Err(error) if !self.armed => result = Err(format!("a checkpoint fails: {error}")),
                Err(_) => {}
            }
            open.checkpoint = None;
        }
        if let Some(Poll::Ready(report)) = open.check.as_mut().map(poll) {
            open.check = None;
            match report {
                Ok(report) => {
                    self.counts.copies_scrubbed += report.repaired;
                    // What recovery left alone, because no log leads there, a check repairs.
                    self.harmed.take_if(|it| !(it.may_be_missed || it.of_superblock));
                }
                Err(error) if !self.armed => result = Err(format!("a check fails: {error}")),
                Err(_) => {}
            }
        }
        result
    }

    fn got(&mut self, key: u8, got: &Got, must: usize) -> Result<(), String> {
        self.counts.reads += 1;
        match got {
            Got::Value { value, version } => {
                let id = self.model.read(key, value)?;
                self.model.learn(id, *version)?;
                self.model.shown(key, id, must)
            }
            Got::Absent => self.model.shown(key, ABSENT, must),
            Got::DataLoss | Got::Unreadable | Got::Large { .. } => {
                Err("a get answers data loss".into())
            }
        }
    }

    fn answered(
        &mut self,
        waiting: &mut Waiting,
        answer: Result<Outcome, CommitError>,
    ) -> Result<(), String> {
        match (answer, waiting.count) {
            (Ok(Outcome::Applied(applied)), Some(count)) => {
                for (applied, value) in applied.into_iter().zip(waiting.values) {
                    if let (Applied::Put(version), true) = (applied, value != ABSENT) {
                        self.model.learn(value, version)?;
                    }
                }
                if !waiting.buffered {
                    self.counts.commits_acknowledged += 1;
                    self.model.must_survive(count);
                }
                Ok(())
            }
            // Nothing to delete, or the precondition does not hold: as the model said.
            (Ok(Outcome::Applied(_) | Outcome::Conflict { .. }), None) => Ok(()),
            (Ok(Outcome::Conflict { .. }), Some(_)) => Err("a conflict that is none".into()),
            (Ok(Outcome::DataLoss { .. }), _) => Err("a commit answers data loss".into()),
            (Err(CommitError::Indeterminate | CommitError::ReadOnly(_)), _) if self.armed => Ok(()),
            (Err(error), _) => Err(format!("a commit fails: {error}")),
        }
    }
}
