//! The client against a small server of its own, over the generated traits.

mod asynchronous;
mod driven;
#[cfg(feature = "std")]
mod over_socket;
mod server;
