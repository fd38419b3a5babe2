//! From a transport to a device that takes requests: features, shape, queue.

use core::fmt;

use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::{Leash, QUEUE, QUEUE_SLOTS};
use crate::{Geometry, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};

/// Why a device cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// It is no block device.
    NotBlock,
    /// It does not finish its reset.
    Stuck,
    /// It speaks only the draft from before virtio 1.0.
    Legacy,
    /// It does not take the features that were chosen from its offer.
    Features {
        /// What was chosen.
        chosen: u64,
    },
    /// It takes no writes.
    ReadOnly,
    /// Its configuration cannot be read, or changes each time it is.
    Configuration,
    /// No device has this shape, or what it writes at once lies across blocks of ours: a cut would tear two of them.
    Shape {
        /// Bytes of its sector.
        sector_bytes: u32,
        /// Binary logarithm of the sectors in what it writes at once.
        physical_exponent: u8,
        /// Sectors before the first that begins what it writes at once.
        alignment_offset: u8,
        /// Its size in units of 512 bytes.
        capacity: u64,
    },
    /// Its queue is too short, or cannot be set up.
    Queue,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBlock => f.write_str("not a block device"),
            Self::Stuck => f.write_str("the device does not finish its reset"),
            Self::Legacy => f.write_str("the device does not speak virtio 1"),
            Self::Features { chosen } => write!(f, "the device refuses features {chosen:#x}"),
            Self::ReadOnly => f.write_str("the device takes no writes"),
            Self::Configuration => f.write_str("the configuration of the device cannot be read"),
            Self::Shape { sector_bytes, physical_exponent, alignment_offset, capacity } => write!(
                f,
                "no device that can be used has sectors of {sector_bytes} bytes, \
                 2^{physical_exponent} of them written at once from number {alignment_offset} on, \
                 and {capacity} times 512 bytes"
            ),
            Self::Queue => f.write_str("the device has no queue that is long enough"),
        }
    }
}

impl core::error::Error for SetupError {}

/// What comes out of it.
pub(super) struct Ready<H: Hal> {
    pub(super) queue: VirtQueue<H, QUEUE_SLOTS>,
    pub(super) geometry: Geometry,
    pub(super) flushes: bool,
}

/// Runs the initialisation of virtio 1.2, 3.1.1.
pub(super) fn run<H: Hal>(transport: &mut Leash<impl Transport>) -> Result<Ready<H>, SetupError> {
    if transport.device_type() != DeviceType::Block {
        return Err(SetupError::NotBlock);
    }
    if !transport.reset() {
        return Err(SetupError::Stuck);
    }
    let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(known);
    let chosen = transport.read_device_features() & WANTED;
    if chosen & VERSION_1 == 0 {
        return Err(SetupError::Legacy);
    }
    if chosen & READ_ONLY != 0 {
        return Err(SetupError::ReadOnly);
    }
    transport.write_driver_features(chosen);
    transport.set_status(known | DeviceStatus::FEATURES_OK);
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(SetupError::Features { chosen });
    }
    let geometry = shape(&**transport, chosen)?;
    let (indirect, event_index) = (chosen & INDIRECT != 0, chosen & EVENT_INDEX != 0);
    let queue = VirtQueue::new(&mut **transport, QUEUE, indirect, event_index)
        .map_err(|_| SetupError::Queue)?;
    transport.finish_init();
    Ok(Ready { queue, geometry, flushes: chosen & FLUSH != 0 })
}

/// Reads the device's shape, and refuses what cannot be one.
fn shape(transport: &impl Transport, chosen: u64) -> Result<Geometry, SetupError> {
    let mut read = None;
    for _ in 0..CONFIGURATION_READS_MAX {
        let before = transport.read_config_generation();
        let fields = configuration(transport, chosen).ok_or(SetupError::Configuration)?;
        if transport.read_config_generation() == before {
            read = Some(fields);
            break;
        }
    }
    let (capacity, sector_bytes, [physical_exponent, alignment_offset]) =
        read.ok_or(SetupError::Configuration)?;
    let refused = SetupError::Shape { sector_bytes, physical_exponent, alignment_offset, capacity };
    let device_bytes = capacity.checked_mul(CAPACITY_UNIT_BYTES).ok_or(refused)?;
    let sectors = 1_u32.checked_shl(physical_exponent.into()).ok_or(refused)?;
    let physical_bytes = sector_bytes.checked_mul(sectors).ok_or(refused)?;
    let geometry = Geometry { sector_bytes, physical_bytes, device_bytes };
    let aligned = u32::from(alignment_offset).is_multiple_of(sectors);
    if geometry.is_valid() && aligned { Ok(geometry) } else { Err(refused) }
}

/// Reads capacity, sector, and exponent and offset of the physical unit once.
fn configuration(transport: &impl Transport, chosen: u64) -> Option<(u64, u32, [u8; 2])> {
    let low: u32 = transport.read_config_space(CAPACITY_AT).ok()?;
    let high: u32 = transport.read_config_space(CAPACITY_AT + 4).ok()?;
    let mut sector_bytes = SECTOR_BYTES_MIN;
    if chosen & BLOCK_SIZE != 0 {
        sector_bytes = transport.read_config_space(BLOCK_SIZE_AT).ok()?;
    }
    let mut physical = [0; 2];
    if chosen & TOPOLOGY != 0 {
        physical = [
            transport.read_config_space(PHYSICAL_EXPONENT_AT).ok()?,
            transport.read_config_space(ALIGNMENT_OFFSET_AT).ok()?,
        ];
    }
    Some((u64::from(low) | u64::from(high) << 32, sector_bytes, physical))
}

const _: () = assert!(CAPACITY_UNIT_BYTES == SECTOR_BYTES_MIN as u64);
const _: () = assert!(SECTOR_BYTES_MAX >= SECTOR_BYTES_MIN);

/// A configuration may change while it is read; one that never stands still is a lie.
const CONFIGURATION_READS_MAX: u32 = 16;

/// The unit of the capacity, whatever the sector of the device is.
const CAPACITY_UNIT_BYTES: u64 = 512;

// Feature bits: virtio 1.2, 5.2.3 and 6. Limits of segments are not wanted: a request is one segment.
const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const WANTED: u64 = READ_ONLY | BLOCK_SIZE | FLUSH | TOPOLOGY | INDIRECT | EVENT_INDEX | VERSION_1;

// Offsets in the configuration: virtio 1.2, 5.2.4.
const CAPACITY_AT: usize = 0;
const BLOCK_SIZE_AT: usize = 20;
const PHYSICAL_EXPONENT_AT: usize = 24;
const ALIGNMENT_OFFSET_AT: usize = 25;
