//! Records: what decodes encodes to the same bytes, and no length is believed before it is checked.

use journal::layout::record as at;
use journal::{Epoch, Place, Record, SegmentIndex};

const EPOCH: Epoch = Epoch([3; 16]);
const PLACE: Place = Place { segment: SegmentIndex(2), offset: 640 };

/// Decodes the bytes as they are, and again with a CRC that is right.
///
/// # Panics
/// When a record that was decoded is another one when it is encoded and decoded again.
pub fn run(bytes: &[u8]) {
    check(bytes);
    let mut sealed = bytes.to_vec();
    super::seal::record(EPOCH, PLACE, &mut sealed);
    check(&sealed);
}

fn check(bytes: &[u8]) {
    let Ok(record) = Record::decode(EPOCH, PLACE, bytes) else {
        return;
    };
    let end = at::BYTES + record.key.len() + record.value.len();
    let mut again = vec![0; record.bytes()];
    record.encode(EPOCH, PLACE, &mut again);
    assert_eq!(again.get(..end), bytes.get(..end), "a record has one encoding");
    assert!(Record::decode(EPOCH, PLACE, &again) == Ok(record));
    let elsewhere = Place { offset: 648, ..PLACE };
    assert!(Record::decode(EPOCH, elsewhere, &again).is_err(), "it stands at one place");
}
