//! Random histories of a partition: several processors and two leaders, none of whom can be trusted to be up to date.
//! Some of the processors have the store deliver.

use conga_core::invariant::{Violation, check_all, loss};
use proptest::prelude::*;

mod driver;
mod ending;
mod leader;
mod op;

use driver::Driver;
use op::op;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_history_loses_doubles_or_reorders(
        ops in prop::collection::vec(op(), 1..200),
        deliver in prop_oneof![Just(vec![false; 3]), Just(vec![true; 3]), prop::collection::vec(any::<bool>(), 3)],
        drains_by_the_store in any::<bool>(),
    ) {
        let mut driver = Driver::new(deliver);
        for op in &ops {
            driver.run(op);
        }
        driver.heal_and_drain(drains_by_the_store);
        let history = driver.finish();
        let found: Vec<_> = check_all(&history).iter().map(Violation::to_string).collect();
        prop_assert_eq!(found, Vec::<String>::new());
        prop_assert_eq!(loss::count(&history).sent, driver.sent_ids());
    }
}
