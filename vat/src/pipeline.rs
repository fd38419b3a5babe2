//! Capabilities in answers that the peer has not given yet.
use crate::hook::{
    AnyRequest, Cap, ClientHook, ParamsHook, PipelineHook, PipelineOp, ResultsHook, settled,
};
use crate::local_call::forward_call;
use crate::promise::{PromiseCap, PromiseHook, another, when_resolved};
use crate::question::Question;
use crate::request::Via;
use crate::wire::Target;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::Promise;
use capnp::{Error, MessageSize};
use core::cell::Cell;

/// The capabilities in the answer to one question.
pub(crate) struct QuestionPipeline(pub(crate) Rc<Question>);

impl PipelineHook for QuestionPipeline {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        Box::new(QuestionPipeline(self.0.clone()))
    }

    fn get_pipelined_cap(&self, ops: &[PipelineOp]) -> Cap {
        self.0.cap(ops)
    }
}

/// One capability in the answer to one question. Calls to it travel at once.
pub(crate) struct Promised {
    question: Rc<Question>,
    ops: Vec<PipelineOp>,
    called: Rc<Cell<bool>>,
    resolved: Rc<PromiseCap>,
}

impl Promised {
    pub(crate) fn new(
        question: Rc<Question>,
        ops: Vec<PipelineOp>,
        called: Rc<Cell<bool>>,
    ) -> Rc<Promised> {
        Rc::new(Promised { question, ops, called, resolved: PromiseCap::new(None) })
    }

    pub(crate) fn target(&self) -> Target {
        Target::Answer(self.question.id, self.ops.clone())
    }

    pub(crate) fn mark_called(&self) {
        self.called.set(true);
    }

    pub(crate) fn resolve(&self, cap: Cap) {
        let address = core::ptr::from_ref(self).addr();
        // A peer may answer with what it was promised itself.
        self.resolved.resolve(another(cap, self.question.conn.brand(), address));
    }

    pub(crate) fn resolution(&self) -> Option<Cap> {
        PromiseHook(self.resolved.clone()).get_resolved().map(settled)
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        let address = core::ptr::from_ref(self).addr();
        self.question.conn.tables.borrow_mut().targets.remove(&address);
    }
}

/// A reference to a promised capability.
pub(crate) struct Pipe(pub(crate) Rc<Promised>);

impl ClientHook for Pipe {
    fn add_ref(&self) -> Cap {
        Box::new(Pipe(self.0.clone()))
    }

    fn new_call(&self, interface: u64, method: u16, hint: Option<MessageSize>) -> AnyRequest {
        match self.0.resolution() {
            Some(cap) => cap.new_call(interface, method, hint),
            None => self.0.question.conn.request(Via::Promised(self.0.clone()), interface, method),
        }
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        match self.0.resolution() {
            Some(cap) => cap.call(interface, method, params, results),
            None => forward_call(self.new_call(interface, method, None), params, results),
        }
    }

    fn get_brand(&self) -> usize {
        self.0.question.conn.brand()
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    fn get_resolved(&self) -> Option<Cap> {
        PromiseHook(self.0.resolved.clone()).get_resolved()
    }

    fn when_more_resolved(&self) -> Option<Promise<Cap, Error>> {
        PromiseHook(self.0.resolved.clone()).when_more_resolved()
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        when_resolved(self)
    }
}
