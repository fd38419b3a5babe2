//! Clients in other languages, made from the schema alone, against a real daemon.
//!
//! Python speaks through pycapnp, C++ through the libcapnp of the distribution; both wrap the
//! reference runtime, whose every message the vat of this project must understand.

mod python;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use crate::{Failure, debian, run};

/// Long beyond what a loaded machine needs: only a daemon that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the examples may do; nothing is granted on /state/forbidden.
const GRANTS: &str = r#"
[[grant]]
to = "example"
prefix = "/state/polyglot"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "example"
prefix = "/state/net"
rights = ["get", "put"]
"#;

/// A call of the Python example whose connection ended, with a code that says why: no refusal, for a write may have happened.
const ENDED: &str = "\
import asyncio, sys
sys.path.insert(0, 'examples/python')
import capnp, statefs_example
async def put():
    kind = capnp.KjException.Type.DISCONNECTED
    raise capnp.KjException('OVERLOADED: it holds too much', type=kind)
try:
    asyncio.run(statefs_example.answer(put()))
except capnp.KjException:
    sys.exit(0)
sys.exit('a put whose connection ended was answered')
";

/// What both examples leave behind.
const KEYS: &str = "\
/state/polyglot/cpp/batch/a
/state/polyglot/cpp/batch/b
/state/polyglot/python/batch/a
/state/polyglot/python/batch/b
";

/// Builds and runs each example, and the Python of the guide.
///
/// # Errors
/// A package is missing and cannot be installed: nothing is left out in silence. Or an example
/// fails.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tools = target.join("polyglot");
    fs::create_dir_all(&tools).map_err(|error| io_failure(&tools, error))?;
    let python = python::interpreter(&tools)?;
    let compiled = compile(root, &tools)?;
    run::to_its_end(&mut run::cargo(root, &["build", "-p", "statefsd", "-p", "statefs-cli"]))?;

    let folder = Folder::new(root)?;
    let programs = target.join("debug");
    let _daemon = Daemon::start(&programs, &folder.0)?;
    let socket = "statefs-dev/statefs.sock";
    let example = root.join("examples/python/statefs_example.py");
    say("Python");
    let arguments = [example.as_os_str(), socket.as_ref(), "schema/statefs.capnp".as_ref()];
    run::to_its_end(Command::new(&python).args(arguments).current_dir(&folder.0))?;
    say("Python, when a connection ends");
    run::to_its_end(Command::new(&python).args(["-B", "-c", ENDED]).current_dir(root))?;
    say("C++");
    run::to_its_end(Command::new(&compiled).arg(socket).current_dir(&folder.0))?;
    say("what they left behind");
    let mut list = Command::new(programs.join("statefs"));
    let list = list.args(["list", "--keys-only", "/state/polyglot"]).current_dir(&folder.0);
    let output = list.output().map_err(|error| io_failure(Path::new("statefs"), error))?;
    let keys = String::from_utf8_lossy(&output.stdout);
    print!("{keys}");
    if keys != KEYS {
        return Err(Failure::Polyglot { what: format!("there should be\n{KEYS}") });
    }
    let guide = root.join("docs/guide.md");
    let guide = fs::read_to_string(&guide).map_err(|error| io_failure(&guide, error))?;
    let blocks = python::blocks(&guide);
    if blocks.is_empty() {
        return Err(Failure::Polyglot { what: "docs/guide.md has no Python".into() });
    }
    for block in blocks {
        say("the Python of docs/guide.md");
        run::to_its_end(Command::new(&python).args(["-c", &block]).current_dir(&folder.0))?;
    }
    Ok(())
}

/// Compiles the C++ example, and yields its path.
fn compile(root: &Path, tools: &Path) -> Result<PathBuf, Failure> {
    let there = || {
        let header = |folder: &&str| Path::new(folder).join("capnp/ez-rpc.h").exists();
        ["capnp", "g++"].iter().all(|program| debian::answer(program, "--version").is_some())
            && ["/usr/include", "/usr/local/include"].iter().any(header)
    };
    if !there() {
        debian::install(&["capnproto", "libcapnp-dev", "g++", "libc6-dev"]);
    }
    if !there() {
        let advice = "Debian and Ubuntu: `apt-get install capnproto libcapnp-dev g++`";
        return Err(Failure::ToolMissing { program: "g++ with libcapnp", advice });
    }
    let mut schema = Command::new("capnp");
    schema.arg("compile").arg(format!("-oc++:{}", tools.display()));
    schema.args(["--no-standard-import", "-I", "schema/include", "--src-prefix=schema"]);
    run::to_its_end(schema.arg("schema/statefs.capnp").current_dir(root))?;
    let example = tools.join("statefs_example");
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-Wall", "-I"]).arg(tools);
    compiler.arg("examples/cpp/statefs_example.cpp").arg(tools.join("statefs.capnp.c++"));
    compiler.args(["-lcapnp-rpc", "-lcapnp", "-lkj-async", "-lkj", "-o"]).arg(&example);
    run::to_its_end(compiler.current_dir(root))?;
    Ok(example)
}

/// A folder with a policy and the schema, removed at the end. Paths of sockets are short, so it is
/// not below the build's.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> Result<Self, Failure> {
        let folder = Self(env::temp_dir().join(format!("statefs-polyglot-{}", process::id())));
        let made = || {
            fs::create_dir_all(folder.0.join("statefs-dev"))?;
            symlink(root.join("schema"), folder.0.join("schema"))?;
            let uid = fs::metadata(&folder.0)?.uid();
            let policy = folder.0.join("policy.toml");
            fs::write(&policy, format!("version = 1\n[service.example]\nuid = {uid}\n{GRANTS}"))?;
            fs::set_permissions(&policy, Permissions::from_mode(0o600))
        };
        made().map_err(|error| io_failure(&folder.0, error))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The failure that is told is the first one.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// A daemon on a new volume, ended with this.
struct Daemon(Child);

impl Daemon {
    fn start(programs: &Path, folder: &Path) -> Result<Self, Failure> {
        let mut format = Command::new(programs.join("statefs"));
        format.args(["image", "format", "state.img", "--size", "16M"]).current_dir(folder);
        run::to_its_end(&mut format)?;
        let mut daemon = Command::new(programs.join("statefsd"));
        daemon.args(["--image", "state.img", "--policy", "policy.toml", "--log-level", "warn"]);
        daemon.args(["--socket", "statefs-dev/statefs.sock"]).current_dir(folder);
        let child = daemon.stdin(Stdio::null()).spawn();
        let mut daemon = Self(child.map_err(|error| io_failure(Path::new("statefsd"), error))?);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(folder.join("statefs-dev/statefs.sock")).is_err() {
            let ended = daemon.0.try_wait().is_ok_and(|ended| ended.is_some());
            if ended || Instant::now() > deadline {
                return Err(Failure::Polyglot { what: "statefsd does not serve".into() });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

fn say(what: &str) {
    println!("--- {what}");
}

fn io_failure(path: &Path, error: io::Error) -> Failure {
    Failure::Io { what: path.display().to_string(), error }
}
