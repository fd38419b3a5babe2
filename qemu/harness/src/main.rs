//! What `cargo xtask guest` runs: the machine for people.

#![forbid(unsafe_code)]

mod figures;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io, thread};

use harness::{Failure, Folder, Machine, Setup, image, machine};

const HELP: &str = "\
Usage: harness selftest   boot once, print the serial line, exit by its verdict
       harness serve      boot, and serve until Enter is pressed
       harness figures    boot often, and tell times and rates beside those of the host
";

/// One service at a port, and the machine's test of itself.
const POLICY: &str = concat!(
    include_str!("services.toml"),
    r#"
[service.app]
channel = "app"

[[grant]]
to = "app"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
"#
);

const IMAGE_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    let verb = env::args().nth(1);
    let done = match verb.as_deref() {
        Some("selftest") => selftest(),
        Some("serve") => serve(),
        Some("figures") => figures::run(POLICY),
        // For the tests: the daemon of Linux and the program for people, each in a process of its own.
        Some("daemon") => return statefsd::linux::main(env::args_os().skip(1)),
        Some("statefs") => return statefs_cli::main(env::args_os().skip(1)),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("harness: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn setup(folder: &Folder) -> Result<Setup, Failure> {
    let path = folder.join("state.img");
    image::make(&path, IMAGE_BYTES)?;
    Ok(Setup::new(&path, POLICY, &["app"]))
}

fn selftest() -> Result<(), Failure> {
    let folder = Folder::new()?;
    let setup = Setup { words: "selftest".into(), ..setup(&folder)? };
    let serial = Machine::start(&setup)?.end(machine::DONE)?;
    print!("{serial}");
    let passed = serial.lines().any(|line| line.trim() == "SELFTEST: ok");
    if passed { Ok(()) } else { Err(Failure::Exit { code: Some(machine::DONE), serial }) }
}

fn serve() -> Result<(), Failure> {
    let folder = Folder::new()?;
    let setup = Setup { limit: Duration::from_secs(24 * 3600), ..setup(&folder)? };
    let mut machine = Machine::start(&setup)?;
    let time = machine.ready()?;
    print!("{}", machine.serial());
    let socket = machine.socket("app");
    println!("ready after {} ms. In another terminal:", time.as_millis());
    say(&socket);
    let mut line = String::new();
    // Without a terminal it serves until it is killed.
    if io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        loop {
            thread::park();
        }
    }
    let serial = machine.shut_down()?;
    print!("{}", serial.lines().last().unwrap_or_default());
    println!();
    Ok(())
}

fn say(socket: &Path) {
    let socket = socket.display();
    println!();
    println!("    export STATEFS_SOCKET={socket}");
    println!("    cargo run -q --bin statefs -- put /state/net/hostname thermostat-7");
    println!("    cargo run -q --bin statefs -- get /state/net/hostname");
    println!();
    println!("Press Enter to shut the machine down.");
}
