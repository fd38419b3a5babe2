//! `statefs image inspect`.

mod html;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use journal::Zone;
use journal::inspect::{Inspection, Role, SegmentFact, VolumeFacts};
use serde_json::{Value as Json, json};

use super::facts::{Image, fault_json, fault_text, no_volume_failure, path_text, superblock_text};
use super::part;
use crate::args::{Format, InspectArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Cells of the bar that shows how much of a segment is live.
const BAR_CELLS: u64 = 20;

/// Shows what the volume at the path that was named looks like. Changes no byte of it.
pub(crate) fn inspect(arguments: &InspectArgs, mut output: Output) -> Result<(), Failure> {
    let path = &arguments.path;
    let found = Image::open(path, true)?.inspect();
    let Some(volume) = &found.volume else {
        let failure = no_volume_failure(&found);
        let exit = if failure.exit == Exit::DAMAGE_LEFT { Exit::DataLoss } else { Exit::Failure };
        return Err(Failure { exit, ..failure }.about(path.display()));
    };
    if let Some(page) = &arguments.html {
        write_page(page, &html::page(path, &found, volume))?;
    }
    match output.format {
        Format::Json => output.json(&object(path, &found, volume))?,
        Format::Text => output.bytes(text(path, &found, volume).as_bytes())?,
    }
    output.finish()?;
    if volume.has_loss() {
        let message = "something that had been acknowledged is lost, or may be";
        return Err(Failure::new("DATA_LOSS", Exit::DataLoss, message).about(path.display()));
    }
    Ok(())
}

/// Writes the page, in the place of an earlier one at most: it may have been named by mistake, and
/// what is there may be the image itself. A file has its name when it is whole.
fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new("OUTPUT", Exit::Failure, error).about(path.display());
    // What is not there holds nothing.
    let Ok(found) = fs::metadata(path) else {
        let part = part::begin(path)?;
        return part::filled(&part, |file| file.write_all(page.as_bytes()))
            .map_err(failed)
            .and_then(|()| part::end(&part, path).inspect_err(|_| part::give_up(&part)));
    };
    let stores = found.is_file() || found.file_type().is_block_device();
    if stores && !is_page(path) {
        let message = "something that is no such page is there, and is never replaced";
        return Err(Failure::new("EXISTS", Exit::Failure, message).about(path.display()));
    }
    if !found.is_file() {
        return fs::write(path, page).map_err(failed);
    }
    // What a link leads to is replaced, and not the link.
    let path = fs::canonicalize(path).map_err(failed)?;
    let part = part::beside(&path)?;
    part::filled(&part, |file| {
        file.set_permissions(found.permissions())?;
        file.write_all(page.as_bytes())
    })
    .and_then(|()| part::replace(&part, &path).inspect_err(|_| part::give_up(&part)))
    .map_err(failed)
}

/// Whether what is there begins as a page does, or is empty.
fn is_page(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(html::START.len() as u64).read_to_end(&mut head));
    read.is_ok() && (head.is_empty() || head == html::START.as_bytes())
}

/// The figures that every form shows.
struct Figures {
    segment_bytes: u64,
    live_bytes: u64,
    free_segments: usize,
    log_groups: usize,
    checkpoint_groups: usize,
}

impl Figures {
    fn of(volume: &VolumeFacts) -> Self {
        let count = |role| volume.groups.iter().filter(|group: &&_| group.role == role).count();
        Self {
            segment_bytes: volume.superblock.geometry.segment_bytes() as u64,
            live_bytes: volume.segments.iter().map(|segment| segment.live_bytes).sum(),
            free_segments: volume.segments.iter().filter(|segment| is_free(segment)).count(),
            log_groups: count(Role::Log),
            checkpoint_groups: count(Role::Checkpoint),
        }
    }
}

/// Nothing that counts lies in the segment.
fn is_free(segment: &SegmentFact) -> bool {
    !segment.log && !segment.checkpoint && segment.live_values == 0
}

fn holds(segment: &SegmentFact) -> String {
    let parts = [
        (segment.log, "log"),
        (segment.checkpoint, "checkpoint"),
        (segment.live_values > 0, "values"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
    if parts.is_empty() { "free".into() } else { parts.join(", ") }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Log => "log",
        Role::Checkpoint => "checkpoint",
        Role::Values => "values",
        Role::Torn => "torn",
    }
}

/// A number of bytes as people read it.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
        }
        None => format!("{bytes} bytes"),
    }
}

/// Each superblock copy in a few words.
fn copies(found: &Inspection) -> Vec<String> {
    let copy = |(number, copy): (usize, &journal::inspect::SuperblockCopy)| match &copy.found {
        Ok(superblock) => {
            let age = if copy.newest { "" } else { ", older" };
            format!("copy {number}: sequence {}{age}", superblock.sequence)
        }
        Err(error) => format!("copy {number} {}", superblock_text(*error)),
    };
    found.copies.iter().enumerate().map(copy).collect()
}

