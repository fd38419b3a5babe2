//! A device that is as bad as the contract allows, and worse on demand, from one seed.
//!
//! Requests stay in flight and end in any order; completed writes sit in a volatile cache; a
//! power cut keeps, loses or tears each unit of what no flush covered. Faults beyond the contract
//! are injected by name. This module knows nothing of what the bytes mean.

mod earlier;
mod fault;
mod medium;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use fastrand::Rng;

pub use fault::{Cure, Damage, Fault, FaultKind, Repeat};
pub use medium::{Fate, FateWeights, Risk};

use crate::{BlockDevice, Completion, DeviceError, EIO, Geometry, Operation, Request};
use fault::Faults;
use medium::{Medium, Piece};

/// What a [`SimDevice`] is like.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Decides everything that is left to chance: equal seeds and equal calls, equal bytes.
    pub seed: u64,
    /// The shape of the device.
    pub geometry: Geometry,
    /// Complete each request as it is submitted, in order. Writes still sit in the cache.
    pub immediate: bool,
    /// How often, of 256 calls, [`BlockDevice::completion`] yields `None` although something is
    /// in flight, so that more requests meet there. 255 still lets one call of 256 through.
    pub stall: u8,
    /// What becomes of a unit of a write that no flush covered.
    pub fates: FateWeights,
}

impl SimConfig {
    /// Yields a device of `device_bytes` with sectors and physical units of 512 bytes, requests
    /// in any order, a stall in a quarter of the calls, and every fate.
    pub fn new(seed: u64, device_bytes: u64) -> Self {
        Self {
            seed,
            geometry: Geometry { sector_bytes: 512, physical_bytes: 512, device_bytes },
            immediate: false,
            stall: 64,
            fates: FateWeights::default(),
        }
    }
}

/// A simulated device with a volatile cache; see [`SimConfig`] for what can be set.
///
/// Made to be crashed often: [`SimDevice::power_cut`] leaves a device that may be used at once,
/// and [`SimDevice::restore`] puts an image back without allocating. `Clone` forks a state, to
/// try several endings of it; `clone_from` does so in the memory of an earlier fork.
#[derive(Debug)]
pub struct SimDevice {
    config: SimConfig,
    rng: Rng,
    medium: Medium,
    faults: Faults,
    in_flight: Vec<InFlight>,
    done: VecDeque<Completion>,
}

/// A request that was submitted and has had no effect yet.
#[derive(Clone, Debug)]
struct InFlight {
    request: Request,
    range: Range<usize>,
    /// For a flush: how many writes had completed when it was submitted.
    covers: u64,
    fault: Option<FaultKind>,
}

impl SimDevice {
    /// Yields a device whose bytes are all zero.
    ///
    /// # Panics
    /// If the geometry is not valid, or the device does not fit into memory.
    pub fn new(config: SimConfig) -> Self {
        assert!(config.geometry.is_valid());
        let bytes = usize::try_from(config.geometry.device_bytes).expect("fits into memory");
        Self {
            config,
            rng: Rng::with_seed(config.seed),
            medium: Medium::new(bytes, config.geometry.physical_bytes as usize),
            faults: Faults::default(),
            in_flight: Vec::new(),
            done: VecDeque::new(),
        }
    }

