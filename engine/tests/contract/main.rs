//! The contract: every store keeps the laws of [`conga::store`] just as the reference does.
//!
//! Each case runs every verb on the store under test and on the memory store, which is the reference, by the same
//! clock, and compares all answers, the status after each step, and in the end everything that can be read. To hold
//! another store to the contract, write a [`Fixture`] for it and name it in a `contract_suite!`.

mod broken;
mod bytes;
mod claim;
mod clock;
mod complete;
mod control;
mod dead;
mod delivery;
mod duplicate;
mod emit;
mod fixture;
mod halt;
mod in_place;
mod keep;
mod lead;
mod merge;
mod pair;
mod random;
mod receive;
#[path = "../../../cli/src/bench/redis_server.rs"]
mod redis_server;
mod renew;
mod send;
mod shape;
mod strikes;

use fixture::{Fixture, MemoryFixture, Opened, RedisFixture, SqliteFixture};

/// Every case, as a test of its own, against one kind of store.
macro_rules! contract_suite {
    ($store:ident, $fixture:ty) => {
        mod $store {
            use super::*;

            contract_suite! { @file $fixture, send:
                what_is_sent_again_is_there_once,
                what_goes_beyond_is_appended,
                a_gap_is_refused,
                nothing_sent_tells_the_last_number,
                producers_and_those_without_a_name_do_not_mix,
                what_is_out_is_not_sent_again,
                thousands_in_one_batch,
                who_was_not_heard_of_for_long_is_forgotten,
                a_late_send_of_an_earlier_session_is_refused,
                a_session_that_is_opened_again_is_the_same,
                a_session_that_is_not_known_counts,
                nothing_is_appended_where_too_many_would_wait,
                what_is_there_already_needs_no_room,
                only_what_waits_to_be_claimed_counts,
            }
            contract_suite! { @file $fixture, claim:
                flows_from_send_to_receive,
                an_empty_line_answers,
                claims_ascend_and_end_at_the_most_asked_for,
                an_answer_ends_at_its_bytes,
                what_is_too_large_is_not_handed_out,
                no_limit_at_all,
                a_full_window_hands_out_nothing_new,
                a_window_smaller_than_what_is_in_flight,
                nothing_new_beyond_what_the_caller_says,
                what_is_free_again_goes_before_what_is_new,
                an_expired_lease_in_each_state,
                an_owner_that_claims_keeps_what_it_holds,
                claiming_nothing_says_that_one_is_alive,
                thousands_at_once,
            }
            contract_suite! { @file $fixture, complete:
                a_lease_that_another_took_is_stale,
                an_older_attempt_of_the_same_owner_is_stale,
                what_was_never_claimed_is_stale,
                an_expired_lease_that_nobody_took_counts,
                said_twice_it_counts_once,
                a_batch_is_answered_one_by_one,
                a_retry_waits_out_its_delay,
                a_retry_without_delay_is_free_at_once,
                a_dead_letter_leaves_a_tombstone,
                a_dead_letter_without_a_tombstone_leaves_nothing,
                nothing_to_complete,
                what_is_no_result_and_what_is_no_tombstone,
            }
            contract_suite! { @file $fixture, control:
                paused_nothing_is_handed_out,
                what_is_in_flight_is_delivered_while_paused,
                draining_only_what_was_claimed_is_handed_out,
                an_empty_line_is_drained_at_once,
                a_rate_holds_over_all_processors,
                a_slow_rate_is_exact,
                a_clock_set_back_neither_stops_a_rate_nor_adds,
                what_was_passed_over_counts_when_it_goes_out,
                what_is_free_again_waits_only_for_what_stands_before_it,
                a_line_that_drains_hands_out_what_was_passed_over,
            }
            contract_suite! { @file $fixture, renew:
                a_zombie_learns_what_it_has_lost,
                a_zombie_that_was_not_missed_keeps_all,
                the_claim_whose_reply_was_lost_is_found,
                who_holds_the_head_is_told,
                what_is_found_is_limited,
                who_leaves_gives_all_back,
                who_leaves_twice_or_was_never_there,
                a_lease_lasts_until_its_deadline_and_no_longer,
                owners_may_have_odd_names,
            }
            contract_suite! { @file $fixture, keep:
                the_last_so_many_records_stay,
                what_is_too_old_goes,
                what_is_not_delivered_stays,
                what_is_still_asked_for_stays,
                a_late_duplicate_asks_for_nothing,
                an_id_counts_once_as_long_as_its_record_stays,
                the_last_so_many_dead_letters_stay,
                the_last_so_many_outputs_stay,
                a_step_lets_go_of_so_many_and_says_that_there_is_more,
                what_was_told_last_is_known,
            }
            contract_suite! { @file $fixture, lead:
                one_leads_and_the_other_waits,
                a_renewal_keeps_the_term,
                an_expired_lock_goes_to_the_next_with_a_new_term,
                an_expired_lock_taken_again_by_its_owner_is_a_new_term,
                who_resigns_hands_over_at_once,
                only_the_leader_can_resign,
                an_old_term_is_fenced,
                after_the_lock_ran_out_the_term_counts_until_the_next,
            }
            contract_suite! { @file $fixture, clock:
                set_back_leases_last_no_longer,
                set_back_a_delay_lasts_no_longer,
                set_back_the_lock_lasts_no_longer,
                set_back_the_living_keep_what_they_hold,
                set_back_again_and_again,
                a_clock_that_wavers_changes_no_deadline,
                set_forward_it_costs_an_attempt,
            }
            contract_suite! { @file $fixture, delivery:
                the_head_goes_out_with_its_complete,
                what_waited_goes_out_with_the_head,
                tombstones_and_nothing_at_all_have_their_turn,
                an_id_that_came_twice_comes_out_once,
                an_id_that_looks_like_a_position,
                what_a_leader_left_goes_out_with_the_next_step,
                a_leader_delivers_what_the_store_has_not,
                a_lease_that_another_took_delivers_nothing,
                thousands_wait_for_one,
            }
            contract_suite! { @file $fixture, emit:
                said_twice_it_counts_once,
                a_wrong_head_moves,
                what_is_not_processed_moves,
                what_does_not_stand_there_moves,
                a_gap_moves,
                part_of_what_waits,
                nothing_at_all,
                the_stream_is_followed_in_pages,
            }
            contract_suite! { @file $fixture, merge:
                what_has_its_turn_comes_out,
                said_twice_it_counts_once,
                a_wrong_head_moves,
                another_line_is_no_base,
                an_old_term_is_fenced,
                what_is_missing_is_given_up_when_it_is_time,
                what_is_missing_later_is_missing_since_then,
                set_back_it_is_missing_since_now,
                what_comes_late_is_buried_once,
                what_came_again_is_nothing,
                a_thousand_at_once,
                outputs_in_hand_are_passed_over,
            }
            contract_suite! { @file $fixture, receive:
                stays_until_it_is_acknowledged,
                acknowledged_twice_or_beyond,
                one_is_active_and_the_others_are_fenced,
                an_old_reign_neither_acknowledges_nor_gets_anything,
                who_gives_it_up_hands_over_at_once,
                a_consumers_name_may_be_odd,
                set_back_a_consumers_lock_lasts_no_longer,
            }
            contract_suite! { @file $fixture, dead:
                retried_it_comes_again_at_the_end,
                said_twice_it_counts_once,
                purged_it_is_gone,
                what_waits_for_its_turn_is_left_alone,
                what_is_retried_keeps_its_bytes_and_comes_in_the_order_asked_for,
                what_was_retried_may_die_again,
                retention_goes_on_with_what_is_left,
            }
            contract_suite! { @file $fixture, halt:
                retried_it_has_its_old_place,
                skipped_or_marked_the_line_goes_on,
                only_a_line_that_is_halted_goes_on,
                behind_the_head_it_is_decided_too,
                what_ended_before_does_not_end_it_again,
                what_is_ready_goes_out_whatever_is_judged,
                a_duplicate_does_not_halt,
                by_key_only_its_key_waits,
                by_key_what_is_marked_has_its_turn,
                without_order_or_key_it_waits_alone,
                retention_leaves_it,
            }
            contract_suite! { @file $fixture, duplicate:
                the_first_is_done_first,
                the_second_is_done_first,
                after_delivery,
                three_of_them,
                one_of_two_dies,
                in_one_batch,
            }
            contract_suite! { @file $fixture, bytes:
                garbage_comes_through_as_it_is,
                garbage_is_buried_as_it_is,
                odd_ids_keys_and_numbers,
                every_payload_comes_out_as_it_went_in,
            }
            contract_suite! { @file $fixture, shape:
                who_wishes_first_is_heard,
                what_waits_has_no_order_yet,
                what_waits_is_in_its_partition,
                partitions_are_kept,
                a_line_that_was_worked_at_is_total,
            }
            contract_suite! { @file $fixture, in_place:
                without_order_what_is_done_goes_out,
                by_key_a_result_waits_for_its_key_alone,
                what_fails_holds_up_its_key_alone,
                whoever_is_to_deliver_the_store_does,
                the_window_counts_what_is_not_delivered,
                one_of_a_key_at_a_time,
                whatever_happens_to_it_the_next_of_its_key_waits,
                what_is_passed_over_counts_and_is_bounded,
                a_key_is_read_however_it_is_written,
                what_is_too_large_keeps_its_key,
                an_id_comes_out_once,
                an_id_keeps_its_first_place_in_its_key,
                an_id_in_two_keys_does_not_wait_twice,
                one_of_two_dies,
                many_in_one_batch,
                acknowledged_is_what_came_before,
                an_owner_finds_what_it_holds_beyond_the_head,
                thousands_wait_for_one_of_their_key,
                a_record_stays_until_the_head_is_past_it,
            }
            contract_suite! { @file $fixture, strikes:
                only_what_most_suspicion_is_on_is_blamed,
                each_death_is_blamed_by_itself,
                what_was_blamed_twice_comes_in_small_numbers,
                what_is_to_be_alone_waits_for_empty_hands,
                what_is_delayed_hides_no_suspect,
                what_is_to_be_alone_comes_with_nothing,
                who_leaves_is_no_crash,
                an_answer_ends_the_suspicion,
                what_is_done_leaves_no_strikes,
            }
            contract_suite! { @file $fixture, random:
                histories,
                histories_by_key,
                serial_histories,
                histories_without_order,
            }
        }
    };
    (@file $fixture:ty, $file:ident: $($case:ident,)*) => {
        mod $file {
            use super::*;

            $(
                #[tokio::test]
                async fn $case() {
                    crate::$file::$case::<$fixture>().await;
                }
            )*
        }
    };
}

contract_suite!(memory, MemoryFixture);
contract_suite!(sqlite, SqliteFixture);
contract_suite!(redis, RedisFixture);
