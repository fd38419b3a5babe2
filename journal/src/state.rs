//! What is known and what is on its way: admission of commits and the settling of their ends.

use crate::batch::{
    Applied, CommitError, Content, Durability, Origin, Outcome, Precondition, Wanted,
};
use crate::cache::ValueCache;
use crate::check::{Check, CheckReport};
use crate::geometry::KEY_BYTES_MAX;
use crate::given::Given;
use crate::group::{Header, Verifier};
use crate::index::{Entry, Index};
use crate::large::{UploadId, is_internal};
use crate::overlay::{Overlay, Pending};
use crate::plant::{Plant, Plants};
use crate::record::record_bytes;
use crate::replay::Doubt;
use crate::ring::{Note, Numbers, keeps_notes};
use crate::room::{Demand, Room};
use crate::split::Splitting;
use crate::tag::Tag;
use crate::ticket::{Settled, Ticket};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, Mode, Place, ReadOnlyReason, SegmentIndex, Use};
use crate::upload::NewChunk;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;

/// Most bytes of records that may wait to be written: beyond it commits are refused as overload.
pub(crate) const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Buffered bytes that are written without waiting for their delay.
pub(crate) const BUFFERED_BYTES_MAX: usize = 256 << 10;

/// A batch that was accepted and waits to be written.
pub(crate) struct Queued {
    pub(crate) changes: Vec<Change>,
    pub(crate) ticket: Ticket,
    pub(crate) demand: Demand,
    /// Answered only when something on the medium vouches for it.
    pub(crate) strict: bool,
}

impl Queued {
    /// Tells whether it is of deletes alone, beside notes, whose room is kept.
    pub(crate) fn only_deletes(&self) -> bool {
        self.demand.adds_nothing() && self.changes.iter().any(|change| change.content.is_none())
    }
}

/// One change of a queued batch.
pub(crate) struct Change {
    pub(crate) key: Rc<[u8]>,
    /// `None` deletes.
    pub(crate) content: Option<Content>,
    pub(crate) birth: Birth,
}

/// A batch before it is judged.
pub(crate) struct Asked {
    pub(crate) operations: Vec<Wanted>,
    pub(crate) durability: Durability,
    pub(crate) origin: Origin,
    /// The last chunks of a large value, to be written before the batch.
    pub(crate) chunks: Vec<NewChunk>,
    /// What rings are given if something is applied.
    pub(crate) notes: Vec<Note>,
}

/// A live value on its way out of a segment that is being cleaned.
pub(crate) struct Move {
    pub(crate) key: Rc<[u8]>,
    pub(crate) value: Rc<[u8]>,
    pub(crate) birth: Birth,
    pub(crate) suspect: bool,
    /// The value is a manifest.
    pub(crate) manifest: bool,
}

impl Move {
    /// Of what `entry` points to.
    pub(crate) fn new(key: Rc<[u8]>, value: Rc<[u8]>, entry: &Entry) -> Self {
        let (birth, suspect, manifest) = (entry.birth, entry.suspect, entry.upload.is_some());
        Self { key, value, birth, suspect, manifest }
    }

    /// Yields the bytes of its record.
    pub(crate) fn record_bytes(&self) -> usize {
        record_bytes(self.key.len(), self.value.len())
    }
}

/// The place in the log behind everything that is durable.
#[derive(Clone, Copy)]
pub(crate) struct Durable {
    pub(crate) lsn: Lsn,
    pub(crate) tag: Tag,
    /// The use it lies in; `None` where the mount has none.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) block: BlockIndex,
}

