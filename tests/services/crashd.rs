//! Crash dumps: whole or not at all, the newest of them, within bounds.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use crashd::{
    About, Error, Id, Keep, Listing, Recorded, about, copy, list, open, prune, record, remove,
};
use statefs_client::{Rights, StateFs};
use updated::{Control, Slot};

use crate::bench::{Said, machine, machine_of, run};
use crate::machine::Machine;
use crate::world::{World, both, cut_everywhere, places};

const PROGRAM: &str = env!("CARGO_BIN_EXE_crashd-under-test");

fn crashd(machine: &Machine, words: &str, input: &[u8]) -> Said {
    run(machine, PROGRAM, "crashd", words, input)
}

/// Bytes that no shift and no exchange of blocks leaves as they are.
fn dump(seed: u32, bytes: usize) -> Vec<u8> {
    let word = |at: u32| at.wrapping_mul(0x9e37_79b9).wrapping_add(seed).to_le_bytes();
    (0..).flat_map(word).take(bytes).collect()
}

#[test]
fn a_cut_at_any_write_leaves_a_dump_whole_or_nothing_of_it() {
    let (old, new) = (dump(1, 3000), dump(2, 150_000));
    let mut before = World::of(4 << 20);
    let first = before.run("crashd", None, async |store| take(&store, 1, &old, 2).await);
    let first = first.0.unwrap().unwrap();
    let work = async |store| take(&store, 2, &new, 1).await;
    let mut seen = [0; 3];
    let cuts = cut_everywhere(&before, "crashd", work, |answer, mut world| {
        let found = world.run("crashd", None, all).0.unwrap().unwrap();
        let (ids, dumps): (Vec<Id>, Vec<Vec<u8>>) = found.into_iter().unzip();
        if dumps == [old.clone()] {
            assert_eq!(ids, [first]);
            assert!(answer.is_none(), "it was told of, so it is there");
            seen[0] += 1;
        } else if dumps == [old.clone(), new.clone()] {
            // The old one goes once the new one is there, and not before.
            assert!(answer.is_none(), "the old one was given up");
            seen[1] += 1;
        } else {
            assert!(dumps == [new.clone()], "{ids:?}");
            seen[2] += 1;
        }
    });
    assert!(cuts >= 30 && seen.iter().all(|count| *count > 0), "{cuts} cuts: {seen:?}");
}

#[test]
fn a_dump_that_finds_no_room_leaves_nothing_and_the_others_stay() {
    let (old, new) = (dump(1, 3000), dump(2, 900_000));
    let mut world = World::of(1 << 20);
    let first = world.run("crashd", None, async |store| take(&store, 1, &old, 2).await);
    let first = first.0.unwrap().unwrap();
    let refused = world.run("crashd", None, async |store| take(&store, 2, &new, 1).await);
    assert_eq!(refused.0.unwrap().unwrap_err().code(), "VALUE_TOO_LARGE");
    assert_eq!(world.run("crashd", None, all).0.unwrap(), Ok(vec![(first, old.clone())]));
    // What it took is free again.
    let third = dump(3, 30_000);
    let third_id = world.run("crashd", None, async |store| take(&store, 3, &third, 2).await);
    let third_id = third_id.0.unwrap().unwrap();
    let found = world.run("crashd", None, all).0.unwrap().unwrap();
    assert_eq!(found, [(first, old), (third_id, third)]);
}

/// A lost stretch of the journal, whosever it was, may have held any name: each new one is in doubt from then
/// on, and a write of it that demands its absence is refused for good.
#[test]
fn a_loss_of_others_keeps_no_dump_out() {
    let mut world = World::of(4 << 20);
    let initialise = async |store| updated::initialise(&updated::open(&store), Slot::A).await;
    world.run("updated", None, initialise).0.unwrap().unwrap();
    assert_eq!(world.spoil(&Control::first(Slot::A).encode()), 2, "two copies");
    // One in a single chunk, and one in several.
    let mut taken = Vec::new();
    for (nonce, dump) in [(1, dump(1, 3000)), (2, dump(2, 150_000))] {
        let id = world.run("crashd", None, async |store| take(&store, nonce, &dump, 2).await);
        taken.push((id.0.unwrap().unwrap(), dump));
    }
    assert_eq!(world.run("crashd", None, all).0.unwrap(), Ok(taken));
}

