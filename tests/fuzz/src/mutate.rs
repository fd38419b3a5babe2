//! Seeded mutations of a corpus: what a run without libFuzzer does.

use fastrand::Rng;

/// Longest input that is made.
const BYTES_MAX: usize = 8192;

/// Yields another input made of one or two of the corpus.
pub fn mutate(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let pick = |random: &mut Rng| match corpus.len() {
        0 => Vec::new(),
        count => corpus.get(random.usize(..count)).cloned().unwrap_or_default(),
    };
    let mut bytes = pick(random);
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..7) {
            0 => bytes.insert(at, random.u8(..)),
            1 => bytes.truncate(at),
            2 => {
                let other = pick(random);
                let from = random.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            3 => {
                let copied: Vec<u8> =
                    bytes.iter().skip(at).take(random.usize(..64)).copied().collect();
                bytes.extend(copied);
            }
            4 => {
                let interesting = [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'"'];
                let byte = interesting.get(random.usize(..interesting.len())).copied();
                if let (Some(into), Some(byte)) = (bytes.get_mut(at), byte) {
                    *into = byte;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(..8);
                }
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
