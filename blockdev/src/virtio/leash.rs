//! A transport that is let go only once its device has stopped.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use virtio_drivers::transport::{DeviceStatus, Transport};

/// A transport whose drop resets its device, and ends whatever the device does.
///
/// The one for PCI resets its device too when it is dropped, and waits for that without a bound; so that of a device which
/// does not stop is leaked.
#[derive(Debug)]
pub struct Leash<T: Transport>(ManuallyDrop<T>);

impl<T: Transport> From<T> for Leash<T> {
    fn from(transport: T) -> Self {
        Self(ManuallyDrop::new(transport))
    }
}

impl<T: Transport> Leash<T> {
    /// Resets the device; tells whether it says that it has.
    pub fn reset(&mut self) -> bool {
        self.set_status(DeviceStatus::empty());
        (0..RESET_LOOKS_MAX).any(|_| self.get_status().is_empty())
    }
}

impl<T: Transport> Deref for Leash<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Transport> DerefMut for Leash<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Transport> Drop for Leash<T> {
    fn drop(&mut self) {
        if self.reset() {
            // JUSTIFICATION: what is dropped at times cannot be a plain field.
            // SAFETY: nobody uses it from here on, nor drops it again.
            unsafe { ManuallyDrop::drop(&mut self.0) }
        }
    }
}

/// Looks at the status of a device that was told to reset, before it is taken for stuck.
const RESET_LOOKS_MAX: u32 = 100_000;
