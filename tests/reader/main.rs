//! `FORMAT.md` alone lets a stranger write a reader: `reader.py` was written from it, and dumps every image byte for byte
//! as `statefs image dump` does.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};

use blockdev::{Damage, Fate, SimDevice};
use journal::{Batch, Durability, Note, Operation, Origin, Outcome, Plants, Precondition, Ring};
use tests::drive::Task;
use tests::faults::bench::{Bench, Go, fates, on};
use tests::faults::cuts::Ends;
use tests::faults::rich::{Age, rich};

/// Lines that the reader may have, its BLAKE3 and its comments among them.
const READER_LINES_MAX: usize = 300;

const PROGRAM: &str = env!("CARGO_BIN_EXE_statefs-under-test");

/// What both programs said of some images.
#[derive(Default, Debug)]
struct Compared {
    images: u32,
    /// Lines, less the digests: one for each key, and for each chunk of a large value.
    keys: usize,
    lossy: u32,
    refused: u32,
}

impl Compared {
    /// Dumps an image with both programs.
    fn image(&mut self, name: &str, bytes: &[u8]) {
        let path = env::temp_dir().join(format!("statefs-reader-{}-{name}", process::id()));
        fs::write(&path, bytes).unwrap();
        let (ours, theirs) = (dump(&path), read(&path));
        fs::remove_file(&path).unwrap();
        let shown = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(shown(&ours), shown(&theirs), "{name}: {}", errors(&theirs));
        assert_eq!(ours.stdout, theirs.stdout, "{name}");
        let code = |output: &Output| output.status.code();
        // Only whether it is whole is compared: how a program refuses is its own matter.
        let loss = Some(6);
        let whole = |output: &Output| code(output) == Some(0);
        assert_eq!(whole(&ours), whole(&theirs), "{name}: {:?}", code(&theirs));
        let empty = ours.stdout.is_empty();
        assert!(empty || code(&ours) == code(&theirs), "{name}: {:?}", code(&theirs));
        self.images += 1;
        self.keys += ours.stdout.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
        self.lossy += u32::from(!empty && code(&ours) == loss);
        self.refused += u32::from(empty);
    }

    fn device(&mut self, name: &str, device: &SimDevice) {
        self.image(name, device.durable());
    }
}

fn dump(path: &Path) -> Output {
    Command::new(PROGRAM).args(["image", "dump"]).arg(path).output().unwrap()
}

fn read(path: &Path) -> Output {
    let read = Command::new("python3").arg(reader()).arg(path).output();
    read.expect("the independent reader takes `python3`, 3.8 or newer, which does not run here")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/reader.py")
}

#[test]
fn the_reader_is_short_and_takes_nothing_but_the_standard_library() {
    let text = fs::read_to_string(reader()).unwrap();
    let lines = text.lines().count();
    assert!(lines < READER_LINES_MAX, "{lines} lines");
    let imports = |line: &&str| line.starts_with("import ") || line.starts_with("from ");
    for line in text.lines().filter(imports) {
        let module = line.split(' ').nth(1).unwrap();
        assert!(
            ["base64", "contextlib", "json", "struct", "sys", "zlib"].contains(&module),
            "{line}"
        );
    }
}

#[test]
fn the_golden_image_is_read_alike() {
    let mut compared = Compared::default();
    compared.image("golden", &golden_image());
    assert_eq!((compared.keys, compared.lossy, compared.refused), (1, 0, 0));
}

#[test]
fn histories_with_checkpoints_and_cleaning_are_read_alike() {
    let mut compared = Compared::default();
    for (name, age) in [("young", Age::Young), ("old", Age::Old), ("settled", Age::Settled)] {
        let rich = rich(Plants::default(), age).unwrap();
        assert!(age == Age::Young || (rich.checkpoints > 0 && rich.cleaned > 0));
        compared.image(name, &rich.image);
        if age == Age::Settled {
            // Its earlier moments are those of the old one.
            continue;
        }
        for (number, image) in rich.older.iter().enumerate() {
            compared.image(&format!("{name}-{number}"), image);
        }
        // A device that has grown: the volume is what its superblock says.
        let mut grown = rich.image.clone();
        grown.resize(grown.len() + 3 * 4096 + 77, 0xa5);
        compared.image(&format!("{name}-grown"), &grown);
    }
    assert!(compared.images > 10 && compared.keys > 60 && compared.lossy == 0);
}

