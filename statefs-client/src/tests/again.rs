//! Connections that end, and what is made again over the next one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::string::ToString as _;
use std::time::Duration;
use std::vec::Vec;

use super::over_socket::{Peer, answer, answer_all};
use super::server::{IN_DOUBT, OVERTAKEN, serve_within};
use crate::blocking::Directory;
use crate::{Batch, Client, Durability, Error, Result, Rights, Token, WriteOptions};

/// Ends the connection once it has heard what was asked.
fn hear_and_go(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    assert!(stream.read(&mut buffer).unwrap() > 0);
}

/// Answers until it hears of the key `end`, and ends without an answer to that.
fn answer_until_the_end(mut stream: UnixStream) {
    let vat = super::server::serve();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        let heard = &buffer[..count];
        if count == 0 || heard.windows(3).any(|word| word == b"end") {
            return;
        }
        vat.receive(heard).unwrap();
        while vat.poll(64) {}
        stream.write_all(&vat.take_output()).unwrap();
    }
}

fn client(first: fn(UnixStream)) -> (Peer, Client) {
    let peer = Peer::start_each(Vec::from([first, answer_all]));
    let client = Client::connect(&peer.path).unwrap();
    (peer, client)
}

#[test]
fn a_read_is_made_again_and_a_write_is_not() {
    let (_peer, client) = client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    assert_eq!(directory.get("k"), Ok(None));
    directory.put("k", b"v").unwrap();
    assert_eq!(directory.get("k").unwrap().unwrap().data, b"v");
    drop((directory, client));

    let (_peer, client) = self::client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    assert_eq!(directory.put("k", b"v").unwrap_err().code(), "INDETERMINATE");
    // Nothing of this one was sent over the connection that is over.
    directory.put_if_absent("k", b"v").unwrap();
    drop((directory, client));
}

/// The daemon had no room for more on this connection; it has on the next one.
#[test]
fn a_connection_that_was_ended_for_want_of_room_is_made_again() {
    let (_peer, client) = client(|stream| {
        let limits = vat::Limits { exports: 1, ..vat::Limits::default() };
        answer(stream, &serve_within(limits));
    });
    let directory = client.directory("/state", Rights::ALL);
    assert_eq!(directory.put("k", b"v").unwrap_err().code(), "INDETERMINATE");
    directory.put("k", b"v").unwrap();
    assert_eq!(directory.get("k").unwrap().unwrap().data, b"v");
    drop((directory, client));
}

/// Who does nothing else is not left with the connection that is over.
#[test]
fn each_way_to_make_calls_begins_anew_where_the_connection_was_lost() {
    let ways: [fn(&Client, &Directory) -> Result<()>; 6] = [
        |_, directory| directory.writer("k", None, WriteOptions::default()).finish().map(drop),
        |_, directory| directory.restrict("", Rights::ALL, None).0.get("k").map(drop),
        |client, directory| client.wait(directory.calls().get("k")).map(drop),
        |client, _| client.wait(client.calls().health()).map(drop),
        |client, _| client.run(async { client.calls().health().await }).map(drop),
        |client, _| client.admin().check(0).map(drop),
    ];
    for (at, way) in (0..).zip(ways) {
        let (_peer, client) = client(hear_and_go);
        let directory = client.directory("/state", Rights::ALL);
        let first = way(&client, &directory).unwrap_err();
        assert!(["INDETERMINATE", "DISCONNECTED"].contains(&first.code()), "{at}: {first}");
        let second = way(&client, &directory).err().map(|error| error.code());
        // The peer has neither restrictions nor an administration, and says so itself.
        assert!([None, Some("UNIMPLEMENTED")].contains(&second), "{at}: {second:?}");
        drop((directory, client));
    }
}

#[test]
fn a_batch_is_made_again_if_it_has_a_token() {
    let (_peer, client) = client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    let mut batch = Batch::new();
    batch.put("a", b"1").delete("b");
    assert_eq!(directory.commit(&batch).unwrap_err().code(), "INDETERMINATE");
    drop((directory, client));

    let (_peer, client) = self::client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    batch.token(Token::random().unwrap());
    let versions = directory.commit(&batch).unwrap();
    assert!(versions.len() == 2 && versions[0].is_some() && versions[1].is_none());
    drop((directory, client));
}

/// The second daemon refuses before it looks for the token, so it tells nothing of the first attempt.
#[test]
fn a_refusal_of_the_second_attempt_says_nothing_of_the_first() {
    let mut batch = Batch::new();
    batch.put("a", b"1").token(Token::random().unwrap());
    let (_peer, client) = client(hear_and_go);
    let directory = client.directory("/state/denied", Rights::ALL);
    let error = directory.commit(&batch).unwrap_err();
    assert_eq!(error.code(), "INDETERMINATE", "{error}");
    assert!(error.to_string().contains("ACCESS_DENIED"), "{error}");
    assert_eq!(directory.commit(&batch).unwrap_err().code(), "ACCESS_DENIED");
    drop((directory, client));
}

/// The second daemon does not know whether the first attempt was applied. It may be the one that told so over the first
/// connection, and then it takes it for heard after the second time.
#[test]
fn a_doubt_about_the_second_attempt_is_told_at_once() {
    let mut batch = Batch::new();
    batch.put(IN_DOUBT, b"1").token(Token::random().unwrap());
    let (_peer, client) = client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    let error = directory.commit(&batch).unwrap_err();
    assert_eq!((error.code(), &error), ("DATA_LOSS", &Error::BatchInDoubt));
    assert_eq!(directory.commit(&batch).unwrap().len(), 1, "told, and sent again");
    drop((directory, client));
}

