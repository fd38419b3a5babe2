//! Making the key, finding it again, and replacing it when an operator says so.

use statefs_client::{
    Directory, Durability, Metadata, Precondition, Rights, StateFs, Value, Version, WriteOptions,
};
use zeroize::Zeroize as _;

use crate::error::{Damage, Error};
use crate::key::{DeviceKey, Entropy};

/// The directory that belongs to this service; the policy grants it to nobody else.
pub const PREFIX: &str = "/state/keystore";

/// The key of the record, in that directory.
pub const KEY: &str = "device.key";

/// Opens the directory, for reading and writing: nothing is ever deleted.
#[must_use]
pub fn open(store: &StateFs) -> Directory {
    store.directory(PREFIX, Rights::GET | Rights::PUT)
}

/// How [`ensure`] came by the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ensured {
    /// It was there.
    Found,
    /// It was made now.
    Made,
}

/// What the store holds under [`KEY`].
enum Stored {
    Nothing,
    Key(DeviceKey),
    Damaged(Damage, Option<Version>),
}

/// Yields the key; `None` if none was ever made.
///
/// # Errors
/// [`Error::Damaged`] if there was one.
pub async fn find(keystore: &Directory) -> Result<Option<DeviceKey>, Error> {
    match look(keystore).await? {
        Stored::Nothing => Ok(None),
        Stored::Key(key) => Ok(Some(key)),
        Stored::Damaged(damage, _) => Err(Error::Damaged(damage)),
    }
}

/// Yields the key, and makes it of `entropy` if none was ever made.
///
/// Durability: when this returns, the key is on the medium, in every copy, and the medium says so in
/// a second place, so that its loss would be told. What was made was read back. Of two that make it at
/// once one does, and both yield it.
///
/// # Errors
/// [`Error::Damaged`] if there was one, which then stays as it is. After
/// [`statefs_client::Error::Indeterminate`] call it again, with the same entropy or other: the key was
/// made or not, and nobody has been told of it.
pub async fn ensure(
    keystore: &Directory,
    entropy: &Entropy,
) -> Result<(DeviceKey, Ensured), Error> {
    if let Some(key) = find(keystore).await? {
        return Ok((key, Ensured::Found));
    }
    let made = put(keystore, entropy, Precondition::Absent).await;
    let ensured = match made {
        Ok(()) => Ensured::Made,
        Err(Error::Store(statefs_client::Error::Conflict { .. })) => Ensured::Found,
        Err(error) => return Err(error),
    };
    // What is read back is what every later start will find.
    let key = find(keystore).await?.ok_or(Error::Damaged(Damage::Lost))?;
    Ok((key, ensured))
}

/// Makes a new key of `entropy` in the place of one that is damaged, which gives the machine another
/// identity: for an operator to decide, never for a program.
///
/// Durability: as [`ensure`].
///
/// # Errors
/// [`Error::Intact`] if the key is well, and if there is none: [`ensure`] makes it.
pub async fn replace(keystore: &Directory, entropy: &Entropy) -> Result<DeviceKey, Error> {
    let precondition = match look(keystore).await? {
        Stored::Damaged(_, Some(version)) => Precondition::Version(version),
        // Nothing can be demanded of a key that the store has lost.
        Stored::Damaged(_, None) => Precondition::Any,
        Stored::Nothing | Stored::Key(_) => return Err(Error::Intact),
    };
    put(keystore, entropy, precondition).await?;
    find(keystore).await?.ok_or(Error::Damaged(Damage::Lost))
}

async fn look(keystore: &Directory) -> Result<Stored, Error> {
    let value = match keystore.get(KEY).await {
        Ok(Some(value)) => value,
        Ok(None) => return Ok(Stored::Nothing),
        Err(statefs_client::Error::DataLoss) => return Ok(Stored::Damaged(Damage::Lost, None)),
        Err(statefs_client::Error::Large(Metadata { version, bytes })) => {
            return Ok(Stored::Damaged(Damage::Length { bytes }, Some(version)));
        }
        Err(error) => return Err(Error::Store(error)),
    };
    let Value { mut data, version, .. } = value;
    let decoded = DeviceKey::decode(&data);
    data.zeroize();
    Ok(match decoded {
        Ok(key) => Stored::Key(key),
        Err(damage) => Stored::Damaged(damage, Some(version)),
    })
}

async fn put(
    keystore: &Directory,
    entropy: &Entropy,
    precondition: Precondition,
) -> Result<(), Error> {
    let options = WriteOptions { precondition, durability: Durability::Strict };
    let record = DeviceKey::of(entropy).encode();
    keystore.put_with(KEY, &*record, options).await?;
    Ok(())
}
