//! The driver of the simulator: moves requests between a journal and a device, and counts turns.

use crate::drive;
pub use crate::drive::{Task, poll};
use blockdev::{BlockDevice, SimConfig, SimDevice};
use fastrand::Rng;
use journal::Disk;
use std::task::Poll;

/// The device and the choices of one history.
pub struct World {
    /// Decides.
    pub rng: Rng,
    /// Stores.
    pub device: SimDevice,
}

impl World {
    /// Makes a world with a blank device of `device_bytes`.
    pub fn new(seed: u64, device_bytes: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut config = SimConfig::new(rng.u64(..), device_bytes);
        config.stall = [0, 64, 200][rng.usize(..3)];
        Self { rng, device: SimDevice::new(config) }
    }

    /// Yields a fresh queue for the device.
    pub fn disk(&self) -> Disk {
        Disk::new(self.device.geometry())
    }

    /// Yields 256 random bits.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        seed
    }

    /// Lets requests out and takes at most one completion back.
    pub fn turn(&mut self, disk: &Disk) {
        drive::turn(disk, &mut self.device);
    }

    /// Drives `task` to its end, or until `turns` turns are over.
    pub fn drive<T>(&mut self, disk: &Disk, mut task: Task<T>, turns: u32) -> Option<T> {
        for _ in 0..turns {
            if let Poll::Ready(value) = poll(&mut task) {
                return Some(value);
            }
            self.turn(disk);
        }
        None
    }
}
