//! All that the author of another machine writes: a device, a channel, a clock, randomness, and the loop around the server.
//! It needs an allocator and nothing of std. Here the medium is memory and a channel a pair of queues; put your own there.

use std::collections::VecDeque;
use std::mem;

use blockdev::{BlockDevice, Completion, DeviceError, Geometry, Operation, Request};
use policy::{Peer, Policy};
use statefsd::{ConnectionId, Event, Limits, Server};

/// A disk. One that is not done at once keeps the request, and completes it when its interrupt says so.
pub(crate) struct Disk {
    pub(crate) medium: Vec<u8>,
    done: VecDeque<Completion>,
}

impl Disk {
    pub(crate) fn new(medium: Vec<u8>) -> Self {
        Self { medium, done: VecDeque::new() }
    }

    fn serve(&mut self, request: &mut Request) -> Result<(), DeviceError> {
        // Refuses what leaves the device or is not aligned.
        let range = self.geometry().range(request)?;
        let start = usize::try_from(range.start).map_err(|_| DeviceError::OutOfRange)?;
        let medium = self.medium.get_mut(start..start + request.buffer.len());
        let place = medium.ok_or(DeviceError::OutOfRange)?;
        match request.operation {
            Operation::Read { .. } => request.buffer.copy_from_slice(place),
            Operation::Write { .. } => place.copy_from_slice(&request.buffer),
            // What completes here is on the medium.
            Operation::Flush => {}
        }
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        let device_bytes = self.medium.len() as u64;
        Geometry { sector_bytes: 512, physical_bytes: 4096, device_bytes }
    }

    fn submit(&mut self, mut request: Request) {
        let result = self.serve(&mut request);
        self.done.push_back(Completion { id: request.id, buffer: request.buffer, result });
    }

    fn completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }
}

/// A channel: its name is the service behind it, and comes from whoever built the machine.
pub(crate) struct Channel {
    connection: ConnectionId,
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
}

/// The server between a disk and channels.
pub(crate) struct Machine {
    server: Server,
    pub(crate) disk: Disk,
    pub(crate) channels: Vec<Channel>,
    now_ms: u64,
    pub(crate) ready: bool,
}

impl Machine {
    /// Starts a server. The seed is 256 bits that no other start had; refuse to start without.
    pub(crate) fn start(disk: Disk, policy: &str, names: &[&str], seed: [u8; 32]) -> Self {
        let policy = Policy::parse(policy).expect("a sound policy");
        let mut server = Server::new(disk.geometry(), policy, seed, Limits::default());
        let channels = names.iter().map(|name| {
            let peer = Peer { channel: (*name).into(), uid: None };
            let connection = server.connect(peer).unwrap_or_else(|_| panic!("room for {name}"));
            Channel { connection, to_server: Vec::new(), to_client: Vec::new() }
        });
        let channels = channels.collect();
        Self { server, disk, channels, now_ms: 0, ready: false }
    }

    /// Moves what can be moved; where that is nothing, sleeps until there is something.
    pub(crate) fn turn(&mut self) {
        let mut moved = false;
        self.server.set_clock(self.now_ms);
        while let Some(completion) = self.disk.completion() {
            self.server.complete(completion);
            moved = true;
        }
        for channel in &mut self.channels {
            if self.server.wants_input(channel.connection) {
                // What it does not take yet stays where the sender feels it.
                let taken = self.server.receive(channel.connection, &channel.to_server);
                let taken = taken.unwrap_or(channel.to_server.len());
                channel.to_server.drain(..taken);
                moved |= taken > 0;
            }
        }
        let turn = self.server.poll(self.now_ms);
        while let Some(request) = self.server.next_request() {
            self.disk.submit(request);
            moved = true;
        }
        while self.server.next_touched().is_some() {}
        for channel in &mut self.channels {
            let output = self.server.output(channel.connection);
            channel.to_client.extend_from_slice(output);
            let bytes = output.len();
            self.server.sent(channel.connection, bytes);
            moved |= bytes > 0;
        }
        while let Some(event) = self.server.next_event() {
            self.ready |= matches!(event, Event::Opened { .. });
        }
        if !moved && !turn.again && !self.server.wants_poll() {
            // A machine sleeps here until an interrupt or this time; the clock of this one is what it slept.
            self.now_ms = turn.deadline.unwrap_or(self.now_ms + 1).max(self.now_ms);
        }
    }

    /// Pulls the plug: what the server had not been told to be on the medium may be gone.
    pub(crate) fn stop(mut self) -> Disk {
        Disk::new(mem::take(&mut self.disk.medium))
    }
}
