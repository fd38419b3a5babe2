//! The journal, faulted and cut by enumeration; the whole of it runs optimised in the program `faults`.

#![forbid(unsafe_code)]

use journal::{Plant, Plants};
use tests::faults::bench::{Bench, DEVICE_BYTES};
use tests::faults::histories::{Bounds, Histories, Letter, histories, history};
use tests::faults::plants::{Check, caught_by};
use tests::faults::recoveries::Counts;
use tests::faults::rich::{Age, rich};
use tests::faults::{
    astray, clones, cuts, deletes, device, large, mixtures, online, ordering, overtaken, pairs,
    plants, repairs, rules, singles, split, traces,
};

#[test]
fn the_volumes_have_everything_in_them() {
    let old = rich(Plants::default(), Age::Old).unwrap();
    assert!(old.checkpoints > 0 && old.cleaned > 0 && old.map.len() > 4 && old.older.len() > 3);
    // Values that only the checkpoint leads to: no mount looks at them.
    let mut bench = Bench::blank(Plants::default(), DEVICE_BYTES);
    bench.device.restore(&rich(Plants::default(), Age::Settled).unwrap().image);
    let segments = bench.inspect().unwrap().volume.unwrap().segments;
    let behind = segments.iter().filter(|segment| !segment.log);
    assert!(behind.map(|segment| segment.live_values).sum::<u64>() > 8);
    let young = rich(Plants::default(), Age::Young).unwrap();
    assert!(young.checkpoints == 0 && young.map.len() > 4 && young.older.len() > 2);
}

#[test]
fn no_flipped_bit_loses_anything() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let found = singles::flips(&rich, Plants::default(), 3, 401).unwrap();
        println!("{found:?}");
        assert!(found.repaired > 50 && found.superblocks > 50 && found.harmless > 50);
    }
}

#[test]
fn no_bad_block_loses_anything() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let found = singles::blocks(&rich, Plants::default(), 13).unwrap();
        println!("{found:?}");
        assert!(found.repaired > 50 && found.superblocks > 50);
        // What no log leads to, a check alone finds in copy B.
        assert!(age != Age::Settled || found.checked > 100);
    }
}

#[test]
fn two_bad_blocks_are_never_hidden() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let found = pairs::pairs(&rich, Plants::default(), 7).unwrap();
        println!("{found:?}");
        assert!(found.opened > 1000 && found.lost > 10 && found.clean > 100);
        // Both copies of a part of the checkpoint, where there is one.
        assert_eq!(found.refused > 0, age != Age::Young);
    }
}

#[test]
fn a_part_that_is_put_back_is_never_believed() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let found = mixtures::mixtures(&rich, Plants::default(), 0..3000).unwrap();
        println!("{found:?}");
        assert!(found.whole > 100 && found.lost > 100);
        // A part of the checkpoint, in both copies, where there is one.
        assert_eq!(found.refused > 0, age != Age::Young);
    }
    let old = rich(Plants::default(), Age::Old).unwrap();
    for plant in [Plant::AnyEpoch, Plant::DoubtForgotten, Plant::SuperblockQuorum] {
        assert!(
            mixtures::mixtures(&old, Plants::one(plant), 0..3000).is_err(),
            "it holds with {plant:?}"
        );
    }
}

#[test]
fn a_clone_that_went_on_is_a_stranger() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let found = clones::clones(Plants::default(), age).unwrap();
        println!("{found:?}");
        assert!(found.places > 5 && found.lost > 2 && found.single == 2 * found.both);
    }
    let believed = clones::clones(Plants::one(Plant::AnyEpoch), Age::Old);
    println!("{believed:?}");
    assert!(believed.is_err());
}

#[test]
fn a_repair_does_what_was_said_and_nothing_else() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let found = repairs::repairs(&rich, Plants::default(), 300..600).unwrap();
        println!("{found:?}");
        assert!(found.repaired > 200 && found.lost > 50 && found.clean > 5);
    }
}

#[test]
fn every_cut_of_every_short_history_leaves_a_prefix() {
    let bounds = Bounds { letters: 1, nested: 1, twice: 0, placed: 1 };
    let mut found = Histories::default();
    histories(Plants::default(), bounds, (0, 1), |one| found.add(one)).unwrap();
    println!("{found}");
    assert!(found.histories == bounds.histories() && found.images > 1000);
    let Counts { recoveries: [left, nested, _], cut, cut_twice, known, .. } = found.recoveries;
    assert!(left > 500 && nested > 2000 && cut > left && cut_twice > 10 && known > nested);
}

