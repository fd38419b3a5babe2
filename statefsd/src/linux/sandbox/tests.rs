//! What is forbidden ends a process: probes in processes of their own, which this test program
//! starts of itself.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{self, Command, ExitStatus};
use std::{env, format, panic, println, thread};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
};

use super::*;

/// Names the probe in the environment of its process.
const PROBE: &str = "STATEFSD_SANDBOX_PROBE";

/// The signal of a forbidden call.
const SIGSYS: i32 = 31;

/// Runs a probe in a process of its own, and yields how that ended and what it said.
fn probe(name: &str) -> (ExitStatus, String) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "linux::sandbox::tests::the_probe", "--nocapture"])
        .env(PROBE, name)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status, said + &String::from_utf8_lossy(&output.stderr))
}

/// Asks the kernel whether it has Landlock, without what is tested here: a ruleset that nobody is put under.
fn has_landlock() -> bool {
    let demanded = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = demanded.handle_access(AccessFs::from_all(ABI::V1));
    files.and_then(Ruleset::create).is_ok()
}

/// In a process that a test started: gives up system calls, then does what is forbidden. Elsewhere
/// it has nothing to do.
#[test]
fn the_probe() {
    let Ok(probe) = env::var(PROBE) else { return };
    if let Some((inside, file)) = probe.strip_prefix("file ").and_then(|rest| rest.split_once(' '))
    {
        if let Err(why) = confine([Access::Read(inside.into())]) {
            return println!("not confined: {why}");
        }
        let opened = File::open(file).map(drop).map_err(|error| error.kind());
        let written = fs::write(file, "x").map_err(|error| error.kind());
        return println!("opened: {opened:?}; written: {written:?}");
    }
    let parent = rustix::process::getppid().unwrap();
    let known = env::temp_dir().join(format!("statefsd-probe-{}", process::id()));
    seal(probe == "write").expect("this kernel has seccomp");
    match &*probe {
        "read" => assert!(File::open("/").is_ok()),
        "write" => {
            fs::write(&known, "metrics").unwrap();
            fs::remove_file(&known).unwrap();
        }
        "panic" => {
            let tell = panic::take_hook();
            panic::set_hook(std::boxed::Box::new(move |panic| {
                tell(panic);
                process::abort();
            }));
            panic!("as a broken invariant would");
        }
        "create" => drop(File::create(&known)),
        "append" => drop(File::options().append(true).open("/dev/null")),
        "program" => drop(Command::new("/bin/true").spawn()),
        "thread" => drop(thread::Builder::new().spawn(|| ())),
        "network" => drop(TcpStream::connect("127.0.0.1:1")),
        "socket" => drop(UnixStream::pair()),
        "link" => drop(symlink("/", &known)),
        "folder" => drop(fs::create_dir(&known)),
        "permissions" => drop(fs::set_permissions("/", fs::metadata("/").unwrap().permissions())),
        "trace" => set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap(),
        "limits" => setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).unwrap(),
        "signal" => {
            rustix::process::kill_process(parent, rustix::process::Signal::WINCH).unwrap();
        }
        other => panic!("no such probe: {other}"),
    }
    println!("alive");
}

#[test]
fn a_forbidden_call_ends_the_process() {
    for forbidden in [
        "create",
        "append",
        "program",
        "thread",
        "network",
        "socket",
        "link",
        "folder",
        "permissions",
        "trace",
        "limits",
        "signal",
    ] {
        let (status, said) = probe(forbidden);
        assert_eq!(status.signal(), Some(SIGSYS), "{forbidden}: {status:?} {said}");
        assert!(!said.contains("alive"), "{forbidden}: {said}");
    }
}

#[test]
fn what_serving_takes_is_not_forbidden() {
    for allowed in ["read", "write"] {
        let (status, said) = probe(allowed);
        assert!(status.success() && said.contains("alive"), "{allowed}: {status:?} {said}");
    }
    // A broken invariant ends as it would without: told, and by its own signal.
    let (status, said) = probe("panic");
    assert_eq!(status.signal(), Some(6), "{status:?} {said}");
    assert!(said.contains("as a broken invariant would"), "{said}");
}

#[test]
fn files_outside_are_out_of_reach() {
    let folder = env::temp_dir().join(format!("statefsd-sandbox-{}", process::id()));
    let inside = folder.join("inside");
    fs::create_dir_all(&inside).unwrap();
    let check = |file: &Path, expected: &str| {
        fs::write(file, "as it was").unwrap();
        let (status, said) = probe(&format!("file {} {}", inside.display(), file.display()));
        assert!(status.success(), "{said}");
        if !has_landlock() {
            std::eprintln!("this kernel has no Landlock: not tested");
            // It is not claimed, either.
            assert!(said.contains("not confined: "), "{said}");
            return;
        }
        assert!(said.contains(expected), "{said}");
        assert_eq!(fs::read(file).unwrap(), b"as it was");
    };
    let denied = "Err(PermissionDenied)";
    check(&folder.join("outside"), &format!("opened: {denied}; written: {denied}"));
    // What is granted to read may be read, and no more.
    check(&inside.join("file"), &format!("opened: Ok(()); written: {denied}"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_of_no_folder_is_in_this_one() {
    assert_eq!(folder(Path::new("state.img")), Path::new("."));
    assert_eq!(folder(Path::new("a/state.img")), Path::new("a"));
}
