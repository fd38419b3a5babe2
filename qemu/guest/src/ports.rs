//! The ports of a virtio console (virtio 1.2, 5.3, with VIRTIO_CONSOLE_F_MULTIPORT).
//!
//! Port 0 is left alone: it is the one that QEMU gives to a terminal, whose output it drops when nobody
//! reads. The others lose nothing and have names.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use blockdev::virtio::Leash;
use virtio_drivers::transport::{InterruptStatus, Transport};
use virtio_drivers::{Hal, Result};

use crate::features::Features;
use crate::queue::{Incoming, Outgoing};

#[cfg(test)]
mod tests;

/// Ports that are served; a device may have more, which then stay closed.
pub const PORTS_MAX: u32 = 16;

/// Bytes of a port's name that count.
const NAME_BYTES_MAX: usize = 64;

/// Buffers for incoming bytes of a port, and their size: QEMU hands over no more at a time.
const INCOMING_COUNT: usize = 4;
const INCOMING_BYTES: usize = 4096;

/// Places in the queues of a port.
const SLOTS: usize = 16;

/// Control messages that the device can send before we look, and the size of one. QEMU's queue has as many places, and
/// it drops what finds none: two messages for each port, when all are made ready at once.
const CONTROL_SLOTS: usize = 32;
const CONTROL_BYTES: usize = 128;
const _: () = assert!(2 * PORTS_MAX as usize <= CONTROL_SLOTS);

/// A console device with its ports.
pub struct Ports<H: Hal, T: Transport> {
    /// The first to be dropped: the device stops before its buffers are given back.
    transport: Leash<T>,
    events: Incoming<H, CONTROL_SLOTS>,
    commands: Outgoing<H, CONTROL_SLOTS>,
    ports: Vec<Port<H>>,
}

struct Port<H: Hal> {
    id: u32,
    incoming: Incoming<H, SLOTS>,
    outgoing: Outgoing<H, SLOTS>,
    /// Whether the device has said that it has this port.
    added: bool,
    name: Option<String>,
    open: bool,
}

/// What became of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It has a name now; until then nobody is served there.
    Named(String),
    /// Nobody is at the other end any more.
    Closed,
}

impl<H: Hal, T: Transport> Ports<H, T> {
    /// Makes a console device ready.
    ///
    /// # Errors
    /// The device has no ports with names, or does not keep the specification.
    pub fn new(transport: impl Into<Leash<T>>) -> Result<Self> {
        let mut transport = transport.into();
        let features = Features::negotiate(&mut transport, MULTIPORT)?;
        let count: u32 = transport.read_config_space(PORT_COUNT_AT)?;
        let mut events = Incoming::new(&mut *transport, EVENTS, features)?;
        let commands = Outgoing::new(&mut *transport, COMMANDS, features)?;
        let mut ports = Vec::new();
        for id in 1..count.min(PORTS_MAX + 1) {
            let index = u16::try_from(2 * id + 2).unwrap_or_default();
            ports.push(Port {
                id,
                incoming: Incoming::new(&mut *transport, index, features)?,
                outgoing: Outgoing::new(&mut *transport, index + 1, features)?,
                added: false,
                name: None,
                open: false,
            });
        }
        transport.finish_init();
        events.fill(&mut *transport, CONTROL_SLOTS, CONTROL_BYTES)?;
        let mut this = Self { transport, events, commands, ports };
        this.command(u32::MAX, DEVICE_READY)?;
        Ok(this)
    }

    /// How many ports there may be; they are named by their index below this.
    pub fn count(&self) -> usize {
        self.ports.len()
    }

    /// Takes what the device tells of its ports, and hands it on with the port's index. Of several
    /// changes of one port between two calls only the last counts.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn events(&mut self, mut each: impl FnMut(usize, Event)) -> Result<bool> {
        let before: Vec<bool> = self.ports.iter().map(|port| port.open).collect();
        let mut any = self.commands.pump(&mut *self.transport)?;
        let mut messages = Vec::new();
        while messages.len() < CONTROL_SLOTS
            && let Some((buffer, filled)) = self.events.take()?
        {
            messages.push(buffer.get(..filled).unwrap_or_default().to_vec());
            // Before anything is answered, so that there is room for what that brings.
            self.events.give(&mut *self.transport, buffer)?;
        }
        for message in messages {
            any = true;
            if let Some((head, name)) = message.split_first_chunk() {
                self.event(*head, name, &mut each)?;
            }
        }
        for (index, (port, was_open)) in self.ports.iter().zip(before).enumerate() {
            if was_open && !port.open {
                each(index, Event::Closed);
            }
        }
        Ok(any)
    }

    /// Hands out bytes that came through a port; tells whether there were any.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn receive(&mut self, index: usize, take: impl FnOnce(&[u8])) -> Result<bool> {
        let Some(port) = self.ports.get_mut(index) else {
            return Ok(false);
        };
        let Some((buffer, filled)) = port.incoming.take()? else {
            return Ok(false);
        };
        take(buffer.get(..filled).unwrap_or_default());
        port.incoming.give(&mut *self.transport, buffer)?;
        Ok(true)
    }

    /// Whether a port takes bytes without keeping them waiting.
    pub fn has_room(&mut self, index: usize) -> Result<bool> {
        let Some(port) = self.ports.get_mut(index) else {
            return Ok(false);
        };
        port.outgoing.pump(&mut *self.transport)?;
        Ok(port.outgoing.has_room())
    }

    /// Sends bytes through a port.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> Result {
        match self.ports.get_mut(index) {
            Some(port) if !bytes.is_empty() => {
                port.outgoing.send(&mut *self.transport, bytes.into())
            }
            _ => Ok(()),
        }
    }

    /// Acknowledges an interrupt, so that the device can raise the next.
    pub fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }

    fn event(&mut self, head: [u8; 8], name: &[u8], each: &mut impl FnMut(usize, Event)) -> Result {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = head;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
        let found = self.ports.iter_mut().enumerate().find(|(_, port)| port.id == id);
        let Some((index, port)) = found else {
            return Ok(());
        };
        match event {
            PORT_ADDED if !port.added => {
                port.added = true;
                port.incoming.fill(&mut *self.transport, INCOMING_COUNT, INCOMING_BYTES)?;
                self.command(id, PORT_READY)?;
                // Or the device throws away what the other end sends.
                self.command(id, PORT_OPEN)?;
            }
            // The name is given once, before anybody is served: no later message changes who is.
            PORT_NAME if port.name.is_none() => {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if let Ok(name) = core::str::from_utf8(name)
                    && (1..=NAME_BYTES_MAX).contains(&name.len())
                {
                    port.name = Some(name.into());
                    each(index, Event::Named(name.into()));
                }
            }
            PORT_OPEN => port.open = value != 0,
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, id: u32, event: u16) -> Result {
        let [i0, i1, i2, i3] = id.to_le_bytes();
        let [e0, e1] = event.to_le_bytes();
        let message: Box<[u8]> = [i0, i1, i2, i3, e0, e1, 1, 0].into();
        self.commands.send(&mut *self.transport, message)
    }
}

/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;

/// Where the configuration has the number of ports.
const PORT_COUNT_AT: usize = 4;

// Queues of control; those of port n are 2n + 2 and 2n + 3, from port 1 on.
const EVENTS: u16 = 2;
const COMMANDS: u16 = 3;

// Control messages: virtio 1.2, 5.3.6.2.
const DEVICE_READY: u16 = 0;
const PORT_ADDED: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
