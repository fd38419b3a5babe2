//! The boot loader's side: the control, read from a volume that no daemon serves.
//!
//! It is the journal's own recovery, opened without writing (FORMAT.md section 7, R0 to R3), and not a
//! reader of its own: what counts after a cut, what is torn and what is lost is judged by the very code
//! that the daemon runs, so the two never disagree about which system to boot. The price is a heap: the
//! index of the volume is in memory, some hundred bytes for each key. Nothing is written, so neither
//! randomness nor a clock is needed, and a loader may be cut off at any time.

use blockdev::BlockDevice;
use core::fmt;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use journal::{Disk, Got, Journal, OpenError, Options, Origin};

use crate::control::Control;
use crate::error::Damage;

/// The record's whole key.
const PATH: &[u8] = b"/state/boot/control";

/// Why a loader learns nothing from the volume. It then boots what it was built to boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// The volume cannot be opened.
    Volume(OpenError),
    /// There is a control, and it cannot be used.
    Damaged(Damage),
    /// There is a control, and the device did not read it. It is not lost: another try may read it.
    Unreadable,
    /// The device does not answer.
    Silent,
}

/// Reads the control from the volume on `device`; `None` if the machine has none yet.
///
/// `idle` is called while nothing has completed; it pauses, or gives up by yielding false. Cost: one
/// replay of the log, which the superblock bounds.
///
/// # Errors
/// [`BootError`]. A damaged control is never taken for none.
pub fn read(
    device: &mut impl BlockDevice,
    mut idle: impl FnMut() -> bool,
) -> Result<Option<Control>, BootError> {
    let disk = Disk::new(device.geometry());
    let opening = Journal::open_read_only(disk.clone(), Options::default());
    let journal = drive(&disk, device, &mut idle, opening)?.map_err(BootError::Volume)?;
    let reading = journal.get(PATH, NOBODY);
    match drive(&disk, device, &mut idle, reading)? {
        Got::Value { value, .. } => Control::decode(&value).map(Some).map_err(BootError::Damaged),
        Got::Absent => Ok(None),
        Got::Large { total_bytes: bytes, .. } => Err(BootError::Damaged(Damage::Length { bytes })),
        Got::DataLoss => Err(BootError::Damaged(Damage::Lost)),
        Got::Unreadable => Err(BootError::Unreadable),
    }
}

fn drive<T>(
    disk: &Disk,
    device: &mut impl BlockDevice,
    idle: &mut impl FnMut() -> bool,
    task: impl Future<Output = T>,
) -> Result<T, BootError> {
    let mut task = pin!(task);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = task.as_mut().poll(&mut context) {
            return Ok(done);
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        match device.completion() {
            Some(completion) => disk.complete(completion),
            None if idle() => {}
            None => return Err(BootError::Silent),
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(error) => error.fmt(f),
            Self::Damaged(damage) => write!(f, "the boot control is damaged: {damage}"),
            Self::Unreadable => f.write_str("the device does not read the boot control"),
            Self::Silent => f.write_str("the device does not answer"),
        }
    }
}

impl core::error::Error for BootError {}

/// Who asks, where nobody has written anything.
const NOBODY: Origin = Origin(0);
