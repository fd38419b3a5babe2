//! Reading values of any length, piece by piece.

use crate::batch::Origin;
use crate::journal::{Inner, Journal};
use crate::large::{Manifest, chunk_key};
use crate::plant::Plant;
use crate::read::{Fault, Fetched, Looked, Seen};
use crate::types::Version;
use alloc::boxed::Box;
use alloc::rc::Rc;

/// What a key has, to be read piece by piece.
pub enum Opened {
    /// A value, large or not.
    Value(ValueReader),
    /// Nothing.
    Absent,
    /// It had something that was acknowledged and is lost, or it may have had.
    DataLoss,
    /// The device reads no copy of it.
    Unreadable,
}

/// A value that is being read. A large one is not kept for its readers: written over, it answers [`Piece::Changed`].
pub struct ValueReader {
    journal: Journal,
    key: Rc<[u8]>,
    version: Version,
    body: Body,
}

enum Body {
    Small(Rc<[u8]>),
    Large {
        manifest: Manifest,
        /// Over the first `hashed` bytes, as long as they are read in order.
        hasher: Box<blake3::Hasher>,
        hashed: u64,
    },
}

/// What a read of a value yields.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// The bytes from the place that was asked for on; none at and behind the end.
    Bytes(Rc<[u8]>),
    /// The key was written over or deleted since the value was opened. What was read until now is right.
    Changed,
    /// This part of the value, or all of it, is lost: what was read counts for nothing.
    DataLoss,
    /// The device reads no copy of it.
    Unreadable,
}

impl Journal {
    /// Opens what `key` has for reading, after the caller's own pending write of it, as [`Journal::get`] sees it.
    pub async fn open_value(&self, key: &[u8], origin: Origin) -> Opened {
        match self.look(key, origin).await {
            Looked::Present(seen) => self.open_seen(key, &seen).await,
            Looked::Absent => Opened::Absent,
            Looked::DataLoss => Opened::DataLoss,
        }
    }

    /// Opens the value that a look or a scan has seen; what the key has now, where that was written over meanwhile.
    pub async fn open_seen(&self, key: &[u8], seen: &Seen) -> Opened {
        let (version, body) = match self.fetch(key, seen).await {
            Fetched::Value(version, value) => (version, Body::Small(value)),
            Fetched::Large(version, manifest) => {
                let hasher = Box::new(blake3::Hasher::new());
                (version, Body::Large { manifest, hasher, hashed: 0 })
            }
            Fetched::Absent => return Opened::Absent,
            Fetched::DataLoss => return Opened::DataLoss,
            Fetched::Unreadable => return Opened::Unreadable,
        };
        Opened::Value(ValueReader { journal: self.clone(), key: key.into(), version, body })
    }
}

impl ValueReader {
    /// Yields the version of the value.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Yields the bytes of the whole value.
    pub fn total_bytes(&self) -> u64 {
        match &self.body {
            Body::Small(value) => value.len() as u64,
            Body::Large { manifest, .. } => u64::from(manifest.total_bytes),
        }
    }

    /// Yields the digest that a large value's manifest states: BLAKE3 of the whole of it.
    pub(crate) fn large_digest(&self) -> Option<[u8; 32]> {
        match &self.body {
            Body::Small(_) => None,
            Body::Large { manifest, .. } => Some(manifest.digest),
        }
    }

    /// Reads from byte `at` up to the end of the chunk that holds it: at most 64 KiB.
    ///
    /// Each piece is verified by itself. Who reads from 0 to the end in order also learns whether the whole is what
    /// was written: the last piece answers [`Piece::DataLoss`] where it is not.
    pub async fn read(&mut self, at: u64) -> Piece {
        let total_bytes = self.total_bytes();
        let (manifest, hasher, hashed) = match &mut self.body {
            _ if at >= total_bytes => return Piece::Bytes(Rc::from(&[][..])),
            Body::Small(value) => {
                let rest = usize::try_from(at).ok().and_then(|at| value.get(at..));
                return Piece::Bytes(rest.unwrap_or_default().into());
            }
            Body::Large { manifest, hasher, hashed } => (manifest, hasher, hashed),
        };
        let chunk_bytes = u64::from(manifest.chunk_bytes);
        let number =
            u32::try_from(at / chunk_bytes).expect("a total of 32 bits has no more chunks");
        let chunk = match self.journal.0.chunk(&self.key, manifest, number).await {
            Piece::Bytes(chunk) => chunk,
            other => return other,
        };
        let skip = usize::try_from(at % chunk_bytes).expect("a chunk has at most 64 KiB");
        let bytes = chunk.get(skip..).unwrap_or_default();
        if *hashed == at {
            hasher.update(bytes);
            *hashed += bytes.len() as u64;
        }
        let whole = *hashed == total_bytes;
        if whole && *hasher.finalize().as_bytes() != manifest.digest {
            return Piece::DataLoss;
        }
        if skip == 0 { Piece::Bytes(chunk) } else { Piece::Bytes(bytes.into()) }
    }
}

impl Inner {
    /// Reads one whole chunk of a large value.
    pub(crate) async fn chunk(&self, key: &[u8], manifest: &Manifest, number: u32) -> Piece {
        let chunk_key = chunk_key(manifest.upload, number);
        loop {
            let found = {
                let state = self.state.borrow();
                let owned = state.index.get(key).and_then(|entry| entry.upload);
                let found = state.index.get(&chunk_key);
                match found {
                    Some(entry) => entry,
                    // Chunks go with the manifest that names them, and not before.
                    None if owned == Some(manifest.upload) => return Piece::DataLoss,
                    None if self.options.plants.has(Plant::ReadAcross) => {
                        let other = owned.map(|upload| crate::large::chunk_key(upload, number));
                        match other.and_then(|key| state.index.get(&key)) {
                            Some(entry) => entry,
                            None => return Piece::Changed,
                        }
                    }
                    None => return Piece::Changed,
                }
            };
            match self.read(&chunk_key, &found).await {
                Ok(chunk) if chunk.len() == manifest.chunk_len(number) => {
                    return Piece::Bytes(chunk);
                }
                Ok(_) => return Piece::DataLoss,
                // Moved by cleaning, or gone with its value: look again.
                Err(_) if self.state.borrow().index.get(&chunk_key) != Some(found) => {}
                Err(fault) => {
                    self.state.borrow_mut().damaged();
                    return match fault {
                        Fault::Mismatch => Piece::DataLoss,
                        Fault::Device => Piece::Unreadable,
                    };
                }
            }
        }
    }
}
