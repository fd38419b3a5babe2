//! Where each field stands: the twin of `FORMAT.md`, which describes every byte.
//!
//! `tests/tidy.rs` compares the two. All integers are little-endian.

/// The superblock (FORMAT.md section 3).
pub mod superblock {
    use core::ops::Range;

    /// Bytes of one copy.
    pub const BYTES: usize = 4096;
    /// Value of [`MAGIC`].
    pub const MAGIC_VALUE: [u8; 8] = *b"StateFS1";
    /// Value of [`VERSION`].
    pub const VERSION_VALUE: u16 = 2;

    /// `StateFS1`.
    pub const MAGIC: Range<usize> = 0..8;
    /// Format version.
    pub const VERSION: Range<usize> = 8..10;
    /// Feature flags.
    pub const FLAGS: Range<usize> = 10..12;
    /// Block size.
    pub const BLOCK_BYTES: Range<usize> = 12..16;
    /// Volume identity.
    pub const VOLUME: Range<usize> = 16..32;
    /// Update counter.
    pub const SEQUENCE: Range<usize> = 32..40;
    /// Mount counter.
    pub const MOUNT: Range<usize> = 40..48;
    /// Mount identity.
    pub const MOUNT_ID: Range<usize> = 48..64;
    /// Tag key.
    pub const KEY: Range<usize> = 64..96;
    /// Size of the volume.
    pub const VOLUME_BYTES: Range<usize> = 96..104;
    /// Blocks in a segment.
    pub const SEGMENT_BLOCKS: Range<usize> = 104..108;
    /// Segments in a zone.
    pub const SEGMENT_COUNT: Range<usize> = 108..112;
    /// Copies of each group.
    pub const COPIES: Range<usize> = 112..113;
    /// Zero.
    pub const RESERVED_A: Range<usize> = 113..120;
    /// Evidence.
    pub const DURABLE_LSN: Range<usize> = 120..128;
    /// Last LSN of the checkpoint.
    pub const BASE_LSN: Range<usize> = 128..136;
    /// Tag of the checkpoint's last group.
    pub const BASE_TAG: Range<usize> = 136..152;
    /// Bound on replay.
    pub const REPLAY_BYTES: Range<usize> = 152..160;
    /// Rollback counter.
    pub const ROLLBACK: Range<usize> = 160..168;
    /// Uses that hold the checkpoint.
    pub const CHECKPOINT_USES: Range<usize> = 168..172;
    /// Entries in the list.
    pub const USE_COUNT: Range<usize> = 172..176;
    /// Zero.
    pub const RESERVED_B: Range<usize> = 176..256;
    /// The list of uses.
    pub const USES: Range<usize> = 256..4064;
    /// Zero.
    pub const RESERVED_C: Range<usize> = 4064..4080;
    /// Checksum.
    pub const TAG: Range<usize> = 4080..4096;

    /// Longest list of uses.
    pub const USES_MAX: usize = (USES.end - USES.start) / super::use_entry::BYTES;

    const _: () = assert!(TAG.end == BYTES);
    const _: () = assert!(USES_MAX * super::use_entry::BYTES == USES.end - USES.start);
}

/// One entry of the superblock's list of uses (FORMAT.md section 3).
pub mod use_entry {
    use core::ops::Range;

    /// Bytes of one entry.
    pub const BYTES: usize = 32;

    /// Segment number.
    pub const SEGMENT: Range<usize> = 0..4;
    /// First block.
    pub const START: Range<usize> = 4..8;
    /// The cut.
    pub const END: Range<usize> = 8..16;
    /// Epoch.
    pub const EPOCH: Range<usize> = 16..32;

    const _: () = assert!(EPOCH.end == BYTES);
}

/// The header of a commit group (FORMAT.md section 4).
pub mod group {
    use core::ops::Range;

    /// Bytes of the header.
    pub const BYTES: usize = 128;
    /// Value of [`MAGIC`].
    pub const MAGIC_VALUE: [u8; 4] = *b"SFG1";
    /// Value of [`VERSION`].
    pub const VERSION_VALUE: u16 = 1;

