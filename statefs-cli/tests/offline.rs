//! What the program does without a daemon: its help, its mistakes, and the image tools.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{Folder, redact, statefs};

#[test]
fn help_is_golden() {
    let folder = Folder::new();
    let mut text = String::new();
    let verbs = [
        "",
        "put",
        "get",
        "delete",
        "list",
        "sync",
        "health",
        "whoami",
        "stat",
        "commit",
        "usage",
        "audit",
        "admin",
        "admin stats",
        "admin check",
        "admin checkpoint",
        "admin reload",
        "image",
        "image format",
        "image dump",
        "image fsck",
        "image undo",
        "image inspect",
        "image salvage",
        "image import",
        "policy",
        "policy check",
        "policy explain",
        "policy diff",
        "completions",
        "man",
    ];
    for verb in verbs {
        let command = format!("{verb} --help");
        let run = statefs(folder.path(), &command).exits(0);
        text.push_str(&format!("$ statefs {}\n{}\n", command.trim(), run.text()));
        assert_eq!(run.stderr, "");
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let folder = Folder::new();
    for arguments in [
        "",
        "gett /state/a",
        "get",
        "get /state/a /state/b",
        "put /state/a v --if-absent --if-version 0000000000000001",
        "put /state/a v --if-version 1",
        "list --values",
        "health -o yaml",
        "image",
        "image format x.img",
        "image format x.img --size 64MB",
        "image undo x.img",
        "image format x.img --size 64M --copies 3",
        "get /state/a --socket",
        "policy",
        "policy explain p.toml --service a --op read /state/a",
        "policy diff p.toml",
    ] {
        let run = statefs(folder.path(), arguments).exits(2);
        assert_eq!(run.text(), "", "{arguments}");
        assert_ne!(run.stderr, "", "{arguments}");
    }
    for json in ["-o json", "-ojson", "-o=json", "--output json", "--output=json"] {
        let run = statefs(folder.path(), &format!("gett /state/a {json}")).exits(2);
        assert!(
            run.stderr.starts_with("{\"advice\":\"\",\"code\":\"USAGE\",\"exit\":2,"),
            "{json}"
        );
    }
}

#[test]
fn without_a_daemon_every_verb_exits_with_7_and_says_what_to_do() {
    let folder = Folder::new();
    let verbs = [
        "put /state/a v",
        "get /state/a",
        "delete /state/a",
        "list",
        "sync",
        "health",
        "whoami",
        "stat",
        "stat /state/a",
        "usage",
        "audit",
        "admin stats",
    ];
    for verb in verbs {
        let run = statefs(folder.path(), verb).exits(7);
        assert_eq!(run.text(), "", "{verb}");
        assert!(run.stderr.starts_with("statefs: NO_DAEMON: "), "{}", run.stderr);
        assert!(run.stderr.contains("./statefs-dev/statefs.sock"), "{}", run.stderr);
        assert!(run.stderr.contains("statefsd --dev"), "{}", run.stderr);
    }
    let named = statefs(folder.path(), "get /state/a --socket other.sock").exits(7);
    assert!(named.stderr.contains("other.sock"), "{}", named.stderr);
    let json = statefs(folder.path(), "-o json get /state/a").exits(7);
    insta::assert_snapshot!(json.stderr, @r#"{"advice":"start the daemon, or name another socket with --socket or $STATEFS_SOCKET","code":"NO_DAEMON","exit":7,"message":"there is no socket ./statefs-dev/statefs.sock; start a daemon with `statefsd --dev`"}"#);
}

#[test]
fn a_key_outside_of_state_is_refused_before_anything_else() {
    let folder = Folder::new();
    for key in ["net/wifi", "/net", "/statex/a", "/state", "state/a"] {
        for verb in ["get", "delete", "put", "stat"] {
            let run = statefs(folder.path(), &format!("{verb} {key}")).exits(1);
            assert!(run.stderr.starts_with("statefs: INVALID_KEY: "), "{}", run.stderr);
        }
    }
}

#[test]
fn format_makes_a_volume_that_dump_reads() {
    let folder = Folder::new();
    let made = statefs(folder.path(), "image format new.img --size 1M").exits(0);
    assert_eq!(redact(made.text()), "[32 hex digits]\n");
    let image = folder.path().join("new.img");
    assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 20);
    assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o77, 0, "others may read it");
    let before = fs::read(&image).unwrap();
    let dump = statefs(folder.path(), "image dump new.img").exits(0);
    assert_eq!(redact(dump.text()), "{\"digest\":\"[64 hex digits]\"}\n");
    let again = statefs(folder.path(), "image dump new.img -o json").exits(0);
    assert_eq!(again.stdout, dump.stdout);
    assert_eq!(fs::read(&image).unwrap(), before, "dump changed the image");
}

