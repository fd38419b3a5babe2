//! Values of one call that are cut into chunks: whole after any cut or not there, read at once, never silently damaged, gone
//! with their room when they go.

use super::bench::{Answer, Bench, Go, Store, cut_after, fates, on};
use super::traces::Ended;
use blockdev::{Cure, Damage, Fate, SimDevice};
use journal::{Durability, Got, Origin, Plants};

/// Longest value that lies in one record here.
const WHOLE_BYTES_MAX: usize = 200;
const KEYS: [&[u8]; 3] = [b"/a", b"/b", b"/c"];

fn bench(plants: Plants) -> Bench {
    Bench::sized(plants, 128 << 10).cutting(WHOLE_BYTES_MAX)
}

/// A value of which no part is like another, nor like one of another seed.
fn value(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 251) as u8 ^ (n % 251) as u8 ^ seed.wrapping_mul(37)).collect()
}

/// The values of a batch: two that are cut and one that is not.
fn batch(seed: u8) -> [Vec<u8>; 3] {
    [value(seed, 1000), value(seed + 100, 450), value(seed + 200, WHOLE_BYTES_MAX)]
}

fn changes(values: &[Vec<u8>; 3]) -> Vec<(&[u8], Option<&[u8]>)> {
    KEYS.into_iter().zip(values).map(|(key, value)| (key, Some(value.as_slice()))).collect()
}

/// Every cut of a batch, with the first blocks lost and the others kept and the reverse, leaves all old values or all new
/// ones, and of the new ones no room is taken that nothing has.
pub fn whole_or_not_at_all(plants: Plants) -> Ended {
    let (old, new) = (batch(1), batch(2));
    let mut begun = bench(plants);
    let mut store = begun.open()?;
    begun.commit(&mut store, &changes(&old))?;
    begun.idle(&mut store)?;
    drop(store);
    for spared in 0..40 {
        for (first, kept) in (0..40).flat_map(|kept| [(Fate::Old, kept), (Fate::New, kept)]) {
            let mut bench = begun.fork();
            let mut store = bench.open_whole()?;
            let before = store.journal.stats().free_bytes;
            let done = bench.commit_until(&mut store, &changes(&new), &mut cut_after(spared))?;
            drop(store);
            let count = bench.cut_between(first, kept);
            let mut store = bench.open_whole()?;
            let there = [&old, &new].map(|values| all(&mut bench, &mut store, values));
            let why = format!("after {spared} flushes, {kept} {first:?}");
            if (done, &there) != (false, &[Ok(()), there[1].clone()]) && there[1].is_err() {
                return Err(format!("{why}: {there:?}"));
            }
            if store.journal.stats().free_bytes != before {
                return Err(format!("{why}: of {before} bytes another number is left"));
            }
            if done {
                return Ok(());
            }
            if kept > count {
                break;
            }
        }
    }
    Err("a batch takes more than 40 flushes".into())
}

fn all(bench: &mut Bench, store: &mut Store, values: &[Vec<u8>; 3]) -> Ended {
    let each = KEYS.into_iter().zip(values);
    each.into_iter().try_for_each(|(key, value)| bench.expect(store, key, Some(value)))
}

/// A buffered value is there for everybody at once, as long and in the version that it keeps, and so after the sync.
pub fn buffered_is_read_at_once(plants: Plants) -> Ended {
    let mut bench = bench(plants);
    let mut store = bench.open()?;
    bench.commit(&mut store, &changes(&batch(1)))?;
    let mut writes = 0;
    for round in [2, 3] {
        let values = batch(round);
        let commit = store.submit(&changes(&values), Durability::Buffered);
        let cut = &mut |_: &SimDevice| {
            writes += 1;
            Go::On
        };
        bench.drive(&mut store, commit, cut)?.ok_or("cut")?.map_err(|error| error.to_string())?;
        all(&mut bench, &mut store, &values)?;
    }
    let seen = versions(&mut bench, &mut store)?;
    let journal = store.journal.clone();
    let sync = Box::pin(async move { journal.sync().await });
    bench.drive(&mut store, sync, &mut on)?.ok_or("cut")?.map_err(|error| error.to_string())?;
    bench.idle(&mut store)?;
    if writes != 0 {
        return Err(format!("{writes} flushes for what is buffered"));
    }
    for turn in 0..2 {
        all(&mut bench, &mut store, &batch(3))?;
        if versions(&mut bench, &mut store)? != seen {
            return Err(format!("another version or length, in turn {turn}"));
        }
        bench.device.power_cut();
        store = bench.open_whole()?;
    }
    Ok(())
}

/// Yields the version and length of each key that a scan shows; none may be shown as large.
fn versions(bench: &mut Bench, store: &mut Store) -> Result<Vec<(u64, u32)>, String> {
    let journal = store.journal.clone();
    let mut seen = Vec::new();
    let mut large = false;
    journal.scan(b"", |_, one| {
        large |= one.large;
        seen.push((one.version().0, one.value_bytes));
        true
    });
    let get = Box::pin(async move { journal.get(KEYS[0], Origin(9)).await });
    match bench.drive(store, get, &mut on)?.ok_or("cut")? {
        Got::Value { .. } if !large && seen.len() == KEYS.len() => Ok(seen),
        _ => Err(format!("{} keys, large: {large}", seen.len())),
    }
}

