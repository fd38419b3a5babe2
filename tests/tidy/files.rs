//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file, by its path from the root with forward slashes.
pub struct File {
    pub path: String,
    text: String,
}

impl File {
    /// A file that is not on disk.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The content; what is not UTF-8 is replaced, so that binary files can be searched too.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Each line with its number, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line.to_owned()))
    }
}

/// Reads all that belongs to the repository: what git tracks or would track; without git, all that
/// is not built or hidden.
pub fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of it");
    let mut paths = tracked(root).unwrap_or_else(|| {
        let mut paths = Vec::new();
        walk(root, root, &mut paths);
        paths
    });
    paths.sort();
    assert!(paths.iter().any(|path| path == "tests/tidy.rs"), "the walk found the repository");
    let read = |path: String| {
        let bytes = fs::read(root.join(&path)).ok()?;
        Some(File { path, text: String::from_utf8_lossy(&bytes).into_owned() })
    };
    // A file that git tracks may have been deleted in the working copy.
    paths.into_iter().filter_map(read).collect()
}

fn tracked(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let list = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = list.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            if name != "target" && name != ".git" && name != "statefs-dev" {
                walk(root, &entry, paths);
            }
        } else if let Ok(path) = entry.strip_prefix(root) {
            paths.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
}
