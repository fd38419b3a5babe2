//! The peer's calls: admission, start, return, finish.
use crate::answer::{Answer, Content};
use crate::broken::broken;
use crate::conn::{AnswerEntry, Conn};
use crate::exec::{Kind, TaskId};
use crate::frame::Incoming;
use crate::hook::ClientHook;
use crate::meter::{CallSlot, Held};
use crate::once::Once;
use crate::results::{IncomingParams, OutgoingResults, ReturnMessage, payload_of};
use crate::rpc_capnp::{call, message};
use crate::wire::{failed, write_exception};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::capability::Promise;
use capnp::{Error, Result};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

impl Conn {
    pub(crate) fn on_bootstrap(self: &Rc<Self>, question: u32) -> Result<()> {
        self.check_unused(question)?;
        if self.answers_are_full() {
            self.refuse(question, &self.too_many_answers());
            return Ok(());
        }
        let bootstrap = self.bootstrap.borrow().as_ref().map(|cap| cap.add_ref());
        let cap = bootstrap.unwrap_or_else(|| broken(failed("no bootstrap capability")));
        let answer = self.open_answer(question);
        let mut results = ReturnMessage::new(question);
        results.writer()?.set_as_capability(cap);
        self.complete(question, &answer, Ok(results));
        Ok(())
    }

    pub(crate) fn on_call(self: &Rc<Self>, message: Incoming) -> Result<()> {
        let bytes = message.size_in_words() * 8;
        let (question, interface, method, target, caps) = {
            let root: message::Reader<'_> = message.get_root()?;
            let message::Call(call) = root.which()? else {
                return Err(failed("not a call"));
            };
            let call = call?;
            let question = call.get_question_id();
            self.check_unused(question)?;
            let Ok(call::send_results_to::Caller(())) = call.get_send_results_to().which() else {
                self.send_unimplemented(message);
                return Ok(());
            };
            if let Some(reason) = self.overload(bytes) {
                self.decline_caps(call.get_params()?)?;
                self.refuse(question, &reason);
                let (interface, method) = (call.get_interface_id(), call.get_method_id());
                if !self.streams(interface, method) {
                    return Ok(());
                }
                let target = self.target(call.get_target()?)?;
                return self.tell_refused(&*target, interface, method, reason);
            }
            let target = self.target(call.get_target()?)?;
            let caps = self.read_caps(call.get_params()?)?;
            (question, call.get_interface_id(), call.get_method_id(), target, caps)
        };
        let params = IncomingParams { message, caps, _held: self.meter.hold(bytes) };
        self.start(question, interface, method, &*target, params)
    }

    pub(crate) fn on_finish(self: &Rc<Self>, question: u32, release_results: bool) {
        let entry = self.tables.borrow_mut().answers.remove(&question);
        // A question whose Return needed no Finish is gone already, and some peers finish it anyway.
        let Some(entry) = entry else { return };
        entry.answer.close();
        if release_results {
            self.release_each(&entry.exports);
        }
        if !entry.returned {
            self.send(|message| {
                let mut returned = message.init_return();
                returned.set_answer_id(question);
                returned.set_release_param_caps(false);
                returned.set_canceled(());
            });
        }
        // Cancels the call, unless calls pipelined on it still need its results.
        drop(entry);
    }

    fn check_unused(&self, question: u32) -> Result<()> {
        if self.tables.borrow().answers.contains_key(&question) {
            return Err(failed("the question is in use"));
        }
        Ok(())
    }

    fn answers_are_full(&self) -> bool {
        self.tables.borrow().answers.len() >= self.limits.answers
    }

    fn too_many_answers(&self) -> Error {
        let limit = self.limits.answers;
        Error::overloaded(format!(
            "OVERLOADED: {limit} questions of this connection are unfinished"
        ))
    }

    /// Why a call that takes `bytes` is not admitted now.
    fn overload(&self, bytes: usize) -> Option<Error> {
        if self.meter.calls() >= self.limits.calls {
            let limit = self.limits.calls;
            let reason = format!("OVERLOADED: {limit} calls of this connection are in flight");
            return Some(Error::overloaded(reason));
        }
        let limit = self.in_flight_bytes_max.get();
        if self.in_flight_bytes() + bytes > limit {
            let reason = format!("OVERLOADED: {limit} bytes of this connection are in flight");
            return Some(Error::overloaded(reason));
        }
        self.answers_are_full().then(|| self.too_many_answers())
    }

    /// Answers a call that was not started.
    fn refuse(self: &Rc<Self>, question: u32, error: &Error) {
        let full = self.answers_are_full();
        self.return_exception(question, error, full);
        if !full {
            let answer = self.open_answer(question);
            answer.close();
            answer.settle(Err(error.clone()));
            if let Some(entry) = self.tables.borrow_mut().answers.get_mut(&question) {
                entry.returned = true;
            }
        }
    }

    fn open_answer(&self, question: u32) -> Rc<Answer> {
        let answer = Answer::new();
        let entry = AnswerEntry {
            answer: answer.clone(),
            exports: Vec::new(),
            held: None,
            returned: false,
        };
        self.tables.borrow_mut().answers.insert(question, entry);
        answer
    }

