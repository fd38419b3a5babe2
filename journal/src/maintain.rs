//! Maintenance: reserving the next use, checkpoints, cleaning. One task at a time, beside the write path.
//!
//! Everything here may be cut off at any write and costs nothing but the work: what is superseded goes
//! only with a superblock update whose second flush returned (FORMAT.md sections 3, 8 and 9).

use crate::checkpoint::{self, Missing, Snapshot};
use crate::geometry::{SLOT_BYTES, VolumeGeometry};
use crate::journal::Inner;
use crate::layout::superblock::USES_MAX;
use crate::mount::update;
use crate::plant::Plant;
use crate::replay::Doubt;
use crate::room::free_segments;
use crate::state::Durable;
use crate::superblock::Superblock;
use crate::ticket::Settled;
use crate::types::{BlockIndex, Epoch, Mode, SegmentIndex, Use};
use crate::writer::{Asker, Stop};
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// Replay bound of a volume whose checkpoint is small, in bytes of log per copy.
const REPLAY_BYTES_MIN: u64 = 4 << 20;
/// Entries of the list kept for the mounts to come.
pub(crate) const USES_KEPT: usize = 24;
/// Births that a superblock leaves at least: so many are given out in none of its updates' time.
const BIRTHS_KEPT: u64 = 1 << 31;
/// Segments that clients leave to cleaning beside those that the next checkpoint takes. One is what it needs to free another;
/// the other is for what crashes cost that break it off.
pub(crate) const CLEANING_SEGMENTS: u32 = 2;
/// What maintenance does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// List the next use.
    Reserve,
    /// Write a checkpoint and drop the log behind it.
    Checkpoint,
    /// Tell who asked for a checkpoint that there is no room for one.
    Decline,
    /// Move the live values out of a segment.
    Clean(SegmentIndex),
    /// Write the moves that wait for those of another segment.
    Move,
    /// Let the superblock vouch for what is durable, where the log has no room to.
    Witness,
    /// Compare both copies of a segment and repair.
    Repair(SegmentIndex),
    /// The same, as the next step of a check.
    Check(SegmentIndex),
}

/// Maintains the volume until the device fails.
pub(crate) async fn maintain(inner: &Inner) -> Stop {
    loop {
        let job = poll_fn(|_| match inner.next_job() {
            Some(job) => Poll::Ready(job),
            None => Poll::Pending,
        })
        .await;
        let done = match job {
            Job::Reserve => inner.reserve().await,
            Job::Witness => inner.witness().await,
            Job::Checkpoint => inner.checkpoint().await,
            Job::Decline => {
                let asked = inner.state.borrow_mut().checkpoint_asked.take();
                asked.into_iter().for_each(|ticket| ticket.settle(Settled::NoSpace));
                Ok(())
            }
            Job::Clean(victim) => inner.clean(victim).await.inspect(|()| inner.count_vain()),
            Job::Move => inner.move_the_waiting().await,
            Job::Repair(segment) => {
                inner.state.borrow_mut().to_repair.retain(|one| *one != segment);
                inner.repair_segment(segment).await.map(drop)
            }
            Job::Check(segment) => inner.check_segment(segment).await,
        };
        if let Err(stop) = done {
            return stop;
        }
        inner.jobs_ended.set(inner.jobs_ended.get() + 1);
    }
}

