//! What can be wrong with a volume, where it is, whom it concerns, and what would repair it.

use super::{GroupFact, Groups, Role, VolumeFacts};
use crate::disk::Disk;
use crate::geometry::{SLOT_BYTES, SUPERBLOCK_COPIES, superblock_offset};
use crate::group::{Header, Verifier};
use crate::mount::counters_end;
use crate::scan::{blocks, superblock_at};
use crate::superblock::{Copies, Superblock, SuperblockError};
use crate::types::{BlockIndex, Epoch, Lsn, SegmentIndex, Use, Zone};
use crate::walk::{History, Seen};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::Buffer;

/// Most keys that one fault names; it counts the others.
pub const KEYS_NAMED_MAX: usize = 64;

/// A range of LSNs, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first.
    pub first: Lsn,
    /// The last.
    pub last: Lsn,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A copy of the superblock does not verify.
    Superblock(SuperblockError),
    /// A copy of the superblock is of an earlier generation, which no update that was cut off leaves.
    OlderSuperblock,
    /// The device ends before the volume does.
    Shrunk,
    /// A counter is used up, that of mounts or in a forged volume another: it is mounted no more.
    Counters,
    /// One copy of a group does not verify, the other does.
    GroupCopy,
    /// One copy of a value does not verify, and no copy of its group does as a whole.
    ValueCopy,
    /// No copy of a group verifies as a whole, though every copy of these values in it does.
    Group,
    /// A part of the checkpoint verifies in no copy.
    Checkpoint,
    /// A stretch of the log had been durable and is gone.
    Lost,
    /// A group verifies and its records make no sense, or it did not verify a second time.
    Records,
    /// A value verifies in no copy.
    Value,
    /// Later changes of these keys may be among what was lost, now or earlier.
    InDoubt,
    /// Keys that the volume does not show may be among what was lost, now or earlier.
    AbsentInDoubt,
}

impl FaultKind {
    /// Tells whether something that had been acknowledged is lost, or may be.
    pub fn is_loss(self) -> bool {
        match self {
            Self::Superblock(_)
            | Self::OlderSuperblock
            | Self::Shrunk
            | Self::Counters
            | Self::GroupCopy
            | Self::ValueCopy
            | Self::Group => false,
            Self::Checkpoint
            | Self::Lost
            | Self::Records
            | Self::Value
            | Self::InDoubt
            | Self::AbsentInDoubt => true,
        }
    }
}

/// Where the right bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The newest copy of the superblock.
    Superblock,
    /// The other copy of the group.
    Zone(Zone),
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The copy of the superblock.
    pub copy: Option<usize>,
    /// The copy of the group or value; `None` where it is in both or in none.
    pub zone: Option<Zone>,
    /// The segment.
    pub segment: Option<SegmentIndex>,
    /// The first block of what is damaged, in the segment.
    pub block: Option<BlockIndex>,
    /// Blocks that the damaged thing takes.
    pub blocks: u32,
    /// The blocks of it that differ from the good copy, as bytes from the start of the device.
    pub differs: Vec<u64>,
    /// Bytes from the start of the device to what is damaged.
    pub offset: Option<u64>,
    /// The LSNs concerned.
    pub lsns: Option<Span>,
    /// Keys concerned, at most [`KEYS_NAMED_MAX`].
    pub keys: Vec<Rc<[u8]>>,
    /// How many keys are concerned, as far as it is known.
    pub keys_count: u64,
    /// Where a repair takes the right bytes from; `None` where nothing has them.
    pub repair: Option<Source>,
}

impl Fault {
    pub(super) fn of(kind: FaultKind) -> Self {
        Self {
            kind,
            copy: None,
            zone: None,
            segment: None,
            block: None,
            blocks: 0,
            differs: Vec::new(),
            offset: None,
            lsns: None,
            keys: Vec::new(),
            keys_count: 0,
            repair: None,
        }
    }

    pub(super) fn records(verifier: &Verifier, header: &Header) -> Self {
        Self {
            segment: Some(header.segment),
            block: Some(header.block),
            blocks: header.blocks(&verifier.geometry),
            offset: Some(verifier.geometry.block_offset(Zone::A, header.segment, header.block)),
            lsns: Some(Span { first: header.first, last: header.last }),
            ..Self::of(FaultKind::Records)
        }
    }

    /// Adds a key; the parts of a large value come one after another, under its own.
    pub(super) fn name(&mut self, key: &[u8]) {
        if self.keys.last().is_some_and(|last| **last == *key) {
            return;
        }
        self.keys_count += 1;
        if self.keys.len() < KEYS_NAMED_MAX {
            self.keys.push(key.into());
        }
    }
}

