//! A checkpoint's items: any bytes under tags that are right.

use crate::image::Base;
use crate::mount;
use journal::Zone;
use journal::layout::group;

/// Puts the bytes into the place of the checkpoint's items, in both copies, and mounts the volume.
///
/// # Panics
/// As [`mount::run`].
pub fn run(bytes: &[u8]) {
    // A refusal is an answer.
    let _ = mount::mount(&image(bytes), None);
}

/// Yields the volume with the bytes in the place of the checkpoint's items, in both copies.
pub fn image(bytes: &[u8]) -> Vec<u8> {
    let base = Base::old();
    let use_ = base.superblock.checkpoint.first().expect("the volume has a checkpoint");
    let geometry = &base.superblock.geometry;
    let mut image = base.image.clone();
    for zone in [Zone::A, Zone::B] {
        let offset = geometry.block_offset(zone, use_.segment, use_.start);
        let at = usize::try_from(offset).expect("it lies in the image");
        let room = geometry.segment_bytes() - group::BYTES;
        let items = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        let old = image.get_mut(at + group::BYTES..at + group::BYTES + room).expect("a segment");
        old.fill(0);
        for (into, byte) in old.iter_mut().zip(items) {
            *into = *byte;
        }
        let count = u32::try_from(items.len()).expect("a segment is small").to_le_bytes();
        let header = image.get_mut(at..at + group::BYTES).expect("a header");
        for (into, byte) in header.iter_mut().skip(group::PAYLOAD_BYTES.start).zip(count) {
            *into = byte;
        }
    }
    base.sealer.seal(&mut image);
    image
}

/// Yields the items of the volume's own checkpoint: what a corpus begins with.
pub fn items() -> Vec<u8> {
    let base = Base::old();
    let use_ = base.superblock.checkpoint.first().expect("the volume has a checkpoint");
    let offset = base.superblock.geometry.block_offset(Zone::A, use_.segment, use_.start);
    let at = usize::try_from(offset).expect("it lies in the image");
    let header = base.image.get(at..at + group::BYTES).expect("a header");
    let mut count = [0; 4];
    count.copy_from_slice(header.get(group::PAYLOAD_BYTES).expect("a header has 128 bytes"));
    let bytes = u32::from_le_bytes(count) as usize;
    base.image.get(at + group::BYTES..at + group::BYTES + bytes).unwrap_or_default().to_vec()
}