#[test]
fn a_recovery_is_cut_that_follows_a_cut_one() {
    // The first cut tears the last two copies of the superblock, the second the first two, which are written first again.
    for placed in [true, false] {
        let planted = |depth| {
            history(Plants::one(Plant::SuperblockOrder), &[Letter::Put], depth, placed).err()
        };
        assert_eq!(planted(1), None);
        assert!(planted(2).unwrap().contains("no copy of the superblock verifies"));
    }
}

#[test]
fn an_image_that_was_met_before_is_judged_by_what_is_acknowledged_now() {
    // Nothing of the put is there where it is acknowledged: that is what the empty history left, from either base, where it was right.
    let bounds = Bounds { letters: 1, nested: 0, twice: 0, placed: 0 };
    let planted = Plants::one(Plant::AckBeforeFlush);
    let mut tried = 0;
    let broken = histories(planted, bounds, (0, 1), |_| tried += 1).unwrap_err();
    assert!(
        tried == 2 && broken.contains("no prefix of 1 commits that holds the first 1"),
        "{broken}"
    );
}

#[test]
fn each_failing_request_is_survived_or_ends_writing() {
    let found = device::fail_each(Plants::default()).unwrap();
    println!("{found:?}");
    assert!(found.runs > 100 && found.refused > 10 && found.stopped > 20 && found.unharmed > 20);
}

#[test]
fn a_device_that_is_short_blank_or_foreign_is_refused_and_not_changed() {
    for age in [Age::Old, Age::Young] {
        let rich = rich(Plants::default(), age).unwrap();
        assert_eq!(device::wrong_devices(&rich, Plants::default()), Ok(127 + 3 + 1));
    }
}

#[test]
fn a_device_of_larger_sectors_is_refused_for_that() {
    for age in [Age::Old, Age::Young] {
        let rich = rich(Plants::default(), age).unwrap();
        device::larger_sectors(&rich, Plants::default()).unwrap();
    }
}

#[test]
fn a_device_that_has_grown_is_served_as_before() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        device::grown(&rich(Plants::default(), age).unwrap(), Plants::default()).unwrap();
    }
}

#[test]
fn a_write_that_lands_elsewhere_loses_nothing() {
    let some = |write, blocks| (write % 11..blocks).step_by(11);
    let found = astray::writes(Plants::default(), some).unwrap();
    println!("{found:?}");
    assert!(found.requests > 40 && found.runs > 400 && found.damaged > 100);
    for plant in [Plant::SuperblockQuorum, Plant::ReadOneCopy, Plant::CheckpointOneCopy] {
        assert!(astray::writes(Plants::one(plant), some).is_err(), "it holds with {plant:?}");
    }
}

#[test]
fn a_read_from_elsewhere_is_never_believed() {
    for age in [Age::Old, Age::Young, Age::Settled] {
        let rich = rich(Plants::default(), age).unwrap();
        let some = |read, blocks| (read % 7..blocks).step_by(7);
        let found = astray::reads(&rich, Plants::default(), some).unwrap();
        println!("{found:?}");
        assert!(found.requests > 20 && found.runs > 400 && found.damaged == 0);
        assert!(astray::reads(&rich, Plants::one(Plant::ReadOneCopy), some).is_err());
    }
}

#[test]
fn a_flush_that_was_not_done_leaves_an_earlier_state_or_is_told() {
    let found = astray::flushes(Plants::default()).unwrap();
    println!("{found:?}");
    assert!(found.flushes > 60 && found.images > 1000 && found.earlier > 500 && found.told > 10);
    assert!(astray::flushes(Plants::one(Plant::DoubtForgotten)).is_err());
}

#[test]
fn what_a_lying_flush_lost_for_good_is_told() {
    let found = astray::lost_for_good(Plants::default()).unwrap();
    println!("{found:?}");
    assert!(found.images > 2000 && found.told > 1000 && found.refused > 10);
    for plant in [Plant::EvidenceIgnored, Plant::DoubtForgotten, Plant::SilentAbsence] {
        assert!(astray::lost_for_good(Plants::one(plant)).is_err(), "it holds with {plant:?}");
    }
}

#[test]
fn of_two_generations_of_the_superblock_the_newer_counts() {
    for age in [Age::Old, Age::Young] {
        let rich = rich(Plants::default(), age).unwrap();
        let mounted = device::two_generations(&rich, Plants::default()).unwrap();
        assert_eq!(mounted, 15 * rich.older.len() as u64);
    }
}

