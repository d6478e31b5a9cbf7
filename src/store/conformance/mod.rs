//! What every kind of store does, as tests that each kind runs over itself.
//!
//! A kind gives `suite!` an async function that opens an empty store; each behaviour becomes a test of its own. Nothing
//! in here knows how a store keeps its rows.

mod accounts;
mod changes;
mod claims;
mod fixture;
mod inbox;
mod nodes;
mod overview;
mod reads;
mod upkeep;

use std::sync::Arc;

pub(crate) use fixture::{NODE, OTHER, Session, account, report, user};

use super::Store;

/// An empty store and its clock.
pub(crate) struct Subject {
    /// The store; a lease of [`NODE`] is not in it yet.
    pub(crate) store: Arc<dyn Store>,
    /// Moves the store's clock on by so many milliseconds.
    pub(crate) advance: Box<dyn Fn(i64) + Send + Sync>,
    /// What has to live as long as the store.
    pub(crate) _keep: Box<dyn std::any::Any + Send + Sync>,
}

macro_rules! behaviours {
    ($($room:ident: $($behaviour:ident,)*;)*) => {
        $($(pub(crate) use $room::$behaviour;)*)*

        /// `suite!(open)`: a test for each behaviour, over a store that `open().await` makes.
        macro_rules! suite {
            ($open:path) => {
                $($(
                    #[tokio::test]
                    async fn $behaviour() {
                        $crate::store::conformance::$behaviour(&$open().await).await;
                    }
                )*)*
            };
        }
        pub(crate) use suite;
    };
}

behaviours! {
    accounts:
        a_name_is_given_out_once,
        an_account_is_found_by_name_and_by_id_while_it_lives,
        tokens_end_by_time_by_removal_and_by_number,
        a_new_password_ends_the_other_tokens,
        a_new_public_key_tells_every_session_of_the_user,
        closing_an_account_tells_every_session_once,
        a_row_written_for_a_closed_account_tells_the_session,
        a_disabled_account_is_out_until_it_is_enabled,
        a_row_written_for_a_disabled_account_tells_the_session,
        all_tokens_of_a_user_are_revoked_at_once,
    ;
    claims:
        a_claim_raises_the_fence_each_time,
        a_live_owner_keeps_its_sessions_until_its_lease_is_over,
        a_node_that_holds_back_takes_nothing_from_a_dead_one,
        a_session_given_up_is_free_at_once,
        an_older_fence_or_version_commits_nothing,
        a_session_of_a_batch_that_is_refused_leaves_the_others_alone,
        a_session_is_made_once_per_id_of_its_creator,
        an_ended_session_is_not_claimed_and_takes_no_commit,
        tasks_go_with_the_commit_that_takes_them_in,
    ;
    changes:
        every_record_comes_back_with_a_claim,
        what_is_removed_does_not_come_back,
        a_forgotten_message_id_may_come_again,
        a_rejoin_starts_its_acks_anew,
    ;
    reads:
        events_are_read_both_ways_within_limit_and_bytes,
        a_recalled_message_is_read_as_what_stands_in_for_it,
        access_says_what_a_user_is_at_a_moment,
        members_are_paged_by_id_with_key_and_mute,
        session_info_tells_what_is_open,
        an_overview_tells_where_its_user_stands,
        departures_tell_why,
        room_keys_are_read_replaced_and_dropped,
    ;
    inbox:
        inbox_events_stay_in_order_until_acknowledged,
        inbox_events_lapse_and_are_withdrawn,
        keys_in_the_inbox_are_read_up_to_a_version_and_go_with_their_user,
        acks_never_move_back_and_those_of_strangers_are_dropped,
    ;
    nodes:
        a_renewal_tells_what_the_node_said_and_is_asked_for,
        a_node_lives_until_its_lease_is_over,
        the_bus_was_in_reach_when_a_node_last_said_so,
    ;
    overview:
        positions_leave_out_what_ended,
        memberships_of_many_users_are_paged,
        an_inbox_counts_while_something_in_it_has_not_lapsed,
        operators_see_sessions_page_by_page,
        operators_see_an_account_whatever_its_standing,
    ;
    upkeep:
        what_is_kept_no_longer_is_removed_in_parts,
        key_coverage_counts_who_is_without,
        the_store_proves_that_it_commits,
    ;
}
