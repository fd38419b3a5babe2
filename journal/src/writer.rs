//! The write path: from queued batches and moves to groups, both copies, one flush, and the answers.

use crate::batch::Content;
use crate::disk::Transfer;
use crate::geometry::SUPERBLOCK_COPIES;
use crate::group::{Builder, Header, group_blocks};
use crate::journal::Inner;
use crate::plant::Plant;
use crate::record::{Kind, Record};
use crate::state::{BUFFERED_BYTES_MAX, Move, Queued, State};
use crate::stuck::Stuck;
use crate::superblock::Superblock;
use crate::tag::{Random, Tag};
use crate::types::{BlockIndex, Epoch, Lsn, Mode, Place, ReadOnlyReason, Use, Zone};
use alloc::vec::Vec;
use blockdev::Buffer;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// What the write path and maintenance share: the volume's frame and the log's tail.
pub(crate) struct Volume {
    pub(crate) superblock: Superblock,
    pub(crate) ages: [u64; SUPERBLOCK_COPIES],
    pub(crate) random: Random,
    pub(crate) tail: Tail,
    /// Segments that a checkpoint is being written to.
    pub(crate) busy: Vec<crate::types::SegmentIndex>,
    /// Segments that are neither cleaned nor taken.
    pub(crate) stuck: Stuck,
    /// Bytes of one copy of the checkpoint.
    pub(crate) checkpoint_bytes: u64,
}

/// Where the next group goes.
pub(crate) struct Tail {
    /// The use at hand; `None` where there is none, or where it was full and is listed no more.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) block: u32,
    pub(crate) tag: Tag,
    pub(crate) next: Lsn,
}

impl Tail {
    /// Yields the use that `log` lists behind the one at hand, if one is reserved.
    pub(crate) fn reserved<'a>(&self, log: &'a [Use]) -> Option<&'a Use> {
        let at = log.iter().position(|use_| Some(use_.epoch) == self.epoch);
        log.get(at.map_or(0, |at| at + 1)..)?.iter().find(|use_| use_.end.is_none())
    }
}

/// A group whose copies are being written.
struct Written {
    header: Header,
    blocks: u32,
    batches: Vec<(Queued, Vec<Place>)>,
    moves: Vec<(Move, Place)>,
    transfers: Vec<Transfer>,
}

/// What stopped the write path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Write,
    Flush,
}

/// Who asks for room in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Client,
    /// A client, for deletes alone: they may take one of the segments that others leave to cleaning.
    Deleting,
    Cleaning,
}

/// Writes what is queued, cycle by cycle, and maintains the volume, until the device fails.
pub(crate) async fn run(inner: &Inner) {
    let mut written = Vec::new();
    let stop = {
        let mut writing = pin!(write(inner, &mut written));
        let mut maintaining = pin!(crate::maintain::maintain(inner));
        // Each may wait for what the other does; nobody else wakes them for that.
        poll_fn(|context| {
            loop {
                let before = inner.progress();
                if let Poll::Ready(stop) = writing.as_mut().poll(context) {
                    return Poll::Ready(stop);
                }
                if let Poll::Ready(stop) = maintaining.as_mut().poll(context) {
                    return Poll::Ready(stop);
                }
                if inner.progress() == before {
                    return Poll::Pending;
                }
            }
        })
        .await
    };
    let reason = match stop {
        Stop::Write => ReadOnlyReason::WriteFailed,
        Stop::Flush => ReadOnlyReason::FlushFailed,
    };
    let on_the_way = written.into_iter().flat_map(|group: Written| group.batches);
    let on_the_way = on_the_way.map(|(queued, _)| queued).collect();
    inner.state.borrow_mut().poison(reason, on_the_way);
}

async fn write(inner: &Inner, written: &mut Vec<Written>) -> Stop {
    loop {
        poll_fn(|_| if inner.has_work() { Poll::Ready(()) } else { Poll::Pending }).await;
        if let Err(stop) = cycle(inner, written).await {
            return stop;
        }
    }
}

