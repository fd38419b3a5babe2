//! What a durable put costs on this machine, beside what its disk takes alone. The marks on the serial line are for
//! whoever holds the watch.

use alloc::boxed::Box;
use alloc::format;

use blockdev::{BlockDevice, Buffer, Operation, Request, RequestId};
use statefs_client::Rights;

use crate::program::{Print, Program, Start, Task};

/// Puts, and rounds of the disk alone, that are counted.
pub const COUNT: u64 = 2000;

/// Keys that are written over and over, and the bytes of a value.
const KEYS: u64 = 64;
const VALUE_BYTES: usize = 100;

/// Bytes of a write of the disk alone: a block, which is what a small put writes in each copy.
const BLOCK_BYTES: usize = 4096;

/// Yields the program that puts, one after the other, at its first start alone.
#[must_use]
pub fn program() -> Program {
    let run = |start: Start| -> Task {
        Box::pin(async move {
            if start.restarts > 0 {
                return Ok(());
            }
            let directory = start.store.directory("/state/selftest", Rights::PUT);
            (start.print)(format_args!("BENCH: puts begin"));
            for n in 0..COUNT {
                let put = directory.put(&format!("key/{}", n % KEYS), &[7; VALUE_BYTES]).await;
                put.map_err(|error| format!("a put failed: {error}"))?;
            }
            (start.print)(format_args!("BENCH: puts end"));
            Ok(())
        })
    };
    Program { channel: crate::selftest::CHANNEL, run: Box::new(run) }
}

/// Writes two distant blocks side by side and flushes, as often as the program puts. They are written with what they hold, so
/// no volume is changed. False if the disk fails, or is too small.
pub fn disk(device: &mut impl BlockDevice, print: Print) -> bool {
    let block = BLOCK_BYTES as u64;
    let bytes = device.geometry().device_bytes;
    let places = [bytes / 4 / block * block, bytes / 4 * 3 / block * block];
    let read = |offset| (Operation::Read { offset }, Buffer::zeroed(BLOCK_BYTES));
    let Some(mut blocks) = together(device, places.map(read).into()) else {
        return false;
    };
    print(format_args!("BENCH: disk begin"));
    for _ in 0..COUNT {
        let writes = places.iter().zip(blocks);
        let writes = writes.map(|(offset, block)| (Operation::Write { offset: *offset }, block));
        let Some(written) = together(device, writes.collect()) else {
            return false;
        };
        blocks = written;
        if together(device, Box::new([(Operation::Flush, Buffer::default())])).is_none() {
            return false;
        }
    }
    print(format_args!("BENCH: disk end"));
    true
}

/// Runs requests side by side to their ends; yields their buffers in the same order.
fn together(
    device: &mut impl BlockDevice,
    requests: Box<[(Operation, Buffer)]>,
) -> Option<alloc::vec::Vec<Buffer>> {
    let mut buffers: alloc::vec::Vec<Option<Buffer>> = alloc::vec::Vec::new();
    for (id, (operation, buffer)) in (0..).zip(requests) {
        buffers.push(None);
        device.submit(Request { id: RequestId(id), operation, buffer });
    }
    while buffers.iter().any(Option::is_none) {
        let Some(completion) = device.completion() else {
            core::hint::spin_loop();
            continue;
        };
        completion.result.ok()?;
        let slot = usize::try_from(completion.id.0).ok().and_then(|at| buffers.get_mut(at))?;
        *slot = Some(completion.buffer);
    }
    buffers.into_iter().collect()
}
