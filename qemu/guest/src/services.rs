//! The services of a machine as programs inside of it, each tested over a restart of the server.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::Cell;
use core::num::NonZeroU8;

use keystored::{Ensured, Entropy};
use statefs_client::StateFs;
use updated::{Control, Slot};

use crate::program::{Program, Start};

/// Yields the keeper of the device key. At the first start it sees that there is a key, at the next one that it is the same
/// key still, and works.
#[must_use]
pub fn keystored() -> Program {
    let made: Rc<Cell<Option<[u8; 32]>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let made = made.clone();
        Box::pin(async move {
            let failed = |error| format!("the device key: {error}");
            let entropy = Entropy::new(start.seed).map_err(failed)?;
            let keystore = ::keystored::open(&start.store);
            let (key, ensured) = ::keystored::ensure(&keystore, &entropy).await.map_err(failed)?;
            if !::keystored::verify(&key.public(), MESSAGE, &key.sign(MESSAGE)) {
                return Err("a signature of the device key does not verify".into());
            }
            match made.replace(Some(key.public())) {
                None => Ok(()),
                Some(before) if before == key.public() && matches!(ensured, Ensured::Found) => {
                    (start.print)(format_args!("SELFTEST: device key persist ok"));
                    Ok(())
                }
                Some(_) => Err("the device key is another after a restart".into()),
            }
        })
    };
    Program { channel: "keystored", run: Box::new(run) }
}

/// Yields the keeper of the boot control. At the first start it stages a system in slot B, at the next one it sees that this is
/// what it finds.
#[must_use]
pub fn updated() -> Program {
    let staged: Rc<Cell<Option<Control>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let staged = staged.clone();
        Box::pin(async move {
            let control = match staged.get() {
                None => stage(&start.store).await?,
                Some(_) => find(&start.store).await?.ok_or("the boot control is gone")?,
            };
            match staged.replace(Some(control)) {
                None => Ok(()),
                Some(before) if before == control => {
                    (start.print)(format_args!("SELFTEST: bootctl persist ok"));
                    Ok(())
                }
                Some(_) => Err("the boot control is another after a restart".into()),
            }
        })
    };
    Program { channel: "updated", run: Box::new(run) }
}

async fn find(store: &StateFs) -> Result<Option<Control>, String> {
    let boot = ::updated::open(store);
    ::updated::find(&boot).await.map_err(|error| format!("the boot control: {error}"))
}

/// Stages a system in slot B, unless an earlier test of this machine did.
async fn stage(store: &StateFs) -> Result<Control, String> {
    if let Some(control) = find(store).await? {
        return Ok(control);
    }
    let (boot, failed) = (::updated::open(store), |error| format!("the boot control: {error}"));
    ::updated::initialise(&boot, Slot::A).await.map_err(failed)?;
    let staged = |control: &Control| control.stage(Slot::B, NonZeroU8::MIN);
    ::updated::change(&boot, staged).await.map_err(failed)
}

/// What the key signs in the test.
const MESSAGE: &[u8] = b"StateFS self-test";
