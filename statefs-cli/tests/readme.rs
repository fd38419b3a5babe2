//! The README: its commands against a real daemon, its code, its table and its links.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod console;

use std::env;
use std::fs;

use common::Folder;
use common::daemon::Daemon;
use common::document::{blocks, check_links, read, root};
use console::{Console, matches, steps};

#[test]
fn the_commands_show_what_the_readme_shows() {
    let folder = Folder::new();
    let mut console = Console::new(folder.path());
    let readme = readme();
    let blocks = blocks(&readme, "console");
    assert!(blocks.len() > 3, "{blocks:?}");
    for block in blocks {
        for step in steps(&block) {
            let shown = console.run(&step);
            assert!(matches(&step.shown, &shown), "{step:?}\nshows\n{shown}");
        }
    }
}

/// The code of the README, which [`the_code_is_one`] holds equal to this one.
fn eight_lines() -> Result<(), statefs_client::Error> {
    // Begin.
    use statefs_client::{Client, Rights};

    let client = Client::connect("statefs-dev/statefs.sock")?;
    let net = client.directory("/state/net", Rights::GET | Rights::PUT);
    let home = net.put("ssid", b"home")?; // on the medium, in both copies, when this returns
    net.put_if_version("ssid", b"harbour", home)?; // only if nobody else wrote meanwhile
    let value = net.get("ssid")?.expect("nobody deletes it");
    assert_eq!(value.data, b"harbour");
    // End.
    Ok(())
}

#[test]
fn the_code_runs() {
    let folder = Folder::new();
    let grant = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\nrights = [\"get\", \"put\"]\n";
    let _daemon = Daemon::start(folder.path(), "2M", grant);
    // No other test of this program depends on where it stands.
    let before = env::current_dir().unwrap();
    env::set_current_dir(folder.path()).unwrap();
    let end = eight_lines();
    env::set_current_dir(before).unwrap();
    end.unwrap();
}

#[test]
fn the_code_is_one() {
    let readme = readme();
    let [shown] = &blocks(&readme, "rust")[..] else { panic!("the README has one block of code") };
    assert_eq!(shown.lines().count(), 8);
    let here = include_str!("readme.rs");
    let (_, here) = here.split_once("// Begin.\n").unwrap();
    let (here, _) = here.split_once("    // End.").unwrap();
    let here: Vec<&str> =
        here.lines().map(|line| line.strip_prefix("    ").unwrap_or("")).collect();
    assert_eq!(*shown, here.join("\n") + "\n");
    let client = fs::read_to_string(root().join("statefs-client/src/lib.rs")).unwrap();
    let docs = client.lines().filter_map(|line| line.strip_prefix("//!"));
    let docs = docs.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let docs: Vec<&str> = docs.filter(|line| !line.starts_with("# ")).collect();
    assert!(docs.join("\n").contains(&format!("```\n{shown}```")), "the client's documentation");
}

#[test]
fn every_task_exists() {
    let tasks = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let readme = readme();
    let [shown] = &blocks(&readme, "sh")[..] else { panic!("the README has one block of tasks") };
    for line in shown.lines() {
        let verb = line.strip_prefix("cargo xtask ").unwrap().split(' ').next().unwrap();
        assert!(tasks.contains(&format!("\n  {verb} ")), "{line}");
    }
}

#[test]
fn every_promise_names_a_test() {
    let readme = readme();
    // The table of promises is the first one.
    let table = readme.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, promise, file, test, _] = cells[..] else { panic!("{row}") };
        let code = fs::read_to_string(root().join(file)).unwrap_or_default();
        // A test of its own, or one that a macro makes of a line `name: …`.
        let named = code.contains(&format!("#[test]\nfn {test}() {{\n"))
            || code.contains(&format!("\n    {test}: "));
        assert!(named, "{promise}: {file}: {test}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn every_link_leads_somewhere() {
    assert!(check_links("README.md") > 5);
}

fn readme() -> String {
    read("README.md")
}
