//! Taking a dump in, while it comes.

use alloc::collections::VecDeque;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use statefs_client::{Call, Durability, Precondition, StateFs, WriteOptions};

use crate::error::Error;
use crate::head::{About, HEAD_BYTES_MAX};
use crate::id::Id;
use crate::shelf::{Keep, give_up, list, open};

/// A dump that was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// Its name.
    pub id: Id,
    /// Bytes that it takes, with its head.
    pub bytes: u64,
    /// The dumps that were given up for it.
    pub given_up: Vec<Id>,
}

/// Takes a dump in, of which `read` fills a buffer and tells how many bytes it filled, 0 at the end.
///
/// `bytes` is its size if that is known; what is too large is then refused before it begins, and one that ends before has
/// broken off. `nonce` is
/// any number that a dump that begins at the same moment does not have.
///
/// Others are given up once the new one is there, of those that were there before it: what the store has lost
/// first, then the oldest. So for a while the store holds it beyond what is kept, and dumps that end at the same
/// time are all there until the next one. A quota that suffices is twice [`Keep::bytes`] for each dump that may come
/// at the same time, and 38 bytes for each key.
///
/// Durability: when this returns, all of the dump is on the medium, as a `strict` write is. Before, nothing
/// of it is visible, and after an error nothing ever will be, but for
/// [`statefs_client::Error::Indeterminate`]. Memory: some chunks of 64 KiB, however large the dump is.
///
/// # Errors
/// [`Error::Source`] if `read` fails or ends before `bytes`, [`Error::TooLarge`], and those of the store. One that comes from
/// giving up old dumps leaves the new one where it is.
pub async fn record(
    store: &StateFs,
    about: &About,
    nonce: u32,
    keep: Keep,
    bytes: Option<u64>,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, ()>,
) -> Result<Recorded, Error> {
    let too_large = Error::TooLarge { bytes_max: keep.bytes };
    let head = about.encode();
    let whole = bytes.map(|bytes| bytes.saturating_add(head.len() as u64));
    if whole.is_some_and(|whole| whole > keep.bytes) {
        return Err(too_large);
    }
    let crash = &open(store);
    // A small machine takes less at a time.
    let hello = store.hello(concat!("crashd ", env!("CARGO_PKG_VERSION")));
    let newest = list(crash).await?.dumps.last().map(|dump| dump.id);
    let chunk_bytes = hello.await?.limits.value_bytes.clamp(HEAD_BYTES_MAX, CHUNK_BYTES);
    let id = Id::after(newest, nonce);
    let name = id.to_string();
    // Nothing can be demanded of a name that a lost stretch of the journal may have held, and after such a
    // loss that is each new one. The nonce alone keeps names apart then.
    let precondition = match crash.get_metadata(&name).await {
        Err(statefs_client::Error::DataLoss) => Precondition::Any,
        looked => looked.map(|_| Precondition::Absent)?,
    };
    let options = WriteOptions { precondition, durability: Durability::Strict };
    let writer = crash.writer(&name, whole, options);
    let mut under_way: VecDeque<Call<()>> = VecDeque::new();
    // The head begins the first chunk.
    let (mut filled, mut taken) = (head.len(), 0);
    let mut chunk = head;
    chunk.resize(chunk_bytes as usize, 0);
    loop {
        let more = fill(&mut chunk, &mut filled, &mut read)?;
        taken += filled as u64;
        if taken > keep.bytes {
            return Err(too_large);
        }
        if !more && whole.is_some_and(|whole| taken < whole) {
            return Err(Error::Source);
        }
        under_way.push_back(writer.write(chunk.get(..filled).unwrap_or_default()));
        filled = 0;
        if !more {
            break;
        }
        // Bounds what is held here and there.
        if under_way.len() >= CHUNKS_UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await?;
        }
    }
    for call in under_way {
        call.await?;
    }
    // Only what was there before it ends is given up for it. Its name is as old as its beginning, so to the
    // names alone it may be the oldest; and two that end together would each give up the other.
    let others = list(crash).await;
    writer.done().await?;
    // It is there, whatever fails from here on.
    let rest = Keep { dumps: keep.dumps.saturating_sub(1), bytes: keep.bytes - taken };
    let given_up = give_up(crash, others?.dumps, rest).await?;
    Ok(Recorded { id, bytes: taken, given_up })
}

/// Fills the rest of a chunk; tells whether there may be more behind it.
fn fill(
    chunk: &mut [u8],
    filled: &mut usize,
    read: &mut impl FnMut(&mut [u8]) -> Result<usize, ()>,
) -> Result<bool, Error> {
    while let Some(rest) = chunk.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
        let most = rest.len();
        let count = read(rest).map_err(|()| Error::Source)?;
        if count == 0 {
            return Ok(false);
        }
        *filled += count.min(most);
    }
    Ok(true)
}

/// Bytes of one chunk at most.
const CHUNK_BYTES: u32 = 64 << 10;

/// Chunks that are on their way at a time: together a quarter of what a connection may have in flight.
const CHUNKS_UNDER_WAY: usize = 8;
