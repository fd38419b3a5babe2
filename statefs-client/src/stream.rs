//! Values of any size, in parts.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use statefs::{ErrorCode, reader, writer};

use crate::call::{Call, look};
use crate::error::{Effect, Error, Result};
use crate::store::{Buffered, send, send_streaming};
use crate::types::{Durability, Metadata};
use crate::version::Version;
use crate::wire;

/// One value on its way in. Dropping it, or losing the connection, abandons it: nothing of it is
/// ever visible.
pub struct Writer {
    pub(crate) client: writer::Client,
    pub(crate) durability: Durability,
    pub(crate) buffered: Rc<Buffered>,
    /// Why a part may be missing, and the server does not know of it.
    pub(crate) missing: Rc<OnceCell<Error>>,
}

impl Writer {
    /// Appends to the value: [`crate::Limits::value_bytes`] bytes at most.
    ///
    /// The answer comes once the server has room for more; several may be on their way. One that
    /// fails makes all that follow fail, and so does one whose call was dropped before it was answered.
    pub fn write(&self, chunk: &[u8]) -> Call<()> {
        if let Some(error) = self.missing.get() {
            return Call::refused(error.clone());
        }
        let mut request = self.client.write_request();
        request.get().set_chunk(chunk);
        // Nothing is visible before the end, so a lost chunk leaves nothing open.
        match send_streaming(request).sent() {
            Ok(call) => {
                let missing = self.missing.clone();
                Call::new(Effect::Reads, Part { call, missing, is_answered: false })
            }
            Err(error) => Call::refused(self.missing.get_or_init(|| error).clone()),
        }
    }

    /// Ends the value, makes it that of its key and answers the version.
    pub fn done(self) -> Call<Version> {
        if let Some(error) = self.missing.get() {
            return Call::refused(error.clone());
        }
        // Now and not before: an earlier sync does not cover it.
        let call = send(self.client.done_request(), Effect::Writes, wire::put);
        self.buffered.note(self.durability, call)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// A part on its way. Dropping its call cancels it, and the server may leave it out.
struct Part {
    call: Call<()>,
    missing: Rc<OnceCell<Error>>,
    is_answered: bool,
}

impl Future for Part {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let answer = Pin::new(&mut self.call).poll(context);
        self.is_answered |= answer.is_ready();
        answer
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // The answer may be there, and nobody has looked.
        if !self.is_answered && look(&mut self.call).is_none() {
            let message = "a part of the value was given up before it was answered".into();
            let code = ErrorCode::InvalidArgument;
            self.missing.get_or_init(|| Error::Refused { code, message });
        }
    }
}

/// One value on its way out, as its key held it when the reader was made.
#[derive(Clone)]
pub struct Reader {
    pub(crate) client: reader::Client,
}

impl Reader {
    /// Asks for version and size; `None` if there was no such key.
    pub fn info(&self) -> Call<Option<Metadata>> {
        send(self.client.info_request(), Effect::Reads, wire::info)
    }

    /// Reads from `offset` on, `bytes` bytes at most and as many as one call takes if that is 0.
    ///
    /// Empty at the end and behind it. [`crate::Error::Changed`] once the key was written or deleted.
    pub fn read(&self, offset: u64, bytes: u32) -> Call<Vec<u8>> {
        let mut request = self.client.read_request();
        let mut params = request.get();
        params.set_offset(offset);
        params.set_bytes(bytes);
        send(request, Effect::Reads, wire::part)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}