impl Inner {
    /// Yields what to do next, if anything.
    pub(crate) fn next_job(&self) -> Option<Job> {
        let now = self.clock.now();
        if self.volume.borrow().stuck.is_due(now) {
            self.volume.borrow_mut().stuck.release(now);
        }
        let volume = self.volume.borrow();
        let state = self.state.borrow();
        if matches!(state.mode, Mode::ReadOnly(_)) {
            return None;
        }
        let log = &volume.superblock.log;
        let reserved = volume.tail.reserved(log).is_some();
        let taken = volume.superblock.checkpoint.len();
        // One that is being written may take more than the last one, and what comes behind its cut stays listed with it.
        let listed = log.len() + taken.max(volume.busy.len());
        drop(volume);
        drop(state);
        let (free, kept, checkpoint) =
            (self.free_count(), self.kept_free(), self.checkpoint_segments());
        // Cleaning gives back more than it takes, and adds no key, so it may take what clients leave to it.
        let least = || match self.asker() {
            Asker::Deleting if !self.front_has_room() => self.kept_by_deletes() + 1,
            Asker::Client | Asker::Deleting => kept + 1,
            Asker::Cleaning => checkpoint + 1,
        };
        if !reserved && listed < USES_MAX && free >= least() {
            return Some(Job::Reserve);
        }
        if self.births_run_out() {
            return Some(Job::Witness);
        }
        let pressed = free + u32::from(reserved) + self.waiting() < kept + 2;
        let fits = reserved || free > checkpoint;
        let waits = self.may_move(fits);
        // Moves wait for others as long as segments are wanted beyond those that they free.
        let victim = match pressed {
            true => self.victim(),
            false => self.victim_of_many_uses().filter(|_| !waits),
        };
        let victim = victim.filter(|victim| fits || self.fits_at_hand(*victim));
        let clean = victim.map(Job::Clean).or(waits.then_some(Job::Move));
        let room = free >= checkpoint + u32::from(taken == 0);
        let shortens = self.log_is_shortened_by_checkpoint();
        let shrinks = (checkpoint as usize) < taken;
        let long = self.log_is_long() || listed + USES_KEPT > USES_MAX;
        let pays = || pressed && (shortens || shrinks) && self.checkpoint_pays(victim);
        let unbounded = self.options.plants.has(Plant::ReplayUnbounded);
        if room && !unbounded && (long && shortens || pays()) {
            return Some(Job::Checkpoint);
        }
        if self.state.borrow().checkpoint_asked.is_some() {
            // Cleaning may make room; without it there is none to wait for.
            return Some(if room { Job::Checkpoint } else { clean.unwrap_or(Job::Decline) });
        }
        let state = self.state.borrow();
        let repair = state.to_repair.first().copied().map(Job::Repair);
        let due = self.watermark_due(&state).is_some_and(|due| due <= now);
        let waits = due && state.queue.is_empty();
        drop(state);
        let witness = (clean.is_none() && waits && self.prepare(1, Asker::Client).is_none())
            .then_some(Job::Witness);
        let state = self.state.borrow();
        clean.or(witness).or(repair).or_else(|| state.check_next(now).map(Job::Check))
    }

    /// Tells whether waiting for maintenance is in vain.
    pub(crate) fn nothing_to_maintain(&self) -> bool {
        !self.maintaining.get() && self.next_job().is_none()
    }

    /// Yields the number of segments that nothing lies in; counted again only after something changed.
    pub(crate) fn free_count(&self) -> u32 {
        let at = {
            let (volume, state) = (self.volume.borrow(), self.state.borrow());
            let sequence = volume.superblock.sequence;
            let changes = [sequence, state.durable.lsn.0, state.moves_settled, state.abandoned];
            (changes, volume.busy.len(), volume.stuck.changes())
        };
        if let Some((then, count)) = self.free_counted.get()
            && then == at
        {
            return count;
        }
        let count = u32::try_from(self.free().len()).unwrap_or(u32::MAX);
        self.free_counted.set(Some((at, count)));
        count
    }

    fn free(&self) -> Vec<SegmentIndex> {
        let (volume, state) = (self.volume.borrow(), self.state.borrow());
        let free = free_segments(&volume.superblock, &state.room);
        let early = self.options.plants.has(Plant::FreeBeforeMoved).then(|| state.moves.front());
        let early = early.flatten().and_then(|moved| state.index.get(&moved.key));
        let early = early.map(|entry| entry.place.segment);
        let listed = |segment| volume.superblock.log.iter().any(|use_| use_.segment == segment);
        let free = early.into_iter().filter(|segment| !listed(*segment)).chain(free);
        free.filter(|segment| !volume.busy.contains(segment) && !volume.stuck.holds(*segment))
            .collect()
    }

    /// Yields how many segments clients leave free: for the next checkpoint, and for cleaning.
    ///
    /// A checkpoint that is larger than the one before, as the first is, gives back fewer segments than it takes; cleaning must find
    /// one then, beside those of the checkpoint that follows. While one is written it has taken what was kept for it, and gives
    /// back the segments of the one before.
    pub(crate) fn kept_free(&self) -> u32 {
        self.kept_for_cleaning(CLEANING_SEGMENTS)
    }

    /// Yields the segments that deletes leave free: one is cleaning's alone, and both while maintenance works.
    pub(crate) fn kept_by_deletes(&self) -> u32 {
        let works = self.maintaining.get() && self.volume.borrow().busy.is_empty();
        self.kept_for_cleaning(if works { CLEANING_SEGMENTS } else { 1 })
    }

