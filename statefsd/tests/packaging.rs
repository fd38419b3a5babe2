//! The files for a service manager: they are read by systemd itself, where it is there, and start
//! the daemon in a way that it understands.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_statefsd");

/// The exposure of the service by systemd's own scale, in tenths, from 0 to 100.
const EXPOSURE_MAX: u32 = 10;

fn unit(name: &str) -> String {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/systemd");
    fs::read_to_string(units.join(name)).unwrap()
}

/// The units in a folder of their own, where the daemon is the one that was built.
struct Units(PathBuf);

impl Units {
    fn new(name: &str) -> Self {
        let folder = format!("statefsd-units-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir(&folder).unwrap();
        let service = unit("statefsd.service");
        assert_eq!(service.matches("/usr/bin/statefsd").count(), 1);
        let service = service.replace("/usr/bin/statefsd", PROGRAM);
        fs::write(folder.join("statefsd.service"), service).unwrap();
        fs::write(folder.join("statefsd.socket"), unit("statefsd.socket")).unwrap();
        Self(folder)
    }

    /// What the program says of the units; `None` where it is not there.
    fn analyze(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).current_dir(&self.0).output();
        if output.is_err() {
            eprintln!("systemd is not here: what it says of the units is not known");
        }
        output.ok()
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let units = Units::new("verify");
    let verify = ["--man=no", "verify", "./statefsd.service", "./statefsd.socket"];
    let Some(output) = units.analyze(&verify) else { return };
    succeeds(&output);
    // It passes over what it does not know, with a word.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("statefsd."), "{said}");
    let broken = unit("statefsd.socket").replace("ListenStream=", "ListenStraem=");
    fs::write(units.0.join("statefsd.socket"), broken).unwrap();
    let output = units.analyze(&verify).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ListenStraem"), "a mistake is found: {said}");
}

#[test]
fn the_service_is_hardly_exposed() {
    let units = Units::new("security");
    let threshold = |most: u32| format!("--threshold={most}");
    let judge = |most| {
        let most = threshold(most);
        units.analyze(&["security", "--offline=true", "--no-pager", &most, "./statefsd.service"])
    };
    let Some(output) = judge(EXPOSURE_MAX) else { return };
    succeeds(&output);
    assert!(!judge(0).unwrap().status.success(), "the judge can say no");
}

#[test]
fn the_daemon_understands_its_command_line() {
    let service = unit("statefsd.service");
    let line = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert!(line.starts_with("/usr/bin/statefsd "));
    // There is no such policy here, and to say so it has understood the rest.
    let words = line.split(' ').skip(1);
    let words = words.map(|word| word.replace("/etc/statefs", "/nowhere"));
    let words = words.chain(["--socket".into(), "/nowhere/s".into()]);
    let output = Command::new(PROGRAM).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("policy /nowhere/"), "{said}");
}

/// systemd gives the daemon its runtime folder with all that is in it, and so the sockets of services of their own users.
#[test]
fn no_socket_lies_in_a_folder_that_is_given_to_the_daemon() {
    let (service, socket) = (unit("statefsd.service"), unit("statefsd.socket"));
    let of = |text: &str, name: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect()
    };
    let given = of(&service, "RuntimeDirectory=");
    let sockets = of(&socket, "ListenStream=");
    assert!(!given.is_empty() && !sockets.is_empty());
    for (socket, given) in
        sockets.iter().flat_map(|socket| given.iter().map(move |it| (socket, it)))
    {
        assert!(!Path::new(socket).starts_with(Path::new("/run").join(given)), "{socket}");
    }
}

/// A device that holds the last daemon up for minutes, or a tool that has the image, ends each of the next ones at once.
#[test]
fn systemd_never_stops_starting_it() {
    let service = unit("statefsd.service");
    let (head, rest) = service.split_once("[Service]").unwrap();
    assert!(head.contains("\nStartLimitIntervalSec=0\n"));
    assert!(rest.contains("\nRestart=on-failure\nRestartSec=2\n"));
}
