//! Opening and making: what may be a device, its lock, its shape, and every way that fails.

use std::ffi::OsStr;
use std::fmt;
use std::format;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::holder::Holder;
use super::medium::FileMedium;
use crate::{ALIGNMENT_BYTES, Buffer, Geometry, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};

/// How to open a device. The default reads and writes, and bypasses the page cache where it can.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OpenOptions {
    /// Refuse writes, and let others read at the same time; nobody who writes may hold it.
    pub read_only: bool,
    /// Go through the page cache even where direct I/O works.
    pub buffered: bool,
    /// Serve with helper threads even where the kernel has a queue for it.
    pub threads: bool,
}

/// Why a device could not be opened or made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// Nothing is at the path.
    Absent,
    /// Something is at the path already; making a device never replaces anything.
    Exists,
    /// The caller may not open it.
    Denied,
    /// A directory, a pipe, a terminal: neither a regular file nor a block device.
    NotStorage,
    /// Another opener holds it.
    Busy {
        /// Who that is, where the system tells.
        holder: Option<Holder>,
    },
    /// It has `bytes` bytes; the least that is a device is `bytes_min`.
    TooSmall {
        /// Length found.
        bytes: u64,
        /// Length needed.
        bytes_min: u64,
    },
    /// A new device was to have `bytes` bytes, not a positive multiple of `unit`.
    Size {
        /// Length asked for.
        bytes: u64,
        /// What it must be a multiple of.
        unit: u64,
    },
    /// The block device's sector of `bytes` bytes is outside of what this crate serves, or lies across blocks of ours, of
    /// which a power cut would tear two.
    Sector {
        /// Sector found: the physical one where it lies across blocks.
        bytes: u32,
        /// Bytes by which it is off.
        offset: i32,
    },
    /// The system failed.
    Io {
        /// What was being done.
        action: Action,
        /// The operating system's error number, or 0 where there is none.
        code: i32,
    },
}

/// What was being done when [`OpenError::Io`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Opening the path.
    Open,
    /// Taking the lock.
    Lock,
    /// Asking for type, size and sectors.
    Measure,
    /// Writing a new device's zeros.
    Zero,
    /// Making a new device, or its name, durable.
    Sync,
    /// Starting the helper threads.
    Start,
}

impl OpenError {
    pub(super) fn io(action: Action, error: &io::Error) -> Self {
        Self::Io { action, code: error.raw_os_error().unwrap_or_default() }
    }

    fn opening(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::IsADirectory => Self::NotStorage,
            _ => Self::io(Action::Open, error),
        }
    }
}

