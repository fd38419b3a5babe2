//! Parameters and results of the peer's calls: views into protocol messages.
use crate::answer::{Answer, AnswerPipeline, Content, Plain};
use crate::frame::Incoming;
use crate::hook::{Caps, ParamsHook, PipelineHook, RequestHook, ResultsHook};
use crate::local_call::forward_results;
use crate::meter::Held;
use crate::once::Once;
use crate::rpc_capnp::{message, payload, return_};
use crate::wire::{Outgoing, builder, failed};
use alloc::boxed::Box;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::any_pointer;
use capnp::capability::Promise;
use capnp::traits::{Imbue, ImbueMut};
use capnp::{Error, Result};

/// The parameters of a call of the peer.
pub(crate) struct IncomingParams {
    pub(crate) message: Incoming,
    pub(crate) caps: Caps,
    /// Counts the message as held.
    pub(crate) _held: Held,
}

impl ParamsHook for IncomingParams {
    fn get(&self) -> Result<any_pointer::Reader<'_>> {
        let message::Call(call) = self.message.get_root::<message::Reader<'_>>()?.which()? else {
            return Err(failed("not a call"));
        };
        let mut content = call?.get_params()?.get_content();
        content.imbue(&self.caps);
        Ok(content)
    }
}

/// A `Return` with results, under construction or done.
pub(crate) struct ReturnMessage {
    pub(crate) message: Outgoing,
    pub(crate) caps: Caps,
}

impl ReturnMessage {
    pub(crate) fn new(answer_id: u32) -> ReturnMessage {
        let mut message = builder();
        let mut returned = message.init_root::<message::Builder<'_>>().init_return();
        returned.set_answer_id(answer_id);
        // The parameters' capabilities are released one by one, when the handler drops them.
        returned.set_release_param_caps(false);
        returned.init_results();
        ReturnMessage { message, caps: Vec::new() }
    }

    pub(crate) fn writer(&mut self) -> Result<any_pointer::Builder<'_>> {
        let payload = payload_of(returned(&mut self.message)?)?;
        let mut content = payload.get_content();
        content.imbue_mut(&mut self.caps);
        Ok(content)
    }

    /// The `Return` and the capabilities that belong in its table.
    pub(crate) fn parts(&mut self) -> Result<(return_::Builder<'_>, &Caps)> {
        Ok((returned(&mut self.message)?, &self.caps))
    }
}

fn returned(message: &mut Outgoing) -> Result<return_::Builder<'_>> {
    match message.get_root::<message::Builder<'_>>()?.which()? {
        message::Return(returned) => returned,
        _ => Err(failed("not a return")),
    }
}

/// The payload of a `Return` that has results.
pub(crate) fn payload_of(returned: return_::Builder<'_>) -> Result<payload::Builder<'_>> {
    match returned.which()? {
        return_::Results(payload) => payload,
        _ => Err(failed("not results")),
    }
}

impl Content for ReturnMessage {
    fn content(&self) -> Result<any_pointer::Reader<'_>> {
        read_content(self.message.get_root_as_reader()?, &self.caps)
    }
}

/// The results that the peer returned for a call of ours.
pub(crate) struct IncomingResults {
    pub(crate) message: Incoming,
    pub(crate) caps: Caps,
}

impl Content for IncomingResults {
    fn content(&self) -> Result<any_pointer::Reader<'_>> {
        read_content(self.message.get_root()?, &self.caps)
    }
}

fn read_content<'a>(root: message::Reader<'a>, caps: &'a Caps) -> Result<any_pointer::Reader<'a>> {
    let message::Return(returned) = root.which()? else {
        return Err(failed("not a return"));
    };
    let return_::Results(payload) = returned?.which()? else {
        return Err(failed("not results"));
    };
    let mut content = payload?.get_content();
    content.imbue(caps);
    Ok(content)
}

/// Results that a handler writes; handed over when the handler drops them.
pub(crate) struct OutgoingResults {
    /// Made when the handler first asks for it: a failing call needs none.
    message: Option<ReturnMessage>,
    answer_id: u32,
    finished: Rc<Once<ReturnMessage>>,
    answer: Weak<Answer>,
}

impl OutgoingResults {
    pub(crate) fn new(
        answer_id: u32,
        finished: Rc<Once<ReturnMessage>>,
        answer: Weak<Answer>,
    ) -> OutgoingResults {
        OutgoingResults { message: None, answer_id, finished, answer }
    }
}

impl Drop for OutgoingResults {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.finished.set(message);
        }
    }
}

impl ResultsHook for OutgoingResults {
    fn get(&mut self) -> Result<any_pointer::Builder<'_>> {
        let answer_id = self.answer_id;
        self.message.get_or_insert_with(|| ReturnMessage::new(answer_id)).writer()
    }

    fn set_pipeline(&mut self) -> Result<()> {
        let copy = Plain::copy_of(self.get()?.into_reader())?;
        if let Some(answer) = self.answer.upgrade() {
            answer.settle(Ok(Rc::new(copy)));
        }
        Ok(())
    }

    /// Every call may be cancelled.
    fn allow_cancellation(&self) {}

    fn tail_call(self: Box<Self>, request: Box<dyn RequestHook>) -> Promise<(), Error> {
        forward_results(self, request)
    }

    fn direct_tail_call(
        self: Box<Self>,
        request: Box<dyn RequestHook>,
    ) -> (Promise<(), Error>, Box<dyn PipelineHook>) {
        let answer = self.answer.upgrade().unwrap_or_else(Answer::new);
        let pipeline = AnswerPipeline { answer: answer.clone(), source: answer };
        (forward_results(self, request), Box::new(pipeline))
    }
}
