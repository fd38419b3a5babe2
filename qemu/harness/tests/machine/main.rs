//! The bare machine in QEMU: its ports, its restarts, its disk when that fails or loses power.
//!
//! No test waits for a time: each waits for what the machine does, within the limit of the machine.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod channels;
mod disks;
mod faults;
mod marks;
mod power;
mod restarts;
mod selftest;
mod serve;
mod suite;

use std::path::PathBuf;

use harness::{Folder, Machine, Setup, image};
use statefs_client::blocking::Directory;
use statefs_client::{Client, Rights};

/// Two services with rights of their own, beside those inside of the machine; whoever else has a port is nobody.
const POLICY: &str = concat!(
    include_str!("../../src/services.toml"),
    r#"
[service.one]
channel = "one"
[service.two]
channel = "two"

[[grant]]
to = "one"
prefix = "/state/one"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "two"
prefix = "/state/two"
rights = ["get", "put"]
[[grant]]
to = "two"
prefix = "/state/one/shown"
rights = ["get"]
"#
);

const PORTS: &[&str] = &["one", "two", "stranger"];
const IMAGE_BYTES: usize = 8 << 20;

/// An image with an empty volume, in a folder of its own.
struct Volume {
    folder: Folder,
    path: PathBuf,
}

impl Volume {
    fn new() -> Self {
        Self::of(IMAGE_BYTES)
    }

    fn of(bytes: usize) -> Self {
        let folder = Folder::new().unwrap();
        let path = folder.join("state.img");
        image::make(&path, bytes).unwrap();
        Self { folder, path }
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.path, POLICY, PORTS)
    }

    /// Boots a machine over it.
    fn boot(&self) -> Machine {
        start(&self.setup())
    }
}

fn start(setup: &Setup) -> Machine {
    let mut machine = Machine::start(setup).unwrap_or_else(|failure| panic!("{failure}"));
    machine.ready().unwrap_or_else(|failure| panic!("{failure}"));
    machine
}

/// What service `one` may do.
fn all(client: &Client) -> Directory {
    let rights = Rights::GET | Rights::LIST | Rights::PUT | Rights::DELETE;
    client.directory("/state/one", rights)
}
