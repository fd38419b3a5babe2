//! A file served by the kernel's own queue, io_uring(7): no thread of ours between a request and the medium.
//!
//! This module owns the ring and every buffer that is in it. Reads and writes go to the device from within
//! [`Ring::submit`], and nothing there waits for the medium. The ring would give a flush to a worker of the kernel: to wake
//! that, and to be woken by it, takes longer than the flush of a quick device where processors sleep meanwhile. So as
//! long as flushes are quick, [`Ring::completion`] makes them itself, and waits for them.
//! The ring can do nothing but read, write and flush the one file: it gives up the rest before it starts, since no
//! filter of system calls sees what it does.

use core::mem;
use std::boxed::Box;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};

use crate::file::sync;
use crate::{Completion, DeviceError, EIO, EROFS, Operation, Request};

/// Requests that the kernel has at once; more wait in a queue of ours. Both copies of many groups, and as many reads.
const SLOTS: usize = 64;

/// The only file that the ring knows.
const FILE: Fixed = Fixed(0);

/// `IORING_UNREGISTER_FILES` of io_uring_register(2).
const UNREGISTER_FILES: u8 = 3;

/// Bytes of one transfer at most: Linux moves less than 2 GiB at once.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

/// What a flush takes at most for the next to be made without a worker: several times what a worker costs. Reads wait for
/// that one, however long it takes.
const QUICK: Duration = Duration::from_micros(500);

/// The ring, and what is in it.
pub(crate) struct Ring {
    ring: IoUring,
    /// The file, for flushes that are made without the ring.
    file: File,
    writable: bool,
    /// By slot, what the kernel has.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// What the kernel is to have next.
    waiting: VecDeque<Request>,
    /// Flushes behind the one that is out: two never overlap, because of two at once the kernel tells only one of a
    /// lost write, and the other would vouch for it.
    flushes: VecDeque<Request>,
    /// When the flush that is out began.
    flushing: Option<Instant>,
    /// The flush that is out, where it waits for [`Ring::completion`] to make it.
    kept: Option<Request>,
    /// Whether the last flush was [`QUICK`].
    quick: bool,
    /// Why a flush failed, which is final.
    failure: Option<DeviceError>,
    ended: VecDeque<Completion>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A request that the kernel has.
struct Flight {
    request: Request,
    /// Bytes that were moved by earlier answers.
    moved: usize,
}

/// What follows an answer of the kernel.
#[derive(PartialEq, Eq, Debug)]
enum Next {
    /// The request, or what is left of it, goes out again.
    Again,
    Ended(Result<(), DeviceError>),
}

impl Ring {
    /// Makes a ring for `file`, which has to stay open as long.
    ///
    /// `wake` is called where something has ended without the kernel, so that the descriptor does not tell.
    ///
    /// # Errors
    /// The kernel has no such rings, or none for this process.
    pub(crate) fn start(
        file: &File,
        writable: bool,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        Ok(Self {
            ring: restricted(file)?,
            file: file.try_clone()?,
            writable,
            flights: (0..SLOTS).map(|_| None).collect(),
            free: (0..SLOTS).collect(),
            waiting: VecDeque::new(),
            flushes: VecDeque::new(),
            flushing: None,
            kept: None,
            quick: false,
            failure: None,
            ended: VecDeque::new(),
            wake,
        })
    }

    /// Yields the descriptor that is readable while the kernel has answers.
    pub(crate) fn ready(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Takes a request, and gives it to the kernel as soon as there is room.
    pub(crate) fn submit(&mut self, request: Request) {
        self.waiting.push_back(request);
        self.launch();
    }

    /// Ends `request` without asking the kernel.
    pub(crate) fn answer(&mut self, request: Request, result: Result<(), DeviceError>) {
        self.ended.push_back(Completion { id: request.id, buffer: request.buffer, result });
        (self.wake)();
    }

    /// Hands out what has ended. Where nothing has, it makes the flush that waits for that, if there is one.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        if self.ended.is_empty() {
            self.reap();
            self.launch();
        }
        if self.ended.is_empty()
            && let Some(request) = self.kept.take()
        {
            let result = sync(|| self.file.sync_data());
            self.flushed(request, result);
            self.launch();
        }
        self.ended.pop_front()
    }

