//! The one-shot answer that a commit waits for.

use crate::batch::CommitError;
use crate::types::ReadOnlyReason;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// How a commit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// A flush that was issued after both copies were written has returned.
    Durable,
    /// It was on its way when the device failed: it may or may not survive.
    Indeterminate,
    /// It never reached the device, which had failed.
    NotApplied,
    /// It never reached the device, which had no room.
    NoSpace,
    /// What was written for it was not read back as it was written.
    NotReadBack,
}

/// Yields what a commit that ended so is answered.
pub(crate) fn answered(settled: Settled) -> Result<(), CommitError> {
    match settled {
        Settled::Durable => Ok(()),
        Settled::Indeterminate => Err(CommitError::Indeterminate),
        Settled::NotApplied => Err(CommitError::ReadOnly(ReadOnlyReason::WriteFailed)),
        Settled::NoSpace => Err(CommitError::NoSpace),
        Settled::NotReadBack => Err(CommitError::NotReadBack),
    }
}

#[derive(Default)]
struct Cell {
    settled: Option<Settled>,
    waiting: Vec<Waker>,
}

/// A shared one-shot; clones wait for the same answer.
#[derive(Clone, Default)]
pub(crate) struct Ticket(Rc<RefCell<Cell>>);

impl Ticket {
    /// Gives the answer; the first one stays.
    pub(crate) fn settle(&self, settled: Settled) {
        let waiting = {
            let mut cell = self.0.borrow_mut();
            cell.settled.get_or_insert(settled);
            core::mem::take(&mut cell.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Future for Ticket {
    type Output = Settled;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Settled> {
        let mut cell = self.0.borrow_mut();
        match cell.settled {
            Some(settled) => Poll::Ready(settled),
            None => {
                if !cell.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    cell.waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}
