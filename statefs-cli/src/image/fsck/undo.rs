//! The undo file: what a repair overwrites, kept before it is overwritten.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
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

/// An undo file under construction.
pub(super) struct Undo {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Undo {
    /// Makes the file: where it was asked for, else beside the image under the first free number.
    pub(super) fn create(
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
    pub(super) fn keep(&mut self, offset: u64, old: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(old.len()).expect("a block or a slot");
        self.head(offset, length, CRC.checksum(old))?;
        self.write(old)
    }

    /// Ends the file. Durability: when this returns the file and its name survive a power cut.
    pub(super) fn finish(mut self) -> Result<PathBuf, Failure> {
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

fn failed(path: &Path, error: &io::Error) -> Failure {
    let message = format!("the undo file cannot be written, so nothing was changed: {error}");
    Failure::new("UNDO", Exit::Failure, message).about(path.display())
}
