//! `statefs image salvage`.

use std::collections::BTreeMap;

use journal::inspect::{Gives, RecordFact, VolumeFacts};
use journal::{FormatOptions, SegmentIndex};
use serde_json::json;

use super::facts::{Image, fault_json, fault_text, key_json, key_text, no_volume_failure};
use super::fill::Fill;
use crate::args::SalvageArgs;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Least bytes of the new image: there the longest values fit.
const SIZE_MIN: u64 = 16 << 20;
/// Most manifests that are kept of a key: one that was put for years leaves one for each time, and the newest that is whole is
/// most likely one of the last.
const MANIFESTS_MAX: usize = 64;

/// Saves all that verifies of one image into a new one, and reports on the rest.
pub(crate) fn salvage(arguments: &SalvageArgs, mut output: Output) -> Result<(), Failure> {
    let SalvageArgs { path, out } = arguments;
    output.work_on();
    let mut image = Image::open(path, true)?;
    let mut found = image.inspect();
    let Some(volume) = &mut found.volume else {
        let failure = no_volume_failure(&found);
        let exit = if failure.exit == Exit::DAMAGE_LEFT { Exit::DataLoss } else { Exit::Failure };
        return Err(Failure { exit, ..failure }.about(path.display()));
    };
    let geometry = volume.superblock.geometry;
    // Whatever the old blocks were, the new file's device may write no smaller ones.
    let options = FormatOptions { copies: geometry.copies(), ..FormatOptions::default() };
    // Of what the volume claims to be, no more than the device can hold of each copy is there to be saved.
    let there = found.device_bytes.saturating_mul(u64::from(geometry.copies()));
    let room = geometry.volume_bytes().min(there);
    let size = (room.saturating_add(room / 4) / 4096 * 4096).max(SIZE_MIN);
    let mut fill = Fill::create(out, size, options)?;
    for fault in &volume.faults {
        output.either(&fault_json(fault), &fault_text(fault))?;
    }
    let carved = if volume.has_loss() { carve(&mut image, volume) } else { BTreeMap::new() };
    let mut tally = Tally::default();
    save(&mut image, volume, &carved, &mut fill, &mut tally, &mut output)?;
    fill.finish()?;
    let Tally { saved, in_doubt, lost } = tally;
    let lossless = !volume.has_loss() && lost == 0;
    let summary = json!({"summary": {"inDoubt": in_doubt, "keys": saved, "lossless": lossless,
        "lost": lost, "out": out.to_string_lossy()}});
    let text = format!("{saved} keys saved, {in_doubt} of them in doubt, {lost} lost");
    let told = output.either(&summary, &text).and_then(|()| output.finish());
    told.map_err(|failure| failure.once_done("the image was made"))?;
    if lossless {
        return Ok(());
    }
    let message = format!("{text}; what was lost beyond that has no name any more");
    Err(Failure { advice: "", ..Failure::new("DATA_LOSS", Exit::DataLoss, message) }
        .about(path.display()))
}

/// The records of each key that verify anywhere, the newest first: manifests, of whose chunks some may be gone, and behind them
/// the newest value or delete that stands by itself.
type Carved = BTreeMap<Vec<u8>, Vec<RecordFact>>;

/// Looks through the whole volume for the records of each key.
fn carve(image: &mut Image, volume: &mut VolumeFacts) -> Carved {
    let mut carved = Carved::new();
    let disk = image.disk.clone();
    for segment in (0..volume.segment_count()).map(SegmentIndex) {
        let carving = volume.carve(&disk, segment, |key, record| match carved.get_mut(key) {
            Some(records) => keep(records, record),
            None => drop(carved.insert(key.to_vec(), vec![record])),
        });
        image.run(carving);
    }
    carved
}

/// Takes a record among those of its key, and drops what is not asked for behind it.
fn keep(records: &mut Vec<RecordFact>, record: RecordFact) {
    let stands_alone = |record: &RecordFact| record.gives != Gives::Manifest;
    let at = records.partition_point(|other| other.birth > record.birth);
    let (newer, others) = records.split_at(at);
    let known = others.first().is_some_and(|other| other.birth == record.birth);
    if known || newer.last().is_some_and(stands_alone) {
        return;
    }
    if stands_alone(&record) {
        records.truncate(at);
    }
    records.insert(at, record);
    let manifests = records.len() - usize::from(records.last().is_some_and(stands_alone));
    if manifests > MANIFESTS_MAX {
        records.remove(MANIFESTS_MAX);
    }
}