#[test]
fn format_destroys_nothing_without_force() {
    let folder = Folder::new();
    statefs(folder.path(), "image format volume.img --size 1M").exits(0);
    let foreign = folder.path().join("foreign.img");
    fs::write(&foreign, [7; 1 << 20]).unwrap();
    for name in ["volume.img", "foreign.img"] {
        let before = fs::read(folder.path().join(name)).unwrap();
        let run = statefs(folder.path(), &format!("image format {name}")).exits(1);
        assert!(run.stderr.starts_with("statefs: NOT_BLANK: "), "{}", run.stderr);
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), before);
        statefs(folder.path(), &format!("image format {name} --force --yes")).exits(0);
        assert_ne!(fs::read(folder.path().join(name)).unwrap(), before);
        statefs(folder.path(), &format!("image dump {name}")).exits(0);
    }
}

/// Some file systems show nothing in the first 64 KiB, nor at the end: Btrfs begins behind them.
#[test]
fn format_sees_what_begins_behind_the_first_64_kib() {
    let folder = Folder::new();
    let path = folder.path().join("hidden.img");
    let bytes: usize = 40 << 20;
    for (at, seen) in [
        (64 << 10, true),
        (1 << 20, true),
        ((16 << 20) - 1, true),
        (bytes - (16 << 20), true),
        (20 << 20, false),
    ] {
        let mut before = vec![0; bytes];
        before[at] = 1;
        fs::write(&path, &before).unwrap();
        let run = statefs(folder.path(), "image format hidden.img").exits(i32::from(seen));
        if seen {
            assert!(run.stderr.starts_with("statefs: NOT_BLANK: "), "{at}: {}", run.stderr);
            assert!(fs::read(&path).unwrap() == before, "{at}");
        }
    }
    let mut foreign = vec![0; bytes];
    foreign[64 << 10] = 1;
    fs::write(&path, foreign).unwrap();
    statefs(folder.path(), "image format hidden.img --force --yes").exits(0);
}