    fn kept_for_cleaning(&self, segments: u32) -> u32 {
        let (volume, state) = (self.volume.borrow(), self.state.borrow());
        let next = state.room.checkpoint_segments_kept(&self.verifier.geometry, state.uses.len());
        let (busy, taken) = (volume.busy.len(), volume.superblock.checkpoint.len());
        let before = if busy > 0 { busy } else { taken };
        let count = |segments| u32::try_from(segments).unwrap_or(u32::MAX);
        let grows = next.saturating_sub(count(before));
        (next + segments.max(grows + 1)).saturating_sub(count(busy.min(taken)))
    }

    /// Does `work` of maintenance, and lists the next use meanwhile where it is wanted.
    pub(crate) async fn beside_reserving<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let mut work = pin!(work);
        loop {
            let done = poll_fn(|context| match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if self.next_job() == Some(Job::Reserve) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match done.await {
                Some(done) => return Ok(done),
                None => self.reserve().await?,
            }
        }
    }

    /// Yields how many segments a checkpoint takes now, at most.
    fn checkpoint_segments(&self) -> u32 {
        let state = self.state.borrow();
        state.room.checkpoint_segments(&self.verifier.geometry, state.uses.len())
    }

    /// Yields the bytes of log that the next mount would replay, per copy.
    pub(crate) fn log_bytes(&self) -> u64 {
        let volume = self.volume.borrow();
        let geometry = &self.verifier.geometry;
        let mut blocks = 0;
        for use_ in &volume.superblock.log {
            let at_tail = Some(use_.epoch) == volume.tail.epoch;
            let end = if at_tail { volume.tail.block } else { geometry.segment_blocks() };
            blocks += u64::from(end.saturating_sub(use_.start.0));
            if at_tail {
                break;
            }
        }
        blocks * geometry.block_bytes() as u64
    }

    /// Yields the bound on replay that the superblock states.
    pub(crate) fn replay_bytes(&self) -> u64 {
        let stated = self.volume.borrow().superblock.replay_bytes;
        if stated == 0 { u64::MAX } else { stated }
    }

    /// Tells whether a client's group of `blocks` would pass the bound on replay, less what cleaning may add.
    pub(crate) fn replay_is_full(&self, blocks: u32) -> bool {
        let geometry = &self.verifier.geometry;
        let more = u64::from(blocks) * geometry.block_bytes() as u64;
        let bounded = !self.options.plants.has(Plant::ReplayUnbounded);
        bounded
            && self.log_bytes() + more + 2 * geometry.segment_bytes() as u64 > self.replay_bytes()
    }

    /// Tells whether the log should be shortened before clients have to wait for that: a group takes a segment at most.
    fn log_is_long(&self) -> bool {
        let (most, segment) = (self.replay_bytes(), self.verifier.geometry.segment_bytes() as u64);
        self.log_bytes() > (most / 4 * 3).min(most.saturating_sub(3 * segment))
    }

    /// Tells whether a checkpoint gains more for each byte that is written than cleaning `victim`.
    ///
    /// It makes the log's segments cleanable, and all but what lives in them is gained once that was moved too.
    fn checkpoint_pays(&self, victim: Option<SegmentIndex>) -> bool {
        let Some(victim) = victim else { return true };
        let (volume, state) = (self.volume.borrow(), self.state.borrow());
        let segment = self.verifier.geometry.segment_bytes() as u64;
        let log = &volume.superblock.log;
        let covered = log.iter().take_while(|use_| Some(use_.epoch) != volume.tail.epoch);
        let (mut gained, mut written) = (0, volume.checkpoint_bytes);
        for use_ in covered {
            let live = state.room.live_in(use_.segment);
            gained += segment.saturating_sub(live);
            written += live;
        }
        let live = state.room.live_in(victim);
        u128::from(live) * u128::from(gained) > u128::from(segment - live) * u128::from(written)
    }

