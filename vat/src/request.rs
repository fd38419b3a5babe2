//! Requests to the peer: built in the message in which they are sent.
use crate::broken::failed_call;
use crate::conn::Conn;
use crate::hook::{AnyRequest, Cap, Caps, PipelineHook, RequestHook};
use crate::import::Import;
use crate::pipeline::{Promised, QuestionPipeline};
use crate::question::Question;
use crate::rpc_capnp::{call, message};
use crate::wire::{Outgoing, Target, builder, failed};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::{Promise, RemotePromise, Request};
use capnp::traits::ImbueMut;
use capnp::{Error, Result, any_pointer};

/// The capability that a request goes through.
pub(crate) enum Via {
    Import(Rc<Import>),
    Promised(Rc<Promised>),
}

impl Conn {
    /// A request through this connection.
    pub(crate) fn request(self: &Rc<Self>, via: Via, interface: u64, method: u16) -> AnyRequest {
        let mut message = builder();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_interface_id(interface);
        call.set_method_id(method);
        call.init_params();
        let conn = self.clone();
        let caps = Vec::new();
        Request::new(Box::new(PeerRequest { conn, via, interface, method, message, caps }))
    }
}

struct PeerRequest {
    conn: Rc<Conn>,
    via: Via,
    interface: u64,
    method: u16,
    message: Outgoing,
    caps: Caps,
}

impl PeerRequest {
    fn content(&mut self) -> Result<any_pointer::Builder<'_>> {
        let mut content = call_of(&mut self.message)?.get_params()?.get_content();
        content.imbue_mut(&mut self.caps);
        Ok(content)
    }

    /// Makes the same request to `target`: the answer came after this one was begun.
    fn redirect(&mut self, target: &Cap) -> Result<AnyRequest> {
        let mut request = target.new_call(self.interface, self.method, None);
        request.hook.get().set_as(self.content()?.into_reader())?;
        Ok(request)
    }

    fn transmit(&mut self) -> Result<Rc<Question>> {
        let question = self.conn.ask()?;
        let written = self.write(&question);
        if let Err(error) = written {
            question.forget(error.clone());
            return Err(error);
        }
        self.conn.send_built(&self.message);
        Ok(question)
    }

    fn write(&mut self, question: &Question) -> Result<()> {
        let mut call = call_of(&mut self.message)?;
        call.set_question_id(question.id);
        let target = match &self.via {
            Via::Import(import) => Target::Import(import.id()),
            Via::Promised(promised) => promised.target(),
        };
        target.write(call.reborrow().init_target());
        let exports = self.conn.write_caps(&self.caps, call.get_params()?)?;
        if let Err(error) = self.conn.check_size(&self.message) {
            self.conn.release_each(&exports);
            return Err(error);
        }
        if let Via::Promised(promised) = &self.via {
            promised.mark_called();
        }
        if let Some(entry) = self.conn.tables.borrow_mut().questions.get(question.id) {
            entry.exports = exports;
        }
        Ok(())
    }
}

fn call_of(message: &mut Outgoing) -> Result<call::Builder<'_>> {
    match message.get_root::<message::Builder<'_>>()?.which()? {
        message::Call(call) => call,
        _ => Err(failed("not a call")),
    }
}

impl RequestHook for PeerRequest {
    fn get(&mut self) -> any_pointer::Builder<'_> {
        self.content().expect("a message of our own has the call it was made with")
    }

    fn get_brand(&self) -> usize {
        self.conn.brand()
    }

    fn send(mut self: Box<Self>) -> RemotePromise<any_pointer::Owned> {
        if let Via::Promised(promised) = &self.via
            && let Some(target) = promised.resolution()
        {
            return match self.redirect(&target) {
                Ok(request) => request.hook.send(),
                Err(error) => failed_call(error),
            };
        }
        match self.transmit() {
            Ok(question) => RemotePromise {
                promise: question.response(),
                pipeline: any_pointer::Pipeline::new(Box::new(QuestionPipeline(question))),
            },
            Err(error) => failed_call(error),
        }
    }

    /// Waits for the answer: there is no window beyond the limits of the connection.
    fn send_streaming(self: Box<Self>) -> Promise<(), Error> {
        let response = self.send().promise;
        Promise::from_future(async move { response.await.map(|_| ()) })
    }

    fn tail_send(self: Box<Self>) -> Option<(u32, Promise<(), Error>, Box<dyn PipelineHook>)> {
        None
    }
}
