//! Every verb, in both formats, in every situation: the exit code, and what stands on which stream.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread;

use common::daemon::Daemon;
use common::volume::{self, puts};
use common::{Folder, Run, statefs};
use serde_json::Value as Json;

const FORMATS: [&str; 2] = ["text", "json"];

/// Where a verb that needs a daemon is run. In all that serve, the keys a, b and c are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Situation {
    /// Nobody listens.
    NoDaemon,
    /// All is granted, and there is room.
    Granted,
    /// The policy knows the caller and grants nothing.
    Denied,
    /// No further key may be made.
    UsedUp,
    /// Every copy of the second write is damaged, so of all that was not written after it nobody
    /// knows.
    Damaged,
    /// The connection ends once the call has come.
    HangsUp,
}
use Situation::{Damaged, Denied, Granted, HangsUp, NoDaemon, UsedUp};

const SITUATIONS: [Situation; 6] = [NoDaemon, Granted, Denied, UsedUp, Damaged, HangsUp];

/// The exit codes, in the order of [`SITUATIONS`]. The rows of a situation are run in their order.
const ONLINE: &[(&str, [i32; 6])] = &[
    ("put /state/new v", [7, 0, 5, 8, 0, 9]),
    ("put /state/new/strict v --strict", [7, 0, 5, 8, 0, 9]),
    ("put /state/new/buffered v --buffered", [7, 0, 5, 8, 0, 9]),
    ("put /state/new/absent v --if-absent", [7, 0, 5, 8, 6, 9]),
    ("put /state/a v --if-absent", [7, 4, 5, 4, 6, 9]),
    ("put /state/a v --if-version 00000000000000aa", [7, 4, 5, 4, 6, 9]),
    ("put /state//a v", [7, 1, 5, 1, 1, 9]),
    ("put elsewhere v", [1, 1, 1, 1, 1, 1]),
    ("put", [2, 2, 2, 2, 2, 2]),
    ("get /state/a", [7, 0, 5, 0, 6, 7]),
    ("get /state/c", [7, 0, 5, 0, 0, 7]),
    ("get /state/none", [7, 3, 5, 3, 6, 7]),
    ("get /state/a/../b", [7, 1, 5, 1, 1, 7]),
    ("get", [2, 2, 2, 2, 2, 2]),
    ("stat", [7, 0, 0, 0, 0, 7]),
    ("stat /state/a", [7, 0, 5, 0, 6, 7]),
    ("stat /state/none", [7, 3, 5, 3, 6, 7]),
    ("list", [7, 0, 5, 0, 6, 7]),
    ("list /state/none", [7, 0, 5, 0, 6, 7]),
    ("list /state/", [1, 1, 1, 1, 1, 1]),
    ("list --keys-only", [7, 0, 5, 0, 6, 7]),
    ("list --values", [2, 2, 2, 2, 2, 2]),
    ("usage", [7, 0, 5, 0, 0, 7]),
    ("usage /state/none", [7, 0, 5, 0, 0, 7]),
    ("usage /state/", [1, 1, 1, 1, 1, 1]),
    ("usage state", [1, 1, 1, 1, 1, 1]),
    ("commit conflict.ndjson", [7, 4, 5, 4, 6, 9]),
    ("commit batch.ndjson", [7, 0, 5, 8, 0, 9]),
    ("commit batch.ndjson --strict", [7, 0, 5, 8, 0, 9]),
    ("commit faulty.ndjson", [1, 1, 1, 1, 1, 1]),
    ("commit none.ndjson", [1, 1, 1, 1, 1, 1]),
    ("commit batch.ndjson --token 0", [2, 2, 2, 2, 2, 2]),
    ("audit", [7, 0, 5, 0, 0, 7]),
    ("audit --denials", [7, 0, 5, 0, 0, 7]),
    ("audit --after x", [2, 2, 2, 2, 2, 2]),
    ("admin stats", [7, 0, 5, 0, 0, 7]),
    ("admin check", [7, 0, 5, 0, 0, 7]),
    ("admin checkpoint", [7, 0, 5, 0, 0, 7]),
    ("admin reload", [7, 0, 5, 0, 0, 7]),
    ("sync", [7, 0, 5, 0, 0, 9]),
    ("health", [7, 0, 0, 0, 0, 7]),
    ("whoami", [7, 0, 0, 0, 0, 7]),
    ("delete /state/a", [7, 0, 5, 0, 0, 9]),
    ("delete /state/none", [7, 3, 5, 3, 0, 9]),
    ("delete /state/", [7, 1, 5, 1, 1, 9]),
];

