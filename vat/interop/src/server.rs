//! The test server, which both runtimes host.
use crate::echo_capnp::{callback, counter, echo};
use crate::world::Runtime;
use capnp::{Error, ErrorKind};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How a runtime makes capabilities of server objects.
#[derive(Clone, Copy)]
pub struct Host {
    /// Hosts a counter.
    pub counter: fn(CounterServer) -> counter::Client,
    /// Hosts a callback.
    pub callback: fn(CallbackServer) -> callback::Client,
    /// Hosts the bootstrap object.
    pub echo: fn(EchoServer) -> echo::Client,
}

impl Host {
    /// The host of one runtime.
    pub fn of(runtime: Runtime) -> Host {
        match runtime {
            Runtime::Vat => {
                Host { counter: vat::new_client, callback: vat::new_client, echo: vat::new_client }
            }
            Runtime::Rpc => Host {
                counter: capnp_rpc::new_client,
                callback: capnp_rpc::new_client,
                echo: capnp_rpc::new_client,
            },
        }
    }
}

/// What the server tells the test behind the protocol's back.
#[derive(Default)]
pub struct Counts {
    /// Counters that exist.
    pub live: Cell<u32>,
    /// Calls of `never` that were dropped.
    pub cancelled: Cell<u32>,
    /// Calls of `echo` and `blob` that were started.
    pub started: Cell<u32>,
}

/// The bootstrap object.
pub struct EchoServer {
    host: Host,
    counts: Rc<Counts>,
    total: Cell<u64>,
    stash: RefCell<Option<callback::Client>>,
}

impl EchoServer {
    /// A server whose capabilities `host` makes.
    pub fn new(host: Host, counts: Rc<Counts>) -> EchoServer {
        EchoServer { host, counts, total: Cell::new(0), stash: RefCell::new(None) }
    }

    fn counter(&self, value: u64) -> counter::Client {
        (self.host.counter)(CounterServer::new(value, self.host, self.counts.clone()))
    }
}

/// A number that grows.
pub struct CounterServer {
    value: Cell<u64>,
    host: Host,
    counts: Rc<Counts>,
}

impl CounterServer {
    /// A counter that is counted as live while it exists.
    pub fn new(value: u64, host: Host, counts: Rc<Counts>) -> CounterServer {
        counts.live.set(counts.live.get() + 1);
        CounterServer { value: Cell::new(value), host, counts }
    }
}

impl Drop for CounterServer {
    fn drop(&mut self) {
        self.counts.live.set(self.counts.live.get() - 1);
    }
}

impl counter::Server for CounterServer {
    async fn add(
        self: Rc<Self>,
        params: counter::AddParams,
        mut results: counter::AddResults,
    ) -> Result<(), Error> {
        self.value.set(self.value.get().wrapping_add(params.get()?.get_n()));
        results.get().set_value(self.value.get());
        Ok(())
    }

    async fn child(
        self: Rc<Self>,
        _: counter::ChildParams,
        mut results: counter::ChildResults,
    ) -> Result<(), Error> {
        let child =
            CounterServer::new(self.value.get().wrapping_mul(10), self.host, self.counts.clone());
        results.get().set_counter((self.host.counter)(child));
        Ok(())
    }
}

/// An object of the client.
#[derive(Default)]
pub struct CallbackServer {
    greatest: Cell<u32>,
    late: Cell<u64>,
}

impl callback::Server for CallbackServer {
    async fn poke(
        self: Rc<Self>,
        params: callback::PokeParams,
        mut results: callback::PokeResults,
    ) -> Result<(), Error> {
        let n = params.get()?.get_n();
        if n < self.greatest.get() {
            self.late.set(self.late.get() + 1000);
        }
        self.greatest.set(self.greatest.get().max(n));
        results.get().set_r(u64::from(n) * 2 + self.late.get());
        Ok(())
    }
}

struct CountDrop(Rc<Counts>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.cancelled.set(self.0.cancelled.get() + 1);
    }
}

async fn ticks(count: u32) {
    for _ in 0..count {
        vat::yield_now().await;
    }
}

impl echo::Server for EchoServer {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> Result<(), Error> {
        self.counts.started.set(self.counts.started.get() + 1);
        results.get().set_data(params.get()?.get_data()?);
        Ok(())
    }

    async fn make_counter(
        self: Rc<Self>,
        params: echo::MakeCounterParams,
        mut results: echo::MakeCounterResults,
    ) -> Result<(), Error> {
        results.get().set_counter(self.counter(params.get()?.get_start()));
        Ok(())
    }

    async fn make_counter_slow(
        self: Rc<Self>,
        params: echo::MakeCounterSlowParams,
        mut results: echo::MakeCounterSlowResults,
    ) -> Result<(), Error> {
        ticks(params.get()?.get_ticks()).await;
        results.get().set_counter(self.counter(params.get()?.get_start()));
        Ok(())
    }