    fn start(
        self: &Rc<Self>,
        question: u32,
        interface: u64,
        method: u16,
        target: &dyn ClientHook,
        params: IncomingParams,
    ) -> Result<()> {
        let streams = self.streams(interface, method);
        let reserved = self.tasks.borrow_mut().reserve(Kind::Call);
        let Some((task, waker)) = reserved else {
            // Slots are set aside for calls; only cancelled ones that still run, or were to, can hold them.
            let error = Error::overloaded("OVERLOADED: calls in flight".into());
            self.refuse(question, &error);
            return if streams {
                self.tell_refused(target, interface, method, error)
            } else {
                Ok(())
            };
        };
        let answer = self.open_answer(question);
        // A part of something is made also if nobody waits for its end: what follows it would go on without it.
        if !streams {
            answer.guard_with(Some(Box::new(CancelOnDrop { conn: Rc::downgrade(self), task })));
        }
        let finished = Once::new();
        let results = OutgoingResults::new(question, finished.clone(), Rc::downgrade(&answer));
        let work = target.call(interface, method, Box::new(params), Box::new(results));
        let mut serve = Serve {
            conn: Rc::downgrade(self),
            answer: Rc::downgrade(&answer),
            question,
            work: Some(work),
            finished,
            _slot: self.meter.enter_call(),
        };
        // Most calls end at once and never become a task. But while others are ready, one that
        // arrives now takes its place behind them.
        let queued = self.tasks.borrow().has_ready();
        if !queued && Pin::new(&mut serve).poll(&mut Context::from_waker(&waker)).is_ready() {
            let none = self.tasks.borrow_mut().release(task);
            drop(none);
            return Ok(());
        }
        let cancelled = self.tasks.borrow_mut().put(task, Box::pin(serve));
        drop(cancelled);
        if queued {
            waker.wake();
        }
        Ok(())
    }

    /// Sends the `Return`, unless the peer finished the question, and opens the results for
    /// calls pipelined on them.
    fn complete(
        self: &Rc<Self>,
        question: u32,
        answer: &Rc<Answer>,
        results: Result<ReturnMessage>,
    ) {
        answer.guard_with(None);
        if answer.is_closed() {
            return answer.settle(results.map(share));
        }
        answer.close();
        match results.and_then(|results| self.return_results(results)) {
            Ok((results, Some(exports))) => {
                let held = self.meter.hold(results.message.size_in_words() * 8);
                self.mark_returned(question, exports, Some(held));
                answer.settle(Ok(share(results)));
            }
            Ok((results, None)) => {
                let entry = self.tables.borrow_mut().answers.remove(&question);
                answer.settle(Ok(share(results)));
                drop(entry);
            }
            Err(error) => {
                // Kept until the Finish, so that calls pipelined on it fail for the same reason.
                self.return_exception(question, &error, false);
                self.mark_returned(question, Vec::new(), None);
                answer.settle(Err(error));
            }
        }
    }

    /// Sends results. Gives what they exported, or none if they can be forgotten now.
    fn return_results(
        self: &Rc<Self>,
        mut results: ReturnMessage,
    ) -> Result<(ReturnMessage, Option<Vec<u32>>)> {
        let (mut returned, caps) = results.parts()?;
        if caps.is_empty() {
            returned.set_no_finish_needed(true);
            self.check_size(&results.message)?;
            self.send_built(&results.message);
            return Ok((results, None));
        }
        let exports = match self.write_caps(caps, payload_of(returned)?) {
            Ok(exports) => exports,
            Err(error) => {
                if error.kind == capnp::ErrorKind::Overloaded {
                    // The peer hoards capabilities. The call took effect, so it cannot be refused.
                    self.end(error.clone(), true);
                }
                return Err(error);
            }
        };
        if let Err(error) = self.check_size(&results.message) {
            self.release_each(&exports);
            return Err(error);
        }
        self.send_built(&results.message);
        Ok((results, Some(exports)))
    }

    fn return_exception(&self, question: u32, error: &Error, no_finish_needed: bool) {
        self.send(|message| {
            let mut returned = message.init_return();
            returned.set_answer_id(question);
            returned.set_release_param_caps(false);
            returned.set_no_finish_needed(no_finish_needed);
            write_exception(error, returned.init_exception());
        });
    }

    fn mark_returned(&self, question: u32, exports: Vec<u32>, held: Option<Held>) {
        if let Some(entry) = self.tables.borrow_mut().answers.get_mut(&question) {
            entry.exports = exports;
            entry.held = held;
            entry.returned = true;
        }
    }
}

fn share(results: ReturnMessage) -> Rc<dyn Content> {
    Rc::new(results)
}

/// The task of one call of the peer.
struct Serve {
    conn: Weak<Conn>,
    answer: Weak<Answer>,
    question: u32,
    work: Option<Promise<(), Error>>,
    finished: Rc<Once<ReturnMessage>>,
    _slot: CallSlot,
}

impl Future for Serve {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(());
        };
        let Poll::Ready(result) = Pin::new(work).poll(context) else {
            return Poll::Pending;
        };
        let work = self.work.take();
        drop(work);
        if let (Some(conn), Some(answer)) = (self.conn.upgrade(), self.answer.upgrade()) {
            let question = self.question;
            let results = result
                .map(|()| self.finished.take().unwrap_or_else(|| ReturnMessage::new(question)));
            conn.complete(question, &answer, results);
        }
        Poll::Ready(())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Cancelled while somebody still waits for its results: the connection is over.
        if let Some(work) = self.work.take() {
            drop(work);
            if let Some(answer) = self.answer.upgrade() {
                answer.settle(Err(Error::disconnected("the connection is over".into())));
            }
        }
    }
}

/// Cancels the task of a call when nobody can see its results any more.
struct CancelOnDrop {
    conn: Weak<Conn>,
    task: TaskId,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.upgrade() {
            conn.tasks.borrow_mut().cancel(self.task);
        }
    }
}
