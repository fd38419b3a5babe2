//! Values: which are live and where, and the check of each in both copies.

use super::{Fault, FaultKind, Groups, VolumeFacts};
use crate::disk::Disk;
use crate::group::Verifier;
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

/// Reads every value in both copies and notes those that do not verify.
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
    let told = told(facts);
    let mut faults = Vec::new();
    for (key, entry) in entries {
        progress(count + u64::from(entry.place.segment.0).min(count), 2 * count);
        let found = read(disk, facts, &mut windows, &key, &entry).await;
        let bad: Vec<Zone> = [Zone::A, Zone::B]
            .into_iter()
            .zip(&found)
            .take(copies)
            .filter_map(|(zone, value)| value.is_none().then_some(zone))
            .collect();
        let kind = match bad.len() {
            0 => continue,
            count if count == copies => FaultKind::Value,
            // The copy of the whole group is told already.
            _ if is_told(&told, &facts.verifier, &entry) => continue,
            _ => FaultKind::ValueCopy,
        };
        let block = facts.verifier.geometry.block_of(entry.place);
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

/// Yields the groups of which one copy is known to be bad, by place, with their blocks.
fn told(facts: &VolumeFacts) -> BTreeMap<(SegmentIndex, BlockIndex), u32> {
    let copies = facts.faults.iter().filter(|fault| fault.kind == FaultKind::GroupCopy);
    copies.filter_map(|fault| Some(((fault.segment?, fault.block?), fault.blocks))).collect()
}

fn is_told(
    told: &BTreeMap<(SegmentIndex, BlockIndex), u32>,
    verifier: &Verifier,
    entry: &Entry,
) -> bool {
    let (segment, block) = (entry.place.segment, verifier.geometry.block_of(entry.place));
    let before = told.range((segment, BlockIndex(0))..=(segment, block)).next_back();
    before.is_some_and(|((_, first), count)| block.0 - first.0 < *count)
}
