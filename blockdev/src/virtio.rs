//! A virtio-blk device: requests go into one queue and come back in any order.
//!
//! The device is as little trusted as the medium. What it reports is compared with what it was
//! asked; a device that answers what nobody asked, or nothing for [`TIMEOUT_MS`], is reset and
//! never spoken to again: every request then completes with an error, and none panics.
#![expect(
    unsafe_code,
    reason = "a device reads and writes memory behind the back of the borrow checker"
)]

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod flight;
mod leash;
mod setup;
#[cfg(all(test, feature = "sim"))]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::mem;
use core::sync::atomic::{Ordering, fence};

use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{InterruptStatus, Transport};

use crate::{BlockDevice, Buffer, Completion, DeviceError, Geometry, Operation, Request};
use flight::Flight;
pub use leash::Leash;
pub use setup::SetupError;

/// Milliseconds after which a request that did not complete condemns the device: what Linux gives
/// a block request.
pub const TIMEOUT_MS: u64 = 30_000;

/// Milliseconds that count between two ticks at most. Longer nobody looked: the machine stood still, and perhaps its device
/// with it. A machine that sleeps for a second at a time, as ours, loses none.
pub const TICK_MS_MAX: u64 = 2000;

/// Requests in the queue at a time; more wait outside. The journal has a few dozen in flight when it
/// replays.
const QUEUE_SLOTS: usize = 64;

/// Descriptors that one request takes where the device knows no indirect ones.
const REQUEST_DESCRIPTORS: usize = 3;

/// A block device behind a virtio transport.
///
/// Where the device did not negotiate flush, it is write-through by the specification (virtio 1.2,
/// 5.2.5): what completed is on the medium. Then a flush completes at once, and
/// [`VirtioDevice::flushes`] says so.
///
/// A failed flush is final, as that of a file is: whoever serves the device may tell of a lost write once and then
/// call its cache clean, so every later flush fails too. Another `VirtioDevice` over the same device knows nothing of it.
pub struct VirtioDevice<H: Hal, T: Transport> {
    transport: Leash<T>,
    /// `None` once the device is condemned.
    queue: Option<VirtQueue<H, QUEUE_SLOTS>>,
    /// What the device owns, at the token that the queue gave it.
    flights: [Option<Flight>; QUEUE_SLOTS],
    waiting: VecDeque<Request>,
    done: VecDeque<Completion>,
    geometry: Geometry,
    flushes: bool,
    /// How flushes end: as they do, up to the first that fails, and as that one from then on.
    flushed: Result<(), DeviceError>,
    /// When the last tick was.
    ticked_ms: u64,
    /// The time in which somebody looked.
    now_ms: u64,
    fault: Option<Fault>,
}

/// Why a device was condemned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It completed a request that it did not have.
    UnknownRequest,
    /// It claims to have written more bytes than it was given room for.
    WroteTooMuch,
    /// Its queue contradicts itself.
    Queue,
    /// A request did not complete within [`TIMEOUT_MS`].
    Silent,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::UnknownRequest => "the device completed what it was not asked",
            Self::WroteTooMuch => "the device claims to have written past a buffer",
            Self::Queue => "the device's queue contradicts itself",
            Self::Silent => "the device did not answer in time",
        })
    }
}

impl<H: Hal, T: Transport> VirtioDevice<H, T> {
    /// Resets the device, negotiates with it and makes it ready.
    ///
    /// # Errors
    /// [`SetupError`] says what the device refuses or pretends.
    pub fn new(transport: impl Into<Leash<T>>) -> Result<Self, SetupError> {
        let mut transport = transport.into();
        let setup::Ready { queue, geometry, flushes } = setup::run(&mut transport)?;
        Ok(Self {
            transport,
            queue: Some(queue),
            flights: [const { None }; QUEUE_SLOTS],
            waiting: VecDeque::new(),
            done: VecDeque::new(),
            geometry,
            flushes,
            flushed: Ok(()),
            ticked_ms: 0,
            now_ms: 0,
            fault: None,
        })
    }

