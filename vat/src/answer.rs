//! The eventual results of a call, open for pipelining before they exist.
use crate::broken::broken;
use crate::hook::{Cap, Caps, PipelineHook, PipelineOp, ResponseHook};
use crate::promise::{PromiseCap, PromiseHook};
use crate::wire::{Outgoing, builder, same_ops};
use alloc::boxed::Box;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::any_pointer;
use capnp::traits::{Imbue, ImbueMut};
use capnp::{Error, Result};
use core::cell::{Cell, RefCell};
use core::task::Context;

/// Finished results, wherever they lie.
pub(crate) trait Content {
    fn content(&self) -> Result<any_pointer::Reader<'_>>;
}

pub(crate) type Outcome = Result<Rc<dyn Content>>;

/// The capability at a path in finished results.
pub(crate) fn cap_at(outcome: &Outcome, ops: &[PipelineOp]) -> Cap {
    let results = match outcome {
        Ok(results) => results,
        Err(error) => return broken(error.clone()),
    };
    match results.content().and_then(|content| content.get_pipelined_cap(ops)) {
        Ok(cap) => cap,
        Err(error) => broken(error),
    }
}

/// Finished results as generated code reads them.
pub(crate) struct Response(pub(crate) Rc<dyn Content>);

impl ResponseHook for Response {
    fn get(&self) -> Result<any_pointer::Reader<'_>> {
        self.0.content()
    }
}

/// A message that stays in this address space: its root is the bare content.
pub(crate) struct Plain {
    pub(crate) message: Outgoing,
    pub(crate) caps: Caps,
}

impl Plain {
    pub(crate) fn new() -> Plain {
        Plain { message: builder(), caps: Vec::new() }
    }

    /// A copy of `content`, capabilities included.
    pub(crate) fn copy_of(content: any_pointer::Reader<'_>) -> Result<Plain> {
        let mut plain = Plain::new();
        plain.builder()?.set_as(content)?;
        Ok(plain)
    }

    pub(crate) fn builder(&mut self) -> Result<any_pointer::Builder<'_>> {
        let mut content: any_pointer::Builder<'_> = self.message.get_root()?;
        content.imbue_mut(&mut self.caps);
        Ok(content)
    }
}

impl Content for Plain {
    fn content(&self) -> Result<any_pointer::Reader<'_>> {
        let mut content: any_pointer::Reader<'_> = self.message.get_root_as_reader()?;
        content.imbue(&self.caps);
        Ok(content)
    }
}

/// What a promised capability keeps alive, and drives if nobody else does.
pub(crate) trait Source {
    /// Continues the call from which the capability will come.
    fn drive(&self, context: &mut Context<'_>);

    /// Somebody who drove it stops: the others are woken, for one has to take over.
    fn abandon(&self);
}

/// The results of one call, promised or there.
pub(crate) struct Answer {
    state: RefCell<State>,
    /// Dropped with the answer: it cancels the call if that still runs.
    guard: RefCell<Option<Box<dyn core::any::Any>>>,
    /// The peer wants no `Return`: it has one, or it finished the question.
    closed: Cell<bool>,
}

enum State {
    Waiting(Vec<(Vec<PipelineOp>, Weak<PromiseCap>)>),
    Settled(Outcome),
}

impl Answer {
    pub(crate) fn new() -> Rc<Answer> {
        Rc::new(Answer {
            state: RefCell::new(State::Waiting(Vec::new())),
            guard: RefCell::new(None),
            closed: Cell::new(false),
        })
    }

    /// The capability at a path: the real one, or a promise that keeps `source` alive.
    pub(crate) fn cap(&self, ops: &[PipelineOp], source: Rc<dyn Source>) -> Cap {
        let outcome = match &mut *self.state.borrow_mut() {
            State::Settled(outcome) => outcome.clone(),
            State::Waiting(promises) => {
                let known = promises.iter().filter(|(path, _)| same_ops(path, ops));
                if let Some(promise) = known.filter_map(|(_, promise)| promise.upgrade()).next() {
                    return Box::new(PromiseHook(promise));
                }
                // Promises that nobody holds any more must not pile up.
                promises.retain(|(_, promise)| promise.strong_count() > 0);
                let promise = PromiseCap::new(Some(source));
                promises.push((ops.to_vec(), Rc::downgrade(&promise)));
                return Box::new(PromiseHook(promise));
            }
        };
        cap_at(&outcome, ops)
    }

    /// Settles the results, once: what the handler opened early stays as it was.
    pub(crate) fn settle(&self, outcome: Outcome) {
        let promises = match &mut *self.state.borrow_mut() {
            State::Settled(_) => return,
            State::Waiting(promises) => core::mem::take(promises),
        };
        *self.state.borrow_mut() = State::Settled(outcome.clone());
        for (ops, promise) in promises {
            if let Some(promise) = promise.upgrade() {
                promise.resolve(cap_at(&outcome, &ops));
            }
        }
    }

    pub(crate) fn guard_with(&self, guard: Option<Box<dyn core::any::Any>>) {
        let old = self.guard.replace(guard);
        drop(old);
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Source for Answer {
    /// The call is a task of the connection, which polls it.
    fn drive(&self, _: &mut Context<'_>) {}

    fn abandon(&self) {}
}

/// The capabilities that results will hold.
pub(crate) struct AnswerPipeline {
    pub(crate) answer: Rc<Answer>,
    pub(crate) source: Rc<dyn Source>,
}

impl PipelineHook for AnswerPipeline {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        let source = self.source.clone();
        Box::new(AnswerPipeline { answer: self.answer.clone(), source })
    }

    fn get_pipelined_cap(&self, ops: &[PipelineOp]) -> Cap {
        self.answer.cap(ops, self.source.clone())
    }
}

/// An error instead of any results.
pub(crate) fn failed_outcome(error: &Error) -> Outcome {
    Err(error.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::Future;

    #[test]
    fn promises_that_nobody_holds_do_not_pile_up() {
        let answer = Answer::new();
        let held = answer.cap(&[PipelineOp::GetPointerField(1)], answer.clone());
        for field in 0..100 {
            drop(answer.cap(&[PipelineOp::GetPointerField(field)], answer.clone()));
        }
        let State::Waiting(promises) = &*answer.state.borrow() else { panic!("not settled") };
        assert_eq!(promises.len(), 2, "the one held and the last");
        assert!(held.get_resolved().is_none());
    }

    #[test]
    fn the_first_results_stay() {
        let answer = Answer::new();
        let cap = answer.cap(&[], answer.clone());
        answer.settle(Err(Error::failed("first".into())));
        answer.settle(Err(Error::failed("second".into())));
        let late = answer.cap(&[], answer.clone());
        for cap in [cap.get_resolved().expect("it was settled"), late] {
            let mut promise = cap.when_resolved();
            let mut context = Context::from_waker(core::task::Waker::noop());
            let polled = core::pin::Pin::new(&mut promise).poll(&mut context);
            let core::task::Poll::Ready(Err(error)) = polled else { panic!("not an error") };
            assert_eq!(error.extra, "first");
        }
    }
}
