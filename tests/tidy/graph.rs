//! Which crate of the workspace may depend on which.

use crate::tidy::files::File;

/// Each crate with the crates that it may name; a new edge is a reviewed line.
const EDGES: &[(&str, &[&str])] = &[
    ("statefs", &[]),
    ("blockdev", &[]),
    ("journal", &["blockdev"]),
    ("policy", &[]),
    ("vat", &[]),
    ("statefsd", &["blockdev", "journal", "policy", "statefs", "vat"]),
    ("statefs-client", &["statefs", "vat"]),
    (
        "guest",
        &[
            "blockdev",
            "crashd",
            "keystored",
            "policy",
            "statefs-client",
            "statefsd",
            "updated",
            "vat",
        ],
    ),
    ("statefs-cli", &["blockdev", "journal", "policy", "statefs", "statefs-client", "statefsd"]),
    ("crashd", &["statefs-cli", "statefs-client"]),
    ("keystored", &["statefs-cli", "statefs-client"]),
    ("updated", &["blockdev", "journal", "statefs-cli", "statefs-client"]),
];

/// Crates that prove or drive the others and that nothing depends on.
const FREE: &[&str] = &[
    "bench",
    "conformance",
    "fuzz",
    "harness",
    "libfuzzer",
    "recovery-model",
    "tests",
    "vat-interop",
    "xtask",
];

/// Lists the edges that the table does not hold, and the crates that it does not know.
pub fn offences(files: &[File]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        let Some(name) = package(file.text()) else {
            continue;
        };
        if FREE.contains(&name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            offences.push(format!("{}: {name} has no line in EDGES", file.path));
            continue;
        };
        for dependency in dependencies(file.text()) {
            let ours = FREE.contains(&dependency.as_str())
                || EDGES.iter().any(|(known, _)| *known == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                offences.push(format!("{}: {name} must not know {dependency}", file.path));
            }
        }
    }
    offences
}

/// Lists the dependencies from elsewhere without a row in the table of `CONTRIBUTING.md`.
pub fn unexplained(files: &[File]) -> Vec<String> {
    let guide = files.iter().find(|file| file.path == "CONTRIBUTING.md");
    let rows: Vec<String> = guide
        .iter()
        .flat_map(|guide| guide.lines())
        .filter_map(|(_, line)| Some(line.strip_prefix("| `")?.split_once(" |")?.0.to_owned()))
        .collect();
    let explained = |name: &str| {
        rows.iter().any(|row| row.split(['`', ',', ' ']).any(|explained| explained == name))
    };
    let mut offences = Vec::new();
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        for name in dependencies(file.text()) {
            let ours = FREE.contains(&&*name) || EDGES.iter().any(|(known, _)| *known == name);
            if !ours && !explained(&name) {
                offences.push(format!("{}: {name} has no reason in CONTRIBUTING.md", file.path));
            }
        }
    }
    offences
}

fn is_manifest(path: &str) -> bool {
    path == "Cargo.toml" || path.ends_with("/Cargo.toml")
}

/// Returns the name of the package; `None` for a workspace without one.
fn package(manifest: &str) -> Option<String> {
    let (_, rest) = manifest.split_once("[package]")?;
    let line = rest.lines().find(|line| key(line) == Some("name"))?;
    Some(quoted(line)?.to_owned())
}

/// Lists the packages that the manifest's dependency tables name, of every kind and target.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let table = header.rsplit_once("dependencies");
            let workspace = header.starts_with("workspace");
            inside = !workspace && table.is_some_and(|(_, after)| after.is_empty());
            if let Some((_, after)) = table
                && let Some(name) = after.strip_prefix('.')
                && !workspace
            {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if inside && let Some(name) = key(line) {
            let renamed = line.split_once("package").and_then(|(_, rest)| quoted(rest));
            names.push(renamed.unwrap_or(name).to_owned());
        } else if key(line) == Some("package")
            && let Some(name) = quoted(line)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Returns the first part of the key of a line `key = value` or `key.part = value`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.split('.').next().unwrap_or(key).trim().trim_matches('"');
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

#[test]
fn dependencies_are_read_in_every_spelling() {
    let manifest = "
        [package]
        name = \"one\"
        [workspace.dependencies]
        unseen = { path = \"unseen\" }
        [dependencies]
        # comment = \"1\"
        a = \"1\"
        b = { workspace = true, features = [\"x\"] }
        c.workspace = true
        renamed = { version = \"1\", package = \"d\" }
        [dependencies.e]
        version = \"1\"
        [target.'cfg(unix)'.dependencies]
        f = \"1\"
        [dev-dependencies]
        g = \"1\"
        [build-dependencies.h]
        [features]
        i = []
    ";
    assert_eq!(package(manifest).as_deref(), Some("one"));
    assert_eq!(dependencies(manifest), ["a", "b", "c", "d", "e", "f", "g", "h"]);
}

#[test]
fn an_edge_that_is_not_in_the_table_is_found() {
    let files = [
        File::new(
            "journal/Cargo.toml",
            "[package]\nname = \"journal\"\n[dependencies]\npolicy.workspace = true\nblockdev.workspace = true\n",
        ),
        File::new("new/Cargo.toml", "[package]\nname = \"new\"\n"),
        File::new(
            "tests/Cargo.toml",
            "[package]\nname = \"tests\"\n[dependencies]\npolicy.workspace = true\n",
        ),
    ];
    assert_eq!(
        offences(&files),
        [
            "journal/Cargo.toml: journal must not know policy",
            "new/Cargo.toml: new has no line in EDGES",
        ]
    );
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let files = [
        File::new("CONTRIBUTING.md", "| crate |\n| `a`, `b` | here | why |\nnot `c` |\n"),
        File::new(
            "journal/Cargo.toml",
            "[package]\nname = \"journal\"\n[dependencies]\na = \"1\"\nb = \"1\"\nc = \"1\"\nblockdev = \"1\"\n",
        ),
    ];
    assert_eq!(unexplained(&files), ["journal/Cargo.toml: c has no reason in CONTRIBUTING.md"]);
}
