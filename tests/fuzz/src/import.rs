//! The importer of the predecessor's images: it ends, and what it tells is within the image.

#[path = "../../../statefs-cli/src/image/import/nexus.rs"]
mod nexus;

const RECORD_MAGIC: [u8; 4] = [0x46, 0x53, 0x58, 0x4e];
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Reads the bytes as they are, and again with every sum right that a length allows.
///
/// # Panics
/// When a fault lies outside of the image, or more is found than the image can hold.
pub fn run(bytes: &[u8]) {
    check(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    check(&sealed);
}

fn check(image: &[u8]) {
    let parsed = nexus::parse(image);
    assert!(parsed.damage.iter().all(|damage| damage.offset <= image.len()));
    assert!(parsed.records as usize <= image.len() / 15, "a record has 15 bytes at least");
    let bytes: usize = parsed.values.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(bytes <= image.len());
}

fn seal(image: &mut [u8]) {
    if image.len() >= 20 && image.starts_with(b"NXS2") {
        let sum = CRC.checksum(&image[..16]);
        image[16..20].copy_from_slice(&sum.to_le_bytes());
    }
    let mut at = 0;
    while at + 15 <= image.len() {
        let end = end_of(&image[at..]).map(|bytes| at + bytes);
        match end.filter(|end| end + 4 <= image.len()) {
            Some(end) => {
                let sum = CRC.checksum(&image[at..end]);
                image[end..end + 4].copy_from_slice(&sum.to_le_bytes());
                at = end + 4;
            }
            None => at += 1,
        }
    }
}

/// Yields how many bytes the record at the start of `bytes` claims, without its sum.
fn end_of(bytes: &[u8]) -> Option<usize> {
    let header: &[u8; 11] = bytes.first_chunk()?;
    let [a, b, c, d, _, k0, k1, v0, v1, v2, v3] = *header;
    let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
    let value_bytes = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
    let sound = [a, b, c, d] == RECORD_MAGIC && key_bytes <= 255 && value_bytes <= 65_536;
    sound.then_some(11 + key_bytes + value_bytes)
}
