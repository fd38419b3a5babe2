//! Changes of several keys that happen together.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::types::{Durability, Precondition};
use crate::version::Version;

/// What names a batch for its server, so that it may be sent again: 16 bytes, chosen at random for
/// this batch and for no other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

#[cfg(feature = "std")]
impl Token {
    /// Chooses one, from the system's source of randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn random() -> std::io::Result<Self> {
        use rustix::rand::{GetRandomFlags, getrandom};
        let mut bytes = [0; 16];
        let count = getrandom(&mut bytes, GetRandomFlags::empty())?;
        // So few bytes come in one piece, or the source is not one.
        if count == bytes.len() { Ok(Self(bytes)) } else { Err(std::io::ErrorKind::Other.into()) }
    }
}

/// Hides the bytes: who knows them could ask for the batch's answer.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Changes of different keys: all of them happen, at one moment, or none.
///
/// ```
/// # use statefs_client::Batch;
/// let mut batch = Batch::new();
/// batch.put("slot", b"b").put_if_absent("tries", b"3").delete("pending");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Clone, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    pub(crate) durability: Durability,
    pub(crate) token: Option<Token>,
}

/// One change of a batch.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) key: String,
    /// `None` deletes.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) precondition: Precondition,
}

impl Batch {
    /// An empty batch, which is durable when it is answered; no server takes it before it holds a
    /// change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a key.
    pub fn put(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.put_if(key, value, Precondition::Any)
    }

    /// Writes a key that does not exist.
    pub fn put_if_absent(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.put_if(key, value, Precondition::Absent)
    }

    /// Writes a key that is in `version`.
    pub fn put_if_version(&mut self, key: &str, value: &[u8], version: Version) -> &mut Self {
        self.put_if(key, value, Precondition::Version(version))
    }

    /// Writes a key of which `precondition` holds before the batch.
    pub fn put_if(&mut self, key: &str, value: &[u8], precondition: Precondition) -> &mut Self {
        self.push(key, Some(value.into()), precondition)
    }

    /// Deletes a key; it is no error if there is none.
    pub fn delete(&mut self, key: &str) -> &mut Self {
        self.delete_if(key, Precondition::Any)
    }

    /// Deletes a key that is in `version`.
    pub fn delete_if_version(&mut self, key: &str, version: Version) -> &mut Self {
        self.delete_if(key, Precondition::Version(version))
    }

    /// Deletes a key of which `precondition` holds before the batch.
    pub fn delete_if(&mut self, key: &str, precondition: Precondition) -> &mut Self {
        self.push(key, None, precondition)
    }

    /// Says what must be true before the batch is answered.
    pub fn durability(&mut self, durability: Durability) -> &mut Self {
        self.durability = durability;
        self
    }

    /// Names the batch, so that sending it again applies nothing twice.
    pub fn token(&mut self, token: Token) -> &mut Self {
        self.token = Some(token);
        self
    }

    /// How many changes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of keys and values together.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |operation: &Operation| {
            operation.key.len() + operation.value.as_ref().map_or(0, Vec::len)
        };
        self.operations.iter().map(bytes).sum()
    }

    fn push(&mut self, key: &str, value: Option<Vec<u8>>, precondition: Precondition) -> &mut Self {
        self.operations.push(Operation { key: key.into(), value, precondition });
        self
    }
}

/// Shows keys, never values.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.operations.iter().map(|operation| &operation.key);
        f.debug_list().entries(keys).finish()
    }
}
