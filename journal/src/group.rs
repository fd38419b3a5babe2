//! Commit groups: the unit of atomicity (FORMAT.md section 4).

use crate::field::{self, all_zero, put, u16_at, u32_at, u64_at};
use crate::geometry::VolumeGeometry;
use crate::layout::group as at;
use crate::plant::Plant;
use crate::record::{Kind, Record};
use crate::tag::{Keys, Tag};
use crate::types::{Birth, BlockIndex, Epoch, Lsn, Place, SegmentIndex, VolumeId, Zone};
use blockdev::Buffer;

/// What the header of a group states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Epoch of the use that it was written in.
    pub epoch: Epoch,
    /// Its segment.
    pub segment: SegmentIndex,
    /// Its first block.
    pub block: BlockIndex,
    /// LSN of its first record.
    pub first: Lsn,
    /// LSN of its last record.
    pub last: Lsn,
    /// Bytes of its records.
    pub payload_bytes: u32,
    /// Number of its records.
    pub record_count: u32,
    /// Header tag of the group before it.
    pub previous: Tag,
    /// Highest LSN that a returned flush covered when it was built.
    pub durable: Lsn,
    /// Tag over its records.
    pub payload_tag: Tag,
    /// Its own tag, by which the next group names it.
    pub tag: Tag,
    /// It holds a part of a checkpoint, not of the log.
    pub checkpoint: bool,
}

/// What a volume's groups are checked against.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The volume.
    pub volume: VolumeId,
    /// Its keys.
    pub keys: Keys,
    /// Its shape.
    pub geometry: VolumeGeometry,
}

impl Header {
    /// Yields the blocks that the group takes.
    pub fn blocks(&self, geometry: &VolumeGeometry) -> u32 {
        geometry.blocks(at::BYTES + self.payload_bytes as usize)
    }

    /// Yields what lies behind the header in `bytes`, verified or not.
    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(at::BYTES..at::BYTES + self.payload_bytes as usize)
    }
}

impl Verifier {
    /// Reads the group header at the start of `bytes`, if one verifies that was written for this place.
    ///
    /// Whether the payload is whole is another question: [`Verifier::records`].
    pub fn header(&self, segment: SegmentIndex, block: BlockIndex, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..at::BYTES)?;
        let header = self.stated(segment, block, bytes)?;
        let right = header.tag == self.keys.header_tag(bytes.get(..at::HEADER_TAG.start)?);
        (right || self.keys.plants.has(Plant::SkipHeaderTag)).then_some(header)
    }

    /// The same for a copy in `zone`, which says nothing of it: both are written alike, each may lie where the other should.
    pub(crate) fn header_in(
        &self,
        zone: Zone,
        segment: SegmentIndex,
        block: BlockIndex,
        bytes: &[u8],
    ) -> Option<Header> {
        if !self.keys.plants.has(Plant::ZoneInTag) {
            return self.header(segment, block, bytes);
        }
        let bytes = Buffer::copy_of(bytes.get(..at::BYTES)?);
        self.header(segment, block, &self.in_zone(zone, bytes))
    }

    /// Yields the bytes of a group as they lie in `zone`: the same in each. Applied twice it changes nothing.
    pub(crate) fn in_zone(&self, zone: Zone, mut group: Buffer) -> Buffer {
        if self.keys.plants.has(Plant::ZoneInTag)
            && let Some(byte) = group.get_mut(at::HEADER_TAG.start)
        {
            *byte ^= zone as u8;
        }
        group
    }

    /// Tells whether `bytes` start with the header that `header` was read from when it verified.
    pub(crate) fn is_header(&self, header: &Header, bytes: &[u8]) -> bool {
        // Its fields are all its bytes, so that the same fields have the same tag.
        self.stated(header.segment, header.block, bytes) == Some(*header)
    }

    /// Yields what the header at the start of `bytes` states, if it may have been written for this place; whether its
    /// tag is right is not looked at.
    fn stated(&self, segment: SegmentIndex, block: BlockIndex, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..at::BYTES)?;
        let known = field::array(bytes, at::MAGIC) == at::MAGIC_VALUE
            && u16_at(bytes, at::VERSION) == at::VERSION_VALUE
            && u16_at(bytes, at::FLAGS) & !at::FLAG_CHECKPOINT == 0
            && field::array(bytes, at::VOLUME) == self.volume.0
            && u32_at(bytes, at::SEGMENT) == segment.0
            && u32_at(bytes, at::BLOCK) == block.0;
        if !known {
            return None;
        }
        let header = Header {
            epoch: Epoch(field::array(bytes, at::EPOCH)),
            segment,
            block,
            first: Lsn(u64_at(bytes, at::FIRST_LSN)),
            last: Lsn(u64_at(bytes, at::LAST_LSN)),
            payload_bytes: u32_at(bytes, at::PAYLOAD_BYTES),
            record_count: u32_at(bytes, at::RECORD_COUNT),
            previous: Tag(field::array(bytes, at::PREVIOUS)),
            durable: Lsn(u64_at(bytes, at::DURABLE_LSN)),
            payload_tag: Tag(field::array(bytes, at::PAYLOAD_TAG)),
            tag: Tag(field::array(bytes, at::HEADER_TAG)),
            checkpoint: u16_at(bytes, at::FLAGS) & at::FLAG_CHECKPOINT != 0,
        };
        let end = u64::from(block.0) + u64::from(header.blocks(&self.geometry));
        let sound = Lsn::NONE < header.first
            && header.first <= header.last
            && header.last <= Lsn::READ_MAX
            && header.durable < header.first
            && end <= u64::from(self.geometry.segment_blocks());
        sound.then_some(header)
    }

    /// Yields the records of a group whose header is `header` and whose first byte `bytes` start with,
    /// if payload and padding verify.
    pub fn records<'a>(&self, header: &Header, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let blocks = header.blocks(&self.geometry) as usize;
        let body = bytes.get(at::BYTES..blocks * self.geometry.block_bytes())?;
        let (records, padding) = body.split_at_checked(header.payload_bytes as usize)?;
        let Header { epoch, segment, block, first, .. } = *header;
        let tag = self.keys.payload_tag(epoch, segment, block, first, records);
        let right = tag == header.payload_tag || self.keys.plants.has(Plant::SkipPayloadTag);
        (right && all_zero(padding)).then_some(records)
    }
}

