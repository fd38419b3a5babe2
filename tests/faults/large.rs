//! Large values: whole after any cut or not there, gone with their room when they go, never mixed, never silently damaged.

use super::bench::{Answer, Bench, Go, Store, cut_after, on};
use super::traces::Ended;
use blockdev::{Cure, Damage, Fate, SimDevice};
use journal::{CommitError, Opened, Origin, Piece, Plants};

const KEY: &[u8] = b"/a";

/// A value of which no part is like another.
fn value(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 251) as u8 ^ (n % 251) as u8 ^ seed).collect()
}

/// Every cut of an upload, with the first blocks lost and the others kept and the reverse, leaves the old value or the
/// new one.
pub fn whole_or_not_at_all(plants: Plants) -> Ended {
    let (old, new) = (value(1, 1700), value(2, 2500));
    let mut begun = Bench::sized(plants, 128 << 10);
    let mut store = begun.open()?;
    begun.upload(&mut store, KEY, &old)?;
    begun.idle(&mut store)?;
    drop(store);
    for spared in 0..40 {
        for (first, kept) in (0..40).flat_map(|kept| [(Fate::Old, kept), (Fate::New, kept)]) {
            let mut bench = begun.fork();
            let mut store = bench.open_whole()?;
            let done = bench.upload_until(&mut store, KEY, &new, &mut cut_after(spared))?;
            drop(store);
            let count = bench.cut_between(first, kept);
            let mut store = bench.open_whole()?;
            let got = bench.get(&mut store, KEY)?;
            let is = |value: &[u8]| got == Answer::Value(value.into());
            if !is(&new) && (done || !is(&old)) {
                return Err(format!("after {spared} flushes, {kept} {first:?}: {}", short(&got)));
            }
            if done {
                return Ok(());
            }
            if kept > count {
                break;
            }
        }
    }
    Err("an upload takes more than 40 flushes".into())
}

/// Values that are written over, deleted, given up or cut off leave their room to others.
pub fn room_comes_back(plants: Plants) -> Ended {
    let mut bench = Bench::sized(plants, 128 << 10);
    let mut store = bench.open()?;
    bench.upload(&mut store, KEY, &value(0, 3000))?;
    let before = store.journal.stats().free_bytes;
    // Many times what the volume takes at once.
    for round in 1..60 {
        bench.upload(&mut store, KEY, &value(round, 3000))?;
        expect_room(&store, before)?;
        give_up(&mut bench, &mut store, round)?;
        expect_room(&store, before)?;
    }
    // Too much is refused early, and leaves all as it was.
    let journal = store.journal.clone();
    let full = bench.drive(
        &mut store,
        Box::pin(async move {
            let mut upload = journal.upload(Origin(1));
            for part in 0..1000 {
                if let Err(error) = upload.append(&value(3, 2000)).await {
                    return Ok((part, error));
                }
            }
            Err("the volume takes what it cannot hold")
        }),
        &mut on,
    )?;
    if !matches!(full.ok_or("cut")??, (1..30, CommitError::NoSpace)) {
        return Err(format!("not refused for want of room: {full:?}"));
    }
    expect_room(&store, before)?;
    bench.upload(&mut store, KEY, &value(60, 3000))?;
    // A crash amid an upload: the next mount ends it.
    let (journal, done) = (store.journal.clone(), value(61, 3000));
    let upload = bench.drive(
        &mut store,
        Box::pin(async move {
            let mut upload = journal.upload(Origin(1));
            upload.append(&done).await.map(|()| upload)
        }),
        &mut on,
    )?;
    bench.idle(&mut store)?;
    std::mem::forget(upload);
    bench.device.power_cut();
    let mut store = bench.open_whole()?;
    expect_room(&store, before)?;
    bench.expect(&mut store, KEY, Some(&value(60, 3000)))?;
    bench.commit(&mut store, &[(KEY, None)])?;
    bench.idle(&mut store)?;
    let stats = store.journal.stats();
    if stats.keys != 0 || stats.free_bytes < before + 3000 {
        return Err(format!("deleted, and {stats:?} is left"));
    }
    Ok(())
}

fn give_up(bench: &mut Bench, store: &mut Store, round: u8) -> Ended {
    let journal = store.journal.clone();
    let given_up = bench.drive(
        store,
        Box::pin(async move { journal.upload(Origin(1)).append(&value(round, 2000)).await }),
        &mut on,
    )?;
    given_up.ok_or("cut")?.map_err(|error| error.to_string())?;
    bench.idle(store)
}

