//! What a host has to offer.

/// How a daemon ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It is asked to, and answers what it was asked before.
    Clean,
    /// In the middle of whatever it does: a killed process, a reset machine, a power cut.
    Kill,
}

/// A daemon that can be reached and started again.
///
/// It serves one volume of 16 MiB or more under [`POLICY`], and each of [`SERVICES`] through the
/// channel of that name.
pub trait Host {
    /// Connects as a service, one of [`SERVICES`].
    ///
    /// The suite never holds two channels of one service, and drops all before a restart.
    ///
    /// # Panics
    /// If the host cannot: there is no case about that.
    fn connect(&mut self, service: &'static str) -> Box<dyn Channel>;

    /// Ends the daemon, and starts it again on the same volume.
    ///
    /// # Panics
    /// If it does not end, or not start.
    fn restart(&mut self, end: End);
}

/// A connection: bytes there and bytes back. It is closed when it is dropped.
pub trait Channel {
    /// Sends all of `output`, waits until something has come back, and yields that.
    ///
    /// Called only while an answer is due.
    ///
    /// # Errors
    /// Why nothing will come: the peer has ended the connection, or patience is over.
    fn exchange(&mut self, output: &[u8]) -> Result<Vec<u8>, String>;
}

/// The channels of a host. All but `stranger` name a service of [`POLICY`].
pub const SERVICES: &[&str] = &["owner", "editor", "writer", "lister", "stranger"];

/// Who may do what. `owner` may all; the others are each short of something.
pub const POLICY: &str = r#"
version = 1

[service.owner]
channel = "owner"
[service.editor]
channel = "editor"
[service.writer]
channel = "writer"
[service.lister]
channel = "lister"

[[grant]]
to = "owner"
prefix = "/state"
rights = ["get", "list", "put", "delete", "admin.audit"]
[[grant]]
to = "editor"
prefix = "/state/suite/rights"
rights = ["get", "list", "put"]
[[grant]]
to = "editor"
prefix = "/state/suite/order"
rights = ["get", "put"]
[[grant]]
to = "writer"
prefix = "/state/suite/rights"
rights = ["put", "delete"]
[[grant]]
to = "lister"
prefix = "/state/suite/rights"
rights = ["list"]

[[ceiling]]
prefix = "/state/suite/rights/what_is_hidden_leaves_no_trace"
only = ["owner"]
"#;
