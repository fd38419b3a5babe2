//! One direction of a virtio queue, with the buffers that the device has.
#![expect(
    unsafe_code,
    reason = "a device reads and writes memory behind the back of the borrow checker"
)]

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use core::sync::atomic::{Ordering, fence};

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Hal, Result};

use crate::features::Features;

/// What the device fills, with at most `N` buffers.
pub(crate) struct Incoming<H: Hal, const N: usize> {
    queue: VirtQueue<H, N>,
    index: u16,
    buffers: [Option<Box<[u8]>>; N],
}

/// What the device empties, with at most `N` buffers in its hands.
pub(crate) struct Outgoing<H: Hal, const N: usize> {
    queue: VirtQueue<H, N>,
    index: u16,
    buffers: [Option<Box<[u8]>>; N],
    waiting: VecDeque<Box<[u8]>>,
}

impl<H: Hal, const N: usize> Incoming<H, N> {
    /// Sets the queue with this index up, without buffers.
    pub(crate) fn new(
        transport: &mut impl Transport,
        index: u16,
        features: Features,
    ) -> Result<Self> {
        let queue = features.queue(transport, index)?;
        Ok(Self { queue, index, buffers: [const { None }; N] })
    }

    /// Gives the device `count` empty buffers.
    pub(crate) fn fill(
        &mut self,
        transport: &mut impl Transport,
        count: usize,
        bytes: usize,
    ) -> Result {
        (0..count).try_for_each(|_| self.give(transport, vec![0; bytes].into()))
    }

    /// Gives the device a buffer.
    pub(crate) fn give(&mut self, transport: &mut impl Transport, mut buffer: Box<[u8]>) -> Result {
        // JUSTIFICATION: the device writes into the buffer while we do other things.
        // SAFETY: the buffer lies untouched in `buffers` until its token was popped.
        let token = unsafe { self.queue.add(&[], &mut [&mut buffer]) }?;
        let slot = self.buffers.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
        *slot = Some(buffer);
        notify(&self.queue, self.index, transport);
        Ok(())
    }

    /// Takes a buffer that the device has filled, and how far.
    pub(crate) fn take(&mut self) -> Result<Option<(Box<[u8]>, usize)>> {
        let Some(token) = self.queue.peek_used() else {
            return Ok(None);
        };
        let slot = self.buffers.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
        let mut buffer = slot.take().ok_or(Error::WrongToken)?;
        // SAFETY: it is the buffer that was added when the queue gave out this token.
        let filled = match unsafe { self.queue.pop_used(token, &[], &mut [&mut buffer]) } {
            Ok(filled) => filled,
            Err(error) => {
                *slot = Some(buffer);
                return Err(error);
            }
        };
        let filled = usize::try_from(filled).unwrap_or(usize::MAX).min(buffer.len());
        Ok(Some((buffer, filled)))
    }
}

impl<H: Hal, const N: usize> Outgoing<H, N> {
    /// Sets the queue with this index up.
    pub(crate) fn new(
        transport: &mut impl Transport,
        index: u16,
        features: Features,
    ) -> Result<Self> {
        let queue = features.queue(transport, index)?;
        Ok(Self { queue, index, buffers: [const { None }; N], waiting: VecDeque::new() })
    }

    /// Whether what is given now goes to the device at once.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.buffers.iter().any(Option::is_none)
    }

    /// Sends bytes, now or as soon as the device lets go of others.
    pub(crate) fn send(&mut self, transport: &mut impl Transport, bytes: Box<[u8]>) -> Result {
        self.waiting.push_back(bytes);
        self.pump(transport).map(drop)
    }

    /// Takes back what the device has emptied, and sends what waits; tells whether there was any.
    pub(crate) fn pump(&mut self, transport: &mut impl Transport) -> Result<bool> {
        let mut moved = false;
        while let Some(token) = self.queue.peek_used() {
            let slot = self.buffers.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
            let buffer = slot.take().ok_or(Error::WrongToken)?;
            // SAFETY: it is the buffer that was added when the queue gave out this token.
            let popped = unsafe { self.queue.pop_used(token, &[&buffer], &mut []) };
            if popped.is_err() {
                *slot = Some(buffer);
            }
            popped?;
            moved = true;
        }
        while self.buffers.iter().any(Option::is_none) {
            let Some(buffer) = self.waiting.pop_front() else {
                break;
            };
            // JUSTIFICATION: the device reads the buffer while we do other things.
            // SAFETY: the buffer lies untouched in `buffers` until its token was popped.
            let token = unsafe { self.queue.add(&[&buffer], &mut []) }?;
            let slot = self.buffers.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
            *slot = Some(buffer);
            notify(&self.queue, self.index, transport);
            moved = true;
        }
        Ok(moved)
    }
}

/// Tells the device that there is something, unless it does not want to know.
fn notify<H: Hal, const N: usize>(
    queue: &VirtQueue<H, N>,
    index: u16,
    transport: &mut impl Transport,
) {
    // The queue's own check reads what the device wants to be told before the buffer is surely
    // visible to it.
    fence(Ordering::SeqCst);
    if queue.should_notify() {
        transport.notify(index);
    }
}