/// A dump of one commit goes with its name, and no entry of the list tells of it.
#[test]
fn a_list_that_damage_shortened_is_not_passed_off_as_whole() {
    let mut world = World::of(4 << 20);
    let dump = dump(1, 3000);
    world.run("crashd", None, async |store| take(&store, 1, &dump, 2).await).0.unwrap().unwrap();
    let listed = async |store: StateFs| list(&open(&store)).await;
    assert!(world.clone().run("crashd", None, listed).0.unwrap().unwrap().intact);
    assert_eq!(world.spoil(&dump[..100]), 2, "two copies");
    let found = world.run("crashd", None, listed).0.unwrap();
    assert_eq!(found, Ok(Listing { dumps: vec![], intact: false }));
}

#[test]
fn a_dump_that_is_given_up_while_it_is_looked_at_is_absent() {
    let mut world = World::of(4 << 20);
    let dump = dump(1, 3000);
    let looked = world.run("crashd", None, async |store| {
        let (crash, id) = (open(&store), take(&store, 1, &dump, 2).await?);
        // The reader is made, then the dump goes, then its head is asked for.
        let (about, removed) = both(about(&crash, id), remove(&crash, id)).await;
        removed?;
        Ok::<_, Error>((about, id))
    });
    let (about, id) = looked.0.unwrap().unwrap();
    assert_eq!(about, Err(Error::Absent(id)));
}

/// Those that are lost are no loss any more.
#[test]
fn a_lost_dump_is_given_up_before_an_older_one() {
    let mut world = World::of(4 << 20);
    let (old, lost, new) = (dump(1, 3000), dump(2, 3000), dump(3, 3000));
    let kept = world.run("crashd", None, async |store| {
        let old_id = take(&store, 1, &old, 3).await?;
        Ok::<_, Error>((old_id, take(&store, 2, &lost, 3).await?))
    });
    let (old_id, lost_id) = kept.0.unwrap().unwrap();
    // So that its name is not lost with it.
    world.run("operator", None, async |store| store.admin().checkpoint().await).0.unwrap().unwrap();
    assert_eq!(world.spoil(&lost[..100]), 2, "two copies");
    let look = async |store: &StateFs| {
        let told = about(&open(store), lost_id).await;
        assert_eq!(told, Err(Error::Store(statefs_client::Error::DataLoss)));
    };
    // It counts as long as it is there.
    let pruned = world.clone().run("crashd", None, async |store| {
        look(&store).await;
        prune(&open(&store), Keep { dumps: 1, bytes: 6000 }).await
    });
    assert_eq!(pruned.0.unwrap(), Ok(vec![lost_id]));
    let taken = world.run("crashd", None, async |store| {
        look(&store).await;
        take_in(&store, 3, &new, 2).await
    });
    let taken = taken.0.unwrap().unwrap();
    assert_eq!(taken.given_up, [lost_id]);
    assert_eq!(world.run("crashd", None, all).0.unwrap(), Ok(vec![(old_id, old), (taken.id, new)]));
}

/// The name of a dump is as old as its beginning: where another began later and ended sooner, the one that ended last
/// is the oldest by its name, and was given up as soon as it was there.
#[test]
fn a_slow_dump_is_not_given_up_for_a_quick_one() {
    let mut world = World::of(4 << 20);
    let (slow, quick) = (dump(1, 900_000), dump(2, 3000));
    let taken = world.run("crashd", None, async |store| {
        let (slow, quick) = both(take_in(&store, 1, &slow, 1), take_in(&store, 2, &quick, 1)).await;
        Ok::<_, Error>((slow?, quick?))
    });
    let (slowly, quickly) = taken.0.unwrap().unwrap();
    assert!(slowly.id < quickly.id && quickly.given_up.is_empty(), "{quickly:?}");
    assert_eq!(slowly.given_up, [quickly.id]);
    assert_eq!(world.run("crashd", None, all).0.unwrap(), Ok(vec![(slowly.id, slow)]));
}

