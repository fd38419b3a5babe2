//! Several keys, and values in parts, over a socket.

use std::io::{Read, Seek, SeekFrom, Write};
use std::string::ToString as _;
use std::vec::Vec;

use super::over_socket::{Peer, answer_all};
use super::server::{DAMAGED, PAGE_ENTRIES};
use crate::{Batch, Client, Error, Held, Rights, WriteOptions};

fn check(test: impl FnOnce(&crate::blocking::Directory)) {
    let peer = Peer::start(answer_all);
    let client = Client::connect(&peer.path).unwrap();
    test(&client.directory("/state", Rights::ALL));
    drop(client);
}

#[test]
fn several_keys_are_read_in_as_many_calls_as_it_takes() {
    check(|directory| {
        let version = directory.put("k", b"v").unwrap();
        let mut keys = std::vec!["none"; 2 * PAGE_ENTRIES];
        keys.extend(["k", DAMAGED]);
        let told = directory.get_many(&keys).unwrap();
        assert_eq!(told.len(), keys.len());
        assert!(told[..2 * PAGE_ENTRIES].iter().all(Option::is_none));
        let Some(Held::Value(value)) = &told[2 * PAGE_ENTRIES] else { panic!("{told:?}") };
        assert_eq!((value.version, value.data.as_slice()), (version, &b"v"[..]));
        assert_eq!(told[2 * PAGE_ENTRIES + 1], Some(Held::DataLoss));
        assert_eq!(directory.get_many(&[]), Ok(Vec::new()));
    });
}

#[test]
fn a_batch_tells_which_operation_kept_it_from_happening() {
    check(|directory| {
        let version = directory.put("k", b"v").unwrap();
        let mut batch = Batch::new();
        batch.put("a", b"1").put_if_absent("k", b"2");
        let error = directory.commit(&batch).unwrap_err();
        assert_eq!(error, Error::BatchConflict { index: 1, current: Some(version) });
        let mut batch = Batch::new();
        batch.delete(DAMAGED);
        let error = directory.commit(&batch).unwrap_err();
        assert_eq!((error.code(), &error), ("DATA_LOSS", &Error::BatchDataLoss { index: 0 }));
        let mut batch = Batch::new();
        for number in 0..100 {
            batch.put(&std::format!("k{number}"), &[0; 20_000]);
        }
        assert_eq!(directory.commit(&batch).unwrap_err().code(), "BATCH_TOO_LARGE");
    });
}

#[test]
fn debug_of_a_stream_shows_no_byte_of_the_value() {
    check(|directory| {
        let mut writer = directory.writer("k", None, WriteOptions::default());
        writer.write_all(b"secret").unwrap();
        let writing = std::format!("{writer:?}");
        writer.finish().unwrap();
        let mut reader = directory.reader("k").unwrap().unwrap();
        reader.read_exact(&mut [0]).unwrap();
        for told in [writing, std::format!("{reader:?}")] {
            assert!(!told.contains("115, 101") && !told.contains("ecret"), "{told}");
        }
    });
}

#[test]
fn a_value_of_any_size_is_a_stream_of_bytes() {
    check(|directory| {
        let value: Vec<u8> =
            (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(2_500_001).collect();
        let mut writer = directory.writer("k", None, WriteOptions::default());
        writer.write_all(&value).unwrap();
        assert_eq!(directory.get("k"), Ok(None), "nothing is visible before the end");
        let version = writer.finish().unwrap();
        let mut reader = directory.reader("k").unwrap().unwrap();
        assert_eq!((reader.metadata().version, reader.metadata().bytes), (version, 2_500_001));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == value);
        assert_eq!(reader.seek(SeekFrom::End(-3)).unwrap(), 2_499_998);
        let mut end = Vec::new();
        reader.read_to_end(&mut end).unwrap();
        assert_eq!(end, value[2_499_998..]);
        assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
        reader.seek(SeekFrom::Start(0)).unwrap();
        directory.put("k", b"other").unwrap();
        let error = reader.read(&mut [0; 8]).unwrap_err();
        let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        assert_eq!(error, Some(&Error::Changed));
        assert!(directory.reader("none").unwrap().is_none());
    });
}

#[test]
fn a_chunk_that_is_refused_ends_the_value() {
    check(|directory| {
        let mut writer = directory.writer(DAMAGED, None, WriteOptions::default());
        writer.write_all(&[1; 100]).unwrap();
        assert!(writer.flush().unwrap_err().to_string().contains("no room"));
        assert!(writer.write_all(&[1; 200_000]).is_err());
        assert_eq!(writer.finish().unwrap_err().code(), "NO_SPACE");
    });
}
