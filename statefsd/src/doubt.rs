//! What is not known of the batches with a token after a loss of data, and who was told so.
//!
//! A batch that was lost from memory and one that was never sent look alike. So while there may have been one that is promised
//! to be remembered, whoever sends a batch that is not is told first, and has it applied by sending it again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::request::Token;
use crate::session::ConnectionId;
use crate::tokens::{REMEMBERED, SLOTS};

/// Tokens of which is kept that they were told: as many as are remembered.
const TOLD_MAX: usize = SLOTS as usize;

/// What is not known. The default is that nothing is amiss.
#[derive(Default)]
pub(crate) struct Doubt {
    is_left: bool,
    /// Slots of which nothing is known, as far as they were not given away.
    slots: Vec<u16>,
    /// How many of them hold what cannot be read.
    unread: usize,
    /// Batches that were applied after all that may be lost.
    newer: usize,
    /// Who was told of these batches, and of those that were saved from another volume: by service, the oldest first.
    told: BTreeMap<String, VecDeque<Told>>,
}

struct Told {
    token: Token,
    /// Where and when it was told last.
    last: Sending,
    twice: bool,
}

/// Where and when a batch is sent.
#[derive(Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) connection: ConnectionId,
    /// How often the server had been polled when it came.
    pub(crate) arrived: u64,
    /// The same when it is answered: an answer leaves with the next poll at the earliest.
    pub(crate) polls: u64,
}

impl Doubt {
    /// The doubt of a volume with slots that cannot be read: nothing tells how old the batches in them were, so they count as
    /// younger than all that are known. After a loss of whole groups the slots that hold nothing are `empty` in doubt, and what
    /// is `certain` was written after it.
    pub(crate) fn new(unread: Vec<u16>, empty: Option<Vec<u16>>, certain: usize) -> Self {
        let newer = if unread.is_empty() { certain } else { 0 };
        let is_left = newer < REMEMBERED && (!unread.is_empty() || empty.is_some());
        let (unread, mut slots) = (unread.len(), unread);
        slots.extend(empty.unwrap_or_default());
        Self { is_left, slots, unread, newer, ..Self::default() }
    }

    /// Tells how many slots there are that cannot be read, and may hold what is promised to be remembered.
    pub(crate) fn unread(&self) -> usize {
        self.unread
    }

    /// Adds a slot that cannot be read. What it holds may be of the moment.
    pub(crate) fn add(&mut self, slot: u16) {
        self.slots.push(slot);
        self.unread += 1;
        (self.is_left, self.newer) = (true, 0);
    }

    /// Tells whether a batch that is not remembered may be taken for a new one; else its sender has to be told.
    pub(crate) fn admits(&mut self, service: &str, token: Token, sending: Sending) -> bool {
        !self.is_left || self.was_told(service, token, sending)
    }

    /// Tells whether the sender of a batch knows that nothing tells what became of it; else it has to be told.
    ///
    /// That an answer arrived is known only of a connection on which the batch is sent again: on another one it is told once
    /// more, for a client may have made the connection anew without hearing of it. And what had not left yet was not heard:
    /// whose patience ended before may have sent the batch again without an answer.
    pub(crate) fn was_told(&mut self, service: &str, token: Token, sending: Sending) -> bool {
        let of_service = self.told.entry(service.into()).or_default();
        if let Some(told) = of_service.iter_mut().find(|told| told.token == token) {
            let last = mem::replace(&mut told.last, sending);
            if sending.arrived <= last.polls {
                return false;
            }
            let heard = told.twice || last.connection == sending.connection;
            told.twice = true;
            return heard;
        }
        of_service.push_back(Told { token, last: sending, twice: false });
        if self.told.values().map(VecDeque::len).sum::<usize>() > TOLD_MAX
            && let Some(most) = self.told.values_mut().max_by_key(|told| told.len())
        {
            most.pop_front();
        }
        false
    }

    /// Gives away a slot of which nothing is known, of those that leave room for what is promised to be remembered.
    pub(crate) fn take_spare(&mut self) -> Option<u16> {
        if self.slots.len() > usize::from(SLOTS) - REMEMBERED { self.slots.pop() } else { None }
    }

    /// Gives away one of the others.
    pub(crate) fn take_last(&mut self) -> Option<u16> {
        self.slots.pop()
    }

    /// Notes that a batch was applied. After as many as are promised to be remembered nothing older is, and the slots that are
    /// yielded are free.
    pub(crate) fn applied(&mut self, service: &str, token: Token) -> Vec<u16> {
        if let Some(told) = self.told.get_mut(service) {
            told.retain(|told| told.token != token);
        }
        self.newer += 1;
        if self.is_left && self.newer >= REMEMBERED {
            (self.is_left, self.unread) = (false, 0);
            return mem::take(&mut self.slots);
        }
        Vec::new()
    }
}
