//! One connection of a client: what it asks, and when it compares what it was told with what there is.

use super::ServedCounts;
use super::answers::{Awaited, Went, Write};
use crate::sim::model::{ABSENT, Changed, Model, ValueId};
use crate::sim::plan::CHANGES_MAX;
use fastrand::Rng;
use statefs_client::{
    Batch, Directory, Durability, ListOptions, Precondition, Rights, StateFs, Token, WriteOptions,
};
use statefsd::ConnectionId;
use std::task::Poll;
use vat::Vat;

/// Keys that each client writes.
pub(super) const KEYS: u8 = 6;
/// The key that every batch with a token writes, and nothing else: what it has tells which of them was applied last.
const BATCH_KEY: u8 = KEYS - 1;
/// Most calls that a client awaits.
const CALLS_MAX: usize = 8;
/// A key that the policy grants to nobody.
const SECRET: &str = "secret";
/// Most bytes of a value that goes out in one call, beside its number.
const BYTES_MAX: u16 = 300;
/// Most bytes of one that goes out in parts.
const LARGE_BYTES_MAX: u16 = 2500;
/// Most batches with tokens of one history: all are remembered, and a small volume would be full of them.
const TOKENS_MAX: u32 = 100;
/// Most bytes of a part: no volume here takes more in one call.
const PART_BYTES_MAX: usize = 1600;

/// What the world knows beside the connection.
pub(super) struct Known<'a> {
    /// One for each client.
    pub(super) models: &'a mut [Model],
    pub(super) counts: &'a mut ServedCounts,
    /// For each client, how many of its commits were acknowledged in any way.
    pub(super) acknowledged: &'a mut [usize],
    /// For each client, how often its commits were counted anew.
    pub(super) epochs: &'a mut [u64],
    /// For each client, the last batch that it sent with a token.
    pub(super) sent: &'a mut [Option<Sent>],
    /// How many batches have had tokens; each is remembered on the volume.
    pub(super) tokens: &'a mut u32,
    /// A request of the device may have failed in this life.
    pub(super) armed: bool,
    pub(super) next_value: &'a mut ValueId,
}

/// A batch that may be sent again.
pub(super) struct Sent {
    batch: Batch,
    changes: [Option<Changed>; CHANGES_MAX],
    durability: Durability,
    /// Its number among the client's commits, unless these were counted anew since.
    count: Option<usize>,
    /// It was answered, and there is no doubt that it was applied.
    pub(super) applied: bool,
}

/// A connection.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) vat: Vat,
    /// Bytes on their way to the server.
    pub(super) outbox: Vec<u8>,
    /// Turns for which the client reads nothing.
    pub(super) stalled: u32,
    number: usize,
    own: Directory,
    all: Directory,
    awaited: Vec<Awaited>,
    /// What the client's keys have, as far as they were compared.
    found: Vec<ValueId>,
    /// How many keys the server counts for the client.
    counted: u64,
    stage: Stage,
}

/// How far a connection has come: it compares all keys of its client before it writes one.
#[derive(PartialEq, Eq)]
enum Stage {
    /// A write of no consequence is on its way, behind all that earlier connections left.
    Waiting,
    Comparing,
    Working,
    /// A large value is on its way, whose place in the order is not known before it is answered.
    Uploading,
    /// The store has stopped writing: nothing is asked until the next crash.
    Idle,
}

impl Link {
    pub(super) fn new(number: usize, id: ConnectionId) -> Self {
        let vat = Vat::new(None, vat::Limits::default());
        let store = StateFs::over(&vat);
        let own = store.directory(&format!("/state/c{number}"), Rights::ALL);
        let all = store.directory("/state", Rights::ALL);
        let awaited = vec![Awaited::Barrier(own.put("barrier", b""))];
        let (outbox, found, stage) = (Vec::new(), vec![ABSENT; KEYS.into()], Stage::Waiting);
        Self { id, vat, outbox, stalled: 0, number, own, all, awaited, found, counted: 0, stage }
    }

