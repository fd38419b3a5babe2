//! The services, over the whole daemon.

use core::num::NonZeroU8;
use keystored::{Ensured, Entropy, ensure, verify};
use updated::{Slot, boot, change, initialise};

use crate::calls::Machine;
use crate::volume;

/// What each service keeps is there after a restart.
pub(crate) fn check() -> Result<(), &'static str> {
    let mut machine = Machine::start(volume::formatted()?, 1, "keystored")?;
    let made = keep_key(&mut machine, 1)?;
    let mut machine = machine.restart(2, "updated")?;
    stage(&mut machine)?;
    let mut machine = machine.restart(3, "keystored")?;
    let found = keep_key(&mut machine, 2)?;
    match (made, found) {
        ((made, Ensured::Made), (found, Ensured::Found)) if made == found => {}
        _ => return Err("the device key is another after a restart"),
    }
    // The loader's side, from the device itself.
    let control = boot::read(&mut machine.device, || false);
    let control = control.map_err(|_| "the loader cannot read the volume")?;
    match control.map(|control| control.choose(0)) {
        Some(Slot::B) => Ok(()),
        _ => Err("the loader chooses another system than was staged"),
    }
}

fn stage(machine: &mut Machine) -> Result<(), &'static str> {
    let boot = updated::open(&machine.store);
    let staged = machine.wait(async {
        initialise(&boot, Slot::A).await?;
        change(&boot, |control| control.stage(Slot::B, NonZeroU8::MIN)).await
    })?;
    staged.map(drop).map_err(|_| "a system cannot be staged")
}

fn keep_key(machine: &mut Machine, entropy: u8) -> Result<([u8; 32], Ensured), &'static str> {
    let entropy = Entropy::new([entropy; 32]).map_err(|_| "entropy is refused")?;
    let keystore = keystored::open(&machine.store);
    let ensured = machine.wait(ensure(&keystore, &entropy))?;
    let (key, ensured) = ensured.map_err(|_| "there is no device key")?;
    if !verify(&key.public(), b"message", &key.sign(b"message")) {
        return Err("a signature does not verify");
    }
    Ok((key.public(), ensured))
}