/// What needs no daemon, in a folder that [`files`] fills.
const OFFLINE: &[(&str, i32)] = &[
    ("image format new.img --size 1M", 0),
    ("image format sound.img", 1),
    ("image format sound.img --force", 2),
    ("image format none.img", 2),
    ("image dump sound.img", 0),
    ("image dump lost.img", 6),
    ("image dump blank.img", 1),
    ("image inspect sound.img", 0),
    ("image inspect lost.img", 6),
    ("image inspect none.img", 1),
    ("image fsck sound.img", 0),
    ("image fsck flipped.img", 4),
    ("image fsck flipped.img --repair", 16),
    ("image fsck", 16),
    ("image fsck flipped.img --undo u", 16),
    ("image fsck flipped.img --mend", 16),
    ("image fsck flipped.img --repair --yes", 1),
    ("image undo flipped.img flipped.img.undo-1", 2),
    ("image undo blank.img flipped.img.undo-1 --yes", 1),
    ("image undo flipped.img flipped.img.undo-1 --yes", 0),
    ("image undo flipped.img flipped.img.undo-1", 0),
    ("image fsck flipped.img", 4),
    ("image fsck lost.img --repair --yes", 4),
    ("image fsck none.img", 8),
    ("image salvage sound.img --out saved.img", 0),
    ("image salvage lost.img --out rest.img", 6),
    ("image salvage lost.img --out sound.img", 1),
    ("image import --from nexus blank.img imported.img", 0),
    ("image import --from nexus none.img other.img", 1),
    ("policy check p.toml", 0),
    ("policy check faulty.toml", 1),
    ("policy explain p.toml --service net --op get /state/net/a", 0),
    ("policy explain p.toml --service net --op put /state/net/a", 5),
    ("policy explain p.toml --service net --op put state", 1),
    ("policy diff p.toml p.toml", 0),
    ("policy diff p.toml faulty.toml", 1),
    ("completions bash", 0),
    ("completions fish", 0),
    ("completions zsh", 0),
    ("completions csh", 2),
    ("man --out man", 0),
    ("man --out p.toml", 1),
    ("gett", 2),
];

/// What tells the daemon's figures to who may have them, and the rest to everybody.
const FIGURES: [&str; 2] = ["stat", "health"];

/// What the tables leave out: it takes seconds, and has a test of its own in `online.rs`.
const ELSEWHERE: &str = "demo";

#[test]
fn every_verb_ends_as_the_table_says() {
    for (column, situation) in SITUATIONS.into_iter().enumerate() {
        for format in FORMATS {
            let folder = Folder::new();
            let daemon = prepare(&folder, situation);
            for (arguments, exits) in ONLINE {
                let exit = *exits.get(column).unwrap();
                check(&folder, &format!("{situation:?}"), arguments, format, exit);
            }
            drop(daemon);
        }
    }
}

#[test]
fn every_tool_ends_as_the_table_says() {
    for format in FORMATS {
        let folder = Folder::new();
        files(&folder);
        for (arguments, exit) in OFFLINE {
            check(&folder, "offline", arguments, format, *exit);
        }
    }
}

#[test]
fn the_tables_hold_every_verb_and_every_exit_code() {
    let rows = ONLINE.iter().map(|(row, exits)| (*row, &exits[..]));
    let rows: Vec<_> =
        rows.chain(OFFLINE.iter().map(|(row, exit)| (*row, std::slice::from_ref(exit)))).collect();
    let mut verbs = BTreeSet::new();
    leaves(&statefs_cli::command(), "", &mut verbs);
    assert!(verbs.remove(ELSEWHERE) && verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        let of_verb = |row: &str| row == verb || row.starts_with(&format!("{verb} "));
        let exits = rows.iter().filter(|(row, _)| of_verb(row)).flat_map(|(_, exits)| *exits);
        let exits: BTreeSet<_> = exits.collect();
        assert!(exits.contains(&0) && exits.len() > 1, "{verb}: {exits:?}");
    }
    let online: BTreeSet<_> = ONLINE.iter().flat_map(|(_, exits)| *exits).collect();
    assert_eq!(online, (0..=9).collect());
}

/// Runs one cell of a table.
fn check(folder: &Folder, place: &str, arguments: &str, format: &str, exit: i32) {
    let run = statefs(folder.path(), &format!("{arguments} -o {format}"));
    let Run { stdout, stderr, .. } = &run;
    let start = String::from_utf8_lossy(stdout.get(..stdout.len().min(400)).unwrap());
    let told = format!("{place}: statefs {arguments} -o {format}\n{start}\n{stderr}");
    assert_eq!(run.exit, exit, "{told}");
    // Neither what is said to people nor what steers a terminal is data.
    assert!(!run.text().lines().any(|line| line.starts_with("statefs: ")), "{told}");
    assert!(!stderr.contains('\u{1b}'), "{told}");
    match (format, exit) {
        ("text", 0) if place == "Denied" && FIGURES.contains(&arguments) => {
            assert_eq!(stderr, "statefs: the daemon's figures take the right admin.stats\n");
        }
        (_, 0) => assert_eq!(stderr, "", "{told}"),
        // A decision is data, also where it is no.
        (_, 5) if arguments.starts_with("policy explain") => assert_eq!(stderr, "", "{told}"),
        ("text", 2 | 16) => assert!(stderr.starts_with("error: ") || coded(stderr), "{told}"),
        ("text", _) => assert!(coded(stderr), "{told}"),
        _ => {
            let error: Json = serde_json::from_str(stderr).expect(&told);
            assert_eq!(error.get("exit").and_then(Json::as_i64), Some(exit.into()), "{told}");
            assert!(error.get("code").and_then(Json::as_str).is_some_and(is_code), "{told}");
        }
    }
    if format == "json" {
        assert!(exit != 0 || !stdout.is_empty() || says_nothing(arguments), "{told}");
        for line in run.text().lines() {
            assert!(serde_json::from_str(line).is_ok_and(|line: Json| line.is_object()), "{told}");
        }
    }
}

