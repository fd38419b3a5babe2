//! Two ends and the wires between them, in one thread, without any real transport.
use crate::echo_capnp::echo;
use crate::server::{Counts, EchoServer, Host};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::executor::LocalPool;
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::LocalSpawnExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use vat::{Limits, Vat};

/// An implementation of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Ours.
    Vat,
    /// The capnp-rpc crate.
    Rpc,
}

/// A client and a server, connected.
pub struct World {
    client: End,
    server: End,
    bootstrap: Option<echo::Client>,
    pool: LocalPool,
    client_runtime: Runtime,
    /// What the server counted.
    pub counts: Rc<Counts>,
    /// Largest number of bytes moved at once; the rest waits.
    pub chunk_bytes: usize,
}

enum End {
    Vat { vat: Vat, input: Wire, output: Wire },
    Rpc,
}

impl World {
    /// Connects a client and a server of these runtimes.
    pub fn new(client: Runtime, server: Runtime) -> World {
        let pool = LocalPool::new();
        let (up, down) = (Wire::default(), Wire::default());
        let counts = Rc::new(Counts::default());
        let host = Host::of(server);
        let object = (host.echo)(EchoServer::new(host, counts.clone()));
        let server = match server {
            Runtime::Vat => {
                let vat = Vat::new(Some(object.client), Limits::default());
                End::Vat { vat, input: up.clone(), output: down.clone() }
            }
            Runtime::Rpc => {
                let system = system(up.clone(), down.clone(), Side::Server, Some(object));
                spawn_system(&pool, system);
                End::Rpc
            }
        };
        let (bootstrap, end) = match client {
            Runtime::Vat => {
                let vat = Vat::new(None, Limits::default());
                (vat.bootstrap(), End::Vat { vat, input: down, output: up })
            }
            Runtime::Rpc => {
                let mut system = system(down, up, Side::Client, None);
                let bootstrap = system.bootstrap(Side::Server);
                spawn_system(&pool, system);
                (bootstrap, End::Rpc)
            }
        };
        let bootstrap = Some(bootstrap);
        let client_runtime = client;
        let chunk_bytes = usize::MAX;
        World { client: end, server, bootstrap, pool, client_runtime, counts, chunk_bytes }
    }

    /// Runs a test at the client to its end.
    ///
    /// # Panics
    /// Nothing moves any more before the end, or an end breaks the protocol.
    pub fn run<F: Future<Output = ()> + 'static>(
        &mut self,
        test: impl FnOnce(echo::Client, Host) -> F,
    ) {
        let client = self.bootstrap.clone().expect("the client was not closed");
        let done = Rc::new(Cell::new(false));
        let finished = done.clone();
        let test = test(client, Host::of(self.client_runtime));
        let test = async move {
            test.await;
            finished.set(true);
        };
        match &self.client {
            End::Vat { vat, .. } => vat.spawn(test).expect("one task"),
            End::Rpc => self.pool.spawner().spawn_local(test).expect("the pool runs"),
        }
        let mut idle = 0;
        while !done.get() {
            idle = if self.turn() { 0 } else { idle + 1 };
            assert!(idle < 3, "the test waits for something that never comes");
        }
    }

    /// Lets everything settle, without a test.
    pub fn settle(&mut self) {
        while self.turn() {}
    }

    /// Drops the client's reference to the bootstrap capability and lets everything settle.
    pub fn close_client(&mut self) {
        self.bootstrap = None;
        self.settle();
    }

    /// The server's vat, if it has one.
    pub fn server_vat(&self) -> Option<&Vat> {
        self.server.vat()
    }

    /// The client's vat, if it has one.
    pub fn client_vat(&self) -> Option<&Vat> {
        self.client.vat()
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        // Woken futures of the pool run until none is left.
        self.pool.run_until_stalled();
        moved |= self.client.pump(self.chunk_bytes);
        self.pool.run_until_stalled();
        moved |= self.server.pump(self.chunk_bytes);
        moved
    }
}

impl End {
    fn vat(&self) -> Option<&Vat> {
        match self {
            End::Vat { vat, .. } => Some(vat),
            End::Rpc => None,
        }
    }

    /// Moves bytes and runs tasks; tells whether there was anything to do.
    fn pump(&self, chunk_bytes: usize) -> bool {
        let End::Vat { vat, input, output } = self else {
            return false;
        };
        let mut moved = false;
        if vat.wants_input() {
            let data = input.take(chunk_bytes);
            if !data.is_empty() {
                moved = true;
                vat.receive(&data).expect("the peer keeps to the protocol");
            }
        }
        moved |= drive(vat, |bytes| output.put(&bytes));
        moved
    }
}

/// Polls a vat and passes on its output until it has neither; tells whether it had.
pub fn drive(vat: &Vat, mut pass_on: impl FnMut(Vec<u8>)) -> bool {
    let mut moved = false;
    loop {
        let mut turns = 0;
        while vat.wants_poll() && turns < 10_000 {
            vat.poll(1);
            turns += 1;
        }
        let output = vat.take_output();
        if turns == 0 && output.is_empty() {
            return moved;
        }
        moved = true;
        if output.is_empty() {
            // A task that yields for ever must not keep the other end from running.
            return moved;
        }
        pass_on(output);
    }
}

fn system(
    input: Wire,
    output: Wire,
    side: Side,
    bootstrap: Option<echo::Client>,
) -> RpcSystem<Side> {
    let network = twoparty::VatNetwork::new(input, output, side, Default::default());
    RpcSystem::new(Box::new(network), bootstrap.map(|object| object.client))
}

fn spawn_system(pool: &LocalPool, system: RpcSystem<Side>) {
    let system = async move {
        let _ = system.await;
    };
    pool.spawner().spawn_local(system).expect("the pool runs");
}

/// One direction of the connection.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<WireState>>);

#[derive(Default)]
struct WireState {
    bytes: VecDeque<u8>,
    reader: Option<Waker>,
}

impl Wire {
    fn put(&self, bytes: &[u8]) {
        let reader = {
            let mut state = self.0.borrow_mut();
            state.bytes.extend(bytes);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn take(&self, count_max: usize) -> Vec<u8> {
        let mut state = self.0.borrow_mut();
        let count = state.bytes.len().min(count_max);
        state.bytes.drain(..count).collect()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let data = self.take(buffer.len());
        if data.is_empty() {
            self.0.borrow_mut().reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        for (to, from) in buffer.iter_mut().zip(&data) {
            *to = *from;
        }
        Poll::Ready(Ok(data.len()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
