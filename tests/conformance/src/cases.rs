//! The cases, in the order in which a host meets them.

mod audit;
mod batches;
mod derived;
mod greeting;
mod keys;
mod limits;
mod lists;
mod order;
mod restarts;
mod rights;
mod writes;

use crate::stage::Case;

/// Names each case by its module and function, which are also its place in the store.
macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), $module::$case as Case)),*]
    };
}

/// Every case with its name. A case that is not in here does not compile: nothing would use it.
pub const CASES: &[(&str, Case)] = cases![
    greeting::hello_tells_each_its_name_and_the_limits,
    greeting::a_healthy_store_says_so_to_everybody,
    keys::what_was_put_is_what_is_read,
    keys::what_is_not_there_is_absent,
    keys::keys_beneath_a_key_are_keys_of_their_own,
    keys::a_key_is_the_same_through_every_directory,
    keys::a_key_that_breaks_a_rule_is_refused,
    keys::a_strange_key_that_breaks_none_is_taken,
    writes::a_version_is_new_with_every_write,
    writes::a_put_happens_only_if_its_precondition_holds,
    writes::a_delete_happens_only_if_its_precondition_holds,
    writes::preconditions_hold_for_every_durability,
    writes::sync_needs_no_right_and_nothing_to_do,
    limits::the_longest_key_is_taken_and_one_byte_more_is_not,
    limits::the_largest_value_is_taken_and_one_byte_more_is_not,
    limits::as_many_calls_as_the_limit_says_are_under_way,
    limits::a_page_holds_as_many_entries_as_the_limit_says,
    limits::a_page_ends_before_its_reply_is_too_large,
    batches::all_of_a_batch_happens_or_nothing,
    batches::a_batch_up_to_the_limits_is_taken,
    batches::a_token_is_answered_again,
    derived::a_value_of_many_parts_is_visible_only_whole,
    derived::a_restricted_directory_can_do_less_and_ends,
    derived::usage_counts_what_is_there,
    derived::the_schema_describes_itself,
    audit::each_change_has_one_record,
    audit::each_refusal_has_a_record_with_what_it_lacked,
    audit::a_record_survives_a_kill_with_its_change,
    lists::a_prefix_covers_whole_segments_in_the_order_of_bytes,
    lists::pages_follow_each_other_without_gap_or_repeat,
    lists::an_entry_has_the_value_or_with_keys_only_its_size,
    lists::a_key_of_a_list_is_relative_to_the_directory,
    order::calls_of_a_connection_happen_in_their_order,
    order::preconditions_see_what_is_under_way,
    order::an_acknowledged_write_is_seen_by_others,
    order::of_two_that_create_a_key_one_does,
    order::an_acknowledged_write_outlives_its_connection,
    order::a_connection_goes_on_behind_a_refusal,
    rights::a_stranger_is_denied_everything,
    rights::each_may_what_is_granted_and_no_more,
    rights::a_directory_is_good_for_the_rights_it_was_opened_with,
    rights::a_precondition_takes_the_right_to_read,
    rights::what_is_hidden_leaves_no_trace,
    rights::names_are_not_values,
    rights::a_denial_is_the_same_bytes_whether_the_key_is_there,
    rights::what_was_denied_has_changed_nothing,
    restarts::what_was_acknowledged_survives_a_kill,
    restarts::what_was_synced_survives_a_kill,
    restarts::a_durable_write_keeps_the_buffered_ones_before_it,
    restarts::after_a_kill_a_prefix_of_the_buffered_writes_is_there,
    restarts::a_clean_end_loses_nothing,
    restarts::versions_are_the_same_after_a_restart,
    restarts::everybody_is_known_again_after_a_restart,
];
