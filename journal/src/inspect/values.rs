//! Values: which are live and where, and the check of each in both copies.

use super::{Fault, FaultKind, Groups, VolumeFacts};
use crate::disk::Disk;
use crate::group::Header;
use crate::index::Entry;
use crate::record::Record;
use crate::ring::note_of;
use crate::scan::blocks;
use crate::types::{BlockIndex, SegmentIndex, Zone};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use blockdev::Buffer;

/// Bytes read at a time; the longest record and a block fit many times.
const WINDOW_BYTES: usize = 256 << 10;

/// Counts the live values of each group and segment.
pub(super) fn live(facts: &mut VolumeFacts, groups: &mut Groups) {
    let geometry = facts.verifier.geometry;
    let mut cursor = facts.index.cursor(&[]);
    while let Some((key, entry)) = cursor.step() {
        let bytes = entry.record_bytes(key) as u64;
        let (segment, block) = (entry.place.segment, geometry.block_of(entry.place));
        if let Some(fact) = facts.segments.get_mut(segment.0 as usize) {
            fact.live_values += 1;
            fact.live_bytes += bytes;
        }
        let before = groups.range_mut((segment, BlockIndex(0))..=(segment, block)).next_back();
        if let Some((_, group)) = before
            && block.0 < group.header.block.0 + group.header.blocks(&geometry)
        {
            group.live_values += 1;
            group.live_bytes += bytes;
        }
    }
    for group in groups.values() {
        if let Some(fact) = facts.segments.get_mut(group.header.segment.0 as usize) {
            let end = group.header.block.0 + group.header.blocks(&geometry);
            fact.written_blocks = fact.written_blocks.max(end);
        }
    }
}

/// Reads every value in both copies and notes those that do not verify, and where those that do have no group any more.
pub(super) async fn check(
    disk: &Disk,
    facts: &mut VolumeFacts,
    progress: &mut impl FnMut(u64, u64),
) {
    let counts = |key: &[u8]| facts.named(key).is_some() || note_of(key).is_some();
    let named = facts.index.iter_from(b"").filter(|(key, _)| counts(key));
    let mut entries: Vec<(Rc<[u8]>, Entry)> = named.collect();
    entries.sort_by_key(|(_, entry)| entry.place);
    let copies = usize::from(facts.verifier.geometry.copies());
    let count = u64::from(facts.verifier.geometry.segment_count());
    let mut windows = Windows::default();
    let (told, whole) = (told(facts), whole(facts));
    let (mut faults, mut holes) = (Vec::new(), BTreeMap::new());
    for (key, entry) in entries {
        progress(count + u64::from(entry.place.segment.0).min(count), 2 * count);
        let found = read(disk, facts, &mut windows, &key, &entry).await;
        let bad: Vec<Zone> = [Zone::A, Zone::B]
            .into_iter()
            .zip(&found)
            .take(copies)
            .filter_map(|(zone, value)| value.is_none().then_some(zone))
            .collect();
        let block = facts.verifier.geometry.block_of(entry.place);
        let kind = match bad.len() {
            0 => {
                outside(facts, &whole, &key, &entry, &mut holes);
                continue;
            }
            count if count == copies => FaultKind::Value,
            // The copy of the whole group is told already.
            _ if is_within(&told, entry.place.segment, block) => continue,
            _ => FaultKind::ValueCopy,
        };
        let zone = bad.first().copied().filter(|_| kind == FaultKind::ValueCopy);
        let place_zone = zone.unwrap_or(Zone::A);
        faults.push(Fault {
            zone,
            segment: Some(entry.place.segment),
            block: Some(block),
            offset: facts
                .is_possible(&key, &entry)
                .then(|| facts.block_offset(place_zone, entry.place.segment, block)),
            keys: facts.named(&key).map(Rc::from).into_iter().collect(),
            keys_count: facts.named(&key).map_or(0, |_| 1),
            ..Fault::of(kind)
        });
    }
    facts.faults.extend(faults);
    facts.faults.extend(holes.into_values());
}