/// Yields the blocks of a group with `records_bytes` of records.
pub fn group_blocks(geometry: &VolumeGeometry, records_bytes: usize) -> u32 {
    geometry.blocks(at::BYTES + records_bytes)
}

/// A group under construction, already at its final place.
pub struct Builder {
    buffer: Buffer,
    end: usize,
    epoch: Epoch,
    segment: SegmentIndex,
    block: BlockIndex,
    block_bytes: usize,
    next: Lsn,
    first: Lsn,
    record_count: u32,
}

impl Builder {
    /// Begins a group of at most `blocks` blocks, whose first record is `first`.
    pub fn new(
        geometry: &VolumeGeometry,
        epoch: Epoch,
        segment: SegmentIndex,
        block: BlockIndex,
        blocks: u32,
        first: Lsn,
    ) -> Self {
        Self {
            buffer: Buffer::zeroed(blocks as usize * geometry.block_bytes()),
            end: at::BYTES,
            epoch,
            segment,
            block,
            block_bytes: geometry.block_bytes(),
            next: first,
            first,
            record_count: 0,
        }
    }

    /// Appends a record and yields its number and place.
    ///
    /// # Panics
    /// When the record does not fit: the caller has counted.
    pub fn append(&mut self, kind: Kind, birth: Birth, key: &[u8], value: &[u8]) -> (Lsn, Place) {
        let lsn = self.next;
        let record = Record { kind, lsn, birth, key, value, in_doubt: false, manifest: false };
        (lsn, self.put(record))
    }

    /// Appends a record under the next number, whatever it states, and yields its place.
    ///
    /// # Panics
    /// As [`Builder::append`].
    pub fn put(&mut self, record: Record<'_>) -> Place {
        let record = Record { lsn: self.next, ..record };
        let offset = self.block.0 as usize * self.block_bytes + self.end;
        let offset = u32::try_from(offset).expect("a segment has at most 16 MiB");
        let place = Place { segment: self.segment, offset };
        let bytes = self.buffer.get_mut(self.end..self.end + record.bytes());
        record.encode(self.epoch, place, bytes.expect("the caller has counted"));
        self.end += record.bytes();
        self.record_count += 1;
        self.next = record.lsn.next();
        place
    }

    /// Finishes a group of a checkpoint, which holds `items` and no records.
    pub(crate) fn finish_checkpoint(
        mut self,
        verifier: &Verifier,
        items: &[u8],
        previous: Tag,
        base: Lsn,
    ) -> (Header, Buffer) {
        put(&mut self.buffer, at::FLAGS, &at::FLAG_CHECKPOINT.to_le_bytes());
        self.end = at::BYTES + items.len();
        put(&mut self.buffer, at::BYTES..self.end, items);
        self.finish(verifier, previous, base)
    }

