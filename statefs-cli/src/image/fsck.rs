//! `statefs image fsck`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use blockdev::DeviceError;
use journal::inspect::{Fault, Inspection, VolumeFacts};
use serde_json::{Value as Json, json};

use super::facts::{Image, fault_json, fault_text, no_volume_failure, path_text, superblock_text};
use super::undo::{Undo, checksum};
use crate::args::{Format, FsckArgs};
use crate::confirm::confirm;
use crate::failure::{Exit, Failure, counted};
use crate::output::Output;

/// Checks the volume at the path that was named, and repairs it if it was asked to.
pub(crate) fn fsck(arguments: &FsckArgs, mut output: Output) -> Result<(), Failure> {
    output.work_on();
    // In this table the code of a failure is that of a repair, and that of usage asks for a restart.
    checked(arguments, output).map_err(|failure| match (failure.code, failure.exit) {
        ("OUTPUT", _) => cannot(failure),
        (_, Exit::Usage) => Failure { exit: Exit::FsckUsage, ..failure },
        ("NOT_CONFIRMED", _) => Failure { exit: Exit::FsckCancelled, ..failure },
        _ => failure,
    })
}

fn cannot(failure: Failure) -> Failure {
    Failure { exit: Exit::CANNOT_RUN, ..failure }
}

fn checked(arguments: &FsckArgs, mut output: Output) -> Result<(), Failure> {
    let path = &arguments.path;
    let mut image = Image::open(path, !arguments.repair).map_err(cannot)?;
    place_for_undo(arguments)?;
    let found = image.inspect();
    let Some(volume) = &found.volume else {
        return no_volume(path, &found, output);
    };
    for fault in &volume.faults {
        output.either(&fault_json(fault), &fault_text(fault))?;
    }
    // Who is asked has read what for.
    output.flush()?;
    let repairable = volume.faults.iter().filter(|fault| fault.repair.is_some()).count();
    if !arguments.repair || repairable == 0 {
        let repaired = Repaired::default();
        let ending = Ending { left: volume.faults.len(), repairable, repaired };
        return ending.tell(path, volume, output);
    }
    let question = format!("{}: mend {}, as said?", path_text(path), counted(repairable, "fault"));
    confirm(arguments.yes, &question)?;
    let repaired = repair(arguments, &mut image, volume).map_err(cannot)?;
    // What is said to be repaired is what a second look finds repaired.
    let after = image.inspect();
    let left = after.volume.as_ref().unwrap_or(volume).faults.len();
    let ending = Ending { left, repairable, repaired };
    let done = ending.repaired.told(None);
    let mut told = Ok(());
    for fault in after.volume.iter().flat_map(|volume| &volume.faults) {
        if fault.repair.is_some() {
            told = told.and_then(|()| output.either(&fault_json(fault), &fault_text(fault)));
        }
    }
    told.and_then(|()| ending.tell(path, volume, output))
        .map_err(|failure| failure.once_done(&done))
}

/// Demands the name of an undo file where none beside the image would stay: what is made in /dev is gone with the next
/// start of the machine.
fn place_for_undo(arguments: &FsckArgs) -> Result<(), Failure> {
    let FsckArgs { path, undo, repair, .. } = arguments;
    if !repair || undo.is_some() || fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let message = "it is no regular file, and an undo file beside it would not outlive a restart; name one: --undo FILE";
    Err(Failure::new("USAGE", Exit::Usage, message).about(path.display()))
}

/// What a repair did.
#[derive(Default)]
struct Repaired {
    /// Blocks that were written.
    blocks: usize,
    undo: Option<PathBuf>,
    /// What the device failed last of it: a write, which was passed over, or the flush behind all of them.
    failed: Option<DeviceError>,
}

impl Repaired {
    /// Says how much that was, what is `left`, and where the old bytes are.
    fn told(&self, left: Option<usize>) -> String {
        let left = left.map(|left| format!(", {} left", counted(left, "fault")));
        let undo = self.undo.as_ref();
        let kept = undo.map(|undo| format!("; the old bytes are in {}", undo.display()));
        let (left, kept) = (left.unwrap_or_default(), kept.unwrap_or_default());
        format!("repaired {}{left}{kept}", counted(self.blocks, "block"))
    }
}

/// Writes what the faults say, after an undo file. What the device fails by then ends nothing, and is told with what was done.
fn repair(
    arguments: &FsckArgs,
    image: &mut Image,
    volume: &VolumeFacts,
) -> Result<Repaired, Failure> {
    let disk = image.disk.clone();
    let repairs: Vec<&Fault> =
        volume.faults.iter().filter(|fault| fault.repair.is_some()).collect();
    let mut undo =
        Undo::create(&arguments.path, arguments.undo.as_deref(), volume.superblock.volume)?;
    let mut held = Held::default();
    for fault in &repairs {
        for (offset, bytes) in image.run(volume.repair(&disk, fault)) {
            let old = image.run(disk.read(offset, bytes.len())).ok();
            if let Some(old) = &old {
                undo.keep(offset, old)?;
            }
            held.note(offset, old.as_deref());
        }
    }
    let mut repaired = Repaired { undo: Some(undo.finish()?), ..Repaired::default() };
    for fault in &repairs {
        for (offset, bytes) in image.run(volume.repair(&disk, fault)) {
            let there = image.run(disk.read(offset, bytes.len())).ok();
            if !held.leads_back(offset, there.as_deref()) {
                continue;
            }
            match image.run(disk.write(offset, bytes)) {
                Ok(_) => repaired.blocks += 1,
                Err(error) => repaired.failed = Some(error),
            }
        }
    }
    if let Err(error) = image.run(disk.flush()) {
        repaired.failed = Some(error);
    }
    Ok(repaired)
}

