//! Bytes of the disk that must never drift: superblock, groups, and where they lie on a volume.

use std::rc::Rc;

use blockdev::{BlockDevice, MemoryDevice};
use journal::layout::{chunk_key, manifest, note_key};
use journal::{
    Batch, Birth, BlockIndex, Builder, Clock, Disk, Durability, Epoch, FormatOptions, Journal,
    Keys, Kind, Lsn, Operation, Options, Origin, Outcome, Precondition, Random, Record, SLOT_BYTES,
    SegmentIndex, Superblock, Tag, Use, Verifier, VolumeGeometry, VolumeId, Zone, format,
    group_blocks, record_bytes,
};
use tests::drive::{Task, drive};

use crate::fields::{Hex, bytes_of};

#[test]
fn superblock() {
    check("Disk.superblock", &Hex::superblock(&sample_superblock()));
}

#[test]
fn group() {
    let mut text = String::from("# a put, a delete and the note of both\n");
    text += &Hex::group(&sample_group());
    text += "\n# two chunks and the manifest that makes them a value\n";
    text += &Hex::group(&sample_large());
    text += "\n# no record: a watermark\n";
    text += &Hex::group(&sample_watermark());
    check("Disk.group", &text);
}

/// Everything on a volume that was formatted, opened, given one put and left.
#[test]
fn image() {
    check("Disk.image", &inventory(&sample_image()));
}

#[test]
fn the_text_holds_every_byte() {
    let superblock = sample_superblock();
    assert_eq!(bytes_of(&Hex::superblock(&superblock)), superblock);
    for group in [sample_group(), sample_large(), sample_watermark()] {
        assert_eq!(bytes_of(&Hex::group(&group)), group);
    }
}

/// The sample bytes are what the engine reads back, not only what it writes.
#[test]
fn the_samples_are_sound() {
    let (verifier, place) = (verifier(), place());
    assert!(Superblock::decode(&sample_superblock()).is_ok());
    for group in [sample_group(), sample_large(), sample_watermark()] {
        let header = verifier.header(place.0, place.1, &group).unwrap();
        assert!(verifier.records(&header, &group).is_some());
    }
}

fn sample_superblock() -> [u8; 4096] {
    let use_ = |segment, start, end, epoch| Use {
        segment: SegmentIndex(segment),
        start: BlockIndex(start),
        end,
        epoch: Epoch(counted(epoch)),
    };
    Superblock {
        volume: VolumeId(counted(0x10)),
        geometry: geometry(),
        key: counted(0x40),
        sequence: 7,
        mount: 3,
        mount_id: counted(0x80),
        durable: Lsn(0x0102_0304),
        base: Lsn(2),
        base_tag: Tag(counted(0xa0)),
        replay_bytes: 4 << 20,
        checkpoint: vec![use_(9, 0, Some(Lsn(2)), 0xb0)],
        log: vec![use_(1, 5, Some(Lsn(0x0102_0304)), 0xc0), use_(2, 0, None, 0xd0)],
    }
    .encode()
}

fn sample_group() -> Vec<u8> {
    let (key, value) = (&b"/state/net/wifi"[..], &b"on"[..]);
    let deleted = b"/state/boot/slot";
    let (note_key, note) = (note_key(), b"\x01what was done");
    let payload = record_bytes(key.len(), value.len()) + record_bytes(deleted.len(), 0);
    let payload = payload + record_bytes(note_key.len(), note.len());
    built(payload, |builder| {
        builder.append(Kind::Put, Birth::new(Lsn(10), 3), key, value);
        builder.append(Kind::Delete, Birth::new(Lsn(11), 3), deleted, b"");
        builder.append(Kind::Note, Birth::new(Lsn(12), 3), &note_key, note);
    })
}

/// Of the mutations, with the records 6 and 7.
fn note_key() -> [u8; note_key::BYTES] {
    let mut key = [0; note_key::BYTES];
    key[note_key::RING].copy_from_slice(&[254]);
    key[note_key::LAST].copy_from_slice(&7_u64.to_be_bytes());
    key[note_key::COUNT].copy_from_slice(&2_u16.to_be_bytes());
    key
}

fn sample_large() -> Vec<u8> {
    let upload = Birth::new(Lsn(10), 3);
    let chunk_key = |number: u8| {
        let mut key = [0; chunk_key::BYTES];
        key[chunk_key::UPLOAD].copy_from_slice(&upload.0.to_be_bytes());
        key[chunk_key::NUMBER.end - 1] = number;
        key
    };
    let (key, chunks) = (b"/state/crash/1", [&b"first part "[..], b"the end"]);
    let mut stated = [0; manifest::BYTES];
    stated[manifest::UPLOAD].copy_from_slice(&upload.0.to_le_bytes());
    stated[manifest::TOTAL_BYTES].copy_from_slice(&18_u64.to_le_bytes());
    stated[manifest::CHUNK_BYTES].copy_from_slice(&11_u32.to_le_bytes());
    stated[manifest::CHUNK_COUNT].copy_from_slice(&2_u32.to_le_bytes());
    stated[manifest::DIGEST].copy_from_slice(&counted::<32>(0x20));
    let payload = chunks.iter().map(|chunk| record_bytes(chunk_key::BYTES, chunk.len()));
    let payload = payload.sum::<usize>() + record_bytes(key.len(), stated.len());
    built(payload, |builder| {
        for (number, chunk) in (0..).zip(chunks) {
            let birth = Birth(upload.0 + 1 + u64::from(number));
            builder.append(Kind::Chunk, birth, &chunk_key(number), chunk);
        }
        let birth = Birth(upload.0 + 3);
        let (kind, lsn, value) = (Kind::Put, Lsn::NONE, &stated[..]);
        let (in_doubt, manifest) = (false, true);
        builder.put(Record { kind, lsn, birth, key, value, in_doubt, manifest });
    })
}

