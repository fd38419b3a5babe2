//! The blocking client against a thread that serves a socket, and against ones that do not.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::string::{String, ToString};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{format, fs, process};

use vat::Vat;

use super::server::{BUSY, PAGE_ENTRIES, serve};
use crate::blocking::Directory;
use crate::{Batch, Client, Error, ListOptions, Result, Rights, WriteOptions};

/// Serves one connection at a socket of its own with `serve`, and removes the socket.
pub(super) struct Peer {
    pub(super) path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub(super) fn start(serve: fn(UnixStream)) -> Self {
        Self::start_each(Vec::from([serve]))
    }

    /// Serves one connection after the other, each in its own way.
    pub(super) fn start_each(serve: Vec<fn(UnixStream)>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("client-{}-{number}.sock", process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            for serve in serve {
                serve(listener.accept().unwrap().0);
            }
        });
        Self { path, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Whoever still waits for a connection that was not needed gets one.
        drop(UnixStream::connect(&self.path));
        fs::remove_file(&self.path).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

pub(super) fn answer_all(stream: UnixStream) {
    answer(stream, &serve());
}

/// Answers for as long as the vat goes on; what it says at its end is sent too.
pub(super) fn answer(mut stream: UnixStream, vat: &Vat) {
    let mut buffer = [0; 4096];
    loop {
        let taken = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => vat.receive(&buffer[..count]),
        };
        while vat.poll(64) {}
        let sent = stream.write_all(&vat.take_output());
        if taken.is_err() || sent.is_err() || vat.over().is_some() {
            return;
        }
    }
}

fn swallow(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

#[test]
fn the_eight_lines_work() {
    let peer = Peer::start(answer_all);
    let client = Client::connect(&peer.path).unwrap();
    let wifi = client.directory("/state/net/wifi", Rights::GET | Rights::PUT);
    let version = wifi.put("ssid", b"harbour").unwrap();
    let value = wifi.get("ssid").unwrap().unwrap();
    assert_eq!((value.data.as_slice(), value.version), (b"harbour".as_slice(), version));
    let metadata = wifi.get_metadata("ssid").unwrap().unwrap();
    assert_eq!((metadata.version, metadata.bytes), (version, 7));
    assert_eq!(wifi.get("psk"), Ok(None));
    assert_eq!(client.hello().unwrap().protocol, 1);
    drop((client, wifi));
}

#[test]
fn a_directory_that_was_refused_is_opened_anew() {
    let ways: [fn(&Client, &Directory) -> Result<()>; 5] = [
        |_, directory| directory.get("k").map(drop),
        |_, directory| directory.commit(Batch::new().put("k", b"v")).map(drop),
        |_, directory| directory.reader("k").map(drop),
        |_, directory| directory.writer("k", None, WriteOptions::default()).finish().map(drop),
        |client, directory| client.wait(directory.calls().get("k")).map(drop),
    ];
    for way in ways {
        let peer = Peer::start(answer_all);
        let client = Client::connect(&peer.path).unwrap();
        let directory = client.directory(BUSY, Rights::ALL);
        assert_eq!(way(&client, &directory).unwrap_err().code(), "OVERLOADED");
        way(&client, &directory).unwrap();
        drop((directory, client));
    }
}

#[test]
fn a_list_walks_all_pages() {
    let peer = Peer::start(answer_all);
    let client = Client::connect(&peer.path).unwrap();
    let directory = client.directory("/state", Rights::ALL);
    let keys: Vec<String> = (0..2 * PAGE_ENTRIES + 1).map(|at| at.to_string()).collect();
    let calls: Vec<_> = keys.iter().map(|key| directory.calls().put(key, b"v")).collect();
    for call in calls {
        client.wait(call).unwrap();
    }
    let mut list = directory.list(ListOptions::default());
    let seen: Vec<String> = list.by_ref().map(|entry| entry.unwrap().key).collect();
    assert_eq!(seen, keys);
    assert!(list.is_intact());
    drop((client, directory));
}

#[test]
fn large_calls_pass_while_their_answers_come_back() {
    let peer = Peer::start(answer_all);
    let client = Client::connect(&peer.path).unwrap();
    let directory = client.directory("/state", Rights::ALL);
    // More than a socket buffers, in both directions at once.
    let value = std::vec![7; 300_000];
    let calls: Vec<_> =
        (0..4).map(|_| (directory.calls().put("k", &value), directory.calls().get("k"))).collect();
    for (put, get) in calls {
        client.wait(put).unwrap();
        assert_eq!(client.wait(get).unwrap().unwrap().data.len(), value.len());
    }
    drop((client, directory));
}

#[test]
fn silence_ends_after_the_timeout() {
    let peer = Peer::start(swallow);
    let client = Client::connect(&peer.path).unwrap();
    let timeout = Duration::from_millis(20);
    client.set_timeout(Some(timeout));
    let directory = client.directory("/state", Rights::ALL);
    assert_eq!(directory.get("k"), Err(Error::TimedOut { after: timeout }));
    assert_eq!(directory.put("k", b"v").unwrap_err().code(), "INDETERMINATE");
    drop((client, directory));
}

/// Sends a message of an unknown kind, which is sent back, again and again and reads nothing.
fn flood(mut stream: UnixStream) {
    let message = [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 200, 0, 0, 0, 0, 0, 0, 0];
    let one: Vec<u8> = message.into_iter().chain([0; 8]).collect();
    let many = one.repeat(1000);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) && stream.write_all(&many).is_ok() {}
}

/// Says again and again that it does not know a message, which nobody asked it to, until it has said so for long.
fn chatter(mut stream: UnixStream) {
    let one = [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let many: Vec<u8> = one.into_iter().chain([0; 8]).collect::<Vec<u8>>().repeat(1000);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) && stream.write_all(&many).is_ok() {}
}

/// Sends an answer that never becomes whole, byte by byte.
fn drip(mut stream: UnixStream) {
    // One segment of 8,000 bytes.
    let start = [0, 0, 0, 0, 232, 3, 0, 0];
    let bytes = start.into_iter().chain(std::iter::repeat_n(0, 2000));
    for byte in bytes {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_daemon_that_talks_and_never_answers_is_given_up_in_time() {
    let timeout = Duration::from_millis(40);
    for talk in [chatter, drip] {
        let peer = Peer::start_each(Vec::from([talk as fn(UnixStream), talk]));
        let client = Client::connect(&peer.path).unwrap();
        client.set_timeout(Some(timeout));
        let directory = client.directory("/state", Rights::ALL);
        assert_eq!(directory.get("k"), Err(Error::TimedOut { after: timeout }));
        drop((client, directory));

        let client = Client::connect(&peer.path).unwrap();
        client.set_timeout(Some(timeout));
        let directory = client.calls().directory("/state", Rights::ALL);
        let error = client.run(directory.put("k", b"v")).unwrap_err();
        assert!(error.to_string().contains("no answer within 40ms"), "{error}");
        drop((client, directory));
    }
}

#[test]
fn a_daemon_that_only_talks_does_not_fill_the_memory() {
    let peer = Peer::start(flood);
    let client = Client::connect(&peer.path).unwrap();
    let directory = client.directory("/state", Rights::ALL);
    let error = directory.put("k", b"v").unwrap_err();
    assert_eq!(error.code(), "INDETERMINATE");
    assert!(error.to_string().contains("than it reads"), "{error}");
    assert_eq!(directory.get("k").unwrap_err().code(), "DISCONNECTED");
    drop((client, directory));
}

#[test]
fn a_connection_cut_during_a_write_is_indeterminate_and_afterwards_is_not() {
    let peer = Peer::start(|mut stream| {
        let mut buffer = [0; 64];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0);
    });
    let client = Client::connect(&peer.path).unwrap();
    client.set_reconnects(false);
    let directory = client.directory("/state", Rights::ALL);
    let error = directory.put("k", b"v").unwrap_err();
    assert_eq!(error.code(), "INDETERMINATE", "{error}");
    // Nothing of this one was sent.
    assert_eq!(directory.put("k", b"v").unwrap_err().code(), "DISCONNECTED");
    assert_eq!(client.health().unwrap_err().code(), "DISCONNECTED");
}

#[test]
fn a_peer_that_speaks_something_else_is_told_apart() {
    let peer = Peer::start(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        swallow(stream);
    });
    let client = Client::connect(&peer.path).unwrap();
    let error = client.health().unwrap_err();
    assert_eq!(error.code(), "DISCONNECTED", "{error}");
    drop(client);
}

#[test]
fn nobody_there_says_how_to_start_one() {
    let missing = std::env::temp_dir().join("client-no-such-daemon.sock");
    let error = Client::connect(&missing).unwrap_err();
    assert_eq!(error.code(), "NO_DAEMON");
    let text = error.to_string();
    assert!(text.contains("client-no-such-daemon.sock") && text.contains("statefsd --dev"));
    for path in [String::new(), "x".repeat(200)] {
        let error = Client::connect(&path).unwrap_err();
        assert!(error.to_string().contains("is no path of a socket"), "{error}");
    }
}

#[test]
fn a_socket_without_its_daemon_is_refused() {
    let path = std::env::temp_dir().join(format!("client-{}-stale.sock", process::id()));
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(error.to_string().contains("its daemon is gone"), "{error}");
}

#[test]
fn work_of_several_calls_runs_until_the_daemon_falls_silent() {
    let peer = Peer::start(answer_all);
    let client = Client::connect(&peer.path).unwrap();
    let directory = client.calls().directory("/state", Rights::ALL);
    let moved = client.run(async {
        let version = directory.put("from", b"v").await?;
        directory.put("to", b"v").await?;
        directory.delete_if_version("from", version).await
    });
    assert_eq!(moved, Ok(true));
    drop((client, directory));

    let peer = Peer::start(swallow);
    let client = Client::connect(&peer.path).unwrap();
    client.set_timeout(Some(Duration::from_millis(20)));
    let directory = client.calls().directory("/state", Rights::ALL);
    let error = client.run(async { directory.put("k", b"v").await }).unwrap_err();
    assert_eq!(error.code(), "INDETERMINATE");
    let error = client.run(directory.get("k")).unwrap_err();
    assert_eq!(error.code(), "DISCONNECTED", "the connection is over: {error}");
    drop((client, directory));
}
