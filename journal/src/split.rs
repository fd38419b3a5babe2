//! Values of one call that are longer than a record should be: cut into chunks like large ones, when they are taken.
//!
//! The longest record decides how much the end of every segment may lose, so a value of 64 KiB must not be one where that is
//! much of a segment. Callers see no difference: while it is on its way its bytes are at hand, and a read puts the chunks
//! together again.

use crate::batch::{Content, Wanted};
use crate::geometry::VolumeGeometry;
use crate::journal::{Inner, Options};
use crate::large::{Manifest, chunk_of};
use crate::layout::{chunk_key, manifest};
use crate::reader::Piece;
use crate::record::record_bytes;
use crate::room::Demand;
use crate::state::{Queued, State};
use crate::upload::NewChunk;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::ops::{Deref, Range};
use core::pin::Pin;
use core::task::Poll;

/// Chunks of one value that are read side by side: a forged manifest may name one for each byte.
const READS_MAX: usize = 8;

/// How values are cut.
#[derive(Clone, Copy)]
pub(crate) struct Splitting {
    /// Longest value that lies in one record.
    whole_bytes_max: usize,
    chunk_bytes_max: usize,
}

impl Splitting {
    pub(crate) fn new(geometry: &VolumeGeometry, options: &Options) -> Self {
        let most = options.value_record_bytes_max.max(1);
        let whole_bytes_max = geometry.whole_bytes_max().min(most);
        Self { whole_bytes_max, chunk_bytes_max: geometry.chunk_bytes().min(most) }
    }

    /// Yields the bytes of each chunk but the last of a value that is cut: as few chunks as there may be, about alike.
    fn chunk_bytes(&self, content: Option<&Content>) -> Option<usize> {
        let Some(Content::Value(value)) = content else { return None };
        let count = value.len().div_ceil(self.chunk_bytes_max);
        (value.len() > self.whole_bytes_max).then(|| value.len().div_ceil(count))
    }

    /// Adds what an operation that gives its key a value asks for beside its chunks.
    pub(crate) fn add_value(&self, one: &Wanted, demand: &mut Demand) {
        let cut = self.chunk_bytes(one.content.as_ref()).is_some();
        let whole = || one.record_bytes();
        let bytes = if cut { record_bytes(one.key.len(), manifest::BYTES) } else { whole() };
        demand.add(bytes, Some(one.key.len()));
    }

    /// Adds what the chunks of a value ask for that is cut.
    pub(crate) fn add_chunks(&self, one: &Wanted, demand: &mut Demand) {
        let value_bytes = one.content.as_ref().map_or(0, Content::bytes);
        if let Some(chunk_bytes) = self.chunk_bytes(one.content.as_ref()) {
            for part in parts(value_bytes, chunk_bytes) {
                demand.add(record_bytes(chunk_key::BYTES, part.len()), Some(chunk_key::BYTES));
            }
        }
    }
}

/// Yields the stretches that chunks of so many bytes cut a value into.
fn parts(value_bytes: usize, chunk_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..value_bytes).step_by(chunk_bytes);
    starts.map(move |start| start..value_bytes.min(start + chunk_bytes))
}

/// A stretch of bytes that others hold too.
#[derive(Clone)]
pub(crate) struct Part {
    of: Rc<[u8]>,
    range: Range<usize>,
}

impl Part {
    /// Cuts bytes into stretches of so many, the last of which may be shorter.
    pub(crate) fn cut(of: &Rc<[u8]>, chunk_bytes: usize) -> impl Iterator<Item = Self> {
        parts(of.len(), chunk_bytes).map(|range| Self { of: of.clone(), range })
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.of.get(self.range.clone()).unwrap_or_default()
    }
}

impl State {
    /// Cuts what is longer than a record should be, and yields the chunks, to be written before the batch.
    ///
    /// Called once nothing can refuse the batch any more, and before its operations get their numbers, which follow each other.
    pub(crate) fn split(&mut self, operations: &mut [Wanted]) -> Vec<NewChunk> {
        let mut chunks = Vec::new();
        for content in operations.iter_mut().filter_map(|one| one.content.as_mut()) {
            let cut = self.splitting.chunk_bytes(Some(content));
            let (Some(chunk_bytes), Content::Value(value)) = (cut, &*content) else { continue };
            let (value, upload) = (value.clone(), self.begin_upload());
            let number = |bytes| u32::try_from(bytes).expect("a value of one call has 64 KiB");
            let manifest = Manifest {
                upload,
                total_bytes: number(value.len()),
                chunk_bytes: number(chunk_bytes),
                digest: *blake3::hash(&value).as_bytes(),
            };
            let of_value = (0..).zip(Part::cut(&value, chunk_bytes));
            chunks.extend(of_value.map(|(number, bytes)| NewChunk { upload, number, bytes }));
            *content = Content::Large(manifest, Some(value));
        }
        chunks
    }
}

impl State {
    /// Gives up the values, and parts of them, that a batch would have written which never is.
    pub(crate) fn abandon_parts(&mut self, queued: &Queued) {
        for change in &queued.changes {
            let upload = match &change.content {
                Some(Content::Chunk(_)) => chunk_of(&change.key).map(|(upload, _)| upload),
                Some(Content::Large(manifest, _)) => Some(manifest.upload),
                Some(Content::Value(_) | Content::Note(_)) | None => None,
            };
            if let Some(upload) = upload {
                self.abandon(upload);
            }
        }
    }
}

impl Inner {
    /// Tells whether values of so many bytes are large for callers; what is shorter is shown whole, however it lies.
    pub(crate) fn is_large(&self, value_bytes: u32) -> bool {
        value_bytes as usize > self.verifier.geometry.value_bytes_max()
    }

    /// Reads all chunks of a value that is not large, several side by side, and puts them together.
    pub(crate) async fn assemble(&self, key: &[u8], manifest: &Manifest) -> Piece {
        let mut value = Vec::with_capacity(manifest.total_bytes as usize);
        for first in (0..manifest.chunks()).step_by(READS_MAX) {
            let numbers = (first..manifest.chunks()).take(READS_MAX);
            let reads = numbers.map(|number| self.chunk(key, manifest, number));
            for piece in together(reads).await {
                match piece {
                    Piece::Bytes(bytes) => value.extend_from_slice(&bytes),
                    other => return other,
                }
            }
        }
        if *blake3::hash(&value).as_bytes() != manifest.digest {
            self.state.borrow_mut().damaged();
            return Piece::DataLoss;
        }
        Piece::Bytes(value.into())
    }
}

/// Awaits all of some tasks side by side and yields their ends in order.
async fn together<F: Future>(tasks: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut tasks: Vec<Pin<Box<F>>> = tasks.map(Box::pin).collect();
    let mut ends: Vec<Option<F::Output>> = tasks.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut all = true;
        for (task, end) in tasks.iter_mut().zip(&mut ends).filter(|(_, end)| end.is_none()) {
            match task.as_mut().poll(context) {
                Poll::Ready(value) => *end = Some(value),
                Poll::Pending => all = false,
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ends.into_iter().flatten().collect()
}
