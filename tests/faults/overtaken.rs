//! Damage to both copies of a write that overtook a move of the value before it: no older value comes back for it.

use super::bench::{Answer, BLOCK_BYTES, Bench, Go};
use super::ordering::{changes, commit_each};
use super::rich::keys;
use super::traces::{Ended, damage};
use blockdev::{Fate, SimDevice};
use journal::Plants;
use std::collections::BTreeMap;

/// Steps of the history, each of up to nine commits.
const STEPS: u32 = 220;
/// Flushes for which the last write of a key is damaged again.
const FLUSHES: u32 = 4;

/// The last write of a key, acknowledged.
struct Written {
    value: Option<Vec<u8>>,
    /// Where its group lies, in both copies.
    places: Vec<u64>,
    /// Flushes since.
    age: u32,
}

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
type Writes = BTreeMap<Vec<u8>, Written>;

/// While cleaning goes on, the group of each key's last write is damaged in both copies, at each of the flushes that follow it: the
/// key answers what was acknowledged or that it is lost, and never what it had before.
pub fn no_older_value_is_vouched_for(plants: Plants) -> Ended {
    let keys = keys();
    let mut bench = Bench::new(plants);
    let mut store = bench.open()?;
    let mut scratch = bench.fork();
    scratch.seed = 1 << 20;
    let mut writes = Writes::new();
    let (mut random, mut lost) = (7_u64, 0);
    for step in 0..STEPS {
        let changes: Changes = changes(step, &mut random, &keys).into_iter().collect();
        // What is under way may be there or not.
        writes.retain(|key, _| !changes.contains_key(key));
        let all = commit_each(&store, changes.iter(), || ());
        let (mut ended, mut new) = (Ok(()), Vec::new());
        let mut go = |device: &SimDevice| {
            if ended.is_ok() {
                ended = judge(&mut scratch, device, &mut writes).map(|more| lost += more);
                new.extend(groups(device, &changes));
            }
            if ended.is_ok() { Go::On } else { Go::Cut }
        };
        let done = bench.drive(&mut store, all, &mut go)?;
        ended.map_err(|what| format!("step {step}: {what}"))?;
        done.ok_or("cut")??;
        for (key, value) in changes {
            let of_key = new.iter().filter(|(other, _)| *other == key);
            let places = of_key.map(|(_, place)| *place).collect();
            writes.insert(key, Written { value, places, age: 0 });
        }
    }
    let moves = store.journal.stats().moves;
    if moves < 10 || lost < 100 {
        Err(format!("{moves} values moved, {lost} lost"))
    } else {
        Ok(())
    }
}

/// Yields the keys of `changes` that the groups at risk write, and where: each takes one block.
fn groups(device: &SimDevice, changes: &Changes) -> Vec<(Vec<u8>, u64)> {
    // FORMAT.md sections 4 and 5: a header of 128 bytes, a record of 32 bytes, the key.
    let key_of = |block: &[u8]| {
        let (put_or_delete, key_bytes) = ([1, 2].contains(block.get(132)?), *block.get(134)?);
        let group = put_or_delete && block.starts_with(b"SFG1");
        block.get(160..160 + usize::from(key_bytes)).filter(|_| group).map(<[u8]>::to_vec)
    };
    let blocks = device.risks().filter_map(|risk| {
        let at = usize::try_from(risk.offset).ok()?;
        let key = key_of(device.visible().get(at..at + BLOCK_BYTES)?)?;
        changes.contains_key(&key).then_some((key, risk.offset))
    });
    blocks.collect()
}

/// Damages each write for itself and looks at its key; yields how many were lost and told so.
fn judge(scratch: &mut Bench, device: &SimDevice, writes: &mut Writes) -> Result<u32, String> {
    let mut lost = 0;
    for (key, write) in writes.iter_mut().filter(|(_, write)| write.age < FLUSHES) {
        write.age += 1;
        scratch.device = device.clone();
        scratch.device.power_cut_choosing(|_| Fate::Old);
        damage(scratch, &write.places);
        let mut store = scratch.open()?;
        if store.journal.report().lost.is_empty() {
            // Nothing vouches for it yet, or its place is garbage already.
            continue;
        }
        let acknowledged =
            write.value.as_ref().map_or(Answer::Absent, |it| Answer::Value(it.as_slice().into()));
        match scratch.get(&mut store, key)? {
            Answer::Lost => lost += 1,
            got if got == acknowledged => {}
            got => {
                let key = String::from_utf8_lossy(key);
                return Err(format!("{key} has {got:?}, and its last write was lost"));
            }
        }
    }
    Ok(lost)
}