    async fn write(self: Rc<Self>, params: echo::WriteParams) -> Result<(), Error> {
        let bytes = params.get()?.get_chunk()?.len() as u64;
        ticks(3).await;
        if bytes == 0 {
            return Err(Error::failed("BROKEN_STREAM".into()));
        }
        // Chunks that overlapped would overwrite each other's sum.
        let total = self.total.get();
        ticks(1).await;
        self.total.set(total + bytes);
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        _: echo::DoneParams,
        mut results: echo::DoneResults,
    ) -> Result<(), Error> {
        results.get().set_total(self.total.get());
        Ok(())
    }

    async fn fail(
        self: Rc<Self>,
        params: echo::FailParams,
        _: echo::FailResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let (extra, kind) = (params.get_why()?.to_string()?, params.get_kind());
        ticks(params.get_ticks()).await;
        let kind = match kind {
            0 => ErrorKind::Failed,
            1 => ErrorKind::Overloaded,
            2 => ErrorKind::Disconnected,
            _ => ErrorKind::Unimplemented,
        };
        Err(Error { kind, extra })
    }

    async fn is_mine(
        self: Rc<Self>,
        params: echo::IsMineParams,
        mut results: echo::IsMineResults,
    ) -> Result<(), Error> {
        let before = self.counts.live.get();
        let counter = params.get()?.get_counter()?;
        let mut request = counter.add_request();
        request.get().set_n(1000);
        let value = request.send().promise.await?.get()?.get_value();
        results.get().set_value(value);
        results.get().set_mine(counter.client.hook.get_brand() == 0 && before > 0);
        Ok(())
    }

    async fn call_me(
        self: Rc<Self>,
        params: echo::CallMeParams,
        mut results: echo::CallMeResults,
    ) -> Result<(), Error> {
        let (callback, count) = (params.get()?.get_callback()?, params.get()?.get_n());
        let mut sum = 0;
        for n in 0..count {
            let mut request = callback.poke_request();
            request.get().set_n(n);
            sum = request.send().promise.await?.get()?.get_r().wrapping_add(sum);
        }
        results.get().set_sum(sum);
        Ok(())
    }

    async fn bounce(
        self: Rc<Self>,
        params: echo::BounceParams,
        mut results: echo::BounceResults,
    ) -> Result<(), Error> {
        let callback = params.get()?.get_callback()?;
        ticks(3).await;
        results.get().set_callback(callback);
        Ok(())
    }

    async fn live(
        self: Rc<Self>,
        _: echo::LiveParams,
        mut results: echo::LiveResults,
    ) -> Result<(), Error> {
        results.get().set_n(self.counts.live.get());
        Ok(())
    }

    async fn never(
        self: Rc<Self>,
        _: echo::NeverParams,
        _: echo::NeverResults,
    ) -> Result<(), Error> {
        let _count = CountDrop(self.counts.clone());
        std::future::pending().await
    }

    async fn cancelled(
        self: Rc<Self>,
        _: echo::CancelledParams,
        mut results: echo::CancelledResults,
    ) -> Result<(), Error> {
        results.get().set_n(self.counts.cancelled.get());
        Ok(())
    }

    async fn counters(
        self: Rc<Self>,
        params: echo::CountersParams,
        mut results: echo::CountersResults,
    ) -> Result<(), Error> {
        // A handler bounds what it writes; the vat bounds what it sends.
        let count = params.get()?.get_n().min(2000);
        let mut list = results.get().init_counters(count);
        for index in 0..count {
            list.set(index, self.counter(u64::from(index)).client.hook);
        }
        Ok(())
    }

    async fn blob(
        self: Rc<Self>,
        params: echo::BlobParams,
        mut results: echo::BlobResults,
    ) -> Result<(), Error> {
        self.counts.started.set(self.counts.started.get() + 1);
        ticks(params.get()?.get_ticks()).await;
        results.get().init_data(params.get()?.get_bytes().min(4 << 20));
        Ok(())
    }

    async fn stash(
        self: Rc<Self>,
        params: echo::StashParams,
        _: echo::StashResults,
    ) -> Result<(), Error> {
        self.stash.replace(Some(params.get()?.get_callback()?));
        Ok(())
    }

    async fn unstash(
        self: Rc<Self>,
        _: echo::UnstashParams,
        mut results: echo::UnstashResults,
    ) -> Result<(), Error> {
        loop {
            if let Some(callback) = self.stash.take() {
                results.get().set_callback(callback);
                return Ok(());
            }
            vat::yield_now().await;
        }
    }

    async fn early(
        self: Rc<Self>,
        params: echo::EarlyParams,
        mut results: echo::EarlyResults,
    ) -> Result<(), Error> {
        results.get().set_counter(self.counter(params.get()?.get_start()));
        ticks(3).await;
        results.set_pipeline()?;
        std::future::pending().await
    }

    async fn again(
        self: Rc<Self>,
        params: echo::AgainParams,
        mut results: echo::AgainResults,
    ) -> Result<(), Error> {
        ticks(params.get()?.get_ticks()).await;
        let another = EchoServer::new(self.host, self.counts.clone());
        results.get().set_echo((self.host.echo)(another));
        Ok(())
    }
}