/// Does not name the path: the caller, who has it, puts it in front.
impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no such file or block device"),
            Self::Exists => f.write_str("something is there already, and is never replaced"),
            Self::Denied => f.write_str("permission to open it was denied"),
            Self::NotStorage => f.write_str("it is neither a regular file nor a block device"),
            Self::Busy { holder: None } => f.write_str(
                "it is in use: mounted, or held by a running statefsd or an image tool; \
                 stop that first, or reach the store through its socket",
            ),
            Self::Busy { holder: Some(holder) } => write!(
                f,
                "it is in use by {holder}; stop that first, or reach the store through its socket"
            ),
            Self::TooSmall { bytes, bytes_min } => {
                write!(f, "it has {bytes} bytes, and a device has at least {bytes_min}")
            }
            Self::Size { bytes, unit } => write!(
                f,
                "a device of {bytes} bytes cannot be made: the size must be a positive multiple \
                 of {unit}"
            ),
            Self::Sector { bytes, offset: 0 } => write!(
                f,
                "its sector has {bytes} bytes, and only {SECTOR_BYTES_MIN} to {SECTOR_BYTES_MAX} \
                 are served"
            ),
            Self::Sector { bytes, offset } => write!(
                f,
                "its physical sectors of {bytes} bytes do not begin where it does (alignment offset \
                 {offset}), so a power cut could tear what was acknowledged; make the partition \
                 begin at a multiple of {bytes} bytes of the disk"
            ),
            Self::Io { action, code } => {
                let action = match action {
                    Action::Open => "opening it",
                    Action::Lock => "locking it",
                    Action::Measure => "asking for its type and size",
                    Action::Zero => "filling it with zeros",
                    Action::Sync => "making it durable",
                    Action::Start => "starting its threads",
                };
                let error = io::Error::from_raw_os_error(*code);
                write!(f, "{action} failed: {error}")
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// A device ready to be served.
pub(super) struct Opened {
    pub(super) medium: FileMedium,
    pub(super) geometry: Geometry,
}

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<Opened, OpenError> {
    // Before opening: to open a pipe may wait for ever, to open a watchdog starts it.
    let named = fs::metadata(path).map_err(|error| OpenError::opening(&error))?;
    let kind = Kind::of(&named)?;
    let exclusive = match kind {
        // The kernel's own claim, which mounts and volume managers respect and flock is not.
        Kind::BlockDevice if !options.read_only => OFlags::EXCL,
        Kind::BlockDevice | Kind::File => OFlags::empty(),
    };
    let file = File::options()
        .read(true)
        .write(!options.read_only)
        .custom_flags(exclusive.bits().cast_signed())
        .open(path)
        .map_err(|error| match error.kind() {
            // O_EXCL on a block device that is mounted or otherwise claimed.
            io::ErrorKind::ResourceBusy => OpenError::Busy { holder: Holder::of(&named) },
            _ => OpenError::opening(&error),
        })?;
    let metadata = metadata(&file)?;
    if Kind::of(&metadata)? != kind {
        return Err(OpenError::NotStorage);
    }
    lock(&file, &metadata, kind, options)?;
    finish(file, kind, options)
}

pub(super) fn create(path: &Path, device_bytes: u64) -> Result<Opened, OpenError> {
    if device_bytes == 0 || !device_bytes.is_multiple_of(FILE_UNIT_BYTES) {
        return Err(OpenError::Size { bytes: device_bytes, unit: FILE_UNIT_BYTES });
    }
    make(path, |file| fill(file, path, device_bytes))
}

/// Makes a file that `fill` turns into a device, and removes it if that fails.
fn make(
    path: &Path,
    fill: impl FnOnce(File) -> Result<Opened, OpenError>,
) -> Result<Opened, OpenError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| OpenError::opening(&error))?;
    let made = fill(file);
    if made.is_err() {
        // The first error is the one to tell. What cannot be removed is short, and blank.
        let _ = fs::remove_file(path);
    }
    made
}

/// Turns a new file into a device: locked first, so that nobody else opens it half made.
fn fill(file: File, path: &Path, device_bytes: u64) -> Result<Opened, OpenError> {
    let options = OpenOptions::default();
    lock(&file, &metadata(&file)?, Kind::File, options)?;
    let zeros = Buffer::zeroed(ZEROS_BYTES);
    let mut offset = 0;
    while offset < device_bytes {
        let rest = usize::try_from(device_bytes - offset).unwrap_or(usize::MAX);
        let part = zeros.get(..rest.min(ZEROS_BYTES)).unwrap_or_default();
        file.write_all_at(part, offset).map_err(|error| OpenError::io(Action::Zero, &error))?;
        offset += part.len() as u64;
    }
    let sync_failed = |error| OpenError::io(Action::Sync, &error);
    file.sync_all().map_err(sync_failed)?;
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str() != OsStr::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(sync_failed)?;
    finish(file, Kind::File, options)
}

fn finish(file: File, kind: Kind, options: OpenOptions) -> Result<Opened, OpenError> {
    let device_bytes = size(&file)?;
    if device_bytes < FILE_UNIT_BYTES {
        return Err(OpenError::TooSmall { bytes: device_bytes, bytes_min: FILE_UNIT_BYTES });
    }
    let (sector_bytes, physical_bytes, direct) = match kind {
        Kind::File => {
            let direct = if options.buffered { None } else { direct_sector(&file)? };
            // The page cache takes any offset, so the least sector serves every format.
            let sector_bytes = direct.unwrap_or(SECTOR_BYTES_MIN);
            (sector_bytes, FILE_PHYSICAL_BYTES, direct.is_some())
        }
        Kind::BlockDevice => {
            let (sector_bytes, physical_bytes) = sectors(&file)?;
            // Who only reads tears nothing.
            if !options.read_only {
                aligned(sector_bytes, physical_bytes, || alignment_offset(&file))?;
            }
            let direct = !options.buffered
                && direct_sector(&file)?.is_some_and(|least| least <= sector_bytes);
            (sector_bytes, physical_bytes, direct)
        }
    };
    set_direct(&file, direct).map_err(|error| OpenError::io(Action::Open, &error))?;
    let sector = u64::from(sector_bytes);
    let geometry =
        Geometry { sector_bytes, physical_bytes, device_bytes: device_bytes / sector * sector };
    assert!(geometry.is_valid());
    Ok(Opened { medium: FileMedium::new(file, direct, !options.read_only), geometry })
}

