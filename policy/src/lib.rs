//! Who may do what under `/state`: identities, paths, rights, rules, and the one decision.
//!
//! This crate owns [`Key`] and [`Prefix`], [`ServiceId`], [`Rights`], the policy file and
//! [`decide`]. It refuses to know whether a key exists, what a value holds, what a wire looks
//! like and where a policy file lies: text and evidence come in as arguments, and a
//! [`Granted`] request or a [`Denial`] goes out.
//!
//! `allowed = some grant matches AND every ceiling that covers the path lets it pass`, cut down
//! further by the capability that the request came through. Union and intersection: the order
//! of rules never matters.
//!
#![cfg_attr(feature = "parse", doc = "```")]
#![cfg_attr(not(feature = "parse"), doc = "```text")]
//! use policy::{Demand, Key, Peer, Policy, Right, Target, decide};
//!
//! struct Get {
//!     key: Key,
//! }
//!
//! impl Demand for Get {
//!     fn right(&self) -> Right {
//!         Right::Get
//!     }
//!     fn target(&self) -> Target<'_> {
//!         Target::Key(&self.key)
//!     }
//! }
//!
//! let policy = Policy::parse(
//!     r#"
//!     version = 1
//!     [service.updated]
//!     uid = 951
//!     [[grant]]
//!     to = "updated"
//!     prefix = "/state/boot"
//!     rights = ["get", "put"]
//!     "#,
//! )
//! .expect("the file is sound");
//! let peer = Peer { channel: "default".into(), uid: Some(951) };
//! let updated = policy.identify(&peer).expect("uid 951 is known");
//!
//! let slot = Get { key: Key::parse("/state/boot/slot").expect("a key") };
//! let granted = decide(&policy, &updated, None, slot).expect("line 5 grants it");
//! assert_eq!(granted.rule().position().line, 5);
//!
//! let other = Get { key: Key::parse("/state/keystore/device.key").expect("a key") };
//! let denial = decide(&policy, &updated, None, other).expect_err("nothing grants it");
//! assert_eq!(denial.code(), "ACCESS_DENIED");
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "parse"),
    allow(dead_code, reason = "without the parser only `Policy::deny_all` can be built")
)]

extern crate alloc;

mod decide;
mod denial;
mod diff;
mod error;
mod explain;
mod key;
#[cfg(feature = "parse")]
mod load;
#[cfg(all(test, feature = "parse"))]
mod model;
#[cfg(feature = "parse")]
mod parse;
mod quote;
mod rights;
mod rules;
mod scope;
mod service;
#[cfg(feature = "parse")]
mod toml_reader;

pub use decide::{Demand, Granted, Target, decide};
pub use denial::{Denial, MissingGrant, Refusal};
pub use diff::Change;
pub use error::{PolicyError, PolicyErrorKind, Position, RuleFault};
pub use explain::Trace;
pub use key::{Key, KeyError, Prefix};
pub use rights::{Right, Rights, UnknownRight};
pub use rules::{Policy, Quota, RuleId};
pub use scope::Scope;
pub use service::{NAME_BYTES_MAX, Peer, ServiceId};
