//! Making a volume on a device.

use crate::disk::Disk;
use crate::field::all_zero;
use crate::geometry::{
    GeometryError, SLOT_BYTES, SUPERBLOCK_COPIES, VolumeGeometry, superblock_offset,
};
use crate::layout::superblock as at;
use crate::superblock::{Copies, Superblock, SuperblockError};
use crate::tag::{Random, Tag};
use crate::types::{BlockIndex, Epoch, Lsn, SegmentIndex, Use, VolumeId};
use blockdev::{Buffer, DeviceError};

/// Bytes at either end of a device that must be zero for it to count as blank.
const BLANK_BYTES: u64 = 64 << 10;

/// What a new volume shall be.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Bytes of a block: 512 or 4096.
    pub block_bytes: u32,
    /// Copies of each group: 2, or 1, which gives up the promises about single faults.
    pub copies: u8,
    /// Overwrite a device that is not blank.
    pub force: bool,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self { block_bytes: 4096, copies: 2, force: false }
    }
}

/// Why no volume was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// The shape does not suit the device.
    Geometry(GeometryError),
    /// The device holds a StateFS volume.
    Volume(VolumeId),
    /// The device holds something.
    NotBlank,
    /// The device failed.
    Device(DeviceError),
}

impl core::fmt::Display for FormatError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Geometry(error) => error.fmt(f),
            Self::Volume(id) => write!(
                f,
                "the device holds StateFS volume {id}; nothing was changed (--force destroys it)"
            ),
            Self::NotBlank => f.write_str(
                "the device is not blank; nothing was changed (--force destroys what it holds)",
            ),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FormatError {}

impl From<DeviceError> for FormatError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// Makes an empty volume and yields its superblock.
///
/// Durability: when this returns the volume is on the medium. A cut before leaves a device without a valid
/// superblock, or with the new volume: never with one that was there before.
///
/// # Errors
/// [`FormatError`]; a device that is not blank is left as it is unless `force` is set.
pub async fn format(
    disk: &Disk,
    random: &mut Random,
    options: FormatOptions,
) -> Result<Superblock, FormatError> {
    let device = disk.geometry();
    let FormatOptions { block_bytes, copies, force } = options;
    let geometry =
        VolumeGeometry::choose(device.device_bytes, device.physical_bytes, block_bytes, copies)
            .map_err(FormatError::Geometry)?;
    let found = crate::scan::superblocks(disk).await;
    if !force {
        must_be_blank(disk, &found).await?;
    }
    let open = |segment| (SegmentIndex(segment), BlockIndex(0));
    let mut use_ =
        |(segment, start)| Use { segment, start, end: None, epoch: Epoch(random.bytes16()) };
    let log = [use_(open(0)), use_(open(1))].to_vec();
    let superblock = Superblock {
        volume: VolumeId(random.bytes16()),
        geometry,
        key: random.bytes32(),
        sequence: first_sequence(&found),
        mount: 0,
        mount_id: random.bytes16(),
        durable: Lsn::NONE,
        base: Lsn::NONE,
        base_tag: Tag::default(),
        replay_bytes: 0,
        checkpoint: [].to_vec(),
        log,
    };
    // First nothing, then the new volume: an older superblock with a higher sequence must not win later.
    let zeros = [0; at::BYTES];
    let bytes = superblock.encode();
    let passes = [(0..SUPERBLOCK_COPIES, &zeros), (0..2, &bytes), (2..SUPERBLOCK_COPIES, &bytes)];
    for (copies, content) in passes {
        for copy in copies {
            let offset = superblock_offset(copy, geometry.volume_bytes());
            disk.write(offset, Buffer::copy_of(content)).await?;
        }
        disk.flush().await?;
    }
    Ok(superblock)
}

/// No volume comes to a sequence of so much, and one that begins below it does not come to the end of its counters.
const SEQUENCE_FOUND_MAX: u64 = 1 << 60;

/// Yields the first sequence of a volume that is made over what was found: above all of that, so that no copy of it that comes
/// back ever wins. One that no volume comes to was forged, and counts for nothing.
fn first_sequence(found: &Copies) -> u64 {
    let sequences = found.valid().map(|copy| copy.sequence);
    sequences.filter(|one| *one < SEQUENCE_FOUND_MAX).max().map_or(1, |highest| highest + 1)
}

async fn must_be_blank(disk: &Disk, copies: &Copies) -> Result<(), FormatError> {
    if let Some(found) = copies.best() {
        return Err(FormatError::Volume(found.volume));
    }
    let blank = |copy: &Result<_, _>| copy == &Err(SuperblockError::Blank);
    if !copies.copies.iter().all(blank) {
        return Err(FormatError::NotBlank);
    }
    let device_bytes = disk.geometry().device_bytes / SLOT_BYTES * SLOT_BYTES;
    let ends = [0, device_bytes.saturating_sub(BLANK_BYTES)];
    for from in ends {
        let bytes = usize::try_from(BLANK_BYTES.min(device_bytes)).unwrap_or(usize::MAX);
        if !all_zero(&disk.read(from, bytes).await?) {
            return Err(FormatError::NotBlank);
        }
    }
    Ok(())
}
