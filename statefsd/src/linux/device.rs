//! What the device failed to do, for the log. Peers learn that it failed and no more, and so does the core; why, the
//! operating system alone knows, and whoever has to free room or change a disk needs its words.

use std::collections::BTreeMap;
use std::io;
use std::string::{String, ToString as _};

use blockdev::{Completion, DeviceError, Operation, Request, RequestId};

/// Milliseconds of a window, and how many failed reads each tells: a block that cannot be read is asked for as often as a
/// peer likes. A write or a flush that fails is always told: it ends writing, so there are few.
const WINDOW_MS: u64 = 1000;
const TOLD_MAX: usize = 4;

/// The requests that the device has, and the failures that were told of late.
#[derive(Default)]
pub(super) struct Failures {
    asked: BTreeMap<RequestId, (Operation, usize)>,
    window: u64,
    told: usize,
    /// Failures since the last that was told.
    skipped: u64,
}

/// A request that failed.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Failed {
    pub(super) operation: Operation,
    pub(super) bytes: usize,
    /// What the operating system says.
    pub(super) reason: String,
    /// How many failed before without being told.
    pub(super) skipped: u64,
}

impl Failures {
    /// Notes what the device is asked.
    pub(super) fn asked(&mut self, request: &Request) {
        self.asked.insert(request.id, (request.operation, request.buffer.len()));
    }

    /// Notes an answer at `now`; yields it if it is a failure and not one read too many.
    pub(super) fn answered(&mut self, completion: &Completion, now: u64) -> Option<Failed> {
        let (operation, bytes) = self.asked.remove(&completion.id)?;
        let error = completion.result.err()?;
        if now.saturating_sub(self.window) >= WINDOW_MS {
            (self.window, self.told) = (now, 0);
        }
        if let Operation::Read { .. } = operation {
            if self.told >= TOLD_MAX {
                self.skipped += 1;
                return None;
            }
            self.told += 1;
        }
        let skipped = std::mem::take(&mut self.skipped);
        Some(Failed { operation, bytes, reason: reason(error), skipped })
    }
}

fn reason(error: DeviceError) -> String {
    match error {
        DeviceError::Io { code: 0 } | DeviceError::OutOfRange => error.to_string(),
        DeviceError::Io { code } => io::Error::from_raw_os_error(code).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use blockdev::Buffer;

    use super::*;

    const ENOSPC: i32 = 28;

    fn ask(failures: &mut Failures, id: u64, operation: Operation, bytes: usize) {
        let buffer = Buffer::zeroed(bytes);
        failures.asked(&Request { id: RequestId(id), operation, buffer });
    }

    fn answer(
        failures: &mut Failures,
        id: u64,
        now: u64,
        result: Result<(), DeviceError>,
    ) -> Option<Failed> {
        let buffer = Buffer::zeroed(0);
        failures.answered(&Completion { id: RequestId(id), buffer, result }, now)
    }

    #[test]
    fn a_failure_is_told_with_the_reason_of_the_system() {
        let mut failures = Failures::default();
        ask(&mut failures, 1, Operation::Write { offset: 8192 }, 4096);
        ask(&mut failures, 2, Operation::Flush, 0);
        ask(&mut failures, 3, Operation::Read { offset: 0 }, 512);
        let full = Err(DeviceError::Io { code: ENOSPC });
        let failed = answer(&mut failures, 1, 5, full).unwrap();
        assert_eq!((failed.operation, failed.bytes), (Operation::Write { offset: 8192 }, 4096));
        assert!(failed.reason.starts_with("No space left on device"), "{}", failed.reason);
        let failed = answer(&mut failures, 2, 5, Err(DeviceError::Io { code: 0 })).unwrap();
        assert_eq!(
            (failed.operation, &*failed.reason),
            (Operation::Flush, "the device reported a failure")
        );
        assert_eq!(answer(&mut failures, 3, 5, Ok(())), None);
        assert!(failures.asked.is_empty());
    }

    #[test]
    fn a_flood_of_failures_is_counted() {
        let mut failures = Failures::default();
        let mut told = |id: u64, now: u64| {
            ask(&mut failures, id, Operation::Read { offset: 0 }, 512);
            let failed = answer(&mut failures, id, now, Err(DeviceError::Io { code: 5 }));
            failed.map(|failed| failed.skipped)
        };
        let first: Vec<_> = (0..7).map(|id| told(id, 5000)).collect();
        assert_eq!(first, [Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(told(7, 5999), None);
        assert_eq!(told(8, 6000), Some(4));
        assert_eq!(told(9, 6000), Some(0));
        let full: Vec<_> = (10..13).map(|id| told(id, 6000)).collect();
        assert_eq!(full, [Some(0), Some(0), None]);
        for operation in [Operation::Write { offset: 0 }, Operation::Flush] {
            ask(&mut failures, 13, operation, 0);
            let failed = answer(&mut failures, 13, 6000, Err(DeviceError::Io { code: 5 }));
            assert_eq!(failed.map(|failed| failed.operation), Some(operation), "it ends writing");
        }
    }
}
