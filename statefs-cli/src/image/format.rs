//! `statefs image format`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use blockdev::{BlockDevice, FileDevice, OpenError, OpenOptions};
use journal::{Disk, FormatError, FormatOptions, Random, Superblock};
use serde_json::json;

use super::device_failure;
use super::drive::block_on;
use crate::args::FormatArgs;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The code of what is there and would be lost.
const NOT_BLANK: &str = "NOT_BLANK";

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
    if *copies == 1 {
        eprintln!("statefs: the volume keeps one copy: a single damaged block loses what it holds");
    }
    let volume = superblock.volume.to_string();
    let object = json!({
        "blockBytes": block_size,
        "copies": copies,
        "path": path.to_string_lossy(),
        "volume": volume,
        "volumeBytes": superblock.geometry.volume_bytes(),
    });
    output.either(&object, &volume)?;
    output.finish()
}

/// Makes a volume at `path`, in a new file of `size` bytes if nothing is there.
pub(crate) fn make(
    path: &Path,
    size: Option<u64>,
    options: FormatOptions,
) -> Result<Superblock, Failure> {
    let (mut device, made) = open(path, size)?;
    let disk = Disk::new(device.geometry());
    let formatted = random().and_then(|mut random| {
        let formatting = journal::format(&disk, &mut random, options);
        block_on(&mut device, &disk, formatting).map_err(|error| failed(path, error))
    });
    if made && formatted.is_err() {
        drop(device);
        // The failure that is told is the first one.
        fs::remove_file(path).unwrap_or_default();
    }
    formatted
}

/// Opens what is at `path`, or makes it; tells whether it was made.
fn open(path: &Path, size: Option<u64>) -> Result<(FileDevice, bool), Failure> {
    let device = match (FileDevice::open(path, OpenOptions::default(), || {}), size) {
        (Err(OpenError::Absent), Some(size)) => {
            let device = FileDevice::create(path, size, || {}).map_err(|error| match error {
                OpenError::Absent => {
                    let message = "its folder is not there; make that first";
                    Failure::new("NO_FOLDER", Exit::Failure, message).about(path.display())
                }
                error => device_failure(path, &error),
            });
            return Ok((device?, true));
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
                "it has {device_bytes} bytes, not {size}; without --size it is taken as it is, and \
                 one that an earlier run left when it was cut short is removed first"
            );
            Err(Failure::new("GEOMETRY", Exit::Failure, message).about(path.display()))
        }
        None => Ok((device, false)),
    }
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
