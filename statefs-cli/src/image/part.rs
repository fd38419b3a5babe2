//! New images have a name of their own until they are whole: one that was cut off before, by a signal or with the power,
//! would be taken for the whole, or stand in the way of the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Yields where the image for `path` is made.
///
/// # Errors
/// Something is at `path` or there already.
pub(super) fn begin(path: &Path) -> Result<PathBuf, Failure> {
    free(path, "something is there already; nothing was changed")?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    free(&part, "it is what a run left that was cut short, or one makes it now; remove it first")?;
    Ok(part)
}

/// Gives the image its name. Durability: when this returns, the name survives a power cut.
///
/// # Errors
/// Something came to be at `path`, or the system fails.
pub(super) fn end(part: &Path, path: &Path) -> Result<(), Failure> {
    free(path, "something came to be there meanwhile, and is not replaced")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let named = fs::rename(part, path)
        .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
    named.map_err(|error| Failure::new("DEVICE", Exit::Failure, error).about(path.display()))
}

/// Demands that nothing is at `path`.
fn free(path: &Path, message: &str) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Failure::new("EXISTS", Exit::Failure, message).about(path.display()));
    }
    Ok(())
}
