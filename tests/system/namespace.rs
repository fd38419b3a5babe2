//! A daemon with processes of its own, as in a container: its peers have no process number there.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use statefs_client::Client;

use crate::machine::{Machine, PATIENCE};

const POLICY: &str = "version = 1\n[service.host]\nchannel = \"host\"\n";

/// What `unshare` takes to give a program processes of its own: as root, and as anybody else.
const WAYS: [&[&str]; 2] = [
    &["--pid", "--fork", "--kill-child"],
    &["--user", "--map-root-user", "--pid", "--fork", "--kill-child"],
];

/// The daemon, and its namespace; both end with it.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        // What fails here is no failure of the daemon's.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn a_peer_without_a_process_number_is_let_in_like_others() {
    let unshare = |way: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(way);
        command
    };
    let works = |way: &&[&str]| {
        let tried = unshare(way).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(way) = WAYS.iter().copied().find(works) else {
        return eprintln!("this system gives nobody processes of their own: not tested");
    };
    let machine = Machine::new(4 << 20, POLICY, &["host"]);
    let daemon = machine.command();
    let socket = machine.socket("host");
    let mut command = unshare(way);
    command.arg(daemon.get_program()).args(daemon.get_args());
    command.arg("--socket").arg(format!("host={}", socket.display()));
    let _apart = Apart(command.stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while Client::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "it does not start");
        thread::sleep(Duration::from_millis(2));
    }
    // Each is let in, and none keeps the next one waiting.
    for _ in 0..20 {
        let client = Client::connect(&socket).unwrap();
        client.set_timeout(Some(PATIENCE));
        client.health().unwrap();
        assert_eq!(client.hello().unwrap().service.as_deref(), Some("host"));
    }
}
