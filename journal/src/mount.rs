//! Opening a volume: R0 to R7 of FORMAT.md section 7.

use crate::checkpoint::{self, CheckpointError, Loaded, Snapshot};
use crate::disk::Disk;
use crate::geometry::{GeometryError, SUPERBLOCK_COPIES, VolumeGeometry, superblock_offset};
use crate::group::{Header, Verifier};
use crate::index::Index;
use crate::plant::{Plant, Plants};
use crate::replay::{Ahead, Doubt, ReplayError, read, replay};
use crate::room::{Room, free_segments};
use crate::scan;
use crate::superblock::{Copies, Superblock, SuperblockError, update_order};
use crate::tag::{Keys, Random, Tag};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, SegmentIndex, Use, VolumeId, Zone};
use crate::walk::{Accepted, History, Lost, walk};
use crate::writer::Stop;
use alloc::vec::Vec;
use blockdev::{Buffer, DeviceError};

/// Why a volume was not opened. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The device is blank: there is no volume yet.
    Blank,
    /// The device holds something else, or a volume whose four superblock copies are all damaged.
    NoSuperblock,
    /// A format that this program does not know.
    Version(u16),
    /// The device is smaller than its volume.
    Shrunk {
        /// Bytes of the volume.
        volume_bytes: u64,
        /// Bytes of the device.
        device_bytes: u64,
    },
    /// A power cut could tear acknowledged neighbours on this device.
    Geometry(GeometryError),
    /// The checkpoint cannot be read: what it covers is lost, and nothing may be written over it.
    Checkpoint(CheckpointError),
    /// A counter is used up: that of mounts, or in a forged volume another.
    MountsUsedUp,
    /// The device could not be flushed, so what it shows may not be what it holds.
    Flush(DeviceError),
    /// A repair or the superblock could not be written.
    Write(DeviceError),
    /// The log could not be replayed.
    Replay(ReplayError),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Blank => {
                f.write_str("the device is blank; `statefs image format` makes a volume")
            }
            Self::NoSuperblock => f.write_str(
                "no copy of the superblock verifies: this is not a StateFS volume, or all four \
                 copies are damaged; nothing was changed",
            ),
            Self::Version(version) => write!(
                f,
                "the volume has format version {version}, this program knows version 2; \
                 open it with the program that wrote it, or a newer one"
            ),
            Self::Shrunk { volume_bytes, device_bytes } => write!(
                f,
                "the volume takes {volume_bytes} bytes and the device has {device_bytes}: it was \
                 cut off or copied in part; restore the whole of it"
            ),
            Self::Geometry(error) => error.fmt(f),
            Self::Checkpoint(error) => write!(
                f,
                "the checkpoint cannot be read ({error}); nothing was changed, and nothing should be \
                 until what it covers is restored"
            ),
            Self::MountsUsedUp => {
                f.write_str("the volume's counters are used up; dump it and format anew")
            }
            Self::Flush(error) => write!(
                f,
                "the device cannot be flushed ({error}), so what it shows may not be what it holds; \
                 check the device, then try again"
            ),
            Self::Write(error) => {
                write!(
                    f,
                    "the device cannot be written ({error}); open the image read-only to read it"
                )
            }
            Self::Replay(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The volume.
    pub volume: VolumeId,
    /// This mount's number.
    pub mount: u64,
    /// Groups that count.
    pub groups: usize,
    /// Copies that did not verify and were written again.
    pub repaired: usize,
    /// Superblock copies that did not verify.
    pub superblocks_damaged: usize,
    /// What had been acknowledged and is gone.
    pub lost: Vec<Lost>,
    /// Groups of a torn tail: written, never acknowledged, discarded.
    pub torn_groups: u32,
    /// Bytes of log that were replayed, per copy.
    pub replayed_bytes: u64,
    /// The bound on that, as the superblock states it; 0 for none.
    pub replay_bytes: u64,
    /// Bytes of the checkpoint, per copy.
    pub checkpoint_bytes: u64,
    /// The LSN at which the log goes on.
    pub next: Lsn,
}

/// A mounted volume, ready to serve.
pub(crate) struct Mounted {
    pub(crate) superblock: Superblock,
    pub(crate) ages: [u64; SUPERBLOCK_COPIES],
    pub(crate) verifier: Verifier,
    pub(crate) index: Index,
    pub(crate) doubt: Doubt,
    pub(crate) uses: Vec<Use>,
    pub(crate) room: Room,
    pub(crate) tag: Tag,
    /// The use that this mount writes to, if there is room for one.
    pub(crate) fresh: Option<usize>,
    pub(crate) report: Report,
}