/// What a path may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    File,
    BlockDevice,
}

impl Kind {
    fn of(metadata: &Metadata) -> Result<Self, OpenError> {
        let kind = metadata.file_type();
        if kind.is_file() {
            Ok(Self::File)
        } else if kind.is_block_device() {
            Ok(Self::BlockDevice)
        } else {
            Err(OpenError::NotStorage)
        }
    }
}

fn metadata(file: &File) -> Result<Metadata, OpenError> {
    file.metadata().map_err(|error| OpenError::io(Action::Measure, &error))
}

/// Takes the flock(2) of the open file description; it lasts until the file is closed.
fn lock(
    file: &File,
    metadata: &Metadata,
    kind: Kind,
    options: OpenOptions,
) -> Result<(), OpenError> {
    for attempts_left in (0..LOCK_ATTEMPTS).rev() {
        let result = if options.read_only { file.try_lock_shared() } else { file.try_lock() };
        match result {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(OpenError::io(Action::Lock, &error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = Holder::of(metadata);
        let owned = kind == Kind::File && holder.as_ref().is_some_and(Holder::is_running);
        if owned || attempts_left == 0 {
            return Err(OpenError::Busy { holder });
        }
        thread::sleep(LOCK_PAUSE);
    }
    Err(OpenError::Busy { holder: None })
}

/// Yields the length. A block device's is not in its metadata, but its end can be sought.
fn size(file: &File) -> Result<u64, OpenError> {
    let mut file = file;
    file.seek(SeekFrom::End(0)).map_err(|error| OpenError::io(Action::Measure, &error))
}

/// Yields a block device's logical and physical sector.
fn sectors(file: &File) -> Result<(u32, u32), OpenError> {
    let measure = |error: rustix::io::Errno| OpenError::io(Action::Measure, &error.into());
    let logical = rustix::fs::ioctl_blksszget(file).map_err(measure)?;
    let physical = rustix::fs::ioctl_blkpbszget(file).map_err(measure)?;
    let served = SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX;
    if !served.contains(&logical) || !logical.is_power_of_two() {
        return Err(OpenError::Sector { bytes: logical, offset: 0 });
    }
    // A device that knows no physical sector, or reports nonsense, tears by the logical one.
    let physical = if physical.is_power_of_two() { physical.max(logical) } else { logical };
    Ok((logical, physical))
}

/// Refuses physical sectors that are known to begin elsewhere than blocks of ours. `offset` is asked where a physical sector is
/// more than a logical one, of which every device holds whole ones.
fn aligned(
    logical: u32,
    physical: u32,
    offset: impl FnOnce() -> Result<i32, OpenError>,
) -> Result<(), OpenError> {
    if physical == logical {
        return Ok(());
    }
    let offset = offset()?;
    // The kernel's unit may be a multiple of the physical sector. That the limits of stacked devices do not fit, as those of bridges
    // that make them up, is told by -1, and says nothing of where sectors begin.
    if offset < 0 || offset.cast_unsigned().is_multiple_of(physical) {
        return Ok(());
    }
    Err(OpenError::Sector { bytes: physical, offset })
}

/// Yields where Linux tells of a block device.
pub(super) fn description(device: &Metadata) -> PathBuf {
    let device = device.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("/sys/dev/block/{major}:{minor}").into()
}

/// Yields by how many bytes a block device is off its disk's physical sectors: what the ioctl `BLKALIGNOFF` tells, for which there is no
/// safe wrapper.
fn alignment_offset(file: &File) -> Result<i32, OpenError> {
    let told = fs::read_to_string(description(&metadata(file)?).join("alignment_offset"))
        .map_err(|error| OpenError::io(Action::Measure, &error))?;
    // What is no number says as little as the kernel's own -1.
    Ok(told.trim().parse().unwrap_or(-1))
}

/// Yields the least sector with which direct I/O on `file` works, or `None` where none does, and
/// leaves direct I/O off.
fn direct_sector(file: &File) -> Result<Option<u32>, OpenError> {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|told| StatxFlags::from_bits_retain(told.stx_mask).contains(StatxFlags::DIOALIGN));
    let least = match told {
        // Zero is how the kernel says that direct I/O does not work on this file.
        Some(told) if told.stx_dio_offset_align == 0 => return Ok(None),
        Some(told) if told.stx_dio_mem_align > SECTOR_BYTES_MAX => return Ok(None),
        Some(told) => told.stx_dio_offset_align.max(SECTOR_BYTES_MIN),
        // Linux before 6.1, or a file system that does not tell.
        None => SECTOR_BYTES_MIN,
    };
    if set_direct(file, true).is_err() {
        return Ok(None);
    }
    let works = probe(file, least);
    set_direct(file, false).map_err(|error| OpenError::io(Action::Open, &error))?;
    works
}

/// Reads the start of `file` with ever larger sectors, from `least` on, until one is accepted.
fn probe(file: &File, least: u32) -> Result<Option<u32>, OpenError> {
    let mut buffer = Buffer::zeroed(ALIGNMENT_BYTES);
    let mut bytes = least;
    while bytes <= SECTOR_BYTES_MAX {
        let part = buffer.get_mut(..bytes as usize).unwrap_or_default();
        match file.read_at(part, 0) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => bytes *= 2,
            // A medium that cannot be read here takes part all the same: recovery has copies.
            Ok(_) | Err(_) => return Ok(Some(bytes)),
        }
    }
    Ok(None)
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// What a new file's size is a multiple of, and the least of any device: one block of the format.
const FILE_UNIT_BYTES: u64 = 4096;

/// A file's physical unit: file systems and the disks below them write by 4 KiB at most.
const FILE_PHYSICAL_BYTES: u32 = 4096;

/// Zeros that one write of a new file brings: enough that the calls do not count.
const ZEROS_BYTES: usize = 1024 * 1024;

/// A lock that nobody owns ends soon. udev holds a shared one on a block device while it looks at it, for some milliseconds
/// after each writer closed it; the kernel holds that of a process that was killed until the last write in its
/// ring has ended. A second of patience tells both from an owner.
const LOCK_ATTEMPTS: u32 = 51;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Linux's answer to a direct transfer of a misfitting offset or length.
const EINVAL: i32 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_filled_is_removed() {
        let name = std::format!("blockdev-{}-partial", std::process::id());
        let path = std::env::temp_dir().join(name);
        let full = OpenError::Io { action: Action::Zero, code: 28 };
        let made = make(&path, |file| {
            file.write_all_at(&[0; 512], 0).unwrap();
            assert!(path.exists());
            Err(full.clone())
        });
        assert_eq!(made.err(), Some(full));
        assert!(!path.exists());
    }

    #[test]
    fn physical_sectors_that_lie_across_blocks_are_refused() {
        assert_eq!(aligned(512, 512, || panic!("it cannot matter")), Ok(()));
        for offset in [-1, 0, 4096, 65536] {
            assert_eq!(aligned(512, 4096, || Ok(offset)), Ok(()));
        }
        for offset in [512, 3584, 4608] {
            let refused = Err(OpenError::Sector { bytes: 4096, offset });
            assert_eq!(aligned(512, 4096, || Ok(offset)), refused);
        }
        let unknown = OpenError::Io { action: Action::Measure, code: 2 };
        assert_eq!(aligned(512, 4096, || Err(unknown.clone())), Err(unknown));
    }

    /// Of a file there is none.
    #[test]
    fn an_offset_that_the_kernel_does_not_tell_is_an_error() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let asked = alignment_offset(&file);
        assert_eq!(asked, Err(OpenError::Io { action: Action::Measure, code: 2 }));
    }

    #[test]
    fn direct_sector_leaves_the_page_cache_in_use() {
        let name = std::format!("blockdev-{}-direct", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, [7; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        let sector = direct_sector(&file).unwrap();
        assert!(sector.is_none_or(|bytes| (512..=4096).contains(&bytes)));
        // Direct I/O would refuse this offset.
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1).unwrap();
        assert_eq!(byte, [7]);
        std::fs::remove_file(&path).unwrap();
    }
}