    /// Tells the time, in milliseconds of a clock that never goes back, on which requests expire. Of what passed since the last
    /// tick [`TICK_MS_MAX`] counts, so tick more often than that.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms += now_ms.saturating_sub(self.ticked_ms).min(TICK_MS_MAX);
        self.ticked_ms = now_ms;
        self.reap();
        let now_ms = self.now_ms;
        let late = |flight: &Flight| now_ms - flight.since_ms >= TIMEOUT_MS;
        if self.flights.iter().flatten().any(late) {
            self.condemn(Fault::Silent);
        }
    }

    /// Acknowledges an interrupt, so that the device can raise the next.
    pub fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }

    /// Whether the device has a flush. If not, what completed is on the medium.
    pub fn flushes(&self) -> bool {
        self.flushes
    }

    /// Whether a request is in flight or waits to be.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.flights.iter().any(Option::is_some)
    }

    /// Why the device was condemned, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Gives the device as many of the waiting requests as its queue has room for.
    fn pump(&mut self) {
        let Some(queue) = &mut self.queue else {
            return;
        };
        while queue.available_desc() >= REQUEST_DESCRIPTORS {
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            let mut flight = Flight::new(request, self.now_ms);
            // JUSTIFICATION: the device works on the memory while we do other things.
            // SAFETY: the flight, which owns all three buffers, lies untouched in `flights` from here
            // until its token was popped, or for ever if the device does not let go of it.
            let token = match unsafe { flight.add(queue) } {
                Ok(token) => token,
                Err(_) => {
                    self.done.push_back(flight.end(Err(FAILED)));
                    return self.condemn(Fault::Queue);
                }
            };
            let slot = self.flights.get_mut(usize::from(token));
            let slot = slot.expect("a token is a descriptor of the queue");
            assert!(slot.is_none(), "a token is given out once at a time");
            *slot = Some(flight);
            // The queue's own check reads what the device wants to be told before the request is
            // surely visible to it.
            fence(Ordering::SeqCst);
            if queue.should_notify() {
                self.transport.notify(QUEUE);
            }
        }
    }

    /// Takes back what the device has done.
    fn reap(&mut self) {
        while let Some(queue) = &mut self.queue {
            let Some(token) = queue.peek_used() else {
                break;
            };
            let Some(slot) = self.flights.get_mut(usize::from(token)) else {
                return self.condemn(Fault::UnknownRequest);
            };
            let Some(mut flight) = slot.take() else {
                return self.condemn(Fault::UnknownRequest);
            };
            // SAFETY: these are the buffers that were added when the queue gave out this token.
            let Ok(used_bytes) = (unsafe { flight.pop(queue, token) }) else {
                *slot = Some(flight);
                return self.condemn(Fault::Queue);
            };
            let result = flight.result(used_bytes);
            if let Err(flight::WroteTooMuch) = result {
                self.done.push_back(flight.end(Err(FAILED)));
                return self.condemn(Fault::WroteTooMuch);
            }
            let mut result = result.unwrap_or(Err(FAILED));
            if flight.request.operation == Operation::Flush {
                self.flushed = self.flushed.and(result);
                result = self.flushed;
            }
            self.done.push_back(flight.end(result));
        }
        self.pump();
    }

    /// Ends the device: resets it, and fails what it has and what waits.
    fn condemn(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        let stopped = self.transport.reset();
        for slot in &mut self.flights {
            let Some(mut flight) = slot.take() else {
                continue;
            };
            if !stopped {
                // It may still write there, so the memory is given up and another one given back.
                let fresh = Buffer::zeroed(flight.request.buffer.len());
                let lost = mem::replace(&mut flight.request.buffer, fresh);
                mem::forget(lost);
                mem::forget(mem::take(&mut flight.frame));
            }
            self.done.push_back(flight.end(Err(FAILED)));
        }
        for Request { id, buffer, .. } in self.waiting.drain(..) {
            self.done.push_back(Completion { id, buffer, result: Err(FAILED) });
        }
        if let Some(queue) = self.queue.take()
            && !stopped
        {
            mem::forget(queue);
        }
    }
}

impl<H: Hal, T: Transport> BlockDevice for VirtioDevice<H, T> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) {
        let at_once = match (self.geometry.range(&request), request.operation) {
            (Err(error), _) => Some(Err(error)),
            (Ok(_), _) if self.queue.is_none() => Some(Err(FAILED)),
            (Ok(_), Operation::Flush) => (!self.flushes).then_some(Ok(())),
            (Ok(range), _) => range.is_empty().then_some(Ok(())),
        };
        match at_once {
            Some(result) => {
                let Request { id, buffer, .. } = request;
                self.done.push_back(Completion { id, buffer, result });
            }
            None => {
                self.waiting.push_back(request);
                self.pump();
            }
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        if self.done.is_empty() {
            self.reap();
        }
        self.done.pop_front()
    }
}

/// Stops the device before its memory is given back.
impl<H: Hal, T: Transport> Drop for VirtioDevice<H, T> {
    fn drop(&mut self) {
        if self.queue.is_some() {
            self.condemn(Fault::Queue);
        }
    }
}

/// The one queue of a block device.
const QUEUE: u16 = 0;

/// A failure without a number: virtio has one status for all of them.
const FAILED: DeviceError = DeviceError::Io { code: 0 };

/// What the device reads and writes beside the data: virtio 1.2, 5.2.6.
#[derive(Default)]
#[repr(C)]
struct Frame {
    header: [u8; 16],
    status: [u8; 1],
}

type Boxed = Box<Frame>;
