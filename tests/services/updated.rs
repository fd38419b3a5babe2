//! Boot control: whatever is cut off, the machine has something to boot, and its loader and its
//! system agree on what.

use std::num::NonZeroU8;

use blockdev::Cure;
use serde_json::json;
use statefs_client::{Rights, StateFs, WriteOptions};
use updated::boot::BootError;
use updated::{
    Control, Damage, Error, Refusal, Slot, Status, boot, change, find, initialise, open, reset,
};

use crate::bench::{Said, machine, run};
use crate::machine::Machine;
use crate::world::{World, both, cut_everywhere, places};

const PROGRAM: &str = env!("CARGO_BIN_EXE_updated-under-test");

const ONE: NonZeroU8 = NonZeroU8::new(1).unwrap();
const THREE: NonZeroU8 = NonZeroU8::new(3).unwrap();

type Change = fn(&Control) -> Result<Control, Refusal>;

/// An update that is tried and kept, then one that is tried and given up.
const STORY: &[(&str, Change)] = &[
    ("prepare", |control| control.prepare(Slot::B)),
    ("stage", |control| control.stage(Slot::B, ONE)),
    ("begin", |control| control.begin(Slot::B)),
    ("mark good", |control| control.mark_good(Slot::B)),
    ("prepare", |control| control.prepare(Slot::A)),
    ("stage", |control| control.stage(Slot::A, ONE)),
    ("begin", |control| control.begin(Slot::A)),
    ("roll back", |control| control.roll_back()),
];

fn updated(machine: &Machine, words: &str) -> Said {
    run(machine, PROGRAM, "updated", words, b"")
}

/// What the loader reads from the device of a machine that is off.
fn loader(world: &World) -> Result<Option<Control>, BootError> {
    let mut device = world.device();
    let before = device.visible().to_vec();
    let read = boot::read(&mut device, || true);
    assert!(device.visible() == before, "a loader writes nothing");
    read
}

fn system(world: &mut World) -> Result<Option<Control>, Error> {
    world.run("updated", None, async |store: StateFs| find(&open(&store)).await).0.unwrap()
}

#[test]
fn a_cut_at_any_write_leaves_the_control_from_before_or_after() {
    let first = async |store: StateFs| initialise(&open(&store), Slot::A).await;
    let mut world = World::new();
    assert_eq!(loader(&world), Ok(None));
    let mut before = None;
    let cuts = cut_everywhere(&world, "updated", first, |answer, world| {
        check(None, &Control::first(Slot::A), answer, world);
    });
    assert!(cuts >= 30, "{cuts} cuts");
    before.replace(world.run("updated", None, first).0.unwrap().unwrap());
    for (name, to) in STORY {
        let step = async |store: StateFs| change(&open(&store), to).await;
        let old = before.unwrap();
        let new = to(&old).unwrap();
        if new != old {
            let cuts = cut_everywhere(&world, "updated", step, |answer, world| {
                check(Some(&old), &new, answer, world);
            });
            assert!(cuts >= 30, "{name}: {cuts} cuts");
        }
        before.replace(world.run("updated", None, step).0.unwrap().unwrap());
        assert_eq!(loader(&world), Ok(before));
    }
}

/// Demands that what a cut left is one of both, that the loader and the system agree, and that there
/// is something to boot.
fn check(
    old: Option<&Control>,
    new: &Control,
    answer: Option<Result<Control, Error>>,
    mut world: World,
) {
    let found = loader(&world).unwrap();
    assert!(found.as_ref() == old || found.as_ref() == Some(new), "{found:?}");
    if let Some(answer) = answer {
        assert_eq!((answer.as_ref(), found.as_ref()), (Ok(new), Some(new)), "it was told of");
    }
    if let Some(found) = found {
        let slot = found.choose(0);
        assert!(matches!(found.status(slot), Status::Good | Status::Trying { left: 1.. }));
    }
    assert_eq!(system(&mut world), Ok(found));
    assert_eq!(loader(&world), Ok(found), "a mount changes nothing of it");
}

