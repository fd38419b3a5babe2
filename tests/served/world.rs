//! The world of one history: a device, a server on it or none, and the connections of the clients.

use super::client::{KEYS, Known, Link, Sent};
use super::{Planted, ServedCounts};
use crate::drive::{Task, drive};
use crate::sim::model::{Model, ValueId};
use blockdev::{BlockDevice, Cure, Damage, Fault, FaultKind, Repeat, SimConfig, SimDevice};
use fastrand::Rng;
use journal::{Disk, FormatOptions, Random, format};
use policy::{Peer, Policy};
use statefsd::{Event, Limits, Mode, Server};

/// Clients.
const CLIENTS: usize = 4;
/// Turns after which something that should end counts as hanging: on a slow device connections that break again and again keep
/// clients from coming to an end for long.
const TURNS_MAX: u32 = 1_000_000;
/// What is drawn from at the beginning and the end of a life, and from which on while it is waited for clients.
const BIRTH: u32 = u32::MAX;
const DEATH: u32 = BIRTH - 1;
const SETTLING: u32 = 1 << 30;
/// Bytes of a block of every volume here.
const BLOCK_BYTES: usize = 512;

/// What a device does in one life of the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// Its work.
    None,
    /// It fails at one place of the sequence of requests, once or from there on.
    Place(Fault),
    /// It fails a write or a flush in one of so many turns.
    Rate(u32),
}

impl Faults {
    pub(super) fn drawn(rng: &mut Rng) -> Self {
        if rng.u8(..3) == 0 {
            return Self::Rate([40, 400][rng.usize(..2)]);
        }
        let after = rng.u64(..60);
        if rng.u8(..4) == 0 {
            // Of a device that reads next to nothing nothing can be asked: one read in all fails.
            return Self::Place(Fault { kind: FaultKind::ReadFails, after, repeat: Repeat::Once });
        }
        let repeat = [Repeat::Once, Repeat::Always][rng.usize(..2)];
        Self::Place(Fault { kind: writes_fail(rng), after, repeat })
    }
}

fn writes_fail(rng: &mut Rng) -> FaultKind {
    let shows = rng.bool();
    [FaultKind::WriteFails, FaultKind::FlushFails { shows }][rng.usize(..2)]
}

/// Everything that a history consists of.
pub(super) struct World {
    seed: u64,
    /// What happens in the turn at hand is drawn from it, and it from the turn's own number.
    rng: Rng,
    device: SimDevice,
    server: Option<Server>,
    limits: Limits,
    now: u64,
    /// Most milliseconds that go by at once.
    pace_ms: u64,
    links: Vec<Option<Link>>,
    models: Vec<Model>,
    acknowledged: Vec<usize>,
    epochs: Vec<u64>,
    sent: Vec<Option<Sent>>,
    tokens: u32,
    next_value: ValueId,
    armed: bool,
    faults: Faults,
    /// The device's cache may show what is lost until the power is cut. Reads go past any cache (FORMAT.md section 7,
    /// R0), so nothing but a power cut follows.
    cache_lies: bool,
    open: bool,
    pub(super) counts: ServedCounts,
}