/// A part that is damaged in one copy is read from the other, counted and repaired; in both it is data loss for its key
/// alone, and where the device reads neither, that is told and nothing else.
pub fn damage_is_told(plants: Plants) -> Ended {
    let values = batch(1);
    let mut begun = bench(plants);
    let mut store = begun.open()?;
    begun.commit(&mut store, &changes(&values))?;
    begun.idle(&mut store)?;
    drop(store);
    let [long, ..] = &values;
    // The first part, one in the middle, the last.
    for part in [&long[..40], &long[480..520], &long[960..]] {
        let image = begun.device.durable().to_vec();
        let found = image.windows(part.len()).enumerate().filter(|(_, window)| *window == part);
        let places: Vec<u64> = found.map(|(at, _)| at as u64).collect();
        let [first, second] = places[..] else { return Err(format!("copies at {places:?}")) };
        for (unreadable, both) in [(false, Answer::Lost), (true, Answer::Unreadable)] {
            let mut bench = begun.fork();
            let hurt = |bench: &mut Bench, place: u64| match unreadable {
                true => bench.device.make_unreadable(place / 512 * 512, 512, Cure::Write),
                false => bench.device.corrupt(place, 8, Damage::Zero),
            };
            let mut store = bench.open_whole()?;
            bench.idle(&mut store)?;
            hurt(&mut bench, first);
            bench.expect(&mut store, KEYS[0], Some(long))?;
            if store.journal.stats().damaged_reads != 1 {
                return Err(format!("{} damaged reads", store.journal.stats().damaged_reads));
            }
            bench.idle(&mut store)?;
            if store.journal.stats().repaired != 1 {
                return Err(format!("{} copies repaired", store.journal.stats().repaired));
            }
            hurt(&mut bench, first);
            hurt(&mut bench, second);
            let got = bench.get(&mut store, KEYS[0])?;
            if got != both {
                return Err(format!("not {both:?}"));
            }
            bench.expect(&mut store, KEYS[1], Some(&values[1]))?;
            // Writing it anew settles it.
            bench.commit(&mut store, &changes(&batch(2)))?;
            all(&mut bench, &mut store, &batch(2))?;
        }
    }
    Ok(())
}

/// What is written over, deleted, refused or cut off leaves its room to others.
pub fn room_comes_back(plants: Plants) -> Ended {
    let mut bench = bench(plants);
    let mut store = bench.open()?;
    bench.commit(&mut store, &changes(&batch(0)))?;
    let before = store.journal.stats().free_bytes;
    // Many times what the volume takes at once.
    for round in 1..40 {
        bench.commit(&mut store, &changes(&batch(round)))?;
        // In one batch a value is written over by the next, and goes.
        let (one, other) = (value(round, 700), value(round + 1, 900));
        let twice: [(&[u8], Option<&[u8]>); 3] =
            [(b"/d", Some(&one)), (b"/d", Some(&other)), (b"/d", None)];
        bench.commit(&mut store, &twice)?;
        expect_room(&store, before)?;
        all(&mut bench, &mut store, &batch(round))?;
    }
    // What is refused leaves nothing behind.
    let full = (0..100).try_for_each(|key: u8| {
        let (key, long) = (format!("/full/{key}"), value(key, 1000));
        bench.commit(&mut store, &[(key.as_bytes(), Some(&long))])
    });
    let refused = store.journal.stats();
    if full.is_ok() || refused.keys < 8 {
        return Err(format!("{full:?} with {} keys", refused.keys));
    }
    for key in 0..100_u8 {
        bench.commit(&mut store, &[(format!("/full/{key}").as_bytes(), None)])?;
    }
    bench.idle(&mut store)?;
    expect_room(&store, before)?;
    // A crash leaves the parts and not the whole: the next mount drops them.
    let kept = bench.commit_until(&mut store, &changes(&batch(50)), &mut cut_after(0))?;
    // Of copy A the first half, of copy B nothing.
    let count = bench.device.risks().count();
    let end = |unit| if unit < count / 4 { Fate::New } else { Fate::Old };
    let ends: Vec<Fate> = (0..count).map(end).collect();
    bench.device.power_cut_choosing(fates(&ends));
    let mut store = bench.open_whole()?;
    expect_room(&store, before)?;
    all(&mut bench, &mut store, &batch(39))?;
    if kept { Err("answered before the flush".into()) } else { Ok(()) }
}

fn expect_room(store: &Store, before: u64) -> Ended {
    let now = store.journal.stats().free_bytes;
    if now < before { Err(format!("of {before} bytes {now} are left")) } else { Ok(()) }
}
