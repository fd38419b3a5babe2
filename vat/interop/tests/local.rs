//! Calls within one address space, and the vat's own face.
use capnp::capability::Promise;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use vat::{Limits, Vat};
use vat_interop::echo_capnp::{counter, echo};
use vat_interop::{Counts, EchoServer, Host, Runtime, drive};

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin), wakes: &Arc<Wakes>) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(wakes.clone())))
}

fn run<T>(mut future: impl Future<Output = T> + Unpin) -> T {
    let wakes = Arc::new(Wakes::default());
    for _ in 0..1000 {
        if let Poll::Ready(value) = poll(&mut future, &wakes) {
            return value;
        }
        assert!(wakes.take() > 0, "nobody will wake it");
    }
    panic!("it never ends");
}

fn echo() -> (echo::Client, Rc<Counts>) {
    let counts = Rc::new(Counts::default());
    let server = EchoServer::new(Host::of(Runtime::Vat), counts.clone());
    (vat::new_client(server), counts)
}

fn slow_counter(echo: &echo::Client, ticks: u32) -> counter::Client {
    let mut request = echo.make_counter_slow_request();
    request.get().set_ticks(ticks);
    request.send().pipeline.get_counter()
}

fn add(counter: &counter::Client, n: u64) -> Promise<u64, capnp::Error> {
    let mut request = counter.add_request();
    request.get().set_n(n);
    let promise = request.send().promise;
    Promise::from_future(async move { Ok(promise.await?.get()?.get_value()) })
}

#[test]
fn calls_start_in_the_order_they_were_made() {
    let (echo, _) = echo();
    let counter = run(slow_counter(&echo, 0).child_request().send().promise);
    let counter = counter.unwrap().get().unwrap().get_counter().unwrap();
    let (first, second, third) = (add(&counter, 1), add(&counter, 10), add(&counter, 100));
    assert_eq!(run(third).unwrap(), 111);
    assert_eq!(run(first).unwrap(), 1);
    assert_eq!(run(second).unwrap(), 11);
}

#[test]
fn a_dropped_call_is_not_made() {
    let (echo, _) = echo();
    let counter = slow_counter(&echo, 0);
    run(add(&counter, 1)).unwrap();
    let (first, second) = (add(&counter, 1), add(&counter, 10));
    drop(first);
    assert_eq!(run(second).unwrap(), 11);
}

/// Only the last call of a chain is held and polled.
#[test]
fn a_pipelined_call_drives_what_it_waits_for() {
    let (echo, counts) = echo();
    let counter = slow_counter(&echo, 5);
    let child = counter.child_request().send().pipeline.get_counter();
    let last = add(&child, 3);
    drop((counter, child));
    assert_eq!(run(last).unwrap(), 3);
    assert_eq!(counts.live.get(), 0);
}

#[test]
fn who_waits_takes_over_from_who_gave_up() {
    let (echo, _) = echo();
    let mut request = echo.make_counter_slow_request();
    request.get().set_ticks(2);
    let call = request.send();
    let mut added = add(&call.pipeline.get_counter(), 7);
    let (waiting, driving) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    assert!(poll(&mut added, &waiting).is_pending());
    waiting.take();
    // The call now wakes the last who polled it, and only that one.
    let mut promise = call.promise;
    assert!(poll(&mut promise, &driving).is_pending());
    assert_eq!((waiting.take(), driving.take()), (0, 1));
    drop(promise);
    assert_eq!(waiting.take(), 1);
    assert_eq!(run(added).unwrap(), 7);
}

#[test]
fn dropping_everything_cancels_a_local_call() {
    let (echo, counts) = echo();
    let call = echo.never_request().send();
    let mut added = add(&call.pipeline.get_counter(), 1);
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut added, &wakes).is_pending());
    drop(call);
    assert_eq!(counts.cancelled.get(), 0);
    drop(added);
    assert_eq!(counts.cancelled.get(), 1);
}

#[test]
fn streaming_calls_run_one_by_one() {
    let (echo, _) = echo();
    let writes: Vec<_> = (0..5)
        .map(|_| {
            let mut request = echo.write_request();
            request.get().set_chunk(&[0; 10]);
            request.send()
        })
        .collect();
    let done = echo.done_request().send().promise;
    let all = Box::pin(async move {
        futures::future::join_all(writes).await.into_iter().for_each(Result::unwrap);
        done.await.unwrap().get().unwrap().get_total()
    });
    assert_eq!(run(all), 50);
}

#[test]
fn the_driver_is_told_of_wakes_and_output() {
    let wakes = Arc::new(Wakes::default());
    let vat = Vat::with_driver(None, Limits::default(), Waker::from(wakes.clone()));
    let _echo: echo::Client = vat.bootstrap();
    assert_eq!(wakes.take(), 1, "there is output");
    vat.take_output();
    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
    let done = Rc::new(Cell::new(false));
    let finished = done.clone();
    vat.spawn(async move {
        receiver.await.unwrap();
        finished.set(true);
    })
    .unwrap();
    assert_eq!(wakes.take(), 1, "there is a task");
    assert!(!vat.poll(10));
    // From elsewhere, as a timer or another thread would.
    std::thread::spawn(move || sender.send(()).unwrap()).join().unwrap();
    assert_eq!(wakes.take(), 1);
    assert!(vat.wants_poll());
    assert!(!vat.poll(10));
    assert!(done.get());
}

#[test]
fn spawning_is_bounded_and_leaves_room_for_calls() {
    let limits = Limits { tasks: 2, ..Limits::default() };
    let (echo, _) = echo();
    let server = Vat::new(Some(echo.client), limits);
    for _ in 0..2 {
        server.spawn(std::future::pending()).unwrap();
    }
    let error = server.spawn(std::future::pending()).unwrap_err();
    assert!(error.extra.starts_with("OVERLOADED"));
    let client = Vat::new(None, Limits::default());
    let counter = slow_counter(&client.bootstrap(), 3);
    let value = Rc::new(Cell::new(0));
    let seen = value.clone();
    client.spawn(async move { seen.set(add(&counter, 4).await.unwrap()) }).unwrap();
    for _ in 0..10 {
        drive(&client, |bytes| server.receive(&bytes).unwrap());
        drive(&server, |bytes| client.receive(&bytes).unwrap());
    }
    assert_eq!(value.get(), 4);
}

#[test]
fn a_vat_is_idle_when_no_call_runs_and_all_output_is_taken() {
    let (echo, _) = echo();
    let server = Vat::new(Some(echo.client), Limits::default());
    let client = Vat::new(None, Limits::default());
    assert!(server.is_idle());
    let never = client.bootstrap::<echo::Client>().never_request().send();
    server.receive(&client.take_output()).unwrap();
    server.take_output();
    assert!(!server.is_idle() && server.calls_in_flight() == 1);
    drop(never);
    server.receive(&client.take_output()).unwrap();
    assert_eq!(server.calls_in_flight(), 0);
    assert!(!server.is_idle(), "the return was not taken");
    server.take_output();
    assert!(server.is_idle());
    server.abort(capnp::Error::overloaded("SHUTDOWN".into()));
    let error = client.receive(&server.take_output()).unwrap_err();
    assert_eq!(error.extra, "SHUTDOWN");
}
