//! Which check catches which planted fault.

use super::rich::{self, Age};
use super::traces::{self, Ended};
use super::{cuts, large, online, ordering, overtaken, rules, singles, split};
use crate::sim::Setup;
use crate::sim::plan::Plan;
use crate::sim::play::play;
use journal::{Plant, Plants};

/// A check of the engine under some plants.
pub type Check = fn(Plants) -> Ended;

/// A sample of flipped bits.
pub fn flips(plants: Plants) -> Ended {
    singles::flips(&rich::rich(plants, Age::Old)?, plants, 3, 401).map(drop)
}

/// Every flipped bit of one group's header.
pub fn header_flips(plants: Plants) -> Ended {
    singles::header_flips(&rich::rich(plants, Age::Old)?, plants).map(drop)
}

/// A sample of damaged blocks.
pub fn blocks(plants: Plants) -> Ended {
    singles::blocks(&rich::rich(plants, Age::Old)?, plants, 31).map(drop)
}

/// A history of the simulator: full volumes that are opened again, one of which is too full then.
pub fn brims(plants: Plants) -> Ended {
    let plan = Plan::of_seed(33, Setup::planted(Plant::DeletesLimited));
    play(&plan, plants).map(drop).map_err(|broken| broken.what)
}

/// A history of the simulator: large values alone, until cleaning has taken each segment many times.
pub fn uploads(plants: Plants) -> Ended {
    let plan = Plan::of_seed(0, Setup::planted(Plant::UploadsInVain));
    play(&plan, plants).map(drop).map_err(|broken| broken.what)
}

/// The named checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("T1", traces::t1),
    ("T2", traces::t2),
    ("T3", traces::t3),
    ("T4", traces::t4),
    ("T5", traces::t5),
    ("T6", traces::t6),
    ("T7", traces::t7),
    ("T8", traces::t8),
    ("T9", traces::t9),
    ("T10", traces::t10),
    ("T11", traces::t11),
    ("T12", traces::t12),
    ("T13", traces::t13),
    ("T14", traces::t14),
    ("T15", ordering::t15),
    ("T16", ordering::t16),
    ("superblock first", ordering::superblock_first),
    ("T17", traces::t17),
    ("T18", traces::t18),
    ("T19", traces::t19),
    ("T20", traces::t20),
    ("T25", traces::t25),
    ("gap", traces::a_gap_is_reported),
    ("two losses", rules::two_losses_in_a_row),
    ("loss at a start", rules::a_loss_at_a_start_stays_as_it_is),
    ("loss that heals", rules::a_loss_that_heals_takes_nothing_along),
    ("doubt that heals", rules::a_loss_that_heals_leaves_no_doubt),
    ("deletes in doubt", traces::deletes_after_a_loss_are_bounded),
    ("bad value", traces::a_value_goes_bad),
    ("unread copy", rules::a_copy_that_is_not_read),
    ("copy B", traces::copy_b_is_enough),
    ("read back", traces::a_checkpoint_is_read_back),
    ("bad block", traces::a_bad_block_stops_nothing),
    ("versions", traces::versions_do_not_repeat),
    ("replay", traces::replay_is_bounded),
    ("moves", rules::a_move_keeps_doubt),
    ("overtaken moves", overtaken::no_older_value_is_vouched_for),
    ("strict", rules::strict_is_vouched_for),
    ("check", rules::a_check_leaves_a_torn_tail),
    ("check of a known use", rules::a_check_leaves_the_tail_of_a_known_use),
    ("stale tail", rules::a_stale_tail_is_not_taken_for_the_newer),
    ("cuts in a row", cuts::in_a_row),
    ("digest", rules::one_image_has_one_digest),
    ("superblocks", online::a_check_mends_superblocks),
    ("gaps under a check", online::a_check_tells_what_a_mount_would_miss),
    ("told back", online::not_read_back),
    ("room for one copy", online::room_is_not_short_for_one_copy),
    ("asked meanwhile", online::asked_meanwhile),
    ("tried again", online::tried_again),
    ("full volumes", brims),
    ("uploads alone", uploads),
    ("deletes beside damage", online::deletes_beside_damage),
    ("repair not taken", online::a_repair_that_is_not_taken),
    ("misread by fsck", online::misread_by_fsck),
    ("large", large::whole_or_not_at_all),
    ("large room", large::room_comes_back),
    ("large readers", large::readers_never_mix),
    ("large damage", large::damage_is_told),
    ("split", split::whole_or_not_at_all),
    ("split buffered", split::buffered_is_read_at_once),
    ("split damage", split::damage_is_told),
    ("split room", split::room_comes_back),
];

