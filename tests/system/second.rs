//! Two daemons, one image.

use std::fs;

use rustix::process::Signal;
use statefs_client::Rights;

use crate::machine::Machine;

#[test]
fn a_second_daemon_on_the_image_is_refused_and_changes_nothing() {
    let policy = "version = 1\n[service.one]\nchannel = \"one\"\n[[grant]]\nto = \"one\"\n\
                  prefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    let mut machine = Machine::new(8 << 20, policy, &["one"]);
    machine.start();
    let client = machine.connect("one");
    let all = client.directory("/state", Rights::ALL);
    let before = all.put("k", b"before").unwrap();

    // The first one cannot write meanwhile, so whatever changes is the second one's doing.
    machine.freeze();
    let image = fs::read(machine.image()).unwrap();
    for name in ["two", "one"] {
        let socket = machine.socket(name);
        let mut second = machine.command();
        let output = second.arg("--socket").arg(&socket).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let holder = format!("in use by process {}", machine.pid().as_raw_nonzero());
        assert!(said.contains(&holder) && said.contains("state.img"), "{said}");
        assert_eq!(socket.exists(), name == "one");
    }
    assert!(image == fs::read(machine.image()).unwrap(), "the image has changed");
    machine.signal(Signal::CONT);

    assert_eq!(all.get("k").unwrap().unwrap().version, before);
    let after = all.put_if_version("k", b"after", before).unwrap();
    machine.check_health();
    machine.kill();
    machine.start();
    machine.check_health();
    let client = machine.connect("one");
    let value = client.directory("/state", Rights::GET).get("k").unwrap().unwrap();
    assert_eq!((&*value.data, value.version), (&b"after"[..], after));
    machine.stop();
}
