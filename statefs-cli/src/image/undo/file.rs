//! The undo file: what a repair overwrites, kept before it is overwritten.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISO_HDLC, Crc};
use journal::VolumeId;

use crate::failure::{Exit, Failure};

/// First bytes of an undo file.
const MAGIC: &[u8; 8] = b"SFSUNDO1";
/// Most files that are tried before the user must name one.
const NUMBER_MAX: u32 = 10_000;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Most bytes that one block, or one copy of the superblock, takes.
const LENGTH_MAX: u32 = 4096;
const _: () = assert!(LENGTH_MAX as u64 == journal::SLOT_BYTES);

/// The checksum of old bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// An undo file under construction.
pub(crate) struct Undo {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Undo {
    /// Makes the file: where it was asked for, else beside the image under the first free number.
    pub(crate) fn create(
        image: &Path,
        asked: Option<&Path>,
        volume: VolumeId,
    ) -> Result<Self, Failure> {
        let (path, file) = match asked {
            Some(path) => (path.to_path_buf(), open(path)),
            None => numbered(image),
        };
        let file = file.map_err(|error| failed(&path, &error))?;
        let mut undo = Self { path, file: BufWriter::new(file) };
        undo.write(MAGIC)?;
        undo.write(&volume.0)?;
        Ok(undo)
    }

    /// Keeps the old bytes of one block.
    pub(crate) fn keep(&mut self, offset: u64, old: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(old.len()).expect("a block or a slot");
        self.head(offset, length, checksum(old))?;
        self.write(old)
    }

    /// Ends the file. Durability: when this returns the file and its name survive a power cut.
    pub(crate) fn finish(mut self) -> Result<PathBuf, Failure> {
        self.head(0, 0, 0)?;
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let named =
            File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        synced.and(named).map_err(|error| failed(&self.path, &error))?;
        Ok(self.path)
    }

    fn head(&mut self, offset: u64, length: u32, crc: u32) -> Result<(), Failure> {
        self.write(&offset.to_le_bytes())?;
        self.write(&length.to_le_bytes())?;
        self.write(&crc.to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| failed(&self.path, &error))
    }
}

fn numbered(image: &Path) -> (PathBuf, io::Result<File>) {
    let mut number = 1;
    loop {
        let mut name = OsString::from(image);
        name.push(format!(".undo-{number}"));
        let path = PathBuf::from(name);
        match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < NUMBER_MAX => {
                number += 1;
            }
            file => return (path, file),
        }
    }
}

/// The file holds what the volume held: it is its owner's alone.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What an undo file says of one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    /// Bytes from the start of the device.
    pub(super) offset: u64,
    pub(super) length: u32,
    crc: u32,
}

/// An undo file that is read. Nothing in it is believed: no more is read or allocated than a block takes.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
}

impl Reader {
    /// Opens the file at `path`, and yields whose volume it says it is of.
    pub(super) fn open(path: &Path) -> Result<(Self, VolumeId), Failure> {
        let failure = |error: io::Error| {
            let (code, exit) = match error.kind() {
                io::ErrorKind::PermissionDenied => ("DENIED", Exit::Denied),
                _ => ("UNDO_FILE", Exit::Failure),
            };
            Failure::new(code, exit, error).about(path.display())
        };
        // A pipe would be waited for, and might not end.
        if !fs::metadata(path).map_err(failure)?.is_file() {
            return Err(refused(path, "it is no regular file"));
        }
        let file = File::open(path).map_err(failure)?;
        let mut reader = Self { path: path.to_path_buf(), file: BufReader::new(file) };
        let volume = reader.begin()?;
        Ok((reader, volume))
    }

    /// Yields the next block with its bytes, which lie in `bytes`; nothing at the end, behind which nothing may follow.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Kept>, Failure> {
        let (offset, length, crc) = (self.array()?, self.array()?, self.array()?);
        let offset = u64::from_le_bytes(offset);
        let (length, crc) = (u32::from_le_bytes(length), u32::from_le_bytes(crc));
        if length == 0 {
            let rest = self.file.fill_buf().map(<[u8]>::len);
            let rest = rest.map_err(|error| self.unread(&error))?;
            if (offset, crc, rest) != (0, 0, 0) {
                return Err(self.refused("it does not end where it says"));
            }
            return Ok(None);
        }
        if length > LENGTH_MAX {
            return Err(self.refused(&format!("it states a block of {length} bytes")));
        }
        bytes.resize(length as usize, 0);
        self.exact(bytes)?;
        if checksum(bytes) != crc {
            return Err(self.refused(&format!("what it holds of byte {offset} does not verify")));
        }
        Ok(Some(Kept { offset, length, crc }))
    }

    /// Goes back to the first block.
    pub(super) fn rewind(&mut self) -> Result<(), Failure> {
        self.file.rewind().map_err(|error| self.unread(&error))?;
        self.begin().map(drop)
    }

    /// Says why the file is not taken.
    pub(super) fn refused(&self, why: &str) -> Failure {
        refused(&self.path, why)
    }

    fn begin(&mut self) -> Result<VolumeId, Failure> {
        let magic: [u8; 8] = self.array()?;
        if magic != *MAGIC {
            return Err(self.refused("this is no undo file"));
        }
        self.array().map(VolumeId)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.refused("it is cut short"),
            _ => self.unread(&error),
        })
    }

    fn unread(&self, error: &io::Error) -> Failure {
        Failure::new("UNDO_FILE", Exit::Failure, error).about(self.path.display())
    }
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new("UNDO_FILE", Exit::Failure, why).about(path.display())
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let message = format!("the undo file cannot be written, so nothing was changed: {error}");
    Failure::new("UNDO", Exit::Failure, message).about(path.display())
}
