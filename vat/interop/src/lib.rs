//! What the interoperability tests share: the test interfaces, one implementation of them that
//! either runtime hosts unchanged, and a world that connects two ends in memory.
#![forbid(unsafe_code)]
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
    capnp::generated_code!(pub mod echo_capnp);
}
pub use generated::echo_capnp;

mod server;
pub mod victim;
mod world;

pub use server::{CallbackServer, CounterServer, Counts, EchoServer, Host};
pub use world::{Runtime, World, drive};
