//! The journal of StateFS: the on-disk format, commits, recovery and the index.
//!
//! It owns a volume on one block device and keeps the promises of `FORMAT.md`: acknowledged means
//! durable, a failed flush is never retried, damage is never absence. It performs no I/O: requests
//! leave through [`Disk`], and a driver polls its futures. It never sees what a key means.
#![no_std]
#![forbid(unsafe_code)]

#[cfg_attr(test, macro_use)]
extern crate alloc;
// Only a thread of a test trips over a planted panic.
#[cfg(feature = "plant")]
extern crate std;

mod batch;
mod bulk;
mod cache;
mod check;
mod checkpoint;
mod clean;
mod digest;
mod disk;
mod field;
mod format;
mod geometry;
mod given;
mod group;
mod index;
pub mod inspect;
mod journal;
mod large;
pub mod layout;
mod maintain;
mod mount;
mod overlay;
mod plant;
mod read;
mod reader;
mod record;
mod replay;
mod ring;
mod room;
mod run;
mod scan;
mod sorted;
mod split;
mod state;
mod stuck;
mod superblock;
mod tag;
#[cfg(test)]
mod tests;
mod ticket;
mod types;
mod upload;
mod verdict;
mod walk;
mod writer;

pub use batch::{
    Applied, Batch, CommitError, Durability, Operation, Origin, Outcome, Precondition,
};
pub use check::CheckReport;
pub use checkpoint::CheckpointError;
pub use digest::{Digest, Shown, digest};
pub use disk::{Disk, Transfer};
pub use format::{FormatError, FormatOptions, format};
pub use geometry::{
    GeometryError, KEY_BYTES_MAX, SLOT_BYTES, SUPERBLOCK_COPIES, VALUE_BYTES_MAX, VolumeGeometry,
};
pub use group::{Builder, Header, Verifier, group_blocks};
pub use journal::{Clock, Journal, Options, Stats};
pub use large::LARGE_BYTES_MAX;
pub use mount::{OpenError, Report};
#[cfg(feature = "plant")]
pub use plant::trip;
pub use plant::{Plant, Plants};
pub use read::{Got, Looked, Seen};
pub use reader::{Opened, Piece, ValueReader};
pub use record::{Kind, Record, RecordError, record_bytes};
pub use replay::ReplayError;
pub use ring::{NOTE_BYTES_MAX, Note, NoteSeen, Ring, keeps_notes};
pub use superblock::{Superblock, SuperblockError};
pub use tag::{Keys, Random, Tag};
pub use types::{
    Birth, BlockIndex, Epoch, Lsn, Mode, Place, ReadOnlyReason, SegmentIndex, Use, Version,
    VolumeId, Zone,
};
pub use upload::Upload;
pub use verdict::{Later, Sight, UseState, Verdict, verdict};
pub use walk::{Accepted, History, Lost, Seen as LogSeen, Sighting, Weakened, walk};
