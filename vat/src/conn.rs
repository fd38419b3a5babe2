//! One connection: its tables, its buffers, its end, and the switch over message types.
use crate::answer::Answer;
use crate::broken::broken;
use crate::exec::{Kind, Tasks};
use crate::frame::{self, FrameBuffer, Incoming};
use crate::hook::Cap;
use crate::import::Import;
use crate::limits::{Limits, Stats};
use crate::meter::{Held, Meter};
use crate::promise::PromiseCap;
use crate::question::Question;
use crate::refused::Refused;
use crate::rpc_capnp::message;
use crate::slab::Slab;
use crate::wire::{
    Outgoing, Target, builder, read_exception, write_exception, write_unimplemented,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::{Error, ErrorKind, Result};
use core::cell::{Cell, RefCell};
use core::task::Waker;

/// The state of a connection, shared by the vat and all capabilities that go through it.
///
/// No cell is borrowed while a capability, a task or results are dropped or called: that runs code
/// of others, which may come back here.
pub(crate) struct Conn {
    pub(crate) limits: Limits,
    pub(crate) meter: Rc<Meter>,
    pub(crate) tables: RefCell<Tables>,
    pub(crate) tasks: RefCell<Tasks>,
    pub(crate) bootstrap: RefCell<Option<Cap>>,
    pub(crate) refused: Refused,
    input: RefCell<FrameBuffer>,
    output: RefCell<Vec<u8>>,
    over: RefCell<Option<Error>>,
    /// Never more than [`Limits::in_flight_bytes`].
    pub(crate) in_flight_bytes_max: Cell<usize>,
    driver: Option<Waker>,
}

/// The four tables of the protocol, and what goes with them.
pub(crate) struct Tables {
    pub(crate) answers: BTreeMap<u32, AnswerEntry>,
    pub(crate) questions: Slab<QuestionEntry>,
    pub(crate) exports: Slab<Export>,
    /// The export of each capability, by its address.
    pub(crate) export_of: BTreeMap<usize, u32>,
    pub(crate) imports: BTreeMap<u32, Weak<Import>>,
    /// How the peer names the capabilities that go through this connection, by their address.
    pub(crate) targets: BTreeMap<usize, Target>,
    pub(crate) embargoes: Slab<Embargo>,
}

/// A call of the peer that it has not finished.
pub(crate) struct AnswerEntry {
    pub(crate) answer: Rc<Answer>,
    /// What its results exported, to be released with them.
    pub(crate) exports: Vec<u32>,
    /// The size of results kept for pipelining.
    pub(crate) held: Option<Held>,
    pub(crate) returned: bool,
}

/// A call of ours that the peer has not answered.
pub(crate) struct QuestionEntry {
    pub(crate) question: Weak<Question>,
    /// What its parameters exported, in case the peer does not keep them.
    pub(crate) exports: Vec<u32>,
}

/// A capability that the peer holds.
pub(crate) struct Export {
    pub(crate) cap: Cap,
    pub(crate) address: usize,
    pub(crate) references: u32,
}

/// A capability of ours that came back, and the promise that holds calls to it until calls made
/// through the peer have arrived.
pub(crate) struct Embargo {
    pub(crate) promise: Rc<PromiseCap>,
    pub(crate) cap: Cap,
}

impl Tables {
    fn new() -> Tables {
        Tables {
            answers: BTreeMap::new(),
            questions: Slab::new(),
            exports: Slab::new(),
            export_of: BTreeMap::new(),
            imports: BTreeMap::new(),
            targets: BTreeMap::new(),
            embargoes: Slab::new(),
        }
    }
}

impl Conn {
    pub(crate) fn new(bootstrap: Option<Cap>, limits: Limits, driver: Option<Waker>) -> Rc<Conn> {
        Rc::new(Conn {
            limits,
            meter: Rc::new(Meter::default()),
            tables: RefCell::new(Tables::new()),
            tasks: RefCell::new(Tasks::new(limits.calls, limits.tasks, driver.clone())),
            bootstrap: RefCell::new(bootstrap),
            refused: Refused::default(),
            input: RefCell::new(FrameBuffer::default()),
            output: RefCell::new(Vec::new()),
            over: RefCell::new(None),
            in_flight_bytes_max: Cell::new(limits.in_flight_bytes),
            driver,
        })
    }

    /// Handles received bytes. An error ends the connection.
    pub(crate) fn receive(self: &Rc<Self>, mut data: &[u8]) -> Result<()> {
        loop {
            if let Some(error) = self.over() {
                return Err(error);
            }
            let next = self.input.borrow_mut().next(&mut data, &self.limits);
            let handled = match next {
                Ok(Some(message)) => {
                    let handled = self.handle(message);
                    self.drop_cancelled();
                    handled
                }
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                self.end(error.clone(), true);
                return Err(error);
            }
        }
    }

    /// Ends the connection: cancels the peer's calls, fails ours, releases what the peer held.
    /// Spawned tasks stay and see it.
    pub(crate) fn end(self: &Rc<Self>, error: Error, abort: bool) {
        if self.over.borrow().is_some() {
            return;
        }
        if abort {
            self.send(|message| write_exception(&error, message.init_abort()));
        }
        self.over.replace(Some(error.clone()));
        self.input.take();
        let tables = self.tables.replace(Tables::new());
        let lost = Error { kind: ErrorKind::Disconnected, extra: error.extra };
        for entry in tables.answers.values() {
            entry.answer.close();
        }
        self.forget_refused();
        let calls = self.tasks.borrow_mut().release_all(Kind::Call);
        drop(calls);
        let bootstrap = self.bootstrap.take();
        drop(bootstrap);
        for entry in tables.answers.into_values() {
            entry.answer.settle(Err(lost.clone()));
        }
        drop(tables.exports);
        for entry in tables.questions.into_entries() {
            if let Some(question) = entry.question.upgrade() {
                question.settle(Err(lost.clone()));
            }
        }
        for embargo in tables.embargoes.into_entries() {
            embargo.promise.resolve(broken(lost.clone()));
        }
        self.drop_cancelled();
    }

    /// Drops the tasks that were cancelled, and those that are cancelled by that.
    pub(crate) fn drop_cancelled(&self) {
        loop {
            let task = self.tasks.borrow_mut().next_cancelled();
            let Some(task) = task else { return };
            drop(task);
        }
    }

    /// Why the connection is over, if it is.
    pub(crate) fn over(&self) -> Option<Error> {
        self.over.borrow().clone()
    }

    /// Identifies this connection among the capabilities' brands.
    pub(crate) fn brand(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Queues a small message. Nothing is sent once the connection is over.
    pub(crate) fn send(&self, write: impl FnOnce(message::Builder<'_>)) {
        let mut message = builder();
        write(message.init_root());
        self.send_built(&message);
    }

    pub(crate) fn send_built(&self, message: &Outgoing) {
        if self.over.borrow().is_some() {
            return;
        }
        let mut output = self.output.borrow_mut();
        let was_empty = output.is_empty();
        frame::append(&mut output, &message.get_segments_for_output());
        drop(output);
        if let Some(driver) = self.driver.as_ref().filter(|_| was_empty) {
            driver.wake_by_ref();
        }
    }

    /// Refuses a message that the peer, with limits like ours, would not read.
    pub(crate) fn check_size(&self, message: &Outgoing) -> Result<()> {
        let segments = message.get_segments_for_output();
        let bytes = frame::framed_bytes(&segments);
        if bytes <= self.limits.frame_bytes && segments.len() <= self.limits.segments as usize {
            return Ok(());
        }
        Err(Error::failed(format!(
            "a message of {bytes} bytes in {} segments; the limits are {} and {}",
            segments.len(),
            self.limits.frame_bytes,
            self.limits.segments
        )))
    }

    pub(crate) fn swap_output(&self, buffer: &mut Vec<u8>) {
        core::mem::swap(buffer, &mut self.output.borrow_mut());
    }

    pub(crate) fn output_bytes(&self) -> usize {
        self.output.borrow().len()
    }

    /// Bytes that count against [`Limits::in_flight_bytes`].
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.meter.bytes() + self.output_bytes()
    }

    pub(crate) fn is_congested(&self) -> bool {
        self.output_bytes() >= self.limits.output_high_water_bytes
    }

    pub(crate) fn stats(&self) -> Stats {
        let tables = self.tables.borrow();
        Stats {
            answers: tables.answers.len(),
            exports: tables.exports.count(),
            imports: tables.imports.len(),
            questions: tables.questions.count(),
            embargoes: tables.embargoes.count(),
            calls: self.meter.calls(),
            tasks: self.tasks.borrow().count(),
            held_bytes: self.meter.bytes(),
            input_bytes: self.input.borrow().capacity(),
            output_bytes: self.output_bytes(),
        }
    }

    fn handle(self: &Rc<Self>, incoming: Incoming) -> Result<()> {
        let root: message::Reader<'_> = incoming.get_root()?;
        match root.which() {
            Ok(message::Call(call)) => {
                call?;
                self.on_call(incoming)
            }
            Ok(message::Return(answered)) => {
                answered?;
                self.on_return(incoming)
            }
            Ok(message::Finish(finish)) => {
                let finish = finish?;
                self.on_finish(finish.get_question_id(), finish.get_release_result_caps());
                Ok(())
            }
            Ok(message::Release(release)) => {
                let release = release?;
                self.release(release.get_id(), release.get_reference_count())
            }
            Ok(message::Bootstrap(bootstrap)) => self.on_bootstrap(bootstrap?.get_question_id()),
            Ok(message::Disembargo(disembargo)) => self.on_disembargo(disembargo?),
            Ok(message::Unimplemented(echo)) => self.on_unimplemented(echo?),
            Ok(message::Abort(exception)) => {
                let error = read_exception(exception?);
                self.end(error.clone(), false);
                Err(error)
            }
            // A peer whose `Resolve` is not implemented goes on forwarding through its promise.
            // Provide, Accept and Join belong to level 3. The rest is obsolete, or not known yet.
            Ok(
                message::Resolve(_)
                | message::Provide(_)
                | message::Accept(_)
                | message::Join(_)
                | message::ObsoleteSave(_)
                | message::ObsoleteDelete(_),
            )
            | Err(_) => {
                self.send_unimplemented(incoming);
                Ok(())
            }
        }
    }

    pub(crate) fn send_unimplemented(&self, message: Incoming) {
        let mut echo = builder();
        write_unimplemented(message, &mut echo);
        self.send_built(&echo);
    }
}
