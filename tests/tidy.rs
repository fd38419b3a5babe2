//! Rules of the project that neither the compiler nor clippy knows.
//!
//! Every check goes over the files of the repository and names each offence as `path:line`.

#![forbid(unsafe_code)]

mod tidy {
    pub mod files;
    pub mod graph;
    pub mod layout;
}

use tidy::files::{File, files};
use tidy::{graph, layout};

/// Lines that a module may have.
const MODULE_LINES_MAX: usize = 600;

/// Lines that `ARCHITECTURE.md` stays below.
const ARCHITECTURE_LINES_MAX: usize = 300;

/// Where `unsafe` may be written.
const UNSAFE_ADDRESSES: &[&str] = &["blockdev/src/virtio", "blockdev/src/uring", "qemu/guest/"];

/// The crates that deny `unsafe` instead of forbidding it, because they hold such an address.
const DENIES: &[&str] = &["blockdev/src/lib.rs", "qemu/guest/src/lib.rs", "qemu/guest/src/main.rs"];

#[test]
fn dependencies_point_one_way() {
    expect_none(&graph::offences(&files()));
}

#[test]
fn each_dependency_has_its_reason() {
    expect_none(&graph::unexplained(&files()));
}

#[test]
fn the_architecture_can_be_read_at_once() {
    let files = files();
    let text = files.iter().find(|file| file.path == "ARCHITECTURE.md").map(File::text);
    let lines = text.expect("ARCHITECTURE.md is there").lines().count();
    assert!(lines < ARCHITECTURE_LINES_MAX, "{lines} lines");
}

#[test]
fn modules_are_short() {
    let offences = rust_files().filter_map(|file| {
        let lines = file.text().lines().count();
        (lines > MODULE_LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
    });
    expect_none(&offences.collect::<Vec<_>>());
}

#[test]
fn unsafe_stays_at_its_addresses() {
    let mut offences = Vec::new();
    for file in rust_files() {
        if UNSAFE_ADDRESSES.iter().any(|address| file.path.starts_with(address)) {
            continue;
        }
        for (line, text) in file.lines() {
            let code = text.split("//").next().unwrap_or_default();
            if has_word(code, concat!("un", "safe")) {
                offences.push(format!("{}:{line}: outside of UNSAFE_ADDRESSES", file.path));
            }
        }
    }
    expect_none(&offences);
}

#[test]
fn crates_forbid_unsafe() {
    let mut offences = Vec::new();
    for file in rust_files().filter(|file| is_crate_root(&file.path)) {
        let forbids = file.text().contains("#![forbid(unsafe_code)]");
        let denies = DENIES.contains(&&*file.path) && file.text().contains("#![deny(unsafe_code)]");
        if !forbids && !denies {
            offences.push(format!("{}: no #![forbid(unsafe_code)]", file.path));
        }
    }
    expect_none(&offences);
}

#[test]
fn nothing_is_left_undone() {
    let words = [
        concat!("todo", "!("),
        concat!("dbg", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    let mut offences = Vec::new();
    for file in rust_files() {
        for (line, text) in file.lines() {
            for word in words.iter().filter(|word| text.contains(**word)) {
                offences.push(format!("{}:{line}: {word}", file.path));
            }
        }
    }
    expect_none(&offences);
}

/// A folder or a host of one developer's machine means nothing on another.
#[test]
fn no_file_names_a_machine() {
    let mut offences = Vec::new();
    for file in files() {
        for (line, text) in file.lines() {
            if let Some(found) = machine_path(&text) {
                offences.push(format!("{}:{line}: the path {found}", file.path));
            }
            if let Some(found) = private_host(&text) {
                offences.push(format!("{}:{line}: the host {found}", file.path));
            }
            if let Some(found) = foreign_registry(&file.path, &text) {
                offences.push(format!("{}:{line}: the registry {found}", file.path));
            }
        }
    }
    expect_none(&offences);
}

#[test]
fn format_and_layout_agree() {
    let files = files();
    let text = |path: &str| files.iter().find(|file| file.path == path).map(File::text);
    expect_none(&layout::offences(text("FORMAT.md"), text("journal/src/layout.rs")));
}

/// Every row of the public table of faults names tests that exist, or says that there is none.
#[test]
fn every_fault_names_its_tests() {
    let files = files();
    let text = |path: &str| files.iter().find(|file| file.path == path).map(File::text);
    let document = text("docs/faults.md").expect("docs/faults.md is there");
    let (mut offences, mut rows, mut tests) = (Vec::new(), 0, 0);
    for (at, line) in (1..).zip(document.lines()).filter(|(_, line)| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [fault, _, _, proof] = cells[..] else {
            offences.push(format!("docs/faults.md:{at}: {} cells", cells.len()));
            continue;
        };
        if fault == "fault" {
            continue;
        }
        rows += 1;
        let (mut path, mut named) = ("", 0);
        for quoted in proof.split('`').skip(1).step_by(2) {
            if quoted.ends_with(".rs") {
                path = quoted;
                continue;
            }
            named += 1;
            // A test of its own, or one that a macro makes of a line `name: …`.
            let code = text(path).unwrap_or_default();
            let own = code.contains(&format!("#[test]\nfn {quoted}() {{\n"))
                || code.contains(&format!("#[test]\n    fn {quoted}() {{\n"));
            if !own && !code.contains(&format!("\n    {quoted}: ")) {
                offences.push(format!("docs/faults.md:{at}: {path} has no test {quoted}"));
            }
        }
        tests += named;
        if named == 0 && !proof.starts_with("No test") {
            offences.push(format!("docs/faults.md:{at}: names no test and does not say so"));
        }
    }
    expect_none(&offences);
    assert!(rows > 50 && tests > 60, "{rows} rows, {tests} tests");
}

#[test]
fn machine_paths_are_found() {
    for text in ["/ro\u{6f}t/x", "see (/ho\u{6d}e/me/x)", "\0/wor\u{6b}/main", "\"/Us\u{65}rs/a\""]
    {
        assert!(machine_path(text).is_some(), "{text:?}");
    }
    for text in ["src/work/x", "the/home/of", "/state/net", "https://a.example/home/x"] {
        assert_eq!(machine_path(text), None, "{text:?}");
    }
}

#[test]
fn private_hosts_are_found() {
    for text in
        ["http:\u{2f}/10.0.0.7/simple", "https:\u{2f}/mirror.internal/x", "http:\u{2f}/proxy:80/"]
    {
        assert!(private_host(text).is_some(), "{text:?}");
    }
    for text in
        ["https://capnproto.org/encoding.html", "http://127.0.0.1:80/", "no url", "https://"]
    {
        assert_eq!(private_host(text), None, "{text:?}");
    }
}

fn rust_files() -> impl Iterator<Item = File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs"))
}

fn expect_none(offences: &[String]) {
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

fn is_crate_root(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    match parts.as_slice() {
        [.., "src"] => file == "lib.rs" || file == "main.rs",
        [.., "src", "bin"] | ["tests"] => true,
        ["tests", _] => file == "main.rs",
        _ => file == "build.rs",
    }
}

fn has_word(text: &str, word: &str) -> bool {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_name) && !text[at + word.len()..].starts_with(is_name)
    })
}