#[test]
fn format_takes_a_blank_file_as_it_is() {
    let folder = Folder::new();
    fs::write(folder.path().join("blank.img"), vec![0; 1 << 20]).unwrap();
    let other = statefs(folder.path(), "image format blank.img --size 2M").exits(1);
    assert!(other.stderr.contains("it has 1048576 bytes, not 2097152"), "{}", other.stderr);
    let run =
        statefs(folder.path(), "image format blank.img --size 1M --copies 1 -o json").exits(0);
    insta::assert_snapshot!(redact(run.text()), @r#"{"blockBytes":4096,"copies":1,"path":"blank.img","volume":"[32 hex digits]","volumeBytes":1048576}"#);
    // The object tells it; people are warned.
    assert_eq!(run.stderr, "");
    let run = statefs(folder.path(), "image format other.img --size 1M --copies 1").exits(0);
    assert!(run.stderr.contains("one copy"), "{}", run.stderr);
}

#[test]
fn a_format_that_is_cut_short_leaves_nothing_under_the_name() {
    let folder = Folder::new();
    let (image, part) = (folder.path().join("x.img"), folder.path().join("x.img.part"));
    let format = "image format x.img --size 8G";
    let mut run = Command::new(env!("CARGO_BIN_EXE_statefs"));
    let mut run = run.args(format.split(' ')).current_dir(folder.path()).spawn().expect("it runs");
    while !part.exists() {
        assert!(run.try_wait().expect("a child").is_none(), "it ended without a trace");
        std::thread::yield_now();
    }
    run.kill().expect("it runs");
    run.wait().expect("a child");
    assert!(part.exists() && !image.exists());
    let again = statefs(folder.path(), "image format x.img --size 1M").exits(1);
    assert!(
        again.stderr.starts_with("statefs: EXISTS: x.img.part: it is what"),
        "{}",
        again.stderr
    );
    fs::remove_file(&part).expect("it is there");
    statefs(folder.path(), "image format x.img --size 1M").exits(0);
    assert!(!part.exists() && image.exists());
}

#[test]
fn a_volume_that_cannot_be_made_leaves_no_file() {
    let folder = Folder::new();
    for size in ["4K", "4097", "0"] {
        let run = statefs(folder.path(), &format!("image format x.img --size {size}")).exits(1);
        assert!(run.stderr.starts_with("statefs: GEOMETRY: x.img: "), "{}", run.stderr);
        assert!(!folder.path().join("x.img").exists());
    }
}

#[test]
fn a_missing_folder_is_named_as_what_is_missing() {
    let folder = Folder::new();
    let run = statefs(folder.path(), "image format none/x.img --size 16M").exits(1);
    assert!(run.stderr.starts_with("statefs: NO_FOLDER: none/x.img: "), "{}", run.stderr);
}

#[test]
fn dump_says_what_is_no_volume() {
    let folder = Folder::new();
    fs::write(folder.path().join("blank.img"), vec![0; 1 << 20]).unwrap();
    fs::write(folder.path().join("foreign.img"), vec![7; 1 << 20]).unwrap();
    for (path, code) in [
        ("blank.img", "BLANK"),
        ("foreign.img", "NO_VOLUME"),
        ("none.img", "NO_IMAGE"),
        (".", "NOT_STORAGE"),
    ] {
        let run = statefs(folder.path(), &format!("image dump {path}")).exits(1);
        assert!(run.stderr.starts_with(&format!("statefs: {code}: {path}: ")), "{}", run.stderr);
        assert_eq!(run.text(), "");
    }
    assert!(!folder.path().join("none.img").exists());
}

#[test]
fn the_socket_is_the_option_else_the_variable_else_the_default() {
    let folder = Folder::new();
    let text = |arguments: &str, variable: &str| {
        let run = Command::new(env!("CARGO_BIN_EXE_statefs"))
            .args(arguments.split(' '))
            .env("STATEFS_SOCKET", variable)
            .current_dir(folder.path())
            .output()
            .expect("the program starts");
        assert_eq!(run.status.code(), Some(7));
        String::from_utf8(run.stderr).expect("UTF-8")
    };
    assert!(text("sync --socket option.sock", "variable.sock").contains("no socket option.sock;"));
    assert!(text("sync", "variable.sock").contains("no socket variable.sock;"));
    assert!(text("sync", "").contains("no socket ./statefs-dev/statefs.sock;"));
}

#[test]
fn a_closed_reader_is_no_failure_and_a_full_disk_is() {
    let folder = Folder::new();
    statefs(folder.path(), "image format x.img --size 1M").exits(0);
    let dump = |stdout: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_statefs"))
            .args(["image", "dump", "x.img"])
            .current_dir(folder.path())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .output()
            .expect("the program starts")
    };
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let closed = dump(writer.into());
    assert_eq!((closed.status.code(), closed.stderr.as_slice()), (Some(0), b"".as_slice()));
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let full = dump(full.into());
    assert_eq!(full.status.code(), Some(1));
    assert!(full.stderr.starts_with(b"statefs: OUTPUT: standard output: "));
}

#[test]
fn a_limit_on_the_size_of_files_is_told_and_leaves_nothing() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_statefs");
    let limited = |words: &str| {
        let script = format!("ulimit -f 64 && exec '{program}' {words}");
        Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap()
    };
    let ended = limited("image format limited.img --size 4M");
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(
        told.starts_with("statefs: DEVICE: limited.img: filling it with zeros failed: "),
        "{told}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
