//! The laws of [`conga::ledger`], for the store as its own ledger and for PostgreSQL; and what is special about that one.
//!
//! A ledger is used as a processor uses it: it records, and then the store's complete is told what it keeps. So each case
//! looks at what was delivered, too.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod bank;
mod desk;
mod flow;
mod ill;
mod kept;
mod leave;
mod limit;
mod payload;
#[path = "../../../cli/src/bench/postgres_server.rs"]
mod postgres_server;
mod recall;
mod schema;
mod script;
mod tls;
mod transfers;
mod zombie;

use desk::{Desk, PostgresDesk, StoreDesk};

/// Every case, as a test of its own, against one kind of ledger.
macro_rules! ledger_suite {
    ($ledger:ident, $desk:ty) => {
        mod $ledger {
            use super::*;

            ledger_suite! { @file $desk, kept:
                what_is_recorded_is_kept_and_delivered,
                nothing_to_record,
                a_batch_is_answered_in_its_order,
                said_twice_it_is_recorded_once,
                of_two_results_the_first_stays_and_is_delivered,
                two_of_one_id_in_one_batch,
                a_zombie_and_its_successor_deliver_the_same,
                lines_do_not_see_each_other,
                many_batches_at_once_in_any_order,
                browsed_to_the_end,
            }
            ledger_suite! { @file $desk, payload:
                payloads_come_back_byte_for_byte,
                ids_and_keys_of_all_kinds,
                numbers_and_datetimes_at_their_ends,
                a_megabyte,
            }
        }
    };
    (@file $desk:ty, $file:ident: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$file::$case(&<$desk>::new().await).await;
            }
        )*
    };
}

ledger_suite!(store, StoreDesk);
ledger_suite!(postgres, PostgresDesk);
