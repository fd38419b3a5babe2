//! A Python with pycapnp, in an environment of its own, and the Python of a document.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, debian, run};

/// The version that is tested with; a newer one is a change like any other.
const PYCAPNP: &str = "pycapnp==2.2.4";

/// Yields an interpreter that has pycapnp, having made its environment if it is missing.
///
/// # Errors
/// There is no Python with `venv`, or the package cannot be installed.
pub(super) fn interpreter(tools: &Path) -> Result<PathBuf, Failure> {
    let folder = tools.join("python");
    let python = folder.join("bin/python");
    if has_pycapnp(&python) {
        return Ok(python);
    }
    let make = || {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&folder).stdin(Stdio::null());
        run::to_its_end(&mut command).is_ok()
    };
    if !make() {
        debian::install(&["python3", "python3-venv"]);
        if !make() {
            let advice = "Debian and Ubuntu: `apt-get install python3 python3-venv`";
            return Err(Failure::ToolMissing { program: "python3 -m venv", advice });
        }
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    // Nothing is compiled: a wheel is there, or it is said that there is none.
    run::to_its_end(pip.args(["--only-binary", ":all:", PYCAPNP]).stdin(Stdio::null()))?;
    Ok(python)
}

fn has_pycapnp(python: &Path) -> bool {
    let version = PYCAPNP.trim_start_matches("pycapnp==");
    let check = format!("import capnp; raise SystemExit(capnp.__version__ != '{version}')");
    let mut command = Command::new(python);
    let command = command.args(["-c", &check]).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Yields the fenced blocks of Python in a document.
pub(super) fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("\n```python\n") {
        let (block, after) = block.split_once("\n```").unwrap_or((block, ""));
        blocks.push(format!("{block}\n"));
        rest = after;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_of_a_document_is_found() {
        let text = "a\n```python\none\ntwo\n```\nb\n```sh\nno\n```\n```python\nthree\n```\n";
        assert_eq!(blocks(text), ["one\ntwo\n", "three\n"]);
        assert_eq!(blocks("```rust\n```\n"), [""; 0]);
    }
}
