//! The state digest: one figure for everything that a volume holds.

use crate::journal::Journal;
use crate::read::Seen;
use crate::reader::{Opened, Piece, ValueReader};
use alloc::rc::Rc;
use alloc::vec::Vec;

/// 256 bits over every key, version and value, in key order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 32]);

impl core::fmt::Display for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a digest shows of a key on its way.
pub enum Shown<'a> {
    /// All of its value.
    Value(&'a [u8]),
    /// The next part of a large value; the last one ends at [`Seen::value_bytes`].
    Part {
        /// Bytes of the value before it.
        at: u64,
        /// The part.
        bytes: &'a [u8],
    },
    /// Nothing verifies, or not all of it: parts that came before count for nothing.
    Lost,
}

/// The value of a key is large: what follows is its length and its BLAKE3 hash.
const LARGE: u8 = 2;

/// Reads every value once, in key order, and yields the digest; `each` sees them on the way, large ones in parts.
///
/// Equal volumes with equal contents have equal digests. A value that is lost counts as such. Memory: one value of
/// 64 KiB.
pub async fn digest(journal: &Journal, mut each: impl FnMut(&[u8], &Seen, Shown<'_>)) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("StateFS v1 state digest");
    let mut next: Vec<u8> = Vec::new();
    loop {
        let mut found: Option<(Rc<[u8]>, Seen)> = None;
        journal.scan(&next, |key, seen| {
            found = Some((key.into(), seen));
            false
        });
        let Some((key, seen)) = found else {
            return Digest(*hasher.finalize().as_bytes());
        };
        hasher.update(&(key.len() as u64).to_le_bytes()).update(&key);
        hasher.update(&seen.version().0.to_le_bytes());
        let reader = match journal.open_seen(&key, &seen).await {
            Opened::Value(reader) if !seen.suspect => Some(reader),
            _ => None,
        };
        let whole = match reader {
            Some(reader) => value(reader, &mut hasher, |shown| each(&key, &seen, shown)).await,
            None => false,
        };
        if !whole {
            hasher.update(&[0]).update(&0_u64.to_le_bytes());
            each(&key, &seen, Shown::Lost);
        }
        // The least key behind this one.
        next = key.to_vec();
        next.push(0);
    }
}

/// Takes one value into the digest, unless some of it is lost.
async fn value(
    mut reader: ValueReader,
    hasher: &mut blake3::Hasher,
    mut each: impl FnMut(Shown<'_>),
) -> bool {
    let total_bytes = reader.total_bytes();
    let large = reader.large_digest();
    let mut at = 0;
    while at < total_bytes || large.is_none() {
        let Piece::Bytes(bytes) = reader.read(at).await else { return false };
        if large.is_none() {
            hasher.update(&[1]).update(&total_bytes.to_le_bytes()).update(&bytes);
            each(Shown::Value(&bytes));
            return true;
        }
        each(Shown::Part { at, bytes: &bytes });
        at += bytes.len() as u64;
    }
    let digest = large.unwrap_or_default();
    hasher.update(&[LARGE]).update(&total_bytes.to_le_bytes()).update(&digest);
    true
}
