//! A device in memory: every request is done when it is submitted, and nothing ever fails.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::{BlockDevice, Completion, DeviceError, Geometry, Operation, Request, SECTOR_BYTES_MIN};

/// A device whose medium is a vector; requests complete at once, in the order of submission.
///
/// For tests and tools that need bytes and no faults. Its sector and its physical unit are 512
/// bytes, the least that any device has.
#[derive(Debug)]
pub struct MemoryDevice {
    bytes: Vec<u8>,
    geometry: Geometry,
    done: VecDeque<Completion>,
}

impl MemoryDevice {
    /// Yields a device of `device_bytes` zero bytes, rounded down to whole sectors.
    pub fn new(device_bytes: usize) -> Self {
        Self::from_bytes(vec![0; device_bytes])
    }

    /// Yields a device that holds `bytes`, cut to whole sectors.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let device_bytes =
            bytes.len() as u64 / u64::from(SECTOR_BYTES_MIN) * u64::from(SECTOR_BYTES_MIN);
        bytes.truncate(usize::try_from(device_bytes).unwrap_or(usize::MAX));
        Self {
            bytes,
            geometry: Geometry {
                sector_bytes: SECTOR_BYTES_MIN,
                physical_bytes: SECTOR_BYTES_MIN,
                device_bytes,
            },
            done: VecDeque::new(),
        }
    }

    /// Yields the medium, and forgets completions that nobody fetched.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Yields the medium.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Yields the medium, to damage it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn serve(&mut self, request: &mut Request) -> Result<(), DeviceError> {
        let range = self.geometry.range(request)?;
        let start = usize::try_from(range.start).map_err(|_| DeviceError::OutOfRange)?;
        let end = usize::try_from(range.end).map_err(|_| DeviceError::OutOfRange)?;
        let place = self.bytes.get_mut(start..end).ok_or(DeviceError::OutOfRange)?;
        match request.operation {
            Operation::Read { .. } => request.buffer.copy_from_slice(place),
            Operation::Write { .. } => place.copy_from_slice(&request.buffer),
            Operation::Flush => {}
        }
        Ok(())
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, mut request: Request) {
        let result = self.serve(&mut request);
        self.done.push_back(Completion { id: request.id, buffer: request.buffer, result });
    }

    fn completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn keeps_the_contract() {
        conformance::check(&mut MemoryDevice::new(64 * 1024));
    }

    #[test]
    fn completes_in_the_order_of_submission() {
        let mut device = MemoryDevice::new(4096);
        for id in 0..4 {
            device.submit(conformance::flush(id));
        }
        let ids: Vec<u64> =
            core::iter::from_fn(|| device.completion()).map(|completion| completion.id.0).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
    }

    #[test]
    fn takes_and_gives_bytes_in_whole_sectors() {
        let mut device = MemoryDevice::from_bytes(vec![5; 1500]);
        assert_eq!(device.geometry().device_bytes, 1024);
        assert_eq!(device.bytes(), [5; 1024]);
        device.bytes_mut()[0] = 6;
        assert_eq!(device.into_bytes()[..2], [6, 5]);
    }
}
