//! The rule under test: a pure function from an image to a verdict and a repair list.

use crate::config::{Config, Proof};
use crate::disk::{
    Group, Id, Super, Use, canon, checkpoint, evidence, group, lsn, part, superblock,
};
use crate::table::{Evidence, Later, Row, Seen, table};

/// Where an accepted group lies.
#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The group.
    pub id: Id,
    /// Its segment.
    pub seg: u8,
    /// The epoch of the use, which tells the uses of one segment apart.
    pub epoch: u8,
    /// Its first block.
    pub block: u8,
}

/// What recovery concludes from one image.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Why it refuses to mount.
    pub refused: Option<&'static str>,
    /// The accepted history, checkpoint included.
    pub accepted: Vec<Id>,
    /// LSN ranges reported as `DataLoss`, those of the checkpoint first.
    pub lost: Vec<(u8, u8)>,
    /// Blocks to rewrite, with their contents.
    pub repairs: Vec<(u8, Id)>,
    /// The first use that the chosen superblock lists.
    pub first: Option<Use>,
    /// The log as recovered, closed by cuts.
    pub uses: Vec<Use>,
    /// The accepted groups of the log.
    pub placed: Vec<Placed>,
    /// The next LSN.
    pub next: u8,
    /// The tag of the last accepted group.
    pub tag: Id,
    /// D, the evidence found.
    pub evidence: u8,
    /// The chosen superblock's sequence number.
    pub seq: u8,
    /// The chosen checkpoint.
    pub checkpoint: Option<(u8, u8)>,
    /// What the checkpoint covers.
    pub base: u8,
    /// The age of each superblock copy: 0 = does not verify, else its sequence number.
    pub supers: [u8; 4],
    /// One bit for each segment that any valid superblock copy names.
    pub named: u32,
    /// The rows of the table, in the order they applied.
    pub rows: Vec<Row>,
}

/// Recovers `image`: four superblock copies, then both zones (see [`crate::disk::Geometry::at`]).
pub fn recover(image: &[Id], config: &Config) -> Verdict {
    let mut v = Verdict::default();
    for (copy, age) in v.supers.iter_mut().enumerate() {
        let Some(s) = superblock(image[copy]) else {
            continue;
        };
        *age = s.seq;
        for seg in s.log.iter().map(|u| u.seg).chain(s.checkpoint.map(|k| k.0)) {
            v.named |= 1 << seg;
        }
    }
    let Some(top) = choose_super(image, config) else {
        v.refused = Some("no superblock");
        return v;
    };
    (v.seq, v.checkpoint, v.base) = (top.seq, top.checkpoint, top.base);
    v.first = top.log.first().copied();
    let reader = Reader { image, config };
    let Some(prev) = reader.checkpoint(&mut v) else {
        v.refused = Some("checkpoint damaged");
        return v;
    };
    v.evidence = reader.evidence(&top.log);
    let mut walk = Walk {
        want: top.base + 1,
        prev: Some(prev),
        at: 0,
        block: top.log.first().map_or(0, |u| u.start),
        ends: vec![0; top.log.len()],
        log: &top.log,
    };
    while walk.at < walk.log.len() && reader.step(&mut walk, &mut v) {}
    v.next = walk.want;
    v.tag = v.accepted.last().copied().unwrap_or(0);
    for (u, &end) in top.log.iter().zip(&walk.ends) {
        if end > 0 {
            v.uses.push(Use { end: if config.cut { end } else { 0 }, ..*u });
        }
    }
    v
}

/// Yields the groups that are whole in some copy of `image`, at a place of a listed use.
pub fn whole(image: &[Id], config: &Config) -> Vec<Id> {
    let Some(top) = choose_super(image, config) else {
        return Vec::new();
    };
    let reader = Reader { image, config };
    let places =
        top.log.iter().flat_map(|u| (u.start..config.geometry.blocks).map(move |b| (u, b)));
    places.flat_map(|(u, block)| reader.groups(u, block)).map(|g| canon(&g)).collect()
}

impl Verdict {
    /// The last LSN accounted for, the `durableLsn` of the superblock that the mount writes.
    pub fn durable(&self) -> u8 {
        self.next - 1
    }

    /// The verdict in words.
    pub fn tell(&self) -> String {
        let accepted: Vec<u8> = self.accepted.iter().map(|&i| lsn(i)).collect();
        let lost = match self.lost.is_empty() {
            true => String::new(),
            false => format!(", DataLoss {:?}", self.lost),
        };
        format!(
            "{}accepts {accepted:?}{lost}, next LSN {}, repairs {}",
            self.refused.unwrap_or(""),
            self.next,
            self.repairs.len()
        )
    }
}