    /// Whether everything was compared, or cannot be.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Working | Stage::Uploading | Stage::Idle)
    }

    /// Asks for something, if it awaits little.
    pub(super) fn act(&mut self, rng: &mut Rng, known: &mut Known<'_>) {
        if self.stage != Stage::Working || self.awaited.len() >= CALLS_MAX {
            return;
        }
        let (number, key) = (self.number, rng.u8(..KEYS));
        // A store that has stopped shows nothing but what is durable.
        let own = match known.armed {
            true => known.models[number].must(),
            false => known.models[number].taken(),
        };
        let one = match rng.u8(..16) {
            0..=4 => self.write(rng, known, single(key)),
            5 => self.batch(rng, known),
            6 => return self.upload(rng, known, single(key)),
            7 => self.again(known),
            8 => Awaited::Sync(self.own.sync(), known.acknowledged[number]),
            9 | 10 => {
                let call = self.own.get(&key.to_string());
                Awaited::Get { call, of: number, key, least: own, epoch: 0 }
            }
            11 | 12 => {
                let of = rng.usize(..known.models.len());
                let call = self.all.get(&format!("c{of}/{key}"));
                // Others see what is durable, or acknowledged as buffered.
                let least = if of == number { own } else { known.models[of].must() };
                Awaited::Get { call, of, key, least, epoch: known.epochs[of] }
            }
            13 => {
                let keys: Vec<_> = (0..KEYS).map(|key| key.to_string()).collect();
                let keys: Vec<_> = keys.iter().map(String::as_str).collect();
                Awaited::Many(self.own.get_some(&keys, false), own)
            }
            14 => Awaited::List(self.own.page(&ListOptions::default()), own),
            _ => self.trespass(rng, known),
        };
        self.awaited.push(one);
    }

    /// Asks for what the policy does not grant.
    fn trespass(&self, rng: &mut Rng, known: &Known<'_>) -> Awaited {
        let other = (self.number + rng.usize(1..known.models.len())) % known.models.len();
        let foreign = format!("c{other}/{}", rng.u8(..KEYS));
        match rng.u8(..5) {
            0 => Awaited::DeniedPut(self.all.put(SECRET, b"never")),
            1 => Awaited::DeniedPut(self.all.put(&foreign, b"never")),
            2 => Awaited::DeniedPut(self.all.put_if_absent(&foreign, b"never")),
            3 => Awaited::DeniedDelete(self.all.delete(&foreign)),
            _ => Awaited::DeniedGet(self.all.get(SECRET)),
        }
    }

    fn write(&self, rng: &mut Rng, known: &mut Known<'_>, key: u8) -> Awaited {
        let id = *known.next_value;
        let model = &mut known.models[self.number];
        let precondition = precondition(rng, model, key);
        let durability = durability(rng);
        let holds = model.holds(key, precondition);
        let options = WriteOptions { precondition: precondition_of(precondition), durability };
        let (name, buffered) = (key.to_string(), durability == Durability::Buffered);
        if rng.u8(..4) > 0 {
            *known.next_value += 1;
            let value = model.write(id, key, rng.u16(..BYTES_MAX).into());
            let count = holds.then(|| model.commit([Some((key, id)), None, None], buffered));
            let write =
                Write { count, conflicts: !holds, values: [id, ABSENT, ABSENT], durability };
            return Awaited::Put(self.own.put_with(&name, &value, options), write);
        }
        let taken = holds && model.pending(key) != ABSENT;
        let count = taken.then(|| model.commit([Some((key, ABSENT)), None, None], buffered));
        let write = Write { count, conflicts: !holds, values: [ABSENT; CHANGES_MAX], durability };
        Awaited::Delete(self.own.delete_with(&name, options), write)
    }

    /// Sends a few changes together; half of the batches have a token.
    fn batch(&self, rng: &mut Rng, known: &mut Known<'_>) -> Awaited {
        let model = &mut known.models[self.number];
        let (durability, named) = (durability(rng), rng.bool() && *known.tokens < TOKENS_MAX);
        *known.tokens += u32::from(named);
        let (mut batch, mut changes) = (Batch::new(), [None; CHANGES_MAX]);
        let (mut values, mut holds) = ([ABSENT; CHANGES_MAX], true);
        batch.durability(durability);
        let first = rng.u8(..BATCH_KEY - 1);
        let mut keys = vec![first, first + 1];
        if named {
            batch.token(Token(std::array::from_fn(|_| rng.u8(..))));
            keys.insert(rng.usize(..=keys.len()), BATCH_KEY);
        }
        for (at, key) in keys.into_iter().enumerate() {
            // What is sent again is sent with what it expected then.
            let expects =
                if named { journal::Precondition::Any } else { precondition(rng, model, key) };
            holds &= model.holds(key, expects);
            let name = key.to_string();
            if key != BATCH_KEY && rng.u8(..3) == 0 {
                changes[at] = Some((key, ABSENT));
                batch.delete_if(&name, precondition_of(expects));
                continue;
            }
            let id = *known.next_value;
            *known.next_value += 1;
            let value = model.write(id, key, rng.u16(..BYTES_MAX).into());
            (changes[at], values[at]) = (Some((key, id)), id);
            batch.put_if(&name, &value, precondition_of(expects));
        }
        let absent = |&(key, value): &Changed| value == ABSENT && model.pending(key) == ABSENT;
        let taken = holds && !changes.iter().flatten().all(absent);
        let buffered = durability == Durability::Buffered;
        let count = taken.then(|| model.commit(changes, buffered));
        let write = Write { count, conflicts: !holds, values, durability };
        let call = self.own.commit(&batch);
        if named {
            known.sent[self.number] =
                Some(Sent { batch, changes, durability, count, applied: false });
        }
        Awaited::Batch { call, write, token: named, again: false }
    }

    /// Sends the last batch with a token again, whether it was answered or not.
    fn again(&self, known: &mut Known<'_>) -> Awaited {
        let Some(sent) = &known.sent[self.number] else {
            return Awaited::DeniedGet(self.all.get(SECRET));
        };
        let values = sent.values();
        let write =
            Write { count: sent.count, conflicts: false, values, durability: sent.durability };
        let call = self.own.commit(&sent.batch);
        Awaited::Batch { call, write, token: true, again: true }
    }

    /// Sends a value in parts, or gives it up behind them.
    fn upload(&mut self, rng: &mut Rng, known: &mut Known<'_>, key: u8) {
        let id = *known.next_value;
        *known.next_value += 1;
        let model = &mut known.models[self.number];
        let (precondition, durability) = (precondition(rng, model, key), durability(rng));
        let options = WriteOptions { precondition: precondition_of(precondition), durability };
        let value = model.write(id, key, rng.u16(..LARGE_BYTES_MAX).into());
        let writer = self.own.writer(&key.to_string(), Some(value.len() as u64), options);
        for part in value.chunks(rng.usize(300..PART_BYTES_MAX)) {
            self.awaited.push(Awaited::Part(writer.write(part)));
        }
        if rng.u8(..4) == 0 {
            return;
        }
        let holds = model.holds(key, precondition);
        let buffered = durability == Durability::Buffered;
        let count = holds.then(|| model.commit([Some((key, id)), None, None], buffered));
        let write = Write { count, conflicts: !holds, values: [id, ABSENT, ABSENT], durability };
        self.awaited.push(Awaited::Upload(writer.done(), write));
        self.stage = Stage::Uploading;
    }

    /// Takes the answers that have come.
    pub(super) fn answers(&mut self, known: &mut Known<'_>) -> Result<(), String> {
        let mut at = 0;
        while at < self.awaited.len() {
            let comparing = self.stage == Stage::Comparing;
            let Poll::Ready(answered) = self.awaited[at].poll(self.number, comparing, known) else {
                at += 1;
                continue;
            };
            self.awaited.remove(at);
            known.counts.answers += 1;
            match answered? {
                Went::On => {}
                Went::Stopped => self.stage = Stage::Idle,
                Went::Uploaded if self.stage == Stage::Uploading => self.stage = Stage::Working,
                Went::Uploaded => {}
                Went::Barrier => self.compare(),
                Went::Compared(key, value) => self.found[usize::from(key)] = value,
                Went::Counted(keys) => self.counted = keys,
                Went::Large(key) => {
                    let reader = self.own.reader(&key.to_string());
                    let (call, bytes) = (reader.read(0, 0), Vec::new());
                    self.awaited.push(Awaited::Whole { call, key, reader, bytes });
                }
            }
        }
        if self.stage == Stage::Comparing && self.awaited.is_empty() {
            self.settle(known)?;
        }
        Ok(())
    }

    /// Reads every key of the client, now that nothing of an earlier connection is on its way any more.
    fn compare(&mut self) {
        self.stage = Stage::Comparing;
        self.awaited.push(Awaited::Usage(self.own.usage("")));
        for key in 0..KEYS {
            let call = self.own.get(&key.to_string());
            self.awaited.push(Awaited::Get { call, of: self.number, key, least: 0, epoch: 0 });
        }
    }

    /// Holds what was found against what was told, and sends a batch again of which nothing was told.
    fn settle(&mut self, known: &mut Known<'_>) -> Result<(), String> {
        let model = &mut known.models[self.number];
        model.settle(&self.found)?;
        // The first write of a connection left a key of its own.
        let keys = 1 + self.found.iter().filter(|value| **value != ABSENT).count() as u64;
        if self.counted != keys {
            return Err(format!("{} keys are counted, {keys} are there", self.counted));
        }
        known.epochs[self.number] += 1;
        known.acknowledged[self.number] = 0;
        known.counts.compared += 1;
        self.stage = Stage::Working;
        let Some(sent) = &mut known.sent[self.number] else { return Ok(()) };
        sent.count = None;
        sent.applied = sent.value() == self.found[usize::from(BATCH_KEY)];
        known.counts.sent_again += 1;
        if sent.applied {
            let again = self.again(known);
            self.awaited.push(again);
            return Ok(());
        }
        // It is as if it had never been sent, and gets versions of its own.
        for value in sent.values() {
            model.forget_version(value);
        }
        let durability = sent.durability;
        sent.count = Some(model.commit(sent.changes, durability == Durability::Buffered));
        let write =
            Write { count: sent.count, conflicts: false, values: sent.values(), durability };
        let call = self.own.commit(&sent.batch);
        self.awaited.push(Awaited::Batch { call, write, token: true, again: false });
        Ok(())
    }
}

