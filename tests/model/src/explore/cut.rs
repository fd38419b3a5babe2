//! Power cuts and faults: every image that a recovery may meet.

use super::{Explorer, State};
use crate::config::FaultKind;
use crate::disk::{Id, SUPERS, show};

impl Explorer<'_> {
    /// Cuts the power: each unflushed block is old, new or does not verify.
    pub(super) fn cut(&mut self, s: &State, h: u128) {
        let c = self.c;
        let blocks = self.torn(s);
        let outcomes: Vec<Vec<Id>> = blocks.iter().map(|&b| outcomes(s, b)).collect();
        let mut pick = vec![0; blocks.len()];
        loop {
            let mut t = s.clone();
            for (k, &b) in blocks.iter().enumerate() {
                t.settle(b, outcomes[k][pick[k]], c.stale);
            }
            t.pending.clear();
            t.power_off();
            forget(&mut t);
            if self.images.insert(super::hash(&t)) {
                self.report.images += 1;
                let left = |(k, &b): (usize, &u8)| {
                    format!(" {}={}", c.geometry.name(b), show(outcomes[k][pick[k]]))
                };
                let left = match c.trace {
                    true => blocks.iter().enumerate().map(left).collect::<String>(),
                    false => String::new(),
                };
                self.damage(&t, h, &format!("POWER CUT leaves{left}"), 0);
                if self.report.violation.is_some() {
                    return;
                }
            }
            let more = |k: &usize| pick[*k] + 1 < outcomes[*k].len();
            let Some(k) = (0..pick.len()).find(more) else {
                break;
            };
            pick[k] += 1;
            pick[..k].fill(0);
        }
        if c.cached_reopen {
            // The process dies: the cache still answers reads and nothing is flushed first.
            let mut t = s.clone();
            let mut image = t.medium.clone();
            for w in &t.pending {
                image[usize::from(w.block)] = w.new;
            }
            t.power_off();
            self.verdict(t, &image, h, "PROCESS DIES, cache kept");
        }
    }

    fn torn(&self, s: &State) -> Vec<u8> {
        let mut blocks: Vec<u8> = s.pending.iter().map(|w| w.block).collect();
        if self.c.shared_sector {
            // Two neighbouring blocks share one physical sector: a tear takes both.
            let odd = |b: &u8| *b >= SUPERS && (b - SUPERS) % self.c.geometry.blocks % 2 == 1;
            blocks.extend(s.pending.iter().map(|w| w.block).filter(odd).map(|b| b - 1));
        }
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Takes the verdict on `s`; then, within the bound, on `s` with one block more damaged.
    fn damage(&mut self, s: &State, h: u128, what: &str, from: u8) {
        let c = self.c;
        self.verdict(s.clone(), &s.medium, h, what);
        if s.faults >= c.faults {
            return;
        }
        for b in from..c.geometry.total() {
            let now = s.medium[usize::from(b)];
            let mut to: Vec<Id> = vec![0];
            if c.stale {
                to.push(s.old[usize::from(b)]);
            }
            if c.misdirect {
                to.extend(&s.medium);
            }
            to.sort_unstable();
            to.dedup();
            to.retain(|&id| id != now);
            for id in to {
                for &kind in c.fault_kinds {
                    if self.report.violation.is_some() {
                        return;
                    }
                    self.fault(s, h, what, b, id, kind);
                }
            }
        }
    }

    /// Block `b` reads as `id`, or its write went astray.
    fn fault(&mut self, s: &State, h: u128, what: &str, b: u8, id: Id, kind: FaultKind) {
        let c = self.c;
        let at = usize::from(b);
        let now = s.medium[at];
        let mut t = s.clone();
        t.faults += 1;
        t.last = None;
        let told = match c.trace {
            true => {
                format!("{what}; FAULT ({kind:?}) {} reads {}", c.geometry.name(b), show(id))
            }
            false => String::new(),
        };
        match kind {
            FaultKind::Sticky => {
                t.medium[at] = id;
                self.damage(&t, h, &told, b + 1);
            }
            FaultKind::Transient => {
                let mut image = t.medium.clone();
                image[at] = id;
                self.verdict(t, &image, h, &told);
            }
            FaultKind::MisdirectedWrite if now != 0 && id == 0 => {
                for victim in (0..c.geometry.total()).filter(|&v| v != b) {
                    let mut m = t.clone();
                    m.medium[usize::from(victim)] = now;
                    m.medium[at] = m.old[at];
                    let (from, to) = (c.geometry.name(b), c.geometry.name(victim));
                    let told = format!("{what}; FAULT write of {from} went to {to}");
                    self.damage(&m, h, &told, c.geometry.total());
                }
            }
            FaultKind::MisdirectedWrite => {}
        }
    }
}

/// What block `b` may hold after a cut.
fn outcomes(s: &State, b: u8) -> Vec<Id> {
    let mut all = vec![s.medium[usize::from(b)], 0];
    all.extend(s.pending.iter().filter(|w| w.block == b).map(|w| w.new));
    all.sort_unstable();
    all.dedup();
    all
}

/// What the writer knew is gone with the power.
fn forget(t: &mut State) {
    (t.cur, t.block, t.next, t.tag, t.durable, t.seq, t.base) = (0, 0, 0, 0, 0, 0, 0);
    t.checkpoint = None;
    t.log.clear();
    t.lost.clear();
}