/// Finds an absolute path of a home, of root or of a build machine.
fn machine_path(text: &str) -> Option<&str> {
    let roots = ["/ho\u{6d}e/", "/ro\u{6f}t/", "/Us\u{65}rs/", "/wor\u{6b}/", "C:\\Us\u{65}rs"];
    let inside = |letter: char| letter.is_alphanumeric() || "_-.~}/".contains(letter);
    roots.iter().find_map(|root| {
        let (at, _) = text.match_indices(root).find(|(at, _)| !text[..*at].ends_with(inside))?;
        Some(&text[at..at + root.len()])
    })
}

/// Finds a URL whose host is no public name: an address, a bare word, a private domain.
fn private_host(text: &str) -> Option<&str> {
    let urls = text.match_indices("://").filter(|(at, _)| text[..*at].ends_with(['p', 's']));
    for (at, separator) in urls {
        let rest = &text[at + separator.len()..];
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"-.".contains(letter));
        let host = &rest[..end.unwrap_or(rest.len())];
        let local = ["localhost", "127.0.0.1", ""].contains(&host);
        let address = host.split('.').all(|part| part.parse::<u8>().is_ok());
        let private = [".internal", ".local", ".lan", ".corp", ".intranet", ".arpa"];
        let private = private.iter().any(|domain| host.ends_with(domain));
        if !local && (address || private || !host.contains('.')) {
            return Some(host);
        }
    }
    None
}

/// Finds, in the files that say where packages come from, another source than the public one.
fn foreign_registry<'a>(path: &str, text: &'a str) -> Option<&'a str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let text = text.trim();
    let foreign = match name {
        "Cargo.lock" => {
            // Put together here, so that this file names no registry itself.
            let public = ["source = \"registry+https://github.com/rust-lang/crates", ".io-index\""];
            text.starts_with("source = ") && text != public.concat()
        }
        "config.toml" => text.starts_with("replace-with") || text.starts_with("[registries"),
        ".npmrc" => text.starts_with("registry"),
        "pip.conf" | "requirements.txt" | "pyproject.toml" => text.contains("index-url"),
        _ => false,
    };
    foreign.then_some(text)
}
