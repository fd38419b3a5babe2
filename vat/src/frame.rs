//! Stream framing: cuts messages out of a byte stream. Memory follows the bytes that arrived, never
//! the length that a frame claims, and a length above the limit is refused from the table alone.
use crate::limits::Limits;
use alloc::format;
use alloc::vec::Vec;
use capnp::message::{Reader, ReaderOptions, ReaderSegments};
use capnp::{Error, Word};

/// One received message.
pub(crate) type Incoming = Reader<Segments>;

/// The segments of one message, one after the other.
pub(crate) struct Segments {
    words: Vec<Word>,
    /// Where each segment ends, in bytes; empty for the usual single segment.
    ends: Vec<usize>,
}

impl ReaderSegments for Segments {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        let bytes = Word::words_to_bytes(&self.words);
        let index = usize::try_from(index).ok()?;
        if self.ends.is_empty() {
            return (index == 0).then_some(bytes);
        }
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        bytes.get(start..*self.ends.get(index)?)
    }

    fn len(&self) -> usize {
        self.ends.len().max(1)
    }
}

/// Holds the one frame that is not complete yet.
#[derive(Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// Takes the next complete message off the front of `data`, or all of `data` if none is.
    ///
    /// # Errors
    /// The frame breaks a limit, or there is no memory for it.
    pub(crate) fn next(
        &mut self,
        data: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Incoming>, Error> {
        if self.bytes.is_empty() {
            // The usual case: a frame that arrived whole is copied once.
            if let Extent::Frame { table, bytes } = Extent::of(data, limits)?
                && let Some((frame, rest)) = data.split_at_checked(bytes)
            {
                *data = rest;
                return cut(frame, table, limits).map(Some);
            }
        }
        loop {
            let wanted = match Extent::of(&self.bytes, limits)? {
                Extent::Frame { table, bytes } if bytes == self.bytes.len() => {
                    let message = cut(&self.bytes, table, limits)?;
                    self.bytes.clear();
                    if self.bytes.capacity() > KEPT_BYTES_MAX {
                        self.bytes = Vec::new();
                    }
                    return Ok(Some(message));
                }
                Extent::Frame { bytes, .. } | Extent::AtLeast(bytes) => bytes,
            };
            let missing = wanted.saturating_sub(self.bytes.len()).min(data.len());
            let Some((taken, rest)) = data.split_at_checked(missing).filter(|_| missing > 0) else {
                return Ok(None);
            };
            self.grow(taken.len(), wanted)?;
            self.bytes.extend_from_slice(taken);
            *data = rest;
        }
    }

    /// Allocated bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for `added` bytes: at most twice what arrived, and never more than the frame.
    fn grow(&mut self, added: usize, wanted: usize) -> Result<(), Error> {
        let length = self.bytes.len() + added;
        if length > self.bytes.capacity() {
            let capacity = (2 * length).max(GROWTH_BYTES_MIN).min(wanted).max(length);
            self.bytes.try_reserve_exact(capacity - self.bytes.len()).map_err(no_memory)?;
        }
        Ok(())
    }
}

/// Appends a message, framed, to `output`.
pub(crate) fn append(output: &mut Vec<u8>, segments: &[&[u8]]) {
    let word = |number: usize| {
        u32::try_from(number).expect("a frame within limits has 32-bit lengths").to_le_bytes()
    };
    output.extend_from_slice(&word(segments.len() - 1));
    for segment in segments {
        output.extend_from_slice(&word(segment.len() / 8));
    }
    if segments.len().is_multiple_of(2) {
        output.extend_from_slice(&[0; 4]);
    }
    for segment in segments {
        output.extend_from_slice(segment);
    }
}

/// Bytes that [`append`] writes for these segments.
pub(crate) fn framed_bytes(segments: &[&[u8]]) -> usize {
    table_bytes(segments.len()) + segments.iter().map(|segment| segment.len()).sum::<usize>()
}

/// What the front of a stream tells about its first frame.
enum Extent {
    /// The table is not complete; it needs this many bytes.
    AtLeast(usize),
    /// The frame takes `bytes`, of which the first `table` are its table.
    Frame { table: usize, bytes: usize },
}

impl Extent {
    fn of(front: &[u8], limits: &Limits) -> Result<Extent, Error> {
        let Some((first, _)) = front.split_first_chunk::<4>() else {
            return Ok(Extent::AtLeast(8));
        };
        let before_last = u32::from_le_bytes(*first);
        if before_last >= limits.segments {
            return Err(Error::failed(format!(
                "a message of {} segments; the limit is {}",
                u64::from(before_last) + 1,
                limits.segments
            )));
        }
        let count = before_last as usize + 1;
        let table = table_bytes(count);
        if front.len() < table {
            return Ok(Extent::AtLeast(table));
        }
        let words: u64 = lengths(front, count).map(u64::from).sum();
        let bytes = words.saturating_mul(8).saturating_add(table as u64);
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= limits.frame_bytes => Ok(Extent::Frame { table, bytes }),
            _ => Err(Error::failed(format!(
                "a frame of {bytes} bytes; the limit is {}",
                limits.frame_bytes
            ))),
        }
    }
}