fn choose_super(image: &[Id], config: &Config) -> Option<Super> {
    let copies = &image[..4];
    let mut best: Option<((u8, usize), Super)> = None;
    for &id in copies {
        let Some(s) = superblock(id) else { continue };
        let votes = copies.iter().filter(|&&other| other == id).count();
        let rank = (s.seq, if config.super_majority { votes } else { 0 });
        let better = match &best {
            None => true,
            // Without a majority the first copy wins, with one the last: the tie means nothing.
            Some((seen, _)) if config.super_majority => rank >= *seen,
            Some((seen, _)) => rank > *seen,
        };
        if votes >= config.super_quorum && better {
            best = Some((rank, s));
        }
    }
    best.map(|(_, s)| s)
}

struct Reader<'a> {
    image: &'a [Id],
    config: &'a Config,
}

/// Where the walk stands: use, block, expected LSN, expected previous tag.
struct Walk<'a> {
    log: &'a [Use],
    at: usize,
    block: u8,
    want: u8,
    prev: Option<Id>,
    ends: Vec<u8>,
}

impl Walk<'_> {
    fn enter(&mut self, at: usize) {
        self.at = at;
        self.block = self.log.get(at).map_or(0, |u| u.start);
    }
}

impl Reader<'_> {
    fn block(&self, zone: u8, seg: u8, block: u8) -> Id {
        self.image[usize::from(self.config.geometry.at(zone, seg, block))]
    }

    /// Reads the checkpoint, if one is named; yields the tag that the log's first group chains to.
    fn checkpoint(&self, v: &mut Verdict) -> Option<Id> {
        let Some((seg, epoch)) = v.checkpoint else {
            return Some(0);
        };
        let copies = [0, 1].map(|zone| self.block(zone, seg, 0));
        let good = copies.into_iter().find(|&c| checkpoint(c).is_some_and(|k| k.epoch == epoch))?;
        for (zone, copy) in (0..).zip(copies) {
            if copy != good {
                v.repairs.push((self.config.geometry.at(zone, seg, 0), good));
            }
        }
        let good = checkpoint(good)?;
        (v.accepted, v.lost) = (good.state, good.lost);
        Some(v.accepted.last().copied().unwrap_or(0))
    }

    /// D: superblock copies, headers in the listed uses, the first block of every segment.
    fn evidence(&self, log: &[Use]) -> u8 {
        let c = self.config;
        let supers = self.image[..4].iter().map(|&i| evidence(i)).max().unwrap_or(0);
        let mut d = if c.super_evidence { supers } else { 0 };
        for u in log {
            for block in u.start..c.geometry.blocks {
                for g in self.groups(u, block) {
                    d = d.max(g.durable);
                }
                for zone in 0..2 {
                    let header = group(self.block(zone, u.seg, block));
                    let own = header.filter(|g| c.header_tag && g.part == 0 && g.epoch == u.epoch);
                    d = d.max(own.map_or(0, |g| g.durable));
                }
            }
        }
        for seg in 0..c.geometry.segs {
            for zone in 0..2 {
                if c.scan_heads {
                    d = d.max(evidence(self.block(zone, seg, 0)));
                }
            }
        }
        d
    }

    /// Valid groups at this place in either copy (usually none or one).
    fn groups(&self, u: &Use, block: u8) -> Vec<Group> {
        let c = self.config;
        let mut found: Vec<Group> = vec![];
        for zone in 0..2 {
            let Some(g) = group(self.block(zone, u.seg, block)) else {
                continue;
            };
            if g.part != 0
                || block + g.len > c.geometry.blocks
                || (c.use_epoch && g.epoch != u.epoch)
                || (c.zone_in_tag && g.zone != zone + 1)
            {
                continue;
            }
            let whole =
                (1..g.len).all(|p| self.block(zone, u.seg, block + p) == part(&g, p, g.zone));
            let g = Group { zone: 0, ..g };
            if whole && !found.contains(&g) {
                found.push(g);
            }
        }
        found
    }

    fn expect(&self, u: &Use, block: u8, want: u8, prev: Option<Id>) -> Option<Group> {
        if block >= self.config.geometry.blocks {
            return None;
        }
        self.groups(u, block).into_iter().find(|g| {
            (!self.config.use_lsn || g.lsn == want)
                && (!self.config.use_chain || prev.is_none_or(|p| p == g.prev))
        })
    }

    /// Applies one row; false when the walk stops.
    fn step(&self, w: &mut Walk<'_>, v: &mut Verdict) -> bool {
        let u = w.log[w.at];
        let closed = u.end > 0;
        let past_end = closed && w.want > u.end;
        let here = if past_end { None } else { self.expect(&u, w.block, w.want, w.prev) };
        let next = w.log.get(w.at + 1).filter(|_| self.config.moved_on && !closed);
        let next_verifies = here.is_none()
            && next.is_some_and(|n| self.expect(n, n.start, w.want, w.prev).is_some());
        let gap = !past_end && here.is_none() && !next_verifies;
        let later = if gap { self.later(w) } else { None };
        let d = match self.config.proof {
            Proof::DurableLsn => v.evidence,
            Proof::LaterExists => v.evidence.max(later.map_or(0, |x| x.2 - 1)),
            Proof::Nothing => 0,
        }
        .max(u.end);
        let row = table(Seen {
            closed,
            past_end,
            verifies: here.is_some(),
            next_verifies,
            later: match later {
                None => Later::Absent,
                Some((_, _, first)) if first - 1 <= d => Later::Reached,
                Some(_) => Later::Beyond,
            },
            evidence: if d >= w.want { Evidence::Covers } else { Evidence::Below },
        });
        v.rows.push(row);
        self.apply(row, &u, here, later, d, w, v)
    }

    #[expect(clippy::too_many_arguments, reason = "one row, with everything it may speak of")]
    fn apply(
        &self,
        row: Row,
        u: &Use,
        here: Option<Group>,
        later: Option<(usize, u8, u8)>,
        d: u8,
        w: &mut Walk<'_>,
        v: &mut Verdict,
    ) -> bool {
        match row {
            Row::Complete => {
                w.ends[w.at] = u.end;
                w.prev = w.prev.filter(|_| self.config.chain_across);
                w.enter(w.at + 1);
            }
            Row::Accept => self.accept(&here.expect("the row says it verifies"), u, w, v),
            Row::MovedOn => w.enter(w.at + 1),
            Row::LossUpToLater => {
                let (at, block, first) = later.expect("the row says it exists");
                v.lost.push((w.want, first - 1));
                if self.config.loss_in_cut {
                    w.ends[w.at] = first - 1;
                }
                (w.at, w.block, w.want, w.prev) = (at, block, first, None);
            }
            Row::LossUpToCut => {
                v.lost.push((w.want, u.end));
                w.ends[w.at] = u.end;
                (w.want, w.prev) = (u.end + 1, None);
            }
            Row::LossUpToEvidence => {
                v.lost.push((w.want, d));
                if !self.config.lsn_reuse {
                    w.ends[w.at] = d;
                    w.want = d + 1;
                }
                return false;
            }
            Row::End => return false,
        }
        true
    }

    fn accept(&self, g: &Group, u: &Use, w: &mut Walk<'_>, v: &mut Verdict) {
        let id = canon(g);
        for zone in 0..2 {
            for p in 0..g.len {
                let good = part(g, p, if self.config.zone_in_tag { zone + 1 } else { 0 });
                if self.block(zone, u.seg, w.block + p) != good {
                    v.repairs.push((self.config.geometry.at(zone, u.seg, w.block + p), good));
                }
            }
        }
        v.accepted.push(id);
        v.placed.push(Placed { id, seg: u.seg, epoch: u.epoch, block: w.block });
        w.ends[w.at] = g.lsn;
        (w.prev, w.want, w.block) = (Some(id), g.lsn + 1, w.block + g.len);
    }

    /// X: index of its use, its block, its LSN.
    fn later(&self, w: &Walk<'_>) -> Option<(usize, u8, u8)> {
        let bounded = w.log[w.at].end > 0 && self.config.later_within_cut;
        let until = if bounded { w.at + 1 } else { w.log.len() };
        for at in w.at..until {
            let u = w.log[at];
            let from = if at == w.at { w.block } else { u.start };
            for block in from..self.config.geometry.blocks {
                for g in self.groups(&u, block) {
                    let counts = u.end == 0 || g.lsn <= u.end || !self.config.later_within_cut;
                    if g.lsn > w.want && counts {
                        return Some((at, block, g.lsn));
                    }
                }
            }
        }
        None
    }
}