/// Notes the copies of the superblock that do not verify, and a device that ends too early.
pub(super) fn superblocks(facts: &mut VolumeFacts, copies: &Copies, device_bytes: u64) {
    let volume_bytes = facts.superblock.geometry.volume_bytes();
    if volume_bytes > device_bytes {
        let shrunk = Fault { offset: Some(device_bytes), ..Fault::of(FaultKind::Shrunk) };
        facts.faults.push(shrunk);
    }
    for (copy, found) in copies.copies.iter().enumerate() {
        let Err(error) = found else { continue };
        let offset = superblock_offset(copy, volume_bytes);
        facts.faults.push(Fault {
            copy: Some(copy),
            offset: Some(offset),
            differs: [offset].into(),
            repair: (offset + SLOT_BYTES <= device_bytes).then_some(Source::Superblock),
            ..Fault::of(FaultKind::Superblock(*error))
        });
    }
}

/// Notes the copies of the superblock that are older than the newest, unless updates that were cut off left them so.
///
/// An update writes two copies, and the others once these are durable. Nothing rests on it before all four are, so that older ones
/// are as good until then. A group in a use that one of them does not list was written behind that: where the newest is lost too,
/// that one would bring the volume back to what it was before the group.
pub(super) fn older_superblocks(
    facts: &mut VolumeFacts,
    copies: &Copies,
    groups: &Groups,
    device_bytes: u64,
) {
    let newest = &facts.superblock;
    let came_before = |copy: &&Superblock| facts.came_before(copy);
    let older = copies.copies.each_ref().map(|copy| copy.as_ref().ok().filter(came_before));
    let ages = older.map(|copy| copy.map_or(newest.sequence, |copy| copy.sequence));
    let holds_a_group = |use_: &&Use| {
        let all = (use_.segment, BlockIndex(0))..=(use_.segment, BlockIndex(u32::MAX));
        groups.range(all).any(|(_, group)| group.header.epoch == use_.epoch)
    };
    let begun: Vec<Epoch> = newest.log.iter().filter(holds_a_group).map(|it| it.epoch).collect();
    let lists = |copy: &Superblock, epoch| copy.log.iter().any(|use_| use_.epoch == epoch);
    let lists_all = |copy: &Superblock| begun.iter().all(|epoch| lists(copy, *epoch));
    if is_left_by_cuts(ages) && older.into_iter().flatten().all(lists_all) {
        return;
    }
    let volume_bytes = newest.geometry.volume_bytes();
    let stale = older.into_iter().enumerate().filter_map(|(copy, older)| Some((copy, older?)));
    let faults = stale.map(|(copy, older)| {
        let offset = superblock_offset(copy, volume_bytes);
        // What it alone tells of a loss is not written over: a mount notes that down first.
        let repairs = offset + SLOT_BYTES <= device_bytes && older.durable <= newest.durable;
        Fault {
            copy: Some(copy),
            offset: Some(offset),
            differs: [offset].into(),
            repair: repairs.then_some(Source::Superblock),
            ..Fault::of(FaultKind::OlderSuperblock)
        }
    });
    let faults: Vec<Fault> = faults.collect();
    facts.faults.extend(faults);
}

/// Tells whether updates leave the copies with these sequences, each of which may be cut off, however many.
///
/// An update counts one more than the newest copy, is in none or all of the other two copies before it is in any of the newer
/// two, and of those it writes first it may reach either alone. So the newest three follow each other closely, while the oldest
/// falls behind for as long as no update reaches it, each cut, and each then leaves the others further apart.
fn is_left_by_cuts(mut sequences: [u64; SUPERBLOCK_COPIES]) -> bool {
    sequences.sort_unstable();
    let [last, third, second, first] = sequences;
    let close = first - second <= 1 && second - third <= 1;
    close
        && match first - last {
            0..=2 => true,
            3 => first > second,
            _ => first > second && second > third,
        }
}

/// Notes that a mount refuses the volume though nothing is damaged.
pub(super) fn counters(facts: &mut VolumeFacts) {
    if counters_end(&facts.superblock, &facts.history) {
        facts.faults.push(Fault::of(FaultKind::Counters));
    }
}

