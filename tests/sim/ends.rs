//! Other ends of power cuts: they are tried, the history does not notice them, and they see what it does not.

use journal::{Plant, Plants};
use tests::sim::Setup;
use tests::sim::counts::Counts;
use tests::sim::plan::Plan;
use tests::sim::play::{ENDS, OTHER_END, play, play_ending};
use tests::sim::shrink::shrink;

/// Histories that are played with other ends and without.
const HISTORIES: u64 = 60;

#[test]
fn a_history_goes_on_as_if_no_other_end_had_been_tried() {
    let (mut alone, mut beside) = (Counts::default(), Counts::default());
    for seed in 0..HISTORIES {
        let plan = Plan::of_seed(seed, Setup::of_seed(seed));
        let ending = |ends| {
            let counts = play_ending(&plan, Plants::default(), 4, ends);
            counts.unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"))
        };
        let (without, with) = (ending(0), ending(ENDS));
        assert_eq!(with, ending(ENDS), "seed {seed} is not played twice alike");
        assert_eq!(Counts { other_ends: 0, other_ends_judged: 0, ..with }, without, "seed {seed}");
        assert_eq!(without.other_ends, 0);
        alone.add(&without);
        beside.add(&with);
    }
    println!("{beside}");
    let cuts = alone.cuts_at_work + alone.cuts_in_recovery;
    assert!(beside.other_ends > cuts && beside.other_ends <= cuts * u64::from(ENDS));
    assert!(beside.other_ends_judged > beside.other_ends / 10);
    assert_eq!(beside.crashes(), alone.crashes() + beside.other_ends);
}

/// Of each plant there is a history that holds by itself and fails by another end alone; one of them by the model's table.
#[test]
fn another_end_shows_what_the_history_misses() {
    let seen = |plant, begins: &str| {
        let setup = Setup { judged_every: 1, ..Setup::planted(plant) };
        (20_000..20_400).find_map(|seed| {
            let plan = Plan::of_seed(seed, setup);
            let broken = play_ending(&plan, setup.plants, 1, ENDS).err()?;
            let at_an_end = broken.what.starts_with(begins) && broken.what.ends_with(OTHER_END);
            let holds = || play_ending(&plan, setup.plants, 1, 0).is_ok();
            (at_an_end && holds()).then_some((plan, broken))
        })
    };
    for (plant, begins) in [
        (Plant::AckBeforeFlush, "the state is no prefix"),
        (Plant::LateWrites, "the state is no prefix"),
        (Plant::LaterProves, "the engine finds"),
    ] {
        let Some((plan, broken)) = seen(plant, begins) else {
            panic!("{plant:?}: no other end shows it")
        };
        println!("{plant:?}, seed {}: {broken:?}", plan.seed);
        let shrunk = shrink(&plan, Plants::one(plant), true);
        let (least, broken) = shrunk.expect("the history fails again");
        assert!(least.steps.len() < 25, "{} steps are left", least.steps.len());
        assert_eq!(play_ending(&least, Plants::one(plant), 1, ENDS), Err(broken));
        assert!(play(&least, Plants::default()).is_ok(), "nothing but the plant is wrong");
    }
}
