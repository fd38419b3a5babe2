//! The client of StateFS: typed calls over the generated stubs, whose types never leak.
//!
//! Most programs want the blocking [`Client`] over the daemon's Unix socket:
//!
//! ```
//! # // It runs where nobody serves the socket: what a first attempt meets.
//! # assert_eq!(eight_lines().unwrap_err().code(), "NO_DAEMON");
//! # fn eight_lines() -> Result<(), statefs_client::Error> {
//! use statefs_client::{Client, Rights};
//!
//! let client = Client::connect("statefs-dev/statefs.sock")?;
//! let net = client.directory("/state/net", Rights::GET | Rights::PUT);
//! let home = net.put("ssid", b"home")?; // on the medium, in both copies, when this returns
//! net.put_if_version("ssid", b"harbour", home)?; // only if nobody else wrote meanwhile
//! let value = net.get("ssid")?.expect("nobody deletes it");
//! assert_eq!(value.data, b"harbour");
//! # Ok(())
//! # }
//! ```
//!
//! Underneath, and for machines without an operating system, lies the asynchronous [`StateFs`] over
//! a [`vat::Vat`] whose bytes somebody else moves. A call is sent by the method that makes it, not
//! by the first poll of its [`Call`], and a [`Directory`] may be used before the server has answered
//! that it exists. So calls made one after the other take one round trip together. What takes several
//! calls is written as an `async fn` over a [`Directory`], which [`drive`] or [`Client::run`] runs.
//!
//! What a correct program must expect is a variant of [`Error`] or an `Option`. A write whose answer
//! never came is [`Error::Indeterminate`], never a plain connection error.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod admin;
mod batch;
#[cfg(feature = "std")]
pub mod blocking;
mod call;
mod drive;
mod error;
mod info;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod types;
mod version;
mod wire;

pub use admin::{
    Admin, AuditOutcome, AuditPage, AuditRecord, AuditRing, CheckReport, Counter, Reload,
};
pub use batch::{Batch, Token};
#[cfg(feature = "std")]
pub use blocking::Client;
pub use call::Call;
pub use drive::drive;
pub use error::{Error, Result};
pub use info::{Description, Feature, Health, Hello, Limits, Mode};
pub use statefs::ErrorCode;
pub use store::{Directory, Revoker, StateFs};
pub use stream::{Reader, Writer};
pub use types::{
    Durability, Entry, Held, ListOptions, Metadata, Page, Precondition, Quota, Rights, Usage,
    Value, WriteOptions,
};
pub use version::{Version, VersionError};
