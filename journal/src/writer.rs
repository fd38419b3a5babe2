//! The write path: from queued batches to groups, both copies, one flush, and the answers.

use crate::disk::Transfer;
use crate::geometry::SUPERBLOCK_COPIES;
use crate::group::{Builder, group_blocks};
use crate::journal::Inner;
use crate::mount::update;
use crate::record::Kind;
use crate::space::{Space, free_segments, listable};
use crate::state::{BUFFERED_BYTES_MAX, Queued};
use crate::superblock::Superblock;
use crate::tag::{Random, Tag};
use crate::types::{BlockIndex, Epoch, Mode, Place, ReadOnlyReason, Use};
use alloc::vec::Vec;
use blockdev::{Buffer, DeviceError};
use core::future::poll_fn;
use core::task::Poll;

/// Most bytes of groups under one flush: beyond it a commit would wait long for its neighbours.
const FLUSH_BYTES_MAX: usize = 2 << 20;

/// What only the write path knows.
pub(crate) struct Writer {
    pub(crate) superblock: Superblock,
    pub(crate) ages: [u64; SUPERBLOCK_COPIES],
    pub(crate) random: Random,
    /// The use at hand, as an index into the log; `None` where the volume has no room for one.
    pub(crate) in_use: Option<usize>,
    pub(crate) block: u32,
    pub(crate) tag: Tag,
}

/// A group whose copies are being written.
struct Written {
    batches: Vec<(Queued, Vec<Place>)>,
    transfers: Vec<Transfer>,
}

/// What stopped the write path.
enum Stop {
    Write,
    Flush,
}

