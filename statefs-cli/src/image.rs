//! The tools for a volume's image or block device, without a daemon.

mod drive;
mod dump;
mod facts;
mod fill;
mod format;
mod fsck;
mod import;
mod inspect;
mod part;
mod salvage;
mod undo;

use std::path::Path;

use blockdev::OpenError as DeviceOpenError;
pub(crate) use dump::{dump, walk};
pub(crate) use format::{format, make};
pub(crate) use fsck::fsck;
pub(crate) use import::import;
pub(crate) use inspect::inspect;
pub(crate) use salvage::salvage;
pub(crate) use undo::undo;

use crate::failure::{Exit, Failure};

/// Judges why a device could not be opened or made.
fn device_failure(path: &Path, error: &DeviceOpenError) -> Failure {
    let (code, exit) = match error {
        DeviceOpenError::Absent => ("NO_IMAGE", Exit::Failure),
        DeviceOpenError::Exists => ("EXISTS", Exit::Failure),
        DeviceOpenError::Denied => ("DENIED", Exit::Denied),
        DeviceOpenError::NotStorage => ("NOT_STORAGE", Exit::Failure),
        DeviceOpenError::Busy { .. } => ("BUSY", Exit::Unavailable),
        DeviceOpenError::TooSmall { .. }
        | DeviceOpenError::Size { .. }
        | DeviceOpenError::Sector { .. } => ("GEOMETRY", Exit::Failure),
        DeviceOpenError::Io { .. } => ("DEVICE", Exit::Failure),
    };
    Failure::new(code, exit, error).about(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_opened_is_denied() {
        let failure = device_failure(Path::new("x.img"), &DeviceOpenError::Denied);
        assert_eq!((failure.code, failure.exit), ("DENIED", Exit::Denied));
        let failure = device_failure(Path::new("x.img"), &DeviceOpenError::Absent);
        assert_eq!((failure.code, failure.exit), ("NO_IMAGE", Exit::Failure));
    }
}
