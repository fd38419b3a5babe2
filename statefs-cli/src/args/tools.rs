//! The command lines of the tools that examine, save and import images.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// The image or block device
    pub(crate) path: PathBuf,
    /// Write the copies that do not verify anew, from those that do
    #[arg(long)]
    pub(crate) repair: bool,
    /// Where --repair keeps the bytes it overwrites [default: the first free PATH.undo-N]
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub(crate) undo: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The image or block device
    pub(crate) path: PathBuf,
    /// Write a page to look at in a browser; it needs nothing but itself
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct SalvageArgs {
    /// The damaged image or block device; it is only read
    pub(crate) path: PathBuf,
    /// The image to make
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
}

pub(super) const FSCK: &str = "\
Exit codes, those of fsck(8):
  0 clean    1 repaired, now clean    4 damage left    8 cannot run    (2 usage)

The undo file, integers little-endian: 8 bytes SFSUNDO1; 16 bytes, the volume's id; then for each
block offset (8 bytes), length (4), CRC-32 of the old bytes (4), the old bytes. Length 0 ends it.
A block that could not be read is not in it.

Examples:
  statefs image fsck state.img
  statefs image fsck state.img --repair --undo /var/tmp/state.undo
  statefs image fsck state.img -o json      one fault a line, then {\"summary\"}";

pub(super) const INSPECT: &str = "\
Examples:
  statefs image inspect state.img
  statefs image inspect state.img --html state.html
  statefs image inspect state.img -o json";

pub(super) const SALVAGE: &str = "\
Examples:
  statefs image salvage broken.img --out saved.img
  statefs image salvage /dev/mmcblk0p7 --out saved.img -o json > report.ndjson";