/// Everything that calls see; the writer's own state is in `writer.rs`.
pub(crate) struct State {
    pub(crate) mode: Mode,
    pub(crate) index: Index,
    pub(crate) doubt: Doubt,
    pub(crate) overlay: Overlay,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    /// Somebody waits for what is queued.
    pub(crate) urgent: bool,
    /// When the oldest buffered batch was queued, in milliseconds.
    pub(crate) buffered_since: Option<u64>,
    /// The newest batch that was accepted.
    pub(crate) newest: Option<Ticket>,
    /// Moves that wait to be written, and those on their way.
    pub(crate) moves: VecDeque<Move>,
    pub(crate) moves_unsettled: usize,
    /// Batches accepted.
    pub(crate) commits: u64,
    /// How often accepted changes came to nothing.
    pub(crate) drops: u64,
    pub(crate) next_birth: Birth,
    pub(crate) durable: Durable,
    pub(crate) mount: u64,
    pub(crate) room: Room,
    /// The highest `durable_lsn` that something flushed states.
    pub(crate) vouched: Lsn,
    /// The last LSN of a group with records.
    pub(crate) last_record: Lsn,
    /// When the last flush returned, in milliseconds.
    pub(crate) idle_since: u64,
    /// Strict commits that are durable and not vouched for, and who seals, each with the last LSN to be vouched for.
    pub(crate) strict: VecDeque<(Lsn, Ticket)>,
    /// The uses in which values lie or will lie, for their epochs.
    pub(crate) uses: Vec<Use>,
    pub(crate) cache: ValueCache,
    /// Reads that found a copy damaged.
    pub(crate) damaged_reads: u64,
    pub(crate) checkpoints: u64,
    pub(crate) cleaned: u64,
    pub(crate) moves_settled: u64,
    /// Moves that cleaning handed to the writer.
    pub(crate) moves_sent: u64,
    /// Copies repaired while running.
    pub(crate) repaired: u64,
    /// Uploads whose manifest is not durable yet.
    pub(crate) uploads: BTreeSet<UploadId>,
    /// Rules that a test switched off.
    pub(crate) plants: Plants,
    /// Uploads that came to no end.
    pub(crate) abandoned: u64,
    pub(crate) check: Option<Check>,
    /// Who waits for a checkpoint that is yet to begin.
    pub(crate) checkpoint_asked: Option<Ticket>,
    /// A check found no group missing of the checkpoint, or of the log behind it: another one is not in vain.
    pub(crate) base_is_whole: bool,
    /// Who waits for the one that is being written.
    pub(crate) checkpoint_awaited: Option<Ticket>,
    pub(crate) last_check: CheckReport,
    /// Checks that came to their end.
    pub(crate) checks: u64,
    /// Segments in which a read met a damaged copy.
    pub(crate) to_repair: Vec<SegmentIndex>,
    /// Of the next notes.
    pub(crate) numbers: Numbers,
    pub(crate) splitting: Splitting,
}

/// What a key has before an operation, as preconditions see it.
pub(crate) enum Current {
    Absent,
    Present(Birth),
    /// What it has was lost.
    Doubt,
}

/// An accepted or judged batch: what it will answer, once `ticket` is durable.
pub(crate) struct Admitted {
    pub(crate) outcome: Outcome,
    pub(crate) ticket: Option<Ticket>,
}

impl State {
    /// Judges and queues a batch. When this returns, its place in the order is fixed.
    pub(crate) fn admit(
        &mut self,
        verifier: &Verifier,
        asked: Asked,
        now: u64,
    ) -> Result<Admitted, CommitError> {
        let Asked { mut operations, durability, origin, mut chunks, mut notes } = asked;
        notes.retain(|_| keeps_notes(&verifier.geometry));
        if let Mode::ReadOnly(reason) = self.mode {
            return Err(CommitError::ReadOnly(reason));
        }
        let bytes = self.check_sizes(verifier, &operations, &notes)?;
        let mut judged_by = None;
        if let Some(refused) = self.judge(verifier, &operations, &mut judged_by) {
            return Ok(Admitted { outcome: refused, ticket: judged_by });
        }
        let deletes_only = operations.iter().all(|operation| operation.content.is_none());
        let absent = |operation: &Wanted| {
            operation.content.is_none() && matches!(self.current(&operation.key), Current::Absent)
        };
        // A strict one is written all the same: what is vouched for is that the keys are gone, whatever made them so.
        let strict = durability == Durability::Strict && !operations.is_empty();
        if !strict && operations.iter().all(absent) {
            let applied = operations.iter().map(|_| Applied::WasAbsent).collect();
            let mut ticket = judged_by;
            if durability != Durability::Buffered {
                // That they are absent may rest on what is buffered, for which this is the barrier, as any durable commit.
                self.urgent |= !self.queue.is_empty();
                ticket = self.newest.clone();
            }
            return Ok(Admitted { outcome: Outcome::Applied(applied), ticket });
        }
        // A large value that is all there but its end is not turned away for that.
        let waits = self.queue_bytes > 0;
        if waits && self.queue_bytes + bytes > QUEUE_BYTES_MAX && chunks.is_empty() {
            return Err(CommitError::Overloaded);
        }
        let own = self.demand(&operations, &notes);
        let mut demand = own;
        chunks.iter().for_each(|chunk| chunk.add_to(&mut demand));
        operations.iter().for_each(|one| self.splitting.add_chunks(one, &mut demand));
        // Of deletes alone, those are let go beyond the limit that add nothing to a checkpoint.
        demand.items += usize::from(deletes_only && self.plants.has(Plant::DeletesLimited));
        let uses = self.uses.len();
        if !self.room.admits(&verifier.geometry, uses, &demand, deletes_only) {
            // A delete is never refused for good: it waits for others to end.
            let waits = deletes_only && self.room.is_unsettled();
            return Err(if waits { CommitError::Overloaded } else { CommitError::NoSpace });
        }
        // An answer that rests on a change that is not durable waits for it, even where it need not itself.
        let visible = durability == Durability::Buffered && judged_by.is_none();
        chunks.extend(self.split(&mut operations));
        let behind = if self.plants.has(Plant::ManifestEarly) { chunks.len() } else { 0 };
        for chunk in chunks {
            self.queue_chunk(chunk);
        }
        let (mut queued, applied) = self.enqueue(verifier, operations, origin, visible);
        self.add_notes(&mut queued.changes, notes);
        queued.strict =
            durability == Durability::Strict && !verifier.keys.plants.has(Plant::StrictUnwitnessed);
        queued.demand = own;
        let ticket = queued.ticket.clone();
        self.queue_bytes += queued.demand.bytes;
        self.room.admitted(&queued.demand);
        self.queue.insert(self.queue.len() - behind, queued);
        self.commits += 1;
        self.newest = Some(ticket.clone());
        if visible {
            self.buffered_since.get_or_insert(now);
        } else {
            self.urgent = true;
        }
        let ticket = (!visible).then_some(ticket);
        Ok(Admitted { outcome: Outcome::Applied(applied), ticket })
    }

