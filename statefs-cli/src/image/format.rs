//! `statefs image format`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use blockdev::{BlockDevice, FileDevice, OpenError, OpenOptions};
use journal::{Disk, FormatError, FormatOptions, Random, Superblock};
use serde_json::json;

use super::drive::block_on;
use super::{device_failure, part};
use crate::args::{Format, FormatArgs};
use crate::confirm::confirm;
use crate::failure::{Exit, Failure, remark};
use crate::output::Output;

/// The code of what is there and would be lost.
const NOT_BLANK: &str = "NOT_BLANK";

/// Bytes at either end of a device that must be zero for it to count as blank: all file systems, tables of partitions and
/// containers begin in them, some of them behind the first 64 KiB, which is what the journal looks at.
const BLANK_BYTES: u64 = 16 << 20;
/// Bytes that are looked at together.
const PIECE_BYTES: u64 = 1 << 20;

/// Makes a volume as the command line says.
pub(crate) fn format(arguments: &FormatArgs, mut output: Output) -> Result<(), Failure> {
    let FormatArgs { path, size, copies, block_size, force, yes } = arguments;
    let options = FormatOptions { block_bytes: *block_size, copies: *copies, force: false };
    let superblock = match make(path, *size, options) {
        Err(failure) if *force && failure.code == NOT_BLANK => {
            let question = format!("{} is not blank. Destroy what it holds?", path.display());
            confirm(*yes, &question)?;
            make(path, *size, FormatOptions { force: true, ..options })
        }
        made => made,
    }?;
    // The object tells it too.
    if *copies == 1 && output.format == Format::Text {
        remark("the volume keeps one copy: a single damaged block loses what it holds");
    }
    let volume = superblock.volume.to_string();
    let object = json!({
        "blockBytes": block_size,
        "copies": copies,
        "path": path.to_string_lossy(),
        "volume": volume,
        "volumeBytes": superblock.geometry.volume_bytes(),
    });
    let told = output.either(&object, &volume).and_then(|()| output.finish());
    told.map_err(|failure| failure.once_done("the volume was made"))
}

/// Makes a volume at `path`, in a new file of `size` bytes if nothing is there, which has its name from then on.
pub(crate) fn make(
    path: &Path,
    size: Option<u64>,
    options: FormatOptions,
) -> Result<Superblock, Failure> {
    let mut device = match (FileDevice::open(path, OpenOptions::default(), || {}), size) {
        (Err(OpenError::Absent), Some(size)) => {
            let part = part::begin(path)?;
            let superblock = make_new(&part, path, size, options)?;
            // The failure that is told is the first one.
            part::end(&part, path).inspect_err(|_| fs::remove_file(&part).unwrap_or_default())?;
            return Ok(superblock);
        }
        (Err(OpenError::Absent), None) => {
            let message = "there is no such file; --size makes one";
            let failure = Failure::new("NO_IMAGE", Exit::Usage, message);
            return Err(failure.about(path.display()));
        }
        (device, _) => device.map_err(|error| device_failure(path, &error))?,
    };
    let device_bytes = device.geometry().device_bytes;
    match size.filter(|size| *size != device_bytes) {
        Some(size) => {
            let message = format!(
                "it has {device_bytes} bytes, not {size}; without --size it is taken as it is"
            );
            Err(Failure::new("GEOMETRY", Exit::Failure, message).about(path.display()))
        }
        None => write(&mut device, path, options),
    }
}

/// Makes a volume in a new file at `part`, and leaves none there if that fails; failures name `path`.
pub(super) fn make_new(
    part: &Path,
    path: &Path,
    size: u64,
    options: FormatOptions,
) -> Result<Superblock, Failure> {
    let device = FileDevice::create(part, size, || {}).map_err(|error| match error {
        OpenError::Absent => {
            let message = "its folder is not there; make that first";
            Failure::new("NO_FOLDER", Exit::Failure, message).about(path.display())
        }
        error => device_failure(path, &error),
    });
    let mut device = device?;
    let formatted = write(&mut device, path, options);
    drop(device);
    // The failure that is told is the first one.
    formatted.inspect_err(|_| fs::remove_file(part).unwrap_or_default())
}

fn write(
    device: &mut FileDevice,
    path: &Path,
    options: FormatOptions,
) -> Result<Superblock, Failure> {
    let disk = Disk::new(device.geometry());
    let mut random = random()?;
    let formatting = async {
        // What shows at the very ends the journal names better.
        let hidden = !options.force && !is_blank(&disk, BLANK_BYTES).await?;
        if hidden && is_blank(&disk, PIECE_BYTES / 16).await? {
            return Err(FormatError::NotBlank);
        }
        journal::format(&disk, &mut random, options).await
    };
    block_on(device, &disk, formatting).map_err(|error| failed(path, error))
}

/// Tells whether the device is zeros in so many bytes at either end.
async fn is_blank(disk: &Disk, bytes: u64) -> Result<bool, FormatError> {
    let unit = u64::from(disk.geometry().physical_bytes).max(4096);
    let end = disk.geometry().device_bytes / unit * unit;
    let bytes = bytes.min(end);
    for from in [0, end - bytes] {
        let mut at = from;
        while at < from + bytes {
            let piece = PIECE_BYTES.min(from + bytes - at);
            let read = disk.read(at, usize::try_from(piece).unwrap_or(usize::MAX)).await?;
            if read.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += piece;
        }
    }
    Ok(true)
}

fn failed(path: &Path, error: FormatError) -> Failure {
    let code = match error {
        FormatError::Geometry(_) => "GEOMETRY",
        FormatError::Volume(_) | FormatError::NotBlank => NOT_BLANK,
        FormatError::Device(_) => "DEVICE",
    };
    Failure::new(code, Exit::Failure, error).about(path.display())
}

/// Takes 256 bits of the system's randomness: the volume's identity and key come of it.
pub(super) fn random() -> Result<Random, Failure> {
    const SOURCE: &str = "/dev/urandom";
    let mut seed = [0; 32];
    let read = File::open(SOURCE).and_then(|mut source| source.read_exact(&mut seed));
    read.map_err(|error| Failure::new("RANDOM", Exit::Failure, format!("{SOURCE}: {error}")))?;
    Ok(Random::from_seed(seed))
}
