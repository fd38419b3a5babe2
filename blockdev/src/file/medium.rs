//! The system calls: whole transfers, and a flush whose failure is final.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::Advice;

use super::lanes::Medium;
use crate::{Buffer, DeviceError, EIO, EROFS, Operation};

/// An open file, and whether a flush of it has ever failed.
pub(super) struct FileMedium {
    file: File,
    direct: bool,
    writable: bool,
    /// Held during a flush, so that two never overlap: of two at once, the kernel tells only one
    /// of a lost write, and the other would vouch for it.
    flush_failure: Mutex<Option<DeviceError>>,
}

impl FileMedium {
    pub(super) fn new(file: File, direct: bool, writable: bool) -> Self {
        Self { file, direct, writable, flush_failure: Mutex::new(None) }
    }

    pub(super) fn direct(&self) -> bool {
        self.direct
    }

    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn flush(&self) -> Result<(), DeviceError> {
        flush_once(&self.flush_failure, || self.file.sync_data())?;
        Ok(())
    }

    /// Asks the kernel to forget its copy, so that reads come from the medium.
    fn drop_cache(&self) {
        if !self.direct {
            // Advice: a kernel that refuses it has kept the cache, which the type's text allows.
            let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }
}

impl Medium for FileMedium {
    fn serve(&self, operation: Operation, buffer: &mut Buffer) -> Result<(), DeviceError> {
        match operation {
            Operation::Read { offset } => {
                read_whole(buffer, offset, |part, offset| self.file.read_at(part, offset))
            }
            Operation::Write { .. } if !self.writable => Err(DeviceError::Io { code: EROFS }),
            Operation::Write { offset } => {
                write_whole(buffer, offset, |part, offset| self.file.write_at(part, offset))
            }
            Operation::Flush => {
                let result = self.flush();
                self.drop_cache();
                result
            }
        }
    }
}

/// Calls `sync` unless it has failed before; a failure is remembered and told ever after.
fn flush_once(
    failure: &Mutex<Option<DeviceError>>,
    sync: impl Fn() -> io::Result<()>,
) -> Result<(), DeviceError> {
    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = *failure {
        return Err(error);
    }
    let result = self::sync(sync);
    *failure = result.err();
    result
}

/// Flushes by `sync`. A flush that was interrupted has reported nothing yet, so it alone is called again.
pub(crate) fn sync(sync: impl Fn() -> io::Result<()>) -> Result<(), DeviceError> {
    loop {
        match sync() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|error| device_error(&error)),
        }
    }
}

/// Fills `buffer` from `offset`, however little each call of `read_at` yields.
fn read_whole(
    buffer: &mut [u8],
    mut offset: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<(), DeviceError> {
    let mut rest = buffer;
    while !rest.is_empty() {
        match read_at(rest, offset) {
            // The file has become shorter than it was when it was opened.
            Ok(0) => return Err(DeviceError::Io { code: EIO }),
            Ok(bytes) => {
                rest = rest.get_mut(bytes..).unwrap_or_default();
                offset = offset.saturating_add(bytes as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(device_error(&error)),
        }
    }
    Ok(())
}

/// Puts all of `content` at `offset`, however little each call of `write_at` takes.
fn write_whole(
    content: &[u8],
    mut offset: u64,
    mut write_at: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> Result<(), DeviceError> {
    let mut rest = content;
    while !rest.is_empty() {
        match write_at(rest, offset) {
            Ok(0) => return Err(DeviceError::Io { code: EIO }),
            Ok(bytes) => {
                rest = rest.get(bytes..).unwrap_or_default();
                offset = offset.saturating_add(bytes as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(device_error(&error)),
        }
    }
    Ok(())
}

fn device_error(error: &io::Error) -> DeviceError {
    DeviceError::Io { code: error.raw_os_error().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::vec::Vec;

    use super::*;

    fn interrupted() -> io::Error {
        io::ErrorKind::Interrupted.into()
    }

    #[test]
    fn short_and_interrupted_reads_are_carried_on() {
        let mut buffer = [0; 2048];
        let mut calls = 0;
        let result = read_whole(&mut buffer, 4096, |part, offset| {
            calls += 1;
            if calls % 2 == 1 {
                return Err(interrupted());
            }
            part[..512].fill(u8::try_from(offset / 512).unwrap());
            Ok(512)
        });
        assert_eq!(result, Ok(()));
        let fills: Vec<u8> = buffer.chunks(512).map(|sector| sector[511]).collect();
        assert_eq!(fills, [8, 9, 10, 11]);
    }

    #[test]
    fn short_and_interrupted_writes_are_carried_on() {
        let content: Vec<u8> = (0..2048_u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut medium = Vec::new();
        let mut calls = 0;
        let result = write_whole(&content, 4096, |part, offset| {
            calls += 1;
            if calls % 2 == 1 {
                return Err(interrupted());
            }
            assert_eq!(offset, 4096 + medium.len() as u64);
            medium.extend_from_slice(&part[..512]);
            Ok(512)
        });
        assert_eq!(result, Ok(()));
        assert_eq!(medium, content);
    }

    #[test]
    fn a_transfer_without_progress_is_an_error() {
        let error = Err(DeviceError::Io { code: EIO });
        assert_eq!(read_whole(&mut [0; 512], 0, |_, _| Ok(0)), error);
        assert_eq!(write_whole(&[0; 512], 0, |_, _| Ok(0)), error);
        let no_space = || io::Error::from_raw_os_error(28);
        let error = Err(DeviceError::Io { code: 28 });
        assert_eq!(read_whole(&mut [0; 512], 0, |_, _| Err(no_space())), error);
        assert_eq!(write_whole(&[0; 512], 0, |_, _| Err(no_space())), error);
    }

    #[test]
    fn a_failed_flush_is_final_and_not_tried_again() {
        let failure = Mutex::new(None);
        let calls = Cell::new(0);
        let sync = || {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => Ok(()),
                2 => Err(interrupted()),
                3 => Err(io::Error::from_raw_os_error(5)),
                _ => Ok(()),
            }
        };
        assert_eq!(flush_once(&failure, sync), Ok(()));
        assert_eq!(flush_once(&failure, sync), Err(DeviceError::Io { code: 5 }));
        assert_eq!(flush_once(&failure, sync), Err(DeviceError::Io { code: 5 }));
        assert_eq!(calls.get(), 3);
    }
}