    /// Yields what a batch asks for, its chunks apart.
    fn demand(&self, operations: &[Wanted], notes: &[Note]) -> Demand {
        let mut demand = Demand::default();
        for one in operations {
            match &one.content {
                None if self.doubt.absent => demand.add_in_doubt(one.record_bytes(), &one.key),
                None => demand.add(one.record_bytes(), None),
                Some(_) => self.splitting.add_value(one, &mut demand),
            }
        }
        // Room for notes is kept back; they take a part of the group.
        notes.iter().for_each(|note| demand.add(note.record_bytes(), None));
        demand
    }

    /// Gives each operation its number and lays it over the index.
    fn enqueue(
        &mut self,
        verifier: &Verifier,
        operations: Vec<Wanted>,
        origin: Origin,
        visible: bool,
    ) -> (Queued, Vec<Applied>) {
        let ticket = Ticket::default();
        let mut applied = Vec::with_capacity(operations.len());
        let mut changes = Vec::with_capacity(operations.len());
        for Wanted { key, content, .. } in operations {
            let birth = self.next_birth;
            let done = if content.is_some() {
                Applied::Put(verifier.keys.version(birth))
            } else {
                match self.current(&key) {
                    Current::Present(old) => Applied::Deleted(Some(verifier.keys.version(old))),
                    Current::Doubt => Applied::Deleted(None),
                    Current::Absent => Applied::WasAbsent,
                }
            };
            applied.push(done);
            let (ticket, content_too) = (ticket.clone(), content.clone());
            let pending = Pending { birth, content: content_too, origin, visible, ticket };
            self.overlay.push(key.clone(), pending);
            changes.push(Change { key, content, birth });
            self.next_birth = birth.next();
        }
        (Queued { changes, ticket, demand: Demand::default(), strict: false }, applied)
    }

    /// Yields the bytes of the batch's records, its notes among them.
    fn check_sizes(
        &self,
        verifier: &Verifier,
        operations: &[Wanted],
        notes: &[Note],
    ) -> Result<usize, CommitError> {
        let geometry = &verifier.geometry;
        let mut bytes = Note::check(notes)?;
        for operation in operations {
            let key_bytes = operation.key.len();
            if !(1..=KEY_BYTES_MAX).contains(&key_bytes) {
                return Err(CommitError::KeyBytes(key_bytes));
            }
            if is_internal(&operation.key) {
                return Err(CommitError::KeyReserved);
            }
            let value_bytes = operation.content.as_ref().map_or(0, Content::bytes);
            let most = geometry.value_bytes_max();
            if value_bytes > most {
                return Err(CommitError::ValueBytes { bytes: value_bytes, most });
            }
            bytes += operation.record_bytes();
        }
        let most = geometry.records_bytes_max();
        if bytes > most { Err(CommitError::BatchBytes { bytes, most }) } else { Ok(bytes) }
    }