fn expect_room(store: &Store, before: u64) -> Ended {
    let now = store.journal.stats().free_bytes;
    if now < before { Err(format!("of {before} bytes {now} are left")) } else { Ok(()) }
}

/// A reader whose value is written over gets the rest of that value or is told, never a part of another.
pub fn readers_never_mix(plants: Plants) -> Ended {
    let mut bench = Bench::sized(plants, 128 << 10);
    let mut store = bench.open()?;
    let (old, new) = (value(1, 2500), value(2, 2500));
    bench.upload(&mut store, KEY, &old)?;
    let journal = store.journal.clone();
    let opened = async move { journal.open_value(KEY, Origin(0)).await };
    let Some(Opened::Value(mut reader)) = bench.drive(&mut store, Box::pin(opened), &mut on)?
    else {
        return Err("the value does not open".into());
    };
    let mut read = Vec::new();
    for part in 0.. {
        if part == 1 {
            bench.upload(&mut store, KEY, &new)?;
        }
        let at = read.len() as u64;
        let reading = async move {
            let piece = reader.read(at).await;
            (reader, piece)
        };
        let (again, piece) = bench.drive(&mut store, Box::pin(reading), &mut on)?.ok_or("cut")?;
        reader = again;
        match piece {
            Piece::Bytes(bytes) if bytes.is_empty() => break,
            Piece::Bytes(bytes) => read.extend_from_slice(&bytes),
            Piece::Changed => return Ok(()),
            Piece::DataLoss | Piece::Unreadable => return Err("nothing is damaged".into()),
        }
    }
    if read == old { Ok(()) } else { Err("parts of two values were read as one".into()) }
}

/// A chunk that is damaged in one copy is read from the other; in both it is data loss for its key alone, and where
/// the device reads neither, that is told and nothing else.
pub fn damage_is_told(plants: Plants) -> Ended {
    let mut bench = Bench::sized(plants, 128 << 10);
    let mut store = bench.open()?;
    let whole = value(1, 2500);
    bench.commit(&mut store, &[(b"/b", Some(b"other"))])?;
    let mut places: Vec<u64> = Vec::new();
    let mut go = |device: &SimDevice| {
        if places.is_empty() {
            places = device.risks().map(|risk| risk.offset).collect();
        }
        Go::On
    };
    bench.upload_until(&mut store, KEY, &whole, &mut go)?;
    bench.idle(&mut store)?;
    // The first chunk comes first: its four blocks in copy A, then those in copy B.
    let (first, second) = places.get(..8).unwrap_or_default().split_at(4);
    for (unreadable, one, both) in [
        (false, Answer::Value(whole.as_slice().into()), Answer::Lost),
        (true, Answer::Value(whole.as_slice().into()), Answer::Unreadable),
    ] {
        let mut bench = bench.fork();
        let hurt = |bench: &mut Bench, places: &[u64]| {
            for place in places {
                match unreadable {
                    true => bench.device.make_unreadable(*place, 512, Cure::Never),
                    false => bench.device.corrupt(*place, 512, Damage::Random),
                }
            }
        };
        let mut store = bench.open_whole()?;
        bench.idle(&mut store)?;
        hurt(&mut bench, first);
        expect(&mut bench, &mut store, &one)?;
        hurt(&mut bench, second);
        expect(&mut bench, &mut store, &both)?;
        bench.expect(&mut store, b"/b", Some(b"other"))?;
        // Writing it anew settles it.
        bench.upload(&mut store, KEY, &value(2, 2500))?;
        bench.expect(&mut store, KEY, Some(&value(2, 2500)))?;
    }
    // One copy unreadable and one wrong: that which is not read may be right.
    hurt_both(&mut bench, first, second)
}

fn hurt_both(bench: &mut Bench, first: &[u64], second: &[u64]) -> Ended {
    let mut store = bench.open_whole()?;
    for (one, other) in first.iter().zip(second) {
        bench.device.make_unreadable(*one, 512, Cure::Never);
        bench.device.corrupt(*other, 512, Damage::Random);
    }
    expect(bench, &mut store, &Answer::Unreadable)
}

fn expect(bench: &mut Bench, store: &mut Store, expected: &Answer) -> Ended {
    let got = bench.get(store, KEY)?;
    if got == *expected { Ok(()) } else { Err(format!("{}, not {}", short(&got), short(expected))) }
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Value(value) => format!("{} bytes, {:?}…", value.len(), value.first()),
        other => format!("{other:?}"),
    }
}