    /// Starts the random choices again from `seed`, as a fork of a state needs it.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Rng::with_seed(seed);
    }

    /// Puts `image` on the medium, durable, with nothing in the cache or in flight. Faults stay.
    ///
    /// # Panics
    /// If `image` is not as long as the device.
    pub fn restore(&mut self, image: &[u8]) {
        self.medium.restore(image);
        self.forget_requests();
    }

    /// Remembers from now on, of each physical unit, what it held on the medium before it last changed
    /// ([`Damage::Earlier`]): one earlier content of the device, at the cost of a comparison for each unit that is written.
    pub fn remember(&mut self) {
        self.medium.remember();
    }

    /// Yields where the physical units lie that do not hold what is remembered of them, and that no unflushed write
    /// touches; the one that changed last comes first.
    pub fn changed(&self) -> Vec<u64> {
        let differing = self.medium.differing().into_iter().map(|start| start as u64);
        if self.risks().next().is_none() {
            return differing.collect();
        }
        let touched: BTreeSet<u64> = self.risks().map(|risk| risk.offset).collect();
        differing.filter(|start| !touched.contains(start)).collect()
    }

    /// Tells whether no unflushed write touches the physical units at `offset..offset + bytes`.
    pub fn is_settled(&self, offset: u64, bytes: usize) -> bool {
        let unit_bytes = u64::from(self.config.geometry.physical_bytes);
        let range = offset / unit_bytes * unit_bytes..offset.saturating_add(bytes as u64);
        !self.risks().any(|risk| range.contains(&risk.offset))
    }

    /// Arms `fault`. Faults survive power cuts; several may be armed at once.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.inject(fault);
    }

    /// Tells whether any sector cannot be read.
    pub fn has_unreadable(&self) -> bool {
        self.faults.has_unreadable()
    }

    /// Makes the sectors that `offset..offset + bytes` touches unreadable until `cure`.
    pub fn make_unreadable(&mut self, offset: u64, bytes: usize, cure: Cure) {
        let range = self.clip(offset, bytes);
        self.faults.make_unreadable(range, self.config.geometry.sector_bytes as usize, cure);
    }

    /// Disarms every fault and makes everything readable.
    pub fn heal(&mut self) {
        self.faults = Faults::default();
    }

    /// Damages `offset..offset + bytes` of the medium and of what reads see, as far as the device
    /// goes. Writes in the cache or in flight are untouched and may cover the damage later.
    pub fn corrupt(&mut self, offset: u64, bytes: usize, damage: Damage) {
        let range = self.clip(offset, bytes);
        self.medium.corrupt(range, damage, &mut self.rng);
    }

    /// Cuts the power and starts the device again.
    ///
    /// What flushes cover is intact. Of every other write, completed or in flight, each physical
    /// unit is left by chance: mostly each for itself ([`FateWeights`]), sometimes as in simpler
    /// failures: everything lost, everything kept, or kept up to one torn unit and lost from
    /// there. Reads see what was left, and go on seeing it. Requests in flight never complete.
    pub fn power_cut(&mut self) {
        let weights = self.config.fates;
        let units = self.risks().count();
        match self.rng.u8(..8) {
            0 => self.power_cut_choosing(|_| Fate::Old),
            1 => self.power_cut_choosing(|_| Fate::New),
            2 | 3 if units > 0 => {
                let torn = self.rng.usize(..units);
                let fate = weights.draw(&mut self.rng);
                self.power_cut_choosing(|risk| match risk.index.cmp(&torn) {
                    core::cmp::Ordering::Less => Fate::New,
                    core::cmp::Ordering::Equal => fate,
                    core::cmp::Ordering::Greater => Fate::Old,
                });
            }
            _ => {
                let mut rng = self.rng.fork();
                self.power_cut_choosing(|_| weights.draw(&mut rng));
            }
        }
    }

    /// Cuts the power with a fate of the caller's choice for each unit of [`SimDevice::risks`],
    /// asked in that order; later units overwrite earlier ones at the same place.
    pub fn power_cut_choosing(&mut self, mut choose: impl FnMut(Risk) -> Fate) {
        let Self { medium, rng, in_flight, .. } = self;
        medium.settle(in_flight.iter().filter_map(InFlight::piece), rng, &mut choose);
        self.forget_requests();
    }

    /// Yields every unit that a power cut now would decide about, in the order in which it would:
    /// completed writes in the order of completion, then those in flight.
    pub fn risks(&self) -> impl Iterator<Item = Risk> {
        self.medium.risks(self.in_flight.iter().filter_map(InFlight::piece))
    }

    /// Kills the process that uses the device: the cache stays, what is in flight may or may not
    /// still happen (a write whole, up to some unit of it, or not at all), and nothing completes.
    pub fn process_death(&mut self) {
        let unit = self.config.geometry.physical_bytes as usize;
        while !self.in_flight.is_empty() {
            let index = self.rng.usize(..self.in_flight.len());
            let each = self.in_flight.swap_remove(index);
            if let Some(piece) = each.piece() {
                let bytes = match self.rng.u8(..4) {
                    0 => 0,
                    1 => self.rng.usize(..=piece.content.len() / unit) * unit,
                    _ => piece.content.len(),
                };
                let content = piece.content.get(..bytes).unwrap_or_default();
                self.medium.write(piece.offset, content);
            } else if each.request.operation == Operation::Flush
                && each.fault.is_none()
                && self.rng.bool()
            {
                self.medium.flush(each.covers);
            }
        }
        self.forget_requests();
    }

    /// How many requests were submitted and have not been handed out.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() + self.done.len()
    }

    /// Yields what reads see.
    pub fn visible(&self) -> &[u8] {
        self.medium.visible()
    }

    /// Yields what every power cut leaves, where no unflushed write touches it.
    pub fn durable(&self) -> &[u8] {
        self.medium.durable()
    }

    fn forget_requests(&mut self) {
        self.in_flight.clear();
        self.done.clear();
    }

    fn clip(&self, offset: u64, bytes: usize) -> Range<usize> {
        let device_bytes = self.medium.visible().len();
        let start = usize::try_from(offset).map_or(device_bytes, |start| start.min(device_bytes));
        start..start.saturating_add(bytes).min(device_bytes)
    }

    /// Gives a request its effect.
    fn finish(&mut self, each: InFlight) -> Completion {
        let InFlight { mut request, range, covers, fault } = each;
        let result = match request.operation {
            Operation::Read { .. } => self.read(&mut request.buffer, range, fault),
            Operation::Write { .. } => self.write(&request.buffer, range, fault),
            Operation::Flush => self.flush(covers, fault),
        };
        Completion { id: request.id, buffer: request.buffer, result }
    }

    fn read(
        &mut self,
        buffer: &mut [u8],
        range: Range<usize>,
        fault: Option<FaultKind>,
    ) -> Result<(), DeviceError> {
        let sector = self.config.geometry.sector_bytes as usize;
        let unreadable = self.faults.read_fails(&range, sector);
        let start = match fault {
            Some(FaultKind::ReadFails) => return Err(FAILURE),
            Some(FaultKind::ReadMisdirected { from }) => self.clip(from, 0).start,
            _ => range.start,
        };
        if unreadable {
            return Err(FAILURE);
        }
        self.medium.read(start, buffer);
        Ok(())
    }

    fn write(
        &mut self,
        content: &[u8],
        range: Range<usize>,
        fault: Option<FaultKind>,
    ) -> Result<(), DeviceError> {
        let sector = self.config.geometry.sector_bytes as usize;
        match fault {
            Some(FaultKind::WriteFails) => {
                let weights = self.config.fates;
                self.medium.write_in_part(range.start, content, sector, weights, &mut self.rng);
                return Err(FAILURE);
            }
            Some(FaultKind::WriteLost) => {}
            Some(FaultKind::WriteMisdirected { to }) => {
                let place = self.clip(to, content.len());
                let content = content.get(..place.len()).unwrap_or_default();
                self.faults.written(&place, sector);
                self.medium.write(place.start, content);
            }
            _ => {
                self.faults.written(&range, sector);
                self.medium.write(range.start, content);
            }
        }
        Ok(())
    }

    fn flush(&mut self, covers: u64, fault: Option<FaultKind>) -> Result<(), DeviceError> {
        match fault {
            Some(FaultKind::FlushFails { shows }) => {
                let weights = self.config.fates;
                self.medium.lose_flush(shows, weights, &mut self.rng);
                return Err(FAILURE);
            }
            Some(FaultKind::FlushLies) => {}
            _ => self.medium.flush(covers),
        }
        Ok(())
    }
}

