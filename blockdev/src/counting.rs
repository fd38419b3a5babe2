//! A wrapper that counts what crosses it and, when asked, remembers the order.

use alloc::vec::Vec;

use crate::{BlockDevice, Completion, DeviceError, Geometry, Operation, Request, RequestId};

/// Any device, with counters over its requests and a log of its writes and flushes.
///
/// The counters are exact and take no clock, so a test can assert what an operation costs. The
/// log is off until [`Counting::record`]: it grows with every write.
#[derive(Clone, Debug)]
pub struct Counting<D> {
    device: D,
    counts: Counts,
    events: Option<Vec<Event>>,
    in_flight: Vec<(RequestId, Operation)>,
}

/// How many requests were submitted, whether or not they succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Reads submitted.
    pub reads: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Flushes submitted.
    pub flushes: u64,
    /// Bytes that those reads asked for.
    pub bytes_read: u64,
    /// Bytes that those writes brought.
    pub bytes_written: u64,
}

/// One line of the log. Reads are not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A write or flush went to the device.
    Submitted {
        /// The request.
        id: RequestId,
        /// A write or a flush.
        operation: Operation,
        /// Length of the write; 0 for a flush.
        bytes: usize,
    },
    /// A write or flush was handed back.
    Completed {
        /// The request.
        id: RequestId,
        /// A write or a flush.
        operation: Operation,
        /// How it ended.
        result: Result<(), DeviceError>,
    },
    /// What the caller noted with [`Counting::note`]: an acknowledgement that left, for example.
    Noted(u64),
}

impl<D> Counting<D> {
    /// Yields `device` with its counters at zero and no log.
    pub fn new(device: D) -> Self {
        Self { device, counts: Counts::default(), events: None, in_flight: Vec::new() }
    }

    /// Starts a log, or empties the one there is.
    pub fn record(&mut self) {
        self.events = Some(Vec::new());
    }

    /// Puts `mark` into the log, so that what happens above the device has its place in the order.
    pub fn note(&mut self, mark: u64) {
        self.log(Event::Noted(mark));
    }

    /// Sets the counters to zero and yields what they were.
    pub fn take_counts(&mut self) -> Counts {
        core::mem::take(&mut self.counts)
    }

    /// Yields the device itself, for faults; requests given to it here are not seen.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Yields the device itself.
    pub fn inner(&self) -> &D {
        &self.device
    }

    /// Yields the counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Yields the log; empty before [`Counting::record`].
    pub fn events(&self) -> &[Event] {
        self.events.as_deref().unwrap_or_default()
    }

    /// Yields the device and drops counters and log.
    pub fn into_inner(self) -> D {
        self.device
    }

    fn log(&mut self, event: Event) {
        if let Some(events) = &mut self.events {
            events.push(event);
        }
    }
}

impl<D: BlockDevice> BlockDevice for Counting<D> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&mut self, request: Request) {
        let bytes = request.buffer.len();
        match request.operation {
            Operation::Read { .. } => {
                self.counts.reads += 1;
                self.counts.bytes_read += bytes as u64;
            }
            Operation::Write { .. } => {
                self.counts.writes += 1;
                self.counts.bytes_written += bytes as u64;
            }
            Operation::Flush => self.counts.flushes += 1,
        }
        if !matches!(request.operation, Operation::Read { .. }) && self.events.is_some() {
            let (id, operation) = (request.id, request.operation);
            self.in_flight.push((id, operation));
            self.log(Event::Submitted { id, operation, bytes });
        }
        self.device.submit(request);
    }

    fn completion(&mut self) -> Option<Completion> {
        let completion = self.device.completion()?;
        let id = completion.id;
        if let Some(index) = self.in_flight.iter().position(|(each, _)| *each == id) {
            let (_, operation) = self.in_flight.swap_remove(index);
            self.log(Event::Completed { id, operation, result: completion.result });
        }
        Some(completion)
    }
}

