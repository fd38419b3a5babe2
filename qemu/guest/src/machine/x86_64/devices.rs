//! Devices: those of microvm, which its command line lists, or those on the PCI bus of q35.

use alloc::vec::Vec;
use core::ptr::NonNull;

use virtio_drivers::transport::SomeTransport;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, VIRTIO_VENDOR_ID};

use super::heap::Memory;
use super::{interrupts, ports};

/// Yields the virtio devices of the machine, and lets those with a line wake the program.
pub(crate) fn devices(command_line: &str) -> Vec<SomeTransport<'static>> {
    let listed = command_line.split_ascii_whitespace().filter_map(listed);
    let listed: Vec<_> = listed.filter_map(|device| device.open()).collect();
    if listed.is_empty() { on_bus() } else { listed }
}

/// A device as QEMU adds it to the command line: `virtio_mmio.device=512@0xfeb00e00:12`.
struct Listed {
    address: usize,
    bytes: usize,
    line: u32,
}

fn listed(word: &str) -> Option<Listed> {
    let (bytes, rest) = word.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
    let (address, line) = rest.split_once(':')?;
    let address = usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(Listed { address, bytes: bytes.parse().ok()?, line: line.parse().ok()? })
}

impl Listed {
    fn open(self) -> Option<SomeTransport<'static>> {
        let registers = NonNull::new(core::ptr::with_exposed_provenance_mut(self.address))?;
        // SAFETY: the machine says that the device has its registers there, for as long as it runs.
        let transport = unsafe { MmioTransport::new(registers, self.bytes) }.ok()?;
        interrupts::enable(self.line);
        Some(transport.into())
    }
}

/// Lists bus 0, whose devices the firmware has given their addresses. Their lines are not routed: the program
/// looks after them by the timer.
fn on_bus() -> Vec<SomeTransport<'static>> {
    interrupts::poll();
    let mut root = PciRoot::new(Configuration);
    let found: Vec<_> = root.enumerate_bus(0).collect();
    let mut devices = Vec::new();
    for (place, info) in found {
        if info.vendor_id != VIRTIO_VENDOR_ID {
            continue;
        }
        root.set_command(place, Command::MEMORY_SPACE | Command::BUS_MASTER);
        if let Ok(transport) = PciTransport::new::<Memory, _>(&mut root, place) {
            devices.push(transport.into());
        }
    }
    devices
}

/// The configuration space by ports.
struct Configuration;

impl Configuration {
    fn select(place: DeviceFunction, register: u8) {
        let DeviceFunction { bus, device, function } = place;
        let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        ports::write_long(0xcf8, 1 << 31 | place | u32::from(register & 0xfc));
    }
}

impl ConfigurationAccess for Configuration {
    fn read_word(&self, place: DeviceFunction, register: u8) -> u32 {
        Self::select(place, register);
        ports::read_long(0xcfc)
    }

    fn write_word(&mut self, place: DeviceFunction, register: u8, value: u32) {
        Self::select(place, register);
        ports::write_long(0xcfc, value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}
