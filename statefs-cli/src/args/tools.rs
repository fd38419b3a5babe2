//! The command lines of the tools that examine, save and import images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// The image or block device
    pub(crate) path: PathBuf,
    /// Write the copies that do not verify anew, from those that do, once a terminal or --yes has
    /// confirmed it
    #[arg(long)]
    pub(crate) repair: bool,
    /// Do not ask before anything is written over; without a terminal nobody could answer
    #[arg(long)]
    pub(crate) yes: bool,
    /// Where --repair keeps the bytes it overwrites; must be named for a block device [default: the
    /// first free PATH.undo-N]
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub(crate) undo: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct UndoArgs {
    /// The image or block device that was repaired
    pub(crate) path: PathBuf,
    /// The undo file; it is only read
    pub(crate) undo: PathBuf,
    /// Write also over blocks that hold neither what the repair wrote nor the old bytes
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask before anything is written over; without a terminal nobody could answer
    #[arg(long)]
    pub(crate) yes: bool,
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

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Whose image it is
    #[arg(long)]
    pub(crate) from: Origin,
    /// Import what is intact of a damaged image, and leave out what no key or value may be
    #[arg(long)]
    pub(crate) salvage: bool,
    /// The image to import; it is only read
    pub(crate) src: PathBuf,
    /// The image to make
    pub(crate) dst: PathBuf,
    /// Size of the image to make [default: what its contents need, at least 16M]
    #[arg(long, value_parser = super::size)]
    pub(crate) size: Option<u64>,
}

/// Whose images can be imported.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Origin {
    /// Open Nexus OS statefs: journals v1 and v2, compacted or not
    Nexus,
}

pub(super) const FSCK: &str = "\
Exit codes, those of fsck(8):
  0 clean         1 repaired, now clean    4 damage left
  8 cannot run    16 usage, no --yes       32 cancelled: who was asked did not say yes

The undo file, integers little-endian: 8 bytes SFSUNDO1; 16 bytes, the volume's id; then for each
block offset (8 bytes), length (4), CRC-32 of the old bytes (4), the old bytes. Length 0 ends it.
A block that could not be read is not in it. `statefs image undo` applies it.

Examples:
  statefs image fsck state.img
  statefs image fsck state.img --repair --yes --undo /var/tmp/state.undo
  statefs image fsck state.img -o json      one fault a line, then {\"summary\"}";

pub(super) const UNDO: &str = "\
A block that the repair could not read is not in the file, and stays as the repair wrote it.

Examples:
  statefs image undo state.img state.img.undo-1
  statefs image undo /dev/mmcblk0p7 /var/tmp/state.undo --yes
  statefs image undo state.img state.img.undo-1 -o json      {\"plan\"}, then {\"summary\"}";

pub(super) const INSPECT: &str = "\
Examples:
  statefs image inspect state.img
  statefs image inspect state.img --html state.html
  statefs image inspect state.img -o json";

pub(super) const SALVAGE: &str = "\
Examples:
  statefs image salvage broken.img --out saved.img
  statefs image salvage /dev/mmcblk0p7 --out saved.img -o json > report.ndjson";

pub(super) const IMPORT: &str = "\
Examples:
  statefs image import --from nexus blk.img state.img
  statefs image import --from nexus --salvage damaged.img state.img -o json > report.ndjson";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(statefs completions bash)
  statefs completions zsh > ~/.zfunc/_statefs
  statefs completions fish > ~/.config/fish/completions/statefs.fish";

pub(super) const MAN: &str = "\
Examples:
  statefs man --out man && man -l man/statefs-put.1
  statefs man --out man -o json      {\"page\"} each";
