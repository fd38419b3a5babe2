//! The program itself: spawned, spoken to over its sockets, stopped by signals.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

#[path = "daemon/rig.rs"]
mod rig;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use statefs::state_fs;

use rig::{Client, Daemon, Folder, PROGRAM, fails, heard, run};

#[test]
fn what_was_put_is_there_after_a_restart() {
    let folder = Folder::new("restart");
    let daemon = Daemon::dev(&folder);
    let socket = folder.path("statefs.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect(&socket);
    let large = vec![b'v'; 65_536];
    client.put("net/ssid", b"home", false).unwrap();
    client.put("large", &large, false).unwrap();
    client.put("soon", b"buffered", true).unwrap();
    assert_eq!(client.get("net/ssid").unwrap(), b"home");
    let (code, log) = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(!Path::new(&socket).exists());
    assert!(client.get("net/ssid").is_err(), "the daemon has gone");

    let daemon = Daemon::dev(&folder);
    let mut client = Client::connect(&socket);
    assert_eq!(client.get("net/ssid").unwrap(), b"home");
    assert_eq!(client.get("large").unwrap(), large);
    assert_eq!(client.get("soon").unwrap(), b"buffered");
    assert_eq!(client.get("gone"), Err("absent".into()));
    let (code, log) = daemon.stop(Signal::INT);
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("home") && !log.contains("vvvv"), "no value is logged: {log}");
}