/// What the undo file holds of each place: a checksum, or that it could not be read, as bytes that nobody has need no undoing.
///
/// What to write is worked out anew for the repair: to keep it would take as much memory as the damage. A read that comes out
/// otherwise by then must not have a block written that the undo file lacks, or has with other bytes.
#[derive(Default)]
struct Held(BTreeMap<u64, Option<u32>>);

impl Held {
    fn note(&mut self, offset: u64, old: Option<&[u8]>) {
        self.0.insert(offset, old.map(checksum));
    }

    /// Tells whether the undo file leads back to what is at a place, also if that is not read any more.
    fn leads_back(&self, offset: u64, there: Option<&[u8]>) -> bool {
        match (self.0.get(&offset), there) {
            (Some(held), Some(there)) => *held == Some(checksum(there)),
            (held, None) => held.is_some(),
            (None, _) => false,
        }
    }
}

/// How a check ended.
struct Ending {
    left: usize,
    repairable: usize,
    repaired: Repaired,
}

impl Ending {
    fn tell(self, path: &Path, volume: &VolumeFacts, mut output: Output) -> Result<(), Failure> {
        let Self { left, repairable, repaired } = self;
        let undo = repaired.undo.as_ref().map(|undo| undo.to_string_lossy());
        let is_clean = left == 0 && repaired.failed.is_none();
        let summary = json!({"summary": {
            "clean": is_clean,
            "faultsLeft": left,
            "keys": volume.keys,
            "path": path.to_string_lossy(),
            "repairable": repairable,
            "repairedBlocks": repaired.blocks,
            "tornGroups": volume.history.torn_groups,
            "undo": undo,
            "volume": volume.superblock.volume.to_string(),
        }});
        let clean = format!("{}: clean, {}", path_text(path), counted(volume.keys, "key"));
        match output.format {
            Format::Json => output.json(&summary)?,
            Format::Text if is_clean => output.line(&clean)?,
            Format::Text => {}
        }
        output.finish()?;
        let failure = match (left, repaired.blocks, &repaired.failed) {
            (_, _, Some(error)) => {
                let message = format!("{error}; {}", repaired.told(Some(left)));
                Failure::new("REPAIRED_IN_PART", Exit::CANNOT_RUN, message)
            }
            (0, 0, None) => return Ok(()),
            (0, _, None) => Failure::new("REPAIRED", Exit::REPAIRED, repaired.told(None)),
            (_, 0, None) if left == repairable => {
                let message = format!("{}, all of which a repair mends", counted(left, "fault"));
                Failure::new("REPAIRABLE", Exit::DAMAGE_LEFT, message)
            }
            (_, 0, None) => {
                let message =
                    format!("{}, of which a repair mends {repairable}", counted(left, "fault"));
                Failure::new("DAMAGE_LEFT", Exit::DAMAGE_LEFT, message)
            }
            (_, _, None) => {
                let message = repaired.told(Some(left));
                Failure::new("DAMAGE_LEFT", Exit::DAMAGE_LEFT, message)
            }
        };
        Err(failure.about(path.display()))
    }
}

/// No copy of the superblock can be used.
fn no_volume(path: &Path, found: &Inspection, mut output: Output) -> Result<(), Failure> {
    for (number, copy) in found.copies.iter().enumerate() {
        let (text, word): (String, Json) = match &copy.found {
            Ok(_) => ("states counters that no volume has".into(), json!("insane")),
            Err(error) => (superblock_text(*error), json!(format!("{error:?}"))),
        };
        let object = json!({"copy": number, "kind": "superblock", "loss": true,
            "offset": copy.offset, "repair": null, "why": word});
        let text = format!("superblock copy {number} {text}, byte {} of the file", copy.offset);
        output.either(&object, &text)?;
    }
    output.finish()?;
    Err(no_volume_failure(found).about(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_undo_file_does_not_hold_is_not_written_over() {
        let mut held = Held::default();
        held.note(0, Some(b"old"));
        held.note(512, None);
        let may = |offset, there: Option<&str>| held.leads_back(offset, there.map(str::as_bytes));
        assert!(may(0, Some("old")) && may(0, None) && may(512, None));
        // It was misread then, or is now.
        assert!(!may(0, Some("other")) && !may(512, Some("old")));
        assert!(!may(1024, Some("old")) && !may(1024, None));
    }

    #[test]
    fn what_is_no_file_takes_the_name_of_an_undo_file() {
        let demanded = |path: &str, repair, undo: Option<&str>| {
            let undo = undo.map(PathBuf::from);
            let arguments = FsckArgs { path: path.into(), repair, yes: true, undo };
            place_for_undo(&arguments).err().map(|failure| (failure.code, failure.exit))
        };
        // To a test that makes none, this is as good as a disk.
        assert_eq!(demanded("/dev/null", true, None), Some(("USAGE", Exit::Usage)));
        assert_eq!(demanded("/dev/null", true, Some("undo")), None);
        assert_eq!(demanded("/dev/null", false, None), None);
        assert_eq!(demanded("Cargo.toml", true, None), None);
    }
}
