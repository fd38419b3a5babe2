//! An administrator's wish that the policy be read anew, between the call and the driver.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Where the policy comes from, as far as the core knows.
#[derive(Default)]
pub(crate) struct Reload {
    /// A driver is there that reads it.
    served: Cell<bool>,
    /// Who waits for the next time that it was read.
    asked: RefCell<Option<Rc<Answer>>>,
}

#[derive(Default)]
struct Answer {
    /// The driver was told.
    told: Cell<bool>,
    end: RefCell<Option<Result<(), String>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Reload {
    /// Notes that a driver answers from now on.
    pub(crate) fn serve(&self) {
        self.served.set(true);
    }

    /// Asks for the policy to be read, or joins who did, and yields why it was not taken.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        if !self.served.get() {
            return Err("this server has its policy built in".into());
        }
        let answer = self.asked.borrow_mut().get_or_insert_default().clone();
        poll_fn(|context| match &*answer.end.borrow() {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                let mut waiting = answer.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }

    /// Whether the driver has to read the policy; told once for each time.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.borrow().as_ref().is_some_and(|answer| !answer.told.replace(true))
    }

    /// Answers who asked: the policy was read.
    pub(crate) fn answer(&self, end: &Result<(), String>) {
        if let Some(answer) = self.asked.take() {
            answer.end.replace(Some(end.clone()));
            answer.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}
