//! A call on its way.

use crate::error::{Effect, Error, Result};
use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// The answer to a call that was sent already; a future of its result.
///
/// Dropping it asks the server to cancel the call, which may have happened all the same.
#[must_use = "the call was sent; only its answer tells whether it was done"]
pub struct Call<T> {
    effect: Effect,
    answer: Pin<Box<dyn Future<Output = Result<T>>>>,
}

impl<T: 'static> Call<T> {
    pub(crate) fn new(effect: Effect, answer: impl Future<Output = Result<T>> + 'static) -> Self {
        Self { effect, answer: Box::pin(answer) }
    }

    /// A call that was not worth sending.
    pub(crate) fn refused(error: Error) -> Self {
        Self::new(Effect::Reads, core::future::ready(Err(error)))
    }

    /// The same call, behind whose success something is done.
    pub(crate) fn then(self, done: impl FnOnce() + 'static) -> Self {
        let Self { effect, answer } = self;
        Self::new(effect, async move {
            let result = answer.await?;
            done();
            Ok(result)
        })
    }

    /// Yields the call, or why it has failed before anything was heard: it was not sent, or its target had failed.
    pub(crate) fn sent(mut self) -> Result<Self> {
        match look(&mut self.answer) {
            None => Ok(self),
            Some(Ok(result)) => Ok(Self::new(self.effect, core::future::ready(Ok(result)))),
            Some(Err(error)) => Err(error),
        }
    }

    /// Whether the call may change something.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.effect != Effect::Reads
    }

    #[cfg(feature = "std")]
    pub(crate) fn effect(&self) -> Effect {
        self.effect
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.answer.as_mut().poll(context)
    }
}

/// Yields what a future has come to, if it has, and waits for nothing.
pub(crate) fn look<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("effect", &self.effect).finish_non_exhaustive()
    }
}