#[test]
fn keys_and_values_of_every_sort_are_read_alike() {
    let mut bench = Bench::sized(Plants::default(), 512 << 10);
    let mut store = bench.open().unwrap();
    let long = vec![b'k'; 255];
    let keys: [&[u8]; 7] = [
        b"/plain",
        "/\u{fc}\u{1f600}".as_bytes(),
        b"/\"\\\x01\x7f\n",
        b"\xff\xfe",
        b"/",
        b"/pl",
        &long,
    ];
    for (number, key) in keys.into_iter().enumerate() {
        bench.put(&mut store, key, &vec![7; number * 397]).unwrap();
    }
    bench.put(&mut store, b"/gone", b"soon").unwrap();
    bench.commit(&mut store, &[(b"/gone", None), (b"/new", Some(b""))]).unwrap();
    let mut compared = Compared::default();
    compared.device("keys", &bench.device);
    assert_eq!((compared.keys, compared.lossy), (8, 0));
}

/// Large values: whole, written over, deleted, broken off, with a chunk that is damaged in one copy and in both.
#[test]
fn large_values_are_read_alike() {
    let mut bench = Bench::sized(Plants::default(), 96 << 10);
    let mut store = bench.open().unwrap();
    let value: Vec<u8> = (0..1_600_u32).map(|n| (n % 251) as u8).collect();
    for key in [b"/whole", b"/again", b"/gone.", b"/again"] {
        bench.upload(&mut store, key, &value).unwrap();
    }
    bench.commit(&mut store, &[(b"/gone.", None)]).unwrap();
    let mut compared = Compared::default();
    compared.device("large", &bench.device);
    assert!(compared.keys > 3 && compared.lossy == 0, "{compared:?}");
    let mut cuts = Vec::new();
    let mut go = |device: &SimDevice| {
        cuts.push(device.clone());
        Go::On
    };
    bench.upload_until(&mut store, b"/whole", &value[..1400], &mut go).unwrap();
    for (at, cut) in cuts.iter_mut().enumerate().step_by(2) {
        cut.power_cut_choosing(|risk| if risk.index % 2 == 0 { Fate::New } else { Fate::Old });
        compared.device(&format!("large-cut-{at}"), cut);
    }
    let image = bench.device.durable().to_vec();
    let places = |part: &[u8]| {
        let found = image.windows(part.len()).enumerate().filter(|(_, window)| *window == part);
        found.map(|(at, _)| at as u64).collect::<Vec<_>>()
    };
    // The place of the value's first bytes, in each copy of each upload of it.
    for copy in places(&value[..64]) {
        bench.device.restore(&image);
        bench.device.corrupt(copy, 8, Damage::Zero);
        compared.device(&format!("large-one-{copy}"), &bench.device);
    }
    assert_eq!(compared.lossy, 0, "{compared:?}");
    for part in [&value[..64], &value[1100..1164]] {
        bench.device.restore(&image);
        for copy in places(part) {
            bench.device.corrupt(copy, 8, Damage::Zero);
        }
        compared.device(&format!("large-both-{}", part[0]), &bench.device);
    }
    assert!(compared.lossy == 2 && compared.images > 8, "{compared:?}");
}

/// Values of one call that are cut: shown whole, whatever became of their parts.
#[test]
fn values_that_are_cut_are_read_alike() {
    let mut bench = Bench::sized(Plants::default(), 128 << 10).cutting(150);
    let mut store = bench.open().unwrap();
    let value: Vec<u8> = (0..1000_u32).map(|n| (n % 251) as u8).collect();
    for round in 0..30 {
        let (longer, shorter) = (&value[round..], &value[..600 - round]);
        bench.commit(&mut store, &[(b"/a", Some(longer)), (b"/b", Some(shorter))]).unwrap();
    }
    bench.commit(&mut store, &[(b"/c", Some(&value[..151])), (b"/d", Some(b"short"))]).unwrap();
    bench.idle(&mut store).unwrap();
    let mut compared = Compared::default();
    compared.device("cut", &bench.device);
    assert_eq!((compared.keys, compared.lossy), (4, 0), "a line for each: {compared:?}");
    let image = bench.device.durable().to_vec();
    for part in [&value[29..69], &value[500..540]] {
        bench.device.restore(&image);
        for (at, _) in image.windows(part.len()).enumerate().filter(|(_, window)| *window == part) {
            bench.device.corrupt(at as u64, 8, Damage::Zero);
        }
        compared.device(&format!("cut-lost-{}", part[0]), &bench.device);
    }
    assert_eq!((compared.keys, compared.lossy), (12, 2), "{compared:?}");
}

