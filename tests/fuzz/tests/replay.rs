//! Each target over its corpus and seeded mutations of it, without libFuzzer and on any toolchain.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use fuzz::mutate::mutate;
use fuzz::{TARGETS, Target};
use std::fs;
use std::path::{Path, PathBuf};

/// One test for each target, with how many mutations it tries.
macro_rules! replays {
    ($($target:ident: $count:expr;)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), $count);
        })*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replays! {
    checkpoint: 1_500;
    frame: 3_000;
    import: 3_000;
    key: 50_000;
    mount: 1_500;
    policy: 3_000;
    record: 50_000;
    superblock: 1_500;
    virtio: 20_000;
}

#[test]
fn every_target_is_replayed_and_has_a_program() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    for name in names {
        let program = folder("libfuzzer/targets").join(format!("{name}.rs"));
        let program = fs::read_to_string(program).unwrap();
        assert!(program.contains(&format!("fuzz::{name}::run")), "{name}");
    }
}

fn replay(name: &str, count: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(target);
    assert!(corpus.len() > 2, "{name} has a corpus");
    for bytes in &corpus {
        (target.run)(bytes);
    }
    for seed in 0..count {
        let bytes = mutate(&corpus, &mut fastrand::Rng::with_seed(seed));
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&bytes)) {
            println!("{name}, seed {seed}: {bytes:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder("corpus").join(target.name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
