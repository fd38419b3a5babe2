//! Calls of ours at the peer: their answers, and the capabilities promised in them.
use crate::answer::{Outcome, Response, cap_at};
use crate::conn::{Conn, Embargo, QuestionEntry};
use crate::frame::Incoming;
use crate::hook::{BROKEN_BRAND, Cap, PipelineOp, settled};
use crate::once::Once;
use crate::pipeline::{Pipe, Promised};
use crate::promise::{PromiseCap, PromiseHook};
use crate::results::IncomingResults;
use crate::rpc_capnp::{disembargo, message, return_};
use crate::wire::{Target, failed, read_exception, same_ops};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::any_pointer;
use capnp::capability::{Promise, Response as AnyResponse};
use capnp::{Error, Result};
use core::cell::{Cell, RefCell};

/// One call of ours. Dropping the last reference before the answer cancels it.
pub(crate) struct Question {
    pub(crate) conn: Rc<Conn>,
    pub(crate) id: u32,
    outcome: RefCell<Option<Outcome>>,
    answered: Rc<Once<()>>,
    /// The capabilities asked for before the answer.
    promised: RefCell<Vec<Path>>,
    /// Capabilities of ours in the answer whose earlier calls are still on their way back.
    embargoed: RefCell<Vec<(Vec<PipelineOp>, Rc<PromiseCap>)>>,
}

struct Path {
    ops: Vec<PipelineOp>,
    pipe: Weak<Promised>,
    /// A call was sent along this path. Stays when the capability is dropped and asked for again.
    called: Rc<Cell<bool>>,
}

impl Question {
    /// Waits for the answer. For one waiter.
    pub(crate) fn response(self: &Rc<Self>) -> Promise<AnyResponse<any_pointer::Owned>, Error> {
        let question = self.clone();
        Promise::from_future(async move {
            core::future::poll_fn(|context| question.answered.poll(context)).await;
            match question.outcome.borrow().clone() {
                Some(outcome) => Ok(AnyResponse::new(Box::new(Response(outcome?)))),
                None => Err(failed("woken without an answer")),
            }
        })
    }

    /// The capability at a path of the answer, promised or there.
    pub(crate) fn cap(self: &Rc<Self>, ops: &[PipelineOp]) -> Cap {
        let outcome = self.outcome.borrow().clone();
        if let Some(outcome) = outcome {
            let embargoed = self.embargoed.borrow();
            let held = embargoed.iter().find(|(path, _)| same_ops(path, ops));
            return match held {
                Some((_, promise)) => Box::new(PromiseHook(promise.clone())),
                None => cap_at(&outcome, ops),
            };
        }
        let mut promised = self.promised.borrow_mut();
        let known = promised.iter_mut().find(|path| same_ops(&path.ops, ops));
        if let Some(pipe) = known.as_ref().and_then(|path| path.pipe.upgrade()) {
            return Box::new(Pipe(pipe));
        }
        let called = known.as_ref().map(|path| path.called.clone()).unwrap_or_default();
        let pipe = Promised::new(self.clone(), ops.to_vec(), called.clone());
        let target = Target::Answer(self.id, ops.to_vec());
        self.conn.tables.borrow_mut().targets.insert(Rc::as_ptr(&pipe).addr(), target);
        match known {
            Some(path) => path.pipe = Rc::downgrade(&pipe),
            None => {
                promised.push(Path { ops: ops.to_vec(), pipe: Rc::downgrade(&pipe), called });
            }
        }
        Box::new(Pipe(pipe))
    }

    /// Takes the answer: resolves what was promised, then wakes the waiter.
    pub(crate) fn settle(self: &Rc<Self>, outcome: Outcome) {
        self.outcome.replace(Some(outcome.clone()));
        for path in self.promised.take() {
            let mut cap = settled(cap_at(&outcome, &path.ops));
            // Calls sent along this path come back to us if the capability is ours. Later calls
            // must not overtake them.
            let ours = cap.get_brand() != self.conn.brand() && cap.get_brand() != BROKEN_BRAND;
            if path.called.get() && ours {
                let promise = self.conn.embargo(self.id, &path.ops, cap);
                cap = Box::new(PromiseHook(promise.clone()));
                self.embargoed.borrow_mut().push((path.ops, promise));
            }
            if let Some(pipe) = path.pipe.upgrade() {
                pipe.resolve(cap);
            }
        }
        self.answered.set(());
    }

    /// Fails a call that was never sent.
    pub(crate) fn forget(&self, error: Error) {
        self.outcome.replace(Some(Err(error)));
        let entry = self.conn.tables.borrow_mut().questions.remove(self.id);
        drop(entry);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.outcome.get_mut().is_none() {
            // The entry stays until the peer has returned, so that the id is not reused before.
            self.conn.send_finish(self.id, true);
        }
    }
}

impl Conn {
    /// Opens a question.
    ///
    /// # Errors
    /// The connection is over, or has too many questions or too much output.
    pub(crate) fn ask(self: &Rc<Self>) -> Result<Rc<Question>> {
        if let Some(error) = self.over() {
            return Err(Error::disconnected(error.extra));
        }
        if self.output_bytes() >= self.limits.in_flight_bytes {
            return Err(Error::overloaded(format!(
                "OVERLOADED: {} bytes of output are not taken",
                self.limits.in_flight_bytes
            )));
        }
        let mut tables = self.tables.borrow_mut();
        if tables.questions.count() >= self.limits.questions {
            return Err(Error::overloaded(format!(
                "OVERLOADED: {} questions to the peer are not answered",
                self.limits.questions
            )));
        }
        let id = tables.questions.add(QuestionEntry { question: Weak::new(), exports: Vec::new() });
        let question = Rc::new(Question {
            conn: self.clone(),
            id,
            outcome: RefCell::new(None),
            answered: Once::new(),
            promised: RefCell::new(Vec::new()),
            embargoed: RefCell::new(Vec::new()),
        });
        if let Some(entry) = tables.questions.get(id) {
            entry.question = Rc::downgrade(&question);
        }
        Ok(question)
    }

