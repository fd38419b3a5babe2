//! The simulator's fixed seeds, the faults that it must find, and the histories that once failed.

#![forbid(unsafe_code)]

mod cuts;
mod ends;
mod found;
mod shrunk;
mod tripping;

use journal::{Plant, Plants};
use tests::sim::{Setup, Twist, run, run_history};

/// Crashes of the fixed set of seeds; more than half of them are other ends, which the histories leave again.
const CRASHES: u64 = 25_000;

/// Seeds whose histories crash about two hundred thousand times.
const ORDINARY_SEEDS: u64 = 4600;

#[test]
fn nothing_acknowledged_is_lost_over_the_fixed_seeds() {
    let setup = |seed| Setup { judged_every: 1, ..Setup::of_seed(seed) };
    let counts = run(0, CRASHES, 1, setup, |_| ());
    let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{counts}");
    assert!(counts.cuts_in_recovery > 1000 && counts.deaths_in_recovery > 500);
    assert!(counts.deaths_at_work > 1000 && counts.crashes_in_maintenance > 1000);
    assert!(counts.blocks_damaged > 150 && counts.blocks_unreadable > 20);
    assert!(counts.copies_repaired > 500 && counts.stores_stopped > 200);
    assert!(counts.other_ends > 10_000);
    assert!(counts.recoveries > 5000 && counts.recoveries_failed > 100);
    assert!(counts.recoveries_from_checkpoint > 500 && counts.recoveries_with_torn_tail > 300);
    assert!(counts.images_judged > 10_000 && counts.images_harmed > 5000);
    assert!(counts.losses_told > 1000 && counts.torn_in_the_window > 100);
    assert_eq!((counts.torn_called_damaged, counts.damaged_called_torn), (0, 0));
    assert!(
        counts.checkpoints > 500 && counts.segments_cleaned > 500 && counts.values_moved > 1000
    );
    assert!(
        counts.uploads > 500
            && counts.values_cut > 5000
            && counts.crashes_of_full_volumes > 500
            && counts.commits_acknowledged > 10_000
    );
}

/// A block of one copy goes back to what it held, beside a crash or while clients are at work.
#[test]
fn writes_that_one_copy_lost_cost_nothing() {
    let lapses = Setup {
        damage: true,
        failures: false,
        copies: 2,
        twist: Twist::Lapses,
        ..Setup::of_seed(0)
    };
    let setup = |seed| Setup { heavy: seed % 4 == 3, judged_every: 16, ..lapses };
    let counts = run(0, CRASHES / 5, 1, setup, |_| ());
    let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{counts}");
    assert!(counts.blocks_gone_back > 150 && counts.blocks_damaged_running > 100);
    assert!(counts.copies_scrubbed > 20 && counts.copies_repaired > 50);
}

/// A volume that is filled to its brim takes deletes whenever it is opened, and large values alone find room as long as they
/// take little.
#[test]
fn full_volumes_delete_and_uploads_alone_go_on() {
    let of =
        |twist| Setup { damage: false, failures: false, heavy: false, twist, ..Setup::of_seed(0) };
    for (twist, crashes) in [(Twist::Brim, 2500), (Twist::Uploads, 10), (Twist::Large, 1)] {
        let setup = |seed| Setup { copies: 1 + (seed % 2) as u8, ..of(twist) };
        let counts = run(0, crashes, 1, setup, |_| ());
        let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
        println!("{counts}");
        match twist {
            Twist::Uploads | Twist::Large => {
                assert!(counts.uploads > 400 && counts.segments_cleaned > 400);
            }
            _ => assert!(counts.deletes_of_full_volumes > 5 && counts.commits_refused_full > 100),
        }
    }
}

/// What takes a rare history to see, the histories of an ordinary run see within two hundred thousand crashes. Here those
/// alone are played that may: the others are what takes long.
#[test]
fn ordinary_histories_find_what_takes_a_rare_one() {
    for (plant, twist) in
        [(Plant::CutForgotten, Twist::Lapses), (Plant::UploadsInVain, Twist::Large)]
    {
        let seeds = (0..ORDINARY_SEEDS).filter(|seed| Setup::of_seed(*seed).twist == twist);
        let found = |seed| {
            let setup = Setup { plants: Plants::one(plant), ..Setup::of_seed(seed) };
            run_history(seed, setup).err()
        };
        let failure = seeds.into_iter().find_map(found);
        let failure = failure.unwrap_or_else(|| panic!("{plant:?} goes unnoticed"));
        println!("{plant:?}: {failure}");
        assert_eq!(run_history(failure.seed, Setup::of_seed(failure.seed)).err(), None);
    }
}

/// A volume of one copy gives up what is said of damage, and nothing of what is said of crashes.
#[test]
fn nothing_acknowledged_is_lost_with_one_copy_either() {
    let setup = |seed| Setup { damage: false, copies: 1, judged_every: 1, ..Setup::of_seed(seed) };
    let counts = run(0, CRASHES / 5, 1, setup, |_| ());
    let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{counts}");
    assert!(counts.cuts_in_recovery > 200 && counts.deaths_at_work > 200);
    assert!(counts.recoveries_with_torn_tail > 50 && counts.stores_stopped > 30);
    assert!(counts.checkpoints > 100 && counts.segments_cleaned > 100);
    assert!(counts.images_judged > 2000 && counts.copies_repaired == 0);
    let lost = |plant| {
        let setup = Setup { damage: false, copies: 1, ..Setup::planted(plant) };
        run(20_000, 200_000, 1, |_| setup, |_| ()).is_err()
    };
    assert!(lost(Plant::AckBeforeFlush) && lost(Plant::LateWrites));
}

#[test]
fn the_models_table_notices_an_engine_that_decides_otherwise() {
    let weakened =
        [Plant::LaterProves, Plant::EvidenceIgnored, Plant::NextUnseen, Plant::ReuseLsnAfterLoss];
    for plant in weakened {
        let setup = Setup { judged_every: 1, ..Setup::planted(plant) };
        let notices = |seed| {
            let failure = run_history(seed, setup).err()?;
            failure.broken.what.starts_with("the engine finds").then_some(failure)
        };
        let noticed = (0..100).find_map(notices);
        println!("{plant:?}: {}", noticed.unwrap_or_else(|| panic!("{plant:?} goes unnoticed")));
    }
}