/// Notes a value that lies in no whole group, once for all of them between one whole group and the next.
fn outside(
    facts: &VolumeFacts,
    whole: &Stretches,
    key: &[u8],
    entry: &Entry,
    holes: &mut BTreeMap<(SegmentIndex, BlockIndex), Fault>,
) {
    let geometry = facts.verifier.geometry;
    let (segment, block) = (entry.place.segment, geometry.block_of(entry.place));
    if is_within(whole, segment, block) {
        return;
    }
    // The group begins where the one before it ends, or its use does.
    let before = end_before(whole, segment, block).unwrap_or(BlockIndex(0));
    let first = facts.use_of(segment, block).map_or(before, |use_| use_.start.max(before));
    let fault = holes.entry((segment, first)).or_insert_with(|| Fault {
        segment: Some(segment),
        block: Some(first),
        offset: Some(facts.block_offset(Zone::A, segment, first)),
        ..Fault::of(FaultKind::Group)
    });
    let skip = entry.place.offset as usize % geometry.block_bytes();
    let end = block.0 + geometry.blocks(skip + entry.record_bytes(key));
    fault.blocks = fault.blocks.max(end - first.0);
    if let Some(key) = facts.named(key) {
        fault.name(key);
    }
}

/// What was read last of each copy.
#[derive(Default)]
pub(super) struct Windows {
    windows: [Option<(SegmentIndex, BlockIndex, Buffer)>; 2],
}

/// Reads one value from each copy; `None` where that copy does not hold it.
pub(super) async fn read(
    disk: &Disk,
    facts: &VolumeFacts,
    windows: &mut Windows,
    key: &[u8],
    entry: &Entry,
) -> [Option<Vec<u8>>; 2] {
    let geometry = facts.verifier.geometry;
    let mut values = [None, None];
    if !facts.is_possible(key, entry) {
        return values;
    }
    let first = geometry.block_of(entry.place);
    let segment = entry.place.segment;
    let Some(epoch) = facts.use_of(segment, first).map(|use_| use_.epoch) else {
        return values;
    };
    let skip = entry.place.offset as usize % geometry.block_bytes();
    let bytes = entry.record_bytes(key);
    for ((zone, window), value) in geometry.zones().zip(&mut windows.windows).zip(&mut values) {
        let held = window.as_ref().filter(|(of, from, buffer)| {
            let end = from.0 + geometry.blocks(buffer.len());
            *of == segment && *from <= first && first.0 + geometry.blocks(skip + bytes) <= end
        });
        if held.is_none() {
            let most = geometry.blocks(WINDOW_BYTES.max(skip + bytes));
            let count = most.min(geometry.segment_blocks() - first.0);
            let buffer = blocks(disk, &facts.verifier, zone, segment, first, count).await;
            *window = Some((segment, first, buffer));
        }
        let Some((_, from, buffer)) = window.as_ref() else { continue };
        let at = (first.0 - from.0) as usize * geometry.block_bytes() + skip;
        let record = Record::decode(epoch, entry.place, buffer.get(at..).unwrap_or_default());
        *value = record
            .ok()
            .filter(|record| record.key == key && record.birth == entry.birth)
            .filter(|record| record.manifest == entry.upload.is_some())
            .map(|record| record.value.to_vec());
    }
    values
}

/// Groups by place, with the blocks that each takes.
type Stretches = BTreeMap<(SegmentIndex, BlockIndex), u32>;

/// Yields the groups of which one copy is known to be bad.
fn told(facts: &VolumeFacts) -> Stretches {
    let copies = facts.faults.iter().filter(|fault| fault.kind == FaultKind::GroupCopy);
    copies.filter_map(|fault| Some(((fault.segment?, fault.block?), fault.blocks))).collect()
}

/// Yields the groups of which a copy verifies.
fn whole(facts: &VolumeFacts) -> Stretches {
    let whole = facts.groups.iter().filter(|group| group.whole_a || group.whole_b);
    let place = |header: &Header| (header.segment, header.block);
    let blocks = |header: &Header| header.blocks(&facts.verifier.geometry);
    whole.map(|group| (place(&group.header), blocks(&group.header))).collect()
}

/// Yields where the last of them that begins at or before a block ends.
fn end_before(of: &Stretches, segment: SegmentIndex, block: BlockIndex) -> Option<BlockIndex> {
    let before = of.range((segment, BlockIndex(0))..=(segment, block)).next_back();
    before.map(|((_, first), count)| BlockIndex(first.0 + count))
}

fn is_within(of: &Stretches, segment: SegmentIndex, block: BlockIndex) -> bool {
    end_before(of, segment, block).is_some_and(|end| block < end)
}
