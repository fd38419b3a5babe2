//! The helper threads and the queues to and from them.

use std::boxed::Box;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::ToString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::vec::Vec;

use crate::{Buffer, Completion, DeviceError, Operation, Request};

/// What the helper threads call; each call may block.
pub(super) trait Medium: Send + Sync + 'static {
    fn serve(&self, operation: Operation, buffer: &mut Buffer) -> Result<(), DeviceError>;
}

/// Told after each completion became ready.
pub(super) type Wake = dyn Fn() + Send + Sync;

/// Two queues of requests, the threads that serve them, and one queue of completions.
pub(super) struct Lanes<M: Medium> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
}

impl<M: Medium> Lanes<M> {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the system says when it has no thread to give; those already started are joined.
    pub(super) fn start(medium: M, wake: Box<Wake>) -> io::Result<Self> {
        let mut lanes = Self {
            shared: Arc::new(Shared {
                medium,
                wake,
                queues: Mutex::default(),
                reads_ready: Condvar::new(),
                writes_ready: Condvar::new(),
                completions_ready: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for (name, lane) in THREADS {
            let shared = lanes.shared.clone();
            let thread =
                thread::Builder::new().name(name.to_string()).spawn(move || shared.work(lane))?;
            lanes.threads.push(thread);
        }
        Ok(lanes)
    }

    /// Queues `request` for the thread that may serve it.
    pub(super) fn submit(&mut self, request: Request) {
        let mut queues = self.shared.queues();
        queues.in_flight += 1;
        let lane = match request.operation {
            Operation::Read { .. } => Lane::Reads,
            Operation::Write { .. } | Operation::Flush => Lane::Writes,
        };
        queues.of(lane).push_back(request);
        drop(queues);
        self.shared.ready(lane).notify_one();
    }

    /// Completes `request` with `error`, without asking the medium.
    pub(super) fn refuse(&mut self, request: Request, error: DeviceError) {
        self.shared.queues().in_flight += 1;
        self.shared.complete(Completion {
            id: request.id,
            buffer: request.buffer,
            result: Err(error),
        });
    }

    pub(super) fn completion(&mut self) -> Option<Completion> {
        self.shared.queues().take_completion()
    }

    pub(super) fn completion_blocking(&mut self) -> Option<Completion> {
        let mut queues = self.shared.queues();
        while queues.completions.is_empty() && queues.in_flight > 0 {
            queues =
                self.shared.completions_ready.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        queues.take_completion()
    }
}

/// Lets the threads end, and waits until they have.
impl<M: Medium> Drop for Lanes<M> {
    fn drop(&mut self) {
        self.shared.queues().closed = true;
        self.shared.reads_ready.notify_all();
        self.shared.writes_ready.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// What the threads share.
struct Shared<M> {
    medium: M,
    wake: Box<Wake>,
    queues: Mutex<Queues>,
    reads_ready: Condvar,
    writes_ready: Condvar,
    completions_ready: Condvar,
}

/// One lock over all: it is held for a push or a pop, never over a system call.
#[derive(Default)]
struct Queues {
    reads: VecDeque<Request>,
    writes: VecDeque<Request>,
    completions: VecDeque<Completion>,
    /// Submitted and not yet handed out.
    in_flight: usize,
    closed: bool,
}

/// Which queue a thread serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Reads,
    Writes,
}

impl<M: Medium> Shared<M> {
    /// Serves one queue until the lanes close.
    ///
    /// A panic of the medium costs its one request, which fails, and not the thread: every
    /// request completes, whatever happens to another.
    fn work(&self, lane: Lane) {
        while let Some(mut request) = self.next(lane) {
            let serve = || self.medium.serve(request.operation, &mut request.buffer);
            let result = catch_unwind(AssertUnwindSafe(serve));
            self.complete(Completion {
                id: request.id,
                buffer: request.buffer,
                result: result.unwrap_or(Err(DeviceError::Io { code: 0 })),
            });
        }
    }

    /// Waits for a request; `None` once the lanes are closed.
    fn next(&self, lane: Lane) -> Option<Request> {
        let mut queues = self.queues();
        loop {
            if queues.closed {
                return None;
            }
            if let Some(request) = queues.of(lane).pop_front() {
                return Some(request);
            }
            queues = self.ready(lane).wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn complete(&self, completion: Completion) {
        self.queues().completions.push_back(completion);
        self.completions_ready.notify_one();
        // A wake-up that panics has failed its owner, who still finds the completion.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.wake)()));
    }
}

impl<M> Shared<M> {
    /// Takes the lock. The queues are whole whoever panicked: no push or pop leaves them half done.
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, lane: Lane) -> &Condvar {
        match lane {
            Lane::Reads => &self.reads_ready,
            Lane::Writes => &self.writes_ready,
        }
    }
}

impl Queues {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<Request> {
        match lane {
            Lane::Reads => &mut self.reads,
            Lane::Writes => &mut self.writes,
        }
    }

    fn take_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        self.in_flight -= 1;
        Some(completion)
    }
}

/// Two for writes, because a commit writes two copies at once; a flush takes one of the two.
const THREADS: [(&str, Lane); 3] = [
    ("blockdev-read", Lane::Reads),
    ("blockdev-write0", Lane::Writes),
    ("blockdev-write1", Lane::Writes),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::RequestId;
    use crate::conformance::{flush, read, write};

    /// A medium whose flush ends when the test says so, and whose write may wait for another.
    struct Scripted {
        started: Mutex<Sender<Operation>>,
        release: Mutex<Receiver<()>>,
        writes: (Mutex<usize>, Condvar),
        writes_together: usize,
    }

    impl Medium for Scripted {
        fn serve(&self, operation: Operation, buffer: &mut Buffer) -> Result<(), DeviceError> {
            self.started.lock().unwrap().send(operation).unwrap();
            match operation {
                Operation::Read { offset } if offset == PANICS => panic!("planted"),
                Operation::Read { .. } => buffer.fill(1),
                Operation::Write { .. } => {
                    let (count, changed) = &self.writes;
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    changed.notify_all();
                    while *count < self.writes_together {
                        count = changed.wait(count).unwrap();
                    }
                }
                Operation::Flush => self.release.lock().unwrap().recv().unwrap(),
            }
            Ok(())
        }
    }

    const PANICS: u64 = 512;

    struct Rig {
        lanes: Lanes<Scripted>,
        started: Receiver<Operation>,
        release: Sender<()>,
        wakes: Arc<AtomicUsize>,
    }

    fn rig(writes_together: usize) -> Rig {
        let (start, started) = channel();
        let (release, released) = channel();
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = wakes.clone();
        let medium = Scripted {
            started: Mutex::new(start),
            release: Mutex::new(released),
            writes: (Mutex::new(0), Condvar::new()),
            writes_together,
        };
        let wake = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        Rig { lanes: Lanes::start(medium, Box::new(wake)).unwrap(), started, release, wakes }
    }

    fn next_id(lanes: &mut Lanes<Scripted>) -> RequestId {
        lanes.completion_blocking().unwrap().id
    }

    #[test]
    fn reads_and_writes_do_not_wait_for_a_flush() {
        let mut rig = rig(1);
        rig.lanes.submit(flush(1));
        assert_eq!(rig.started.recv(), Ok(Operation::Flush));
        rig.lanes.submit(read(2, 0, 512));
        assert_eq!(next_id(&mut rig.lanes), RequestId(2));
        rig.lanes.submit(write(3, 0, &[0; 512]));
        assert_eq!(next_id(&mut rig.lanes), RequestId(3));
        assert!(rig.lanes.completion().is_none());
        rig.release.send(()).unwrap();
        assert_eq!(next_id(&mut rig.lanes), RequestId(1));
        assert!(rig.lanes.completion_blocking().is_none());
    }

    #[test]
    fn two_writes_run_side_by_side() {
        // Each write waits inside the medium for the other.
        let mut rig = rig(2);
        rig.lanes.submit(write(1, 0, &[0; 512]));
        rig.lanes.submit(write(2, 512, &[0; 512]));
        let mut ids = [next_id(&mut rig.lanes), next_id(&mut rig.lanes)];
        ids.sort();
        assert_eq!(ids, [RequestId(1), RequestId(2)]);
    }

    #[test]
    fn every_completion_wakes() {
        let mut rig = rig(1);
        rig.lanes.submit(read(1, 0, 512));
        rig.lanes.refuse(read(2, 0, 512), DeviceError::OutOfRange);
        next_id(&mut rig.lanes);
        next_id(&mut rig.lanes);
        let wakes = rig.wakes.clone();
        // The wake-up follows the completion; joining the threads orders it before the count.
        drop(rig);
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_in_the_medium_fails_its_request_alone() {
        let mut rig = rig(1);
        rig.lanes.submit(read(1, PANICS, 512));
        rig.lanes.submit(read(2, 0, 512));
        let failed = rig.lanes.completion_blocking().unwrap();
        assert_eq!(failed.result, Err(DeviceError::Io { code: 0 }));
        assert_eq!(failed.buffer.len(), 512);
        let served = rig.lanes.completion_blocking().unwrap();
        assert_eq!(served.result, Ok(()));
    }

    #[test]
    fn a_panic_in_the_wake_up_loses_no_completion() {
        let (start, _started) = channel();
        let (_release, released) = channel();
        let medium = Scripted {
            started: Mutex::new(start),
            release: Mutex::new(released),
            writes: (Mutex::new(0), Condvar::new()),
            writes_together: 1,
        };
        let mut lanes = Lanes::start(medium, Box::new(|| panic!("planted"))).unwrap();
        for id in 0..4 {
            lanes.submit(read(id, 0, 512));
        }
        for id in 0..4 {
            assert_eq!(next_id(&mut lanes), RequestId(id));
        }
    }

    #[test]
    fn dropping_waits_for_what_runs_and_abandons_the_rest() {
        let mut rig = rig(1);
        rig.lanes.submit(flush(1));
        rig.lanes.submit(flush(2));
        assert_eq!(rig.started.recv(), Ok(Operation::Flush));
        assert_eq!(rig.started.recv(), Ok(Operation::Flush));
        rig.lanes.submit(write(3, 0, &[0; 512]));
        rig.lanes.shared.queues().closed = true;
        rig.release.send(()).unwrap();
        rig.release.send(()).unwrap();
        drop(rig.lanes);
        assert!(rig.started.try_recv().is_err());
    }
}
