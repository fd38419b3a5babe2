//! Writing large values: chunk by chunk into the log, and one manifest at the end that makes them visible.

use crate::batch::{
    Batch, CommitError, Content, Durability, Operation, Origin, Outcome, Precondition, Wanted,
};
use crate::geometry::KEY_BYTES_MAX;
use crate::index::Entry;
use crate::journal::Journal;
use crate::large::{LARGE_BYTES_MAX, Manifest, UploadId, chunk_key, chunk_of, drop_chunks};
use crate::layout::{chunk_key as key_at, manifest};
use crate::plant::Plant;
use crate::record::record_bytes;
use crate::ring::Note;
use crate::room::{Demand, large_bytes_max};
use crate::split::Part;
use crate::state::{Admitted, Asked, Change, QUEUE_BYTES_MAX, Queued, State};
use crate::ticket::{Ticket, answered};
use crate::types::Mode;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::mem;

/// A large value on its way; dropping it gives up what was written of it.
///
/// Memory: at most two stretches of 64 KiB, one that fills and one on its way. What was appended takes room in the
/// volume and is shown to nobody until [`Upload::commit`].
pub struct Upload {
    journal: Journal,
    origin: Origin,
    /// Set once the first chunk is on its way.
    id: Option<UploadId>,
    chunks: u32,
    total_bytes: u64,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    last: Option<Ticket>,
    /// Why there can be no end any more.
    failed: Option<CommitError>,
    notes: Vec<Note>,
}

/// A chunk that is to be written.
pub(crate) struct NewChunk {
    pub(crate) upload: UploadId,
    pub(crate) number: u32,
    pub(crate) bytes: Part,
}

impl NewChunk {
    /// Adds what it asks for.
    pub(crate) fn add_to(&self, demand: &mut Demand) {
        demand.add(record_bytes(key_at::BYTES, self.bytes.len()), Some(key_at::BYTES));
    }
}

impl Journal {
    /// Yields the bytes of the longest value that an [`Upload`] makes of an empty volume, [`LARGE_BYTES_MAX`] at most.
    pub fn large_bytes_max(&self) -> u64 {
        large_bytes_max(&self.0.verifier.geometry)
    }

    /// Begins a value of any length up to [`LARGE_BYTES_MAX`]. It costs nothing until something is appended.
    pub fn upload(&self, origin: Origin) -> Upload {
        Upload {
            journal: self.clone(),
            origin,
            id: None,
            chunks: 0,
            total_bytes: 0,
            buffer: Vec::new(),
            hasher: blake3::Hasher::new(),
            last: None,
            failed: None,
            notes: Vec::new(),
        }
    }
}

impl Upload {
    /// Yields how many bytes were appended.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Has notes written with the end of the value, as [`Journal::commit_noted`] does with a batch.
    #[must_use]
    pub fn with_notes(mut self, notes: Vec<Note>) -> Self {
        self.notes = notes;
        self
    }