    /// Tells whether a checkpoint would take a segment, or a use, off the log.
    fn log_is_shortened_by_checkpoint(&self) -> bool {
        let volume = self.volume.borrow();
        let state = self.state.borrow();
        let log = &volume.superblock.log;
        let at = log.iter().position(|use_| use_.epoch == state.durable.epoch.unwrap_or_default());
        match (at, state.durable.epoch) {
            // No use at hand: whatever is listed is closed and goes.
            (_, None) => state.durable.lsn > volume.superblock.base,
            (Some(0), _) | (None, _) => {
                let long = self.options.replay_bytes.unwrap_or(REPLAY_BYTES_MIN) / 4;
                let first = log.first().map_or(0, |use_| use_.start.0);
                let (end, geometry) = (state.durable.block.0, &self.verifier.geometry);
                let blocks = u64::from(end.saturating_sub(first));
                let long = blocks * geometry.block_bytes() as u64 > long;
                at.is_some() && (long || end >= geometry.segment_blocks())
            }
            (Some(_), _) => true,
        }
    }

    /// Lists the next use in a free segment.
    pub(crate) async fn reserve(&self) -> Result<(), Stop> {
        let Some(segment) = self.free().first().copied() else { return Ok(()) };
        let next = {
            let mut volume = self.volume.borrow_mut();
            let mut next = self.next_superblock(&volume.superblock);
            let epoch = Epoch(volume.random.bytes16());
            next.log.push(Use { segment, start: BlockIndex(0), end: None, epoch });
            next
        };
        self.adopt(next).await
    }

    /// Updates the superblock with nothing new but what is durable by now.
    pub(crate) async fn witness(&self) -> Result<(), Stop> {
        let next = self.next_superblock(&self.volume.borrow().superblock);
        self.adopt(next).await
    }

    /// Yields the superblock that follows `last`, with what is durable by now.
    ///
    /// The next mount gives out births behind all that this one gave out, however many those were: what was named and never
    /// became durable, as large values and refused batches are, takes births and no LSNs.
    fn next_superblock(&self, last: &Superblock) -> Superblock {
        let state = self.state.borrow();
        let spent = state.next_birth.0.saturating_sub(state.durable.lsn.0);
        let mount = spent.saturating_add(BIRTHS_KEPT) >> 32;
        Superblock {
            sequence: last.sequence + 1,
            durable: state.durable.lsn,
            mount: last.mount.max(mount),
            ..last.clone()
        }
    }

    /// Tells whether the births are used up that the superblock leaves this mount.
    fn births_run_out(&self) -> bool {
        let (volume, state) = (self.volume.borrow(), self.state.borrow());
        let Superblock { durable, mount, .. } = &volume.superblock;
        let end = ((mount + 1) << 32).saturating_add(durable.0);
        state.next_birth.0.saturating_add(BIRTHS_KEPT) > end
    }

    /// Writes `next` into all copies of the superblock, then lets it be the one.
    async fn adopt(&self, next: Superblock) -> Result<(), Stop> {
        let mut ages = self.volume.borrow().ages;
        update(self, &next, &mut ages).await.map_err(|(stop, _)| stop)?;
        let mut volume = self.volume.borrow_mut();
        let mut state = self.state.borrow_mut();
        state.list_uses(&next.log);
        state.vouch(next.durable);
        volume.ages = ages;
        volume.superblock = next;
        Ok(())
    }

    /// K1 to K3 of FORMAT.md section 8.
    async fn checkpoint(&self) -> Result<(), Stop> {
        let (snapshot, durable) = self.snapshot();
        {
            // It covers whatever was durable when it was asked for.
            let mut state = self.state.borrow_mut();
            state.checkpoint_awaited = state.checkpoint_asked.take();
        }
        let segments = self.free();
        let needed = self.checkpoint_segments() as usize;
        let segments: Vec<_> = segments.into_iter().take(needed).collect();
        self.volume.borrow_mut().busy.clone_from(&segments);
        self.maintaining.set(true);
        let done = self.write_checkpoint(&snapshot, durable, &segments).await;
        self.maintaining.set(false);
        self.volume.borrow_mut().busy.clear();
        // What could not be written then is not tried again and again.
        let ended = done?;
        let awaited = self.state.borrow_mut().checkpoint_awaited.take();
        awaited.into_iter().for_each(|ticket| ticket.settle(ended));
        Ok(())
    }

    /// Tells whether another checkpoint could be tried if one of the `taken` segments were never free again.
    fn checkpoint_has_room_without_one(&self, taken: usize) -> bool {
        let first = self.volume.borrow().superblock.checkpoint.is_empty();
        let needed = self.checkpoint_segments() as usize + 1 + usize::from(first);
        self.free_count() as usize + taken >= needed
    }

