//! The seven rows of recovery, as one pure function.

/// What recovery sees at one block of one listed use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seen {
    /// The use has a cut (its `end` is set).
    pub closed: bool,
    /// The expected LSN W lies past that cut; means nothing for an open use.
    pub past_end: bool,
    /// The expected group verifies here in copy A or B.
    pub verifies: bool,
    /// The expected group verifies at the start of the next listed use; never asked of a closed use.
    pub next_verifies: bool,
    /// The first valid later group X of this log, and whether evidence reaches up to it.
    pub later: Later,
    /// The evidence D against W.
    pub evidence: Evidence,
}

/// X: the first valid group past W (in a closed use: only within it, at or below its cut).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Later {
    /// There is none.
    Absent,
    /// It exists, and max(D, cut) >= its first LSN - 1: the whole gap was durable.
    Reached,
    /// It exists, and the gap before it is not covered in whole.
    Beyond,
}

/// D, the greatest `durableLsn` seen, against W.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Evidence {
    /// D < W: nothing says that W was ever durable.
    Below,
    /// D >= W: the group at W was durable once.
    Covers,
}

/// The row that applies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Row {
    /// 1: the use is complete; go on in the next one.
    Complete = 1,
    /// 2: accept the group.
    Accept,
    /// 3: the log moved on to the next use, nothing is missing.
    MovedOn,
    /// 4: `DataLoss` [W, X.first - 1]; go on at X.
    LossUpToLater,
    /// 5: `DataLoss` [W, cut]; go on in the next use.
    LossUpToCut,
    /// 6: `DataLoss` [W, D], torn behind it; stop.
    LossUpToEvidence,
    /// 7: the end, clean or torn; later groups are discarded.
    End,
}

/// The row of what was seen.
///
/// The rows are disjoint, so their order is free; no arm catches the rest, so a new state of the
/// world does not compile until it has a row. Source: the recovery section of `FORMAT.md`.
pub fn table(seen: Seen) -> Row {
    let Seen { closed, past_end, verifies, next_verifies, later, evidence } = seen;
    match (closed, past_end, verifies, next_verifies, later, evidence) {
        (true, true, _, _, _, _) => Row::Complete,
        (true, false, true, _, _, _) | (false, _, true, _, _, _) => Row::Accept,
        (false, _, false, true, _, _) => Row::MovedOn,
        (true, false, false, _, Later::Reached, _)
        | (false, _, false, false, Later::Reached, _) => Row::LossUpToLater,
        (true, false, false, _, Later::Absent | Later::Beyond, _) => Row::LossUpToCut,
        (false, _, false, false, Later::Absent | Later::Beyond, Evidence::Covers) => {
            Row::LossUpToEvidence
        }
        (false, _, false, false, Later::Absent | Later::Beyond, Evidence::Below) => Row::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as `RECOVERY` words it: conditions tried in order.
    fn worded(s: Seen) -> Row {
        if s.closed && s.past_end {
            Row::Complete
        } else if s.verifies {
            Row::Accept
        } else if !s.closed && s.next_verifies {
            Row::MovedOn
        } else if s.later == Later::Reached {
            Row::LossUpToLater
        } else if s.closed {
            Row::LossUpToCut
        } else if s.evidence == Evidence::Covers {
            Row::LossUpToEvidence
        } else {
            Row::End
        }
    }

    #[test]
    fn the_match_equals_the_ordered_rows_everywhere() {
        let mut reached = [0; 8];
        let flags = [false, true];
        for bits in 0..16_usize {
            for later in [Later::Absent, Later::Reached, Later::Beyond] {
                for evidence in [Evidence::Below, Evidence::Covers] {
                    let [closed, past_end, verifies, next_verifies] =
                        [0, 1, 2, 3].map(|k| flags[bits >> k & 1]);
                    let seen = Seen { closed, past_end, verifies, next_verifies, later, evidence };
                    assert_eq!(table(seen), worded(seen), "{seen:?}");
                    reached[table(seen) as usize] += 1;
                }
            }
        }
        assert!(reached[1..].iter().all(|&n| n > 0), "every row is reachable: {reached:?}");
    }
}