    /// Yields the refusal of the first operation whose precondition does not hold.
    ///
    /// Preconditions are checked against what is pending, and `judged_by` says which of the pending changes that decided is the
    /// newest: the answer waits for it, so that nobody learns of what may yet vanish.
    fn judge(
        &self,
        verifier: &Verifier,
        operations: &[Wanted],
        judged_by: &mut Option<Ticket>,
    ) -> Option<Outcome> {
        let mut newest = None;
        for (at, operation) in operations.iter().enumerate() {
            let looks = operation.precondition != Precondition::Any || operation.content.is_none();
            if !looks {
                continue;
            }
            if let Some(pending) = self.overlay.newest(&operation.key)
                && !pending.visible
                && newest < Some(pending.birth)
            {
                // Tickets settle in order: the newest covers the others.
                newest = Some(pending.birth);
                *judged_by = Some(pending.ticket.clone());
            }
            let current = self.current(&operation.key);
            let version = || match current {
                Current::Present(birth) => Some(verifier.keys.version(birth)),
                Current::Absent | Current::Doubt => None,
            };
            let holds = match (operation.precondition, &current) {
                (Precondition::Any, _) | (Precondition::Absent, Current::Absent) => true,
                (_, Current::Doubt) => return Some(Outcome::DataLoss { at }),
                (Precondition::Absent, Current::Present(_)) => false,
                (Precondition::Version(wanted), _) => version() == Some(wanted),
            };
            if !holds {
                return Some(Outcome::Conflict { at, current: version() });
            }
        }
        None
    }

    pub(crate) fn current(&self, key: &[u8]) -> Current {
        if let Some(pending) = self.overlay.newest(key) {
            return match pending.content {
                Some(_) => Current::Present(pending.birth),
                None => Current::Absent,
            };
        }
        match self.index.get(key) {
            Some(Entry { suspect: true, .. }) => Current::Doubt,
            Some(entry) => Current::Present(entry.birth),
            None if self.doubtful(key) => Current::Doubt,
            None => Current::Absent,
        }
    }

    /// Tells whether a key without a value may have had one in what was lost.
    pub(crate) fn doubtful(&self, key: &[u8]) -> bool {
        self.doubt.absent && !self.doubt.deleted.contains(key)
    }

    /// A batch is durable: answers who waits for it; a strict one once it is vouched for. What it gives callers' keys is
    /// added to `given`, to be applied before anybody looks.
    pub(crate) fn settle(&mut self, queued: Queued, places: &[Place], given: &mut Vec<Given>) {
        self.room.settled(&queued.demand);
        for (change, place) in queued.changes.into_iter().zip(places) {
            let (place, birth) = (*place, change.birth);
            let value_bytes = change.content.as_ref().map_or(0, Content::value_bytes);
            let value_bytes = u32::try_from(value_bytes).unwrap_or(u32::MAX);
            let mut entry = Entry { place, value_bytes, suspect: false, birth, upload: None };
            let key = change.key;
            match change.content {
                Some(Content::Chunk(_)) => self.settle_chunk(&key, entry),
                Some(Content::Note(_)) => self.settle_note(&key, entry),
                Some(Content::Large(manifest, value)) => {
                    self.uploads.remove(&manifest.upload);
                    value.into_iter().for_each(|value| self.cache.insert(place, birth, value));
                    entry.upload = Some(manifest.upload);
                    given.push(Given { key, birth, entry: Some(entry) });
                }
                Some(Content::Value(value)) => {
                    self.cache.insert(place, birth, value);
                    given.push(Given { key, birth, entry: Some(entry) });
                }
                None => given.push(Given { key, birth, entry: None }),
            }
        }
        if queued.strict {
            self.strict.push_back((self.durable.lsn, queued.ticket));
        } else {
            queued.ticket.settle(Settled::Durable);
        }
    }

    /// Something that was flushed states that everything up to `lsn` is durable.
    pub(crate) fn vouch(&mut self, lsn: Lsn) {
        self.vouched = self.vouched.max(lsn);
        while let Some((_, ticket)) = self.strict.pop_front_if(|(lsn, _)| *lsn <= self.vouched) {
            ticket.settle(Settled::Durable);
        }
    }

