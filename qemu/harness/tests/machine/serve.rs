//! The machine for people: what it tells them to type works, and Enter ends it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

#[test]
fn what_a_machine_tells_people_to_type_works() {
    let harness = env!("CARGO_BIN_EXE_harness");
    let mut serving = Command::new(harness)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(serving.stdout.take().unwrap());
    let (mut socket, mut said) = (String::new(), String::new());
    let mut commands = 0;
    for line in told.by_ref().lines() {
        let line = line.unwrap();
        if let Some(path) = line.trim().strip_prefix("export STATEFS_SOCKET=") {
            socket = path.into();
        } else if let Some(words) = line.trim().strip_prefix("cargo run -q --bin statefs -- ") {
            let mut statefs = Command::new(harness);
            statefs.arg("statefs").args(words.split(' ')).env("STATEFS_SOCKET", &socket);
            let output = statefs.output().unwrap();
            assert!(output.status.success(), "{words}: {output:?}");
            said = String::from_utf8(output.stdout).unwrap();
            commands += 1;
        } else if line.starts_with("Press Enter") {
            break;
        }
    }
    assert_eq!((commands, said.trim()), (2, "thermostat-7"));
    serving.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "statefsd: down");
    assert!(serving.wait().unwrap().success());
}