/// Each plant and the check that catches it.
pub fn caught_by(plant: Plant) -> Check {
    match plant {
        Plant::AckBeforeFlush | Plant::LateWrites => traces::t17,
        Plant::LaterProves | Plant::VouchEarly => traces::t7,
        Plant::SuperblockOrder => traces::t1,
        Plant::SuperblockQuorum => traces::t2,
        Plant::NoCut | Plant::AnyEpoch => traces::t3,
        Plant::DeletesWait => online::deletes_beside_damage,
        Plant::LossInCut => rules::a_loss_at_a_start_stays_as_it_is,
        Plant::ChainAcross => rules::a_loss_that_heals_takes_nothing_along,
        Plant::SkipRepair => traces::t4,
        Plant::RepairUnflushed => traces::t5,
        Plant::NextUnseen => traces::t6,
        Plant::ReuseLsnAfterLoss => traces::t8,
        Plant::OneTag => traces::t9,
        Plant::ZoneInTag => traces::t10,
        Plant::AnyPhysicalUnit => traces::t11,
        Plant::HeadsUnscanned => traces::t12,
        Plant::FirstPairOnly => traces::t13,
        Plant::CheckpointUnflushed => traces::t14,
        Plant::RetryFlush => traces::t18,
        Plant::SkipFirstFlush => traces::t19,
        Plant::MountWritesEarly => traces::t20,
        Plant::ForgetLosses => traces::t25,
        Plant::EvidenceIgnored | Plant::DoubtForgotten => traces::a_gap_is_reported,
        Plant::SkipHeaderTag => header_flips,
        Plant::SkipPayloadTag => flips,
        Plant::SkipReadBack => traces::a_checkpoint_is_read_back,
        Plant::SilentAbsence | Plant::ReadOneCopy => traces::a_value_goes_bad,
        Plant::OneCopy => traces::copy_b_is_enough,
        Plant::CheckpointOneCopy => blocks,
        Plant::SameMount => traces::versions_do_not_repeat,
        Plant::ReplayUnbounded => traces::replay_is_bounded,
        Plant::StaleMoves => overtaken::no_older_value_is_vouched_for,
        Plant::MoveForgetsDoubt => rules::a_move_keeps_doubt,
        Plant::DoubtOutlives => rules::a_loss_that_heals_leaves_no_doubt,
        Plant::StrictUnwitnessed => rules::strict_is_vouched_for,
        Plant::CheckTouchesTail => rules::a_check_leaves_a_torn_tail,
        Plant::CutForgotten => rules::a_check_leaves_the_tail_of_a_known_use,
        Plant::GapsUnseen => online::a_check_tells_what_a_mount_would_miss,
        Plant::UploadsInVain => uploads,
        Plant::CutAbandoned => rules::a_mount_goes_on_where_a_checkpoint_cut,
        Plant::NothingSpared => online::room_is_not_short_for_one_copy,
        Plant::AdoptBeforeFlush => ordering::t15,
        Plant::MoveReplaysAsPut | Plant::FreeBeforeMoved => ordering::t16,
        Plant::ManifestFirst => large::whole_or_not_at_all,
        Plant::DeletesLimited => brims,
        Plant::OrphansKept | Plant::ChunksOutlive => large::room_comes_back,
        Plant::ReadAcross => large::readers_never_mix,
        Plant::ManifestEarly => split::whole_or_not_at_all,
    }
}
