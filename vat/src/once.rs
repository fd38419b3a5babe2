//! A value that is set once and awaited by one task.
use alloc::rc::Rc;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

/// A one-shot cell. Both sides hold it in an [`Rc`].
pub(crate) struct Once<T>(RefCell<State<T>>);

struct State<T> {
    value: Option<T>,
    waiter: Option<Waker>,
}

impl<T> Once<T> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Once(RefCell::new(State { value: None, waiter: None })))
    }

    /// Sets the value and wakes the task that waits for it. A value that was not taken is replaced.
    pub(crate) fn set(&self, value: T) {
        let (waiter, old) = {
            let mut state = self.0.borrow_mut();
            (state.waiter.take(), state.value.replace(value))
        };
        // Outside the borrow: dropping a value may run anything.
        drop(old);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.borrow_mut().value.take()
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.borrow_mut();
        match state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waiter = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
