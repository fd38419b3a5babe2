//! The state digest: one figure for everything that a volume holds.

use crate::journal::Journal;
use crate::read::{Got, Seen};
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

/// Reads every value once, in key order, and yields the digest; `each` sees them on the way.
///
/// Equal volumes with equal contents have equal digests. A value that is lost counts as such, and `each` gets `None`.
pub async fn digest(
    journal: &Journal,
    mut each: impl FnMut(&[u8], &Seen, Option<&[u8]>),
) -> Digest {
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
        let value = match journal.value(&key, &seen).await {
            Got::Value { value, .. } if !seen.suspect => Some(value),
            _ => None,
        };
        hasher.update(&(key.len() as u64).to_le_bytes()).update(&key);
        hasher.update(&seen.version.0.to_le_bytes());
        hasher.update(&[u8::from(value.is_some())]);
        let bytes = value.as_deref().unwrap_or_default();
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        each(&key, &seen, value.as_deref());
        // The least key behind this one.
        next = key.to_vec();
        next.push(0);
    }
}