/// One round: groups out, one flush, answers.
async fn cycle(inner: &Inner, written: &mut Vec<Written>) -> Result<(), Stop> {
    // Every earlier group is in the index, and moves go out before all else: what is moved now is current at its place in the log.
    if !inner.options.plants.has(Plant::StaleMoves) {
        inner.state.borrow_mut().drop_stale_moves();
    }
    if !inner.has_work() {
        return Ok(());
    }
    let mut bytes = 0;
    while bytes < inner.options.flush_bytes_max {
        let Some(taken) = next_group(inner, written) else { break };
        bytes += taken;
    }
    if written.is_empty() && inner.front_bytes().is_none() {
        wait_for_watermark(inner).await;
        watermark(inner, written);
        if written.is_empty() {
            return Ok(());
        }
    }
    if written.is_empty() {
        wait_for_room(inner).await;
        return Ok(());
    }
    for group in written.iter_mut() {
        for transfer in core::mem::take(&mut group.transfers) {
            transfer.await.map_err(|_| Stop::Write)?;
        }
    }
    if inner.options.plants.ack_before_flush() {
        settle(inner, written);
    }
    let late = || {
        while inner.options.plants.late_writes() && next_group(inner, written).is_some() {}
    };
    let flushed = inner.flush(late).await;
    if flushed.is_err() && inner.options.plants.has(Plant::RetryFlush) {
        inner.flush(|| ()).await.map_err(|_| Stop::Flush)?;
    } else {
        flushed.map_err(|_| Stop::Flush)?;
    }
    settle(inner, written);
    Ok(())
}

/// Waits until the front of the queue has room, or refuses the queue where no maintenance can make any.
async fn wait_for_room(inner: &Inner) {
    let room = poll_fn(|_| {
        loop {
            if inner.front_has_room() {
                return Poll::Ready(true);
            }
            if !inner.nothing_to_maintain() {
                return Poll::Pending;
            }
            // A segment that held one copy is better than to refuse what was admitted.
            let spares = !inner.options.plants.has(Plant::NothingSpared);
            if !(spares && inner.volume.borrow_mut().stuck.spare_one()) {
                return Poll::Ready(false);
            }
        }
    });
    if !room.await {
        inner.state.borrow_mut().reject_queue();
    }
}

/// Builds the next group, moves first, and starts both writes; yields its bytes.
fn next_group(inner: &Inner, written: &mut Vec<Written>) -> Option<usize> {
    let geometry = inner.verifier.geometry;
    let asker = inner.asker();
    let cleaning = asker == Asker::Cleaning;
    let first_bytes = inner.front_bytes()?;
    let use_ = inner.prepare(group_blocks(&geometry, first_bytes), asker)?;
    let alone = asker == Asker::Deleting && inner.free_count() < inner.kept_free();
    let mut volume = inner.volume.borrow_mut();
    let room = geometry.segment_blocks() - volume.tail.block;
    let (moves, batches) = if cleaning {
        (take_moves(inner, room), Vec::new())
    } else {
        (Vec::new(), take_batches(inner, room, alone))
    };
    let bytes = batches.iter().map(|queued| queued.demand.bytes).sum::<usize>()
        + moves.iter().map(Move::record_bytes).sum::<usize>();
    let blocks = group_blocks(&geometry, bytes);
    let block = BlockIndex(volume.tail.block);
    let (segment, first) = (use_.segment, volume.tail.next);
    let mut builder = Builder::new(&geometry, use_.epoch, segment, block, blocks, first);
    let moves = moves.into_iter().map(|moved| {
        let place = builder.put(Record {
            kind: Kind::Move,
            lsn: Lsn::NONE,
            birth: moved.birth,
            key: &moved.key,
            value: &moved.value,
            in_doubt: moved.suspect && !inner.options.plants.has(Plant::MoveForgetsDoubt),
            manifest: moved.manifest,
        });
        (moved, place)
    });
    let moves = moves.collect();
    let batches = append(&mut builder, batches);
    let early = inner.options.plants.has(Plant::VouchEarly);
    let durable = if early { first.before() } else { inner.state.borrow().durable.lsn };
    let (header, buffer) = builder.finish(&inner.verifier, volume.tail.tag, durable);
    let group_bytes = buffer.len();
    let transfers = send(inner, &mut volume, &header, blocks, buffer);
    written.push(Written { header, blocks, batches, moves, transfers });
    Some(group_bytes)
}