    /// Tells whether every record that is durable is vouched for.
    pub(crate) fn is_vouched(&self) -> bool {
        self.last_record <= self.vouched
    }

    /// Points a key at the place that its value was moved to, unless it was written again meanwhile.
    pub(crate) fn settle_move(&mut self, moved: Move, place: Place) {
        self.moves_unsettled -= 1;
        self.moves_settled += 1;
        let current = self.index.get(&moved.key).filter(|entry| entry.birth == moved.birth);
        if let Some(entry) = current {
            self.give(&moved.key, Some(Entry { place, ..entry }));
            if !is_internal(&moved.key) {
                self.cache.moved(entry.place, place, entry.birth);
            }
        }
    }

    /// Drops the moves of what was written over or deleted since it was read: behind the newer write one would vouch for the
    /// older value, should that write be lost.
    pub(crate) fn drop_stale_moves(&mut self) {
        let (index, before) = (&self.index, self.moves.len());
        let current = |moved: &Move| index.get(&moved.key).map(|entry| entry.birth);
        self.moves.retain(|moved| current(moved) == Some(moved.birth));
        self.moves_unsettled -= before - self.moves.len();
    }

    /// Everything up to the end of the group with this header is durable.
    pub(crate) fn durable_up_to(&mut self, header: &Header, blocks: u32) {
        if header.record_count > 0 {
            self.last_record = header.last;
        }
        self.durable = Durable {
            lsn: header.last,
            tag: header.tag,
            epoch: Some(header.epoch),
            block: BlockIndex(header.block.0 + blocks),
        };
    }

    /// Yields the use that a block of values lies in, as far as one is known.
    pub(crate) fn use_at(&self, segment: SegmentIndex, block: BlockIndex) -> Option<Use> {
        let holds = |use_: &&Use| use_.segment == segment && use_.start <= block;
        self.uses.iter().filter(holds).max_by_key(|use_| use_.start).copied()
    }

    /// Lays the listed uses over those that are known: what a new one covers is overwritten.
    pub(crate) fn list_uses(&mut self, log: &[Use]) {
        for use_ in log {
            if self.uses.iter().all(|known| known.epoch != use_.epoch) {
                let below = |known: &Use| known.segment != use_.segment || known.start < use_.start;
                self.uses.retain(below);
                self.uses.push(*use_);
            }
        }
    }

    /// Refuses everything that is queued: there is no room, and maintenance can make none.
    ///
    /// Admission counts so that this does not happen; damaged segments that cannot be cleaned may lead here.
    pub(crate) fn reject_queue(&mut self) {
        self.drops += 1;
        // With the last change of a key those before it go.
        for queued in self.queue.iter().rev() {
            for change in queued.changes.iter().rev() {
                self.overlay.remove(&change.key, change.birth);
            }
        }
        for queued in core::mem::take(&mut self.queue) {
            self.room.settled(&queued.demand);
            self.abandon_parts(&queued);
            queued.ticket.settle(Settled::NoSpace);
        }
        self.renumber_notes();
        self.queue_bytes = 0;
        self.urgent = false;
        self.buffered_since = None;
        self.newest = None;
    }

    /// Stops all writing for the life of this mount (a failed flush is never retried).
    ///
    /// What was on its way is indeterminate, what was queued never happened, and neither is seen again.
    pub(crate) fn poison(&mut self, reason: ReadOnlyReason, on_the_way: Vec<Queued>) {
        self.mode = Mode::ReadOnly(reason);
        self.drops += 1;
        self.abandon_check();
        let checkpoints =
            self.checkpoint_asked.take().into_iter().chain(self.checkpoint_awaited.take());
        let strict = self.strict.drain(..).map(|(_, ticket)| ticket);
        for ticket in strict.chain(checkpoints).collect::<Vec<_>>() {
            ticket.settle(Settled::Indeterminate);
        }
        self.overlay.clear();
        self.queue_bytes = 0;
        self.moves.clear();
        self.buffered_since = None;
        self.newest = None;
        let queue = core::mem::take(&mut self.queue);
        let on_the_way = on_the_way.into_iter().map(|queued| (queued, Settled::Indeterminate));
        for (queued, end) in
            on_the_way.chain(queue.into_iter().map(|queued| (queued, Settled::NotApplied)))
        {
            self.abandon_parts(&queued);
            queued.ticket.settle(end);
        }
    }
}
