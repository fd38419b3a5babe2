//! Documents: their fenced blocks, and their links.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Reads a document of the workspace.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Yields each fenced block with its language.
pub(crate) fn fences(text: &str) -> Vec<(String, String)> {
    let fences = text.split("\n```").collect::<Vec<_>>();
    // Before the first fence, between fences, inside, between …
    let inside = fences.iter().skip(1).step_by(2);
    let blocks = inside.filter_map(|block| block.split_once('\n'));
    blocks.map(|(language, body)| (language.to_owned(), format!("{body}\n"))).collect()
}

/// Yields the fenced blocks of a language.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let blocks = fences(text).into_iter().filter(|(name, _)| name == language);
    blocks.map(|(_, body)| body).collect()
}

/// Demands that every link of a document leads to a file or a heading; yields how many there are.
pub(crate) fn check_links(path: &str) -> usize {
    let text = read(path);
    let folder = root().join(path).parent().unwrap().to_owned();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let headings: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| format!("#{}", heading.to_lowercase().replace(' ', "-")))
        .collect();
    let mut count = 0;
    for link in links {
        let found = folder.join(link).exists() || headings.iter().any(|heading| heading == link);
        assert!(found, "{path}: {link}");
        count += 1;
    }
    count
}
