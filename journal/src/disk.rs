//! The journal's side of the device: requests go out through a queue, futures wait for their ends.
//!
//! A driver moves requests from [`Disk::next_request`] to a device and completions back through
//! [`Disk::complete`]. Nothing here blocks, and a future that is dropped leaves its request running.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use blockdev::{Buffer, Completion, DeviceError, Geometry, Operation, Request, RequestId};
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// A handle to the request queue of one device; clones share it.
#[derive(Clone)]
pub struct Disk {
    geometry: Geometry,
    queue: Rc<RefCell<Queue>>,
}

#[derive(Default)]
struct Queue {
    next_id: u64,
    outgoing: VecDeque<Request>,
    /// By rising number, which is the order in which they were made.
    waiting: VecDeque<(RequestId, Slot)>,
}

enum Slot {
    Running(Option<Waker>),
    Ended(Completion),
}

/// The end of one request, to be awaited: its buffer, or why it failed.
pub struct Transfer {
    disk: Disk,
    id: RequestId,
    /// Its end was taken.
    taken: bool,
}

impl Disk {
    /// Makes the queue of a device of this shape.
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, queue: Rc::default() }
    }

    /// Yields the shape of the device.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Hands out the next request for the device, in the order in which they were made.
    pub fn next_request(&self) -> Option<Request> {
        self.queue.borrow_mut().outgoing.pop_front()
    }

    /// Yields how many requests have been made.
    pub fn issued(&self) -> u64 {
        self.queue.borrow().next_id
    }

    /// Takes the end of a request back and wakes who waits for it.
    pub fn complete(&self, completion: Completion) {
        let mut queue = self.queue.borrow_mut();
        // Nobody waits any more when the future was dropped; the buffer is then dropped too.
        if let Some(slot) = queue.slot(completion.id) {
            let ended = core::mem::replace(slot, Slot::Ended(completion));
            drop(queue);
            if let Slot::Running(Some(waker)) = ended {
                waker.wake();
            }
        }
    }

    /// Starts to read `bytes` bytes from `offset`.
    pub fn read(&self, offset: u64, bytes: usize) -> Transfer {
        self.start(Operation::Read { offset }, Buffer::zeroed(bytes))
    }

    /// Starts to write `buffer` at `offset`.
    pub fn write(&self, offset: u64, buffer: Buffer) -> Transfer {
        self.start(Operation::Write { offset }, buffer)
    }

    /// Starts a flush. It covers the writes that completed before this call.
    pub fn flush(&self) -> Transfer {
        self.start(Operation::Flush, Buffer::default())
    }

    fn start(&self, operation: Operation, buffer: Buffer) -> Transfer {
        let mut queue = self.queue.borrow_mut();
        let id = RequestId(queue.next_id);
        queue.next_id += 1;
        queue.waiting.push_back((id, Slot::Running(None)));
        queue.outgoing.push_back(Request { id, operation, buffer });
        Transfer { disk: self.clone(), id, taken: false }
    }
}

impl Queue {
    fn at(&self, id: RequestId) -> Option<usize> {
        // Most often nothing between the oldest and this one has ended.
        let (oldest, _) = self.waiting.front()?;
        let likely = usize::try_from(id.0.wrapping_sub(oldest.0)).unwrap_or(usize::MAX);
        if self.waiting.get(likely).is_some_and(|(there, _)| *there == id) {
            return Some(likely);
        }
        self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    fn slot(&mut self, id: RequestId) -> Option<&mut Slot> {
        let at = self.at(id)?;
        self.waiting.get_mut(at).map(|(_, slot)| slot)
    }

    fn remove(&mut self, id: RequestId) -> Option<Slot> {
        let at = self.at(id)?;
        self.waiting.remove(at).map(|(_, slot)| slot)
    }
}

impl Future for Transfer {
    type Output = Result<Buffer, DeviceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { disk, id, taken } = &mut *self;
        let mut queue = disk.queue.borrow_mut();
        match queue.slot(*id) {
            Some(Slot::Running(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            Some(Slot::Ended(_)) => match queue.remove(*id) {
                Some(Slot::Ended(Completion { buffer, result, .. })) => {
                    *taken = true;
                    Poll::Ready(result.map(|()| buffer))
                }
                _ => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.taken {
            self.disk.queue.borrow_mut().remove(self.id);
        }
    }
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}