impl Sent {
    fn values(&self) -> [ValueId; CHANGES_MAX] {
        self.changes.map(|change| change.map_or(ABSENT, |(_, value)| value))
    }

    /// What it gives the key that tells of it.
    fn value(&self) -> ValueId {
        let told = self.changes.iter().flatten().find(|(key, _)| *key == BATCH_KEY);
        told.map_or(ABSENT, |(_, value)| *value)
    }
}

/// Says what [`Link::act`] draws, if it does anything.
pub(super) fn told(rng: &mut Rng) -> String {
    let key = rng.u8(..KEYS);
    match rng.u8(..16) {
        0..=4 => format!("writes or deletes {}", single(key)),
        5 => "commits a batch".into(),
        6 => format!("sends {} in parts", single(key)),
        7 => "commits its batch again".into(),
        8 => "syncs".into(),
        9 | 10 => format!("reads {key}"),
        11 | 12 => format!("reads {key} of somebody"),
        13 => "reads all its keys".into(),
        14 => "lists its keys".into(),
        _ => "asks for what is not granted".into(),
    }
}

/// Yields a key that single writes may touch.
fn single(key: u8) -> u8 {
    key % BATCH_KEY
}

fn durability(rng: &mut Rng) -> Durability {
    match rng.u8(..6) {
        0 | 1 => Durability::Buffered,
        2 => Durability::Strict,
        _ => Durability::Durable,
    }
}

fn precondition(rng: &mut Rng, model: &Model, key: u8) -> journal::Precondition {
    match (rng.u8(..6), model.version(key)) {
        (0, _) => journal::Precondition::Absent,
        (1 | 2, Some(version)) => journal::Precondition::Version(version),
        (3, Some(journal::Version(other))) => {
            journal::Precondition::Version(journal::Version(other ^ 1))
        }
        _ => journal::Precondition::Any,
    }
}

fn precondition_of(precondition: journal::Precondition) -> Precondition {
    match precondition {
        journal::Precondition::Any => Precondition::Any,
        journal::Precondition::Absent => Precondition::Absent,
        journal::Precondition::Version(journal::Version(number)) => {
            // Zero is no version: nothing has it, and no key is in it.
            let version = format!("{number:016x}").parse();
            version.map_or(Precondition::Any, Precondition::Version)
        }
    }
}
