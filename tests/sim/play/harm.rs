//! What goes bad on the medium of a played history, beside a crash or while the volume runs.

use super::super::plan::{Harm, HarmKind};
use super::{BLOCK_BYTES, Player};
use blockdev::{Cure, Damage};
use journal::{BlockIndex, SLOT_BYTES, SUPERBLOCK_COPIES, SegmentIndex, VolumeGeometry, Zone};
use std::ops::Range;

/// Something went bad.
pub(super) struct Harmed {
    /// A check that is under way may have passed it.
    pub(super) may_be_missed: bool,
    /// It is in a copy of the superblock: it counts as there until a mount writes all of those again, though a check may.
    pub(super) of_superblock: bool,
}

impl Player {
    /// Lets something go bad in one copy, unless something is; of a `running` volume nothing that a write on its way touches.
    pub(super) fn harm(&mut self, harm: Harm, running: bool) {
        if self.harmed.is_some() {
            return;
        }
        let Some(place) = self.place(harm, running) else { return };
        let copy = self.copy_of(place);
        let of_superblock = copy.end - copy.start == SLOT_BYTES;
        self.harmed = Some(Harmed { may_be_missed: true, of_superblock });
        self.counts.blocks_damaged += 1;
        self.counts.blocks_damaged_running += u64::from(running);
        let bytes = BLOCK_BYTES as usize;
        let damage = match harm.kind {
            HarmKind::Bit(bit) => Damage::BitFlip { bit: bit.into() },
            HarmKind::Zeros => Damage::Zero,
            HarmKind::Garbage => Damage::Random,
            HarmKind::CopyOf(from) => Damage::CopyFrom { offset: self.block(from) },
            HarmKind::Unreadable => {
                self.counts.blocks_unreadable += 1;
                self.device.make_unreadable(place, bytes, Cure::Write);
                return;
            }
            HarmKind::Stale => Damage::Earlier,
            HarmKind::LostWrites(count) => {
                for place in (place..copy.end).step_by(bytes).take(count.into()) {
                    if self.device.is_settled(place, bytes) {
                        self.device.corrupt(place, bytes, Damage::Earlier);
                    }
                }
                Damage::Earlier
            }
            HarmKind::Astray(to) => {
                let blocks = (copy.end - copy.start) / u64::from(BLOCK_BYTES);
                let to = copy.start + u64::from(to) % blocks * u64::from(BLOCK_BYTES);
                if self.device.is_settled(to, bytes) {
                    self.device.corrupt(to, bytes, Damage::CopyFrom { offset: place });
                }
                Damage::Earlier
            }
        };
        self.counts.blocks_gone_back += u64::from(damage == Damage::Earlier);
        self.device.corrupt(place, bytes, damage);
    }

    fn block(&self, block: u16) -> u64 {
        let blocks = u64::from(self.shape.device_kib) * 1024 / u64::from(BLOCK_BYTES);
        u64::from(block) % blocks * u64::from(BLOCK_BYTES)
    }

    /// Yields the place of a harm, if there is one now.
    fn place(&self, harm: Harm, running: bool) -> Option<u64> {
        if harm.kind.goes_back() {
            let changed = self.device.changed();
            return changed.get(usize::from(harm.block) % changed.len().max(1)).copied();
        }
        let place = self.block(harm.block);
        // What a dead process left in the cache may cover the damage.
        (!running || self.device.is_settled(place, BLOCK_BYTES as usize)).then_some(place)
    }

    /// Yields the bytes of the copy that a place is in: of the superblock, or of all groups.
    fn copy_of(&self, place: u64) -> Range<u64> {
        let device_bytes = u64::from(self.shape.device_kib) << 10;
        let geometry = VolumeGeometry::choose(device_bytes, BLOCK_BYTES, BLOCK_BYTES, 2);
        let geometry = geometry.expect("it was formatted");
        let start = |zone| geometry.block_offset(zone, SegmentIndex(0), BlockIndex(0));
        let last = device_bytes - SUPERBLOCK_COPIES as u64 / 2 * SLOT_BYTES;
        let starts =
            [0, SLOT_BYTES, start(Zone::A), start(Zone::B), last, last + SLOT_BYTES, device_bytes];
        let copies = starts.windows(2).map(|pair| pair[0]..pair[1]);
        copies.into_iter().find(|copy| copy.contains(&place)).expect("it is on the device")
    }
}