fn sample_watermark() -> Vec<u8> {
    built(0, |_| {})
}

fn built(payload_bytes: usize, records: impl Fn(&mut Builder)) -> Vec<u8> {
    let (verifier, place) = (verifier(), place());
    let g = &verifier.geometry;
    let blocks = group_blocks(g, payload_bytes);
    let mut builder = Builder::new(g, Epoch(counted(0xd0)), place.0, place.1, blocks, Lsn(10));
    records(&mut builder);
    let (_, buffer) = builder.finish(&verifier, Tag(counted(0xe0)), Lsn(9));
    buffer.to_vec()
}

fn place() -> (SegmentIndex, BlockIndex) {
    (SegmentIndex(2), BlockIndex(5))
}

fn geometry() -> VolumeGeometry {
    VolumeGeometry::choose(1 << 20, 512, 512, 2).unwrap()
}

fn verifier() -> Verifier {
    let keys = Keys::derive(&counted(0x40));
    Verifier { volume: VolumeId(counted(0x10)), keys, geometry: geometry() }
}

/// Bytes that differ from each other, so that none can change places unnoticed.
fn counted<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first.wrapping_add(u8::try_from(index).unwrap()))
}

fn sample_image() -> Vec<u8> {
    let mut device = MemoryDevice::new(1 << 20);
    let disk = Disk::new(device.geometry());
    let of = disk.clone();
    let task: Task<_> = Box::pin(async move {
        let mut random = Random::from_seed([1; 32]);
        format(&of, &mut random, FormatOptions::default()).await
    });
    drive(&disk, &mut device, None, task).unwrap();
    let random = Random::from_seed([2; 32]);
    let open = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let journal = drive(&disk, &mut device, None, Box::pin(open)).unwrap();
    let put = Operation {
        key: Rc::from(&b"/state/net/wifi"[..]),
        value: Some(Rc::from(&b"on"[..])),
        precondition: Precondition::Absent,
    };
    let (durability, origin) = (Durability::Durable, Origin(1));
    let batch = Batch { operations: vec![put], durability, origin };
    let mut run: Task<()> = Box::pin(journal.run());
    let commit = journal.commit(batch);
    let outcome = drive(&disk, &mut device, Some(&mut run), Box::pin(commit));
    assert!(matches!(outcome, Ok(Outcome::Applied(_))));
    assert_eq!(disk.next_request().map(|request| request.operation), None);
    device.into_bytes()
}

/// Lists the slots that are not zero, says what each is and shows its bytes once.
fn inventory(image: &[u8]) -> String {
    let mut text = String::new();
    let mut shown: Vec<&[u8]> = Vec::new();
    let first: &[u8; 4096] = image.first_chunk().unwrap();
    let superblock = Superblock::decode(first).unwrap();
    let keys = Keys::derive(&superblock.key);
    let (volume, geometry) = (superblock.volume, superblock.geometry);
    let verifier = Verifier { volume, keys, geometry };
    for (slot, bytes) in image.chunks(SLOT_BYTES as usize).enumerate() {
        if bytes.iter().all(|&byte| byte == 0) {
            continue;
        }
        let at = slot as u64 * SLOT_BYTES;
        let (title, hex) = match block_at(&geometry, at) {
            None => (format!("superblock copy {}", copy_at(slot, image)), Hex::superblock(bytes)),
            Some((zone, segment, block)) => {
                let header = verifier.header(segment, block, bytes).expect("a group begins here");
                assert_eq!(header.blocks(&geometry), 1);
                let title = format!("zone {zone:?} segment {} block {}", segment.0, block.0);
                (title, Hex::group(bytes))
            }
        };
        text += &format!("# slot {slot} at {at:#x}: {title}\n");
        if shown.contains(&bytes) {
            text += "# the same bytes as above\n";
        } else {
            text += &hex;
            shown.push(bytes);
        }
        text.push('\n');
    }
    text + "# every other byte of the volume is zero\n"
}

fn copy_at(slot: usize, image: &[u8]) -> usize {
    let slots = image.len() / SLOT_BYTES as usize;
    let places = [0, 1, slots - 2, slots - 1];
    places.iter().position(|&place| place == slot).expect("a slot of the superblock")
}

/// Finds the block of a zone that begins `at` bytes from the start of the device.
fn block_at(geometry: &VolumeGeometry, at: u64) -> Option<(Zone, SegmentIndex, BlockIndex)> {
    let segments = (0..geometry.segment_count()).map(SegmentIndex);
    let blocks = segments.flat_map(|segment| {
        (0..geometry.segment_blocks()).map(move |block| (segment, BlockIndex(block)))
    });
    let mut places = blocks
        .flat_map(|(segment, block)| geometry.zones().map(move |zone| (zone, segment, block)));
    places.find(|&(zone, segment, block)| geometry.block_offset(zone, segment, block) == at)
}

fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