/// Notes what the walk found to be lost, with the place where it should have been.
pub(super) fn lost(facts: &mut VolumeFacts, seen: &Seen, history: &History) {
    let geometry = facts.verifier.geometry;
    let mut accepted = history.accepted.iter().peekable();
    let mut at = seen.uses.first().map(|use_| (use_.segment, use_.start));
    for lost in &history.lost {
        while let Some(before) = accepted.next_if(|group| group.header.last < lost.first) {
            let end = before.header.block.0 + before.header.blocks(&geometry);
            at = Some((before.header.segment, BlockIndex(end)));
            if end >= geometry.segment_blocks() {
                let next = seen.uses.get(before.in_use + 1);
                at = next.map(|use_| (use_.segment, use_.start));
            }
        }
        let offset = at.map(|(segment, block)| facts.block_offset(Zone::A, segment, block));
        facts.faults.push(Fault {
            segment: at.map(|(segment, _)| segment),
            block: at.map(|(_, block)| block),
            offset,
            lsns: Some(Span { first: lost.first, last: lost.last }),
            ..Fault::of(FaultKind::Lost)
        });
    }
}

/// Notes the groups that count and of which one copy does not verify.
pub(super) async fn groups(disk: &Disk, facts: &mut VolumeFacts, groups: &Groups) {
    if facts.verifier.geometry.copies() < 2 {
        return;
    }
    let mut found: BTreeMap<(SegmentIndex, BlockIndex), Fault> = BTreeMap::new();
    for (place, group) in groups {
        let counts = match group.role {
            Role::Log | Role::Checkpoint => true,
            Role::Values => group.live_values > 0,
            Role::Torn => false,
        };
        let (good, bad) = match (group.whole_a, group.whole_b) {
            (true, false) => (Zone::A, Zone::B),
            (false, true) => (Zone::B, Zone::A),
            (true, true) | (false, false) => continue,
        };
        if counts {
            found.insert(*place, copy(disk, facts, group, good, bad).await);
        }
    }
    let geometry = facts.verifier.geometry;
    let mut cursor = facts.index.cursor(&[]);
    while let Some((key, entry)) = cursor.step() {
        let (segment, block) = (entry.place.segment, geometry.block_of(entry.place));
        let before = found.range_mut((segment, BlockIndex(0))..=(segment, block)).next_back();
        if let Some(((_, first), fault)) = before
            && block.0 - first.0 < fault.blocks
            && let Some(key) = facts.named(key)
        {
            fault.name(key);
        }
    }
    facts.faults.extend(found.into_values());
}

async fn copy(disk: &Disk, facts: &VolumeFacts, group: &GroupFact, good: Zone, bad: Zone) -> Fault {
    let header = group.header;
    let geometry = facts.verifier.geometry;
    let count = header.blocks(&geometry);
    let right = blocks(disk, &facts.verifier, good, header.segment, header.block, count).await;
    let differs = difference(disk, facts, &header, &right, bad).await;
    let offset = facts.block_offset(bad, header.segment, header.block);
    let bytes = u64::from(count) * geometry.block_bytes() as u64;
    let fits = offset + bytes <= disk.geometry().device_bytes;
    let repairs = fits && !tells_of_more(disk, facts, &header, &differs, bad).await;
    Fault {
        zone: Some(bad),
        segment: Some(header.segment),
        block: Some(header.block),
        blocks: count,
        offset: Some(differs.first().map_or(offset, |(offset, _)| *offset)),
        differs: differs.into_iter().map(|(offset, _)| offset).collect(),
        lsns: Some(Span { first: header.first, last: header.last }),
        repair: repairs.then_some(Source::Zone(good)),
        ..Fault::of(FaultKind::GroupCopy)
    }
}

/// Tells whether a block to be written holds a header that says of more than its successor does that it had been durable: once it is
/// written over, nothing might tell of a loss any more. A mount notes that down first.
async fn tells_of_more(
    disk: &Disk,
    facts: &VolumeFacts,
    header: &Header,
    differs: &[(u64, Buffer)],
    bad: Zone,
) -> bool {
    let geometry = facts.verifier.geometry;
    for block in (header.block.0..).take(header.blocks(&geometry) as usize).map(BlockIndex) {
        let at = facts.block_offset(bad, header.segment, block);
        let Some((_, right)) = differs.iter().find(|(offset, _)| *offset == at) else { continue };
        let durable = |bytes: &[u8]| {
            let header = facts.verifier.header(header.segment, block, bytes);
            header.map_or(Lsn::NONE, |header| header.durable)
        };
        let there = disk.read(at, right.len()).await;
        let known = facts.superblock.durable.max(durable(right));
        if there.is_ok_and(|there| durable(&there) > known) {
            return true;
        }
    }
    false
}

