//! The client against a small server of its own, over the generated traits.

#[cfg(feature = "std")]
mod again;
mod asynchronous;
mod driven;
#[cfg(feature = "std")]
mod over_socket;
mod server;
#[cfg(feature = "std")]
mod streams;
