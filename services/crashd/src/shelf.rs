//! The dumps that are there: listing, reading, giving up.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use statefs_client::{Directory, Held, ListOptions, Reader, Rights, StateFs};

use crate::error::Error;
use crate::head::{About, HEAD_BYTES_MAX};
use crate::id::Id;

/// The directory that belongs to this service. Keys in it that name no dump are left alone.
pub const PREFIX: &str = "/state/crash";

/// A dump that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dump {
    /// Its name.
    pub id: Id,
    /// Bytes that it takes, with its head; `None` if the store has lost it.
    pub bytes: Option<u64>,
}

/// The dumps that are there, as far as the store knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Oldest first; one that the store has lost is among them if it still knows the name.
    pub dumps: Vec<Dump>,
    /// Whether nothing is lost. If not, dumps may be missing, too: what was lost may have held their names.
    pub intact: bool,
}

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Dumps.
    pub dumps: usize,
    /// Bytes of all of them together, heads included.
    pub bytes: u64,
}

/// Opens the directory.
#[must_use]
pub fn open(store: &StateFs) -> Directory {
    store.directory(PREFIX, Rights::GET | Rights::LIST | Rights::PUT | Rights::DELETE)
}

/// Yields the dumps, and whether they are all.
///
/// # Errors
/// Those of the store.
pub async fn list(crash: &Directory) -> Result<Listing, Error> {
    let (mut dumps, mut intact) = (Vec::new(), true);
    let mut options = ListOptions { keys_only: true, ..ListOptions::default() };
    loop {
        let page = crash.page(&options).await?;
        intact &= page.intact;
        for entry in page.entries {
            let Ok(id) = entry.key.parse() else { continue };
            let bytes = match entry.held {
                Held::Value(value) => Some(value.bytes),
                Held::Large(metadata) => Some(metadata.bytes),
                Held::DataLoss => None,
            };
            dumps.push(Dump { id, bytes });
        }
        match page.next {
            Some(next) if next > options.after => options.after = next,
            _ => return Ok(Listing { dumps, intact }),
        }
    }
}

/// Yields what a dump is of.
///
/// # Errors
/// [`Error::Absent`], [`Error::Foreign`].
pub async fn about(crash: &Directory, id: Id) -> Result<About, Error> {
    Ok(head(&crash.reader(&id.to_string()), id).await?.0)
}

/// Hands the bytes of a dump to `write`, in order, without its head; yields what it is of.
///
/// # Errors
/// [`Error::Absent`], [`Error::Foreign`], and [`Error::Sink`] if `write` tells that it failed. What was
/// handed out before an error is the start of the dump.
pub async fn copy(
    crash: &Directory,
    id: Id,
    mut write: impl FnMut(&[u8]) -> Result<(), ()>,
) -> Result<About, Error> {
    let reader = crash.reader(&id.to_string());
    let (about, mut offset, bytes) = head(&reader, id).await?;
    while offset < bytes {
        let part = reader.read(offset, 0).await?;
        if part.is_empty() {
            let cause = "a value ends before its size".into();
            return Err(Error::Store(statefs_client::Error::Protocol { cause }));
        }
        write(&part).map_err(|()| Error::Sink)?;
        offset += part.len() as u64;
    }
    Ok(about)
}

/// Removes one dump.
///
/// # Errors
/// [`Error::Absent`].
pub async fn remove(crash: &Directory, id: Id) -> Result<(), Error> {
    if crash.delete(&id.to_string()).await? { Ok(()) } else { Err(Error::Absent(id)) }
}

/// Gives up dumps until what is left is within `keep`, and yields those: what the store has lost first, then the oldest.
///
/// # Errors
/// Those of the store; what was given up before stays so.
pub async fn prune(crash: &Directory, keep: Keep) -> Result<Vec<Id>, Error> {
    give_up(crash, list(crash).await?.dumps, keep).await
}

/// Does it with these dumps, and leaves others alone.
pub(crate) async fn give_up(
    crash: &Directory,
    dumps: Vec<Dump>,
    keep: Keep,
) -> Result<Vec<Id>, Error> {
    let (mut count, mut bytes) =
        (dumps.len(), dumps.iter().filter_map(|dump| dump.bytes).sum::<u64>());
    let mut given_up = Vec::new();
    // What is lost is of least use, and has no size to count.
    for lost in [true, false] {
        for Dump { id, bytes: size } in &dumps {
            if size.is_none() != lost {
                continue;
            }
            if count <= keep.dumps && bytes <= keep.bytes {
                return Ok(given_up);
            }
            // That somebody else did it already is as good.
            crash.delete(&id.to_string()).await?;
            given_up.push(*id);
            count -= 1;
            bytes -= size.unwrap_or(0);
        }
    }
    Ok(given_up)
}

/// Reads the head of a dump; yields what it is of, how many bytes the head has, and how many all of it.
async fn head(reader: &Reader, id: Id) -> Result<(About, u64, u64), Error> {
    let metadata = reader.info().await?.ok_or(Error::Absent(id))?;
    let head = reader.read(0, HEAD_BYTES_MAX).await.map_err(|error| match error {
        // No name is written twice, so it was given up meanwhile.
        statefs_client::Error::Changed => Error::Absent(id),
        error => Error::Store(error),
    })?;
    let (about, head_bytes) = About::decode(&head).ok_or(Error::Foreign(id))?;
    Ok((about, head_bytes as u64, metadata.bytes))
}
