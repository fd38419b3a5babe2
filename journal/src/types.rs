//! The units of the log: one type each, so that none is taken for another.

use core::fmt;

/// Log sequence number of a record; 0 stands before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Stands before the first record.
    pub const NONE: Self = Self(0);
    /// Largest number that is read from a medium: a forged one must not bring the counting to its end.
    pub(crate) const READ_MAX: Self = Self(1 << 62);
    /// Largest number at which a mount begins: what it writes from there on is read again.
    pub(crate) const MOUNT_MAX: Self = Self(1 << 61);

    /// Yields the number after this one.
    ///
    /// # Panics
    /// At the end of the 64-bit range, which no device's life reaches (FORMAT.md section 6).
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("an LSN never reaches 2^64"))
    }

    /// Yields the number before this one; `NONE` before the first.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a segment in its zone, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SegmentIndex(pub u32);

/// Number of a block in its segment, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BlockIndex(pub u32);

/// Identity of one use of a segment: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub [u8; 16]);

/// Identity of a volume: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which write made a value: `lsn + mount * 2^32`, unique in the volume's life (FORMAT.md section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Birth(pub u64);

impl Birth {
    /// First mount number that a volume may not reach.
    pub const MOUNT_END: u64 = 1 << 31;
    /// First mount number that no mount takes: a mount that runs long may raise its number, so that the next one knows it.
    pub(crate) const MOUNT_MAX: u64 = Self::MOUNT_END - (1 << 16);

    /// Yields the birth after this one.
    ///
    /// # Panics
    /// When the counter would pass 2^64: mounts are refused long before.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a birth never reaches 2^64"))
    }

    /// Yields the first birth of mount number `mount`, whose log goes on at `lsn`: what `lsn` writes in mount number `mount`.
    ///
    /// # Panics
    /// When the counter would pass 2^64: mounts are refused long before.
    pub fn new(lsn: Lsn, mount: u64) -> Self {
        assert!(mount < Self::MOUNT_END, "mounts are refused before they run out");
        Self(lsn.0.checked_add(mount << 32).expect("a birth never reaches 2^64"))
    }
}

/// What clients see of a [`Birth`]: opaque, equal for the same write alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u64);

/// Which of the two mirrored zones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Zone {
    /// The first copy.
    A,
    /// The second copy.
    B,
}

/// A byte range of a segment that holds one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The segment, in both zones.
    pub segment: SegmentIndex,
    /// Bytes from the start of the segment.
    pub offset: u32,
}

/// One use of a segment, as the superblock lists it (FORMAT.md section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// The segment.
    pub segment: SegmentIndex,
    /// First block of this use.
    pub start: BlockIndex,
    /// The cut: last LSN that counts; `None` while the use is open.
    pub end: Option<Lsn>,
    /// Identity.
    pub epoch: Epoch,
}

/// Where the store stands between able and unable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All is well.
    Healthy,
    /// Serving; something acknowledged was lost or a copy is damaged.
    Degraded,
    /// Reads go on; nothing is written until the store is opened again.
    ReadOnly(ReadOnlyReason),
}

/// Why nothing is written any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOnlyReason {
    /// A write failed; what it carried may or may not be on the medium.
    WriteFailed,
    /// A flush failed; it is never retried (DESIGN.md section 5).
    FlushFailed,
    /// The caller asked for it.
    Requested,
}

impl fmt::Display for ReadOnlyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteFailed => "a write to the device failed; open the store again",
            Self::FlushFailed => "a flush of the device failed; open the store again",
            Self::Requested => "opened read-only",
        })
    }
}
