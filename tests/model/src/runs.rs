//! Every question asked, by name.

use crate::config::{Config, FaultKind};
use crate::explore::{Report, explore};

/// One question: a configuration, and whether the promises must hold under it.
#[derive(Clone, Debug)]
pub struct Run {
    /// `P7`, `X13c`: the first word of the title.
    pub name: &'static str,
    /// The name and what is asked.
    pub title: &'static str,
    /// The promises hold; else a counterexample must be found.
    pub holds: bool,
    /// The bounds and the rule.
    pub config: Config,
}

/// All proofs, then all weakened rules.
pub fn runs() -> Vec<Run> {
    let mut all = crate::proofs::proofs();
    all.extend(crate::proofs_mount::proofs());
    all.extend(crate::proofs_space::proofs());
    all.extend(crate::weakened::weakened());
    all.extend(crate::weakened_mount::weakened());
    all
}

/// The run named `name`.
pub fn run(name: &str) -> Option<Run> {
    runs().into_iter().find(|r| r.name == name)
}

impl Run {
    pub(crate) fn new(title: &'static str, holds: bool, config: Config) -> Self {
        Self { name: title.split(' ').next().unwrap_or(title), title, holds, config }
    }

    /// Explores it, on a thread of its own: the table of contents belongs to the thread, and the
    /// contents of all questions together would not fit it.
    ///
    /// # Panics
    /// If the exploration does.
    pub fn explore(&self) -> Report {
        let question = || explore(&self.config);
        std::thread::scope(|scope| scope.spawn(question).join().expect("it would have panicked"))
    }

    /// The same question in a world small enough for a test run: fewer groups and cuts, no
    /// content of another block, of several kinds of fault the first.
    pub fn small(&self) -> Self {
        let c = &self.config;
        let heavy = c.len_max > 1 || c.fault_kinds[0] == FaultKind::MisdirectedWrite;
        let config = Config {
            groups: c.groups.min(2),
            groups_later: c.groups_later.min(if heavy { 2 } else { 3 }),
            inflight: c.inflight.min(2),
            cuts: c.cuts.min(2),
            checkpoints: c.checkpoints.min(1),
            misdirect: false,
            fault_kinds: &c.fault_kinds[..1],
            ..c.clone()
        };
        Self { config, ..self.clone() }
    }
}