/// Yields the blocks of copy `bad` of a group that differ from the right ones: where they are, and the right bytes.
async fn difference(
    disk: &Disk,
    facts: &VolumeFacts,
    header: &Header,
    right: &[u8],
    bad: Zone,
) -> Vec<(u64, Buffer)> {
    let geometry = facts.verifier.geometry;
    let (segment, first) = (header.segment, header.block);
    let mut differs = Vec::new();
    for (block, bytes) in (first.0..).zip(right.chunks_exact(geometry.block_bytes())) {
        let offset = facts.block_offset(bad, segment, BlockIndex(block));
        let there = disk.read(offset, geometry.block_bytes()).await;
        // A block that cannot be read is written too: that is what makes a device remap it.
        if there.is_err() || there.is_ok_and(|there| *there != *bytes) {
            differs.push((offset, Buffer::copy_of(bytes)));
        }
    }
    differs
}

/// Notes the keys in doubt.
pub(super) fn doubt(facts: &mut VolumeFacts) {
    let mut fault = Fault::of(FaultKind::InDoubt);
    for (key, fact) in facts.keys_from(b"") {
        if fact.in_doubt() {
            fault.name(&key);
        }
    }
    if fault.keys_count > 0 {
        facts.faults.push(fault);
    }
    if facts.absent_in_doubt {
        facts.faults.push(Fault::of(FaultKind::AbsentInDoubt));
    }
}

impl VolumeFacts {
    /// Yields the writes that repair `fault`, read and verified anew; nothing if there are none any more.
    ///
    /// Each is a place in bytes from the start of the device and the bytes that belong there.
    pub async fn repair(&self, disk: &Disk, fault: &Fault) -> Vec<(u64, Buffer)> {
        match (fault.repair, fault.offset) {
            (Some(Source::Superblock), Some(offset)) => {
                let older = fault.kind == FaultKind::OlderSuperblock;
                match superblock_at(disk, offset, &mut Vec::new()).await {
                    // One that verifies by now may be newer than any that was read before.
                    Ok(copy) if !(older && self.came_before(&copy)) => Vec::new(),
                    _ => [(offset, Buffer::copy_of(&self.superblock.encode()))].into(),
                }
            }
            (Some(Source::Zone(good)), Some(_)) => self.repair_copy(disk, fault, good).await,
            _ => Vec::new(),
        }
    }

    /// Tells whether a copy of the superblock is an earlier one of this volume.
    fn came_before(&self, copy: &Superblock) -> bool {
        copy.volume == self.superblock.volume && copy.sequence < self.superblock.sequence
    }

    async fn repair_copy(&self, disk: &Disk, fault: &Fault, good: Zone) -> Vec<(u64, Buffer)> {
        let bad = match good {
            Zone::A => Zone::B,
            Zone::B => Zone::A,
        };
        let (Some(segment), Some(block)) = (fault.segment, fault.block) else {
            return Vec::new();
        };
        let found = crate::checkpoint::group_at(disk, &self.verifier, good, segment, block).await;
        match found {
            // What has just been verified is written: read again, a block that fails would come as zeros.
            Some((header, right)) if fault.lsns.is_some_and(|it| it.first == header.first) => {
                difference(disk, self, &header, &right, bad).await
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::update_order;
    use alloc::collections::BTreeSet;

    type Ages = [u64; SUPERBLOCK_COPIES];

    /// Yields what each cut of an update of copies with these sequences leaves.
    fn cuts(ages: Ages) -> Vec<Ages> {
        let next = ages.into_iter().max().unwrap() + 1;
        let order = update_order(&ages);
        let mut left = Vec::new();
        for (pair, set) in (0..2).flat_map(|pair| (0..4).map(move |set| (pair, set))) {
            let mut ages = ages;
            for (at, copy) in order.into_iter().enumerate() {
                if at / 2 < pair || (at / 2 == pair && set >> (at % 2) & 1 == 1) {
                    ages[copy] = next;
                }
            }
            left.push(ages);
        }
        left
    }

    /// Yields how far each copy is behind the newest, in order.
    fn behind(ages: Ages) -> Ages {
        let newest = ages.into_iter().max().unwrap();
        let mut behind = ages.map(|age| newest - age);
        behind.sort_unstable();
        behind
    }

    #[test]
    fn what_cuts_leave_of_the_superblock_is_no_fault_and_all_else_is() {
        let mut left = BTreeSet::from([[100; SUPERBLOCK_COPIES]]);
        for _ in 0..7 {
            let more: Vec<Ages> = left.iter().flat_map(|ages| cuts(*ages)).collect();
            left.extend(more);
        }
        assert!(left.iter().all(|ages| is_left_by_cuts(*ages)));
        let left: BTreeSet<Ages> = left.into_iter().map(behind).collect();
        for number in 0..6_u64.pow(3) {
            let ages = [6, number % 6, number / 6 % 6, number / 36];
            let ages = behind(ages);
            assert_eq!(
                is_left_by_cuts(ages.map(|age| 100 - age)),
                left.contains(&ages),
                "{ages:?}"
            );
        }
    }
}
