//! `statefs image undo`.

mod file;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use blockdev::Buffer;
use journal::inspect::{Inspection, SuperblockCopy, superblocks};
use journal::{BlockIndex, SLOT_BYTES, SegmentIndex, Superblock};
use serde_json::json;

use file::{Kept, Reader};
pub(super) use file::{Undo, checksum};

use super::facts::{Image, no_volume_failure, path_text};
use crate::args::UndoArgs;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure, counted};
use crate::output::Output;

/// The least that a device writes whole: a block that was cut off while it was written is old and new by such parts.
const PART_BYTES: usize = 512;

/// Puts back what a repair wrote over.
pub(crate) fn undo(arguments: &UndoArgs, mut output: Output) -> Result<(), Failure> {
    let UndoArgs { path, undo, force, yes } = arguments;
    output.work_on();
    let mut image = Image::open(path, false)?;
    let (mut file, volume) = Reader::open(undo)?;
    let repaired = Repaired::find(path, &mut image)?;
    if repaired.newest.volume != volume {
        let message =
            format!("it is of volume {volume}, and this is volume {}", repaired.newest.volume);
        return Err(Failure::new("OTHER_VOLUME", Exit::Failure, message).about(undo.display()));
    }
    let plan = Plan::make(&mut image, &mut file, &repaired)?;
    let blocks = counted(plan.blocks.len(), "block");
    let differ = plan.blocks.iter().filter(|(_, differs)| *differs).count();
    let object = json!({"plan": {
        "blocks": plan.blocks.len(),
        "bytes": plan.bytes,
        "differ": differ,
        "path": path.to_string_lossy(),
        "strange": plan.strange.len(),
        "undo": undo.to_string_lossy(),
        "volume": volume.to_string(),
    }});
    let text = format!(
        "{}: {blocks}, {} bytes; {differ} of them differ from what {} holds",
        path_text(undo),
        plan.bytes,
        path_text(path)
    );
    output.either(&object, &text)?;
    // Who is asked has read what for.
    output.flush()?;
    if let Some(offset) = plan.strange.first().filter(|_| !force) {
        let message = format!(
            "{} of the volume hold neither what the repair wrote nor what was there before, the first at byte {offset}",
            counted(plan.strange.len(), "block")
        );
        return Err(Failure::new("CHANGED_SINCE", Exit::Failure, message).about(path.display()));
    }
    if differ > 0 {
        let question = format!("{}: put {} back?", path_text(path), counted(differ, "block"));
        confirm(*yes, &question)?;
        plan.apply(path, &mut image, &mut file)?;
    } else {
        // A run that was cut short may have written it all, and not have made it durable.
        plan.flush(path, &mut image, 0)?;
    }
    let done = match differ {
        0 => "nothing is left to put back".into(),
        1 => "1 block was put back".into(),
        _ => format!("{differ} blocks were put back"),
    };
    let object = json!({"summary": {"path": path.to_string_lossy(), "putBack": differ}});
    let told = output.either(&object, &format!("{}: {done}", path_text(path)));
    told.and_then(|()| output.finish()).map_err(|failure| failure.once_done(&done))
}

/// What a repair can have written on a volume.
struct Repaired {
    copies: Vec<SuperblockCopy>,
    newest: Superblock,
    device_bytes: u64,
    sector_bytes: u64,
}

/// What lies at a place that a repair writes.
enum Place {
    Superblock,
    /// A block of one copy, whose other copy begins at this byte of the device.
    Block {
        other: u64,
    },
}

impl Repaired {
    fn find(path: &Path, image: &mut Image) -> Result<Self, Failure> {
        let (disk, geometry) = (image.disk.clone(), image.disk.geometry());
        let copies = image.run(superblocks(&disk));
        let newest = copies.iter().find(|copy| copy.newest);
        let newest = newest.and_then(|copy| copy.found.as_ref().ok()).cloned();
        let device_bytes = geometry.device_bytes;
        let Some(newest) = newest else {
            let failure = no_volume_failure(&Inspection { device_bytes, copies, volume: None });
            let exit =
                if failure.exit == Exit::DAMAGE_LEFT { Exit::DataLoss } else { Exit::Failure };
            return Err(Failure { exit, ..failure }.about(path.display()));
        };
        Ok(Self { copies, newest, device_bytes, sector_bytes: geometry.sector_bytes.into() })
    }

