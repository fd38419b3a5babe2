//! A first-in-first-out set of tasks for one thread, with wakers that any thread may call.
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use core::task::{Poll, Waker};

pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Why a task exists: calls end with the connection, spawned tasks see it end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Spawned,
}

/// Names one task; stale after it is released.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    index: u32,
    generation: u32,
}

/// A task taken out of the set to be polled.
pub(crate) struct Turn {
    pub(crate) id: TaskId,
    pub(crate) waker: Waker,
    pub(crate) task: Task,
}

/// The tasks of one connection. No method drops a task: each gives it to the caller, because the
/// drop runs code of the task, which may come back here.
pub(crate) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: Arc<Ready>,
    head: usize,
    calls: Quota,
    spawned: Quota,
    cancelled: Vec<Task>,
}

/// How many tasks of one kind there are, and may be.
struct Quota {
    count: usize,
    max: usize,
}

impl Tasks {
    pub(crate) fn new(calls_max: usize, spawned_max: usize, driver: Option<Waker>) -> Self {
        // As many again for slots that were woken and released since. A power of two, so that the position may wrap around.
        let ring_slots = (2 * (calls_max + spawned_max)).next_power_of_two();
        let ring = (0..ring_slots).map(|_| AtomicU32::new(EMPTY)).collect();
        let ready = Arc::new(Ready { ring, tail: AtomicUsize::new(0), driver });
        let calls = Quota { count: 0, max: calls_max };
        let spawned = Quota { count: 0, max: spawned_max };
        Tasks {
            slots: Vec::new(),
            free: Vec::new(),
            ready,
            head: 0,
            calls,
            spawned,
            cancelled: Vec::new(),
        }
    }

    /// Reserves a slot. Its waker may be used before there is a task in it.
    pub(crate) fn reserve(&mut self, kind: Kind) -> Option<(TaskId, Waker)> {
        let quota = self.quota(kind);
        if quota.count >= quota.max {
            return None;
        }
        let index = match self.free.iter().rposition(|index| !self.is_queued(*index)) {
            Some(at) => self.free.swap_remove(at),
            None => self.grow()?,
        };
        self.quota(kind).count += 1;
        let slot = self.slots.get_mut(position(index))?;
        slot.live = Some(kind);
        Some((TaskId { index, generation: slot.generation }, slot.waker.clone()))
    }

    /// Puts a task in its slot, or gives it back if the slot was released meanwhile.
    pub(crate) fn put(&mut self, id: TaskId, task: Task) -> Option<Task> {
        match self.live(id) {
            Some(slot) => slot.task.replace(task),
            None => Some(task),
        }
    }

    /// Frees the slot and gives its task, if one is in it.
    pub(crate) fn release(&mut self, id: TaskId) -> Option<Task> {
        let slot = self.live(id)?;
        let kind = slot.live.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        let task = slot.task.take();
        self.free.push(id.index);
        self.quota(kind).count -= 1;
        task
    }

    /// Frees the slot of a task that is to be dropped by [`Tasks::next_cancelled`], later and from
    /// the top of the stack: tasks that keep each other alive would be dropped one within another.
    pub(crate) fn cancel(&mut self, id: TaskId) {
        let task = self.release(id);
        self.cancelled.extend(task);
    }

    pub(crate) fn next_cancelled(&mut self) -> Option<Task> {
        self.cancelled.pop()
    }

    /// Frees every slot of one kind.
    pub(crate) fn release_all(&mut self, kind: Kind) -> Vec<Task> {
        let ids: Vec<TaskId> = (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.live == Some(kind))
            .map(|(index, slot)| TaskId { index, generation: slot.generation })
            .collect();
        ids.into_iter().filter_map(|id| self.release(id)).collect()
    }

    /// Takes out the task that was woken first.
    pub(crate) fn next_ready(&mut self) -> Option<Turn> {
        loop {
            let index = self.ready.slot(self.head).swap(EMPTY, Ordering::AcqRel);
            if index == EMPTY {
                return None;
            }
            self.head = self.head.wrapping_add(1);
            let slot = self.slots.get_mut(position(index))?;
            slot.wake.queued.store(false, Ordering::Release);
            if let Some(task) = slot.task.take() {
                let id = TaskId { index, generation: slot.generation };
                return Some(Turn { id, waker: slot.waker.clone(), task });
            }
        }
    }

    /// Whether a task was woken. True also while another thread is in the middle of waking one,
    /// which [`Tasks::next_ready`] does not see yet.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.tail.load(Ordering::Acquire) != self.head
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.count + self.spawned.count
    }

    fn quota(&mut self, kind: Kind) -> &mut Quota {
        match kind {
            Kind::Call => &mut self.calls,
            Kind::Spawned => &mut self.spawned,
        }
    }

    /// Whether a slot has a place among those that were woken. Another task in it would take its turn there, before those that
    /// came before it.
    fn is_queued(&self, index: u32) -> bool {
        let slot = self.slots.get(position(index));
        slot.is_some_and(|slot| slot.wake.queued.load(Ordering::Acquire))
    }

    /// Adds a slot, unless there are as many as the ring has room for.
    fn grow(&mut self) -> Option<u32> {
        if self.slots.len() >= self.ready.ring.len() {
            return None;
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        let ready = self.ready.clone();
        let wake = Arc::new(SlotWake { index, queued: AtomicBool::new(false), ready });
        let waker = wake.clone().into();
        self.slots.push(Slot { wake, waker, task: None, live: None, generation: 0 });
        Some(index)
    }

    fn live(&mut self, id: TaskId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(position(id.index))?;
        (slot.live.is_some() && slot.generation == id.generation).then_some(slot)
    }
}

