//! Cap'n Proto RPC between two parties, level 1, as a state machine: bytes in, bytes out.
//!
//! A [`Vat`] is one end of one connection, client, server or both. It does no I/O, knows no clock
//! and no thread, and needs only an allocator. Generated server traits are hosted with
//! [`new_client`], generated clients come from [`Vat::bootstrap`], and both are used as with any
//! other runtime of the `capnp` crate.
//!
//! ```text
//! bytes ─▶ frame ─▶ conn ─▶ incoming ─▶ local ─▶ a handler ─▶ results ─▶ conn ─▶ bytes
//!                     └──▶ question ─▶ a promise of ours
//! ```
//!
//! # What it promises
//!
//! * Calls on one capability start in the order in which they were made, also those pipelined on an
//!   answer that was not known when they arrived, and those reflected by the peer.
//! * Whatever a peer sends, the vat neither panics nor recurses deeper than [`Limits::nesting`],
//!   and what it holds is bounded by [`Limits`], before it is allocated. A broken rule ends the
//!   connection with an `Abort`. A call over a limit of the connection is answered with an exception
//!   of type `overloaded` whose reason starts with `OVERLOADED`, and nothing of it was started; where its method streams, later
//!   calls on the same object fail for it ([`Vat::set_streams`]).
//! * An error of a handler arrives with its kind and its text ([`capnp::Error::extra`]) verbatim.
//! * `Finish` drops the handler's future, unless calls pipelined on its results still wait.
//! * Capabilities are released when the last reference to them is dropped; at the end of a
//!   connection all are.
//!
//! # What it does not
//!
//! * A handler's results are bounded one by one ([`Limits::frame_bytes`], when they are sent), but
//!   not while they are written.
//! * Promises are exported as if they were settled and forward for ever: no `Resolve` is sent, and a
//!   received one is answered `Unimplemented`, which keeps the peer forwarding. Calls are right, but
//!   take the longer way; for the same reason the four-way race of embargoes across several
//!   connections cannot be excluded.
//! * Tail calls are made as ordinary calls; `sendResultsTo.yourself` is answered `Unimplemented`.
//! * A streaming call of ours waits for its answer; several may be in flight, but there is no
//!   window that paces them.
//! * A local call starts when it, or a later call on the same object, is polled for the first time.
//! * Of level 3 there is nothing. A third-party capability is used through its vine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod generated {
    capnp::generated_code!(pub(crate) mod rpc_capnp);
}
use generated::rpc_capnp;

mod answer;
mod broken;
mod caps;
mod conn;
mod exec;
mod frame;
mod hook;
mod import;
mod incoming;
/// The bounds of a connection, and where their numbers come from.
pub mod limits;
mod local;
mod local_call;
mod meter;
mod once;
mod pipeline;
mod promise;
mod question;
mod refused;
mod request;
mod results;
mod slab;
mod vat;
mod wire;

pub use exec::yield_now;
pub use limits::{Limits, Stats};
pub use local::{new_client, new_client_from_rc, new_client_of};
pub use vat::Vat;
