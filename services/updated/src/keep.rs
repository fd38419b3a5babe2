//! Reading and changing the control, as a whole and by compare-and-swap.

use statefs_client::{
    Directory, Durability, Metadata, Precondition, Rights, StateFs, Value, Version, WriteOptions,
};

use crate::control::{Control, Refusal, Slot};
use crate::error::{Damage, Error};

/// The directory that belongs to this service.
pub const PREFIX: &str = "/state/boot";

/// The key of the record, in that directory.
pub const KEY: &str = "control";

/// Changes by others that one change gives way to.
const ATTEMPTS_MAX: u32 = 16;

/// What the store holds under [`KEY`].
enum Stored {
    Nothing,
    Control(Control, Version),
    Damaged(Damage, Option<Version>),
}

/// Opens the directory, for reading and writing: nothing is ever deleted.
#[must_use]
pub fn open(store: &StateFs) -> Directory {
    store.directory(PREFIX, Rights::GET | Rights::PUT)
}

/// Yields the control; `None` if the machine has none yet.
///
/// # Errors
/// [`Error::Damaged`] if it had one.
pub async fn find(boot: &Directory) -> Result<Option<Control>, Error> {
    match look(boot).await? {
        Stored::Nothing => Ok(None),
        Stored::Control(control, _) => Ok(Some(control)),
        Stored::Damaged(damage, _) => Err(Error::Damaged(damage)),
    }
}

/// Makes the first control of a machine that runs from `good`.
///
/// Durability: strict; when this returns, the loss of it would be told.
///
/// # Errors
/// [`Error::Present`] if there is one, [`Error::Damaged`] if there was.
pub async fn initialise(boot: &Directory, good: Slot) -> Result<Control, Error> {
    let first = Control::first(good);
    match put(boot, &first, Precondition::Absent).await {
        Ok(()) => Ok(first),
        Err(Error::Store(statefs_client::Error::Conflict { .. })) => match find(boot).await? {
            Some(_) => Err(Error::Present),
            None => Err(Error::Contended),
        },
        Err(error) => Err(error),
    }
}

/// Changes the control as `to` says, and yields what it is then. `to` is asked again if somebody else
/// changed it meanwhile. What changes nothing is not written.
///
/// Durability: strict. Before and after are all that a cut can leave.
///
/// # Errors
/// [`Error::Refused`] with what `to` said; [`Error::Absent`], [`Error::Damaged`], [`Error::Contended`].
pub async fn change(
    boot: &Directory,
    to: impl Fn(&Control) -> Result<Control, Refusal>,
) -> Result<Control, Error> {
    for _ in 0..ATTEMPTS_MAX {
        let (before, version) = match look(boot).await? {
            Stored::Nothing => return Err(Error::Absent),
            Stored::Damaged(damage, _) => return Err(Error::Damaged(damage)),
            Stored::Control(control, version) => (control, version),
        };
        let after = to(&before)?;
        if after == before {
            return Ok(after);
        }
        match put(boot, &after, Precondition::Version(version)).await {
            Ok(()) => return Ok(after),
            Err(Error::Store(statefs_client::Error::Conflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Contended)
}

/// Makes a new control in the place of one that is damaged: for an operator who knows that the system
/// in `good` is.
///
/// `random` is a random number, of which the new generation is made. Which ones there were is lost with the
/// control, and a loader may have counted boots of any of them: counted from 1 again, a new system could be given
/// up before its first boot.
///
/// Durability: strict.
///
/// # Errors
/// [`Error::Present`] if the control is well; [`Error::Absent`] if there is none.
pub async fn reset(boot: &Directory, good: Slot, random: u64) -> Result<Control, Error> {
    let precondition = match look(boot).await? {
        Stored::Nothing => return Err(Error::Absent),
        Stored::Control(..) => return Err(Error::Present),
        Stored::Damaged(_, Some(version)) => Precondition::Version(version),
        // Nothing can be demanded of a key that the store has lost.
        Stored::Damaged(_, None) => Precondition::Any,
    };
    let control = Control::anew(good, random);
    put(boot, &control, precondition).await?;
    Ok(control)
}

async fn look(boot: &Directory) -> Result<Stored, Error> {
    match boot.get(KEY).await {
        Ok(Some(Value { data, version, .. })) => Ok(match Control::decode(&data) {
            Ok(control) => Stored::Control(control, version),
            Err(damage) => Stored::Damaged(damage, Some(version)),
        }),
        Ok(None) => Ok(Stored::Nothing),
        Err(statefs_client::Error::DataLoss) => Ok(Stored::Damaged(Damage::Lost, None)),
        Err(statefs_client::Error::Large(Metadata { version, bytes })) => {
            Ok(Stored::Damaged(Damage::Length { bytes }, Some(version)))
        }
        Err(error) => Err(Error::Store(error)),
    }
}

async fn put(boot: &Directory, control: &Control, precondition: Precondition) -> Result<(), Error> {
    let options = WriteOptions { precondition, durability: Durability::Strict };
    boot.put_with(KEY, &control.encode(), options).await?;
    Ok(())
}