/// Lists may be empty, and so may differences.
fn says_nothing(arguments: &str) -> bool {
    ["list /state/none", "audit --denials"].contains(&arguments)
        || arguments.starts_with("policy diff")
}

/// Whether this is `statefs: CODE: …`.
fn coded(stderr: &str) -> bool {
    let code = stderr.strip_prefix("statefs: ").and_then(|rest| rest.split_once(": "));
    code.is_some_and(|(code, _)| is_code(code))
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn leaves(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    for verb in command.get_subcommands() {
        let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
        match verb.has_subcommands() {
            true => leaves(verb, &path, found),
            false => drop(found.insert(path)),
        }
    }
}

fn prepare(folder: &Folder, situation: Situation) -> Option<Daemon> {
    const ALL: &str = "rights = [\"get\", \"list\", \"put\", \"delete\", \"admin.stats\", \
                       \"admin.check\", \"admin.checkpoint\", \"admin.policy\", \"admin.audit\"]\n";
    let grant = format!("[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n{ALL}");
    for (name, lines) in [
        (
            "batch.ndjson",
            "{\"key\":\"/state/e\",\"text\":\"v\"}\n{\"key\":\"/state/f\",\"delete\":true}\n",
        ),
        ("conflict.ndjson", "{\"key\":\"/state/a\",\"text\":\"v\",\"ifAbsent\":true}\n"),
        ("faulty.ndjson", "{\"key\":\"/state/a\"}\n"),
    ] {
        fs::write(folder.path().join(name), lines).unwrap();
    }
    match situation {
        NoDaemon => return None,
        HangsUp => {
            fs::create_dir(folder.path().join("statefs-dev")).unwrap();
            let socket = folder.path().join("statefs-dev/statefs.sock");
            let listener = UnixListener::bind(socket).unwrap();
            // It ends with the program: not every row makes a connection.
            thread::spawn(move || {
                for stream in listener.incoming() {
                    assert!(stream.unwrap().read(&mut [0; 4096]).unwrap() > 0);
                }
            });
            return None;
        }
        Granted | Denied | UsedUp | Damaged => {}
    }
    let mut daemon = Daemon::start(folder.path(), "16M", &grant);
    for (key, value) in [("a", "first"), ("b", "the-marked-value"), ("c", "last")] {
        statefs(folder.path(), &format!("put /state/{key} {value}")).exits(0);
    }
    daemon.stop();
    if situation == Damaged {
        damage(&folder.path().join("state.img"), b"the-marked-value");
    }
    let policy = folder.path().join("policy.toml");
    let text = fs::read_to_string(&policy).unwrap();
    match situation {
        Denied => fs::write(&policy, text.replace(&grant, "")).unwrap(),
        UsedUp => fs::write(&policy, format!("{text}quota = {{ keys = 3 }}\n")).unwrap(),
        _ => {}
    }
    daemon.restart();
    Some(daemon)
}

/// Flips a bit in each place that holds `marker`.
fn damage(image: &std::path::Path, marker: &[u8]) {
    let mut bytes = fs::read(image).unwrap();
    let starts = bytes.windows(marker.len()).enumerate();
    let places: Vec<_> = starts.filter(|(_, part)| *part == marker).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "two copies");
    for place in places {
        *bytes.get_mut(place).unwrap() ^= 1;
    }
    fs::write(image, bytes).unwrap();
}

fn files(folder: &Folder) {
    let path = |name: &str| folder.path().join(name);
    for name in ["sound.img", "lost.img", "flipped.img"] {
        volume::make(&path(name), 512 << 10, 2, &[puts(5, 0)]);
    }
    damage(&path("lost.img"), b"value 1 of 0");
    let mut flipped = fs::read(path("flipped.img")).unwrap();
    *flipped.get_mut(4096).unwrap() ^= 1;
    fs::write(path("flipped.img"), flipped).unwrap();
    fs::write(path("blank.img"), vec![0; 1 << 20]).unwrap();
    let policy = "version = 1\n[service.net]\nuid = 953\n[[grant]]\nto = \"net\"\n\
                  prefix = \"/state/net\"\nrights = [\"get\"]\n";
    fs::write(path("p.toml"), policy).unwrap();
    fs::write(path("faulty.toml"), policy.replace("953", "'x'")).unwrap();
}
