//! The documents beside the README: every block of code is run, every link leads somewhere.
//!
//! Python is run by `cargo xtask polyglot`, which needs packages that are not Rust's.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod console;

use std::{env, fs};

use common::Folder;
use common::daemon::Daemon;
use common::document::{blocks, check_links, fences, read, root};
use console::{Console, matches, steps};
use statefs_client::{Client, Error, Rights, Version, WriteOptions, blocking};

/// The documents of the folder `docs`.
fn documents() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    assert!(names.contains(&"guide.md".into()), "{names:?}");
    names.into_iter().map(|name| format!("docs/{name}")).collect()
}

#[test]
fn every_block_is_of_a_language_that_is_run() {
    for document in documents() {
        for (language, body) in fences(&read(&document)) {
            let run = match &*language {
                "console" | "toml" => true,
                "rust" | "python" => document == "docs/guide.md",
                // The outline of a driver, in words: no program, and no language to run.
                "text" => document == "docs/porting.md",
                _ => false,
            };
            assert!(run, "{document}: nothing runs this {language:?}:\n{body}");
        }
    }
}

#[test]
fn the_commands_show_what_the_documents_show() {
    for document in documents() {
        let text = read(&document);
        let folder = Folder::new();
        for policy in blocks(&text, "toml") {
            fs::write(folder.path().join("policy.toml"), policy).unwrap();
        }
        let mut console = Console::new(folder.path());
        for block in blocks(&text, "console") {
            for step in steps(&block) {
                let shown = console.run(&step);
                assert!(matches(&step.shown, &shown), "{document}: {step:?}\nshows\n{shown}");
            }
        }
    }
}

#[test]
fn every_policy_is_sound() {
    for document in documents() {
        for policy in blocks(&read(&document), "toml") {
            let folder = Folder::new();
            fs::write(folder.path().join("policy.toml"), policy).unwrap();
            common::statefs(folder.path(), "policy check policy.toml").exits(0);
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    for document in documents() {
        check_links(&document);
    }
    assert!(check_links("docs/guide.md") > 1);
}

/// The code of the guide, in its order; [`the_code_is_that_of_the_guide`] holds the two equal.
fn first() -> Result<(), Error> {
    // Begin.
    use statefs_client::{Client, Rights};

    let client = Client::connect("statefs-dev/statefs.sock")?;
    let net = client.directory("/state/net", Rights::GET | Rights::PUT | Rights::DELETE);
    net.put("ssid", b"home")?;
    let value = net.get("ssid")?.expect("it was put");
    assert_eq!(value.data, b"home");
    assert_eq!(net.get("proxy")?, None); // there is no such key, and that is certain
    // End.
    Ok(())
}

fn two_writers(boot: &blocking::Directory) -> Result<u64, Error> {
    // Begin.
    use statefs_client::{Error, blocking::Directory};

    fn count_boot(boot: &Directory) -> Result<u64, Error> {
        loop {
            let count = boot.get("count")?;
            let before = count.as_ref().and_then(|value| value.data.as_slice().try_into().ok());
            let after = before.map_or(0, u64::from_le_bytes) + 1;
            let bytes = after.to_le_bytes();
            let written = match count {
                Some(value) => boot.put_if_version("count", &bytes, value.version),
                None => boot.put_if_absent("count", &bytes),
            };
            match written {
                Err(Error::Conflict { .. }) => {} // somebody was faster: read again
                written => return written.map(|_| after),
            }
        }
    }
    // End.
    count_boot(boot)
}

fn durable(log: &blocking::Directory) -> Result<(), Error> {
    // Begin.
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        log.put_buffered(key, value.as_bytes())?;
    }
    log.sync()?; // all three survive a power cut now
    // End.
    Ok(())
}

fn answers(net: &blocking::Directory) -> Result<(), Error> {
    // Begin.
    use statefs_client::{Error, ErrorCode};

    match net.put("ssid", b"harbour") {
        Ok(version) => println!("written: {version}"),
        Err(Error::Refused { code: ErrorCode::NoSpace | ErrorCode::QuotaExceeded, .. }) => {
            net.delete("history")?; // possible, but on a full volume after a loss of data
        }
        Err(Error::Refused { code, message }) => println!("{}: {message}", code.text()),
        Err(Error::DataLoss | Error::Conflict { .. }) => unreachable!("it has no precondition"),
        Err(Error::Indeterminate { cause }) => println!("it may be there, or not: {cause}"),
        Err(other) => return Err(other),
    }
    // End.
    Ok(())
}

fn batch(boot: &blocking::Directory, slot: Version) -> Result<(), Box<dyn std::error::Error>> {
    // Begin.
    use statefs_client::Batch;

    let mut batch = Batch::new();
    batch.put_if_version("slot", b"B", slot).put("tries", b"3").delete("pending");
    match boot.commit(&batch) {
        Ok(versions) => assert_eq!(versions.len(), 3),
        Err(Error::BatchConflict { index, .. }) => println!("not as expected: operation {index}"),
        Err(other) => return Err(other.into()),
    }
    // End.
    Ok(())
}

fn large(crash: &blocking::Directory, dump: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // Begin.
    use std::io::{Read, Write};

    let mut writer = crash.writer("last", None, WriteOptions::default());
    writer.write_all(dump)?;
    writer.finish()?; // now it is there, and durable
    let mut reader = crash.reader("last")?.expect("it was written");
    let mut copy = Vec::new();
    reader.read_to_end(&mut copy)?; // fails if the key is written meanwhile: never a mixture
    // End.
    Ok(copy)
}

#[test]
fn the_code_runs() {
    let folder = Folder::new();
    let grant = "[[grant]]\nto = \"tester\"\nprefix = \"/state\"\n\
                 rights = [\"get\", \"put\", \"delete\"]\n";
    let _daemon = Daemon::start(folder.path(), "16M", grant);
    // No other test of this program depends on where it stands.
    let before = env::current_dir().unwrap();
    env::set_current_dir(folder.path()).unwrap();
    let client = Client::connect("statefs-dev/statefs.sock").unwrap();
    env::set_current_dir(&before).unwrap();
    let rights = Rights::GET | Rights::PUT | Rights::DELETE;
    let below = |prefix: &str| client.directory(prefix, rights);

    env::set_current_dir(folder.path()).unwrap();
    let first = first();
    env::set_current_dir(before).unwrap();
    first.unwrap();
    let boot = below("/state/boot");
    assert_eq!([two_writers(&boot), two_writers(&boot)], [Ok(1), Ok(2)]);
    let log = below("/state/log");
    durable(&log).unwrap();
    assert_eq!(log.get("c").unwrap().unwrap().data, b"3");
    let net = below("/state/net");
    answers(&net).unwrap();
    assert_eq!(net.get("ssid").unwrap().unwrap().data, b"harbour");
    let slot = boot.put("slot", b"A").unwrap();
    batch(&boot, slot).unwrap();
    assert_eq!(boot.get("slot").unwrap().unwrap().data, b"B");
    let dump = vec![7; 500_000];
    assert!(large(&below("/state/crash"), &dump).unwrap() == dump);
}

#[test]
fn the_code_is_that_of_the_guide() {
    let here = include_str!("guide.rs").split("    // Begin.\n").skip(1);
    let here = here.filter_map(|rest| rest.split_once("    // End.\n"));
    let here: Vec<String> = here
        .map(|(block, _)| {
            block
                .lines()
                .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or("")))
                .collect()
        })
        .collect();
    assert_eq!(blocks(&read("docs/guide.md"), "rust"), here);
}