    /// Adds `bytes` to the end of the value, and waits while an earlier chunk is on its way.
    ///
    /// A call that is dropped before its end spoils the upload.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] as soon as the volume cannot take the value, [`CommitError::ValueBytes`] past the
    /// limit, and what ends all writing. After an error the upload can only be dropped.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        if let Some(error) = self.failed.replace(CommitError::Indeterminate) {
            self.failed = Some(error);
            return Err(error);
        }
        let done = self.take(bytes).await;
        self.failed = done.err();
        done
    }

    async fn take(&mut self, mut bytes: &[u8]) -> Result<(), CommitError> {
        let total_bytes = self.total_bytes.saturating_add(bytes.len() as u64);
        if total_bytes > LARGE_BYTES_MAX {
            let bytes = usize::try_from(total_bytes).unwrap_or(usize::MAX);
            let most = usize::try_from(LARGE_BYTES_MAX).unwrap_or(usize::MAX);
            return Err(CommitError::ValueBytes { bytes, most });
        }
        self.hasher.update(bytes);
        while !bytes.is_empty() {
            let room = self.buffer_bytes_max() - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if !bytes.is_empty() {
                self.send_chunks().await?;
            }
        }
        self.total_bytes = total_bytes;
        Ok(())
    }

    /// What fits into one call is no large value, and is known only when more comes, or the end.
    fn buffer_bytes_max(&self) -> usize {
        let geometry = &self.journal.0.verifier.geometry;
        geometry.value_bytes_max().max(geometry.chunk_bytes())
    }

    /// Puts all whole chunks of the buffer on their way, once those before have arrived and the queue has room.
    async fn send_chunks(&mut self) -> Result<(), CommitError> {
        if let Some(last) = self.last.take() {
            answered(last.await)?;
        }
        let chunk_bytes = self.journal.0.verifier.geometry.chunk_bytes();
        let (upload, count) = (self.begun(), (self.buffer.len() / chunk_bytes).max(1));
        loop {
            let wait = {
                let state = self.journal.0.state.borrow();
                let full = state.queue_bytes + count * chunk_bytes > QUEUE_BYTES_MAX;
                state.newest.clone().filter(|_| full)
            };
            match wait {
                Some(ticket) => drop(ticket.await),
                None => break,
            }
        }
        let rest = self.buffer.split_off((count * chunk_bytes).min(self.buffer.len()));
        let bytes = mem::replace(&mut self.buffer, rest).into();
        let chunks = self.chunks_of(upload, &bytes);
        self.chunks += u32::try_from(chunks.len()).expect("a buffer has few chunks");
        self.journal.0.clean_anew_for_uploads();
        let state = &mut *self.journal.0.state.borrow_mut();
        self.last = state.admit_chunks(&self.journal.0.verifier, upload, chunks)?;
        Ok(())
    }

    /// Yields the next chunks, which `bytes` are cut into.
    fn chunks_of(&self, upload: UploadId, bytes: &Rc<[u8]>) -> Vec<NewChunk> {
        let chunk_bytes = self.journal.0.verifier.geometry.chunk_bytes();
        let parts = (self.chunks..).zip(Part::cut(bytes, chunk_bytes));
        parts.map(|(number, bytes)| NewChunk { upload, number, bytes }).collect()
    }

    /// Yields what names the upload, made when it is first needed.
    fn begun(&mut self) -> UploadId {
        let state = &self.journal.0.state;
        *self.id.get_or_insert_with(|| state.borrow_mut().begin_upload())
    }

    /// Ends the value and gives it to `key`, like a put: judged, and its place in the order fixed, before this returns.
    ///
    /// A value that fits into one call becomes an ordinary one. A large one is never answered before it is durable:
    /// [`Durability::Buffered`] counts as [`Durability::Durable`]. Durability and errors are those of
    /// [`Journal::commit`]; when nothing was applied, what was uploaded is given up.
    ///
    /// # Errors
    /// [`CommitError`]; what an earlier [`Upload::append`] answered is answered again.
    pub fn commit(
        mut self,
        key: Rc<[u8]>,
        precondition: Precondition,
        durability: Durability,
    ) -> impl Future<Output = Result<Outcome, CommitError>> + use<> {
        let admitted = self.admit(key, precondition, durability);
        async move { admitted?.answer().await }
    }

    fn admit(
        &mut self,
        key: Rc<[u8]>,
        precondition: Precondition,
        durability: Durability,
    ) -> Result<Admitted, CommitError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let buffer = mem::take(&mut self.buffer);
        let verifier = &self.journal.0.verifier;
        if self.id.is_none() && buffer.len() <= verifier.geometry.value_bytes_max() {
            let operation = Operation { key, value: Some(buffer.into()), precondition };
            let (operations, origin) = (vec![operation], self.origin);
            return self
                .journal
                .admit(Batch { operations, durability, origin }, mem::take(&mut self.notes));
        }
        let upload = self.begun();
        let chunk_bytes = self.journal.0.verifier.geometry.chunk_bytes();
        let chunks = self.chunks_of(upload, &buffer.into());
        let manifest = Manifest {
            upload,
            total_bytes: u32::try_from(self.total_bytes).expect("append keeps to the limit"),
            chunk_bytes: u32::try_from(chunk_bytes).expect("chunks have at most 64 KiB"),
            digest: *self.hasher.finalize().as_bytes(),
        };
        let durability = match durability {
            Durability::Buffered => Durability::Durable,
            Durability::Durable | Durability::Strict => durability,
        };
        let content = Some(Content::Large(manifest, None));
        let operations = vec![Wanted { key, content, precondition }];
        let notes = mem::take(&mut self.notes);
        let asked = Asked { operations, durability, origin: self.origin, chunks, notes };
        let now = self.journal.0.clock.now();
        let inner = &self.journal.0;
        inner.clean_anew_for_uploads();
        let state = &mut *inner.state.borrow_mut();
        if !state.uploads.contains(&upload) {
            return Err(match state.mode {
                Mode::ReadOnly(reason) => CommitError::ReadOnly(reason),
                Mode::Healthy | Mode::Degraded => CommitError::NoSpace,
            });
        }
        let admitted = state.admit(&inner.verifier, asked, now)?;
        if matches!(admitted.outcome, Outcome::Applied(_)) {
            // From here on the manifest owns the chunks.
            self.id = None;
            if inner.options.plants.has(Plant::ManifestFirst) {
                state.queue.rotate_right(1);
            }
        }
        Ok(admitted)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(upload) = self.id {
            self.journal.0.state.borrow_mut().abandon(upload);
        }
    }
}

