//! The client of StateFS: typed calls over the generated stubs, whose types never leak.
//!
//! Most programs want the blocking [`Client`] over the daemon's Unix socket:
//!
//! ```
//! use statefs_client::{Client, Error, Rights};
//!
//! fn remember(socket: &str) -> Result<(), Error> {
//!     let client = Client::connect(socket)?;
//!     let wifi = client.directory("/state/net/wifi", Rights::GET | Rights::PUT);
//!     wifi.put("ssid", b"harbour")?; // on the medium when this returns
//!     let value = wifi.get("ssid")?.expect("nobody else deletes it");
//!     assert_eq!(value.data, b"harbour");
//!     Ok(())
//! }
//! # // The example runs against a socket that nobody serves: what a first attempt meets.
//! # let error = remember("./no-such-daemon.sock").unwrap_err();
//! # assert_eq!(error.code(), "NO_DAEMON");
//! ```
//!
//! Underneath, and for machines without an operating system, lies the asynchronous [`StateFs`] over
//! a [`vat::Vat`] whose bytes somebody else moves. A call is sent by the method that makes it, not
//! by the first poll of its [`Call`], and a [`Directory`] may be used before the server has answered
//! that it exists. So calls made one after the other take one round trip together.
//!
//! What a correct program must expect is a variant of [`Error`] or an `Option`. A write whose answer
//! never came is [`Error::Indeterminate`], never a plain connection error.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
pub mod blocking;
mod call;
mod error;
mod info;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod version;
mod wire;

#[cfg(feature = "std")]
pub use blocking::Client;
pub use call::Call;
pub use error::{Error, Result};
pub use info::{Health, Hello, Limits, Mode};
pub use statefs::ErrorCode;
pub use store::{Directory, StateFs};
pub use types::{
    Durability, Entry, Held, ListOptions, Metadata, Page, Precondition, Rights, Value, WriteOptions,
};
pub use version::{Version, VersionError};
