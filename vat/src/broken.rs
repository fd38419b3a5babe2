//! Capabilities and pipelines that answer everything with one error.
use crate::hook::{
    AnyRequest, BROKEN_BRAND, Cap, ClientHook, ParamsHook, PipelineHook, PipelineOp, ResultsHook,
};
use alloc::boxed::Box;
use alloc::rc::Rc;
use capnp::capability::{Promise, RemotePromise};
use capnp::{Error, MessageSize, any_pointer};

/// A capability whose calls fail with `error`.
pub(crate) fn broken(error: Error) -> Cap {
    Box::new(Broken(Rc::new(error)))
}

/// A call that failed before it was sent.
pub(crate) fn failed_call(error: Error) -> RemotePromise<any_pointer::Owned> {
    let pipeline = any_pointer::Pipeline::new(Box::new(BrokenPipeline(Rc::new(error.clone()))));
    RemotePromise { promise: Promise::err(error), pipeline }
}

struct Broken(Rc<Error>);

impl ClientHook for Broken {
    fn add_ref(&self) -> Cap {
        Box::new(Broken(self.0.clone()))
    }

    fn new_call(&self, interface: u64, method: u16, _: Option<MessageSize>) -> AnyRequest {
        crate::local_call::request(self.add_ref(), interface, method)
    }

    fn call(
        &self,
        _: u64,
        _: u16,
        _: Box<dyn ParamsHook>,
        _: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        Promise::err((*self.0).clone())
    }

    fn get_brand(&self) -> usize {
        BROKEN_BRAND
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    fn get_resolved(&self) -> Option<Cap> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Cap, Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        Promise::err((*self.0).clone())
    }
}

struct BrokenPipeline(Rc<Error>);

impl PipelineHook for BrokenPipeline {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        Box::new(BrokenPipeline(self.0.clone()))
    }

    fn get_pipelined_cap(&self, _: &[PipelineOp]) -> Cap {
        Box::new(Broken(self.0.clone()))
    }
}