    /// Waits for a request to end; `None` when there is none.
    pub(crate) fn completion_blocking(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.completion() {
                return Some(completion);
            }
            if self.is_idle() {
                return None;
            }
            self.wait();
        }
    }

    /// Tells whether the kernel has nothing.
    fn is_idle(&self) -> bool {
        self.free.len() == SLOTS
    }

    /// Gives the kernel what it has room for.
    fn launch(&mut self) {
        while !self.free.is_empty() {
            let Some(request) = self.next() else { break };
            let slot = self.free.pop().expect("a slot was seen to be free");
            self.put(slot, Flight { request, moved: 0 });
        }
        self.enter();
    }

    /// Yields the next request that needs the kernel; ends those that do not.
    fn next(&mut self) -> Option<Request> {
        loop {
            let flush = if self.flushing.is_some() { None } else { self.flushes.pop_front() };
            let request = flush.or_else(|| self.waiting.pop_front())?;
            match (request.operation, self.failure) {
                (Operation::Flush, Some(error)) => self.answer(request, Err(error)),
                (Operation::Flush, None) if self.flushing.is_some() => {
                    self.flushes.push_back(request);
                }
                (Operation::Flush, None) => {
                    self.flushing = Some(Instant::now());
                    if !self.quick {
                        return Some(request);
                    }
                    self.kept = Some(request);
                    (self.wake)();
                }
                (Operation::Write { .. }, _) if !self.writable => {
                    self.answer(request, Err(DeviceError::Io { code: EROFS }));
                }
                _ if request.buffer.is_empty() => self.answer(request, Ok(())),
                (Operation::Read { .. } | Operation::Write { .. }, _) => return Some(request),
            }
        }
    }

    /// Puts an entry for `flight` into the ring.
    #[expect(unsafe_code, reason = "the kernel is given the address of a buffer")]
    fn put(&mut self, slot: usize, mut flight: Flight) {
        let entry = flight.entry().user_data(slot as u64);
        // SAFETY: the entry names bytes of a buffer that the flight owns. The flight stays in `flights`, where nothing
        // touches it, until the kernel has answered for its slot: `reap` takes it out then, and `drop` waits for that or
        // leaks it. Moving the flight does not move the buffer's memory.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the ring has as many entries as there are slots");
        if let Some(place) = self.flights.get_mut(slot) {
            *place = Some(flight);
        }
    }

    /// Tells the kernel of the entries that are in the ring.
    fn enter(&mut self) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // It is short of memory. The entries stay in the ring, and the owner comes round.
                    return (self.wake)();
                }
            }
        }
    }

    /// Takes the kernel's answers.
    fn reap(&mut self) {
        while let Some((slot, mut flight, answer)) = self.answered() {
            match flight.next(answer) {
                Next::Again => self.put(slot, flight),
                Next::Ended(result) => self.land(slot, flight.request, result),
            }
        }
    }

    /// Takes out what the kernel has answered next.
    fn answered(&mut self) -> Option<(usize, Flight, i32)> {
        let answer = self.ring.completion().next()?;
        let slot = usize::try_from(answer.user_data()).ok()?;
        let flight = self.flights.get_mut(slot)?.take()?;
        Some((slot, flight, answer.result()))
    }

    fn land(&mut self, slot: usize, request: Request, result: Result<(), DeviceError>) {
        self.free.push(slot);
        if request.operation == Operation::Flush {
            return self.flushed(request, result);
        }
        self.ended.push_back(Completion { id: request.id, buffer: request.buffer, result });
    }

    /// Ends the flush that is out.
    fn flushed(&mut self, request: Request, result: Result<(), DeviceError>) {
        self.quick = self.flushing.take().is_some_and(|begun| begun.elapsed() <= QUICK);
        self.failure = result.err();
        self.ended.push_back(Completion { id: request.id, buffer: request.buffer, result });
    }

    /// Waits until the kernel has an answer.
    fn wait(&self) {
        match self.ring.submitter().submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It is short of memory, and nothing else can be done meanwhile.
            Err(_) => thread::yield_now(),
        }
    }
}