/// Notes lie beside the keys, in the log and in checkpoints, and no dump shows one.
#[test]
fn notes_are_passed_over_alike() {
    let mut bench = Bench::sized(Plants::default(), 8 << 20);
    let mut store = bench.open().unwrap();
    assert!(store.journal.keeps_notes());
    let mut compared = Compared::default();
    for number in 0..30_u8 {
        let note = Note { ring: Ring::Mutations, count: 1, bytes: vec![number; 60].into() };
        let operation = Operation {
            key: vec![b'/', b'a' + number % 10].into(),
            value: Some(vec![number; 100].into()),
            precondition: Precondition::Any,
        };
        let (operations, durability) = (vec![operation], Durability::Durable);
        let batch = Batch { operations, durability, origin: Origin(1) };
        let commit = Box::pin(store.journal.commit_noted(batch, vec![note]));
        let done = bench.drive(&mut store, commit, &mut on).unwrap().unwrap();
        assert!(matches!(done, Ok(Outcome::Applied(_))), "{done:?}");
        if number == 20 {
            let journal = store.journal.clone();
            let checkpoint: Task<_> = Box::pin(async move { journal.checkpoint().await });
            bench.drive(&mut store, checkpoint, &mut on).unwrap().unwrap().unwrap();
            compared.device("notes-checkpoint", &bench.device);
        }
    }
    assert_eq!(store.journal.notes(Ring::Mutations, 0, 99).len(), 30);
    compared.device("notes", &bench.device);
    assert_eq!((compared.keys, compared.lossy, compared.refused), (20, 0, 0));
}

/// A volume of one copy: what is damaged in it is lost, and told alike.
#[test]
fn a_volume_of_one_copy_is_read_alike() {
    let mut bench = Bench::with_copies(Plants::default(), 64 << 10, 1);
    let mut store = bench.open().unwrap();
    let mut compared = Compared::default();
    let mut places = Vec::new();
    for number in 0..40_u8 {
        let key = [b'/', b'a' + number % 10];
        places = bench.put(&mut store, &key, &[number; 200]).unwrap();
        bench.idle(&mut store).unwrap();
    }
    assert_eq!(places.len(), 1, "one copy");
    compared.device("one", &bench.device);
    assert_eq!((compared.keys, compared.lossy), (10, 0));
    bench.put(&mut store, b"/last", b"which vouches for the one before").unwrap();
    bench.device.corrupt(places[0], 512, Damage::Random);
    compared.device("one-lost", &bench.device);
    assert_eq!((compared.images, compared.lossy), (2, 1), "{compared:?}");
}

#[test]
fn every_end_of_a_torn_tail_is_read_alike() {
    let mut bench = Bench::new(Plants::default());
    let mut store = bench.open().unwrap();
    bench.put(&mut store, b"/a", b"acknowledged").unwrap();
    let puts: [(&[u8], &[u8]); 2] = [(b"/b", b"in flight"), (b"/c", b"and behind it")];
    bench.leave_in_flight(&mut store, &puts).unwrap();
    let mut ends = Ends::new(&bench.device, 27);
    let mut compared = Compared::default();
    for number in 0..ends.count() {
        let mut device = bench.device.clone();
        device.power_cut_choosing(fates(&ends.end(number)));
        compared.device(&format!("torn-{number}"), &device);
    }
    assert!(compared.images == 27 && compared.lossy == 0 && compared.keys > 27);
}

