//! The suite of conformance over the daemon as a process, with a socket for each channel.

use std::os::unix::net::UnixStream;

use conformance::{Channel, End, Host, POLICY, SERVICES, SocketChannel, run};

use crate::machine::{Machine, PATIENCE};

impl Host for Machine {
    fn connect(&mut self, service: &'static str) -> Box<dyn Channel> {
        let stream = UnixStream::connect(self.socket(service)).unwrap();
        Box::new(SocketChannel::new(stream, PATIENCE))
    }

    fn restart(&mut self, end: End) {
        match end {
            End::Clean => self.stop(),
            End::Kill => self.kill(),
        }
        self.start();
    }
}

#[test]
fn the_daemon_behind_its_sockets_conforms() {
    let mut machine = Machine::new(16 << 20, POLICY, SERVICES);
    machine.start();
    assert_eq!(run(&mut machine), [""; 0], "{}", machine.said());
    machine.check_health();
    machine.stop();
}
