//! Calls made and answered in this address space, without any connection.
use crate::answer::{
    Answer, AnswerPipeline, Content, Outcome, Plain, Response, Source, failed_outcome,
};
use crate::hook::{
    AnyRequest, Cap, LOCAL_BRAND, ParamsHook, PipelineHook, RequestHook, ResultsHook,
};
use crate::once::Once;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::{Promise, RemotePromise, Request, Response as AnyResponse};
use capnp::{Error, Result, any_pointer};
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// A request to a capability that is called directly.
pub(crate) fn request(target: Cap, interface: u64, method: u16) -> AnyRequest {
    Request::new(Box::new(LocalRequest { target, interface, method, params: Plain::new() }))
}

/// Sends `request` and makes its results those of the call that `results` belongs to.
pub(crate) fn forward_results(
    mut results: Box<dyn ResultsHook>,
    request: Box<dyn RequestHook>,
) -> Promise<(), Error> {
    let response = request.send().promise;
    Promise::from_future(async move {
        let response = response.await?;
        results.get()?.set_as(response.get()?)
    })
}

/// Copies the parameters of a call into a request to `target`, and forwards the results.
pub(crate) fn forward_call(
    mut request: AnyRequest,
    params: Box<dyn ParamsHook>,
    results: Box<dyn ResultsHook>,
) -> Promise<(), Error> {
    let copied = params.get().and_then(|content| request.hook.get().set_as(content));
    drop(params);
    match copied {
        Ok(()) => forward_results(results, request.hook),
        Err(error) => Promise::err(error),
    }
}

struct LocalRequest {
    target: Cap,
    interface: u64,
    method: u16,
    params: Plain,
}

impl RequestHook for LocalRequest {
    fn get(&mut self) -> any_pointer::Builder<'_> {
        self.params.builder().expect("a message of our own has a root")
    }

    fn get_brand(&self) -> usize {
        LOCAL_BRAND
    }

    fn send(self: Box<Self>) -> RemotePromise<any_pointer::Owned> {
        let answer = Answer::new();
        let results = Once::new();
        let work = self.target.call(
            self.interface,
            self.method,
            Box::new(LocalParams(self.params)),
            Box::new(LocalResults {
                plain: Some(Plain::new()),
                finished: results.clone(),
                answer: answer.clone(),
            }),
        );
        let call = Rc::new(LocalCall {
            answer: answer.clone(),
            work: RefCell::new(Some(work)),
            results,
            outcome: RefCell::new(None),
            waiters: RefCell::new(Vec::new()),
        });
        let pipeline = AnswerPipeline { answer, source: call.clone() };
        RemotePromise {
            promise: Promise::from_future(LocalPromise(call)),
            pipeline: any_pointer::Pipeline::new(Box::new(pipeline)),
        }
    }

    fn send_streaming(self: Box<Self>) -> Promise<(), Error> {
        let response = self.send().promise;
        Promise::from_future(async move { response.await.map(|_| ()) })
    }

    fn tail_send(self: Box<Self>) -> Option<(u32, Promise<(), Error>, Box<dyn PipelineHook>)> {
        None
    }
}

/// A local call. Whoever needs its results drives it: the promise, or a call pipelined on them
/// when the promise is gone. It is cancelled when the last of them is dropped.
struct LocalCall {
    answer: Rc<Answer>,
    work: RefCell<Option<Promise<(), Error>>>,
    results: Rc<Once<Plain>>,
    outcome: RefCell<Option<Outcome>>,
    /// Those that polled since it last progressed. The call itself wakes only the last of them.
    waiters: RefCell<Vec<Waker>>,
}

impl LocalCall {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = &*self.outcome.borrow() {
            return Poll::Ready(outcome.clone());
        }
        // Taken out while it runs, for it may come back here.
        let work = self.work.take();
        if let Some(mut work) = work {
            if let Poll::Ready(result) = Pin::new(&mut work).poll(context) {
                drop(work);
                return Poll::Ready(self.finish(result));
            }
            self.work.replace(Some(work));
        }
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|waker| waker.will_wake(context.waker())) {
            waiters.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn finish(&self, result: Result<()>) -> Outcome {
        let outcome = match result {
            Ok(()) => {
                let results: Rc<dyn Content> =
                    Rc::new(self.results.take().unwrap_or_else(Plain::new));
                Ok(results)
            }
            Err(error) => failed_outcome(&error),
        };
        self.outcome.replace(Some(outcome.clone()));
        self.answer.settle(outcome.clone());
        self.wake_all();
        outcome
    }

    fn wake_all(&self) {
        let waiters = self.waiters.take();
        waiters.into_iter().for_each(Waker::wake);
    }
}

impl Source for LocalCall {
    fn drive(&self, context: &mut Context<'_>) {
        let _ = self.poll(context);
    }

    fn abandon(&self) {
        self.wake_all();
    }
}

struct LocalPromise(Rc<LocalCall>);

impl Future for LocalPromise {
    type Output = Result<AnyResponse<any_pointer::Owned>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll(context)
            .map(|outcome| outcome.map(|results| AnyResponse::new(Box::new(Response(results)))))
    }
}

impl Drop for LocalPromise {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Results of a call that nobody waits for.
pub(crate) fn unwanted_results() -> Box<dyn ResultsHook> {
    let (finished, answer) = (Once::new(), Answer::new());
    Box::new(LocalResults { plain: Some(Plain::new()), finished, answer })
}

struct LocalParams(Plain);

impl ParamsHook for LocalParams {
    fn get(&self) -> Result<any_pointer::Reader<'_>> {
        self.0.content()
    }
}

/// Results under construction; handed over when the handler drops them.
struct LocalResults {
    plain: Option<Plain>,
    finished: Rc<Once<Plain>>,
    answer: Rc<Answer>,
}

impl Drop for LocalResults {
    fn drop(&mut self) {
        if let Some(plain) = self.plain.take() {
            self.finished.set(plain);
        }
    }
}

impl ResultsHook for LocalResults {
    fn get(&mut self) -> Result<any_pointer::Builder<'_>> {
        self.plain.as_mut().expect("taken only by drop").builder()
    }

    fn set_pipeline(&mut self) -> Result<()> {
        let copy = Plain::copy_of(self.get()?.into_reader())?;
        self.answer.settle(Ok(Rc::new(copy)));
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
        let answer = self.answer.clone();
        let pipeline = AnswerPipeline { answer: answer.clone(), source: answer };
        (forward_results(self, request), Box::new(pipeline))
    }
}
