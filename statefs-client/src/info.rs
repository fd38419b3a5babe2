//! What a server tells of itself.

use alloc::string::String;
use alloc::vec::Vec;

/// Who answers, and where its bounds are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The protocol version of this connection.
    pub protocol: u32,
    /// One bit for each thing that the server serves beyond the first state of the schema.
    pub features: u64,
    /// What the server enforces.
    pub limits: Limits,
    /// The caller's name in the policy; `None` if the policy does not name it, which denies it all.
    pub service: Option<String>,
    /// The server's program and version, for people.
    pub software: String,
    /// The rights of administration that the policy gives the caller at this moment, in its words,
    /// such as "admin.stats".
    pub admin_rights: Vec<String>,
}

impl Hello {
    /// Whether the server serves a part of the schema that not every server does.
    #[must_use]
    pub fn serves(&self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// Whether the caller may do this with the whole store, such as "admin.stats".
    #[must_use]
    pub fn may(&self, admin_right: &str) -> bool {
        self.admin_rights.iter().any(|right| right == admin_right)
    }
}

/// A part of the schema that a server may serve or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Describing the schema.
    Describe,
    /// Administration.
    Admin,
    /// Reading several keys in one call.
    GetMany,
    /// Batches.
    Commit,
    /// Batches with a token.
    Tokens,
    /// Restricted directories.
    Restrict,
    /// Values of any size.
    Streams,
    /// Telling of usage and quotas.
    Usage,
    /// Reading the audit records.
    Audit,
}

impl Feature {
    fn bit(self) -> u64 {
        use statefs::Feature as Wire;
        1 << match self {
            Self::Describe => Wire::Describe,
            Self::Admin => Wire::Admin,
            Self::GetMany => Wire::GetMany,
            Self::Commit => Wire::Commit,
            Self::Tokens => Wire::Tokens,
            Self::Restrict => Wire::Restrict,
            Self::Streams => Wire::Streams,
            Self::Usage => Wire::Usage,
            Self::Audit => Wire::Audit,
        } as u64
    }
}

/// The schema that a server speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// The compiled schema: a Cap'n Proto `CodeGeneratorRequest` in the stream format.
    pub schema: Vec<u8>,
    /// The newest protocol version that the server speaks.
    pub protocol: u32,
}

/// The bounds that a server enforces, in bytes where the name says so.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest key, as a whole path.
    pub key_bytes: u32,
    /// Longest value of one call.
    pub value_bytes: u32,
    /// Largest result; a list ends its page before it.
    pub reply_bytes: u32,
    /// Most entries in one page of a list.
    pub list_entries: u32,
    /// Largest message that the server reads.
    pub frame_bytes: u32,
    /// Most segments of a message.
    pub frame_segments: u32,
    /// Deepest chain of pointers that the server follows.
    pub nesting: u32,
    /// Most bytes that the server reads by following pointers of one message.
    pub traversal_bytes: u32,
    /// Most calls of one connection that are not yet answered.
    pub calls: u32,
    /// Most capabilities that one connection holds.
    pub exports: u32,
    /// Most bytes of calls of one connection that are not yet answered.
    pub bytes_in_flight: u32,
    /// Most connections, over all clients.
    pub connections: u32,
    /// Most operations of one batch.
    pub batch_operations: u32,
    /// Most bytes of keys, as whole paths, and values of one batch.
    pub batch_bytes: u32,
    /// Longest value that is written in chunks; 0 where none is.
    pub large_value_bytes: u64,
    /// Most values of one connection that are being written or read in chunks.
    pub streams: u32,
    /// Most restricted directories of one connection.
    pub restrictions: u32,
}

/// How a store fares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What it can do.
    pub mode: Mode,
    /// Why the mode is not healthy; empty when it is.
    pub reason: String,
    /// Losses of acknowledged data that the store knows of.
    pub loss_count: u64,
}

/// What a store can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The server did not tell, or told a mode that this client does not know.
    Unknown,
    /// Everything.
    Healthy,
    /// Everything, but redundancy or data was lost.
    Degraded,
    /// Reads only.
    ReadOnly,
    /// Nothing, until the volume's key is given.
    Sealed,
    /// Nothing: the volume cannot be read.
    Failed,
}

impl Mode {
    /// Returns the schema's word for it, such as `readOnly`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::ReadOnly => "readOnly",
            Self::Sealed => "sealed",
            Self::Failed => "failed",
        }
    }

    /// Whether reads and writes work.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }
}