/// Waits until a watermark has room, or is not wanted any more.
async fn wait_for_watermark(inner: &Inner) {
    poll_fn(|_| {
        let wanted = inner.front_bytes().is_none() && !inner.state.borrow().is_vouched();
        if wanted && inner.prepare(1, Asker::Client).is_none() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

/// Starts to write a group without records, which vouches for all that is durable.
///
/// Where there is no room for it, maintenance updates the superblock instead.
fn watermark(inner: &Inner, written: &mut Vec<Written>) {
    let geometry = inner.verifier.geometry;
    if inner.front_bytes().is_some() || inner.state.borrow().is_vouched() {
        return;
    }
    let Some(use_) = inner.prepare(1, Asker::Client) else { return };
    let volume = &mut *inner.volume.borrow_mut();
    let (segment, block) = (use_.segment, BlockIndex(volume.tail.block));
    let builder = Builder::new(&geometry, use_.epoch, segment, block, 1, volume.tail.next);
    let durable = inner.state.borrow().durable.lsn;
    let (header, buffer) = builder.finish(&inner.verifier, volume.tail.tag, durable);
    let transfers = send(inner, volume, &header, 1, buffer);
    written.push(Written { header, blocks: 1, batches: Vec::new(), moves: Vec::new(), transfers });
}

/// Starts both writes of a group and moves the tail behind it.
fn send(
    inner: &Inner,
    volume: &mut Volume,
    header: &Header,
    blocks: u32,
    buffer: Buffer,
) -> Vec<Transfer> {
    let geometry = inner.verifier.geometry;
    volume.tail.tag = header.tag;
    volume.tail.block += blocks;
    volume.tail.next = header.last.next();
    let offset = |zone| geometry.block_offset(zone, header.segment, header.block);
    let two = geometry.copies() == 2 && !inner.options.plants.has(Plant::OneCopy);
    let second = two.then(|| (Zone::B, inner.verifier.in_zone(Zone::B, buffer.clone())));
    let copies = [(Zone::A, buffer)].into_iter().chain(second);
    copies.map(|(zone, copy)| inner.disk.write(offset(zone), copy)).collect()
}

fn settle(inner: &Inner, written: &mut Vec<Written>) {
    let mut state = inner.state.borrow_mut();
    state.idle_since = inner.clock.now();
    let mut given = Vec::new();
    for group in written.drain(..) {
        state.durable_up_to(&group.header, group.blocks);
        for (queued, places) in group.batches {
            state.settle(queued, &places, &mut given);
        }
        if !group.moves.is_empty() {
            state.apply(&mut given);
        }
        for (moved, place) in group.moves {
            state.settle_move(moved, place);
        }
        state.vouch(group.header.durable);
    }
    state.apply(&mut given);
}

impl Inner {
    /// Yields figures that change with all that one of the two tasks may wait for, and but for one only rise: what was dropped
    /// and what came since make up for nothing.
    fn progress(&self) -> (u64, u64, u64, bool, u64) {
        let state = self.state.borrow();
        let sequence = self.volume.borrow().superblock.sequence;
        let flushing = self.flushing.get();
        let settled = state.durable.lsn.0 + state.cleaned + state.moves_settled;
        let handed_on = state.moves_sent + self.jobs_ended.get();
        (self.disk.issued(), settled, handed_on, flushing, sequence)
    }

    /// Tells whether a cycle should begin: somebody waits, or buffered data has waited long enough.
    fn has_work(&self) -> bool {
        let state = self.state.borrow();
        if matches!(state.mode, Mode::ReadOnly(_)) {
            return false;
        }
        if !state.moves.is_empty() {
            return true;
        }
        if state.queue.is_empty() {
            return self.watermark_due(&state).is_some_and(|due| self.clock.now() >= due);
        }
        let due = self.buffered_due(&state).is_some_and(|due| self.clock.now() >= due);
        // The next group vouches for what is strict, whatever is in it.
        let strict = !state.strict.is_empty();
        state.urgent || strict || due || state.queue_bytes >= BUFFERED_BYTES_MAX
    }

    /// Yields when a watermark is due: at once where somebody waits for it, else after a while without commits.
    pub(crate) fn watermark_due(&self, state: &State) -> Option<u64> {
        if state.is_vouched() {
            return None;
        }
        let asked = !state.strict.is_empty();
        let idle = self.options.watermark_ms.map(|after| state.idle_since.saturating_add(after));
        if asked { Some(0) } else { idle }
    }

    /// Yields the record bytes of what would be written next.
    fn front_bytes(&self) -> Option<usize> {
        let state = self.state.borrow();
        let moved = state.moves.front();
        moved
            .map(Move::record_bytes)
            .or_else(|| state.queue.front().map(|queued| queued.demand.bytes))
    }

    /// Tells whether what would be written next has room, or is not there any more.
    pub(crate) fn front_has_room(&self) -> bool {
        self.front_bytes().is_none_or(|bytes| {
            self.prepare(group_blocks(&self.verifier.geometry, bytes), self.asker()).is_some()
        })
    }

    /// Yields who asks for room for what would be written next.
    pub(crate) fn asker(&self) -> Asker {
        let state = self.state.borrow();
        match state.queue.front() {
            _ if !state.moves.is_empty() => Asker::Cleaning,
            Some(queued)
                if queued.only_deletes() && !self.options.plants.has(Plant::DeletesWait) =>
            {
                Asker::Deleting
            }
            _ => Asker::Client,
        }
    }

    /// Yields the use at the tail, with room for a group of `blocks`; goes on in the reserved one where needed.
    ///
    /// Clients leave the last free segments to cleaning, and do not pass the bound on replay.
    pub(crate) fn prepare(&self, blocks: u32, asker: Asker) -> Option<Use> {
        let kept = match asker {
            Asker::Client => self.free_count() >= self.kept_free(),
            Asker::Deleting => self.free_count() >= self.kept_by_deletes(),
            Asker::Cleaning => true,
        };
        if !kept || (asker != Asker::Cleaning && self.replay_is_full(blocks)) {
            return None;
        }
        let volume = &mut *self.volume.borrow_mut();
        let log = &volume.superblock.log;
        let at = log.iter().position(|use_| Some(use_.epoch) == volume.tail.epoch);
        if let Some(use_) = at.and_then(|at| log.get(at))
            && volume.tail.block + blocks <= self.verifier.geometry.segment_blocks()
        {
            return Some(*use_);
        }
        let next = volume.tail.reserved(log)?;
        let fits = next.start.0 + blocks <= self.verifier.geometry.segment_blocks();
        if !fits {
            return None;
        }
        volume.tail.epoch = Some(next.epoch);
        volume.tail.block = next.start.0;
        Some(*next)
    }
}

/// Takes batches off the queue's front while they fit into one group of at most `room` blocks; `alone`, deletes and nothing else.
fn take_batches(inner: &Inner, room: u32, alone: bool) -> Vec<Queued> {
    let geometry = &inner.verifier.geometry;
    let mut state = inner.state.borrow_mut();
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(queued) = state.queue.pop_front() {
        let sum = bytes + queued.demand.bytes;
        let fits = group_blocks(geometry, sum) <= room && sum <= inner.options.group_bytes_max;
        let fits = fits && (!alone || queued.only_deletes());
        if !batches.is_empty() && !fits {
            state.queue.push_front(queued);
            break;
        }
        bytes = sum;
        batches.push(queued);
    }
    state.queue_bytes -= bytes;
    if state.queue.is_empty() {
        state.urgent = false;
        state.buffered_since = None;
    }
    batches
}

/// Takes moves off the front while they fit into one group of at most `room` blocks.
fn take_moves(inner: &Inner, room: u32) -> Vec<Move> {
    let geometry = &inner.verifier.geometry;
    let mut state = inner.state.borrow_mut();
    let (mut moves, mut bytes) = (Vec::new(), 0);
    while let Some(moved) = state.moves.pop_front() {
        let sum = bytes + moved.record_bytes();
        let fits = group_blocks(geometry, sum) <= room;
        if !moves.is_empty() && !fits {
            state.moves.push_front(moved);
            break;
        }
        bytes = sum;
        moves.push(moved);
    }
    moves
}

fn append(builder: &mut Builder, batches: Vec<Queued>) -> Vec<(Queued, Vec<Place>)> {
    let mut placed = Vec::with_capacity(batches.len());
    for queued in batches {
        let mut places = Vec::with_capacity(queued.changes.len());
        for change in &queued.changes {
            let encoded;
            let (kind, value, manifest) = match &change.content {
                Some(Content::Value(value)) => (Kind::Put, &**value, false),
                Some(Content::Chunk(value)) => (Kind::Chunk, &**value, false),
                Some(Content::Note(value)) => (Kind::Note, &**value, false),
                Some(Content::Large(manifest, _)) => {
                    encoded = manifest.encode();
                    (Kind::Put, &encoded[..], true)
                }
                None => (Kind::Delete, &[][..], false),
            };
            let (key, birth, lsn) = (&change.key, change.birth, Lsn::NONE);
            let record = Record { kind, lsn, birth, key, value, in_doubt: false, manifest };
            places.push(builder.put(record));
        }
        placed.push((queued, places));
    }
    placed
}
