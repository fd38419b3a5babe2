//! What the daemon tells those who watch the machine.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use statefs_client::{ErrorCode, Rights};

use crate::machine::Machine;
use crate::openmetrics::{Figures, read};

const POLICY: &str = "version = 1\n[service.one]\nchannel = \"one\"\n[[grant]]\nto = \"one\"\n\
                      prefix = \"/state/one\"\nrights = [\"get\", \"put\", \"delete\"]\n\
                      quota = { keys = 2 }\n";

fn told(machine: &Machine) -> Figures {
    let mut text = String::new();
    UnixStream::connect(machine.path("metrics")).unwrap().read_to_string(&mut text).unwrap();
    read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn figures_are_told_on_a_socket_and_tell_what_was_done() {
    let mut machine = Machine::new(16 << 20, POLICY, &["one"]);
    machine.option("--metrics", &format!("unix:{}", machine.path("metrics").display()));
    machine.start();
    let mode = fs::metadata(machine.path("metrics")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "for the daemon's group");
    let before = told(&machine);
    let client = machine.connect("one");
    let own = client.directory("/state/one", Rights::ALL);
    for key in ["a", "b"] {
        own.put(key, b"value").unwrap();
    }
    assert_eq!(own.get("a").unwrap().unwrap().data, b"value");
    assert_eq!(own.put("c", b"value").unwrap_err().refusal(), Some(ErrorCode::QuotaExceeded));
    let other = client.directory("/state/other", Rights::ALL);
    assert!(other.get("a").is_err());
    let after = told(&machine);
    let grown = |figure: &str| {
        let value = |figures: &Figures| figures.get(figure).copied().unwrap_or_default();
        value(&after) - value(&before)
    };
    assert_eq!(grown("statefs_requests_total{method=\"Directory.put\",outcome=\"ok\"}"), 2);
    let over = "statefs_requests_total{method=\"Directory.put\",outcome=\"QUOTA_EXCEEDED\"}";
    assert_eq!(grown(over), 1);
    assert_eq!(grown("statefs_quota_rejections_total"), 1);
    assert_eq!(grown("statefs_commits_total"), 2);
    assert_eq!(grown("statefs_cache_hits_total"), 1);
    assert!(grown("statefs_denials_total") >= 1);
    assert_eq!(grown("statefs_keys"), 2);
    assert_eq!(grown("statefs_connections_accepted_total"), 1);
    // Two writes and one flush each, at least: a watermark may have come between.
    assert!(grown("statefs_device_writes_total") >= 4);
    assert!(grown("statefs_device_written_bytes_total") >= 4 * 4096);
    assert!(grown("statefs_device_flushes_total") >= 2);
    assert_eq!(after["statefs_mode{mode=\"healthy\"}"], 1);
    assert_eq!(after["statefs_mode{mode=\"degraded\"}"], 0);
    assert_eq!(after["statefs_policy_loads_total"], 1);
    for layer in ["core_limit", "not_dumpable", "no_new_privileges", "seccomp"] {
        assert_eq!(after[&format!("statefs_sandbox{{layer=\"{layer}\"}}")], 1, "{layer}");
    }
    let documented = include_str!("../../docs/operating.md");
    for series in after.keys() {
        let name = series.split('{').next().unwrap();
        let name = format!("`{}`", name.strip_suffix("_total").unwrap_or(name));
        assert!(documented.contains(&name), "{name} is in no table");
    }
    // A policy that cannot be loaded is an alarm here too.
    machine.write_policy("version = 2\n");
    machine.signal(Signal::HUP);
    machine.until("the fault is counted", |machine| {
        let told = told(machine);
        told["statefs_policy_faults_total"] == 1 && told["statefs_mode{mode=\"degraded\"}"] == 1
    });
    machine.stop();
    assert!(!machine.path("metrics").exists());
}

#[test]
fn figures_are_written_to_a_file_as_a_whole() {
    let mut machine = Machine::new(16 << 20, POLICY, &["one"]);
    let path = machine.path("figures.prom");
    machine.option("--metrics", &format!("file:{}", path.display()));
    machine.start();
    machine.until("the file is there", |_| path.exists());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "nothing for others: {mode:o}");
    let first = read(&fs::read_to_string(&path).unwrap()).unwrap();
    let own = machine.connect("one").directory("/state/one", Rights::ALL);
    own.put("a", b"value").unwrap();
    // The last ones are written when the daemon ends.
    machine.stop();
    let last = read(&fs::read_to_string(&path).unwrap()).unwrap();
    let put = "statefs_requests_total{method=\"Directory.put\",outcome=\"ok\"}";
    assert_eq!((first.get(put), last.get(put)), (None, Some(&1)));
    assert!(!machine.path("figures.prom.new").exists());
}

#[test]
fn figures_take_the_place_of_nothing_else() {
    let mut machine = Machine::new(16 << 20, POLICY, &["one"]);
    let path = machine.path("figures.prom");
    machine.option("--metrics", &format!("file:{}", path.display()));
    for taken in ["figures.prom", "figures.prom.new"].map(|name| machine.path(name)) {
        fs::write(&taken, "an image, say").unwrap();
        let socket = machine.socket("one");
        let output = machine.command().arg("--socket").arg(socket).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("is there, and is never deleted"), "{said}");
        assert_eq!(fs::read(&taken).unwrap(), b"an image, say");
        // What a daemon left that was killed while it wrote.
        fs::write(&taken, "# TYPE sta").unwrap();
    }
    machine.start();
    machine.until("the file is there", |_| read(&fs::read_to_string(&path).unwrap()).is_ok());
}
