//! The owner of `/state`: sessions, the policy gate, the store's semantics, and the Linux driver.
//!
//! The core is one state machine without I/O, clock, threads or randomness of its own. [`Server`]
//! takes bytes of connections and completions of a block device, and yields bytes and requests; a
//! driver, which alone knows where it runs, moves both. Here `policy`, `journal` and `vat` meet,
//! and nowhere else.
//!
//! ```text
//! bytes ─▶ session ─▶ vat ─▶ wire ─▶ gate ─▶ handlers ─▶ store ─▶ journal ─▶ block requests
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "linux"))]
extern crate std;

mod audit;
mod doubt;
mod error;
mod event;
mod figures;
mod gate;
mod handlers;
pub mod limits;
mod line;
#[cfg(feature = "linux")]
pub mod linux;
mod page;
mod permits;
mod plant;
mod power;
mod quota;
mod reload;
mod request;
mod server;
mod session;
mod slots;
mod store;
mod stream;
mod tokens;
mod turns;
mod wire;

pub use event::{Closed, Denied, Event};
pub use figures::{Family, Kind, Sample};
pub use limits::Limits;
pub use plant::{Plant, Plants};
pub use quota::{Account, Usage, Used};
pub use server::{Full, Gone, Server, Turn};
pub use session::ConnectionId;
pub use store::{Health, Mode};
pub use tokens::carried_over;