/// One test for each check: it holds with the rule, and breaks with each plant that it shall catch.
macro_rules! checks {
    ($($name:ident: $check:expr, $catches:expr;)*) => {
        $(#[test]
        fn $name() {
            holds_and_catches($check, $catches);
        })*
    };
}

fn holds_and_catches(check: Check, plants: &[Plant]) {
    check(Plants::default()).unwrap_or_else(|what| panic!("with the rule: {what}"));
    for plant in plants {
        assert!(check(Plants::one(*plant)).is_err(), "it holds with {plant:?}");
    }
}

checks! {
    t1_two_cuts_in_two_mounts_leave_a_superblock: traces::t1, &[Plant::SuperblockOrder];
    t2_one_copy_of_the_superblock_is_enough: traces::t2, &[Plant::SuperblockQuorum];
    t3_what_was_discarded_stays_so: traces::t3, &[Plant::NoCut, Plant::AnyEpoch];
    t4_what_was_shown_survives_a_fault: traces::t4, &[Plant::SkipRepair];
    t5_repairs_are_durable_before_the_superblock: traces::t5, &[Plant::RepairUnflushed];
    t6_the_walk_goes_on_in_the_next_use: traces::t6, &[Plant::NextUnseen];
    t7_a_later_group_proves_nothing: traces::t7, &[Plant::LaterProves, Plant::VouchEarly];
    t8_a_loss_is_reported_at_every_mount: traces::t8, &[Plant::ReuseLsnAfterLoss];
    t9_a_header_is_evidence_without_its_payload: traces::t9, &[Plant::OneTag];
    t10_a_copy_on_its_mirror_destroys_nothing: traces::t10, &[Plant::ZoneInTag];
    t11_a_unit_above_the_block_is_refused: traces::t11, &[Plant::AnyPhysicalUnit];
    t12_heads_of_unlisted_segments_are_evidence: traces::t12, &[Plant::HeadsUnscanned];
    t13_both_pairs_before_anything_relies_on_them: traces::t13, &[Plant::FirstPairOnly];
    t14_a_checkpoint_is_durable_before_its_superblock: traces::t14, &[Plant::CheckpointUnflushed];
    t15_freed_segments_wait_for_the_superblock: ordering::t15, &[Plant::AdoptBeforeFlush];
    t16_a_move_undoes_nothing: ordering::t16,
        &[Plant::MoveReplaysAsPut, Plant::FreeBeforeMoved];
    t17_a_flush_covers_what_came_before_it: traces::t17,
        &[Plant::LateWrites, Plant::AckBeforeFlush];
    t18_a_failed_flush_is_the_end: traces::t18, &[Plant::RetryFlush];
    t19_a_mount_flushes_first: traces::t19, &[Plant::SkipFirstFlush];
    t20_to_t24_a_mount_writes_nothing_but_repairs: traces::t20,
        &[Plant::MountWritesEarly, Plant::SkipRepair];
    t25_checkpoints_carry_losses_on: traces::t25, &[Plant::ForgetLosses];
    three_hundred_cuts_in_a_row_converge: cuts::in_a_row,
        &[Plant::SuperblockOrder, Plant::SuperblockQuorum, Plant::FirstPairOnly];
    one_image_has_one_digest: rules::one_image_has_one_digest, &[];
    a_superblock_vouches_for_nothing_that_is_not_durable: ordering::superblock_first, &[];
    no_older_value_is_vouched_for: overtaken::no_older_value_is_vouched_for,
        &[Plant::StaleMoves];
    a_move_keeps_doubt: rules::a_move_keeps_doubt, &[Plant::MoveForgetsDoubt];
    a_strict_commit_is_vouched_for: rules::strict_is_vouched_for, &[Plant::StrictUnwitnessed];
    a_check_mends_superblocks: online::a_check_mends_superblocks,
        &[Plant::SuperblockOrder, Plant::FirstPairOnly];
    a_check_tells_what_a_mount_would_miss: online::a_check_tells_what_a_mount_would_miss,
        &[Plant::GapsUnseen];
    a_checkpoint_that_is_not_read_back_says_so: online::not_read_back, &[Plant::SkipReadBack];
    room_is_not_short_for_one_copy: online::room_is_not_short_for_one_copy,
        &[Plant::NothingSpared];
    a_checkpoint_that_is_asked_for_meanwhile_is_written: online::asked_meanwhile, &[];
    a_segment_that_was_not_read_is_tried_again: online::tried_again, &[];
    a_full_volume_with_damage_deletes: online::deletes_beside_damage, &[Plant::DeletesWait];
    deletes_take_nothing_from_a_running_clean: deletes::beside_maintenance, &[Plant::DeletesWait];
    a_repair_that_is_not_taken_stops_nothing: online::a_repair_that_is_not_taken, &[];
    what_an_fsck_misreads_once_stays_as_it_is: online::misread_by_fsck, &[];
    a_check_repairs_no_torn_tail: rules::a_check_leaves_a_torn_tail, &[Plant::CheckTouchesTail];
    a_check_repairs_no_tail_of_a_known_use: rules::a_check_leaves_the_tail_of_a_known_use,
        &[Plant::CheckTouchesTail, Plant::CutForgotten];
    a_stale_tail_is_not_taken_for_the_newer: rules::a_stale_tail_is_not_taken_for_the_newer,
        &[Plant::CheckTouchesTail, Plant::CutForgotten];
    a_gap_is_reported: traces::a_gap_is_reported,
        &[Plant::EvidenceIgnored, Plant::DoubtForgotten];
    a_mount_goes_on_where_a_checkpoint_cut: rules::a_mount_goes_on_where_a_checkpoint_cut,
        &[Plant::CutAbandoned, Plant::CheckTouchesTail];
    a_loss_that_heals_takes_nothing_along: rules::a_loss_that_heals_takes_nothing_along,
        &[Plant::ChainAcross];
    a_loss_that_heals_leaves_no_doubt: rules::a_loss_that_heals_leaves_no_doubt,
        &[Plant::DoubtOutlives];
    a_loss_at_a_start_stays_as_it_is: rules::a_loss_at_a_start_stays_as_it_is,
        &[Plant::LossInCut];
    two_losses_in_a_row_spare_what_follows: rules::two_losses_in_a_row, &[];
    deletes_after_a_loss_are_bounded: traces::deletes_after_a_loss_are_bounded, &[];
    a_value_that_goes_bad_is_never_absent: traces::a_value_goes_bad,
        &[Plant::SilentAbsence, Plant::ReadOneCopy];
    a_copy_that_is_not_read_may_be_there: rules::a_copy_that_is_not_read, &[];
    copy_b_is_enough: traces::copy_b_is_enough, &[Plant::OneCopy];
    a_checkpoint_is_read_back: traces::a_checkpoint_is_read_back, &[Plant::SkipReadBack];
    a_bad_block_stops_nothing: traces::a_bad_block_stops_nothing, &[];
    a_grown_device_without_its_first_superblocks_is_refused: device::grown_without_a_start, &[];
    values_that_look_like_groups_are_none: device::values_like_groups, &[];
    versions_do_not_repeat: traces::versions_do_not_repeat, &[Plant::SameMount];
    replay_never_exceeds_the_superblocks_figure: traces::replay_is_bounded,
        &[Plant::ReplayUnbounded];
    a_full_volume_that_is_opened_again_deletes: plants::brims, &[Plant::DeletesLimited];
    large_values_alone_find_room_for_ever: plants::uploads, &[Plant::UploadsInVain];
    a_large_value_is_whole_or_not_there: large::whole_or_not_at_all, &[Plant::ManifestFirst];
    what_large_values_took_comes_back: large::room_comes_back,
        &[Plant::OrphansKept, Plant::ChunksOutlive];
    readers_never_mix_two_large_values: large::readers_never_mix, &[Plant::ReadAcross];
    damage_to_a_chunk_is_told_for_its_key: large::damage_is_told, &[];
    a_value_that_is_cut_is_whole_or_not_there: split::whole_or_not_at_all,
        &[Plant::ManifestEarly];
    a_value_that_is_cut_is_read_before_it_is_written: split::buffered_is_read_at_once, &[];
    damage_to_a_part_of_a_value_is_told: split::damage_is_told, &[Plant::ReadOneCopy];
    what_values_that_are_cut_took_comes_back: split::room_comes_back,
        &[Plant::OrphansKept, Plant::ChunksOutlive];
}

#[test]
fn every_plant_is_caught() {
    let missed = Plant::ALL.iter().filter(|(name, plant)| {
        let ended = caught_by(*plant)(Plants::one(*plant));
        println!("{name}: {ended:?}");
        ended.is_ok()
    });
    let missed: Vec<_> = missed.map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
