//! Random histories of a partition: several processors and two leaders, none of whom can be trusted to be up to date.

use conga_core::invariant::{Violation, check_all, loss};
use proptest::prelude::*;

mod driver;

use driver::{Driver, Ending, Op};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u8..5, prop::bool::weighted(0.2)).prop_map(|(count, again)| Op::Send { count, again }),
        6 => (0_u8..3, 1_u8..6, prop_oneof![4 => Just(8_u8), 1 => 1_u8..8])
            .prop_map(|(owner, max, window)| Op::Claim { owner, max, window }),
        12 => (0_u8..3, any::<u8>(), ending(), any::<bool>())
            .prop_map(|(owner, pick, ending, forget)| Op::Complete { owner, pick, ending, forget }),
        3 => (0_u8..3, any::<bool>()).prop_map(|(owner, compare)| Op::Renew { owner, compare }),
        1 => (0_u8..3).prop_map(|owner| Op::Leave { owner }),
        4 => (0_u8..2).prop_map(|leader| Op::Campaign { leader }),
        1 => (0_u8..2).prop_map(|leader| Op::Resign { leader }),
        6 => (0_u8..2).prop_map(|leader| Op::Follow { leader }),
        6 => (0_u8..2, any::<bool>()).prop_map(|(leader, lost)| Op::Emit { leader, lost }),
        2 => (0_u8..9, any::<bool>()).prop_map(|(max, acknowledge)| Op::Receive { max, acknowledge }),
        4 => prop_oneof![Just(1_u32), 1_u32..400_000, Just(1_000_000)].prop_map(|us| Op::Advance { us }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        5 => Just(Ending::Done),
        1 => any::<bool>().prop_map(|deliver| Ending::Dead { deliver }),
        1 => prop_oneof![Just(0), 1_u32..600_000].prop_map(|delay_us| Ending::Retry { delay_us }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn no_history_loses_doubles_or_reorders(ops in prop::collection::vec(op(), 1..200)) {
        let mut driver = Driver::default();
        for op in &ops {
            driver.run(op);
        }
        driver.heal_and_drain();
        let history = driver.finish();
        let found: Vec<_> = check_all(&history).iter().map(Violation::to_string).collect();
        prop_assert_eq!(found, Vec::<String>::new());
        prop_assert_eq!(loss::count(&history).sent, driver.sent_ids());
    }
}
