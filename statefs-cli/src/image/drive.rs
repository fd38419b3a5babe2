//! Running the journal's futures over a file, one after the other.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice, FileDevice};
use journal::Disk;

/// Runs `future` to its end, moving requests between `disk` and `device`.
///
/// # Panics
/// When the future waits for anything but the device.
pub(super) fn block_on<F: Future>(device: &mut FileDevice, disk: &Disk, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        let completion = device.completion_blocking();
        disk.complete(completion.expect("the journal waits for nothing but its device"));
    }
}