impl State {
    /// Yields what names an upload, which no other has in the volume's life.
    pub(crate) fn begin_upload(&mut self) -> UploadId {
        let birth = self.next_birth;
        self.next_birth = birth.next();
        let upload = UploadId::of(birth).expect("births begin above 0");
        self.uploads.insert(upload);
        upload
    }

    /// Takes chunks, if there is room for them and for the manifest that must follow; yields the end of the last.
    fn admit_chunks(
        &mut self,
        verifier: &crate::group::Verifier,
        upload: UploadId,
        chunks: Vec<NewChunk>,
    ) -> Result<Option<Ticket>, CommitError> {
        if let Mode::ReadOnly(reason) = self.mode {
            return Err(CommitError::ReadOnly(reason));
        }
        let mut demand = Demand::default();
        chunks.iter().for_each(|chunk| chunk.add_to(&mut demand));
        demand.add(record_bytes(KEY_BYTES_MAX, manifest::BYTES), Some(KEY_BYTES_MAX));
        let room = self.room.admits(&verifier.geometry, self.uses.len(), &demand, false);
        if !room || !self.uploads.contains(&upload) {
            return Err(CommitError::NoSpace);
        }
        self.urgent = true;
        Ok(chunks.into_iter().map(|chunk| self.queue_chunk(chunk)).last())
    }

    /// Queues a chunk that was admitted; the caller says whether somebody waits.
    pub(crate) fn queue_chunk(&mut self, chunk: NewChunk) -> Ticket {
        let ticket = Ticket::default();
        let mut demand = Demand::default();
        chunk.add_to(&mut demand);
        let key: Rc<[u8]> = Rc::from(&chunk_key(chunk.upload, chunk.number)[..]);
        let birth = self.next_birth;
        self.next_birth = birth.next();
        let change = Change { key, content: Some(Content::Chunk(chunk.bytes)), birth };
        let (changes, strict) = (vec![change], false);
        self.queue.push_back(Queued { changes, ticket: ticket.clone(), demand, strict });
        self.queue_bytes += demand.bytes;
        self.room.admitted(&demand);
        self.newest = Some(ticket.clone());
        ticket
    }

    /// A chunk is durable: it counts unless its upload was given up meanwhile.
    pub(crate) fn settle_chunk(&mut self, key: &[u8], entry: Entry) {
        let early = self.plants.has(Plant::ManifestEarly);
        if early || chunk_of(key).is_some_and(|(upload, _)| self.uploads.contains(&upload)) {
            self.index.insert(key, entry);
            self.room.add(key, &entry);
            self.room.measure(&self.index);
        }
    }

    /// Gives up what an upload wrote: nothing refers to it, here or on the medium.
    pub(crate) fn abandon(&mut self, upload: UploadId) {
        if self.uploads.remove(&upload) {
            let Self { index, room, .. } = self;
            drop_chunks(index, upload, |key, old| room.remove(key, old));
            room.measure(index);
            self.abandoned += 1;
        }
    }
}
