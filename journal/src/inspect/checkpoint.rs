//! Reading a checkpoint as far as it verifies: its groups stand alone.

use super::{Fault, FaultKind, GroupFact, Groups, Role, Span, VolumeFacts};
use crate::checkpoint::{Items, group_at};
use crate::disk::Disk;
use crate::replay::Replayed;
use crate::scan;
use crate::types::{BlockIndex, Lsn, Use, Zone};

/// Reads what of the checkpoint verifies; after a gap everything is in doubt.
pub(super) async fn load(disk: &Disk, facts: &mut VolumeFacts, groups: &mut Groups) -> Replayed {
    let base = facts.superblock.base;
    let mut items = Items::default();
    let mut next = base.next();
    let mut whole = true;
    for use_ in facts.superblock.checkpoint.clone() {
        if let Some(segment) = facts.segments.get_mut(use_.segment.0 as usize) {
            segment.checkpoint = true;
        }
        whole &= of_use(disk, facts, groups, &mut items, &use_, &mut next).await;
    }
    let mut snapshot = items.finish(base);
    let geometry = facts.verifier.geometry;
    let inside = |use_: &Use| {
        use_.segment.0 < geometry.segment_count() && use_.start.0 < geometry.segment_blocks()
    };
    snapshot.uses.retain(inside);
    for use_ in &snapshot.uses {
        if let Some(segment) = facts.segments.get_mut(use_.segment.0 as usize) {
            segment.values = true;
        }
    }
    facts.uses.extend(snapshot.uses);
    let mut state = Replayed::new((snapshot.index, snapshot.doubt));
    if !whole {
        state.forget();
    }
    state
}

/// Reads the groups of one use; tells whether all of them were there.
async fn of_use(
    disk: &Disk,
    facts: &mut VolumeFacts,
    groups: &mut Groups,
    items: &mut Items,
    use_: &Use,
    next: &mut Lsn,
) -> bool {
    let mut whole = true;
    let mut block = use_.start;
    let end = use_.end.unwrap_or(Lsn::NONE);
    for sighting in scan::sightings(disk, &facts.verifier, use_.segment, &[*use_]).await {
        let header = sighting.header;
        if !header.checkpoint || header.first < *next || header.last > end {
            continue;
        }
        let group = GroupFact {
            header,
            role: Role::Checkpoint,
            whole_a: sighting.whole_a,
            whole_b: sighting.whole_b,
            live_values: 0,
            live_bytes: 0,
        };
        groups.insert((header.segment, header.block), group);
        let good = if sighting.whole_a { Zone::A } else { Zone::B };
        let found = group_at(disk, &facts.verifier, good, header.segment, header.block).await;
        let payload = found.as_ref().filter(|(again, _)| *again == header);
        let payload = payload.and_then(|(_, bytes)| header.payload(bytes));
        if header.first > *next {
            facts.faults.push(gap(facts, use_, block, *next, header.first.before()));
            whole = false;
        }
        let geometry = &facts.verifier.geometry;
        if payload.and_then(|payload| items.read(payload, geometry)).is_none() {
            facts.faults.push(gap(facts, use_, header.block, header.first, header.last));
            whole = false;
        }
        block = BlockIndex(header.block.0 + header.blocks(&facts.verifier.geometry));
        *next = header.last.next();
    }
    if *next <= end || use_.end.is_none() {
        facts.faults.push(gap(facts, use_, block, *next, end));
        *next = end.next();
        whole = false;
    }
    whole
}

fn gap(facts: &VolumeFacts, use_: &Use, block: BlockIndex, first: Lsn, last: Lsn) -> Fault {
    let last_block = facts.verifier.geometry.segment_blocks() - 1;
    let block = BlockIndex(block.0.min(last_block));
    Fault {
        segment: Some(use_.segment),
        block: Some(block),
        offset: Some(facts.block_offset(Zone::A, use_.segment, block)),
        lsns: Some(Span { first, last }),
        ..Fault::of(FaultKind::Checkpoint)
    }
}
