//! What is derived from a directory: writers, readers, directories that can do less.

use std::time::Duration;

use statefs_client::{Error, ErrorCode, Rights, WriteOptions};

use crate::stage::{Stage, assert_denied, assert_refused};

/// Bytes of which no two neighbours are alike.
fn value(bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(bytes).collect()
}

pub(super) fn a_value_of_many_parts_is_visible_only_whole(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    let value = value(300_001);
    let writer = here.writer("k", Some(300_001), WriteOptions::default());
    for chunk in value.chunks(50_000) {
        port.wait(writer.write(chunk)).unwrap();
    }
    assert_eq!(port.wait(here.get("k")), Ok(None));
    let version = port.wait(writer.done()).unwrap();
    let Err(Error::Large(metadata)) = port.wait(here.get("k")) else { panic!("it is large") };
    assert_eq!((metadata.version, metadata.bytes), (version, 300_001));
    let reader = here.reader("k");
    assert_eq!(port.wait(reader.info()), Ok(Some(metadata)));
    let mut read = Vec::new();
    loop {
        let part = port.wait(reader.read(read.len() as u64, 0)).unwrap();
        if part.is_empty() {
            break;
        }
        read.extend(part);
    }
    assert!(read == value);
    port.wait(here.put("k", b"other")).unwrap();
    assert_eq!(port.wait(reader.read(0, 0)), Err(Error::Changed));
    // One that is dropped leaves nothing.
    let writer = here.writer("l", None, WriteOptions::default());
    port.wait(writer.write(&value[..50_000])).unwrap();
    drop(writer);
    assert_eq!(port.wait(here.get("l")), Ok(None));
    assert_eq!(port.wait(here.reader("l").info()), Ok(None));
}

pub(super) fn a_restricted_directory_can_do_less_and_ends(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    port.wait(here.put("a/k", b"v")).unwrap();
    let (narrow, revoker) = here.restrict("a", Rights::GET, None);
    let (inner, _) = narrow.restrict("", Rights::ALL, Some(Duration::from_secs(1 << 40)));
    for directory in [&narrow, &inner] {
        assert_eq!(port.wait(directory.get("k")).unwrap().unwrap().data, b"v");
        assert_denied(port.wait(directory.put("k", b"x")));
        assert_denied(port.wait(directory.delete("k")));
    }
    let reader = inner.reader("k");
    assert_eq!(port.wait(reader.read(0, 0)).unwrap(), b"v");
    port.wait(revoker.revoke()).unwrap();
    for directory in [&narrow, &inner] {
        assert_refused(port.wait(directory.get("k")), "REVOKED");
    }
    let refused = port.wait(reader.read(0, 0)).unwrap_err();
    assert_eq!(refused.refusal(), Some(ErrorCode::Revoked));
    assert_eq!(port.wait(here.get("a/k")).unwrap().unwrap().data, b"v");
}

pub(super) fn usage_counts_what_is_there(stage: &mut Stage<'_>) {
    let (port, here) = stage.owner();
    assert_eq!(port.wait(here.usage("")).unwrap().keys, 0);
    port.wait(here.put("a", b"12345")).unwrap();
    port.wait(here.put("a/b", b"")).unwrap();
    let usage = port.wait(here.usage("")).unwrap();
    let place_bytes = u64::try_from(stage.place().len()).unwrap();
    let expected = (place_bytes + 2 + 5) + (place_bytes + 4);
    assert_eq!((usage.keys, usage.bytes), (2, expected));
    assert_eq!(port.wait(here.usage("a/b")).unwrap().keys, 1);
}

pub(super) fn the_schema_describes_itself(stage: &mut Stage<'_>) {
    let port = stage.connect("owner");
    let description = port.wait(port.store().describe()).unwrap();
    assert_eq!(description.protocol, port.hello().protocol);
    assert!(description.schema.len() > 10_000);
}
