//! Images of volumes: made, mounted and read with the journal itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::{fs, io::Read as _};

use blockdev::{BlockDevice, MemoryDevice};
use journal::{Clock, Disk, FormatOptions, Journal, Mode, Options, Random, Shown, digest, format};

use crate::Failure;

/// What a volume holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Each key with its value; `None` for one that is lost.
    pub values: BTreeMap<String, Option<Vec<u8>>>,
    /// The digest, as `statefs image dump` prints it.
    pub digest: String,
    /// Whether nothing was found damaged or lost.
    pub intact: bool,
}

/// Makes an image of `bytes` with an empty volume at `path`.
///
/// # Errors
/// The file cannot be written, or the volume does not fit.
pub fn make(path: &Path, bytes: usize) -> Result<(), Failure> {
    let mut device = MemoryDevice::new(bytes);
    let disk = Disk::new(device.geometry());
    let mut random = Random::from_seed(seed()?);
    let options = FormatOptions::default();
    let made = block_on(&mut device, &disk, format(&disk, &mut random, options))?;
    made.map_err(|error| Failure::Image { what: format!("cannot be made: {error}") })?;
    fs::write(path, device.bytes()).map_err(Failure::io(path.display().to_string()))
}

/// Reads what the volume in the image at `path` holds, and leaves the image alone.
///
/// # Errors
/// It cannot be read or mounted.
pub fn read(path: &Path) -> Result<State, Failure> {
    mount(fs::read(path).map_err(Failure::io(path.display().to_string()))?)
}

/// Mounts an image as a machine does after a power cut, and reads what it holds then.
///
/// # Errors
/// It cannot be mounted.
pub fn mount(image: Vec<u8>) -> Result<State, Failure> {
    let mut device = MemoryDevice::from_bytes(image);
    let disk = Disk::new(device.geometry());
    let random = Random::from_seed(seed()?);
    let opening = Journal::open(disk.clone(), random, Clock::default(), Options::default());
    let opened = block_on(&mut device, &disk, opening)?;
    let journal =
        opened.map_err(|error| Failure::Image { what: format!("cannot be mounted: {error}") })?;
    let mut values: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let digesting = digest(&journal, |key, _, shown| {
        let value = values
            .entry(String::from_utf8_lossy(key).into_owned())
            .or_insert_with(|| Some(Vec::new()));
        match shown {
            Shown::Value(bytes) | Shown::Part { bytes, .. } => {
                value.get_or_insert_default().extend_from_slice(bytes);
            }
            Shown::Lost => *value = None,
        }
    });
    let digest = block_on(&mut device, &disk, digesting)?.to_string();
    let intact = journal.mode() == Mode::Healthy && journal.report().lost.is_empty();
    Ok(State { values, digest, intact })
}

/// Runs a future of the journal over a device that is done at once.
fn block_on<F: Future>(
    device: &mut MemoryDevice,
    disk: &Disk,
    future: F,
) -> Result<F::Output, Failure> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        let mut moved = false;
        while let Some(request) = disk.next_request() {
            device.submit(request);
            moved = true;
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
            moved = true;
        }
        if !moved {
            return Err(Failure::Image { what: "leaves the journal waiting for nothing".into() });
        }
    }
}

/// Yields random bytes of the system.
///
/// # Errors
/// The system has none.
pub fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    let source = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    source.map_err(Failure::io("/dev/urandom"))?;
    Ok(seed)
}
