//! Keeps the compiled schemas that are checked in equal to their sources.
//!
//! The build reads only the images, so that it needs no `capnp` program; this is where the program
//! is used. The same program gives the same bytes on every machine and from every folder. Another
//! version of it gives other bytes for the same schema, so images of different versions are
//! compared by what they mean.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::{Failure, projection};

/// Compiles every schema anew and writes the images that differ.
///
/// # Errors
/// `capnp` is missing or refuses a schema, or a file cannot be written.
pub(crate) fn renew(root: &Path) -> Result<(), Failure> {
    for schema in Schema::all(root)? {
        let image = schema.compile(root)?;
        if schema.image(root).ok().as_ref() == Some(&image) {
            println!("{}: unchanged", schema.image);
            continue;
        }
        let path = root.join(&schema.image);
        fs::write(&path, &image).map_err(|error| io_failure(&path, error))?;
        println!("{}: written, {} bytes", schema.image, image.len());
    }
    Ok(())
}

/// Tells whether every image that is checked in is what its schema compiles to.
///
/// # Errors
/// [`Failure::Stale`] if one is not; `capnp` is missing or refuses a schema; an image is missing.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let mut images = Vec::new();
    for schema in Schema::all(root)? {
        let old = schema.image(root)?;
        let new = schema.compile(root)?;
        let fresh = same(&old, &new)
            .map_err(|error| Failure::Image { path: schema.image.clone(), error })?;
        println!("{}: {}", schema.image, if fresh { "fresh" } else { "stale" });
        if !fresh {
            images.push(schema.image);
        }
    }
    if images.is_empty() { Ok(()) } else { Err(Failure::Stale { images }) }
}

/// A schema and its image, as paths from the root of the workspace with forward slashes.
struct Schema {
    folder: String,
    source: String,
    image: String,
}

impl Schema {
    /// Finds `schema/statefs.capnp`, and in each member's `schema` folder the sources that have an
    /// image beside them.
    fn all(root: &Path) -> Result<Vec<Self>, Failure> {
        let mut all = vec![Self::new("schema", "statefs")];
        for member in entries(root)? {
            let folder = root.join(&member).join("schema");
            if !folder.is_dir() {
                continue;
            }
            for file in entries(&folder)? {
                let Some(name) = file.strip_suffix(".capnp") else {
                    continue;
                };
                let schema = Self::new(&format!("{member}/schema"), name);
                if root.join(&schema.image).exists() {
                    all.push(schema);
                }
            }
        }
        Ok(all)
    }

    fn new(folder: &str, name: &str) -> Self {
        Self {
            folder: folder.into(),
            source: format!("{folder}/{name}.capnp"),
            image: format!("{folder}/{name}.image"),
        }
    }

    /// Reads the image that is checked in.
    fn image(&self, root: &Path) -> Result<Vec<u8>, Failure> {
        let path = root.join(&self.image);
        fs::read(&path).map_err(|error| io_failure(&path, error))
    }

    /// Compiles the source. Only vendored imports are used, and no path of this machine gets into
    /// the result.
    fn compile(&self, root: &Path) -> Result<Vec<u8>, Failure> {
        let output = Command::new(CAPNP)
            .args(["compile", "-o-", "--no-standard-import", "-I", "schema/include"])
            .arg(format!("--src-prefix={}", self.folder))
            .arg(&self.source)
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(output.stdout),
            Ok(_) => Err(Failure::Command { program: "capnp compile" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::ToolMissing { program: CAPNP, advice: ADVICE })
            }
            Err(error) => Err(Failure::Io { what: CAPNP.into(), error }),
        }
    }
}

/// Tells whether two images stand for the same schema: byte for byte if one version of `capnp`
/// wrote both, else by what they mean.
fn same(old: &[u8], new: &[u8]) -> capnp::Result<bool> {
    if projection::version(old)? == projection::version(new)? {
        return Ok(old == new);
    }
    Ok(projection::project(old)? == projection::project(new)?)
}

/// Lists the names in a folder, sorted, without those that are not UTF-8.
fn entries(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| io_failure(folder, error))? {
        let entry = entry.map_err(|error| io_failure(folder, error))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn io_failure(path: &Path, error: io::Error) -> Failure {
    Failure::Io { what: PathBuf::from(path).display().to_string(), error }
}

const CAPNP: &str = "capnp";
const ADVICE: &str = "Debian and Ubuntu: `apt-get install capnproto`, macOS: `brew install capnp` \
    (only changing or checking a schema needs it, building does not)";

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../schema/statefs.image");

    #[test]
    fn one_version_is_compared_by_bytes() {
        let mut other = IMAGE.to_vec();
        let comment = b"The bootstrap capability";
        let at = other.windows(comment.len()).position(|bytes| bytes == comment).unwrap();
        other[at] ^= 0x20;
        assert!(same(IMAGE, IMAGE).unwrap());
        assert!(!same(IMAGE, &other).unwrap());
    }

    #[test]
    fn the_schema_of_the_root_is_always_among_them() {
        let all = Schema::all(crate::root()).unwrap();
        assert_eq!(all.first().unwrap().image, "schema/statefs.image");
        assert!(all.iter().skip(1).all(|schema| schema.image.contains("/schema/")));
    }
}
