//! Every bound of a server, and where its number comes from.

use crate::plant::Plants;

/// Connections over all clients: each of the few dozen services of a machine, several times.
pub const CONNECTIONS_MAX: usize = 128;

/// Connections of peers that the policy does not name: they may ask for health, and must not take the places of those
/// that it names.
pub const STRANGERS_MAX: usize = 16;

/// Connections of one service that the policy names: it must leave some to the others.
pub const CONNECTIONS_OF_SERVICE_MAX: usize = 96;

/// Connections that are kept for services that have none, so that few that take all they may keep nobody else out. Peers that
/// the policy does not name count as one service here.
pub const CONNECTIONS_KEPT: usize = 16;

/// Bytes that one service may have waiting in the journal's queue: half of that, so that the largest batch of another one
/// gets in. Twice the largest batch, and about what one connection may have in flight.
pub const QUEUE_BYTES_OF_SERVICE_MAX: usize = 2 << 20;

/// Bytes held for all connections together: half of them in the middle of their largest frame. Once
/// they are used up, each connection is cut down to its share of as many, so that in all they hold
/// twice that, and one result each.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Milliseconds that a connection with more than its share of the memory may stand still while
/// the memory is used up: long for a process that runs, short for those that wait. Who takes less
/// than [`READ_BYTES_MAX`] of what waits for it in that time stands still too. As long a shutdown waits for who does not read
/// its answers.
pub const STALL_MS: u64 = 2000;

/// Bytes that one call of `Server::receive` takes at most: one read of a socket.
pub const READ_BYTES_MAX: usize = 64 << 10;

/// Largest result message, `Limits.replyBytes` of the schema.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// Most entries in one page of a list, `Limits.listEntries` of the schema.
pub const LIST_ENTRIES_MAX: usize = 1024;

/// Most operations of one batch, `Limits.batchOperations` of the schema: what a service changes
/// together, several times over.
pub const BATCH_OPERATIONS_MAX: usize = 128;

/// Most bytes of one batch, `Limits.batchBytes` of the schema: as much as a reply may have.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Restricted directories of one connection, `Limits.restrictions` of the schema. Each use of one
/// asks as many links at most.
pub const RESTRICTIONS_MAX: usize = 256;

/// Writers and readers of one connection, `Limits.streams` of the schema. Each holds two chunks at
/// most, so all of them hold about as much as a connection may have in flight.
pub const STREAMS_MAX: usize = 16;

/// Events kept until the driver takes them; more are counted.
pub const EVENTS_MAX: usize = 256;

/// Denials told one by one in each window of [`DENIAL_WINDOW_MS`], and as many connections that were refused or ended for
/// what they did; more are counted, so that nobody fills the log of a machine by asking.
pub const DENIALS_MAX: usize = 64;

/// Milliseconds of a window of denials.
pub const DENIAL_WINDOW_MS: u64 = 1000;

/// Damaged keys that health counts one by one.
pub const DAMAGED_KEYS_MAX: usize = 4096;

/// Bytes of a client's name that are kept, as the schema promises.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

pub use crate::audit::{
    AUDIT_REFUSALS_ALIKE_MAX, AUDIT_REFUSALS_MAX, AUDIT_REFUSALS_OF_SERVICE_MAX, AUDIT_WRITE_MS,
};

/// What a driver may choose. [`Limits::default`] has the constants of this module.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; see [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// Those of them for services that have none; see [`CONNECTIONS_KEPT`].
    pub kept: usize,
    /// Those of them of one service; see [`CONNECTIONS_OF_SERVICE_MAX`].
    pub of_service: usize,
    /// Those of them whose peers the policy does not name; see [`STRANGERS_MAX`].
    pub strangers: usize,
    /// Bytes held for all connections; see [`MEMORY_BYTES_MAX`].
    pub memory_bytes: usize,
    /// Milliseconds of standing still under pressure or at the end; see [`STALL_MS`].
    pub stall_ms: u64,
    /// Entries of a page; see [`LIST_ENTRIES_MAX`].
    pub list_entries: usize,
    /// Bytes of a result; see [`REPLY_BYTES_MAX`].
    pub reply_bytes: usize,
    /// Operations of a batch; see [`BATCH_OPERATIONS_MAX`].
    pub batch_operations: usize,
    /// Bytes of a batch; see [`BATCH_BYTES_MAX`].
    pub batch_bytes: usize,
    /// Restricted directories of one connection; see [`RESTRICTIONS_MAX`].
    pub restrictions: usize,
    /// Writers and readers of one connection; see [`STREAMS_MAX`].
    pub streams: usize,
    /// Events kept; see [`EVENTS_MAX`].
    pub events: usize,
    /// Denials told in one window; see [`DENIALS_MAX`].
    pub denials: usize,
    /// Whether mutations and refusals are recorded in the volume.
    pub audit: bool,
    /// The bounds of each connection.
    pub connection: vat::Limits,
    /// The bounds of the journal.
    pub journal: journal::Options,
    /// A rule that a test switches off.
    pub plants: Plants,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            kept: CONNECTIONS_KEPT,
            of_service: CONNECTIONS_OF_SERVICE_MAX,
            strangers: STRANGERS_MAX,
            memory_bytes: MEMORY_BYTES_MAX,
            stall_ms: STALL_MS,
            list_entries: LIST_ENTRIES_MAX,
            reply_bytes: REPLY_BYTES_MAX,
            batch_operations: BATCH_OPERATIONS_MAX,
            batch_bytes: BATCH_BYTES_MAX,
            restrictions: RESTRICTIONS_MAX,
            streams: STREAMS_MAX,
            events: EVENTS_MAX,
            denials: DENIALS_MAX,
            audit: true,
            connection: vat::Limits::default(),
            journal: journal::Options::default(),
            plants: Plants::default(),
        }
    }
}