    /// Yields what lies at a place; nothing if a repair writes no such place, or the device lacks it.
    fn place(&self, kept: &Kept) -> Option<Place> {
        let Kept { offset, length, .. } = *kept;
        let geometry = &self.newest.geometry;
        let end = offset.checked_add(length.into())?;
        let sector = self.sector_bytes;
        if end > self.device_bytes || !offset.is_multiple_of(sector) || !end.is_multiple_of(sector)
        {
            return None;
        }
        if self.copies.iter().any(|copy| copy.offset == offset) {
            return (u64::from(length) == SLOT_BYTES).then_some(Place::Superblock);
        }
        let block_bytes = geometry.block_bytes();
        let zone_bytes = u64::from(geometry.segment_count()) * geometry.segment_bytes() as u64;
        let start = |zone| geometry.block_offset(zone, SegmentIndex(0), BlockIndex(0));
        let starts: Vec<u64> = geometry.zones().map(start).collect();
        let [a, b] = starts[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(start, other)| {
            let within = offset.checked_sub(start).filter(|within| *within < zone_bytes)?;
            let is_block =
                length as usize == block_bytes && within.is_multiple_of(block_bytes as u64);
            is_block.then_some(Place::Block { other: other + within })
        })
    }

    /// Yields what the repair wrote at a place, as far as it can be told: the good copy.
    fn written(&self, image: &mut Image, place: &Place, length: usize) -> Option<Buffer> {
        match place {
            Place::Superblock => Some(Buffer::copy_of(&self.newest.encode())),
            Place::Block { other } => {
                let reading = image.disk.read(*other, length);
                image.run(reading).ok()
            }
        }
    }
}

/// What is to be written, made of a file that was read to its end.
struct Plan {
    /// The blocks of the file in their order, and whether the device holds something else.
    blocks: Vec<(Kept, bool)>,
    bytes: u64,
    /// Places that hold neither what the repair wrote nor what was there before.
    strange: Vec<u64>,
}

impl Plan {
    /// Reads all of the file, and holds it against the volume. Memory: a few bytes for each block that the file has.
    fn make(image: &mut Image, file: &mut Reader, repaired: &Repaired) -> Result<Self, Failure> {
        let mut plan = Self { blocks: Vec::new(), bytes: 0, strange: Vec::new() };
        let (mut old, mut slots) = (Vec::new(), BTreeSet::new());
        while let Some(kept) = file.next(&mut old)? {
            let Some(place) = repaired.place(&kept) else {
                let Kept { offset, length, .. } = kept;
                let why =
                    format!("no repair of this volume writes {length} bytes at byte {offset}");
                return Err(file.refused(&why));
            };
            if matches!(place, Place::Superblock) {
                slots.insert(kept.offset);
            }
            let reading = image.disk.read(kept.offset, old.len());
            let there = image.run(reading);
            let differs = there.as_ref().map_or(true, |there| **there != *old);
            // What cannot be read tells nothing, and is lost to nobody.
            if let Ok(there) = there
                && differs
                && !is_of(&there, &old, repaired.written(image, &place, old.len()).as_deref())
            {
                plan.strange.push(kept.offset);
            }
            plan.blocks.push((kept, differs));
            plan.bytes += u64::from(kept.length);
        }
        let stays = |copy: &SuperblockCopy| copy.found.is_ok() && !slots.contains(&copy.offset);
        if !repaired.copies.iter().any(stays) {
            return Err(file.refused("it would leave no copy of the superblock that verifies"));
        }
        Ok(plan)
    }

    /// Writes the blocks that differ. Durability: when this returns, what was put back survives a power cut.
    fn apply(&self, path: &Path, image: &mut Image, file: &mut Reader) -> Result<(), Failure> {
        let (mut old, mut put_back) = (Vec::new(), 0);
        let failed = |why: &dyn fmt::Display, put_back| self.failed(path, why, put_back);
        file.rewind()?;
        for (kept, differs) in &self.blocks {
            // Only what was looked at is written.
            let next = file.next(&mut old).map_err(|error| failed(&error.message, put_back))?;
            if next != Some(*kept) {
                return Err(failed(&"the undo file was changed meanwhile", put_back));
            }
            if *differs {
                let writing = image.disk.write(kept.offset, Buffer::copy_of(&old));
                image.run(writing).map_err(|error| failed(&error, put_back))?;
                put_back += 1;
            }
        }
        self.flush(path, image, put_back)
    }

    fn flush(&self, path: &Path, image: &mut Image, put_back: usize) -> Result<(), Failure> {
        let flushing = image.disk.flush();
        image.run(flushing).map(drop).map_err(|error| self.failed(path, &error, put_back))
    }

    fn failed(&self, path: &Path, why: &dyn fmt::Display, put_back: usize) -> Failure {
        let done = counted(put_back, "block");
        let message = format!("{why}; {done} of {} had been written", self.blocks.len());
        Failure::new("UNDONE_IN_PART", Exit::Failure, message).about(path.display())
    }
}

/// Tells whether each part of what is there is the old one or the one that the repair wrote.
fn is_of(there: &[u8], old: &[u8], written: Option<&[u8]>) -> bool {
    (0..there.len()).step_by(PART_BYTES).all(|at| {
        let part = at..at + PART_BYTES;
        let now = there.get(part.clone());
        now == old.get(part.clone()) || written.is_some_and(|written| now == written.get(part))
    })
}
