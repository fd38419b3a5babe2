//! Reading and writing the fields of `layout.rs`.

use core::ops::Range;

const INSIDE: &str = "layout.rs places every field inside its structure";

/// Yields the bytes of `field`.
pub(crate) fn array<const N: usize>(bytes: &[u8], field: Range<usize>) -> [u8; N] {
    bytes.get(field).and_then(|part| part.try_into().ok()).expect(INSIDE)
}

pub(crate) fn u8_at(bytes: &[u8], field: Range<usize>) -> u8 {
    u8::from_le_bytes(array(bytes, field))
}

pub(crate) fn u16_at(bytes: &[u8], field: Range<usize>) -> u16 {
    u16::from_le_bytes(array(bytes, field))
}

pub(crate) fn u32_at(bytes: &[u8], field: Range<usize>) -> u32 {
    u32::from_le_bytes(array(bytes, field))
}

pub(crate) fn u64_at(bytes: &[u8], field: Range<usize>) -> u64 {
    u64::from_le_bytes(array(bytes, field))
}

/// Writes `value`, which must be as long as `field`.
pub(crate) fn put(bytes: &mut [u8], field: Range<usize>, value: &[u8]) {
    bytes.get_mut(field).expect(INSIDE).copy_from_slice(value);
}

/// Tells whether every byte of `field` is zero.
pub(crate) fn is_zero(bytes: &[u8], field: Range<usize>) -> bool {
    all_zero(bytes.get(field).expect(INSIDE))
}

/// Tells whether every byte is zero; many are looked at together.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    let any = |part: &[u8]| part.iter().fold(0, |any, byte| any | byte);
    !words.iter().any(|word| any(word) != 0) && any(rest) == 0
}
