//! The quick questions: each weakened rule fails, small instances of every proof hold.

use recovery_model::config::Config;
use recovery_model::disk::{Content, Group, Super, Use, intern};
use recovery_model::recover::recover;
use recovery_model::runs::run;
use recovery_model::table::Row;
use recovery_model::{clean, runs};

/// Asserts that the weakened rule `name` breaks a promise whose text begins with `promise`.
fn breaks(name: &str, promise: &str) {
    let found = run(name).expect("a run has this name").explore();
    let (broken, trace) = found.violation.expect("the weakened rule must fail");
    assert!(broken.starts_with(promise), "{name}: {broken}\n{}", trace.join("\n"));
    assert!(trace.len() > 1, "{name}: the trace tells how");
}

/// Asserts that a small instance of the proof `name` holds, with nothing left out.
fn holds(name: &str) {
    let question = run(name).expect("a run has this name").small();
    let found = question.explore();
    assert_eq!(found.violation, None, "{name}");
    assert!(found.complete, "{name}: the bound was reached");
    assert!(found.recoveries > 100, "{name}: only {} recoveries", found.recoveries);
    let asks = question.title.contains(" at the cut");
    assert!(!asks || found.at_cut > 0, "{name}: no mount at a cut");
}

macro_rules! weakened {
    ($($test:ident: $name:literal => $promise:literal;)*) => {
        $(#[test] fn $test() { breaks($name, $promise); })*

        #[test]
        fn every_weakened_rule_is_asked() {
            let asked = [$($name),*];
            for r in runs::runs().iter().filter(|r| !r.holds) {
                assert!(asked.contains(&r.name), "{} has no test", r.title);
            }
        }
    };
}

macro_rules! proofs {
    ($($test:ident: $name:literal;)*) => {
        $(#[test] fn $test() { holds($name); })*

        #[test]
        fn every_proof_is_asked() {
            let asked = [$($name),*];
            for r in runs::runs().iter().filter(|r| r.holds) {
                assert!(asked.contains(&r.name), "{} has no test", r.title);
            }
        }
    };
}

weakened! {
    t1_fixed_superblock_order: "X14" => "S1: no superblock";
    t2_superblock_quorum_of_two: "X12" => "S1: no superblock";
    t3_cut_only_in_the_new_segment: "X7" => "S3";
    t4_repair_only_before_new_acks: "X10" => "S1/S4";
    t5_repair_and_superblock_under_one_flush: "X9" => "S2";
    t5_no_repair_at_all: "X8" => "S2";
    t6_next_use_not_looked_at: "X24" => "S1/S4";
    t7_a_later_group_as_proof: "X2" => "S2";
    t8_lsns_given_out_again_after_loss: "X18" => "S8";
    t9_one_tag_for_header_and_payload: "X23" => "S8";
    t10_zone_in_the_tag: "X21" => "S1/S4";
    t11_block_below_the_physical_sector: "X27" => "S1/S4";
    t12_heads_of_unlisted_segments_not_read: "X28" => "S8";
    t13_acting_after_the_first_pair: "X13" => "S1/S4";
    t14_checkpoint_and_superblock_under_one_flush: "X16" => "S1: checkpoint damaged";
    t15_freed_segment_written_at_once: "X17" => "S1/S4";
    t17_durable_counts_writes_after_the_flush: "X3" => "S1/S4";
    t18_going_on_after_a_failed_flush: "X19" => "S1/S4";
    t19_reopen_from_the_cache: "X20" => "S3";
    t19_reopen_from_the_cache_after_a_failed_flush: "X20b" => "S2";
    t20_mount_checkpoint_in_a_segment_an_old_superblock_names: "X35" => "S2";
    t21_mount_checkpoint_over_one_a_hidden_superblock_names: "X35b" => "S1: checkpoint damaged";
    t22_mount_checkpoint_vouches_under_the_repairs_flush: "X36" => "S2";
    t23_mount_checkpoint_overwrites_evidence: "X38" => "S3: not idempotent";
    t24_mount_checkpoint_without_repairs: "X43" => "S2";
    use_ends_with_a_loss_before_a_later_one: "X48" => "S3: not idempotent";
    chain_leads_on_from_a_closed_use: "X47" => "S10";
    t25_writer_checkpoint_forgets_the_losses: "X38b" => "S2";
    mount_checkpoint_forgets_the_losses: "X38c" => "S8";
    one_copy_only: "X1" => "S1/S4";
    no_epoch_no_chain_no_cut: "X4" => "S3";
    no_epoch_no_chain: "X4b" => "S3";
    no_epoch_and_equal_bytes: "X5" => "S3";
    no_lsn_and_no_chain: "X6" => "S3";
    no_cut_and_no_chain: "X7b" => "S3";
    superblock_all_at_once: "X11" => "S1: no superblock";
    superblock_quorum_and_first_pair: "X12b" => "S1: no superblock";
    superblock_oldest_first_only_at_the_mount: "X13c" => "S1/S4";
    freed_segment_written_after_the_first_pair: "X17b" => "S1";
    one_epoch_for_every_use: "X22" => "S3";
    no_durable_in_the_superblock: "X25" => "S8";
    no_evidence: "X26" => "S8";
    in_place_under_the_same_epoch: "X29" => "S3";
    in_place_under_the_same_epoch_no_chain: "X29b" => "S3";
    in_place_without_the_cut: "X30" => "S3";
    in_place_after_the_first_pair: "X31" => "S1/S4";
    in_place_over_the_accepted: "X32" => "S1/S4";
    segment_freed_under_a_later_use: "X33" => "S1/S4";
    later_group_beyond_the_cut: "X34" => "S3";
    at_the_cut_under_the_old_epoch: "X44" => "S3";
    at_the_cut_over_the_accepted: "X45" => "S1/S4";
    segment_of_the_cut_counts_as_free: "X46" => "S1/S4";
    mount_checkpoint_and_superblock_under_one_flush: "X37" => "S1: checkpoint damaged";
    writer_takes_the_last_segment: "X39" => "S9";
    checkpoint_leaves_no_segment: "X40" => "S9";
    mount_never_writes_a_checkpoint: "X41" => "S9";
    flush_taken_for_the_newest: "X42" => "S1/S4";
}

proofs! {
    p1: "P1";
    p2: "P2";
    p3: "P3";
    p4: "P4";
    p5: "P5";
    p6: "P6";
    p7: "P7";
    p7b: "P7b";
    p8: "P8";
    p9: "P9";
    p10: "P10";
    p11: "P11";
    p12: "P12";
    p13: "P13";
    p14: "P14";
    p14b: "P14b";
    p15: "P15";
    p16: "P16";
    p17: "P17";
    p18: "P18";
    p19: "P19";
    p20: "P20";
    p21: "P21";
    p22: "P22";
    p23: "P23";
    p24: "P24";
    p24b: "P24b";
    p25: "P25";
    p25b: "P25b";
    p26: "P26";
    p26b: "P26b";
    p26c: "P26c";
    p26d: "P26d";
    p27: "P27";
    p27b: "P27b";
    p27c: "P27c";
    p27d: "P27d";
    p28: "P28";
    p29: "P29";
    p30: "P30";
    p31: "P31";
    p32: "P32";
    p33: "P33";
    p33b: "P33b";
    p34: "P34";
    p35: "P35";
    p36: "P36";
    p36b: "P36b";
    p37: "P37";
    p37b: "P37b";
    p38: "P38";
    p38b: "P38b";
    p39: "P39";
    p40: "P40";
    p40b: "P40b";
    p40c: "P40c";
    p41: "P41";
    p41b: "P41b";
    p42: "P42";
    p43: "P43";
    p43b: "P43b";
    p44: "P44";
    p44b: "P44b";
    p45: "P45";
    p45b: "P45b";
    p46: "P46";
    p47: "P47";
    p48: "P48";
    p49: "P49";
    p49b: "P49b";
    p49c: "P49c";
    p49d: "P49d";
    p49e: "P49e";
    p49f: "P49f";
    p49g: "P49g";
    p49h: "P49h";
    p49i: "P49i";
    p49j: "P49j";
    p50: "P50";
    p50b: "P50b";
    p50c: "P50c";
    p50d: "P50d";
    p51: "P51";
}

/// T16 and the other cleaning traces; T16 is C3.
#[test]
fn t16_a_move_replays_like_a_put() {
    let rule = |name| clean::runs().into_iter().find(|r| r.name == name).expect("named").rule;
    let (broken, _) = clean::explore(rule("C3")).violation.expect("the weakened rule must fail");
    assert!(broken.contains("must be live v3"), "{broken}");
    let found = clean::explore(rule("C1"));
    assert_eq!((found.states, found.violation), (14_659, None));
}

/// With three segments the update that adopts a checkpoint must also list the next use.
#[test]
fn three_segments_need_free_and_reserve_in_one_update() {
    let mut question = run("P40c").expect("a run has this name");
    question.config.cuts = 1;
    assert_eq!(question.explore().stuck, 0);
    question.config.free_and_reserve = false;
    assert!(question.explore().stuck > 0);
}

/// The whole rule on one hand-made image: an acknowledged group, a torn one behind it.
#[test]
fn an_image_has_its_verdict() {
    let config = Config::rule();
    let log = vec![Use { seg: 0, epoch: 1, start: 0, end: 0 }];
    let (seq, base, durable, salt) = (1, 0, 0, 0);
    let first = Super { seq, log, checkpoint: None, base, durable, salt };
    let (prev, payload, len, part, zone) = (0, 0, 1, 0, 0);
    let g1 = Group { epoch: 1, lsn: 1, prev, durable, payload, len, part, zone };
    let mut image = vec![0; usize::from(config.geometry.total())];
    image[..3].fill(intern(Content::Super(first)));
    let g1 = intern(Content::Group(g1));
    image[usize::from(config.geometry.at(1, 0, 0))] = g1;
    let v = recover(&image, &config);
    assert_eq!((v.accepted, v.next, v.lost), (vec![g1], 2, vec![]));
    assert_eq!(v.repairs, [(config.geometry.at(0, 0, 0), g1)]);
    assert_eq!(v.rows, [Row::Accept, Row::End]);
    assert_eq!(v.uses, [Use { seg: 0, epoch: 1, start: 0, end: 1 }]);
    assert_eq!(v.supers, [1, 1, 1, 0]);
    assert_eq!(recover(&[0; 20], &config).refused, Some("no superblock"));
}
