//! Reading the policy file.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _};
use std::path::Path;
use std::string::{String, ToString as _};

use policy::Policy;

use super::failure::Failure;

/// Bytes that are read at most; the policy's own limit is smaller.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Reads a policy.
///
/// # Errors
/// The file cannot be read, or every fault in it, with its place.
pub(crate) fn load(path: &Path) -> Result<Policy, Failure> {
    let unreadable = |error| Failure::PolicyFile { path: path.into(), error };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        let error = Error::new(ErrorKind::InvalidInput, "it is no regular file");
        return Err(unreadable(error));
    }
    let mut text = String::new();
    file.take(READ_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Policy::parse(&text).map_err(|errors| {
        let file = path.display().to_string();
        let faults = errors.iter().map(|error| error.in_file(&file).to_string()).collect();
        Failure::Policy { faults }
    })
}
