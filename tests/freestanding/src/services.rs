//! The services, over the whole daemon.

use keystored::{Ensured, Entropy, ensure, verify};

use crate::calls::Machine;
use crate::volume;

/// What each service keeps is there after a restart.
pub(crate) fn check() -> Result<(), &'static str> {
    let mut machine = Machine::start(volume::formatted()?, 1)?;
    let made = keep_key(&mut machine, 1)?;
    let mut machine = machine.restart(2)?;
    let found = keep_key(&mut machine, 2)?;
    match (made, found) {
        ((made, Ensured::Made), (found, Ensured::Found)) if made == found => Ok(()),
        _ => Err("the device key is another after a restart"),
    }
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
