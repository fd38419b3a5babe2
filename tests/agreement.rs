//! The engine's table of recovery is the model's, row by row, on everything that either can see.

#![forbid(unsafe_code)]

use journal::{Later, Sight, UseState, Verdict, verdict};
use recovery_model::table::{self, Row, Seen, table};

#[test]
fn the_engine_decides_as_the_model_does() {
    let mut compared = 0;
    for use_ in [UseState::Complete, UseState::Closed, UseState::Open] {
        for later in [Later::None, Later::Covered, Later::Uncovered] {
            for bits in 0..8_u8 {
                let [fits, next_fits, vouched] = [0, 1, 2].map(|k| bits >> k & 1 == 1);
                let sight = Sight { use_, fits, next_fits, later, vouched };
                let row = table(Seen {
                    closed: use_ != UseState::Open,
                    past_end: use_ == UseState::Complete,
                    verifies: fits,
                    next_verifies: next_fits,
                    later: match later {
                        Later::None => table::Later::Absent,
                        Later::Covered => table::Later::Reached,
                        Later::Uncovered => table::Later::Beyond,
                    },
                    evidence: if vouched {
                        table::Evidence::Covers
                    } else {
                        table::Evidence::Below
                    },
                });
                let expected = match row {
                    Row::Complete => Verdict::UseComplete,
                    Row::Accept => Verdict::Accept,
                    Row::MovedOn => Verdict::MovedOn,
                    Row::LossUpToLater => Verdict::LossBeforeLater,
                    Row::LossUpToCut => Verdict::LossToCut,
                    Row::LossUpToEvidence => Verdict::LossToEvidence,
                    Row::End => Verdict::End,
                };
                assert_eq!(verdict(sight), expected, "{sight:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 72);
}
