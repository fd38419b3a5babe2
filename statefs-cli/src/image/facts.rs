//! How the tools open a volume, tell how far they are, and word what they found.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use blockdev::{BlockDevice, FileDevice, OpenOptions};
use journal::Zone;
use journal::inspect::{Fault, FaultKind, Inspection, Source, inspect, superblocks};
use journal::{Disk, SuperblockError};
use serde_json::{Value as Json, json};

use super::device_failure;
use super::drive::block_on;
use crate::base64;
use crate::failure::{Exit, Failure, printable};

/// Most places that one fault lists; it counts the others.
const PLACES_MAX: usize = 64;

/// An image that is held, and the queue of its device.
pub(crate) struct Image {
    pub(crate) device: FileDevice,
    pub(crate) disk: Disk,
}

impl Image {
    /// Opens what is at `path`; refuses while anybody else holds it, and where no block of its volume can be read alone.
    pub(crate) fn open(path: &Path, read_only: bool) -> Result<Self, Failure> {
        let options = OpenOptions { read_only, ..OpenOptions::default() };
        let mut image = Self::open_as(path, options)?;
        if image.fits().is_err() {
            // The page cache takes any part of a file. It is locked by whoever has it open.
            drop(image);
            image = Self::open_as(path, OpenOptions { buffered: true, ..options })?;
            image.fits().map_err(|failure| failure.about(path.display()))?;
        }
        Ok(image)
    }

    fn open_as(path: &Path, options: OpenOptions) -> Result<Self, Failure> {
        let device = FileDevice::open(path, options, || {});
        let device = device.map_err(|error| device_failure(path, &error))?;
        let disk = Disk::new(device.geometry());
        Ok(Self { device, disk })
    }

    /// Tells whether the device takes blocks of the volume: what it refuses for its length would pass for damage.
    fn fits(&mut self) -> Result<(), Failure> {
        let disk = self.disk.clone();
        let copies = self.run(superblocks(&disk));
        let newest = copies.into_iter().filter(|copy| copy.newest).find_map(|copy| copy.found.ok());
        let block_bytes = newest.map(|newest| newest.geometry.block_bytes());
        block_bytes.map_or(Ok(()), |block_bytes| covers(block_bytes, disk.geometry().sector_bytes))
    }

    /// Reads all that the volume uses.
    pub(crate) fn inspect(&mut self) -> Inspection {
        let mut progress = Progress::new();
        let disk = self.disk.clone();
        let inspecting = inspect(&disk, |done, all| progress.show(done, all));
        block_on(&mut self.device, &self.disk, inspecting)
    }

    /// Runs one of the journal's futures on this image.
    pub(crate) fn run<F: Future>(&mut self, future: F) -> F::Output {
        block_on(&mut self.device, &self.disk, future)
    }
}

/// Tells whether a block is one sector or more.
fn covers(block_bytes: usize, sector_bytes: u32) -> Result<(), Failure> {
    if block_bytes >= sector_bytes as usize {
        return Ok(());
    }
    let message = format!(
        "the volume has blocks of {block_bytes} bytes, and the device takes no less than {sector_bytes} at once"
    );
    let failure = Failure::new("GEOMETRY", Exit::Failure, message);
    Err(failure.advise("copy it into a file and name that"))
}

/// How far a tool is, shown on a terminal and nowhere else.
pub(crate) struct Progress {
    shown: Option<u64>,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shown: None, terminal: io::stderr().is_terminal() }
    }

    pub(crate) fn show(&mut self, done: u64, all: u64) {
        let percent = done.saturating_mul(100) / all.max(1);
        if self.terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            // Nobody misses it.
            write!(io::stderr(), "\rreading {percent:3} %").unwrap_or_default();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            write!(io::stderr(), "\r             \r").unwrap_or_default();
        }
    }
}

/// Words a key for JSON: as text, or as bytes where it is none.
pub(crate) fn key_json(key: &[u8]) -> Json {
    match std::str::from_utf8(key) {
        Ok(key) => json!(key),
        Err(_) => json!({"keyBytes": base64::encode(key)}),
    }
}

/// Words a key for people.
pub(crate) fn key_text(key: &[u8]) -> String {
    printable(&String::from_utf8_lossy(key))
}