    /// Finishes the group: yields its header and its bytes, whole blocks.
    ///
    /// A group without records takes one LSN.
    pub fn finish(self, verifier: &Verifier, previous: Tag, durable: Lsn) -> (Header, Buffer) {
        let mut buffer = self.buffer;
        let last = self.next.before().max(self.first);
        let (epoch, segment, block) = (self.epoch, self.segment, self.block);
        let records = buffer.get(at::BYTES..self.end).unwrap_or_default();
        let payload_bytes = u32::try_from(records.len()).expect("a segment has at most 16 MiB");
        let payload_tag = verifier.keys.payload_tag(epoch, segment, block, self.first, records);
        assert!(durable < self.first, "a group is built before it is durable");
        let bytes = &mut *buffer;
        put(bytes, at::MAGIC, &at::MAGIC_VALUE);
        put(bytes, at::VERSION, &at::VERSION_VALUE.to_le_bytes());
        put(bytes, at::VOLUME, &verifier.volume.0);
        put(bytes, at::EPOCH, &epoch.0);
        put(bytes, at::SEGMENT, &segment.0.to_le_bytes());
        put(bytes, at::BLOCK, &block.0.to_le_bytes());
        put(bytes, at::FIRST_LSN, &self.first.0.to_le_bytes());
        put(bytes, at::LAST_LSN, &last.0.to_le_bytes());
        put(bytes, at::PAYLOAD_BYTES, &payload_bytes.to_le_bytes());
        put(bytes, at::RECORD_COUNT, &self.record_count.to_le_bytes());
        put(bytes, at::PREVIOUS, &previous.0);
        put(bytes, at::DURABLE_LSN, &durable.0.to_le_bytes());
        put(bytes, at::PAYLOAD_TAG, &payload_tag.0);
        let tag = verifier.keys.header_tag(bytes.get(..at::HEADER_TAG.start).unwrap_or_default());
        put(bytes, at::HEADER_TAG, &tag.0);
        let header = verifier.stated(segment, block, &buffer).expect("what is built makes sense");
        let whole = header.blocks(&verifier.geometry) as usize * self.block_bytes;
        assert!(whole == buffer.len(), "the builder was given the blocks that the group takes");
        (header, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier() -> Verifier {
        let geometry = VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap();
        Verifier { volume: VolumeId([8; 16]), keys: Keys::derive(&[1; 32]), geometry }
    }

    fn sample(verifier: &Verifier) -> (Header, Buffer) {
        let g = &verifier.geometry;
        let (segment, block) = (SegmentIndex(1), BlockIndex(2));
        let mut builder = Builder::new(g, Epoch([5; 16]), segment, block, 2, Lsn(10));
        builder.append(Kind::Put, Birth(10), b"/state/a", &[7; 500]);
        builder.append(Kind::Delete, Birth(11), b"/state/b", b"");
        builder.finish(verifier, Tag([6; 16]), Lsn(9))
    }

    #[test]
    fn verifies_what_it_builds_at_its_place_alone() {
        let verifier = verifier();
        let (header, bytes) = sample(&verifier);
        assert_eq!((header.first, header.last, header.record_count), (Lsn(10), Lsn(11), 2));
        assert!(verifier.records(&header, &bytes).is_some());
        assert!(verifier.header(SegmentIndex(1), BlockIndex(3), &bytes).is_none());
        assert!(verifier.header(SegmentIndex(0), BlockIndex(2), &bytes).is_none());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let verifier = verifier();
        let (_, bytes) = sample(&verifier);
        for bit in 0..bytes.len() * 8 {
            let mut bad = Buffer::copy_of(&bytes);
            bad[bit / 8] ^= 1 << (bit % 8);
            let header = verifier.header(SegmentIndex(1), BlockIndex(2), &bad);
            let whole = header.and_then(|header| verifier.records(&header, &bad).map(|_| ()));
            assert!(whole.is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_watermark_takes_one_number() {
        let verifier = verifier();
        let place = (SegmentIndex(0), BlockIndex(0));
        let builder = Builder::new(&verifier.geometry, Epoch([5; 16]), place.0, place.1, 1, Lsn(4));
        let (header, _) = builder.finish(&verifier, Tag::default(), Lsn(3));
        assert_eq!((header.first, header.last, header.record_count), (Lsn(4), Lsn(4), 0));
    }
}