/// Yields the writes of `events` that a power cut after the last event may still lose.
///
/// A write is protected once a flush that was submitted after its completion has completed with
/// success. To prove that no acknowledgement leaves early, pass the log up to where it was noted.
/// A write that failed is never protected, and a failed flush protects nothing, nor does any
/// flush after it: what it covered stays in the answer.
///
/// Cost: the square of the events at worst.
pub fn unprotected_writes(events: &[Event]) -> Vec<RequestId> {
    let mut open: Vec<(RequestId, Written)> = Vec::new();
    let mut flushes: Vec<(RequestId, usize)> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        match *event {
            Event::Submitted { id, operation, .. } => match operation {
                Operation::Write { .. } => open.push((id, Written::InFlight)),
                Operation::Flush => flushes.push((id, index)),
                Operation::Read { .. } => {}
            },
            Event::Completed { id, operation: Operation::Write { .. }, result } => {
                let written = match result {
                    Ok(()) => Written::At(index),
                    Err(_) => Written::Lost,
                };
                let of_write =
                    |each: &&mut (RequestId, Written)| each.0 == id && each.1 == Written::InFlight;
                if let Some(each) = open.iter_mut().find(of_write) {
                    each.1 = written;
                }
            }
            Event::Completed { id, result, .. } => {
                let Some(place) = flushes.iter().position(|(flush, _)| *flush == id) else {
                    continue;
                };
                let (_, submitted) = flushes.swap_remove(place);
                match result {
                    Ok(()) => open.retain(|(_, written)| match written {
                        Written::At(completed) => *completed > submitted,
                        Written::InFlight | Written::Lost => true,
                    }),
                    Err(_) => open
                        .iter_mut()
                        .filter(|(_, written)| matches!(written, Written::At(_)))
                        .for_each(|(_, written)| *written = Written::Lost),
                }
            }
            Event::Noted(_) => {}
        }
    }
    open.into_iter().map(|(id, _)| id).collect()
}

/// How far a write of the log has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    InFlight,
    /// Completed with success as the event of this index.
    At(usize),
    /// Failed, or a flush that covered it failed.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;
    use crate::conformance::{self, flush, read, run, write};

    fn recording() -> Counting<MemoryDevice> {
        let mut device = Counting::new(MemoryDevice::new(64 * 1024));
        device.record();
        device
    }

    fn submitted(id: u64, operation: Operation) -> Event {
        Event::Submitted { id: RequestId(id), operation, bytes: 0 }
    }

    fn completed(id: u64, operation: Operation, result: Result<(), DeviceError>) -> Event {
        Event::Completed { id: RequestId(id), operation, result }
    }

    const WRITE: Operation = Operation::Write { offset: 0 };
    const FLUSH: Operation = Operation::Flush;
    const FAILED: Result<(), DeviceError> = Err(DeviceError::Io { code: 5 });

    #[track_caller]
    fn check(events: &[Event], expected: &[u64]) {
        let ids: Vec<u64> = unprotected_writes(events).iter().map(|id| id.0).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn keeps_the_contract_of_the_device_inside() {
        conformance::check(&mut recording());
    }

    #[test]
    fn counts_every_request_and_its_bytes() {
        let mut device = recording();
        run(&mut device, write(1, 0, &[1; 512]));
        run(&mut device, write(2, 512, &[2; 1024]));
        run(&mut device, flush(3));
        run(&mut device, read(4, 0, 4096));
        let expected =
            Counts { reads: 1, writes: 2, flushes: 1, bytes_read: 4096, bytes_written: 1536 };
        assert_eq!(device.counts(), expected);
        assert_eq!(device.take_counts(), expected);
        assert_eq!(device.counts(), Counts::default());
    }

    #[test]
    fn logs_writes_flushes_and_notes_in_order() {
        let mut device = recording();
        device.submit(write(1, 512, &[1; 512]));
        device.submit(flush(2));
        while device.completion().is_some() {}
        run(&mut device, read(3, 0, 512));
        device.note(7);
        let operation = Operation::Write { offset: 512 };
        let expected = [
            Event::Submitted { id: RequestId(1), operation, bytes: 512 },
            submitted(2, FLUSH),
            completed(1, operation, Ok(())),
            completed(2, FLUSH, Ok(())),
            Event::Noted(7),
        ];
        assert_eq!(device.events(), expected);
        // The flush was submitted before the write completed.
        check(device.events(), &[1]);
        run(&mut device, flush(4));
        check(device.events(), &[]);
    }

    #[test]
    fn a_flush_protects_only_what_completed_before_its_submission() {
        let events = [
            submitted(1, WRITE),
            submitted(2, WRITE),
            completed(1, WRITE, Ok(())),
            submitted(3, FLUSH),
            completed(2, WRITE, Ok(())),
            completed(3, FLUSH, Ok(())),
        ];
        check(&events[..5], &[1, 2]);
        check(&events, &[2]);
    }

    #[test]
    fn a_failed_flush_or_write_is_never_made_good() {
        let events = [
            submitted(1, WRITE),
            submitted(2, WRITE),
            completed(1, WRITE, Ok(())),
            completed(2, WRITE, FAILED),
            submitted(3, FLUSH),
            completed(3, FLUSH, FAILED),
            submitted(4, FLUSH),
            completed(4, FLUSH, Ok(())),
        ];
        check(&events, &[1, 2]);
    }
}
