//! Capabilities hosted here: generated server traits behind a capability. The order of calls on one
//! object is the order in which they were made, whoever polls them and when.
use crate::hook::{AnyRequest, Cap, ClientHook, LOCAL_BRAND, ParamsHook, ResultsHook};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use capnp::capability::{FromClientHook, FromServer, Params, Promise, Results, Server};
use capnp::{Error, MessageSize};
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Makes a capability of a server object. The object lives as long as references to it.
///
/// A method starts when its call is polled for the first time, after all earlier calls on this
/// object have started; a `-> stream` method runs alone, and an error of it breaks the object.
pub fn new_client<C: FromServer<S>, S>(server: S) -> C {
    new_client_from_rc(Rc::new(server))
}

/// Makes a capability of a server object that the caller keeps a reference to.
///
/// Two capabilities made of one object count as the same to a peer, but order their calls apart.
pub fn new_client_from_rc<C: FromServer<S>, S>(server: Rc<S>) -> C {
    new_client_of(C::from_server(server))
}

/// Makes a capability of whatever takes calls by their numbers, such as what stands in front of a
/// server object and sees each call and its end.
pub fn new_client_of<C: FromClientHook>(server: impl Server + Clone + 'static) -> C {
    let state = State { broken: None, streaming: false, next: 0, waiting: VecDeque::new() };
    let object = Object { server, state: RefCell::new(state) };
    C::new(Box::new(Local(Rc::new(object))))
}

struct Object<S> {
    server: S,
    state: RefCell<State>,
}

struct State {
    /// The error of a streaming call, which every later call answers too.
    broken: Option<Error>,
    /// A streaming call runs, and nothing may start beside it.
    streaming: bool,
    next: u64,
    /// Calls not started, oldest first.
    waiting: VecDeque<WaitingCall>,
}

struct WaitingCall {
    number: u64,
    interface: u64,
    method: u16,
    params: Box<dyn ParamsHook>,
    results: Box<dyn ResultsHook>,
    waker: Option<Waker>,
    /// Where the call goes if somebody else's turn started it.
    started: Started,
}

type Started = Rc<RefCell<Option<Promise<(), Error>>>>;

/// What [`Object::start_next`] did.
enum Start {
    Nothing,
    Mine(Promise<(), Error>),
    Other,
}

impl<S: Server + Clone + 'static> Object<S> {
    /// Starts the oldest waiting call, unless it is younger than call `number` or has to wait.
    fn start_next(self: &Rc<Self>, number: u64) -> Start {
        let call = {
            let mut state = self.state.borrow_mut();
            let due = state.waiting.front().is_some_and(|call| call.number <= number);
            if state.streaming || !due {
                return Start::Nothing;
            }
            state.waiting.pop_front()
        };
        let Some(call) = call else {
            return Start::Nothing;
        };
        let mut promise = self.dispatch(call.interface, call.method, call.params, call.results);
        if call.number == number {
            return Start::Mine(promise);
        }
        // The owner of this call will poll it again with its own waker.
        if let Poll::Ready(result) =
            Pin::new(&mut promise).poll(&mut Context::from_waker(Waker::noop()))
        {
            promise = Promise::from(result);
        }
        call.started.replace(Some(promise));
        Start::Other
    }

    fn dispatch(
        self: &Rc<Self>,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let broken = self.state.borrow().broken.clone();
        if let Some(error) = broken {
            return Promise::err(error);
        }
        let server = self.server.clone();
        let call =
            server.dispatch_call(interface, method, Params::new(params), Results::new(results));
        if !call.is_streaming {
            return call.promise;
        }
        self.state.borrow_mut().streaming = true;
        let object = self.clone();
        Promise::from_future(StreamingCall { object, promise: call.promise, done: false })
    }

    fn end_streaming(&self, error: Option<Error>) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.borrow_mut();
            state.streaming = false;
            if error.is_some() {
                state.broken = error;
            }
            state.waiting.iter_mut().filter_map(|call| call.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A `-> stream` call that runs. Its end, or its cancellation, lets the next call start.
struct StreamingCall<S: Server + Clone + 'static> {
    object: Rc<Object<S>>,
    promise: Promise<(), Error>,
    done: bool,
}

impl<S: Server + Clone + 'static> Future for StreamingCall<S> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(result) = Pin::new(&mut self.promise).poll(context) else {
            return Poll::Pending;
        };
        self.done = true;
        self.object.end_streaming(result.as_ref().err().cloned());
        Poll::Ready(result)
    }
}

impl<S: Server + Clone + 'static> Drop for StreamingCall<S> {
    fn drop(&mut self) {
        if !self.done {
            self.object.end_streaming(None);
        }
    }
}

/// A reference to an object.
struct Local<S>(Rc<Object<S>>);

impl<S: Server + Clone + 'static> ClientHook for Local<S> {
    fn add_ref(&self) -> Cap {
        Box::new(Local(self.0.clone()))
    }

    fn new_call(&self, interface: u64, method: u16, _: Option<MessageSize>) -> AnyRequest {
        crate::local_call::request(self.add_ref(), interface, method)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        let mut state = self.0.state.borrow_mut();
        let number = state.next;
        state.next += 1;
        let started = Started::default();
        state.waiting.push_back(WaitingCall {
            number,
            interface,
            method,
            params,
            results,
            waker: None,
            started: started.clone(),
        });
        drop(state);
        let object = self.0.clone();
        Promise::from_future(LocalCall { object, number, started, running: None })
    }

    fn get_brand(&self) -> usize {
        LOCAL_BRAND
    }

    fn get_ptr(&self) -> usize {
        self.0.server.as_ptr()
    }

    fn get_resolved(&self) -> Option<Cap> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Cap, Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        Promise::ok(())
    }
}

/// The completion of a call on an object. Dropping it cancels the call, started or not.
struct LocalCall<S: Server + Clone + 'static> {
    object: Rc<Object<S>>,
    number: u64,
    started: Started,
    running: Option<Promise<(), Error>>,
}

impl<S: Server + Clone + 'static> Future for LocalCall<S> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while self.running.is_none() {
            let started = self.started.take();
            if started.is_some() {
                self.running = started;
                break;
            }
            match self.object.start_next(self.number) {
                Start::Mine(promise) => self.running = Some(promise),
                Start::Other => {}
                Start::Nothing => {
                    let mut state = self.object.state.borrow_mut();
                    let number = self.number;
                    if let Some(call) = state.waiting.iter_mut().find(|call| call.number == number)
                    {
                        call.waker = Some(context.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
        match &mut self.running {
            Some(running) => Pin::new(running).poll(context),
            None => Poll::Pending,
        }
    }
}

impl<S: Server + Clone + 'static> Drop for LocalCall<S> {
    fn drop(&mut self) {
        if self.running.is_some() {
            return;
        }
        let call = {
            let mut state = self.object.state.borrow_mut();
            let position = state.waiting.iter().position(|call| call.number == self.number);
            position.and_then(|position| state.waiting.remove(position))
        };
        drop(call);
    }
}