    /// Bit 0 of [`FLAGS`].
    pub const FLAG_CHECKPOINT: u16 = 1;

    /// `SFG1`.
    pub const MAGIC: Range<usize> = 0..4;
    /// Format version.
    pub const VERSION: Range<usize> = 4..6;
    /// Feature flags.
    pub const FLAGS: Range<usize> = 6..8;
    /// Volume identity.
    pub const VOLUME: Range<usize> = 8..24;
    /// Epoch of the use.
    pub const EPOCH: Range<usize> = 24..40;
    /// Segment number.
    pub const SEGMENT: Range<usize> = 40..44;
    /// Block in the segment.
    pub const BLOCK: Range<usize> = 44..48;
    /// First LSN.
    pub const FIRST_LSN: Range<usize> = 48..56;
    /// Last LSN.
    pub const LAST_LSN: Range<usize> = 56..64;
    /// Bytes of the records.
    pub const PAYLOAD_BYTES: Range<usize> = 64..68;
    /// Number of records.
    pub const RECORD_COUNT: Range<usize> = 68..72;
    /// Tag of the previous group.
    pub const PREVIOUS: Range<usize> = 72..88;
    /// Evidence.
    pub const DURABLE_LSN: Range<usize> = 88..96;
    /// Tag over the records.
    pub const PAYLOAD_TAG: Range<usize> = 96..112;
    /// Tag over the header.
    pub const HEADER_TAG: Range<usize> = 112..128;

    const _: () = assert!(HEADER_TAG.end == BYTES);
    const _: () = assert!(512_usize.is_multiple_of(BYTES));
}

/// A run of keys in a checkpoint (FORMAT.md section 8).
pub mod checkpoint_run {
    use core::ops::Range;

    /// Bytes of the item without the run.
    pub const BYTES: usize = 3;
    /// Most bytes of a run.
    pub const RUN_BYTES_MAX: usize = 768;

    /// 1.
    pub const KIND: Range<usize> = 0..1;
    /// Bytes of the run.
    pub const RUN_BYTES: Range<usize> = 1..3;

    const _: () = assert!(RUN_BYTES.end == BYTES);
}

/// What a run begins with (FORMAT.md section 8).
pub mod run {
    use core::ops::Range;

    /// Bytes in front of the entries.
    pub const BYTES: usize = 8;

    /// At or below the birth of each entry.
    pub const BASE: Range<usize> = 0..8;

    const _: () = assert!(BASE.end == BYTES);
}

/// A key and its entry in a run (FORMAT.md section 8).
pub mod run_entry {
    use core::ops::Range;

    /// Bytes of the fixed part.
    pub const BYTES: usize = 8;
    /// Bytes of the upload, where the value is large.
    pub const UPLOAD_BYTES: usize = 8;

    /// Bits 0 and 1 of [`SIZES`]: bytes of the value's length, less 1.
    pub const SIZE_VALUE: u8 = 0b11;
    /// Bits 2 to 4 of [`SIZES`]: bytes of the birth, less 1.
    pub const SIZE_BIRTH: u8 = 0b111 << 2;
    /// Bit 5 of [`SIZES`].
    pub const FLAG_LARGE: u8 = 1 << 5;
    /// Bit 6 of [`SIZES`].
    pub const FLAG_IN_DOUBT: u8 = 1 << 6;
    /// Bits of [`PLACE`] that are the offset of the record, in units of its alignment; above them 16 of the segment.
    pub const OFFSET_BITS: u32 = 21;

    /// Bytes shared with the key before.
    pub const SHARED_BYTES: Range<usize> = 0..1;
    /// Bytes of the rest of the key.
    pub const SUFFIX_BYTES: Range<usize> = 1..2;
    /// Sizes of the numbers that follow, and flags.
    pub const SIZES: Range<usize> = 2..3;
    /// Place of the record.
    pub const PLACE: Range<usize> = 3..8;

