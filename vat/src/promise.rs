//! Capabilities that are not known yet: they queue calls, and forward them in order once they are.
use crate::answer::Source;
use crate::broken::broken;
use crate::hook::{AnyRequest, Cap, ClientHook, LOCAL_BRAND, ParamsHook, ResultsHook, settled};
use crate::once::Once;
use crate::wire::failed;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::Promise;
use capnp::{Error, MessageSize};
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// A capability that will be resolved once.
pub(crate) struct PromiseCap {
    state: RefCell<State>,
    source: RefCell<Option<Rc<dyn Source>>>,
    calls: Cell<u64>,
}

enum State {
    Waiting { queue: VecDeque<QueuedCall>, watchers: Vec<Waker> },
    Resolved(Cap),
}

struct QueuedCall {
    number: u64,
    interface: u64,
    method: u16,
    params: Box<dyn ParamsHook>,
    results: Box<dyn ResultsHook>,
    started: Rc<Once<Promise<(), Error>>>,
}

/// Yields the capability behind `cap`, unless that is the promise itself that it is for: following it would never end.
pub(crate) fn another(cap: Cap, brand: usize, address: usize) -> Cap {
    let cap = settled(cap);
    if (cap.get_brand(), cap.get_ptr()) == (brand, address) {
        return broken(failed("a promise was resolved to itself"));
    }
    cap
}

impl PromiseCap {
    pub(crate) fn new(source: Option<Rc<dyn Source>>) -> Rc<PromiseCap> {
        let state = State::Waiting { queue: VecDeque::new(), watchers: Vec::new() };
        Rc::new(PromiseCap {
            state: RefCell::new(state),
            source: RefCell::new(source),
            calls: Cell::new(0),
        })
    }

    /// Resolves the promise. Queued calls are passed on, in order, before anyone can see the
    /// resolution and overtake them; passing on starts no handler.
    pub(crate) fn resolve(self: &Rc<Self>, cap: Cap) {
        // A handler may return the promise of its own result.
        let cap = another(cap, LOCAL_BRAND, Rc::as_ptr(self).addr());
        loop {
            let call = match &mut *self.state.borrow_mut() {
                State::Waiting { queue, .. } => queue.pop_front(),
                State::Resolved(_) => return,
            };
            let Some(call) = call else { break };
            call.started.set(cap.call(call.interface, call.method, call.params, call.results));
        }
        let old = self.state.replace(State::Resolved(cap));
        if let State::Waiting { watchers, .. } = old {
            watchers.into_iter().for_each(Waker::wake);
        }
        let source = self.source.take();
        drop(source);
    }

    fn resolution(&self) -> Option<Cap> {
        match &*self.state.borrow() {
            State::Resolved(cap) => Some(cap.add_ref()),
            State::Waiting { .. } => None,
        }
    }

    fn drive(&self, context: &mut Context<'_>) {
        let source = self.source.borrow().clone();
        if let Some(source) = source {
            source.drive(context);
        }
    }

    fn abandon(&self) {
        let source = self.source.borrow().clone();
        if let Some(source) = source {
            source.abandon();
        }
    }

    fn watch(&self, context: &mut Context<'_>) {
        if let State::Waiting { watchers, .. } = &mut *self.state.borrow_mut()
            && !watchers.iter().any(|waker| waker.will_wake(context.waker()))
        {
            watchers.push(context.waker().clone());
        }
    }

    fn enqueue(
        self: &Rc<Self>,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> QueuedPromise {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let started = Once::new();
        let call =
            QueuedCall { number, interface, method, params, results, started: started.clone() };
        if let State::Waiting { queue, .. } = &mut *self.state.borrow_mut() {
            queue.push_back(call);
        }
        QueuedPromise { of: self.clone(), number, started, running: None }
    }

    fn dequeue(&self, number: u64) {
        let call = match &mut *self.state.borrow_mut() {
            State::Waiting { queue, .. } => queue
                .iter()
                .position(|call| call.number == number)
                .and_then(|position| queue.remove(position)),
            State::Resolved(_) => None,
        };
        drop(call);
    }
}

/// The completion of a call that waits for its target. Dropping it takes the call out of the queue,
/// so that cancelled calls hold nothing.
struct QueuedPromise {
    of: Rc<PromiseCap>,
    number: u64,
    started: Rc<Once<Promise<(), Error>>>,
    running: Option<Promise<(), Error>>,
}

impl Future for QueuedPromise {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.running.is_none() {
            self.of.drive(context);
            match self.started.poll(context) {
                Poll::Ready(promise) => self.running = Some(promise),
                Poll::Pending => return Poll::Pending,
            }
        }
        match &mut self.running {
            Some(running) => Pin::new(running).poll(context),
            None => Poll::Pending,
        }
    }
}

impl Drop for QueuedPromise {
    fn drop(&mut self) {
        if self.running.is_none() {
            self.of.dequeue(self.number);
            self.of.abandon();
        }
    }
}

/// The resolution of a promise.
struct Resolution(Rc<PromiseCap>);

impl Future for Resolution {
    type Output = Result<Cap, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.drive(context);
        match self.0.resolution() {
            Some(cap) => Poll::Ready(Ok(cap)),
            None => {
                self.0.watch(context);
                Poll::Pending
            }
        }
    }
}

impl Drop for Resolution {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A reference to a promised capability.
#[derive(Clone)]
pub(crate) struct PromiseHook(pub(crate) Rc<PromiseCap>);

impl ClientHook for PromiseHook {
    fn add_ref(&self) -> Cap {
        Box::new(self.clone())
    }

    fn new_call(&self, interface: u64, method: u16, hint: Option<MessageSize>) -> AnyRequest {
        match self.get_resolved() {
            Some(cap) => settled(cap).new_call(interface, method, hint),
            None => crate::local_call::request(self.add_ref(), interface, method),
        }
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        match self.get_resolved() {
            Some(cap) => settled(cap).call(interface, method, params, results),
            None => Promise::from_future(self.0.enqueue(interface, method, params, results)),
        }
    }

    fn get_brand(&self) -> usize {
        LOCAL_BRAND
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    fn get_resolved(&self) -> Option<Cap> {
        self.0.resolution()
    }

    fn when_more_resolved(&self) -> Option<Promise<Cap, Error>> {
        Some(Promise::from_future(Resolution(self.0.clone())))
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        when_resolved(self)
    }
}

/// Waits until `cap` is no promise any more; fails if it turned out broken.
pub(crate) fn when_resolved(cap: &dyn ClientHook) -> Promise<(), Error> {
    match cap.when_more_resolved() {
        None => Promise::ok(()),
        Some(next) => Promise::from_future(async move {
            let mut cap = next.await?;
            while let Some(next) = cap.when_more_resolved() {
                cap = next.await?;
            }
            if cap.get_brand() == crate::hook::BROKEN_BRAND {
                return cap.when_resolved().await;
            }
            Ok(())
        }),
    }
}