#[test]
fn dumps_that_end_together_do_not_give_each_other_up() {
    let before = World::of(4 << 20);
    let one = dump(1, 100_000);
    let mut together = 0;
    for bytes in (10_000..60_000).step_by(5000) {
        let (mut world, two) = (before.clone(), dump(2, bytes));
        let taken = world.run("crashd", None, async |store| {
            let (one, two) = both(take_in(&store, 1, &one, 1), take_in(&store, 2, &two, 1)).await;
            Ok::<_, Error>([one?, two?])
        });
        let taken = taken.0.unwrap().unwrap();
        let given_up: Vec<Id> = taken.iter().flat_map(|taken| taken.given_up.clone()).collect();
        let ids = world.run("crashd", None, all).0.unwrap().unwrap().into_iter().map(|(id, _)| id);
        let stay = taken.iter().map(|taken| taken.id).filter(|id| !given_up.contains(id));
        assert_eq!(ids.collect::<Vec<_>>(), stay.collect::<Vec<_>>(), "{bytes} bytes");
        assert!(given_up.len() < 2, "one of {bytes} bytes");
        together += u32::from(given_up.is_empty());
    }
    assert!(together > 0, "neither saw the other");
}

async fn take_in(
    store: &StateFs,
    nonce: u32,
    dump: &[u8],
    dumps: usize,
) -> Result<Recorded, Error> {
    let keep = Keep { dumps, bytes: 1 << 20 };
    let mut rest = dump;
    let read = |buffer: &mut [u8]| {
        // In small parts, as a pipe gives them.
        let count = rest.len().min(buffer.len()).min(40_000);
        buffer[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        Ok(count)
    };
    let about = About::new("init", 7);
    record(store, &about, nonce, keep, None, read).await
}

async fn take(store: &StateFs, nonce: u32, dump: &[u8], dumps: usize) -> Result<Id, Error> {
    Ok(take_in(store, nonce, dump, dumps).await?.id)
}

/// Reads every dump.
async fn all(store: StateFs) -> Result<Vec<(Id, Vec<u8>)>, Error> {
    let crash = open(&store);
    let mut all = Vec::new();
    for found in list(&crash).await?.dumps {
        let mut bytes = Vec::new();
        let about = copy(&crash, found.id, |part| {
            bytes.extend(part);
            Ok(())
        });
        assert_eq!(about.await?, About::new("init", 7));
        all.push((found.id, bytes));
    }
    Ok(all)
}

#[test]
fn a_dump_of_many_mebibytes_is_read_back_after_a_kill() {
    let mut machine = machine_of(64 << 20);
    let large = dump(1, (5 << 20) + 12_345);
    let words = "record --program init --time 1700000000 -o json";
    let recorded = crashd(&machine, words, &large).json();
    assert_eq!(recorded["bytes"], large.len() + 16 + "init".len());
    let id = recorded["id"].as_str().unwrap().to_owned();
    machine.kill();
    machine.start();
    let listed = crashd(&machine, "list -o json", b"").json();
    assert_eq!((&listed["id"], &listed["program"]), (&recorded["id"], &"init".into()));
    assert_eq!((&listed["time"], &listed["dataLoss"]), (&1_700_000_000.into(), &false.into()));
    let read = crashd(&machine, &format!("read {id}"), b"");
    assert!(read.code == 0 && read.out == large, "{}", read.err);
    // From a file, whose size is known before.
    let path = machine.image().with_extension("core");
    fs::write(&path, &large).unwrap();
    let second = crashd(&machine, &format!("record {}", path.display()), b"").exits(0);
    let read = crashd(&machine, &format!("read {second}"), b"");
    assert!(read.code == 0 && read.out == large, "{}", read.err);
    assert!(id < second, "later dumps have greater names");
    crashd(&machine, &format!("delete {id}"), b"").exits(0);
    assert_eq!(crashd(&machine, &format!("read {id}"), b"").exits(3), "");
    assert_eq!(crashd(&machine, &format!("delete {id}"), b"").exits(3), "");
    assert_eq!(crashd(&machine, "read 7", b"").exits(2), "");
    machine.check_health();
    machine.stop();
}

#[test]
fn the_newest_are_kept_within_bounds() {
    let mut machine = machine_of(64 << 20);
    let ids: Vec<String> = (0..5)
        .map(|seed| crashd(&machine, "record --keep 3", &dump(seed, 200_000)).exits(0))
        .collect();
    assert_eq!(names(&machine), ids[2..]);
    // By bytes: two of them and their heads do not fit with this one.
    let words = "record --keep 9 --keep-bytes 500K -o json";
    let recorded = crashd(&machine, words, &dump(9, 300_000)).json();
    assert_eq!(recorded["givenUp"], serde_json::json!([ids[2], ids[3]]));
    assert_eq!(names(&machine), [ids[4].clone(), recorded["id"].as_str().unwrap().into()]);
    // What never fits costs the others nothing, known before or not.
    let path = machine.image().with_extension("core");
    fs::write(&path, dump(1, 600_000)).unwrap();
    let kept = names(&machine);
    for (words, input) in [
        (format!("record --keep-bytes 500K {}", path.display()), Vec::new()),
        ("record --keep-bytes 500K".into(), dump(1, 600_000)),
    ] {
        let said = crashd(&machine, &words, &input);
        assert!(said.err.contains("DUMP_TOO_LARGE"), "{said:?}");
        assert_eq!(said.exits(8), "");
        assert_eq!(names(&machine), kept);
    }
    assert_eq!(crashd(&machine, "prune --keep 1", b"").exits(0), kept[0]);
    assert_eq!(names(&machine), kept[1..]);
    assert_eq!(crashd(&machine, "prune --keep 0", b"").exits(2), "");
    machine.stop();
}

/// A file that somebody cuts while it is read ends as a whole one does.
#[test]
fn a_dump_that_ends_before_its_size_leaves_nothing() {
    let mut world = World::of(4 << 20);
    let take = async |store: StateFs, bytes: u64| {
        let dump = dump(1, 100_000);
        let mut rest = &dump[..];
        let read = |buffer: &mut [u8]| {
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            Ok(count)
        };
        let (about, keep) = (About::new("init", 7), Keep { dumps: 2, bytes: 1 << 20 });
        record(&store, &about, 1, keep, Some(bytes), read).await.map(|recorded| recorded.bytes)
    };
    let short = world.run("crashd", None, async |store| take(store, 100_001).await);
    assert_eq!(short.0.unwrap(), Err(Error::Source));
    assert_eq!(world.run("crashd", None, all).0.unwrap(), Ok(vec![]));
    // One that grew meanwhile is there as it was read.
    let long = world.run("crashd", None, async |store| take(store, 99_999).await);
    assert_eq!(long.0.unwrap(), Ok(100_000 + 20));
}

/// Who crashes chooses its name, and the kernel cuts it at 15 bytes, within a character too.
#[test]
fn no_name_keeps_a_dump_out() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut machine = machine();
    for (name, shown) in [
        (&b"--time"[..], "--time"),
        (b"-", "-"),
        (b"h\xc3\xa9h\xc3", "h\u{e9}h\u{fffd}"),
        (b"", ""),
    ] {
        let mut child = Command::new(PROGRAM)
            .arg("--socket")
            .arg(machine.socket("crashd"))
            .args(["record", "--program"])
            .arg(std::ffi::OsStr::from_bytes(name))
            .args(["--time", "7"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"dump").unwrap();
        assert!(child.wait().unwrap().success(), "{shown:?}");
        let listed = String::from_utf8(crashd(&machine, "list -o json", b"").out).unwrap();
        let last: serde_json::Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
        assert_eq!((&last["program"], &last["time"]), (&shown.into(), &7.into()));
    }
    machine.stop();
}

#[test]
fn a_dump_that_breaks_off_leaves_nothing() {
    let mut machine = machine_of(64 << 20);
    let kept = crashd(&machine, "record", &dump(1, 1000)).exits(0);
    // A source that fails.
    let said = crashd(&machine, &format!("record {}", std::env::temp_dir().display()), b"");
    assert_eq!(said.exits(1), "");
    // A recorder that is killed with megabytes taken in.
    let mut child = Command::new(PROGRAM)
        .arg("--socket")
        .arg(machine.socket("crashd"))
        .arg("record")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&dump(2, 3 << 20)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(&machine), std::slice::from_ref(&kept));
    // A daemon that is killed under it: the recorder says that it does not know.
    let mut child = Command::new(PROGRAM)
        .arg("--socket")
        .arg(machine.socket("crashd"))
        .arg("record")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&dump(3, 3 << 20)).unwrap();
    machine.kill();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    machine.start();
    assert_eq!(names(&machine), [kept]);
    crashd(&machine, "record", &dump(4, 3 << 20)).exits(0);
    assert_eq!(names(&machine).len(), 2);
    machine.check_health();
    machine.stop();
}

