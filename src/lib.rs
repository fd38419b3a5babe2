//! The wire: the stubs that are generated from `schema/statefs.capnp`, the schema's compiled image
//! and the codes of its exceptions.
//!
//! The schema is the specification of everything here. This crate moves no bytes and decides
//! nothing; `vat` carries its messages, `statefsd` and `statefs-client` give them meaning.
#![no_std]
#![forbid(unsafe_code)]

// The generated code names the crate by this path.
extern crate alloc;

mod error;

pub use error::ErrorCode;
pub use statefs_capnp::{
    AuditOutcome, AuditRing, Durability, Feature, Mode, admin, audit_record, conflict, counter,
    current, directory, entry, limits, operation, precondition, quota, reader, revoker, rights,
    state_fs, value, writer,
};

/// The stubs, in the module where generated code expects itself.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::unwrap_used,
    missing_docs,
    rust_2018_idioms,
    unreachable_pub,
    reason = "generated; what it means is written in the schema"
)]
pub mod statefs_capnp {
    include!(concat!(env!("OUT_DIR"), "/statefs_capnp.rs"));
}

/// The newest protocol version of the schema, for `hello`.
pub const PROTOCOL: u32 = 1;

/// What `CommitResults.dataLoss` is where no key of the batch is damaged, but what the server remembers of batches with a token, or where that
/// is of another volume.
pub const BATCH_IN_DOUBT: u32 = u32::MAX;

/// The compiled schema: a Cap'n Proto `CodeGeneratorRequest` in the stream format, with every
/// comment of the source, unless the feature `brief` leaves them out.
pub const SCHEMA_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shown.image"));