/// Facts in rows of a name and a text.
fn rows(found: &Inspection, volume: &VolumeFacts) -> Vec<(&'static str, String)> {
    let figures = Figures::of(volume);
    let superblock = &volume.superblock;
    let geometry = superblock.geometry;
    let copies_text = if geometry.copies() == 1 { "one copy" } else { "two copies" };
    let checkpoint = match figures.checkpoint_groups {
        0 => "none".into(),
        groups => format!("up to LSN {}, {groups} groups", superblock.base),
    };
    let history = &volume.history;
    let torn = match history.torn_groups {
        0 => String::new(),
        count => format!(", {count} torn groups behind it"),
    };
    vec![
        ("volume", superblock.volume.to_string()),
        (
            "size",
            format!(
                "{}, {copies_text}, blocks of {} bytes",
                size(geometry.volume_bytes()),
                geometry.block_bytes()
            ),
        ),
        ("superblock", copies(found).join("; ")),
        ("mounts", superblock.mount.to_string()),
        ("checkpoint", checkpoint),
        (
            "log",
            format!(
                "LSN {} to {}, {} groups{torn}",
                superblock.base.next(),
                history.next.before(),
                figures.log_groups
            ),
        ),
        ("keys", format!("{}, {} live", volume.keys, size(figures.live_bytes))),
        (
            "segments",
            format!(
                "{} of {}, {} free",
                geometry.segment_count(),
                size(figures.segment_bytes),
                figures.free_segments
            ),
        ),
        ("faults", volume.faults.len().to_string()),
    ]
}

fn text(path: &Path, found: &Inspection, volume: &VolumeFacts) -> String {
    let mut text = format!("{}\n", path_text(path));
    for (name, value) in rows(found, volume) {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    let segment_bytes = Figures::of(volume).segment_bytes;
    text.push_str("\nsegment  live                   values       bytes  holds\n");
    for (number, segment) in volume.segments.iter().enumerate() {
        if is_free(segment) {
            continue;
        }
        let cells = (segment.live_bytes * BAR_CELLS).div_ceil(segment_bytes.max(1));
        let cells = usize::try_from(cells.min(BAR_CELLS)).unwrap_or(0);
        let bar = "#".repeat(cells);
        text.push_str(&format!(
            "{number:>7}  {bar:.<20}  {:>7}  {:>10}  {}\n",
            segment.live_values,
            segment.live_bytes,
            holds(segment)
        ));
    }
    for fault in &volume.faults {
        text.push_str(&format!("\n{}\n", fault_text(fault)));
    }
    text
}

fn object(path: &Path, found: &Inspection, volume: &VolumeFacts) -> Json {
    let superblock = &volume.superblock;
    let geometry = superblock.geometry;
    let copy = |copy: &journal::inspect::SuperblockCopy| {
        json!({
            "error": copy.found.as_ref().err().map(|error| superblock_text(*error)),
            "newest": copy.newest,
            "offset": copy.offset,
            "sequence": copy.found.as_ref().ok().map(|found| found.sequence),
        })
    };
    let segment = |(number, segment): (usize, &SegmentFact)| {
        let SegmentFact { live_bytes, live_values, written_blocks, .. } = segment;
        (!is_free(segment)).then(|| {
            json!({
                "holds": holds(segment), "liveBytes": live_bytes, "liveValues": live_values,
                "segment": number, "writtenBlocks": written_blocks,
            })
        })
    };
    let group = |group: &journal::inspect::GroupFact| {
        let header = group.header;
        json!({
            "block": header.block.0, "blocks": header.blocks(&geometry),
            "liveBytes": group.live_bytes, "liveValues": group.live_values,
            "lsns": [header.first.0, header.last.0], "records": header.record_count,
            "role": role_word(group.role), "segment": header.segment.0,
            "wholeA": group.whole_a, "wholeB": (geometry.copies() == 2).then_some(group.whole_b),
        })
    };
    let figures = Figures::of(volume);
    json!({
        "base": superblock.base.0,
        "blockBytes": geometry.block_bytes(),
        "copies": geometry.copies(),
        "deviceBytes": found.device_bytes,
        "evidence": volume.evidence.0,
        "faults": volume.faults.iter().map(fault_json).collect::<Vec<_>>(),
        "freeSegments": figures.free_segments,
        "groups": volume.groups.iter().map(group).collect::<Vec<_>>(),
        "keys": volume.keys,
        "liveBytes": figures.live_bytes,
        "mount": superblock.mount,
        "next": volume.history.next.0,
        "path": path.to_string_lossy(),
        "segmentBytes": figures.segment_bytes,
        "segmentCount": geometry.segment_count(),
        "segments": volume.segments.iter().enumerate().filter_map(segment).collect::<Vec<_>>(),
        "superblocks": found.copies.iter().map(copy).collect::<Vec<_>>(),
        "tornGroups": volume.history.torn_groups,
        "volume": superblock.volume.to_string(),
        "volumeBytes": geometry.volume_bytes(),
        "zoneB": (geometry.copies() == 2).then(|| zone_b(volume)),
    })
}

/// Where zone B begins, in bytes of the file.
fn zone_b(volume: &VolumeFacts) -> u64 {
    let first = (journal::SegmentIndex(0), journal::BlockIndex(0));
    volume.superblock.geometry.block_offset(Zone::B, first.0, first.1)
}
