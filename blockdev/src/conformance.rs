//! What every device promises, as one check that each device's tests run over it.

use alloc::vec::Vec;

use crate::{BlockDevice, Buffer, Completion, DeviceError, Operation, Request, RequestId};

/// Checks the promises that need no fault, on a device of 64 KiB or more; overwrites its start.
pub(crate) fn check(device: &mut impl BlockDevice) {
    reads_what_was_written(device);
    gives_every_buffer_back_once(device);
    refuses_what_is_out_of_range(device);
    refuses_what_is_misaligned(device);
}

/// Runs one request to its completion, with nothing else in flight.
pub(crate) fn run(device: &mut impl BlockDevice, request: Request) -> Completion {
    let id = request.id;
    device.submit(request);
    let completion = wait(device);
    assert_eq!(completion.id, id);
    completion
}

/// Yields the next completion; the caller knows that one is in flight.
pub(crate) fn wait(device: &mut impl BlockDevice) -> Completion {
    loop {
        if let Some(completion) = device.completion() {
            return completion;
        }
        #[cfg(feature = "file")]
        std::thread::yield_now();
    }
}

pub(crate) fn read(id: u64, offset: u64, bytes: usize) -> Request {
    Request {
        id: RequestId(id),
        operation: Operation::Read { offset },
        buffer: Buffer::zeroed(bytes),
    }
}

pub(crate) fn write(id: u64, offset: u64, content: &[u8]) -> Request {
    Request {
        id: RequestId(id),
        operation: Operation::Write { offset },
        buffer: Buffer::copy_of(content),
    }
}

pub(crate) fn flush(id: u64) -> Request {
    Request { id: RequestId(id), operation: Operation::Flush, buffer: Buffer::default() }
}

/// Yields the bytes at `offset`, which must be readable.
pub(crate) fn bytes_at(device: &mut impl BlockDevice, offset: u64, bytes: usize) -> Vec<u8> {
    let completion = run(device, read(u64::MAX, offset, bytes));
    assert_eq!(completion.result, Ok(()));
    completion.buffer.to_vec()
}

fn reads_what_was_written(device: &mut impl BlockDevice) {
    let sector = device.geometry().sector_bytes as usize;
    let last = device.geometry().device_bytes - sector as u64;
    for (fill, offset) in [(1, 0), (2, sector as u64), (3, 8192), (4, last), (5, 0)] {
        let content = Buffer::copy_of(&alloc::vec![fill; sector]);
        assert_eq!(run(device, write(1, offset, &content)).result, Ok(()));
        assert_eq!(bytes_at(device, offset, sector), content[..]);
    }
    assert_eq!(run(device, flush(2)).result, Ok(()));
    assert_eq!(bytes_at(device, 0, sector), alloc::vec![5; sector]);
    assert_eq!(bytes_at(device, last, sector), alloc::vec![4; sector]);
    let long: Vec<u8> = (0..32 * 1024_u32).map(|i| i.to_le_bytes()[0]).collect();
    assert_eq!(run(device, write(3, 4096, &long)).result, Ok(()));
    assert_eq!(bytes_at(device, 4096, long.len()), long);
    assert_eq!(run(device, write(4, 0, &[])).result, Ok(()));
}

fn gives_every_buffer_back_once(device: &mut impl BlockDevice) {
    let sector = device.geometry().sector_bytes as usize;
    for id in 0..24 {
        let offset = id % 8 * sector as u64;
        device.submit(match id % 3 {
            0 => write(id, offset, &alloc::vec![9; sector]),
            1 => read(id, offset, sector * 2),
            _ => flush(id),
        });
    }
    let mut ids: Vec<u64> = (0..24)
        .map(|_| {
            let completion = wait(device);
            assert_eq!(completion.result, Ok(()));
            let id = completion.id.0;
            let expected = [sector, sector * 2, 0][usize::try_from(id % 3).unwrap()];
            assert_eq!(completion.buffer.len(), expected);
            id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..24).collect::<Vec<u64>>());
    assert!(device.completion().is_none());
}

fn refuses_what_is_out_of_range(device: &mut impl BlockDevice) {
    let end = device.geometry().device_bytes;
    let sector = device.geometry().sector_bytes as usize;
    for offset in [end, end - sector as u64, u64::MAX - 4095, u64::MAX] {
        for request in [read(1, offset, sector * 2), write(2, offset, &alloc::vec![1; sector * 2])]
        {
            let bytes = request.buffer.len();
            let completion = run(device, request);
            assert_eq!(completion.result, Err(DeviceError::OutOfRange));
            assert_eq!(completion.buffer.len(), bytes);
        }
    }
}

fn refuses_what_is_misaligned(device: &mut impl BlockDevice) {
    let sector = device.geometry().sector_bytes as usize;
    let before = bytes_at(device, 0, sector * 2);
    for (offset, bytes) in [(1, sector), (0, sector - 1), (sector as u64 / 2, sector)] {
        for request in [read(1, offset, bytes), write(2, offset, &alloc::vec![0xEE; bytes])] {
            assert_eq!(run(device, request).result, Err(DeviceError::OutOfRange));
        }
    }
    assert_eq!(bytes_at(device, 0, sector * 2), before);
}
