//! The client and the daemon's core: everything between a typed call and the device.

use alloc::vec::Vec;
use blockdev::{BlockDevice, MemoryDevice};
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use statefs_client::{Rights, StateFs};
use statefsd::{ConnectionId, Limits, Server};
use vat::Vat;

use crate::{rules, volume};

/// A key is put, the daemon started again, and the key is there; another key is denied.
pub(crate) fn check() -> core::result::Result<(), &'static str> {
    let mut machine = Machine::start(volume::formatted()?, 1, "keystored")?;
    let put = machine.store.directory(GRANTED, Rights::PUT).put("device.key", VALUE);
    machine.wait(put)?.map_err(|_| "a put fails")?;

    let mut machine = machine.restart(2, "keystored")?;
    let get = machine.store.directory(GRANTED, Rights::GET).get("device.key");
    match machine.wait(get)? {
        Ok(Some(value)) if value.data == VALUE => {}
        _ => return Err("what was put is not there after a restart"),
    }
    let get = machine.store.directory(DENIED, Rights::GET).get("slot");
    match machine.wait(get)? {
        Err(error) if error.code() == "ACCESS_DENIED" => Ok(()),
        _ => Err("what nothing grants is not denied"),
    }
}

/// A daemon on a device, with one connection, and the client at its other end.
pub(crate) struct Machine {
    pub(crate) device: MemoryDevice,
    server: Server,
    connection: ConnectionId,
    client: Vat,
    pub(crate) store: StateFs,
    /// What the client sent and the server has not taken.
    sent: Vec<u8>,
}

impl Machine {
    /// Starts a daemon, and connects through a channel; `seed` is another at each start.
    pub(crate) fn start(
        device: MemoryDevice,
        seed: u8,
        channel: &str,
    ) -> core::result::Result<Self, &'static str> {
        let (policy, limits) = (rules::policy()?, Limits::default());
        let mut server = Server::new(device.geometry(), policy, [seed; 32], limits);
        let connection = server.connect(rules::peer(channel)).map_err(|_| "nobody may connect")?;
        let client = Vat::new(None, vat::Limits::default());
        let store = StateFs::over(&client);
        Ok(Self { device, server, connection, client, store, sent: Vec::new() })
    }

    /// Waits for a call, or for work of several.
    pub(crate) fn wait<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> core::result::Result<T, &'static str> {
        let mut work = pin!(work);
        for now in 0..TURNS_MAX {
            if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return Ok(result);
            }
            self.turn(now)?;
        }
        Err("a call is not answered")
    }

    /// Ends the daemon without a word, and starts another.
    pub(crate) fn restart(
        self,
        seed: u8,
        channel: &str,
    ) -> core::result::Result<Self, &'static str> {
        Self::start(self.device, seed, channel)
    }

    fn turn(&mut self, now: u64) -> core::result::Result<(), &'static str> {
        while self.client.poll(16) {}
        self.sent.extend(self.client.take_output());
        let taken = self.server.receive(self.connection, &self.sent);
        self.sent.drain(..taken.map_err(|_| "the daemon hung up")?);
        self.server.poll(now);
        while let Some(request) = self.server.next_request() {
            self.device.submit(request);
        }
        while let Some(completion) = self.device.completion() {
            self.server.complete(completion);
        }
        let output = self.server.output(self.connection).to_vec();
        self.server.sent(self.connection, output.len());
        self.client.receive(&output).map_err(|_| "the client refuses what the daemon sent")
    }
}

const GRANTED: &str = "/state/keystore";
const DENIED: &str = "/state/boot";
const VALUE: &[u8] = b"secret";
const TURNS_MAX: u64 = 10_000;