/// Reads a volume without changing a byte: R0 to R3 and the replay.
pub(crate) async fn look(
    disk: &Disk,
    plants: Plants,
) -> Result<(Copies, Verifier, Found), OpenError> {
    if !plants.has(Plant::SkipFirstFlush) {
        disk.flush().await.map_err(OpenError::Flush)?;
    }
    let copies = scan::superblocks(disk).await;
    let best = copies.best().filter(|_| !plants.has(Plant::SuperblockQuorum) || copies.agree());
    let superblock = best.cloned().ok_or_else(|| nothing_valid(&copies))?;
    let device = disk.geometry();
    let (volume_bytes, device_bytes) = (superblock.geometry.volume_bytes(), device.device_bytes);
    if !superblock.geometry.fits(device_bytes) {
        return Err(OpenError::Shrunk { volume_bytes, device_bytes });
    }
    // What such a device does not read for its length alone is no damage.
    covers(&superblock.geometry, device.sector_bytes)?;
    let mut verifier = Verifier {
        volume: superblock.volume,
        keys: Keys::derive(&superblock.key),
        geometry: superblock.geometry,
    };
    verifier.keys.plants = plants;
    let mut walked = None;
    let (history, begun, uses, repairs, bytes) = loop {
        let (listed, base) = (&superblock.checkpoint, superblock.base);
        let loaded = checkpoint::load(disk, &verifier, listed, base).await;
        let Loaded { snapshot, repairs, bytes } = loaded.map_err(OpenError::Checkpoint)?;
        let Snapshot { index, doubt, uses, base } = snapshot;
        let mut ahead = Ahead::new((index, doubt), base, superblock.base_tag);
        let history = match walked.take() {
            Some(history) => history,
            None => {
                let ahead = Some(&mut ahead);
                let seen = scan::log(disk, &verifier, &superblock, &copies, ahead).await;
                walk(&seen, plants.weakened())
            }
        };
        match ahead.of(&history) {
            Some(begun) => break (history, begun, uses, repairs, bytes),
            // Others count than those that were applied: begin anew, and trust none.
            None => walked = Some(history),
        }
    };
    let replayed = replay(disk, &verifier, &history, begun).await;
    let (index, mut doubt) = replayed.map_err(OpenError::Replay)?;
    doubt.absent &= !plants.has(Plant::DoubtForgotten);
    let found = Found { superblock, history, index, doubt, uses, repairs, checkpoint_bytes: bytes };
    Ok((copies, verifier, found))
}

/// Refuses a device whose unit is larger than the volume's block.
fn covers(geometry: &VolumeGeometry, physical_bytes: u32) -> Result<(), OpenError> {
    let block_bytes = u32::try_from(geometry.block_bytes()).unwrap_or(u32::MAX);
    if block_bytes >= physical_bytes {
        return Ok(());
    }
    Err(OpenError::Geometry(GeometryError::PhysicalUnit { block_bytes, physical_bytes }))
}

/// What [`look`] found.
pub(crate) struct Found {
    pub(crate) superblock: Superblock,
    pub(crate) history: History,
    pub(crate) index: Index,
    pub(crate) doubt: Doubt,
    /// The uses that the checkpoint's values lie in.
    pub(crate) uses: Vec<Use>,
    repairs: Vec<(Header, Zone, Zone)>,
    checkpoint_bytes: u64,
}

impl Found {
    /// Reports on it, `repaired` copies having been written.
    pub(crate) fn report(&self, copies: &Copies, repaired: usize) -> Report {
        let geometry = &self.superblock.geometry;
        let blocks = |one: &Accepted| u64::from(one.header.blocks(geometry));
        let replayed_blocks: u64 = self.history.accepted.iter().map(blocks).sum();
        Report {
            volume: self.superblock.volume,
            mount: self.superblock.mount,
            groups: self.history.accepted.len(),
            repaired,
            superblocks_damaged: SUPERBLOCK_COPIES - copies.valid().count(),
            lost: self.history.lost.clone(),
            torn_groups: self.history.torn_groups,
            replayed_bytes: replayed_blocks * geometry.block_bytes() as u64,
            replay_bytes: self.superblock.replay_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            next: self.history.next,
        }
    }
}

