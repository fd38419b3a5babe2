//! New images have a name of their own until they are whole: one that was cut off before, by a signal or with the power,
//! would be taken for the whole, or stand in the way of the next run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failure::{Exit, Failure};

/// Yields where the image for `path` is made.
///
/// # Errors
/// Something is at `path` or there already.
pub(super) fn begin(path: &Path) -> Result<PathBuf, Failure> {
    free(path, "something is there already; nothing was changed")?;
    beside(path)
}

/// Yields where what is to take the place of `path` is made.
///
/// # Errors
/// Something is there already.
pub(super) fn beside(path: &Path) -> Result<PathBuf, Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    free(&part, "it is what a run left that was cut short, or one makes it now; remove it first")?;
    Ok(part)
}

/// Makes the file `part`, and removes it again where that fails. Durability: when this returns, what was written survives a
/// power cut.
pub(super) fn filled(
    part: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = File::create_new(part)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    written.inspect_err(|_| give_up(part))
}

/// Removes what was made in vain. The failure that is told is the first.
pub(super) fn give_up(part: &Path) {
    fs::remove_file(part).unwrap_or_default();
}

/// Gives the image its name. Durability: when this returns, the name survives a power cut.
///
/// # Errors
/// Something came to be at `path`, or the system fails.
pub(super) fn end(part: &Path, path: &Path) -> Result<(), Failure> {
    let message = "something came to be there meanwhile, and is not replaced";
    let named = match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => {
            return Err(Failure::new("EXISTS", Exit::Failure, message).about(path.display()));
        }
        // Not every file system knows that. What comes between the two steps is replaced there.
        Err(Errno::INVAL | Errno::NOSYS) => {
            free(path, message)?;
            fs::rename(part, path)
        }
        named => named.map_err(io::Error::from),
    };
    let named = named.and_then(|()| keep_names(path));
    named.map_err(|error| Failure::new("DEVICE", Exit::Failure, error).about(path.display()))
}

/// Puts what was made in the place of what is at `path`. Durability: as with [`end`].
pub(super) fn replace(part: &Path, path: &Path) -> io::Result<()> {
    fs::rename(part, path).and_then(|()| keep_names(path))
}

/// Makes the names in the folder of `path` durable.
fn keep_names(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Demands that nothing is at `path`.
fn free(path: &Path, message: &str) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Failure::new("EXISTS", Exit::Failure, message).about(path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_came_to_be_there_meanwhile_is_not_replaced() {
        let folder = std::env::temp_dir().join(format!("statefs-part-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("x.img");
        let part = begin(&path).expect("nothing is there");
        filled(&part, |file| file.write_all(b"new")).expect("room");
        let taken = |end: Result<(), Failure>| end.err().map(|failure| failure.code);
        fs::write(&path, "of somebody else").expect("room");
        assert_eq!(taken(end(&part, &path)), Some("EXISTS"));
        assert_eq!(fs::read(&path).expect("a file"), b"of somebody else");
        fs::remove_file(&path).expect("a file");
        std::os::unix::fs::symlink("nowhere", &path).expect("a link");
        assert_eq!(taken(end(&part, &path)), Some("EXISTS"));
        fs::remove_file(&path).expect("a link");
        end(&part, &path).expect("nothing is there");
        assert_eq!(fs::read(&path).expect("a file"), b"new");
        fs::remove_dir_all(&folder).expect("the folder");
    }
}