impl Clone for SimDevice {
    fn clone(&self) -> Self {
        Self {
            config: self.config,
            rng: self.rng.clone(),
            medium: self.medium.clone(),
            faults: self.faults.clone(),
            in_flight: self.in_flight.clone(),
            done: self.done.clone(),
        }
    }

    fn clone_from(&mut self, source: &Self) {
        let Self { config, rng, medium, faults, in_flight, done } = self;
        *config = source.config;
        rng.clone_from(&source.rng);
        medium.clone_from(&source.medium);
        faults.clone_from(&source.faults);
        in_flight.clone_from(&source.in_flight);
        done.clone_from(&source.done);
    }
}

impl BlockDevice for SimDevice {
    fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    fn submit(&mut self, request: Request) {
        let range = match self.config.geometry.range(&request) {
            Ok(range) => self.clip(range.start, request.buffer.len()),
            Err(error) => {
                self.done.push_back(Completion {
                    id: request.id,
                    buffer: request.buffer,
                    result: Err(error),
                });
                return;
            }
        };
        let each = InFlight {
            range,
            covers: self.medium.writes_completed(),
            fault: self.faults.strike(request.operation),
            request,
        };
        if self.config.immediate {
            let completion = self.finish(each);
            self.done.push_back(completion);
        } else {
            self.in_flight.push(each);
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        if let Some(completion) = self.done.pop_front() {
            return Some(completion);
        }
        if self.in_flight.is_empty() || self.rng.u8(..) < self.config.stall {
            return None;
        }
        let index = self.rng.usize(..self.in_flight.len());
        let each = self.in_flight.swap_remove(index);
        Some(self.finish(each))
    }
}

impl InFlight {
    /// What this request may leave on the medium, and where; `None` if it is no write, or a lost one.
    fn piece(&self) -> Option<Piece<'_>> {
        let Operation::Write { .. } = self.request.operation else {
            return None;
        };
        let offset = match self.fault {
            Some(FaultKind::WriteLost) => return None,
            Some(FaultKind::WriteMisdirected { to }) => usize::try_from(to).ok()?,
            _ => self.range.start,
        };
        Some(Piece { offset, content: &self.request.buffer })
    }
}

/// How the device tells of every failure but an impossible request.
const FAILURE: DeviceError = DeviceError::Io { code: EIO };

#[cfg(test)]
mod tests;
