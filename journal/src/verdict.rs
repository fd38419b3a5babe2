//! The table of recovery: one pure function (FORMAT.md section 7, RECOVERY rule rows 1 to 7).

/// What the walk sees at its place, as far as the table asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The use that the walk is in.
    pub use_: UseState,
    /// A group at the place fits: it verifies in either copy, and is the expected one.
    pub fits: bool,
    /// The first group of the next listed use fits.
    pub next_fits: bool,
    /// The first later group.
    pub later: Later,
    /// Evidence reaches the expected LSN: D >= W.
    pub vouched: bool,
}

/// State of a use with respect to the expected LSN W.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UseState {
    /// Closed, and W is past its cut.
    Complete,
    /// Closed, and W is at or before its cut.
    Closed,
    /// Open.
    Open,
    /// There is none: the list is exhausted.
    Exhausted,
}

/// The first group of the log behind the gap, X.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Later {
    /// There is none.
    None,
    /// max(D, cut) >= X.first - 1: the whole gap was durable.
    Covered,
    /// The gap was not durable as a whole.
    Uncovered,
}

/// What recovery does at the place, named by the table's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Row 1: go on at the next use.
    UseComplete,
    /// Row 2: the group counts.
    Accept,
    /// Row 3: the writer went on in the next use.
    MovedOn,
    /// Row 4: W to X.first - 1 were durable and are gone; go on at X.
    LossBeforeLater,
    /// Row 5: W to the cut were durable and are gone; go on at the next use.
    LossToCut,
    /// Row 6: W to D were durable and are gone; stop.
    LossToEvidence,
    /// Row 7: the end of the log.
    End,
}

/// Decides by the first row that holds.
pub fn verdict(sight: Sight) -> Verdict {
    use {Later::*, UseState::*};
    let Sight { use_, fits, next_fits, later, vouched } = sight;
    match (use_, fits, next_fits, later, vouched) {
        (Complete, true | false, true | false, None | Covered | Uncovered, true | false) => {
            Verdict::UseComplete
        }
        (Closed | Open, true, true | false, None | Covered | Uncovered, true | false) => {
            Verdict::Accept
        }
        (Open, false, true, None | Covered | Uncovered, true | false) => Verdict::MovedOn,
        (Open, false, false, Covered, true | false) => Verdict::LossBeforeLater,
        (Closed, false, true | false, Covered, true | false) => Verdict::LossBeforeLater,
        // In a closed use X lies at or before the cut, so its gap is covered; the row is complete all the same.
        (Closed, false, true | false, None | Uncovered, true | false) => Verdict::LossToCut,
        (Open, false, false, None | Uncovered, true) => Verdict::LossToEvidence,
        (Open, false, false, None | Uncovered, false) => Verdict::End,
        (Exhausted, true | false, true | false, None | Covered | Uncovered, true) => {
            Verdict::LossToEvidence
        }
        (Exhausted, true | false, true | false, None | Covered | Uncovered, false) => Verdict::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_tried_in_order() {
        let open = Sight {
            use_: UseState::Open,
            fits: false,
            next_fits: false,
            later: Later::None,
            vouched: false,
        };
        let check = |sight, expected| assert_eq!(verdict(sight), expected, "{sight:?}");
        check(Sight { use_: UseState::Complete, fits: true, ..open }, Verdict::UseComplete);
        check(Sight { fits: true, next_fits: true, ..open }, Verdict::Accept);
        check(Sight { next_fits: true, later: Later::Covered, ..open }, Verdict::MovedOn);
        check(Sight { later: Later::Covered, vouched: true, ..open }, Verdict::LossBeforeLater);
        check(Sight { use_: UseState::Closed, ..open }, Verdict::LossToCut);
        check(Sight { later: Later::Uncovered, vouched: true, ..open }, Verdict::LossToEvidence);
        check(Sight { later: Later::Uncovered, ..open }, Verdict::End);
        check(Sight { use_: UseState::Exhausted, ..open }, Verdict::End);
    }
}
