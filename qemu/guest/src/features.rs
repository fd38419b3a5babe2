//! The first steps with any virtio device: reset, features.

use blockdev::virtio::Leash;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{Error, Hal, Result};

/// What was negotiated with a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features(u64);

impl Features {
    /// Resets the device and chooses from its offer: what every queue can use, and `needed`, without
    /// which it is an error.
    pub(crate) fn negotiate(transport: &mut Leash<impl Transport>, needed: u64) -> Result<Self> {
        if !transport.reset() {
            return Err(Error::NotReady);
        }
        let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(known);
        let needed = needed | VERSION_1;
        let chosen = transport.read_device_features() & (needed | INDIRECT | EVENT_INDEX);
        if chosen & needed != needed {
            return Err(Error::Unsupported);
        }
        transport.write_driver_features(chosen);
        transport.set_status(known | DeviceStatus::FEATURES_OK);
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(Error::Unsupported);
        }
        Ok(Self(chosen))
    }

    /// Sets a queue up.
    pub(crate) fn queue<H: Hal, const N: usize>(
        self,
        transport: &mut impl Transport,
        index: u16,
    ) -> Result<VirtQueue<H, N>> {
        VirtQueue::new(transport, index, self.0 & INDIRECT != 0, self.0 & EVENT_INDEX != 0)
    }
}

// Feature bits: virtio 1.2, 6.
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