/// Opens a volume for writing: R0 to R6.
pub(crate) async fn mount(
    disk: &Disk,
    random: &mut Random,
    plants: Plants,
) -> Result<Mounted, OpenError> {
    let (copies, verifier, mut found) = look(disk, plants).await?;
    let geometry = found.superblock.geometry;
    if !plants.has(Plant::AnyPhysicalUnit) {
        covers(&geometry, disk.geometry().physical_bytes)?;
    }
    if counters_end(&found.superblock, &found.history) {
        return Err(OpenError::MountsUsedUp);
    }
    let repaired = repair(disk, &verifier, &found).await?;
    let report = found.report(&copies, repaired);
    let room = Room::of(&found.index, &found.doubt, &geometry);
    let fresh = next_superblock(&mut found, &room, random, plants);
    let mut ages = copies.ages();
    update(&Mounting(disk, plants), &found.superblock, &mut ages).await.map_err(
        |(stop, error)| match stop {
            Stop::Write => OpenError::Write(error),
            Stop::Flush => OpenError::Flush(error),
        },
    )?;
    let report = Report { mount: found.superblock.mount, ..report };
    let Found { superblock, history, index, doubt, uses, .. } = found;
    let tag = history.tag;
    Ok(Mounted { superblock, ages, verifier, index, doubt, uses, room, tag, fresh, report })
}

/// Tells whether a counter is too near its end for another mount.
pub(crate) fn counters_end(superblock: &Superblock, history: &History) -> bool {
    let counted = Lsn(superblock.sequence).max(history.next);
    superblock.mount + 1 >= Birth::MOUNT_MAX || counted > Lsn::MOUNT_MAX
}

fn nothing_valid(copies: &Copies) -> OpenError {
    let errors = copies.copies.iter().filter_map(|copy| copy.as_ref().err());
    let newest = errors.clone().find_map(|error| match error {
        SuperblockError::Version(version) => Some(OpenError::Version(*version)),
        _ => None,
    });
    let blank = errors.clone().all(|error| *error == SuperblockError::Blank);
    newest.unwrap_or(if blank { OpenError::Blank } else { OpenError::NoSuperblock })
}

/// R4: writes the copies of accepted groups and of the checkpoint that do not verify, then flushes.
async fn repair(disk: &Disk, verifier: &Verifier, found: &Found) -> Result<usize, OpenError> {
    let mut repaired = 0;
    let (geometry, plants) = (&verifier.geometry, verifier.keys.plants);
    if plants.has(Plant::SkipRepair) {
        return Ok(0);
    }
    if plants.has(Plant::MountWritesEarly) {
        let last = SegmentIndex(geometry.segment_count() - 1);
        let offset = geometry.block_offset(Zone::A, last, BlockIndex(0));
        let blank = Buffer::zeroed(geometry.block_bytes());
        disk.write(offset, blank).await.map_err(OpenError::Write)?;
    }
    for accepted in &found.history.accepted {
        let Some(zone) = accepted.repair else { continue };
        let bytes = read(disk, verifier, accepted).await.map_err(OpenError::Replay)?;
        let header = accepted.header;
        let offset = geometry.block_offset(zone, header.segment, header.block);
        disk.write(offset, bytes).await.map_err(OpenError::Write)?;
        repaired += 1;
    }
    for (header, good, bad) in &found.repairs {
        let found = checkpoint::group_at(disk, verifier, *good, header.segment, header.block);
        let unstable = OpenError::Replay(ReplayError::Unstable { first: header.first });
        let (_, bytes) = found.await.filter(|(again, _)| again == header).ok_or(unstable)?;
        let offset = geometry.block_offset(*bad, header.segment, header.block);
        disk.write(offset, bytes).await.map_err(OpenError::Write)?;
        repaired += 1;
    }
    if repaired > 0 && !plants.has(Plant::RepairUnflushed) {
        disk.flush().await.map_err(OpenError::Flush)?;
    }
    Ok(repaired)
}

