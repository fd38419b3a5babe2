//! The journal's side of the device: requests go out through a queue, futures wait for their ends.
//!
//! A driver moves requests from [`Disk::next_request`] to a device and completions back through
//! [`Disk::complete`]. Nothing here blocks, and a future that is dropped leaves its request running. The buffers of reads that
//! nobody waits for any more are bounded: beyond that, other reads begin once the device has answered those.

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

/// Bytes of buffers of reads that were given up, and that the device has yet to fill; beyond them no read begins.
const ABANDONED_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Queue {
    next_id: u64,
    outgoing: VecDeque<Request>,
    /// By rising number, which is the order in which they were made.
    waiting: VecDeque<(RequestId, Slot)>,
    /// Reads that have not begun, by rising number.
    held: VecDeque<Held>,
    /// Bytes of reads that were given up and run.
    abandoned_bytes: usize,
}

/// A read that waits for the device to answer others.
struct Held {
    id: RequestId,
    offset: u64,
    bytes: usize,
}

enum Slot {
    /// It waits to begin, or for its end.
    Running {
        waker: Option<Waker>,
        read_bytes: usize,
    },
    Ended(Completion),
    /// Nobody waits for it.
    Abandoned {
        bytes: usize,
    },
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
        let id = completion.id;
        // Nobody waits any more when the future was dropped; the buffer is then dropped too.
        let ended = queue.slot(id).map(|slot| core::mem::replace(slot, Slot::Ended(completion)));
        match ended {
            Some(Slot::Running { waker: Some(waker), .. }) => {
                drop(queue);
                waker.wake();
            }
            Some(Slot::Abandoned { bytes }) => {
                queue.remove(id);
                queue.abandoned_bytes -= bytes;
                queue.begin_held();
            }
            _ => {}
        }
    }

    /// Starts to read `bytes` bytes from `offset`.
    pub fn read(&self, offset: u64, bytes: usize) -> Transfer {
        let mut queue = self.queue.borrow_mut();
        let id = queue.wait(bytes);
        queue.held.push_back(Held { id, offset, bytes });
        queue.begin_held();
        drop(queue);
        Transfer { disk: self.clone(), id, taken: false }
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
        let id = queue.wait(0);
        queue.outgoing.push_back(Request { id, operation, buffer });
        Transfer { disk: self.clone(), id, taken: false }
    }
}

impl Queue {
    /// Numbers a request that somebody waits for.
    fn wait(&mut self, read_bytes: usize) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back((id, Slot::Running { waker: None, read_bytes }));
        id
    }

    /// Begins what is held, in its order, while not too much runs for nobody.
    fn begin_held(&mut self) {
        while self.abandoned_bytes <= ABANDONED_BYTES_MAX
            && let Some(Held { id, offset, bytes }) = self.held.pop_front()
        {
            let (operation, buffer) = (Operation::Read { offset }, Buffer::zeroed(bytes));
            self.outgoing.push_back(Request { id, operation, buffer });
        }
    }

    /// Forgets a request that nobody waits for any more.
    fn give_up(&mut self, id: RequestId) {
        if let Ok(at) = self.held.binary_search_by_key(&id, |held| held.id) {
            self.held.remove(at);
            self.remove(id);
        } else if let Some(slot) = self.slot(id)
            && let Slot::Running { read_bytes: bytes @ 1.., .. } = *slot
        {
            *slot = Slot::Abandoned { bytes };
            self.abandoned_bytes += bytes;
        } else {
            self.remove(id);
        }
    }

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
            Some(Slot::Running { waker, .. }) => {
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
            Some(Slot::Abandoned { .. }) | None => Poll::Pending,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.taken {
            self.disk.queue.borrow_mut().give_up(self.id);
        }
    }
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::poll;
    use alloc::vec::Vec;
    use blockdev::{BlockDevice, MemoryDevice};
    use core::pin::pin;

    const BYTES: usize = 64 << 10;

    fn answer(disk: &Disk, requests: impl IntoIterator<Item = Request>) {
        for Request { id, buffer, .. } in requests {
            disk.complete(Completion { id, buffer, result: Ok(()) });
        }
    }

    #[test]
    fn reads_that_are_given_up_are_bounded_and_others_go_on_in_their_order() {
        let disk = Disk::new(MemoryDevice::new(1 << 20).geometry());
        (0..1000).for_each(|_| drop(disk.read(0, BYTES)));
        let given_up: Vec<_> = core::iter::from_fn(|| disk.next_request()).collect();
        assert_eq!(disk.queue.borrow().abandoned_bytes, given_up.len() * BYTES);
        assert!((1..=ABANDONED_BYTES_MAX / BYTES + 1).contains(&given_up.len()));
        // Reads that somebody waits for stay behind, and not what is no read.
        let (mut one, mut other) = (pin!(disk.read(512, 512)), pin!(disk.read(1024, 512)));
        drop(disk.read(0, BYTES));
        let flush = disk.flush();
        let next = [disk.next_request(), disk.next_request()];
        let next = next.map(|request| request.map(|request| request.operation));
        assert_eq!(next, [Some(Operation::Flush), None]);
        answer(&disk, given_up);
        assert_eq!(disk.queue.borrow().abandoned_bytes, 0);
        let read: Vec<_> = core::iter::from_fn(|| disk.next_request()).collect();
        let offsets: Vec<_> = read.iter().map(|request| request.operation).collect();
        assert_eq!(offsets, [Operation::Read { offset: 512 }, Operation::Read { offset: 1024 }]);
        assert!(poll(one.as_mut()).is_pending());
        answer(&disk, read);
        assert!(poll(one.as_mut()).is_ready() && poll(other.as_mut()).is_ready());
        drop(flush);
    }

    #[test]
    fn a_read_that_is_answered_and_never_taken_holds_nothing() {
        let disk = Disk::new(MemoryDevice::new(1 << 20).geometry());
        let read = disk.read(0, BYTES);
        answer(&disk, disk.next_request());
        drop(read);
        assert_eq!(disk.queue.borrow().abandoned_bytes, 0);
        assert!(disk.queue.borrow().waiting.is_empty());
    }
}
