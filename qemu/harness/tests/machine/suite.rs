//! The suite that every host of the daemon passes, over the machine's ports.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use conformance::{CASES, Channel, End, Host, POLICY, SERVICES, SocketChannel};
use harness::{Folder, Machine, Setup, image};

use crate::start;

/// How long a port may be silent while an answer is due.
const PATIENCE: Duration = Duration::from_secs(60);

const IMAGE_BYTES: usize = 16 << 20;

/// A machine with a port for each service of the suite, and its volume.
struct Guest {
    setup: Setup,
    machine: Option<Machine>,
    _folder: Folder,
}

impl Guest {
    fn new() -> Self {
        let folder = Folder::new().unwrap();
        let path = folder.join("state.img");
        image::make(&path, IMAGE_BYTES).unwrap();
        let limit = Duration::from_secs(600);
        let setup = Setup { limit, ..Setup::new(&path, POLICY, SERVICES) };
        Self { machine: Some(start(&setup)), setup, _folder: folder }
    }
}

impl Host for Guest {
    fn connect(&mut self, service: &'static str) -> Box<dyn Channel> {
        let socket = self.machine.as_ref().unwrap().socket(service);
        Box::new(SocketChannel::new(UnixStream::connect(socket).unwrap(), PATIENCE))
    }

    fn restart(&mut self, end: End) {
        let machine = self.machine.take().unwrap();
        match end {
            End::Clean => drop(machine.shut_down().unwrap()),
            End::Kill => machine.kill().unwrap(),
        }
        self.machine = Some(start(&self.setup));
    }
}

#[test]
fn the_machine_passes_the_suite_of_every_host() {
    let failed = conformance::run(&mut Guest::new());
    assert!(failed.is_empty(), "of {} cases, these do not hold: {failed:?}", CASES.len());
}