/// Makes a message of a complete frame.
fn cut(frame: &[u8], table: usize, limits: &Limits) -> Result<Incoming, Error> {
    let body = frame.get(table..).unwrap_or_default();
    let mut words = Vec::new();
    words.try_reserve_exact(body.len() / 8).map_err(no_memory)?;
    words.resize(body.len() / 8, capnp::word(0, 0, 0, 0, 0, 0, 0, 0));
    Word::words_to_bytes_mut(&mut words).copy_from_slice(body);
    let count = frame.first_chunk::<4>().map_or(1, |first| u32::from_le_bytes(*first) as usize + 1);
    let mut ends = Vec::new();
    if count > 1 {
        let mut end = 0;
        ends.extend(lengths(frame, count).map(|words| {
            end += words as usize * 8;
            end
        }));
    }
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(limits.traversal_words)).nesting_limit(limits.nesting);
    Ok(Reader::new(Segments { words, ends }, options))
}

/// The segments' lengths in words, from a complete table.
fn lengths(frame: &[u8], count: usize) -> impl Iterator<Item = u32> {
    let (table, _) = frame.get(4..).unwrap_or_default().as_chunks::<4>();
    table.iter().take(count).map(|length| u32::from_le_bytes(*length))
}

fn table_bytes(count: usize) -> usize {
    (4 + 4 * count).next_multiple_of(8)
}

fn no_memory(_: alloc::collections::TryReserveError) -> Error {
    Error::overloaded("OVERLOADED: no memory for a message".into())
}

/// Smallest allocation for an incomplete frame: one that most frames fit in.
const GROWTH_BYTES_MIN: usize = 512;
/// Largest buffer kept for the next incomplete frame.
const KEPT_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]
mod tests {
    use super::*;

    fn declared(lengths: &[u32]) -> Vec<u8> {
        let mut frame = (lengths.len() as u32 - 1).to_le_bytes().to_vec();
        lengths.iter().for_each(|length| frame.extend_from_slice(&length.to_le_bytes()));
        frame.resize(table_bytes(lengths.len()), 0);
        frame
    }

    fn whole(lengths: &[u32]) -> Vec<u8> {
        let mut frame = declared(lengths);
        let words: u32 = lengths.iter().sum();
        frame.extend((0..words * 8).map(|index| index as u8));
        frame
    }

    #[test]
    fn any_chunking_yields_the_same_messages() {
        let limits = Limits::default();
        let stream = [whole(&[3]), whole(&[0, 2]), whole(&[5, 1, 700]), whole(&[1])].concat();
        for chunk in [1, 2, 7, 8, 9, 64, 4096, stream.len()] {
            let mut buffer = FrameBuffer::default();
            let mut seen = Vec::<Vec<usize>>::new();
            for mut data in stream.chunks(chunk) {
                while let Some(message) = buffer.next(&mut data, &limits).unwrap() {
                    let segments = message.into_segments();
                    let count = segments.len() as u32;
                    seen.push((0..count).map(|i| segments.get_segment(i).unwrap().len()).collect());
                    assert_eq!(segments.get_segment(count), None);
                }
                assert!(data.is_empty());
            }
            let expected: [&[usize]; 4] = [&[24], &[0, 16], &[40, 8, 5600], &[8]];
            assert_eq!(seen, expected.map(<[usize]>::to_vec), "chunks of {chunk}");
        }
    }

    #[test]
    fn what_is_appended_is_cut_again() {
        let mut stream = Vec::new();
        let segments: [&[u8]; 2] = [&[1; 16], &[2; 8]];
        append(&mut stream, &segments);
        assert_eq!(stream.len(), framed_bytes(&segments));
        let message = FrameBuffer::default().next(&mut &stream[..], &Limits::default());
        let cut = message.unwrap().unwrap().into_segments();
        assert_eq!(cut.get_segment(1), Some(&[2u8; 8][..]));
    }

    #[test]
    fn a_claim_holds_no_memory() {
        let limits = Limits::default();
        let words = (limits.frame_bytes - 8) as u32 / 8;
        let mut buffer = FrameBuffer::default();
        let mut data = &declared(&[words])[..];
        assert!(buffer.next(&mut data, &limits).unwrap().is_none());
        assert!(buffer.capacity() <= GROWTH_BYTES_MIN, "{}", buffer.capacity());
        for _ in 0..100 {
            assert!(buffer.next(&mut &[0u8; 64][..], &limits).unwrap().is_none());
        }
        assert!(buffer.capacity() <= 2 * (8 + 6400), "{}", buffer.capacity());
    }

    #[test]
    fn excess_is_refused_from_the_table_alone() {
        let limits = Limits::default();
        let refused = |front: &[u8]| {
            let mut buffer = FrameBuffer::default();
            let result = buffer.next(&mut &front[..], &limits);
            result.is_err() && buffer.capacity() <= GROWTH_BYTES_MIN
        };
        let words = (limits.frame_bytes - 8) as u32 / 8;
        assert!(!refused(&declared(&[words])));
        assert!(refused(&declared(&[words + 1])));
        assert!(refused(&declared(&[u32::MAX; 16])));
        assert!(!refused(&declared(&[1; 16])));
        assert!(refused(&16u32.to_le_bytes()), "17 segments, before their table");
        assert!(refused(&u32::MAX.to_le_bytes()));
    }
}
