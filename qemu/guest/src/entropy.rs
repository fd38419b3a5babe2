//! Random bytes from a virtio entropy device (virtio 1.2, 5.4).

use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{Hal, Result};

use crate::features::Features;
use crate::queue::Incoming;

/// An entropy device.
pub struct Entropy<H: Hal, T: Transport> {
    transport: T,
    requests: Incoming<H, SLOTS>,
}

impl<H: Hal, T: Transport> Entropy<H, T> {
    /// Makes an entropy device ready and asks it for bytes.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn new(mut transport: T) -> Result<Self> {
        let features = Features::negotiate(&mut transport, 0)?;
        let mut requests = Incoming::new(&mut transport, 0, features)?;
        transport.finish_init();
        requests.fill(&mut transport, 1, SEED_BYTES)?;
        Ok(Self { transport, requests })
    }

    /// Fills as much of `seed` as the device has bytes ready, and yields how much that was.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn take(&mut self, seed: &mut [u8]) -> Result<usize> {
        let Some((mut buffer, filled)) = self.requests.take()? else {
            return Ok(0);
        };
        let fresh = buffer.get(..filled).unwrap_or_default();
        let mut count = 0;
        for (place, byte) in seed.iter_mut().zip(fresh) {
            *place = *byte;
            count += 1;
        }
        // No byte is used twice, and none stays behind.
        buffer.fill(0);
        self.requests.give(&mut self.transport, buffer)?;
        Ok(count)
    }
}

/// Stops the device before its buffer is given back.
impl<H: Hal, T: Transport> Drop for Entropy<H, T> {
    fn drop(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
    }
}

/// One request is enough; QEMU's queue has 8 places.
const SLOTS: usize = 8;

/// Bytes that are asked for at a time: one seed of a server.
pub const SEED_BYTES: usize = 32;