impl Writer {
    /// Writes what is queued, cycle by cycle, until the device fails.
    pub(crate) async fn run(mut self, inner: &Inner) {
        loop {
            poll_fn(|_| if inner.has_work() { Poll::Ready(()) } else { Poll::Pending }).await;
            let mut written = Vec::new();
            let done = self.cycle(inner, &mut written).await;
            let done = match done {
                Ok(()) => self.reserve_ahead(inner).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = done {
                let reason = match stop {
                    Stop::Write => ReadOnlyReason::WriteFailed,
                    Stop::Flush => ReadOnlyReason::FlushFailed,
                };
                let on_the_way = written.into_iter().flat_map(|group| group.batches);
                let on_the_way = on_the_way.map(|(queued, _)| queued).collect();
                inner.state.borrow_mut().poison(reason, on_the_way);
                return;
            }
        }
    }

    /// One round: groups out, one flush, answers.
    async fn cycle(&mut self, inner: &Inner, written: &mut Vec<Written>) -> Result<(), Stop> {
        let mut bytes = 0;
        while bytes < inner.options.flush_bytes_max {
            let Some(taken) = self.next_group(inner, written).await? else {
                break;
            };
            bytes += taken;
        }
        wait_for_writes(written).await?;
        if inner.options.plants.ack_before_flush() {
            self.settle(inner, written);
        }
        let flush = inner.disk.flush();
        if inner.options.plants.late_writes() {
            while self.next_group(inner, written).await?.is_some() {}
        }
        flush.await.map_err(|_| Stop::Flush)?;
        self.settle(inner, written);
        inner.state.borrow_mut().space = self.space();
        self.admit_again(inner);
        Ok(())
    }

    /// Counts what is still queued against the room again: groups may have taken less than was feared.
    fn admit_again(&self, inner: &Inner) {
        let mut state = inner.state.borrow_mut();
        let geometry = &inner.verifier.geometry;
        let mut space = state.space;
        for queued in &state.queue {
            let taken = space.take(group_blocks(geometry, queued.record_bytes), true);
            assert!(taken, "what was admitted has room: sharing groups never takes more");
        }
        state.space = space;
    }

    /// Builds the next group from the queue's front and starts both writes; yields its bytes.
    async fn next_group(
        &mut self,
        inner: &Inner,
        written: &mut Vec<Written>,
    ) -> Result<Option<usize>, Stop> {
        let geometry = inner.verifier.geometry;
        let Some(first_bytes) = inner.state.borrow().queue.front().map(|q| q.record_bytes) else {
            return Ok(None);
        };
        if self.block + group_blocks(&geometry, first_bytes) > geometry.segment_blocks() {
            self.move_on(inner).await?;
        }
        let in_use = self.in_use.expect("admission found room");
        let use_ = *self.superblock.log.get(in_use).expect("the use at hand is listed");
        let room = geometry.segment_blocks() - self.block;
        let batches = take_batches(inner, room);
        let bytes: usize = batches.iter().map(|queued| queued.record_bytes).sum();
        let blocks = group_blocks(&geometry, bytes);
        let first = batches.first().and_then(|queued| queued.changes.first());
        let first = first.expect("a queued batch has a change").lsn;
        let block = BlockIndex(self.block);
        let mut builder = Builder::new(&geometry, use_.epoch, use_.segment, block, blocks, first);
        let batches = append(&mut builder, batches);
        let durable = inner.state.borrow().durable;
        let (header, buffer) = builder.finish(&inner.verifier, self.tag, durable);
        self.tag = header.tag;
        self.block += blocks;
        let group_bytes = buffer.len();
        let mut buffer = Some(buffer);
        let transfers = geometry.zones().map(|zone| {
            let last = usize::from(geometry.copies()) == 1 || zone == crate::types::Zone::B;
            let copy = match buffer.as_deref() {
                Some(bytes) if !last => Buffer::copy_of(bytes),
                _ => buffer.take().unwrap_or_default(),
            };
            inner.disk.write(geometry.block_offset(zone, use_.segment, block), copy)
        });
        let transfers = transfers.collect();
        written.push(Written { batches, transfers });
        Ok(Some(group_bytes))
    }

    /// Goes on in the reserved use, which a returned second flush has listed.
    async fn move_on(&mut self, inner: &Inner) -> Result<(), Stop> {
        let next = self.in_use.map_or(0, |in_use| in_use + 1);
        if self.superblock.log.len() <= next {
            self.reserve(inner).await?;
        }
        assert!(
            next < self.superblock.log.len(),
            "admission counted the segments that may be listed"
        );
        self.in_use = Some(next);
        self.block = self.superblock.log.get(next).map_or(0, |use_| use_.start.0);
        Ok(())
    }

    /// Lists the next use before it is needed.
    async fn reserve_ahead(&mut self, inner: &Inner) -> Result<(), Stop> {
        let reserved = self.in_use.is_none_or(|in_use| in_use + 1 < self.superblock.log.len());
        if reserved || listable(&self.superblock) == 0 {
            return Ok(());
        }
        self.reserve(inner).await
    }

    async fn reserve(&mut self, inner: &Inner) -> Result<(), Stop> {
        let Some(segment) = free_segments(&self.superblock).next() else {
            return Ok(());
        };
        let mut next = self.superblock.clone();
        next.sequence += 1;
        next.durable = inner.state.borrow().durable;
        let epoch = Epoch(self.random.bytes16());
        next.log.push(Use { segment, start: BlockIndex(0), end: None, epoch });
        let updated = update(&inner.disk, &next, &mut self.ages, inner.options.plants).await;
        updated.map_err(|_: DeviceError| Stop::Write)?;
        inner.state.borrow_mut().uses.clone_from(&next.log);
        self.superblock = next;
        Ok(())
    }

    fn settle(&self, inner: &Inner, written: &mut Vec<Written>) {
        let mut state = inner.state.borrow_mut();
        for (queued, places) in written.drain(..).flat_map(|group| group.batches) {
            state.settle(queued, &places);
        }
    }

    /// Yields the room ahead of the writer.
    pub(crate) fn space(&self) -> Space {
        let geometry = &self.superblock.geometry;
        let Some(in_use) = self.in_use else {
            return Space { segment_blocks: geometry.segment_blocks(), ..Space::default() };
        };
        let listed = self.superblock.log.len() - in_use - 1;
        let listed = u32::try_from(listed).unwrap_or(u32::MAX);
        Space {
            blocks_here: geometry.segment_blocks() - self.block,
            segments_ahead: listed + listable(&self.superblock),
            segment_blocks: geometry.segment_blocks(),
        }
    }
}

impl Inner {
    /// Tells whether a cycle should begin: somebody waits, or buffered data has waited long enough.
    fn has_work(&self) -> bool {
        let state = self.state.borrow();
        if state.queue.is_empty() || matches!(state.mode, Mode::ReadOnly(_)) {
            return false;
        }
        let due = self.buffered_due(&state).is_some_and(|due| self.clock.now() >= due);
        state.urgent || due || state.queue_bytes >= BUFFERED_BYTES_MAX
    }
}

/// Takes batches off the queue's front while they fit into one group of at most `room` blocks.
fn take_batches(inner: &Inner, room: u32) -> Vec<Queued> {
    let geometry = &inner.verifier.geometry;
    let mut state = inner.state.borrow_mut();
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(queued) = state.queue.pop_front() {
        let sum = bytes + queued.record_bytes;
        let fits = group_blocks(geometry, sum) <= room && sum <= inner.options.group_bytes_max;
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

fn append(builder: &mut Builder, batches: Vec<Queued>) -> Vec<(Queued, Vec<Place>)> {
    let mut placed = Vec::with_capacity(batches.len());
    for queued in batches {
        let mut places = Vec::with_capacity(queued.changes.len());
        for change in &queued.changes {
            let (kind, value) = match &change.value {
                Some(value) => (Kind::Put, &**value),
                None => (Kind::Delete, &[][..]),
            };
            let (lsn, place) = builder.append(kind, change.birth, &change.key, value);
            assert!(lsn == change.lsn, "records are written in the order of admission");
            places.push(place);
        }
        placed.push((queued, places));
    }
    placed
}

async fn wait_for_writes(written: &mut [Written]) -> Result<(), Stop> {
    for group in written {
        for transfer in core::mem::take(&mut group.transfers) {
            transfer.await.map_err(|_| Stop::Write)?;
        }
    }
    Ok(())
}

/// Bounds of the write path that a driver may narrow.
pub(crate) const fn flush_bytes_max() -> usize {
    FLUSH_BYTES_MAX
}
