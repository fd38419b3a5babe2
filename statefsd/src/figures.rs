//! What the server counts, for people and machines that watch it. Names and labels are fixed words
//! of this program: no key, value or name of a service can come in, and there are only so many.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use statefs::ErrorCode;

use crate::store::{Mode, Store};

/// Figures of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Family {
    /// The name, in words with underscores, the unit last.
    pub name: &'static str,
    /// How the figures behave.
    pub kind: Kind,
    /// What they count, for people.
    pub help: &'static str,
    /// The figures, each told from the others by its labels.
    pub samples: Vec<Sample>,
}

/// How figures behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// They only grow, from the start of the server.
    Counter,
    /// They come and go.
    Gauge,
}

/// One figure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The figure.
    pub value: u64,
}

impl Family {
    /// One figure without labels.
    #[must_use]
    pub fn one(name: &'static str, kind: Kind, help: &'static str, value: u64) -> Self {
        Self { name, kind, help, samples: Vec::from([Sample { labels: Vec::new(), value }]) }
    }
}

/// The end of a call that gave an answer.
pub(crate) const OK: &str = "ok";
/// The end of a call that nobody waited for any more.
pub(crate) const CANCELLED: &str = "cancelled";
/// The end of a call in an exception without a code of the schema.
pub(crate) const OTHER: &str = "other";

/// What the server itself counts; the rest the journal knows.
#[derive(Default)]
pub(crate) struct Tally {
    /// By method and outcome.
    requests: RefCell<BTreeMap<(&'static str, &'static str), u64>>,
    pub(crate) connections: Cell<u64>,
    pub(crate) connections_accepted: Cell<u64>,
    pub(crate) connections_refused: Cell<u64>,
    pub(crate) quota_rejections: Cell<u64>,
    pub(crate) policy_loads: Cell<u64>,
    pub(crate) policy_faults: Cell<u64>,
}

/// Counts one more.
pub(crate) fn count(figure: &Cell<u64>) {
    figure.set(figure.get().saturating_add(1));
}

impl Tally {
    /// Counts the end of a call of the method that is called `method`.
    pub(crate) fn request(&self, method: &'static str, outcome: &'static str) {
        *self.requests.borrow_mut().entry((method, outcome)).or_default() += 1;
    }

    /// Calls that the policy refused.
    fn denials(&self) -> u64 {
        let requests = self.requests.borrow();
        let denied = ErrorCode::AccessDenied.text();
        let those = requests.iter().filter(|((_, outcome), _)| *outcome == denied);
        those.map(|(_, count)| count).sum()
    }

    /// All figures, in an order that stays.
    pub(crate) fn families(&self, store: &Store) -> Vec<Family> {
        use Kind::{Counter, Gauge};
        let requests = self.requests.borrow();
        let requests = requests.iter().map(|((method, outcome), count)| Sample {
            labels: Vec::from([("method", *method), ("outcome", *outcome)]),
            value: *count,
        });
        let mode = store.health().mode;
        let modes = MODES.iter().map(|(known, name)| Sample {
            labels: Vec::from([("mode", *name)]),
            value: u64::from(*known == mode),
        });
        // That of single values has a code that others have, too.
        let (denied, over) = (self.denials(), self.quota_rejections.get());
        let (accepted, refused) = (&self.connections_accepted, &self.connections_refused);
        let mut families = Vec::from([
            Family {
                name: "requests",
                kind: Counter,
                help: "Calls that ended, by method and outcome: ok, a code, cancelled or other.",
                samples: requests.collect(),
            },
            Family {
                name: "mode",
                kind: Gauge,
                help: "What the store can do: the figure of its mode is 1.",
                samples: modes.collect(),
            },
            Family::one("denials", Counter, "Calls that the policy refused.", denied),
            Family::one("quota_rejections", Counter, "Writes that passed a quota.", over),
            Family::one("connections", Gauge, "Connections.", self.connections.get()),
            Family::one("connections_accepted", Counter, "Connections taken.", accepted.get()),
            Family::one("connections_refused", Counter, "Connections too many.", refused.get()),
            Family::one("policy_loads", Counter, "Policies put in force.", self.policy_loads.get()),
            Family::one(
                "policy_faults",
                Counter,
                "Policies that could not be loaded.",
                self.policy_faults.get(),
            ),
            Family::one("losses", Gauge, "Known losses of data.", store.health().losses),
        ]);
        families.extend(volume(store));
        families
    }
}

/// The figures of the volume; none while it is not open.
fn volume(store: &Store) -> Vec<Family> {
    use Kind::{Counter, Gauge};
    let Ok(journal) = store.journal() else {
        return Vec::new();
    };
    let stats = journal.stats();
    let segments = stats.geometry.segment_count();
    let volume_bytes = u64::from(segments) * stats.geometry.segment_bytes() as u64;
    let check = stats.last_check;
    let keys = u64::try_from(stats.keys).unwrap_or(u64::MAX);
    let queued_bytes = u64::try_from(stats.queued_bytes).unwrap_or(u64::MAX);
    Vec::from([
        Family::one("keys", Gauge, "Keys with a value.", keys),
        Family::one("volume_bytes", Gauge, "Room of the volume, per copy.", volume_bytes),
        Family::one("free_bytes", Gauge, "Room left for writes, per copy.", stats.free_bytes),
        Family::one("queued_bytes", Gauge, "Writes that wait for the device.", queued_bytes),
        Family::one("commits", Counter, "Batches accepted, of one write or more.", stats.commits),
        Family::one("checkpoints", Counter, "Checkpoints written.", stats.checkpoints),
        Family::one(
            "log_bytes",
            Gauge,
            "Log that a start would replay, per copy.",
            stats.log_bytes,
        ),
        Family::one("segments", Gauge, "Segments of the volume.", segments.into()),
        Family::one("checks", Counter, "Checks that came to their end.", stats.checks),
        Family::one("check_losses", Gauge, "What the last check found lost.", check.damaged),
        Family::one(
            "check_segments_left",
            Gauge,
            "Segments that a check under way has yet to read.",
            stats.check_left.into(),
        ),
        Family::one("cleaned_segments", Counter, "Segments cleaned.", stats.cleaned),
        Family::one("moved_values", Counter, "Values moved by cleaning.", stats.moves),
        Family::one("repaired_copies", Counter, "Copies repaired.", stats.repaired),
        Family::one("damaged_reads", Counter, "Reads that met damage.", stats.damaged_reads),
        Family::one("cache_hits", Counter, "Values read from memory.", stats.cache_hits),
        Family::one("cache_misses", Counter, "Values read from the device.", stats.cache_misses),
    ])
}

const MODES: [(Mode, &str); 5] = [
    (Mode::Opening, "opening"),
    (Mode::Healthy, "healthy"),
    (Mode::Degraded, "degraded"),
    (Mode::ReadOnly, "read_only"),
    (Mode::Failed, "failed"),
];
