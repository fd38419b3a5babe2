//! A client that keeps every byte that it is sent.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use statefs::{directory, state_fs};
use vat::Vat;

use crate::machine::PATIENCE;

/// A connection.
pub struct Wire {
    vat: Vat,
    stream: UnixStream,
    heard: Vec<u8>,
}

impl Wire {
    pub fn connect(socket: impl AsRef<Path>) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { vat: vat(), stream, heard: Vec::new() }
    }

    /// The directory of `prefix`, for every right that there is.
    pub fn directory(&self, prefix: &str) -> directory::Client {
        directory_of(&self.vat, prefix)
    }

    /// Moves bytes until the answer is there.
    pub fn wait<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            while self.vat.poll(100) {}
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut context) {
                return answer;
            }
            self.stream.write_all(&self.vat.take_output()).unwrap();
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the daemon ended the connection");
            self.heard.extend(&buffer[..count]);
            self.vat.receive(&buffer[..count]).unwrap();
        }
    }

    /// Every byte that came.
    pub fn heard(self) -> Vec<u8> {
        self.heard
    }
}

/// The bytes of a client that opens `prefix` and reads `key` so many times, in one go.
pub fn reads(prefix: &str, key: &str, count: usize) -> Vec<u8> {
    let vat = vat();
    let directory = directory_of(&vat, prefix);
    let mut asked = Vec::new();
    for _ in 0..count {
        let mut request = directory.get_request();
        request.get().set_key(key);
        asked.push(request.send());
    }
    while vat.poll(100) {}
    vat.take_output()
}

/// The bytes of a client that opens `prefix` and writes `key`.
pub fn write(prefix: &str, key: &str, value: &[u8]) -> Vec<u8> {
    let vat = vat();
    let mut request = directory_of(&vat, prefix).put_request();
    request.get().set_key(key);
    request.get().set_value(value);
    let _asked = request.send();
    while vat.poll(100) {}
    vat.take_output()
}

fn vat() -> Vat {
    Vat::new(None, vat::Limits::default())
}

fn directory_of(vat: &Vat, prefix: &str) -> directory::Client {
    let root: state_fs::Client = vat.bootstrap();
    let mut request = root.open_request();
    request.get().set_prefix(prefix);
    let mut rights = request.get().init_rights();
    rights.set_get(true);
    rights.set_list(true);
    rights.set_put(true);
    rights.set_delete(true);
    request.send().pipeline.get_directory()
}
