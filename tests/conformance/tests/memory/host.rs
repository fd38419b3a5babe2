//! The daemon's core over a simulated device, in one thread.

use std::cell::RefCell;
use std::future::Future as _;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice as _, Fate, Fault, FaultKind, Repeat, SimConfig, SimDevice};
use conformance::{Channel, End, Host, POLICY};
use journal::{Disk, FormatOptions, Random, format};
use policy::{Peer, Policy};
use statefsd::{ConnectionId, Limits, Server};

use crate::flaw::{Flaw, Middle};

/// Writes that no flush covers are lost at each end, however the daemon ends.
pub(crate) struct MemoryHost {
    flaw: Flaw,
    machine: Rc<RefCell<Machine>>,
    /// What the volume held at first.
    blank: Vec<u8>,
    mounts: u8,
}

struct Machine {
    server: Server,
    device: SimDevice,
    now: u64,
}

struct MemoryChannel {
    machine: Rc<RefCell<Machine>>,
    id: ConnectionId,
    middle: Middle,
}

impl MemoryHost {
    pub(crate) fn new(flaw: Flaw) -> Self {
        let config = SimConfig { immediate: true, ..SimConfig::new(1, DEVICE_BYTES) };
        let mut device = SimDevice::new(config);
        make_volume(&mut device);
        let blank = device.durable().to_vec();
        if flaw == Flaw::FlushesNothing {
            device.inject(Fault { kind: FaultKind::FlushLies, after: 0, repeat: Repeat::Always });
        }
        let machine = Rc::new(RefCell::new(Machine::start(flaw, device, 1)));
        Self { flaw, machine, blank, mounts: 1 }
    }
}

impl Host for MemoryHost {
    fn connect(&mut self, service: &'static str) -> Box<dyn Channel> {
        let known = if self.flaw == Flaw::KnowsNobody { "owner" } else { service };
        let peer = Peer { channel: known.into(), uid: Some(1000) };
        let id = self.machine.borrow_mut().server.connect(peer).expect("room for one more");
        let middle = Middle::new(self.flaw);
        Box::new(MemoryChannel { machine: self.machine.clone(), id, middle })
    }

    fn restart(&mut self, end: End) {
        let mut device = {
            let mut machine = self.machine.borrow_mut();
            if end == End::Clean && self.flaw != Flaw::EndsInHaste {
                machine.server.shut_down();
                machine.settle();
                assert!(machine.server.is_drained(), "a shutdown comes to its end");
            }
            machine.device.clone()
        };
        device.power_cut_choosing(|_| Fate::Old);
        if self.flaw == Flaw::ForgetsAll {
            device.restore(&self.blank);
        }
        self.mounts += 1;
        *self.machine.borrow_mut() = Machine::start(self.flaw, device, self.mounts);
    }
}

impl Machine {
    fn start(flaw: Flaw, device: SimDevice, mount: u8) -> Self {
        let policy = if flaw == Flaw::DeniesNobody { OPEN } else { POLICY };
        let policy = Policy::parse(policy).expect("a sound policy");
        let limits = Limits { audit: flaw != Flaw::RecordsNothing, ..Limits::default() };
        let server = Server::new(device.geometry(), policy, [mount; 32], limits);
        let mut machine = Self { server, device, now: 0 };
        machine.settle();
        machine
    }

    /// Moves everything until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = self.server.poll(self.now).again;
            while let Some(request) = self.server.next_request() {
                self.device.submit(request);
                moved = true;
            }
            while let Some(completion) = self.device.completion() {
                self.server.complete(completion);
                moved = true;
            }
            while self.server.next_event().is_some() {}
            if !moved {
                return;
            }
        }
    }
}

impl Channel for MemoryChannel {
    fn exchange(&mut self, output: &[u8]) -> Result<Vec<u8>, String> {
        let machine = &mut *self.machine.borrow_mut();
        let mut input = Vec::new();
        let mut waiting = self.middle.there(output);
        for _ in 0..TURNS_MAX {
            let taken = machine.server.receive(self.id, &waiting).map_err(|_| "it is over")?;
            waiting.drain(..taken);
            machine.settle();
            let output = machine.server.output(self.id).to_vec();
            machine.server.sent(self.id, output.len());
            let (back, again) = self.middle.back(&output);
            input.extend(back);
            waiting.extend(&again);
            if waiting.is_empty() && output.is_empty() {
                if !input.is_empty() {
                    return Ok(input);
                }
                // Nothing happens before the time that the server waits for.
                machine.now =
                    machine.server.poll(machine.now).deadline.ok_or("all stands still")?;
            }
        }
        Err("it goes on for ever".into())
    }
}

impl Drop for MemoryChannel {
    fn drop(&mut self) {
        self.machine.borrow_mut().server.close(self.id);
    }
}

fn make_volume(device: &mut SimDevice) {
    let disk = Disk::new(device.geometry());
    let mut random = Random::from_seed([7; 32]);
    let mut formatting = pin!(format(&disk, &mut random, FormatOptions::default()));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(made) = formatting.as_mut().poll(&mut context) {
            return made.map(drop).expect("a device in memory can be formatted");
        }
        while let Some(request) = disk.next_request() {
            device.submit(request);
        }
        while let Some(completion) = device.completion() {
            disk.complete(completion);
        }
    }
}

/// Grants all to everybody.
const OPEN: &str = r#"
version = 1
[service.owner]
channel = "owner"
[service.editor]
channel = "editor"
[service.writer]
channel = "writer"
[service.lister]
channel = "lister"
[service.stranger]
channel = "stranger"
[[grant]]
to = "owner"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "editor"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "writer"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "lister"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "stranger"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
"#;

/// The least that a host has to offer.
const DEVICE_BYTES: u64 = 16 << 20;

/// Exchanges after which an answer counts as never coming.
const TURNS_MAX: u32 = 100_000;