/// Waits for what the kernel has, whose buffers it still writes to, and abandons the rest.
impl Drop for Ring {
    fn drop(&mut self) {
        while !self.is_idle() {
            if self.ring.submitter().submit_and_wait(1).is_err_and(|error| {
                !matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
            }) {
                // The kernel does not say what became of them.
                return mem::forget(mem::take(&mut self.flights));
            }
            while let Some((slot, _, _)) = self.answered() {
                self.free.push(slot);
            }
        }
        // The kernel takes a ring apart when it finds time, and would hold the file, and its lock, until then.
        let _held = self.ring.submitter().unregister_files();
    }
}

impl Flight {
    /// Describes to the kernel what is left to do.
    fn entry(&mut self) -> Entry {
        let moved = self.moved;
        let rest = self.request.buffer.get_mut(moved..).unwrap_or_default();
        let bytes = u32::try_from(rest.len().min(TRANSFER_BYTES_MAX)).unwrap_or(0);
        match self.request.operation {
            Operation::Read { offset } => opcode::Read::new(FILE, rest.as_mut_ptr(), bytes)
                .offset(offset + moved as u64)
                .build(),
            Operation::Write { offset } => {
                opcode::Write::new(FILE, rest.as_ptr(), bytes).offset(offset + moved as u64).build()
            }
            Operation::Flush => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Tells what follows the kernel's answer: bytes moved, or an error number below zero.
    fn next(&mut self, answer: i32) -> Next {
        let Ok(bytes) = usize::try_from(answer) else {
            let code = answer.saturating_neg();
            // What was interrupted has done and reported nothing yet, a flush too: it alone goes out again.
            let again = io::Error::from_raw_os_error(code).kind() == io::ErrorKind::Interrupted;
            return if again { Next::Again } else { Next::Ended(Err(DeviceError::Io { code })) };
        };
        if self.request.operation == Operation::Flush {
            return Next::Ended(Ok(()));
        }
        self.moved += bytes;
        if self.moved >= self.request.buffer.len() {
            Next::Ended(Ok(()))
        } else if bytes == 0 {
            // The file has become shorter than it was when it was opened.
            Next::Ended(Err(DeviceError::Io { code: EIO }))
        } else {
            Next::Again
        }
    }
}

/// Makes a ring that takes reads, writes and flushes of `file`, and nothing else ever.
fn restricted(file: &File) -> io::Result<IoUring> {
    let entries = u32::try_from(SLOTS).unwrap_or(u32::MAX);
    let ring = IoUring::builder().dontfork().setup_r_disabled().build(entries)?;
    let submitter = ring.submitter();
    submitter.register_files(&[file.as_raw_fd()])?;
    submitter.register_restrictions(&mut [
        Restriction::sqe_op(opcode::Read::CODE),
        Restriction::sqe_op(opcode::Write::CODE),
        Restriction::sqe_op(opcode::Fsync::CODE),
        Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
        Restriction::register_op(UNREGISTER_FILES),
    ])?;
    submitter.register_enable_rings()?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process;
    use std::{format, fs};

    use super::*;
    use crate::conformance::{flush, read, write};

    const EINTR: i32 = 4;
    const EACCES: i32 = 13;

    fn flight(request: Request) -> Flight {
        Flight { request, moved: 0 }
    }

    #[test]
    fn short_answers_are_carried_on() {
        for request in [read(1, 4096, 8192), write(1, 4096, &[7; 8192])] {
            let mut flight = flight(request);
            assert_eq!(flight.next(4096), Next::Again);
            assert_eq!(flight.next(-EINTR), Next::Again);
            assert_eq!(flight.moved, 4096);
            assert_eq!(flight.next(4096), Next::Ended(Ok(())));
        }
    }

    #[test]
    fn an_answer_without_progress_is_an_error() {
        let ended = Next::Ended(Err(DeviceError::Io { code: EIO }));
        assert_eq!(flight(read(1, 0, 512)).next(0), ended);
        assert_eq!(flight(write(1, 0, &[0; 512])).next(0), ended);
    }

    #[test]
    fn an_interrupted_flush_alone_goes_out_again() {
        assert_eq!(flight(flush(1)).next(-EINTR), Next::Again);
        assert_eq!(flight(flush(1)).next(0), Next::Ended(Ok(())));
        assert_eq!(flight(flush(1)).next(-28), Next::Ended(Err(DeviceError::Io { code: 28 })));
        let worst = DeviceError::Io { code: i32::MAX };
        assert_eq!(flight(flush(1)).next(i32::MIN), Next::Ended(Err(worst)));
    }

    /// A ring on a file of its own, which has no name any more; `None` where the kernel has none.
    fn ring(name: &str) -> Option<Ring> {
        let path = env::temp_dir().join(format!("blockdev-ring-{}-{name}", process::id()));
        fs::write(&path, [0; 65536]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        fs::remove_file(path).unwrap();
        let started = Ring::start(&file, true, Box::new(|| {}));
        // Another file system or kernel than that of CI; `FileDevice` then has threads.
        started.inspect_err(|error| std::eprintln!("no ring, so not tested: {error}")).ok()
    }

    #[test]
    fn a_failed_flush_is_final_and_flushes_never_overlap() {
        let Some(mut ring) = ring("flush") else { return };
        ring.flushing = Some(Instant::now());
        ring.submit(flush(1));
        ring.submit(flush(2));
        assert!(ring.completion().is_none());
        assert_eq!(ring.flushes.len(), 2);
        let slot = ring.free.pop().unwrap();
        ring.land(slot, flush(0), Err(DeviceError::Io { code: 5 }));
        for id in 0..3 {
            let completion = ring.completion_blocking().unwrap();
            assert_eq!(completion.id.0, id);
            assert_eq!(completion.result, Err(DeviceError::Io { code: 5 }));
        }
        assert!(ring.completion_blocking().is_none());
    }

    #[test]
    fn a_flush_after_a_quick_one_takes_no_worker() {
        let Some(mut ring) = ring("quick") else { return };
        ring.quick = true;
        ring.submit(flush(1));
        ring.submit(write(2, 0, &[7; 4096]));
        assert_eq!((ring.kept.is_some(), ring.free.len()), (true, SLOTS - 1));
        // Neither overtakes the other, and the next one waits.
        ring.submit(flush(3));
        let mut seen: Vec<u64> = (0..3).map(|_| ring.completion_blocking().unwrap().id.0).collect();
        assert!(ring.completion_blocking().is_none());
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);

        ring.flushing = Instant::now().checked_sub(2 * QUICK);
        ring.flushed(flush(4), Ok(()));
        ring.submit(flush(5));
        assert_eq!((ring.kept.is_some(), ring.free.len()), (false, SLOTS - 1));
        let seen: Vec<u64> = (0..2).map(|_| ring.completion_blocking().unwrap().id.0).collect();
        assert_eq!(seen, [4, 5]);
    }

    #[test]
    fn more_requests_than_slots_all_end() {
        let Some(mut ring) = ring("many") else { return };
        for id in 0..1000 {
            ring.submit(write(id, id % 16 * 4096, &[7; 4096]));
        }
        let mut seen: Vec<u64> =
            std::iter::from_fn(|| ring.completion_blocking()).map(|end| end.id.0).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_that_is_dropped_waits_for_the_kernel() {
        let Some(mut ring) = ring("drop") else { return };
        for id in 0..200 {
            ring.submit(read(id, 0, 65536));
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "an entry that the ring must refuse")]
    fn the_ring_does_nothing_else() {
        let Some(mut ring) = ring("else") else { return };
        let name = c"/etc/hostname";
        let entries = [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(io_uring::types::Fd(-100), name.as_ptr()).build(),
            // The right operation, on a descriptor of the process.
            opcode::Fsync::new(io_uring::types::Fd(0)).build(),
        ];
        for entry in entries {
            // SAFETY: the entry names no memory but a constant.
            unsafe { ring.ring.submission().push(&entry).unwrap() };
            ring.ring.submit_and_wait(1).unwrap();
            let answer = ring.ring.completion().next().unwrap();
            assert_eq!(answer.result(), -EACCES);
        }
    }
}
