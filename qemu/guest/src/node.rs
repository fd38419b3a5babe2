//! One life of the server, between its device, the ports and the programs inside of the machine.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use blockdev::BlockDevice;
use policy::Policy;
use statefsd::{Event, Limits, Server};
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, Result};

use crate::link::Link;
use crate::ports::{self, Ports};
use crate::program::{Print, Program, Running};

/// A running server with all that is connected to it.
///
/// Dropping it is a crash of the server alone: what was acknowledged is found again by the next one. See that the device is
/// idle before that starts.
pub struct Node {
    server: Server,
    programs: Vec<Running>,
    digest: Option<Pin<Box<dyn Future<Output = Line>>>>,
}

/// A digest as it is printed.
type Line = alloc::string::String;

/// What a turn leaves to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Something moved, so there may be more to do.
    pub busy: bool,
    /// When to look again though nothing came in, in milliseconds.
    pub deadline: Option<u64>,
}

impl Node {
    /// Starts a server; `seed` is 256 bits of entropy that no other start had.
    #[must_use]
    pub fn new(device: &impl BlockDevice, policy: Policy, seed: [u8; 32], limits: Limits) -> Self {
        let server = Server::new(device.geometry(), policy, seed, limits);
        Self { server, programs: Vec::new(), digest: None }
    }

    /// Starts a program beside the ports; false if there is no room for its connection.
    pub fn start(
        &mut self,
        program: &mut Program,
        restarts: u32,
        seed: [u8; 32],
        print: Print,
    ) -> bool {
        let running = Running::new(program, &mut self.server, restarts, seed, print);
        running.map(|running| self.programs.push(running)).is_ok()
    }

    /// Moves what can be moved, at this time in milliseconds of a clock that never goes back.
    ///
    /// # Errors
    /// The console device does not keep its specification.
    pub fn turn<H: Hal, T: Transport>(
        &mut self,
        now: u64,
        device: &mut impl BlockDevice,
        ports: &mut Ports<H, T>,
        links: &mut Vec<Option<Link>>,
    ) -> Result<Turn> {
        self.server.set_clock(now);
        let mut busy = self.gather(ports, links)?;
        while let Some(completion) = device.completion() {
            self.server.complete(completion);
            busy = true;
        }
        for program in &mut self.programs {
            busy |= program.turn(&mut self.server);
        }
        let turn = self.server.poll(now);
        while let Some(request) = self.server.next_request() {
            device.submit(request);
            busy = true;
        }
        // There are few connections, so each is looked at in each turn.
        while self.server.next_touched().is_some() {}
        for program in &mut self.programs {
            busy |= program.listen(&mut self.server);
        }
        busy |= self.scatter(ports, links)?;
        busy |= turn.again || self.server.wants_poll();
        Ok(Turn { busy, deadline: turn.deadline })
    }

    /// Hands out what happened since.
    pub fn next_event(&mut self) -> Option<Event> {
        self.server.next_event()
    }

    /// Begins to compute the digest of the state, which [`Node::digested`] yields.
    pub fn ask_digest(&mut self) {
        if let Some(digest) = self.server.digest() {
            self.digest = Some(Box::pin(async move { alloc::format!("{}", digest.await) }));
        }
    }

    /// Yields the digest that was asked for, once.
    pub fn digested(&mut self) -> Option<Line> {
        let digest = self.digest.as_mut()?;
        match digest.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(line) => {
                self.digest = None;
                Some(line)
            }
            Poll::Pending => None,
        }
    }

    /// Begins to end: nobody connects any more, what was acknowledged becomes durable.
    pub fn shut_down(&mut self) {
        self.server.shut_down();
    }

    /// Whether a shutdown is complete.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.server.is_synced()
    }

    /// Yields how the programs ended: `Some(Ok)` once all have with success, an error with the channel of
    /// the first that failed.
    pub fn programs_end(&self) -> Option<core::result::Result<(), (&'static str, &str)>> {
        let failed = self.programs.iter().find_map(|program| match &program.end {
            Some(Err(why)) => Some((program.channel, why.as_str())),
            _ => None,
        });
        match failed {
            Some(failed) => Some(Err(failed)),
            None => self.programs.iter().all(|program| program.end.is_some()).then_some(Ok(())),
        }
    }

    /// Takes events and bytes of the ports.
    fn gather<H: Hal, T: Transport>(
        &mut self,
        ports: &mut Ports<H, T>,
        links: &mut Vec<Option<Link>>,
    ) -> Result<bool> {
        links.resize_with(ports.count(), || None);
        let server = &mut self.server;
        let mut busy = ports.events(|index, event| {
            let Some(link) = links.get_mut(index) else {
                return;
            };
            match (event, link) {
                (ports::Event::Named(name), link) => *link = Some(Link::new(name)),
                (ports::Event::Closed, Some(link)) => link.close(server),
                (ports::Event::Closed, None) => {}
            }
        })?;
        for (index, link) in links.iter_mut().enumerate() {
            let Some(link) = link else {
                continue;
            };
            busy |= link.tend(&mut self.server);
            if link.wants_input() {
                busy |= ports.receive(index, |bytes| link.receive(bytes, &mut self.server))?;
            }
        }
        Ok(busy)
    }

    /// Sends what the ports take.
    fn scatter<H: Hal, T: Transport>(
        &mut self,
        ports: &mut Ports<H, T>,
        links: &mut [Option<Link>],
    ) -> Result<bool> {
        let mut busy = false;
        for (index, link) in links.iter_mut().enumerate() {
            let Some(link) = link else {
                continue;
            };
            busy |= link.tend(&mut self.server);
            let bytes = link.output().len();
            if bytes > 0 && ports.has_room(index)? {
                ports.send(index, link.output())?;
                link.sent(bytes);
                busy = true;
            }
        }
        Ok(busy)
    }
}

/// Tells every port that its connection has ended, because the server is gone.
pub fn forget(links: &mut [Option<Link>]) {
    links.iter_mut().flatten().for_each(Link::forget);
}