    const _: () = assert!(PLACE.end == BYTES);
}

/// A use in which values lie, in a checkpoint (FORMAT.md section 8).
pub mod checkpoint_use {
    use core::ops::Range;

    /// Bytes of the item.
    pub const BYTES: usize = 25;

    /// 2.
    pub const KIND: Range<usize> = 0..1;
    /// Segment number.
    pub const SEGMENT: Range<usize> = 1..5;
    /// First block.
    pub const START: Range<usize> = 5..9;
    /// Epoch.
    pub const EPOCH: Range<usize> = 9..25;

    const _: () = assert!(EPOCH.end == BYTES);
}

/// The key of a chunk (FORMAT.md section 5).
pub mod chunk_key {
    use core::ops::Range;

    /// Bytes of the key.
    pub const BYTES: usize = 13;

    /// 0.
    pub const INTERNAL: Range<usize> = 0..1;
    /// Birth that names the upload, big-endian.
    pub const UPLOAD: Range<usize> = 1..9;
    /// Number of the chunk, big-endian.
    pub const NUMBER: Range<usize> = 9..13;

    const _: () = assert!(NUMBER.end == BYTES);
}

/// The key of a note (FORMAT.md section 5).
pub mod note_key {
    use core::ops::Range;

    /// Bytes of the key.
    pub const BYTES: usize = 12;

    /// 0.
    pub const INTERNAL: Range<usize> = 0..1;
    /// Which ring.
    pub const RING: Range<usize> = 1..2;
    /// Number of its last record, big-endian.
    pub const LAST: Range<usize> = 2..10;
    /// Number of its records, big-endian.
    pub const COUNT: Range<usize> = 10..12;

    const _: () = assert!(COUNT.end == BYTES);
}

/// What stands in place of a large value (FORMAT.md section 5).
pub mod manifest {
    use core::ops::Range;

    /// Bytes of a manifest.
    pub const BYTES: usize = 56;

    /// Birth that names the upload.
    pub const UPLOAD: Range<usize> = 0..8;
    /// Bytes of the value.
    pub const TOTAL_BYTES: Range<usize> = 8..16;
    /// Bytes of each chunk but the last.
    pub const CHUNK_BYTES: Range<usize> = 16..20;
    /// Number of chunks.
    pub const CHUNK_COUNT: Range<usize> = 20..24;
    /// BLAKE3 of the value.
    pub const DIGEST: Range<usize> = 24..56;

    const _: () = assert!(DIGEST.end == BYTES);
}

/// The fixed part of a record (FORMAT.md section 5).
pub mod record {
    use core::ops::Range;

    /// Bytes of the fixed part.
    pub const BYTES: usize = 32;
    /// Records are padded to a multiple of this.
    pub const ALIGNMENT: usize = 8;

    /// Bit 0 of [`FLAGS`].
    pub const FLAG_IN_DOUBT: u8 = 1;
    /// Bit 1 of [`FLAGS`].
    pub const FLAG_MANIFEST: u8 = 2;

    /// CRC-32.
    pub const CRC: Range<usize> = 0..4;
    /// What the record does.
    pub const KIND: Range<usize> = 4..5;
    /// Bit 0: in doubt; bit 1: the value is a manifest.
    pub const FLAGS: Range<usize> = 5..6;
    /// Bytes of the key.
    pub const KEY_BYTES: Range<usize> = 6..8;
    /// Bytes of the value.
    pub const VALUE_BYTES: Range<usize> = 8..12;
    /// Zero.
    pub const RESERVED: Range<usize> = 12..16;
    /// LSN.
    pub const LSN: Range<usize> = 16..24;
    /// Birth of the value.
    pub const BIRTH: Range<usize> = 24..32;

    const _: () = assert!(BIRTH.end == BYTES);
    const _: () = assert!(BYTES.is_multiple_of(ALIGNMENT));
}