#[test]
fn two_that_change_the_control_at_once_both_do() {
    let mut world = World::new();
    let done = world.run("updated", None, async |store: StateFs| {
        let boot = open(&store);
        initialise(&boot, Slot::A).await?;
        change(&boot, |control| control.stage(Slot::B, ONE)).await?;
        // Each is asked again once the other was quicker.
        let begin = change(&boot, |control| control.begin(Slot::B));
        let good = change(&boot, |control| control.mark_good(Slot::B));
        let (begin, good) = both(begin, good).await;
        begin?;
        good?;
        find(&boot).await
    });
    let control = done.0.unwrap().unwrap().unwrap();
    assert_eq!((control.primary(), control.status(Slot::B)), (Slot::B, Status::Good));
}

#[test]
fn an_update_is_tried_kept_and_rolled_back() {
    let mut machine = machine();
    assert_eq!(updated(&machine, "status").exits(3), "");
    assert_eq!(updated(&machine, "stage b").exits(3), "");
    let first = updated(&machine, "init a -o json").json();
    assert_eq!(first["primary"], "A");
    assert_eq!(updated(&machine, "init a").exits(4), "");
    assert_eq!(updated(&machine, "prepare a").exits(4), "", "it runs from there");
    updated(&machine, "prepare b").exits(0);
    let staged = updated(&machine, "stage b --tries 2 -o json").json();
    assert_eq!(staged["b"], json!({"left": 2, "status": "trying"}));
    assert_eq!(updated(&machine, "stage b --tries 2").exits(4), "");
    assert_eq!(updated(&machine, "stage b --tries 0").exits(2), "");
    machine.kill();
    assert_eq!(choose(&machine, 0), "B");
    assert_eq!(choose(&machine, 2), "A", "the loader has counted two boots");
    machine.start();
    updated(&machine, "begin b").exits(0);
    machine.stop();
    assert_eq!((choose(&machine, 0), choose(&machine, 1)), ("B".into(), "A".into()));
    machine.start();
    let text = updated(&machine, "mark-good b").exits(0);
    assert!(text.starts_with("primary: B\nA: good\nB: good\n"), "{text}");
    machine.kill();
    assert_eq!(choose(&machine, 9), "B");
    machine.start();
    updated(&machine, "rollback").exits(0);
    assert_eq!(updated(&machine, "rollback").exits(4), "");
    let said = run(&machine, PROGRAM, "updated", &words_of_choose(&machine, 0), b"");
    assert_eq!(said.exits(1), "", "a daemon holds the volume");
    machine.kill();
    assert_eq!(choose(&machine, 0), "A");
    machine.start();
    // It belongs to its service alone.
    assert_eq!(run(&machine, PROGRAM, "keystored", "status", b"").exits(5), "");
    machine.stop();
}

#[test]
fn a_damaged_control_is_told_by_loader_and_system_until_it_is_reset() {
    let mut machine = machine();
    updated(&machine, "init a").exits(0);
    let operator = machine.connect("operator");
    let all = operator.directory("/state/boot", Rights::ALL);
    let mut record = all.get("control").unwrap().unwrap().data;
    record[6] = 1;
    all.put("control", &record).unwrap();
    drop((all, operator));
    for words in ["status", "begin a", "rollback", "init b"] {
        let said = updated(&machine, words);
        assert!(said.err.contains("CONTROL_DAMAGED"), "{words}: {said:?}");
        assert_eq!(said.exits(6), "");
    }
    assert_eq!(updated(&machine, "reset a").exits(2), "", "it must be said in full");
    machine.stop();
    let said = run(&machine, PROGRAM, "updated", &words_of_choose(&machine, 0), b"");
    assert_eq!(said.exits(6), "");
    machine.start();
    let reset = updated(&machine, "reset b --give-up-the-old-control -o json").json();
    assert!(reset["generation"].as_u64().unwrap() > 1, "it is none that there was: {reset}");
    assert_eq!(updated(&machine, "reset a --give-up-the-old-control").exits(4), "");
    machine.stop();
    assert_eq!(choose(&machine, 0), "B");
}

#[test]
fn a_control_that_the_medium_lost_is_damage_to_the_loader_and_not_absence() {
    let mut world = World::new();
    let first = async |store: StateFs| initialise(&open(&store), Slot::A).await;
    world.run("updated", None, first).0.unwrap().unwrap();
    let record = Control::first(Slot::A).encode();
    assert_eq!(world.spoil(&record), 2, "two copies");
    assert_eq!(loader(&world), Err(BootError::Damaged(Damage::Lost)));
    assert_eq!(system(&mut world), Err(Error::Damaged(Damage::Lost)));
    assert_eq!(loader(&world), Err(BootError::Damaged(Damage::Lost)));
}

