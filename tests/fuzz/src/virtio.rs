//! A virtio disk that lies, in its used ring, lengths, status bytes and of itself.

use blockdev::virtio::fake;

/// Plays the history that the bytes tell.
///
/// # Panics
/// When a request does not end once, or is said to be done and was not.
pub fn run(bytes: &[u8]) {
    // A device that never stops costs the memory that it has: seeded tests have some of those.
    fake::play(bytes, true);
}