impl World {
    /// Makes a world with a fresh volume.
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut config = SimConfig::new(rng.u64(..), [256, 384, 512][rng.usize(..3)] << 10);
        config.stall = [0, 64, 200][rng.usize(..3)];
        let mut limits = Limits::default();
        match planted {
            Some(Planted::Journal(plant)) => limits.journal.plants = journal::Plants::one(plant),
            Some(Planted::Server(plant)) => limits.plants = statefsd::Plants::one(plant),
            None => {}
        }
        // A batch of more would not fit into a group of so small a volume.
        limits.batch_operations = 8;
        limits.journal.group_bytes_max = [700, 2000, 256 << 10][rng.usize(..3)];
        limits.journal.flush_bytes_max = [1, 2048, 2 << 20][rng.usize(..3)];
        limits.journal.cache_bytes = [0, 4 << 20][rng.usize(..2)];
        limits.journal.replay_bytes = [None, Some(12_288)][rng.usize(..2)];
        // Few parts: a client must have read all its keys, part by part from a slow device, before its connection breaks again.
        limits.journal.value_record_bytes_max = [usize::MAX, usize::MAX, 160][rng.usize(..3)];
        let pace_ms = [3, 30][rng.usize(..2)];
        let mut device = SimDevice::new(config);
        let (disk, mut random) = (Disk::new(device.geometry()), Random::from_seed(bytes(&mut rng)));
        let of = disk.clone();
        let options = FormatOptions { block_bytes: 512, copies: 2, force: false };
        let task: Task<_> =
            Box::pin(async move { format(&of, &mut random, options).await.map(drop) });
        drive(&disk, &mut device, None, task).expect("a blank device takes a volume");
        Self {
            seed,
            rng,
            device,
            server: None,
            limits,
            now: 0,
            pace_ms,
            links: (0..CLIENTS).map(|_| None).collect(),
            models: (0..CLIENTS).map(|_| Model::new(KEYS)).collect(),
            acknowledged: vec![0; CLIENTS],
            epochs: vec![0; CLIENTS],
            sent: (0..CLIENTS).map(|_| None).collect(),
            tokens: 0,
            next_value: 1,
            armed: false,
            faults: Faults::None,
            cache_lies: false,
            open: false,
            counts: ServedCounts::default(),
        }
    }

    /// Lets a server live for some turns, on a device that may fail.
    pub(super) fn live(
        &mut self,
        life: u32,
        failures: bool,
        turns: &[(u32, u32)],
    ) -> Result<(), String> {
        self.rng = rng_of(self.seed, (life, BIRTH));
        let fails = failures && self.rng.bool();
        let faults = if fails { Faults::drawn(&mut self.rng) } else { Faults::None };
        let policy = Policy::parse(&policy()).expect("a sound policy");
        let seed = bytes(&mut self.rng);
        self.server = Some(Server::new(self.device.geometry(), policy, seed, self.limits));
        (self.open, self.armed, self.faults) = (false, faults != Faults::None, faults);
        self.counts.lives_on_failing_devices += u64::from(self.armed);
        if let Faults::Place(fault) = faults {
            self.inject(fault);
        }
        for client in 0..CLIENTS {
            self.connect(client)?;
        }
        turns.iter().try_for_each(|turn| self.turn(*turn))
    }

    /// Lets turns go by until every client has compared its keys.
    pub(super) fn settle(&mut self, life: u32) -> Result<(), String> {
        for turn in SETTLING..SETTLING + TURNS_MAX {
            if self.links.iter().flatten().all(Link::is_settled) {
                return Ok(());
            }
            self.turn((life, turn))?;
        }
        Err("the clients never come to compare their keys".into())
    }

    /// Ends the server, in one way or another, and with it every connection.
    pub(super) fn crash(&mut self, life: u32, harm: bool) -> Result<(), String> {
        self.rng = rng_of(self.seed, (life, DEATH));
        self.count_server();
        let way = self.rng.u8(..8);
        if way == 0 && self.open && !self.armed {
            self.shut_down()?;
            self.counts.shutdowns += 1;
            self.device.power_cut();
        } else if way < 3 && !self.cache_lies {
            self.counts.process_deaths += 1;
            self.device.process_death();
        } else {
            self.counts.power_cuts += 1;
            self.device.power_cut();
        }
        self.counts.recoveries_cut += u64::from(!self.open);
        if self.armed {
            self.device.heal();
        }
        self.cache_lies = false;
        // What was acknowledged as buffered may be gone.
        self.acknowledged.fill(0);
        self.server = None;
        self.links.iter_mut().for_each(|link| *link = None);
        if harm {
            let blocks = self.device.visible().len() / BLOCK_BYTES;
            let offset = self.rng.usize(..blocks) * BLOCK_BYTES;
            self.counts.blocks_damaged += 1;
            match self.rng.u8(..4) {
                0 => {
                    self.counts.blocks_unreadable += 1;
                    self.device.make_unreadable(offset as u64, BLOCK_BYTES, Cure::Write);
                }
                1 => self.device.corrupt(offset as u64, BLOCK_BYTES, Damage::Zero),
                2 => self.device.corrupt(
                    offset as u64,
                    BLOCK_BYTES,
                    Damage::BitFlip { bit: self.rng.u64(..4096) },
                ),
                _ => self.device.corrupt(offset as u64, BLOCK_BYTES, Damage::Random),
            }
        }
        Ok(())
    }

    /// Ends the server as it wants to end: then nothing that was acknowledged may be lost, buffered or not.
    fn shut_down(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            let Some(server) = &mut self.server else { break };
            server.shut_down();
            if server.is_synced() {
                for (model, acknowledged) in self.models.iter_mut().zip(&self.acknowledged) {
                    model.must_survive(*acknowledged);
                }
                return Ok(());
            }
            self.move_blocks();
            self.tick()?;
        }
        Err("a shutdown hangs".into())
    }

    fn inject(&mut self, fault: Fault) {
        self.cache_lies |= fault.kind == FaultKind::FlushFails { shows: true };
        self.device.inject(fault);
    }

    /// Counts what the server did beside what it answered.
    fn count_server(&mut self) {
        let Some(server) = &self.server else { return };
        self.counts.stores_stopped += u64::from(server.health().mode == Mode::ReadOnly);
        let figures = server.figures();
        let figure = |name| {
            let family = figures.iter().find(|family| family.name == name);
            family.map_or(0, |family| family.samples.iter().map(|one| one.value).sum())
        };
        self.counts.checkpoints += figure("checkpoints");
        self.counts.segments_cleaned += figure("cleaned_segments");
        self.counts.copies_repaired += figure("repaired_copies");
    }

    fn connect(&mut self, client: usize) -> Result<(), String> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let peer = Peer { channel: format!("c{client}"), uid: Some(1000) };
        let id = server.connect(peer).map_err(|_| "a few connections are too many")?;
        self.links[client] = Some(Link::new(client, id));
        self.counts.connections += 1;
        Ok(())
    }

    /// One thing happens, and what follows from it.
    fn turn(&mut self, turn: (u32, u32)) -> Result<(), String> {
        self.rng = rng_of(self.seed, turn);
        let (client, kind) = (self.rng.usize(..CLIENTS), self.rng.u8(..16));
        if let Faults::Rate(turns) = self.faults
            && self.rng.u32(..turns) == 0
        {
            let kind = writes_fail(&mut self.rng);
            self.inject(Fault { kind, after: 0, repeat: Repeat::Once });
        }
        match kind {
            0..=3 => self.with_link(client, |link, rng, known| {
                link.act(rng, known);
                Ok(())
            })?,
            4..=9 => self.move_bytes(client)?,
            10..=14 => self.move_blocks(),
            _ => self.mishap(client)?,
        }
        self.tick()?;
        self.with_link(client, |link, _, known| link.answers(known))
    }

    /// Time goes on, somebody stops reading, a connection breaks.
    fn mishap(&mut self, client: usize) -> Result<(), String> {
        match self.rng.u8(..24) {
            0 => {
                if let (Some(link), Some(server)) = (self.links[client].take(), &mut self.server) {
                    // What was sent may have arrived in part.
                    let sent = self.rng.usize(..=link.outbox.len());
                    let _ = server.receive(link.id, &link.outbox[..sent]);
                    if self.rng.bool() {
                        server.poll(self.now);
                    }
                    server.close(link.id);
                    self.counts.connections_broken += 1;
                }
                self.connect(client)
            }
            1 => {
                if let Some(link) = &mut self.links[client] {
                    link.stalled = self.rng.u32(..400);
                    self.counts.stalls += 1;
                }
                Ok(())
            }
            _ => {
                self.now += self.rng.u64(..self.pace_ms);
                Ok(())
            }
        }
    }

    fn with_link(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Link, &mut Rng, &mut Known<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Self {
            rng, links, models, counts, acknowledged, epochs, sent, tokens, next_value, ..
        } = self;
        let armed = self.armed;
        let mut known =
            Known { models, counts, acknowledged, epochs, sent, tokens, armed, next_value };
        links[client].as_mut().map_or(Ok(()), |link| act(link, rng, &mut known))
    }

    /// Carries bytes of a connection in both directions, cut anywhere.
    fn move_bytes(&mut self, client: usize) -> Result<(), String> {
        let (Some(link), Some(server)) = (&mut self.links[client], &mut self.server) else {
            return Ok(());
        };
        let mut piece = |bytes: usize| match self.rng.u8(..3) {
            0 => bytes,
            _ => self.rng.usize(..=bytes),
        };
        link.outbox.extend(link.vat.take_output());
        let sent = piece(link.outbox.len());
        let taken = server.receive(link.id, &link.outbox[..sent]);
        let taken = taken.map_err(|_| "the server ended a connection that did nothing wrong")?;
        link.outbox.drain(..taken);
        if link.stalled > 0 {
            link.stalled -= 1;
            return Ok(());
        }
        let output = server.output(link.id);
        let read = piece(output.len());
        link.vat
            .receive(&output[..read])
            .map_err(|error| format!("the server's bytes: {error}"))?;
        server.sent(link.id, read);
        while link.vat.poll(64) {}
        Ok(())
    }

    fn move_blocks(&mut self) {
        let Some(server) = &mut self.server else { return };
        while let Some(request) = server.next_request() {
            self.device.submit(request);
        }
        if let Some(completion) = self.device.completion() {
            server.complete(completion);
        }
    }

    /// Lets the server go on, and looks at what it has to say.
    fn tick(&mut self) -> Result<(), String> {
        let Some(server) = &mut self.server else { return Ok(()) };
        server.poll(self.now);
        while let Some(event) = server.next_event() {
            match event {
                Event::Opened { report, .. } if report.lost.is_empty() => {
                    self.open = true;
                    self.counts.recoveries += 1;
                }
                Event::Opened { report, .. } => {
                    return Err(format!("data loss is reported: {:?}", report.lost));
                }
                Event::OpenFailed { error } if !self.armed => {
                    return Err(format!("the volume does not open: {error}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is drawn from, in a turn of a life.
fn rng_of(seed: u64, (life, turn): (u32, u32)) -> Rng {
    let number = u64::from(life) << 32 | u64::from(turn);
    Rng::with_seed(seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Says what happens in a turn, as far as its number decides it; nothing where bytes or blocks move.
pub(super) fn told(seed: u64, turn: (u32, u32)) -> Option<String> {
    let mut rng = rng_of(seed, turn);
    let client = rng.usize(..CLIENTS);
    match rng.u8(..16) {
        0..=3 => Some(format!("c{client} {}", super::client::told(&mut rng))),
        4..=14 => None,
        _ => Some(format!("time goes by, or c{client} stalls or breaks off")),
    }
}

/// Each client may do everything below its own prefix and read what the others have; nobody gets more.
fn policy() -> String {
    let mut text = String::from("version = 1\n");
    for client in 0..CLIENTS {
        text += &format!("[service.c{client}]\nchannel = \"c{client}\"\n");
    }
    for client in 0..CLIENTS {
        for of in 0..CLIENTS {
            let rights = match of == client {
                true => "\"get\", \"list\", \"put\", \"delete\"",
                false => "\"get\"",
            };
            text += &format!(
                "[[grant]]\nto = \"c{client}\"\nprefix = \"/state/c{of}\"\nrights = [{rights}]\n"
            );
            if client == of {
                // More than a client ever has: what is counted is compared, not refused.
                text += "quota = { bytes = 1000000, keys = 1000 }\n";
            }
        }
    }
    text
}

fn bytes(rng: &mut Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    bytes
}