    fn snapshot(&self) -> (Snapshot, Durable) {
        let state = self.state.borrow();
        let live = |use_: &&Use| state.room.live_in(use_.segment) > 0;
        let forget = self.options.plants.has(Plant::ForgetLosses);
        let snapshot = Snapshot {
            index: state.index.clone(),
            doubt: if forget { Doubt::default() } else { state.doubt.clone() },
            uses: state.uses.iter().filter(live).copied().collect(),
            base: state.durable.lsn,
        };
        (snapshot, state.durable)
    }

    /// Yields what who waits for it is told.
    async fn write_checkpoint(
        &self,
        snapshot: &Snapshot,
        durable: Durable,
        segments: &[SegmentIndex],
    ) -> Result<Settled, Stop> {
        let seed = self.volume.borrow_mut().random.bytes32();
        let mut random = crate::tag::Random::from_seed(seed);
        let (disk, verifier) = (&self.disk, &self.verifier);
        let written = checkpoint::write(disk, verifier, &mut random, segments, snapshot);
        let written = match self.beside_reserving(written).await? {
            Ok(written) => written,
            // The figure was too small: what was written is forgotten, and the store goes on without.
            Err(checkpoint::CheckpointError::NoSpace) => return Ok(Settled::NoSpace),
            Err(_) => return Err(Stop::Write),
        };
        let plants = self.options.plants;
        if !plants.has(Plant::CheckpointUnflushed) {
            self.flush(|| ()).await.map_err(|_| Stop::Flush)?;
        }
        if !plants.has(Plant::SkipReadBack) {
            let held = self.beside_reserving(checkpoint::verify(disk, verifier, &written)).await?;
            if let Err(Missing { segment, copies }) = held {
                // A place that does not hold what it was given is left alone; the next try takes others. Where there
                // is no room for one, a copy of each group is enough: the bad block is the one fault.
                if self.checkpoint_has_room_without_one(segments.len()) {
                    self.volume.borrow_mut().stuck.for_good(segment, copies);
                    return Ok(Settled::NotReadBack);
                }
                if copies == 0 {
                    return Err(Stop::Write);
                }
            }
        }
        let next = {
            let mut next = self.next_superblock(&self.volume.borrow().superblock);
            next.base = durable.lsn;
            next.base_tag = durable.tag;
            let geometry = &self.verifier.geometry;
            next.replay_bytes = replay_bytes(self.options.replay_bytes, written.bytes, geometry);
            next.checkpoint.clone_from(&written.uses);
            next.log = log_behind(&next.log, durable, self.verifier.geometry.segment_blocks());
            next
        };
        self.adopt(next).await?;
        let mut volume = self.volume.borrow_mut();
        let mut state = self.state.borrow_mut();
        volume.checkpoint_bytes = written.bytes;
        volume.stuck.renew();
        state.checkpoints += 1;
        state.base_is_whole = true;
        let superblock = &volume.superblock;
        let kept: Vec<Use> = state
            .uses
            .iter()
            .filter(|use_| {
                let listed = superblock.log.iter().any(|one| one.segment == use_.segment);
                listed || state.room.live_in(use_.segment) > 0
            })
            .copied()
            .collect();
        state.uses = kept;
        Ok(Settled::Durable)
    }
}

/// Yields the log that a checkpoint up to `durable` leaves: from the place behind it on.
fn log_behind(log: &[Use], durable: Durable, segment_blocks: u32) -> Vec<Use> {
    let Some(at) = log.iter().position(|use_| Some(use_.epoch) == durable.epoch) else {
        // The mount had no use to write to: all that is listed and closed is covered.
        return log.iter().filter(|use_| use_.end.is_none()).copied().collect();
    };
    let behind = log.iter().skip(at).enumerate().filter_map(|(n, use_)| match n {
        0 if durable.block.0 >= segment_blocks => None,
        0 => Some(Use { start: durable.block, ..*use_ }),
        _ => Some(*use_),
    });
    behind.collect()
}

/// Yields the bound on replay: the largest of 4 MiB, twice the checkpoint, and what cleaning needs to work.
pub(crate) fn replay_bytes(
    chosen: Option<u64>,
    checkpoint_bytes: u64,
    geometry: &VolumeGeometry,
) -> u64 {
    let least = 6 * geometry.segment_bytes() as u64;
    let bytes = chosen.unwrap_or(REPLAY_BYTES_MIN).max(2 * checkpoint_bytes).max(least);
    bytes.next_multiple_of(SLOT_BYTES)
}

#[cfg(test)]
mod tests;