/// Answers nothing before it has heard of the batch in doubt twice.
fn answer_the_second_time(mut stream: UnixStream) {
    let vat = super::server::serve();
    let (mut buffer, mut heard) = ([0; 4096], Vec::new());
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return;
        }
        heard.extend_from_slice(&buffer[..count]);
        vat.receive(&buffer[..count]).unwrap();
        let words = heard.windows(IN_DOUBT.len()).filter(|word| *word == IN_DOUBT.as_bytes());
        if words.count() > 1 {
            while vat.poll(64) {}
            stream.write_all(&vat.take_output()).unwrap();
        }
    }
}

/// The daemon must not take for heard what it answered after the client's patience was over.
#[test]
fn a_doubt_that_came_too_late_is_told_again() {
    let mut batch = Batch::new();
    batch.put(IN_DOUBT, b"1").token(Token::random().unwrap());
    for is_waited_for_later in [false, true] {
        let (_peer, client) = client(answer_the_second_time);
        client.set_timeout(Some(Duration::from_millis(20)));
        let directory = client.directory("/state", Rights::ALL);
        let commit = || match is_waited_for_later {
            true => client.wait(directory.calls().commit(&batch)),
            false => directory.commit(&batch),
        };
        let error = commit().unwrap_err();
        assert_eq!(error.code(), "INDETERMINATE", "{error}");
        client.set_timeout(None);
        assert_eq!(commit(), Err(Error::BatchInDoubt));
        assert_eq!(commit().unwrap().len(), 1, "told, and sent again");
        drop((directory, client));
    }
}

#[test]
fn a_batch_of_a_directory_that_ended_with_its_connection_stays_open() {
    let mut batch = Batch::new();
    batch.put("a", b"1").token(Token::random().unwrap());
    let (_peer, client) = client(hear_and_go);
    let directory = client.directory("/state", Rights::ALL);
    let (narrow, _revoker) = directory.restrict("", Rights::PUT, None);
    assert_eq!(narrow.commit(&batch).unwrap_err().code(), "INDETERMINATE");
    assert_eq!(narrow.commit(&batch).unwrap_err().code(), "DISCONNECTED");
    drop((narrow, directory, client));
}

#[test]
fn a_sync_before_the_end_of_a_value_does_not_vouch_for_it() {
    let (_peer, client) = client(answer_until_the_end);
    let directory = client.directory("/state", Rights::ALL);
    let options = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
    let writer = directory.writer("a", None, options);
    directory.sync().unwrap();
    writer.finish().unwrap();
    assert_eq!(directory.get("end"), Ok(None), "over the second connection");
    assert_eq!(directory.sync().unwrap_err().code(), "INDETERMINATE");
    drop((directory, client));
}

/// A sync vouches for what was answered before it was sent. What was sent before it, and not answered, it may overtake.
#[test]
fn a_sync_does_not_vouch_for_what_was_not_answered() {
    for is_read_late in [false, true] {
        let (_peer, client) = client(answer_until_the_end);
        let directory = client.directory("/state", Rights::ALL);
        let options = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
        let mut done = Some(directory.calls().writer(OVERTAKEN, None, options).done());
        directory.sync().unwrap();
        if !is_read_late {
            client.wait(done.take().unwrap()).unwrap();
        }
        assert_eq!(directory.get("end"), Ok(None), "over the second connection");
        if let Some(done) = done {
            client.wait(done).unwrap();
        }
        assert_eq!(directory.sync().unwrap_err().code(), "INDETERMINATE");
        drop((directory, client));
    }
}

#[test]
fn a_value_that_was_never_ended_is_no_loss() {
    let (_peer, client) = client(answer_until_the_end);
    let directory = client.directory("/state", Rights::ALL);
    let options = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
    drop(directory.writer("a", None, options));
    assert_eq!(directory.get("end"), Ok(None));
    directory.sync().unwrap();
    drop((directory, client));
}

#[test]
fn a_sync_does_not_vouch_for_another_connection() {
    let (_peer, client) = client(answer_until_the_end);
    let directory = client.directory("/state", Rights::ALL);
    directory.put_buffered("a", b"1").unwrap();
    directory.sync().unwrap();
    directory.put_buffered("a", b"2").unwrap();
    assert_eq!(directory.get("end"), Ok(None), "over the second connection");
    assert_eq!(directory.sync().unwrap_err().code(), "INDETERMINATE");
    directory.put_buffered("a", b"3").unwrap();
    directory.sync().unwrap();
    drop((directory, client));
}

#[test]
fn what_was_synced_before_a_connection_ended_is_no_loss() {
    let (_peer, client) = client(answer_until_the_end);
    let directory = client.directory("/state", Rights::ALL);
    let options = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
    directory.put_with("a", b"1", options).unwrap();
    directory.sync().unwrap();
    assert_eq!(directory.get("end"), Ok(None));
    directory.sync().unwrap();
    drop((directory, client));
}

#[test]
fn what_was_derived_ends_with_its_connection() {
    let (_peer, client) = client(answer_until_the_end);
    let directory = client.directory("/state", Rights::ALL);
    let (narrow, revoker) = directory.restrict("", Rights::GET, None);
    assert_eq!(directory.get("end"), Ok(None));
    assert_eq!(narrow.get("k").unwrap_err().code(), "DISCONNECTED");
    assert_eq!(revoker.revoke().unwrap_err().code(), "DISCONNECTED");
    assert_eq!(directory.get("k"), Ok(None));
    drop((narrow, revoker, directory, client));
}
