//! The superblock: what decodes has a shape that fits, and decodes from its own encoding.

use crate::image::{Base, SLOT};
use crate::mount;
use journal::{OpenError, Superblock};

/// Decodes the bytes as a copy, sealed again, and mounts a volume of which all four copies are this one.
///
/// # Panics
/// When a copy decodes to something that its own encoding does not decode to.
pub fn run(bytes: &[u8]) {
    let base = Base::young();
    let mut slot = [0; SLOT];
    let (kept, given) = (base.image.get(..SLOT).unwrap_or_default(), bytes.get(1..));
    if bytes.first().is_some_and(|byte| byte & 1 == 1) {
        // Few bytes of the input, where the rest says; the rest of the copy as it was.
        slot.copy_from_slice(kept);
        for edit in given.unwrap_or_default().chunks_exact(3) {
            let [low, high, byte] = *edit else { continue };
            if let Some(into) = slot.get_mut(usize::from(u16::from_le_bytes([low, high])) % SLOT) {
                *into ^= byte;
            }
        }
    } else {
        for (into, byte) in slot.iter_mut().zip(given.unwrap_or_default()) {
            *into = *byte;
        }
    }
    check(&slot);
    super::seal::superblock(&mut slot);
    check(&slot);
    let mut image = base.image.clone();
    let end = image.len();
    for start in [0, SLOT, end - 2 * SLOT, end - SLOT] {
        if let Some(copy) = image.get_mut(start..start + SLOT) {
            copy.copy_from_slice(&slot);
        }
    }
    if let Err(error) = mount::mount(&image, None) {
        assert!(!matches!(error, OpenError::Write(_) | OpenError::Flush(_)), "{error}");
    }
}

fn check(slot: &[u8; SLOT]) {
    let Ok(superblock) = Superblock::decode(slot) else {
        return;
    };
    let uses = superblock.checkpoint.iter().chain(&superblock.log);
    let geometry = superblock.geometry;
    for use_ in uses {
        assert!(use_.segment.0 < geometry.segment_count());
        assert!(use_.start.0 < geometry.segment_blocks());
    }
    assert_eq!(Superblock::decode(&superblock.encode()).as_ref(), Ok(&superblock));
}