#[test]
fn a_list_from_which_dumps_may_be_missing_ends_with_6() {
    let mut machine = machine();
    let dump = dump(1, 3000);
    crashd(&machine, "record", &dump).exits(0);
    // No checkpoint has its name.
    machine.kill();
    let mut image = fs::read(machine.image()).unwrap();
    let places = places(&image, &dump[..100]);
    assert_eq!(places.len(), 2, "two copies");
    places.iter().for_each(|at| image[*at..at + 100].fill(b'?'));
    fs::write(machine.image(), image).unwrap();
    machine.start();
    let said = crashd(&machine, "list", b"");
    assert!(said.err.contains("dumps may be missing"), "{said:?}");
    assert_eq!(said.exits(6), "");
    // What comes now is kept and listed, and what may be missing stays told.
    let id = crashd(&machine, "record", &dump).exits(0);
    assert!(crashd(&machine, "list", b"").exits(6).starts_with(&id));
    machine.stop();
}

#[test]
fn dumps_at_the_same_moment_are_all_kept() {
    let mut machine = machine();
    let dumps: Vec<Vec<u8>> = (0..3).map(|seed| dump(seed, 100_000)).collect();
    let ids = thread::scope(|scope| {
        let machine = &machine;
        let record = |dump| move || crashd(machine, "record", dump).exits(0);
        let threads: Vec<_> = dumps.iter().map(|dump| scope.spawn(record(dump))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (id, dump) in ids.iter().zip(&dumps) {
        assert!(crashd(&machine, &format!("read {id}"), b"").out == *dump);
    }
    assert_eq!(names(&machine).len(), 3);
    machine.stop();
}

#[test]
fn what_is_no_dump_is_left_alone_and_others_are_kept_out() {
    let mut machine = machine();
    let operator = machine.connect("operator");
    let all = operator.directory("/state/crash", Rights::ALL);
    all.put("notes", b"not mine").unwrap();
    all.put("0000000000000001-00000000", b"a dump of another format").unwrap();
    let id = crashd(&machine, "record --keep 1 --program a\u{1b}b", b"dump").exits(0);
    assert_eq!(names(&machine), std::slice::from_ref(&id), "the other was the oldest");
    assert_eq!(all.get("notes").unwrap().unwrap().data, b"not mine");
    all.put("0000000000000001-00000000", b"a dump of another format").unwrap();
    assert_eq!(crashd(&machine, "read 0000000000000001-00000000", b"").exits(1), "");
    let listed = crashd(&machine, "list", b"").exits(0);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains('\u{1b}'), "who crashed cannot steer a terminal");
    assert_eq!(run(&machine, PROGRAM, "updated", "list", b"").exits(5), "");
    assert_eq!(run(&machine, PROGRAM, "updated", "record", b"dump").exits(5), "");
    assert_eq!(run(&machine, PROGRAM, "updated", &format!("read {id}"), b"").exits(5), "");
    drop((all, operator));
    machine.stop();
}

/// The names of the dumps that are listed, oldest first.
fn names(machine: &Machine) -> Vec<String> {
    let listed = crashd(machine, "list", b"").exits(0);
    listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}