#[derive(Default)]
struct Tally {
    saved: u64,
    in_doubt: u64,
    lost: u64,
}

fn save(
    image: &mut Image,
    volume: &VolumeFacts,
    carved: &Carved,
    fill: &mut Fill,
    tally: &mut Tally,
    output: &mut Output,
) -> Result<(), Failure> {
    for (key, fact) in volume.keys_from(b"") {
        let known = volume.record(&key, &fact);
        if !fact.in_doubt()
            && let Some(known) = &known
            && put(&key, known, volume, image, fill)?
        {
            tally.saved += 1;
            continue;
        }
        // The index is not to be trusted here, or its value is gone: the newest that is whole counts.
        let mut records = carved.get(&*key).cloned().unwrap_or_default();
        if let Some(known) = known.filter(|_| fact.in_doubt()) {
            let at = records.partition_point(|other| other.birth > known.birth);
            records.insert(at, known);
        }
        let end = settle(&key, &records, volume, image, fill)?;
        tell_end(&key, end, tally, output)?;
    }
    if !volume.absent_in_doubt {
        return Ok(());
    }
    for (key, records) in carved {
        let deleted = records.first().is_some_and(|newest| newest.gives == Gives::Nothing);
        // Its delete may be written over by now, and older values of it not.
        if volume.birth(key).is_none() && !volume.is_deleted(key) && !deleted {
            let end = settle(key, records, volume, image, fill)?;
            tell_end(key, end, tally, output)?;
        }
    }
    Ok(())
}

/// What became of a key that was in doubt, or whose value the index does not lead to.
enum End {
    /// Some value of it is in the new image.
    Kept,
    /// The newest that verifies of it is a delete.
    Deleted,
    /// Nothing of it is whole.
    Lost,
}

/// Puts the newest of `records`, which are the newest first, that is whole. What is behind a delete was taken away.
fn settle(
    key: &[u8],
    records: &[RecordFact],
    volume: &VolumeFacts,
    image: &mut Image,
    fill: &mut Fill,
) -> Result<End, Failure> {
    if records.first().is_some_and(|newest| newest.gives == Gives::Nothing) {
        return Ok(End::Deleted);
    }
    for record in records.iter().take_while(|record| record.gives != Gives::Nothing) {
        if put(key, record, volume, image, fill)? {
            return Ok(End::Kept);
        }
    }
    Ok(End::Lost)
}

/// Puts what a record gives its key into the new image, unless it gives nothing or parts of it are missing.
fn put(
    key: &[u8],
    record: &RecordFact,
    volume: &VolumeFacts,
    image: &mut Image,
    fill: &mut Fill,
) -> Result<bool, Failure> {
    let disk = image.disk.clone();
    let Some(value) = image.run(volume.read_record(&disk, key, record)) else { return Ok(false) };
    match record.gives {
        Gives::Nothing => return Ok(false),
        Gives::Value => {
            // What the daemon keeps under its own keys may hold of this volume alone.
            let carried = statefsd::carried_over(key, &value);
            return fill.put(key, carried.as_deref().unwrap_or(&value)).map(|()| true);
        }
        Gives::Manifest => {}
    }
    let mut upload = fill.begin();
    let mut written = Ok(());
    let reading = volume.read_chunks(&disk, &value, |chunk| {
        if written.is_ok() {
            written = fill.append(&mut upload, chunk);
        }
    });
    let whole = image.run(reading);
    written?;
    if whole {
        fill.end(upload, key)?;
    }
    Ok(whole)
}

/// Reports on a key that is not simply saved.
fn tell_end(key: &[u8], end: End, tally: &mut Tally, output: &mut Output) -> Result<(), Failure> {
    let what = match end {
        End::Kept => {
            tally.saved += 1;
            tally.in_doubt += 1;
            "keptInDoubt"
        }
        End::Deleted => "deletedInDoubt",
        End::Lost => {
            tally.lost += 1;
            "keyLost"
        }
    };
    let object = json!({"key": key_json(key), "kind": what});
    output.either(&object, &format!("{what}: {}", key_text(key)))
}
