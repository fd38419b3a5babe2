//! The device key: made once, found again, never shown, never silently replaced.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use keystored::{DeviceKey, Ensured, Entropy, Error, ensure, find, open, verify};
use statefs_client::{Rights, StateFs};

use crate::bench::{Said, machine, run};
use crate::machine::Machine;
use crate::world::{World, cut_everywhere};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keystored-under-test");

fn keystored(machine: &Machine, words: &str) -> Said {
    run(machine, PROGRAM, "keystored", words, b"message")
}

#[test]
fn a_cut_at_any_write_leaves_no_key_or_the_key_for_ever() {
    let made = async |store: StateFs| {
        let entropy = Entropy::new([5; 32])?;
        Ok::<_, Error>(ensure(&open(&store), &entropy).await?.0.public())
    };
    let look = async |store: StateFs| {
        Ok::<_, Error>(find(&open(&store)).await?.map(|key: DeviceKey| key.public()))
    };
    let again = async |store: StateFs| {
        let entropy = Entropy::new([6; 32])?;
        ensure(&open(&store), &entropy).await.map(|(key, ensured)| (key.public(), ensured))
    };
    let cuts = cut_everywhere(&World::new(), "keystored", made, |answer, mut world| {
        let found = world.run("keystored", None, look).0.unwrap().unwrap();
        if let Some(answer) = answer {
            assert_eq!(found, Some(answer.unwrap()), "it was told of, so it is there");
        }
        let (public, ensured) = world.run("keystored", None, again).0.unwrap().unwrap();
        match found {
            Some(found) => assert_eq!((public, ensured), (found, Ensured::Found)),
            None => assert_eq!(ensured, Ensured::Made),
        }
        assert_eq!(world.run("keystored", None, look).0.unwrap(), Ok(Some(public)));
    });
    assert!(cuts >= 30, "{cuts} cuts");
}

#[test]
fn the_key_is_the_same_after_every_kind_of_restart() {
    let mut machine = machine();
    assert_eq!(keystored(&machine, "public").exits(3), "");
    assert_eq!(keystored(&machine, "sign -").exits(3), "");
    let first = keystored(&machine, "ensure -o json").json();
    assert_eq!(first["made"], true);
    let public = first["public"].as_str().unwrap().to_owned();
    let signature = keystored(&machine, "sign -").exits(0);
    assert!(verify(&bytes(&public), b"message", &bytes(&signature)));
    for kill in [true, false, true, true] {
        if kill {
            machine.kill()
        } else {
            machine.stop()
        }
        machine.start();
        let found = keystored(&machine, "ensure -o json").json();
        assert_eq!((&found["made"], found["public"].as_str()), (&false.into(), Some(&*public)));
        assert_eq!(keystored(&machine, "public").exits(0), public);
        assert_eq!(keystored(&machine, "sign -").exits(0), signature);
    }
    // It belongs to its service alone.
    assert_eq!(run(&machine, PROGRAM, "updated", "public", b"").exits(5), "");
    assert_eq!(run(&machine, PROGRAM, "updated", "ensure", b"").exits(5), "");
    machine.stop();
}

#[test]
fn a_record_that_is_none_is_refused_until_an_operator_gives_it_up() {
    let mut machine = machine();
    let old = keystored(&machine, "ensure").exits(0);
    let operator = machine.connect("operator");
    let all = operator.directory("/state/keystore", Rights::ALL);
    let mut record = all.get("device.key").unwrap().unwrap().data;
    record[20] ^= 1;
    let version = all.put("device.key", &record).unwrap();
    refuses(&machine);
    let found = all.get("device.key").unwrap().unwrap();
    assert_eq!((found.version, found.data), (version, record), "it was left alone");
    let new = gives_up(&machine);
    assert_ne!(new, old);
    drop((all, operator));
    machine.stop();
}

#[test]
fn a_key_that_the_medium_lost_is_refused_until_an_operator_gives_it_up() {
    let mut machine = machine();
    let old = keystored(&machine, "ensure").exits(0);
    machine.stop();
    // Both copies of the record, while no daemon looks.
    let image = fs::read(machine.image()).unwrap();
    let places: Vec<_> =
        image.windows(4).enumerate().filter(|(_, bytes)| bytes == b"SFDK").collect();
    assert_eq!(places.len(), 2, "two copies");
    let file = File::options().write(true).open(machine.image()).unwrap();
    for (place, _) in places {
        // Of the secret, which may be any byte.
        let place = place + 30;
        file.write_all_at(&[!image[place]], place as u64).unwrap();
    }
    machine.start();
    refuses(&machine);
    machine.kill();
    machine.start();
    refuses(&machine);
    let new = gives_up(&machine);
    assert_ne!(new, old);
    machine.kill();
    machine.start();
    assert_eq!(keystored(&machine, "ensure").exits(0), new);
    machine.stop();
}

#[test]
fn no_output_holds_the_secret() {
    let mut machine = machine();
    let mut said = Vec::new();
    for words in ["ensure", "ensure -o json", "public -o json", "sign -", "sign - -o json"] {
        let Said { out, err, .. } = keystored(&machine, words);
        said.extend(out);
        said.extend(err.into_bytes());
    }
    let operator = machine.connect("operator");
    let keystore = operator.directory("/state/keystore", Rights::GET);
    let record = keystore.get("device.key").unwrap().unwrap().data;
    let mut spoilt = record.clone();
    spoilt[75] ^= 1;
    operator.directory("/state/keystore", Rights::PUT).put("device.key", &spoilt).unwrap();
    let Said { out, err, .. } = keystored(&machine, "ensure");
    said.extend(out);
    said.extend(err.into_bytes());
    drop((keystore, operator));
    machine.stop();
    said.extend(machine.said().into_bytes());
    let (secret, public) = (&record[8..40], &record[40..72]);
    // Four bytes in a row are no accident.
    for part in secret.windows(4) {
        let hexadecimal: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!holds(&said, part) && !holds(&said, hexadecimal.as_bytes()));
    }
    let shown: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(holds(&said, shown.as_bytes()), "the search would have found it");
}

/// Demands that nothing is done with a damaged key, however often it is asked for.
fn refuses(machine: &Machine) {
    for words in ["ensure", "public", "sign -", "ensure"] {
        let said = keystored(machine, words);
        assert!(said.err.contains("KEY_DAMAGED"), "{said:?}");
        assert_eq!(said.exits(6), "");
    }
    assert_eq!(keystored(machine, "replace").exits(2), "", "it must be said in full");
}

/// Gives the damaged key up, and yields the public half of the new one.
fn gives_up(machine: &Machine) -> String {
    let new = keystored(machine, "replace --give-up-the-old-key").exits(0);
    assert_eq!(keystored(machine, "ensure").exits(0), new);
    let signature = keystored(machine, "sign -").exits(0);
    assert!(verify(&bytes(&new), b"message", &bytes(&signature)));
    let said = keystored(machine, "replace --give-up-the-old-key");
    assert!(said.err.contains("KEY_INTACT"), "{said:?}");
    assert_eq!(said.exits(4), "");
    new
}

fn bytes<const N: usize>(hexadecimal: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(hexadecimal.len(), 2 * N);
    std::array::from_fn(byte)
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|found| found == part)
}
