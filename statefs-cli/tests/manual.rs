//! What is made of the definitions: completions that a shell takes, and man pages.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::{Folder, statefs};

/// Has bash complete a line, of which the last word is unfinished.
fn completed(folder: &Folder, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let [.., before, last] = words[..] else { panic!("{line}") };
    let script = format!(
        "source ./completions\nCOMP_WORDS=({line})\nCOMP_CWORD={}\n\
         _statefs statefs '{last}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len() - 1
    );
    let mut bash = Command::new("bash");
    let output = bash.args(["--norc", "-c", &script]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.stderr, b"", "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn bash_completes_verbs_and_options() {
    let folder = Folder::new();
    let script = statefs(folder.path(), "completions bash").exits(0);
    fs::write(folder.path().join("completions"), &script.stdout).unwrap();
    assert_eq!(completed(&folder, "statefs im"), ["image"]);
    assert_eq!(completed(&folder, "statefs image sal"), ["salvage"]);
    assert_eq!(completed(&folder, "statefs image und"), ["undo"]);
    assert_eq!(completed(&folder, "statefs put --if"), ["--if-absent", "--if-version"]);
    assert_eq!(completed(&folder, "statefs list --output j"), ["json"]);
}

#[test]
fn every_shell_has_its_script() {
    let folder = Folder::new();
    for (shell, line) in [
        ("bash", "complete -F _statefs"),
        ("zsh", "#compdef statefs"),
        ("fish", "complete -c statefs"),
        ("elvish", "set edit:completion:arg-completer[statefs]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = statefs(folder.path(), &format!("completions {shell}")).exits(0);
        assert!(script.text().contains(line), "{shell}");
        assert!(!script.text().contains("__daemon"), "{shell}");
    }
}

#[test]
fn each_verb_and_both_programs_have_a_page() {
    let folder = Folder::new();
    let written = statefs(folder.path(), "man --out deep/man").exits(0);
    let paths: Vec<&str> = written.text().lines().collect();
    for name in ["statefs.1", "statefs-put.1", "statefs-image-undo.1", "statefsd.8"] {
        assert!(paths.contains(&&*format!("deep/man/{name}")), "{paths:?}");
    }
    for path in &paths {
        let page = fs::read_to_string(folder.path().join(path)).unwrap();
        let name = path.rsplit('/').next().unwrap().rsplit_once('.').unwrap().0;
        assert!(page.contains(".SH NAME\n"), "{path}");
        assert!(page.contains(&format!("\n{} \\- ", name.replace('-', "\\-"))), "{path}: {page}");
        let leaf = !page.contains(".SH SUBCOMMANDS\n");
        assert!(!leaf || page.contains("Examples:"), "{path}");
    }
    let page = fs::read_to_string(folder.path().join("deep/man/statefs.1")).unwrap();
    assert!(page.contains("9 indeterminate"), "the exit codes: {page}");
    // Twice is the same, to the byte.
    statefs(folder.path(), "man --out again").exits(0);
    for path in paths {
        let again = path.replace("deep/man", "again");
        let [first, second] = [path, &again].map(|path| fs::read(folder.path().join(path)));
        assert_eq!(first.unwrap(), second.unwrap(), "{path}");
    }
}

/// Who restores from a dump by its help alone must not take the last part of a value for the value.
#[test]
fn the_help_of_dump_names_each_member_that_the_format_does() {
    let format = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../FORMAT.md")).unwrap();
    let (_, section) = format.split_once("## 11. Dump and digest").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter(|line| line.starts_with("    {\""));
    let members = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let members: BTreeSet<&str> = members.chain(["keyBytes"]).collect();
    assert!(members.len() > 5, "{members:?}");
    let help = statefs(Folder::new().path(), "image dump --help").exits(0);
    for member in members {
        assert!(help.text().contains(&format!("`{member}`")), "{member}: {}", help.text());
    }
}
