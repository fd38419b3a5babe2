//! Every bound on what a peer can make a connection hold, and where its number comes from.

/// Longest frame in bytes, segment table included: the largest reply or batch (1 MiB) and a quarter
/// for its framing. Refused from the segment table alone.
pub const FRAME_BYTES_MAX: usize = 1280 * 1024;

/// Most segments of one message. A builder that doubles its segments from 512 bytes reaches
/// [`FRAME_BYTES_MAX`] with 13.
pub const SEGMENTS_MAX: u32 = 16;

/// Deepest nesting of pointers that is read. The protocol's own messages use 3 above the content.
pub const NESTING_MAX: i32 = 16;

/// Words that may be read from one message, counting repeats: twice the frame, so every byte may
/// be read and copied once, and aliased pointers gain nothing.
pub const TRAVERSAL_WORDS_MAX: usize = 2 * FRAME_BYTES_MAX / 8;

/// Calls that one connection may have running. Further ones are answered `OVERLOADED`.
pub const CALLS_MAX: usize = 64;

/// Bytes held for one connection: parameters of running calls, results kept for pipelining, and
/// output that was not taken. Two replies of the largest size.
pub const IN_FLIGHT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Unread output above which the vat asks for no input and runs no task: half of
/// [`IN_FLIGHT_BYTES_MAX`], so that calls in one more read of the socket are still admitted.
pub const OUTPUT_HIGH_WATER_BYTES: usize = IN_FLIGHT_BYTES_MAX / 2;

/// Capabilities of ours that one peer may hold.
pub const EXPORTS_MAX: usize = 1024;

/// Capabilities of one peer that we may hold: the same, seen from the other side.
pub const IMPORTS_MAX: usize = EXPORTS_MAX;

/// Questions of the peer that it has not finished: the running ones, and one for each export.
pub const ANSWERS_MAX: usize = CALLS_MAX + EXPORTS_MAX;

/// Questions of ours that the peer has not answered. Beyond it a call fails at once.
pub const QUESTIONS_MAX: usize = 1024;

/// Capabilities of ours that came back to us and wait for the peer's echo, one per question at most.
pub const EMBARGOES_MAX: usize = QUESTIONS_MAX;

/// Capabilities in one message. The interfaces pass one or two.
pub const CAP_TABLE_MAX: u32 = 64;

/// Steps from a result to a capability in it. A pointer deeper than [`NESTING_MAX`] is not read.
pub const TRANSFORM_MAX: u32 = 16;

/// Longest reason of an exception in bytes; more is cut off. Codes and names, never contents.
pub const REASON_BYTES_MAX: usize = 4096;

/// Tasks that [`crate::Vat::spawn`] admits; with [`CALLS_MAX`] it makes a ready ring of 1,024.
pub const TASKS_MAX: usize = 448;

/// The bounds of one connection. [`Limits::default`] has the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame in bytes, both ways; see [`FRAME_BYTES_MAX`].
    pub frame_bytes: usize,
    /// Most segments of one message, both ways; see [`SEGMENTS_MAX`].
    pub segments: u32,
    /// Deepest nesting that is read; see [`NESTING_MAX`].
    pub nesting: i32,
    /// Words that may be read from one message; see [`TRAVERSAL_WORDS_MAX`].
    pub traversal_words: usize,
    /// Calls of the peer that may run; see [`CALLS_MAX`].
    pub calls: usize,
    /// Bytes held; see [`IN_FLIGHT_BYTES_MAX`].
    pub in_flight_bytes: usize,
    /// Unread output that stops the vat; see [`OUTPUT_HIGH_WATER_BYTES`].
    pub output_high_water_bytes: usize,
    /// Capabilities exported; see [`EXPORTS_MAX`].
    pub exports: usize,
    /// Capabilities imported; see [`IMPORTS_MAX`].
    pub imports: usize,
    /// Unfinished questions of the peer; see [`ANSWERS_MAX`].
    pub answers: usize,
    /// Unanswered questions of ours; see [`QUESTIONS_MAX`].
    pub questions: usize,
    /// Embargoed capabilities; see [`EMBARGOES_MAX`].
    pub embargoes: usize,
    /// Capabilities in one message, both ways; see [`CAP_TABLE_MAX`].
    pub cap_table: u32,
    /// Spawned tasks; see [`TASKS_MAX`].
    pub tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes: FRAME_BYTES_MAX,
            segments: SEGMENTS_MAX,
            nesting: NESTING_MAX,
            traversal_words: TRAVERSAL_WORDS_MAX,
            calls: CALLS_MAX,
            in_flight_bytes: IN_FLIGHT_BYTES_MAX,
            output_high_water_bytes: OUTPUT_HIGH_WATER_BYTES,
            exports: EXPORTS_MAX,
            imports: IMPORTS_MAX,
            answers: ANSWERS_MAX,
            questions: QUESTIONS_MAX,
            embargoes: EMBARGOES_MAX,
            cap_table: CAP_TABLE_MAX,
            tasks: TASKS_MAX,
        }
    }
}

/// What one connection holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Questions of the peer that are not finished.
    pub answers: usize,
    /// Capabilities of ours that the peer holds.
    pub exports: usize,
    /// Capabilities of the peer that we hold.
    pub imports: usize,
    /// Questions of ours that are not answered.
    pub questions: usize,
    /// Capabilities of ours that wait for the peer's echo.
    pub embargoes: usize,
    /// Calls of the peer that run.
    pub calls: usize,
    /// Tasks of any kind that are not done, those of calls included.
    pub tasks: usize,
    /// Bytes of parameters and of results kept for pipelining.
    pub held_bytes: usize,
    /// Bytes of an incomplete frame, as allocated.
    pub input_bytes: usize,
    /// Bytes of output not taken yet.
    pub output_bytes: usize,
}
