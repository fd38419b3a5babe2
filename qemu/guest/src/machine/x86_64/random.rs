//! Random bytes of the processor.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

/// Fills `seed` from the processor's source; false if it has none, or that fails.
pub(crate) fn random(seed: &mut [u8; 32]) -> bool {
    let has_source = __cpuid(1).ecx & RDRAND != 0;
    let mut last = None;
    has_source
        && seed.chunks_mut(8).all(|place| {
            let Some(word) = word() else { return false };
            // A source that is stuck repeats itself: some processors do, after a sleep.
            let fresh = last.replace(word) != Some(word);
            place.copy_from_slice(&word.to_le_bytes());
            fresh
        })
}

/// Yields 64 bits, with the retries that the manual advises.
fn word() -> Option<u64> {
    (0..10).find_map(|_| {
        let (word, done): (u64, u8);
        // SAFETY: the caller has seen that the processor knows the instruction.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) done, options(nomem, nostack))
        }
        (done == 1).then_some(word)
    })
}

/// CPUID leaf 1, ecx.
const RDRAND: u32 = 1 << 30;
