//! Drives futures of the journal over any device, without a runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use blockdev::BlockDevice;
use journal::{Disk, Got, Journal, Opened, Origin, Piece};

/// A future that is polled by hand.
pub type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// Polls once.
pub fn poll<T>(task: &mut Task<T>) -> Poll<T> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets all requests out and takes at most one completion back; tells whether there was one.
pub fn turn(disk: &Disk, device: &mut impl BlockDevice) -> bool {
    while let Some(request) = disk.next_request() {
        device.submit(request);
    }
    let completion = device.completion();
    let any = completion.is_some();
    if let Some(completion) = completion {
        disk.complete(completion);
    }
    any
}

/// Drives `task` to its end, and `beside` with it as far as it goes.
///
/// # Panics
/// When the task does not end within a generous number of turns.
pub fn drive<T>(
    disk: &Disk,
    device: &mut impl BlockDevice,
    mut beside: Option<&mut Task<()>>,
    mut task: Task<T>,
) -> T {
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(value) = poll(&mut task) {
            return value;
        }
        if let Some(beside) = &mut beside {
            let _ = poll(beside);
        }
        turn(disk, device);
        // A device with threads of its own may need the processor.
        thread::yield_now();
    }
    panic!("a task does not end");
}

/// Turns after which something that should end counts as hanging.
const TURNS_MAX: u32 = 100_000_000;

/// Gets a value of any length; one that is written over while it is read is read again.
pub async fn read_whole(journal: &Journal, key: &[u8], origin: Origin) -> Got {
    'open: loop {
        let mut reader = match journal.open_value(key, origin).await {
            Opened::Value(reader) => reader,
            Opened::Absent => return Got::Absent,
            Opened::DataLoss => return Got::DataLoss,
            Opened::Unreadable => return Got::Unreadable,
        };
        let mut value = Vec::new();
        while (value.len() as u64) < reader.total_bytes() {
            match reader.read(value.len() as u64).await {
                Piece::Bytes(bytes) => value.extend_from_slice(&bytes),
                Piece::Changed => continue 'open,
                Piece::DataLoss => return Got::DataLoss,
                Piece::Unreadable => return Got::Unreadable,
            }
        }
        return Got::Value { version: reader.version(), value: value.into() };
    }
}