/// Words a path for people: who made a file chose its name, too.
pub(crate) fn path_text(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Names the zone as messages do.
pub(crate) fn zone_name(zone: Zone) -> &'static str {
    match zone {
        Zone::A => "A",
        Zone::B => "B",
    }
}

/// The stable word of a kind of fault.
pub(crate) fn kind_word(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Superblock(_) => "superblock",
        FaultKind::OlderSuperblock => "olderSuperblock",
        FaultKind::Shrunk => "shrunk",
        FaultKind::Counters => "counters",
        FaultKind::GroupCopy => "groupCopy",
        FaultKind::ValueCopy => "valueCopy",
        FaultKind::Group => "group",
        FaultKind::Checkpoint => "checkpoint",
        FaultKind::Lost => "lost",
        FaultKind::Records => "records",
        FaultKind::Value => "value",
        FaultKind::InDoubt => "inDoubt",
        FaultKind::AbsentInDoubt => "absentInDoubt",
    }
}

/// Says why a copy of the superblock does not verify.
pub(crate) fn superblock_text(error: SuperblockError) -> String {
    match error {
        SuperblockError::Blank => "is blank".into(),
        SuperblockError::Magic => "holds something else".into(),
        SuperblockError::Version(version) => format!("has format version {version}"),
        SuperblockError::Damaged => "does not verify".into(),
        SuperblockError::Unreadable => "cannot be read".into(),
    }
}

/// One fault as an object.
pub(crate) fn fault_json(fault: &Fault) -> Json {
    let lsns = fault.lsns.map(|span| json!([span.first.0, span.last.0]));
    let copy = match (fault.copy, fault.zone) {
        (Some(copy), _) => json!(copy),
        (None, Some(zone)) => json!(zone_name(zone)),
        (None, None) => Json::Null,
    };
    json!({
        "block": fault.block.map(|block| block.0),
        "blocks": fault.blocks,
        "copy": copy,
        "differs": fault.differs.iter().take(PLACES_MAX).collect::<Vec<_>>(),
        "differCount": fault.differs.len(),
        "keyCount": fault.keys_count,
        "keys": fault.keys.iter().map(|key| key_json(key)).collect::<Vec<_>>(),
        "kind": kind_word(fault.kind),
        "loss": fault.kind.is_loss(),
        "lsns": lsns,
        "offset": fault.offset,
        "repair": fault.repair.map(source_text),
        "segment": fault.segment.map(|segment| segment.0),
    })
}

/// One fault in a few lines.
pub(crate) fn fault_text(fault: &Fault) -> String {
    let mut text = what(fault);
    if let (Some(segment), Some(block)) = (fault.segment, fault.block) {
        text.push_str(&format!(", segment {}, block {}", segment.0, block.0));
    }
    if let Some(offset) = fault.offset {
        text.push_str(&format!(", byte {offset} of the file"));
    }
    if let Some(span) = fault.lsns {
        text.push_str(&format!(", LSN {} to {}", span.first, span.last));
    }
    if !fault.keys.is_empty() {
        let keys: Vec<String> = fault.keys.iter().map(|key| key_text(key)).collect();
        text.push_str(&format!("\n  concerns {}", keys.join(", ")));
        let more = fault.keys_count - fault.keys.len() as u64;
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
    }
    text.push_str("\n  ");
    text.push_str(&remedy(fault));
    text
}

