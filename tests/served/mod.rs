//! The whole server in the simulator: many clients × the daemon's core × a device that crashes, from one seed.
//!
//! Each client is the real `statefs-client` over a vat; its connection carries bytes that are cut anywhere, stall, or
//! break. Each writes keys of its own, so that the order of its calls is the order of its commits: one [`Model`] for
//! each says what its keys may show, to itself and to others.
//!
//! [`Model`]: crate::sim::model::Model

mod answers;
mod client;
pub mod shrink;
mod world;

use crate::sim::counts::tally;
use fastrand::Rng;
use world::World;

tally! {
    /// What histories of the whole server exercised, counted.
    ServedCounts,
    /// Histories played to their end.
    histories,
    /// Power cuts.
    power_cuts,
    /// Deaths of the process, the device's cache kept.
    process_deaths,
    /// Shutdowns that ended, followed by a power cut.
    shutdowns,
    /// Mounts that ended.
    recoveries,
    /// Mounts that the device failed, or a crash cut off.
    recoveries_cut,
    /// Blocks that went bad.
    blocks_damaged,
    /// Of these, blocks that could not be read any more.
    blocks_unreadable,
    /// Lives of the server on a device that fails requests.
    lives_on_failing_devices,
    /// Stores that stopped writing.
    stores_stopped,
    /// Checkpoints written.
    checkpoints,
    /// Segments cleaned.
    segments_cleaned,
    /// Copies repaired while the server ran.
    copies_repaired,
    /// Connections that were made.
    connections,
    /// Connections that broke in the middle of it.
    connections_broken,
    /// Times that a client did not read for long.
    stalls,
    /// Calls that were answered.
    answers,
    /// Of these, writes acknowledged as durable.
    durable,
    /// Of these, writes acknowledged as buffered.
    buffered,
    /// Of these, batches.
    batches,
    /// Of these, large values.
    uploads,
    /// Of these, batches that were sent again and not applied again.
    applied_once,
    /// Batches that were sent again because a crash or a broken connection had taken them away.
    sent_again,
    /// Of the answers, syncs.
    syncs,
    /// Of these, conflicts.
    conflicts,
    /// Of these, denials of what the policy does not grant.
    denials,
    /// Of these, reads of the client's own keys.
    reads,
    /// Of these, reads of another client's keys.
    foreign_reads,
    /// Of these, lists.
    lists,
    /// Of these, writes that were refused, or whose end is open, because the device had failed.
    failed_writes,
    /// Clients that compared all their keys after a crash or a broken connection.
    compared,
}

impl ServedCounts {
    /// Yields the number of crashes.
    pub fn crashes(&self) -> u64 {
        self.power_cuts + self.process_deaths + self.shutdowns
    }
}

/// A rule that is switched off: in the engine, or in the server above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// In the journal.
    Journal(journal::Plant),
    /// In the server.
    Server(statefsd::Plant),
}

impl Planted {
    /// Yields every plant, by the name that the simulator takes.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let journal =
            journal::Plant::ALL.iter().map(|(name, plant)| (*name, Self::Journal(*plant)));
        let server = statefsd::Plant::ALL.iter().map(|(name, plant)| (*name, Self::Server(*plant)));
        journal.chain(server)
    }
}

/// The turns of a history, each by the server's life that it belongs to and its number there. A life without any is not
/// lived, but for the last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turns(Vec<(u32, u32)>);

impl Turns {
    /// Yields the turns of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::with_seed(!seed);
        let lives = rng.u32(3..12);
        let turns = |life| {
            let most = [1200, 1200, 4000][rng.usize(..3)];
            (0..rng.u32(20..most)).map(move |turn| (life, turn))
        };
        Self((0..=lives).flat_map(turns).collect())
    }

    /// The last life, after which every client compares its keys.
    fn last_life(seed: u64) -> u32 {
        Rng::with_seed(!seed).u32(3..12)
    }
}

/// Plays the history of one seed; `planted` is the one thing wrong with it.
///
/// # Errors
/// The promise that was broken.
pub fn play(seed: u64, planted: Option<Planted>) -> Result<ServedCounts, String> {
    play_turns(seed, planted, &Turns::of_seed(seed))
}

/// Plays some turns of the history of one seed.
///
/// # Errors
/// Those of [`play`].
pub fn play_turns(
    seed: u64,
    planted: Option<Planted>,
    turns: &Turns,
) -> Result<ServedCounts, String> {
    let (damage, failures) = match planted {
        Some(_) => (false, false),
        None => (seed % 3 == 1, seed % 3 == 2),
    };
    let last = Turns::last_life(seed);
    let mut world = World::new(seed, planted);
    for life in turns.0.chunk_by(|one, other| one.0 == other.0) {
        let number = life.first().map_or(last, |(life, _)| *life);
        if number == last {
            continue;
        }
        world.live(number, failures, life)?;
        // One bad block in all: what no log leads to is repaired by a check alone.
        world.crash(number, damage && number == last / 2)?;
    }
    let rest: Vec<_> = turns.0.iter().filter(|(life, _)| *life == last).copied().collect();
    world.live(last, false, &rest)?;
    world.settle(last)?;
    world.counts.histories = 1;
    Ok(world.counts)
}