/// Turns the superblock that was found into the one of this mount, and yields its fresh use.
///
/// There is none where the list is full or no segment may be taken: then the mount only closes what was open,
/// and owes a checkpoint, which the running store writes before it takes a commit. Until all four
/// copies say so, nothing but repairs is written to the zones.
fn next_superblock(
    found: &mut Found,
    room: &Room,
    random: &mut Random,
    plants: Plants,
) -> Option<usize> {
    let Found { superblock, history, .. } = found;
    superblock.sequence += 1;
    superblock.mount += u64::from(!plants.has(Plant::SameMount));
    superblock.mount_id = random.bytes16();
    superblock.durable = history.next.before();
    let place = tail(superblock, history).or_else(|| cut_place(superblock, history, room, plants));
    let cuts = history.cuts.iter();
    let kept = superblock.log.iter().zip(cuts).filter_map(|(use_, cut)| {
        let end = Some((*cut)?).filter(|_| !plants.has(Plant::NoCut));
        Some(Use { end, ..*use_ })
    });
    superblock.log = kept.collect();
    let mut open =
        |(segment, start)| Use { segment, start, end: None, epoch: Epoch(random.bytes16()) };
    let kept_free =
        room.checkpoint_segments(&superblock.geometry, superblock.log.len()) as usize + 1;
    let place = place.or_else(|| {
        let mut free = free_segments(superblock, room);
        let segment = free.next()?;
        (free.count() > kept_free).then_some((segment, BlockIndex(0)))
    });
    let place = place.filter(|_| superblock.has_room(1))?;
    superblock.log.push(open(place));
    let fresh = superblock.log.len() - 1;
    let mut free = free_segments(superblock, room);
    let reserved = free.next().filter(|_| free.count() > kept_free);
    if let Some(segment) = reserved.filter(|_| superblock.has_room(1)) {
        superblock.log.push(open((segment, BlockIndex(0))));
    }
    Some(fresh)
}

/// Yields the place behind the last accepted group, if the log may go on there.
///
/// Not behind a loss: what lies there may yet be read by a salvage.
fn tail(superblock: &Superblock, history: &History) -> Option<(SegmentIndex, BlockIndex)> {
    let last = history.accepted.last()?;
    let lost_after = history.lost.last().is_some_and(|lost| lost.first > last.header.last);
    let header = last.header;
    let end = header.block.0 + header.blocks(&superblock.geometry);
    let room = end < superblock.geometry.segment_blocks();
    (room && !lost_after).then_some((header.segment, BlockIndex(end)))
}

/// Yields the place where a checkpoint cut the log, if nothing came behind it and values hold its segment.
///
/// Another segment would do, but for a volume that is full: there is none, and without a place nothing is cleaned or deleted.
fn cut_place(
    superblock: &Superblock,
    history: &History,
    room: &Room,
    plants: Plants,
) -> Option<(SegmentIndex, BlockIndex)> {
    let nothing = history.accepted.is_empty() && history.lost.is_empty();
    let first = superblock.log.first().filter(|first| nothing && first.end.is_none());
    let cut = first.filter(|cut| cut.start.0 > 0)?;
    let held = room.live_in(cut.segment) > 0 && !plants.has(Plant::CutAbandoned);
    held.then_some((cut.segment, cut.start))
}

/// What an update needs of its caller: a device, and the way flushes are issued, one at a time.
pub(crate) trait Flusher {
    /// The queue of the device.
    fn disk(&self) -> &Disk;
    /// The rules that are switched off.
    fn plants(&self) -> Plants;
    /// Flushes once no other flush is out.
    async fn flush(&self) -> Result<(), DeviceError>;
}

/// A mount, which is alone with its device.
struct Mounting<'a>(&'a Disk, Plants);

impl Flusher for Mounting<'_> {
    fn disk(&self) -> &Disk {
        self.0
    }

    fn plants(&self) -> Plants {
        self.1
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        self.0.flush().await.map(drop)
    }
}

/// Writes `superblock` into the two oldest copies, flushes, into the other two, flushes (R5 and R6).
///
/// Durability: when this returns, and not before, anything may rely on it.
pub(crate) async fn update(
    by: &impl Flusher,
    superblock: &Superblock,
    ages: &mut [u64; SUPERBLOCK_COPIES],
) -> Result<(), (Stop, DeviceError)> {
    let bytes = superblock.encode();
    let order = if by.plants().superblock_order() { [0, 1, 2, 3] } else { update_order(ages) };
    let pairs = if by.plants().has(Plant::FirstPairOnly) { 1 } else { 2 };
    for pair in order.chunks(2).take(pairs) {
        let write = |&copy: &usize| {
            let offset = superblock_offset(copy, superblock.geometry.volume_bytes());
            by.disk().write(offset, Buffer::copy_of(&bytes))
        };
        let writes: Vec<_> = pair.iter().map(write).collect();
        for write in writes {
            write.await.map_err(|error| (Stop::Write, error))?;
        }
        by.flush().await.map_err(|error| (Stop::Flush, error))?;
        for &copy in pair {
            if let Some(age) = ages.get_mut(copy) {
                *age = superblock.sequence;
            }
        }
    }
    Ok(())
}