fn what(fault: &Fault) -> String {
    let zone = fault.zone.map(zone_name).unwrap_or_default();
    match fault.kind {
        FaultKind::Superblock(_) if fault.repair.is_none() => {
            let copy = fault.copy.unwrap_or_default();
            format!("superblock copy {copy} would lie behind the end of the device")
        }
        FaultKind::Superblock(error) => {
            let copy = fault.copy.unwrap_or_default();
            format!("superblock copy {copy} {}", superblock_text(error))
        }
        FaultKind::OlderSuperblock => {
            let copy = fault.copy.unwrap_or_default();
            format!("superblock copy {copy} is of an earlier generation")
        }
        FaultKind::Shrunk => "the device ends before the volume does".into(),
        FaultKind::Counters => "a counter is used up: the volume is not mounted any more".into(),
        FaultKind::GroupCopy => format!(
            "copy {zone} of a group does not verify: {} of {} blocks differ from the good copy",
            fault.differs.len(),
            fault.blocks
        ),
        FaultKind::ValueCopy => format!("copy {zone} of a value does not verify"),
        FaultKind::Group => "a group verifies in no copy, though its values do".into(),
        FaultKind::Checkpoint => "a part of the checkpoint verifies in no copy".into(),
        FaultKind::Lost => "a stretch of the log was durable and is gone".into(),
        FaultKind::Records => "a group verifies and its records make no sense".into(),
        FaultKind::Value => "a value verifies in no copy".into(),
        FaultKind::InDoubt => {
            "keys in doubt: later changes of them may be among what was lost".into()
        }
        FaultKind::AbsentInDoubt => "keys that are not shown may be among what was lost".into(),
    }
}

fn remedy(fault: &Fault) -> String {
    match (fault.repair, fault.kind) {
        (Some(source), _) => {
            let blocks = match fault.differs.len() {
                1 => "1 block".into(),
                count => format!("{count} blocks"),
            };
            format!("a repair writes {blocks} from {}", source_text(source))
        }
        (None, FaultKind::InDoubt) => {
            "nothing to repair: writing or deleting these keys settles it".into()
        }
        (None, FaultKind::Counters) => "nothing to repair: dump it and format anew".into(),
        (None, FaultKind::ValueCopy) => "nothing to repair with: put the value anew".into(),
        (None, FaultKind::Group) => {
            "nothing is lost, nor to repair it with: it ends when its values are put anew, or cleaning moves them".into()
        }
        (None, FaultKind::GroupCopy | FaultKind::OlderSuperblock) => {
            "not repaired here: it ends behind the device, or is the last to tell of what is lost, which a start of the daemon notes first"
                .into()
        }
        (None, _) => "nothing to repair it with".into(),
    }
}

fn source_text(source: Source) -> &'static str {
    match source {
        Source::Superblock => "the newest superblock",
        Source::Zone(Zone::A) => "copy A",
        Source::Zone(Zone::B) => "copy B",
    }
}

/// Says why there is nothing to look at, with the exit of `fsck`: damage, or no volume at all.
pub(crate) fn no_volume_failure(found: &Inspection) -> Failure {
    let is = |error: SuperblockError| {
        found.copies.iter().all(|copy| copy.found.as_ref().is_err_and(|found| *found == error))
    };
    let foreign =
        |error: &SuperblockError| matches!(error, SuperblockError::Blank | SuperblockError::Magic);
    let all_foreign = found.copies.iter().all(|copy| copy.found.as_ref().is_err_and(foreign));
    let version = found.copies.iter().find_map(|copy| match copy.found {
        Err(SuperblockError::Version(version)) => Some(version),
        _ => None,
    });
    if is(SuperblockError::Blank) {
        Failure::new("BLANK", Exit::CANNOT_RUN, "the device is blank: there is no volume")
    } else if let Some(version) = version {
        let message = format!("format version {version}; this program knows version 2");
        Failure::new("FORMAT_VERSION", Exit::CANNOT_RUN, message)
    } else if all_foreign {
        Failure::new("NO_VOLUME", Exit::CANNOT_RUN, "this is not a StateFS volume")
    } else {
        let message = "no copy of the superblock verifies; without one nothing can be checked";
        Failure { advice: "", ..Failure::new("DAMAGE_LEFT", Exit::DAMAGE_LEFT, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of larger sectors answers no read of a block: everything would be taken for lost.
    #[test]
    fn blocks_that_a_device_takes_only_together_are_refused() {
        for (block_bytes, sector_bytes) in [(512, 512), (4096, 512), (4096, 4096)] {
            assert!(covers(block_bytes, sector_bytes).is_ok(), "{block_bytes} {sector_bytes}");
        }
        for sector_bytes in [1024, 4096] {
            let refused = covers(512, sector_bytes).expect_err("a part of a sector");
            assert_eq!((refused.code, refused.exit), ("GEOMETRY", Exit::Failure));
        }
    }
}