#[test]
fn a_mount_that_is_cut_off_is_read_alike() {
    let mut bench = Bench::new(Plants::default());
    bench.device.restore(&rich(Plants::default(), Age::Young).unwrap().image);
    bench.seed = 1 << 20;
    let mut compared = Compared::default();
    let mut cuts = Vec::new();
    bench
        .open_until(&mut |device| {
            cuts.push(device.clone());
            Go::On
        })
        .unwrap();
    for (at, cut) in cuts.iter().enumerate() {
        let mut ends = Ends::new(cut, 9);
        for number in 0..ends.count() {
            let mut device = cut.clone();
            device.power_cut_choosing(fates(&ends.end(number)));
            compared.device(&format!("mount-{at}-{number}"), &device);
        }
    }
    assert!(compared.images > 18 && compared.lossy == 0);
}

#[test]
fn one_damaged_copy_changes_nothing_that_is_read() {
    let rich = rich(Plants::default(), Age::Old).unwrap();
    let mut compared = Compared::default();
    let mut bench = Bench::blank(Plants::default(), rich.image.len() as u64);
    for block in (0..rich.blocks()).step_by(11) {
        bench.device.restore(&rich.image);
        bench.device.corrupt(block as u64 * 512, 512, Damage::Random);
        compared.device(&format!("damaged-{block}"), &bench.device);
    }
    assert!(compared.keys >= rich.map.len() * compared.images as usize);
    assert_eq!((compared.lossy, compared.refused), (0, 0));
}

#[test]
fn two_damaged_copies_are_told_alike() {
    let mut compared = Compared::default();
    for age in [Age::Young, Age::Old] {
        let rich = rich(Plants::default(), age).unwrap();
        let mut bench = Bench::blank(Plants::default(), rich.image.len() as u64);
        // The history began here, and no mount may draw the epochs of another.
        bench.seed = 1 << 20;
        let between = rich.last[1] - rich.last[0];
        for block in (18..16 + between).step_by(3) {
            bench.device.restore(&rich.image);
            for copy in [block, block + between] {
                bench.device.corrupt(copy as u64 * 512, 512, Damage::Random);
            }
            compared.device(&format!("{age:?}-lost-{block}"), &bench.device);
            // What a mount makes of it, the loss carried on.
            if bench.try_open(&mut on).unwrap().unwrap().is_ok() {
                compared.device(&format!("{age:?}-mounted-{block}"), &bench.device);
            }
        }
    }
    assert!(compared.lossy > 10 && compared.refused > 0 && compared.images > 30, "{compared:?}");
}

#[test]
fn what_is_no_volume_is_refused_alike() {
    let mut compared = Compared::default();
    compared.image("blank", &[0; 65_536]);
    compared.image("foreign", &[0x5a; 65_536]);
    let image = rich(Plants::default(), Age::Young).unwrap().image;
    compared.image("shrunk", &image[..40_960]);
    assert_eq!((compared.images, compared.refused), (3, 3));
}

/// Puts the golden image together again from the text that pins it.
fn golden_image() -> Vec<u8> {
    let text = include_str!("../golden/snapshots/Disk.image.snap");
    let mut image = vec![0; 1 << 20];
    let mut shown: Vec<(String, Vec<u8>)> = Vec::new();
    for block in text.split("# slot ").skip(1) {
        let (title, lines) = block.split_once('\n').unwrap();
        let (place, title) = title.split_once(": ").unwrap();
        let at = usize::from_str_radix(place.split_once("0x").unwrap().1, 16).unwrap();
        // Copies of one thing, whichever zone or slot they lie in.
        let thing = title.replace("zone A", "").replace("zone B", "");
        let thing = thing.split(" copy ").next().unwrap().to_owned();
        let bytes = if lines.starts_with("# the same bytes") {
            shown.iter().rev().find(|(other, _)| *other == thing).unwrap().1.clone()
        } else {
            bytes_of(lines)
        };
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        shown.push((thing, bytes));
    }
    image
}

fn bytes_of(lines: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let hex = line.split("  ").nth(1).unwrap();
        if let Some(count) = hex.strip_prefix("00*") {
            bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0);
        } else {
            bytes.extend(hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
    }
    bytes
}