/// The call is the first thing that happens since its capability was over.
#[test]
fn a_call_after_a_pause_has_the_time_of_the_call() {
    let folder = Folder::new("pause");
    let daemon = Daemon::dev(&folder);
    let mut client = Client::connect(folder.path("statefs.sock"));
    let mut request = client.directory().restrict_request();
    request.get().set_expiry_millis(200);
    request.get().init_rights().set_get(true);
    let restricted = client.wait(request.send().promise).unwrap();
    let short = restricted.get().unwrap().get_directory().unwrap();
    std::thread::sleep(Duration::from_millis(250));
    let mut request = short.get_request();
    request.get().set_key("k");
    let refused = client.wait(request.send().promise).err().unwrap();
    assert_eq!(refused.extra, "EXPIRED: the time of the capability is over");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_check_under_way_is_left_at_the_end() {
    let folder = Folder::new("check");
    let daemon = Daemon::dev(&folder);
    let mut client = Client::connect(folder.path("statefs.sock"));
    let root: state_fs::Client = client.vat.bootstrap();
    let admin = root.admin_request().send().pipeline.get_admin();
    let mut request = admin.check_request();
    request.get().set_bytes_per_second(1);
    let check = request.send().promise;
    // Calls arrive in their order.
    assert_eq!(client.health(), "Healthy: ");
    let (code, log) = daemon.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(client.wait(check).is_err(), "it was not answered");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = Folder::new("kill");
    let daemon = Daemon::dev(&folder);
    let socket = folder.path("statefs.sock");
    let mut client = Client::connect(&socket);
    for number in 0..50 {
        client.put(&format!("k/{number}"), b"value", false).unwrap();
    }
    daemon.stop(Signal::KILL);
    assert!(Path::new(&socket).exists(), "a dead daemon leaves its socket behind");
    let _daemon = Daemon::dev(&folder);
    let mut client = Client::connect(&socket);
    for number in 0..50 {
        assert_eq!(client.get(&format!("k/{number}")).unwrap(), b"value");
    }
}

#[test]
fn a_second_daemon_is_told_who_holds_the_image() {
    let folder = Folder::new("second");
    let daemon = Daemon::dev(&folder);
    let said = fails(1, &["--dev", &folder.path("")]);
    assert!(said.contains("it is in use by process"), "{said}");
    let mut client = Client::connect(folder.path("statefs.sock"));
    assert_eq!(client.get("k"), Err("absent".into()), "the first one goes on");
    // Another image, the same socket.
    let other = Folder::new("second-other");
    fs::copy(folder.path("policy.toml"), other.path("policy.toml")).unwrap();
    drop(Daemon::dev(&other));
    let (image, policy) = (other.path("state.img"), other.path("policy.toml"));
    let socket = folder.path("statefs.sock");
    let said = fails(1, &["--image", &image, "--policy", &policy, "--socket", &socket]);
    assert!(said.contains("somebody listens there already"), "{said}");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn what_cannot_be_served_is_said_and_not_lingered_over() {
    let folder = Folder::new("faults");
    let blank = folder.path("blank.img");
    fs::File::create(&blank).unwrap().set_len(8 << 20).unwrap();
    let policy = folder.write("policy.toml", "version = 1\n");
    let (socket, none) = (folder.path("s"), folder.path("none"));
    let serve = |image: &str, policy: &str, socket: &str| {
        fails(1, &["--image", image, "--policy", policy, "--socket", socket])
    };
    let said = serve(&blank, &policy, &socket);
    assert!(said.contains("the device is blank; `statefs image format`"), "{said}");
    assert!(!Path::new(&socket).exists());
    let said = serve(&none, &policy, &socket);
    assert!(said.contains("there is no such file") && said.contains("statefs image format"));
    let said = serve(&blank, &policy, &policy);
    assert!(said.contains("something that is no socket is there"), "{said}");
    assert_eq!(fs::read_to_string(&policy).unwrap(), "version = 1\n");
    let said = fails(2, &["--image", &blank]);
    assert!(said.contains("--socket"), "{said}");
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Examples:"));
}

#[test]
fn channels_are_identities_and_a_hangup_loads_the_policy() {
    let folder = Folder::new("channels");
    drop(Daemon::dev(&folder));
    let (image, policy) = (folder.path("state.img"), folder.path("policy.toml"));
    let (first, second) = (folder.path("first"), folder.path("second"));
    let text = "version = 1\n[service.one]\nchannel = \"one\"\n[[grant]]\nto = \"one\"\n\
                prefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    folder.write("policy.toml", text);
    let sockets = [format!("one={first}"), format!("two={second}")];
    let mut command = Command::new(PROGRAM);
    command.args(["--image", &image, "--policy", &policy, "--socket-mode", "0660"]);
    command.args(["--socket", &sockets[0], "--socket", &sockets[1]]);
    let mut daemon = Daemon::start(&mut command);
    let (mut one, mut two) = (Client::connect(&first), Client::connect(&second));
    one.put("k", b"1", false).unwrap();
    assert_eq!(two.get("k"), Err("ACCESS_DENIED".into()));
    daemon.wait_for("access denied");
    assert_eq!(fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o660);
    folder.write("policy.toml", "version = 1\nnonsense = 1\n");
    daemon.signal(Signal::HUP);
    daemon.wait_for("the policy in force stays");
    assert_eq!(one.get("k").unwrap(), b"1");
    folder.write("policy.toml", &text.replace("[\"get\", \"put\"]", "[\"put\"]"));
    daemon.signal(Signal::HUP);
    daemon.wait_for("another policy is in force");
    assert_eq!(one.get("k"), Err("ACCESS_DENIED".into()));
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let folder = Folder::new("log");
    let mut daemon = Daemon::dev(&folder);
    daemon.log = None;
    for _ in 0..3 {
        // At this level each connection is logged.
        let mut client = Client::connect(folder.path("statefs.sock"));
        assert_eq!(client.get("k"), Err("absent".into()));
    }
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_lack_of_descriptors_is_survived() {
    let folder = Folder::new("descriptors");
    drop(Daemon::dev(&folder));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" --dev \"$1\"", PROGRAM, &folder.path("")]);
    let mut daemon = Daemon::start(&mut command);
    let socket = folder.path("statefs.sock");
    let mut early = Client::connect(&socket);
    early.put("k", b"0", false).unwrap();
    let mut idle: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    daemon.wait_for("nobody can be accepted for now");
    assert_eq!(early.get("k").unwrap(), b"0", "who is there is served");
    idle.clear();
    let mut client = Client::connect(&socket);
    client.put("k", b"1", false).unwrap();
    assert_eq!(client.get("k").unwrap(), b"1");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

/// Whatever the limit is, the daemon comes up, or ends before and says why. Which it does is no question of the limit alone: where the
/// ring gets none, there are threads.
#[test]
fn with_too_few_descriptors_it_ends_and_says_why() {
    let folder = Folder::new("sweep");
    drop(Daemon::dev(&folder));
    let (mut served, mut ended) = (0, 0);
    for limit in 6..=30 {
        let script = format!("ulimit -n {limit}; exec \"$0\" --dev \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, PROGRAM, &folder.path("")]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while log.read_line(&mut seen).unwrap() > 0 && !seen.contains(" ready ") {}
        if seen.contains(" ready ") {
            let daemon = Daemon { child, log: Some(log), seen };
            let (code, log) = daemon.stop(Signal::TERM);
            assert_eq!(code, Some(0), "{limit}: {log}");
            served += 1;
        } else {
            assert_eq!(child.wait().unwrap().code(), Some(1), "{limit}: {seen}");
            assert!(seen.contains("Too many open files") && !seen.contains("panicked"), "{seen}");
            ended += 1;
        }
    }
    assert!(served > 10 && ended > 2, "{served} and {ended}");
}

#[test]
fn a_policy_that_others_may_write_is_not_loaded() {
    let folder = Folder::new("trust");
    let mut daemon = Daemon::dev(&folder);
    let mut client = Client::connect(folder.path("statefs.sock"));
    let policy = folder.write("policy.toml", "version = 1\n");
    let allow = |mode| fs::set_permissions(&policy, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o620);
    daemon.signal(Signal::HUP);
    daemon.wait_for("its permissions are 0620");
    assert_eq!(client.get("k"), Err("absent".into()), "the policy that was in force still is");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
    // Nor is it at the start, where there is none before it.
    let daemon = Daemon::dev(&folder);
    let mut client = Client::connect(folder.path("statefs.sock"));
    assert!(client.get("k").unwrap_err().starts_with("ACCESS_DENIED"));
    assert!(daemon.seen.contains("chmod go-w"), "{}", daemon.seen);
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn without_a_policy_everything_is_denied_and_it_is_said_loudly() {
    let folder = Folder::new("none");
    drop(Daemon::dev(&folder));
    let sound = fs::read_to_string(folder.path("policy.toml")).unwrap();
    let (image, policy) = (folder.path("state.img"), folder.path("elsewhere.toml"));
    let (socket, metrics) = (folder.path("socket"), folder.path("metrics"));
    for faulty in [None, Some("version = 2\n[service.a]\nuid = true\n")] {
        drop(fs::remove_file(&policy));
        faulty.map(|text| folder.write("elsewhere.toml", text));
        let mut command = Command::new(PROGRAM);
        command.args(["--image", &image, "--policy", &policy, "--socket", &socket]);
        command.args(["--metrics", &format!("unix:{metrics}")]);
        let mut daemon = Daemon::start(&mut command);
        let mut client = Client::connect(&socket);
        assert!(client.put("k", b"1", false).unwrap_err().starts_with("ACCESS_DENIED"));
        let health = client.health();
        assert!(health.starts_with("Degraded: the policy file cannot be loaded"), "{health}");
        assert!(health.contains("until one can, everything is denied"), "{health}");
        let mut figures = String::new();
        UnixStream::connect(&metrics).unwrap().read_to_string(&mut figures).unwrap();
        for figure in ["policy_loads_total 0", "policy_faults_total 1", "mode{mode=\"degraded\"} 1"]
        {
            assert!(figures.contains(&format!("statefs_{figure}\n")), "{figure} in {figures}");
        }
        folder.write("elsewhere.toml", &sound);
        daemon.signal(Signal::HUP);
        daemon.wait_for("another policy is in force");
        // Who is connected was nobody; who connects now is somebody.
        assert!(client.put("k", b"1", false).unwrap_err().starts_with("ACCESS_DENIED"));
        let mut client = Client::connect(&socket);
        client.put("k", b"1", false).unwrap();
        assert_eq!(client.health(), "Healthy: ");
        let said = mem::take(&mut daemon.seen);
        assert_eq!(daemon.stop(Signal::TERM).0, Some(0), "{said}");
        assert!(said.contains("ERROR there is no policy, and everything is denied"), "{said}");
        assert!(said.contains("ERROR mode mode=degraded reason="), "{said}");
        let named = ["elsewhere.toml:1:", "elsewhere.toml:3:"].iter().all(|at| said.contains(at));
        assert!(faulty.is_none() || named, "{said}");
    }
}

/// From within the sandbox a folder that is made later could not be read, however often the daemon were told to.
#[test]
fn a_folder_of_the_policy_that_is_not_there_is_no_start() {
    let folder = Folder::new("nowhere");
    drop(Daemon::dev(&folder));
    let (image, socket) = (folder.path("state.img"), folder.path("socket"));
    let policy = folder.path("nowhere/policy.toml");
    let said = fails(1, &["--image", &image, "--policy", &policy, "--socket", &socket]);
    assert!(said.contains(&format!("policy {policy}: its folder cannot be reached: ")), "{said}");
    assert!(!Path::new(&socket).exists());
}

#[test]
fn what_the_device_fails_is_logged_in_the_words_of_the_system() {
    let folder = Folder::new("full");
    drop(Daemon::dev(&folder));
    // As on a file system that is full: what lies behind the limit cannot be written.
    let line = "trap '' XFSZ; ulimit -f 40; exec \"$0\" --dev \"$1\"";
    let output = Command::new("bash").args(["-c", line, PROGRAM]).arg(&folder.0).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ERROR the device failed a write offset="), "{said}");
    assert!(said.contains("reason=\"File too large (os error 27)\""), "{said}");
}

#[test]
fn a_service_manager_passes_sockets_on_and_hears_how_it_goes() {
    let folder = Folder::new("manager");
    drop(Daemon::dev(&folder));
    let (socket, bus) = (folder.path("passed"), folder.path("manager"));
    let listener = UnixListener::bind(&socket).unwrap();
    let manager = UnixDatagram::bind(&bus).unwrap();
    // Far beyond what it takes: a daemon that ended says nothing more.
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let text = "version = 1\n[service.net]\nchannel = \"net\"\n[[grant]]\nto = \"net\"\n\
                prefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    folder.write("policy.toml", text);
    // The socket has to be descriptor 3, and the process to be told that it is meant.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=net \
                  exec \"$0\" --image \"$1\" --policy \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM, &folder.path("state.img"), &folder.path("policy.toml")]);
    command.stdin(OwnedFd::from(listener)).env("NOTIFY_SOCKET", &bus);
    command.env("WATCHDOG_USEC", "60000000");
    // Nobody has to wait for the daemon to connect.
    let mut client = Client::connect(&socket);
    let mut daemon = Daemon::start(&mut command);
    client.put("k", b"1", false).unwrap();
    let mut said = vec![heard(&manager), heard(&manager), heard(&manager)];
    said.sort();
    let ready = "READY=1\nSTATUS=serving\n";
    assert_eq!(said, [ready, "STATUS=opening the volume\n", "WATCHDOG=1\n"]);
    let reload = |daemon: &Daemon| {
        daemon.signal(Signal::HUP);
        assert!(heard(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        heard(&manager)
    };
    folder.write("policy.toml", "version = 2\n");
    assert!(reload(&daemon).starts_with("READY=1\nSTATUS=serving, degraded: the policy file"));
    daemon.wait_for("the policy in force stays");
    assert!(heard(&manager).starts_with("STATUS=serving, degraded: the policy file"));
    assert_eq!(client.get("k").unwrap(), b"1");
    folder.write("policy.toml", text);
    assert_eq!(reload(&daemon), ready);
    assert_eq!(heard(&manager), "STATUS=serving\n");
    daemon.signal(Signal::TERM);
    assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=shutting down\n");
    assert!(daemon.child.wait().unwrap().success());
    assert!(Path::new(&socket).exists(), "its file is the manager's");
}

/// A hangup while the volume is opened, and one while the daemon ends, make it ready for nobody.
#[test]
fn a_service_manager_hears_ready_of_an_open_volume_alone() {
    let folder = Folder::new("early");
    drop(Daemon::dev(&folder));
    let bus = folder.path("manager");
    let manager = UnixDatagram::bind(&bus).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for _ in 0..5 {
        let mut command = Command::new(PROGRAM);
        command.arg("--dev").arg(&folder.0).env("NOTIFY_SOCKET", &bus).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = child.stderr.take().map(BufReader::new);
        let mut daemon = Daemon { child, log, seen: String::new() };
        assert_eq!(heard(&manager), "STATUS=opening the volume\n");
        daemon.signal(Signal::HUP);
        assert_eq!(heard(&manager), "READY=1\nSTATUS=serving\n");
        daemon.wait_for("another policy is in force");
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::HUP);
        assert!(daemon.child.wait().unwrap().success());
        manager.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(bytes) = manager.recv(&mut buffer) {
            said.push(String::from_utf8(buffer[..bytes].to_vec()).unwrap());
        }
        manager.set_nonblocking(false).unwrap();
        let stopping = said.iter().position(|said| said.starts_with("STOPPING=1")).unwrap();
        assert!(!said[stopping..].iter().any(|said| said.contains("READY=1")), "{said:?}");
    }
}

#[test]
fn what_is_passed_on_has_to_listen() {
    let folder = Folder::new("passed");
    drop(Daemon::dev(&folder));
    let (one, _other) = UnixStream::pair().unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --dev \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM, &folder.path("")]).stdin(OwnedFd::from(one));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the socket passed on for channel \"default\": "), "{said}");
    assert!(said.contains("Accept=no"), "{said}");
}

#[test]
fn every_thread_is_sandboxed_before_anybody_is_served() {
    let folder = Folder::new("sandbox");
    let state = |daemon: &Daemon, field: &str| -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
        let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")));
        let value = |text: String| {
            let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned();
            line.trim().to_owned()
        };
        status.map(|text| value(text.unwrap())).collect()
    };
    let mut command = Command::new(PROGRAM);
    let daemon = Daemon::start(command.arg("--dev").arg(&folder.0));
    let mut client = Client::connect(folder.path("statefs.sock"));
    client.put("k", b"1", false).unwrap();
    let (privileges, filters) = (state(&daemon, "NoNewPrivs:"), state(&daemon, "Seccomp:"));
    assert!(privileges.len() > 1, "the device has threads of its own");
    assert!(privileges.iter().all(|set| set == "1"), "{privileges:?}");
    assert!(filters.iter().all(|mode| mode == "2"), "{filters:?}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
    let mut command = Command::new(PROGRAM);
    let mut daemon = Daemon {
        child: command
            .arg("--dev")
            .arg(&folder.0)
            .args(["--no-sandbox"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
        log: None,
        seen: String::new(),
    };
    daemon.log = daemon.child.stderr.take().map(BufReader::new);
    daemon.wait_for("files and system calls are in reach");
    daemon.wait_for(" ready ");
    assert!(state(&daemon, "Seccomp:").iter().all(|mode| mode == "0"));
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

/// Runs `job` where the kernel answers that it knows nothing of Landlock, for this thread and for
/// what it starts.
fn without_landlock<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
    let refuse = SeccompAction::Errno(95);
    let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    let refused = || {
        apply_filter(&program).unwrap();
        job()
    };
    std::thread::scope(|scope| scope.spawn(refused).join().unwrap())
}

#[test]
fn a_layer_that_cannot_be_had_is_told_or_fatal() {
    let folder = Folder::new("layer");
    let (dev, metrics) = (folder.path(""), folder.path("metrics"));
    let place = format!("unix:{metrics}");
    let arguments = ["--dev", &dev, "--metrics", &place];
    let output = without_landlock(|| {
        Command::new(PROGRAM).args(arguments).arg("--require-sandbox").output().unwrap()
    });
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the sandbox lacks landlock: "), "{said}");
    let mut daemon = without_landlock(|| {
        let mut command = Command::new(PROGRAM);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take().map(BufReader::new);
        Daemon { child, log, seen: String::new() }
    });
    daemon.wait_for("the sandbox lacks a layer layer=landlock");
    daemon.wait_for(" ready ");
    let mut figures = String::new();
    UnixStream::connect(&metrics).unwrap().read_to_string(&mut figures).unwrap();
    assert!(figures.contains("statefs_sandbox{layer=\"landlock\"} 0\n"), "{figures}");
    assert!(figures.contains("statefs_sandbox{layer=\"seccomp\"} 1\n"), "{figures}");
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_policy_that_was_replaced_is_found_from_within_the_sandbox() {
    let folder = Folder::new("replaced");
    let mut daemon = Daemon::dev(&folder);
    let mut client = Client::connect(folder.path("statefs.sock"));
    client.put("k", b"1", false).unwrap();
    // As editors do: another file takes the name.
    let new = folder.write("policy.toml.new", "version = 1\n");
    fs::rename(new, folder.path("policy.toml")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("another policy is in force");
    assert_eq!(client.get("k"), Err("ACCESS_DENIED".into()));
    assert_eq!(daemon.stop(Signal::TERM).0, Some(0));
}