/// Gives every other ready task a turn, then continues.
pub async fn yield_now() {
    let mut first = true;
    core::future::poll_fn(|context| {
        if core::mem::take(&mut first) {
            context.waker().wake_by_ref();
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

struct Slot {
    wake: Arc<SlotWake>,
    waker: Waker,
    task: Option<Task>,
    live: Option<Kind>,
    generation: u32,
}

/// A ring of woken slots. Each slot is in it at most once and it has room for all of them, so it
/// cannot overflow, and no lock is needed that an interrupt could find taken.
struct Ready {
    ring: Box<[AtomicU32]>,
    tail: AtomicUsize,
    driver: Option<Waker>,
}

impl Ready {
    fn slot(&self, position: usize) -> &AtomicU32 {
        let index = position & (self.ring.len() - 1);
        self.ring.get(index).expect("the mask of a power of two stays below it")
    }
}

/// Wakes whatever is in one slot. A waker that outlives its task wakes the next one there once more
/// than needed, which futures allow.
struct SlotWake {
    index: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let position = self.ready.tail.fetch_add(1, Ordering::AcqRel);
            self.ready.slot(position).store(self.index, Ordering::Release);
            if let Some(driver) = &self.ready.driver {
                driver.wake_by_ref();
            }
        }
    }
}

fn position(index: u32) -> usize {
    usize::try_from(index).expect("a slot's index was made from a usize")
}

/// Marks a free place of the ring. No slot has this index: the slots would not fit in memory.
const EMPTY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use core::task::Context;

    fn task() -> Task {
        Box::pin(core::future::ready(()))
    }

    #[test]
    fn turns_come_in_the_order_of_wakes_and_once_each() {
        let mut tasks = Tasks::new(3, 0, None);
        let made: Vec<_> = (0..3)
            .map(|_| {
                let (id, waker) = tasks.reserve(Kind::Call).unwrap();
                assert!(tasks.put(id, task()).is_none());
                (id, waker)
            })
            .collect();
        assert!(tasks.reserve(Kind::Spawned).is_none());
        for index in [2, 0, 2, 1, 0] {
            made[index].1.wake_by_ref();
        }
        for index in [2, 0, 1] {
            assert!(tasks.next_ready().unwrap().id == made[index].0);
        }
        assert!(tasks.next_ready().is_none());
        assert!(!tasks.has_ready());
    }

    #[test]
    fn a_released_slot_forgets_its_task() {
        let mut tasks = Tasks::new(1, 1, None);
        let (old, waker) = tasks.reserve(Kind::Call).unwrap();
        assert!(tasks.put(old, task()).is_none());
        waker.wake_by_ref();
        assert!(tasks.release(old).is_some());
        assert!(tasks.release(old).is_none());
        let (new, _) = tasks.reserve(Kind::Spawned).unwrap();
        assert!(tasks.put(old, task()).is_some());
        assert!(tasks.next_ready().is_none());
        assert!(tasks.put(new, task()).is_none());
        assert_eq!(tasks.release_all(Kind::Call).len(), 0);
        assert_eq!(tasks.release_all(Kind::Spawned).len(), 1);
        assert_eq!(tasks.count(), 0);
    }

    #[test]
    fn a_task_takes_no_place_that_another_one_left() {
        let mut tasks = Tasks::new(2, 0, None);
        for _ in 0..20 {
            let (left, waker) = tasks.reserve(Kind::Call).unwrap();
            waker.wake();
            let (first, waker) = tasks.reserve(Kind::Call).unwrap();
            assert!(tasks.put(first, task()).is_none());
            waker.wake();
            assert!(tasks.release(left).is_none());
            let (second, waker) = tasks.reserve(Kind::Call).unwrap();
            assert!(tasks.put(second, task()).is_none());
            waker.wake();
            for id in [first, second] {
                assert!(tasks.next_ready().unwrap().id == id);
                tasks.release(id);
            }
            assert!(tasks.next_ready().is_none());
        }
        // Places that were left are bounded.
        let left = |tasks: &mut Tasks| {
            let (id, waker) = tasks.reserve(Kind::Call)?;
            waker.wake();
            tasks.release(id);
            Some(())
        };
        assert_eq!((0..20).map_while(|_| left(&mut tasks)).count(), 4);
        assert!(tasks.next_ready().is_none());
        assert!(tasks.reserve(Kind::Call).is_some());
    }

    #[test]
    fn the_ready_ring_is_no_larger_than_promised() {
        let tasks = Tasks::new(crate::limits::CALLS_MAX, crate::limits::TASKS_MAX, None);
        assert_eq!(tasks.ready.ring.len(), 1024);
    }

    #[test]
    fn yielding_takes_exactly_one_more_turn() {
        let mut tasks = Tasks::new(1, 1, None);
        let (id, waker) = tasks.reserve(Kind::Spawned).unwrap();
        assert!(tasks.put(id, Box::pin(yield_now())).is_none());
        waker.wake_by_ref();
        let mut turn = tasks.next_ready().unwrap();
        assert!(turn.task.as_mut().poll(&mut Context::from_waker(&turn.waker)).is_pending());
        assert!(tasks.put(id, turn.task).is_none());
        let mut turn = tasks.next_ready().unwrap();
        assert!(turn.task.as_mut().poll(&mut Context::from_waker(&turn.waker)).is_ready());
    }
}