/// What a checkpoint covers is not read at the mount, so it is the read of the control itself that fails.
#[test]
fn a_control_that_the_device_does_not_read_is_not_called_lost() {
    let mut world = World::new();
    let first = async |store: StateFs| initialise(&open(&store), Slot::A).await;
    world.run("updated", None, first).0.unwrap().unwrap();
    world.run("operator", None, async |store| store.admin().checkpoint().await).0.unwrap().unwrap();
    let control = Control::first(Slot::A);
    let record = control.encode();
    let mut device = world.device();
    let places = places(device.durable(), &record);
    assert_eq!(places.len(), 2, "two copies");
    for (at, told) in places.iter().zip([Ok(Some(control)), Err(BootError::Unreadable)]) {
        device.make_unreadable(*at as u64, record.len(), Cure::Never);
        assert_eq!(boot::read(&mut device, || true), told);
    }
    device.heal();
    assert_eq!(boot::read(&mut device, || true), Ok(Some(control)));
}

#[test]
fn what_is_too_long_for_a_control_is_told_with_its_length() {
    let mut world = World::new();
    let value = [7; 70_000];
    let written = world.run("operator", None, async |store| {
        let boot = store.directory("/state/boot", Rights::PUT);
        let writer = boot.writer("control", None, WriteOptions::default());
        for part in value.chunks(10_000) {
            writer.write(part).await?;
        }
        writer.done().await
    });
    written.0.unwrap().unwrap();
    let damage = Damage::Length { bytes: 70_000 };
    assert_eq!(loader(&world), Err(BootError::Damaged(damage)));
    assert_eq!(system(&mut world), Err(Error::Damaged(damage)));
}

/// A boot loader that counts, in a register, the boots of the generation that it saw last.
#[derive(Clone, Default)]
struct Counting {
    generation: u64,
    boots: u8,
}

impl Counting {
    /// Chooses what to boot, and counts it.
    fn boot(&mut self, world: &World) -> Slot {
        let control = loader(world).unwrap().expect("there is a control");
        if control.generation() != self.generation {
            *self = Self { generation: control.generation(), boots: 0 };
        }
        let slot = control.choose(self.boots);
        self.boots += 1;
        slot
    }
}

/// What was lost, were generations given out again: A runs, and B is staged at generation 2. B hangs before it begins, as often as it
/// may, and the loader has counted that. Damage takes the control, and the operator resets it, with A as the good one: generation 1.
/// A sound system is staged in B: generation 2, all of whose tries are used up already, so it is never booted.
#[test]
fn boots_from_before_a_reset_are_not_held_against_a_new_system() {
    let (mut world, mut register) = (World::new(), Counting::default());
    let stage =
        async |store: StateFs| change(&open(&store), |control| control.stage(Slot::B, THREE)).await;
    let first = async |store: StateFs| initialise(&open(&store), Slot::A).await;
    world.run("updated", None, first).0.unwrap().unwrap();
    let hung = world.run("updated", None, stage).0.unwrap().unwrap();
    let boots = [(); 4].map(|()| register.boot(&world));
    assert_eq!(boots, [Slot::B, Slot::B, Slot::B, Slot::A]);
    assert_eq!(world.spoil(&hung.encode()), 2, "two copies");
    assert_eq!(loader(&world), Err(BootError::Damaged(Damage::Lost)));
    for random in [0, u64::MAX] {
        let (mut world, mut register) = (world.clone(), register.clone());
        let reset = async |store: StateFs| reset(&open(&store), Slot::A, random).await;
        let control = world.run("updated", None, reset).0.unwrap().unwrap();
        assert_eq!(loader(&world), Ok(Some(control)));
        world.run("updated", None, stage).0.unwrap().unwrap();
        assert_eq!(register.boot(&world), Slot::B, "it has three tries");
    }
}

fn choose(machine: &Machine, boots: u8) -> String {
    run(machine, PROGRAM, "updated", &words_of_choose(machine, boots), b"").exits(0)
}

fn words_of_choose(machine: &Machine, boots: u8) -> String {
    format!("choose {} --boots {boots}", machine.image().display())
}