    pub(crate) fn on_return(self: &Rc<Self>, incoming: Incoming) -> Result<()> {
        let (id, release_params, finish_needed, results) = {
            let root: message::Reader<'_> = incoming.get_root()?;
            let message::Return(returned) = root.which()? else {
                return Err(failed("not a return"));
            };
            let returned = returned?;
            let id = returned.get_answer_id();
            let wanted = match self.tables.borrow_mut().questions.get(id) {
                Some(entry) => entry.question.strong_count() > 0,
                None => return Err(failed("a return to no question")),
            };
            let results = match returned.which() {
                // Nobody waits any more: the Finish on its way releases what is in the results.
                Ok(return_::Results(_)) if !wanted => Err(failed("cancelled")),
                Ok(return_::Results(payload)) => Ok(self.read_caps(payload?)?),
                Ok(return_::Exception(exception)) => Err(read_exception(exception?)),
                Ok(return_::Canceled(())) => Err(failed("the peer cancelled the call")),
                // The rest answers options that this vat never asks for.
                _ => return Err(failed("a return of a kind that was not asked for")),
            };
            let finish_needed = !returned.get_no_finish_needed();
            (id, returned.get_release_param_caps(), finish_needed, results)
        };
        let outcome = results.map(|caps| {
            let results: Rc<dyn crate::answer::Content> =
                Rc::new(IncomingResults { message: incoming, caps });
            results
        });
        self.close_question(id, release_params, finish_needed, outcome);
        Ok(())
    }

    pub(crate) fn on_unimplemented(self: &Rc<Self>, echo: message::Reader<'_>) -> Result<()> {
        let id = match echo.which() {
            Ok(message::Call(call)) => call?.get_question_id(),
            Ok(message::Bootstrap(bootstrap)) => bootstrap?.get_question_id(),
            // Without it, held calls would wait for ever.
            Ok(message::Disembargo(_)) => return Err(failed("the peer lacks Disembargo")),
            _ => return Ok(()),
        };
        let error = Error::unimplemented("the peer does not implement this kind of call".into());
        self.close_question(id, true, false, Err(error));
        Ok(())
    }

    pub(crate) fn on_disembargo(self: &Rc<Self>, message: disembargo::Reader<'_>) -> Result<()> {
        match message.get_context().which() {
            Ok(disembargo::context::SenderLoopback(id)) => {
                let cap = settled(self.target(message.get_target()?)?);
                let target = if cap.get_brand() == self.brand() {
                    self.tables.borrow().targets.get(&cap.get_ptr()).cloned()
                } else {
                    None
                };
                // Calls on this path were passed on when it was resolved: the echo follows them.
                let target =
                    target.ok_or_else(|| failed("a disembargo whose target does not lead back"))?;
                self.send(|message| {
                    let mut echo = message.init_disembargo();
                    target.write(echo.reborrow().init_target());
                    echo.init_context().set_receiver_loopback(id);
                });
            }
            Ok(disembargo::context::ReceiverLoopback(id)) => {
                let embargo = self.tables.borrow_mut().embargoes.remove(id);
                let embargo = embargo.ok_or_else(|| failed("an echo of no embargo"))?;
                embargo.promise.resolve(embargo.cap);
            }
            _ => return Err(failed("a disembargo of level 3")),
        }
        Ok(())
    }

    /// Ends a question for both sides; its id may be reused.
    fn close_question(
        self: &Rc<Self>,
        id: u32,
        release_params: bool,
        finish_needed: bool,
        outcome: Outcome,
    ) {
        let entry = self.tables.borrow_mut().questions.remove(id);
        let Some(entry) = entry else { return };
        if release_params {
            self.release_each(&entry.exports);
        }
        // A question that nobody waits for sent its Finish when it was dropped.
        if let Some(question) = entry.question.upgrade() {
            question.settle(outcome);
            // After the embargoes, which name this question.
            if finish_needed {
                self.send_finish(id, false);
            }
        }
    }

    fn send_finish(&self, id: u32, release_results: bool) {
        self.send(|message| {
            let mut finish = message.init_finish();
            finish.set_question_id(id);
            finish.set_release_result_caps(release_results);
            // A workaround for a fault of C++ 1.0, which would delay cancellation.
            finish.set_require_early_cancellation_workaround(false);
        });
    }

    /// Holds calls to a capability of ours until the peer echoes that it passed on the earlier ones.
    fn embargo(self: &Rc<Self>, question: u32, ops: &[PipelineOp], cap: Cap) -> Rc<PromiseCap> {
        let promise = PromiseCap::new(None);
        if self.over().is_some() {
            promise.resolve(cap);
            return promise;
        }
        if self.tables.borrow().embargoes.count() >= self.limits.embargoes {
            let error = Error::overloaded("OVERLOADED: the peer echoes no disembargo".into());
            self.end(error.clone(), true);
            promise.resolve(crate::broken::broken(error));
            return promise;
        }
        let embargo = Embargo { promise: promise.clone(), cap };
        let id = self.tables.borrow_mut().embargoes.add(embargo);
        self.send(|message| {
            let mut disembargo = message.init_disembargo();
            let target = Target::Answer(question, ops.to_vec());
            target.write(disembargo.reborrow().init_target());
            disembargo.init_context().set_sender_loopback(id);
        });
        promise
    }
}
